"""The DIDs of a file, and whether Rucio takes them: by its own schema, and where an RSE computes the places of files.

Asks Rucio's code on this machine, never its server.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.registration.templates import Did, DidTemplate, Located, Template

#: Longest path of a replica, in characters: a column of that length (Rucio 41.5.1 ``db/sqla/models.py``: REPLICAS).
PATH_MAX = 1024


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How files are named.

    :param dataset: of the dataset that a file is put into; None is none.
    :param container: of the container that the dataset is put into; None is none.
    """

    file: DidTemplate
    dataset: DidTemplate | None = None
    container: DidTemplate | None = None

    @classmethod
    def parse(cls, *, scope: str, name: str, dataset: str | None = None, container: str | None = None) -> Naming:
        """
        :raises TemplateError: when one of them is no template.
        """
        scopes = Template(scope)
        return cls(
            file=DidTemplate(Template(name), scopes),
            dataset=None if dataset is None else DidTemplate.parse(dataset, scope=scopes),
            container=None if container is None else DidTemplate.parse(container, scope=scopes),
        )


class Schema(Protocol):
    """What Rucio lets a DID be called."""

    def fault(self, did: Did) -> str | None:
        """Why Rucio does not take it; None where it does."""


class RucioSchema:
    """Rucio's own schema of scopes and names, of the policy in force here for a virtual organisation.

    :raises ImportError: where only Rucio's clients are installed: those of 41.5.1 have the schema, but it imports a
        part of the server (``rucio.db``).
    """

    def __init__(self, vo: str) -> None:
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # it ships no types
        from rucio.common.schema import get_schema_value

        self._validators: list[tuple[str, Any]] = []
        for key in ("SCOPE", "NAME"):
            schema = get_schema_value(key, vo)
            self._validators.append((key.lower(), validator_for(schema)(schema)))
        #: There are few, and each file has one.
        self._good_scopes: set[str] = set()

    def fault(self, did: Did) -> str | None:
        """See :class:`Schema`."""
        scope, name = self._validators
        if did.scope not in self._good_scopes:
            if wrong := _refused(*scope, did.scope):
                return wrong
            self._good_scopes.add(did.scope)
        return _refused(*name, did.name)


class Deterministic:
    """Places of files at a deterministic RSE, which computes them of scope and name."""

    def __init__(self, cloud: Cloud) -> None:
        assert cloud.rse is not None
        assert cloud.protocol is not None
        self._cloud = cloud
        module, _, name = str(cloud.protocol["impl"]).rpartition(".")
        # A copy: Rucio's base class writes into what it is given. Not by its create_protocol(), which looks for an
        # operation that the protocol is allowed to do; names are nothing that it would do.
        attributes = {**cloud.protocol, "auth_token": None}
        self._protocol = getattr(importlib.import_module(module), name)(attributes, cloud.rse)

    def place(self, did: Did) -> Reference:
        """Where the RSE has a file of that name."""
        (pfn,) = self._protocol.lfns2pfns({"scope": did.scope, "name": did.name}).values()
        return self._cloud.endpoint.webdav.reference(pfn)

    def fault(self, did: Did, reference: Reference) -> str | None:
        """Why a file cannot be a replica under that name; None where it can."""
        try:
            place = self.place(did)
        except errors.InvalidReference as error:
            return f"the RSE has no place for {did}: {error.message}"
        if place == reference:
            return None
        return f"the RSE is deterministic and has {did} at {self._cloud.shown(place)}"

    def fitting(self, file: Located, reference: Reference) -> tuple[str, str] | None:
        """Templates for scope and name by which a file is where the RSE would have it, of those that are common."""
        for scope, name in _CANDIDATES:
            naming = Naming.parse(scope=scope, name=name)
            did = naming.file.of(file)
            if did.scope and did.name and self.fault(did, reference) is None:
                return scope, name
        return None


#: How Rucio's own algorithms make a path (41.5.1 ``rse/translation.py``): ``identity`` is scope/name, ``hash`` is
#: scope/ab/cd/name; both write the scopes ``user.x`` and ``group.x`` as two folders.
_CANDIDATES = (
    ("{folder[:1]}", "{path[1:]}"),
    ("{folder[:1]}", "{path[3:]}"),
    ("{folder[:2]:.}", "{path[2:]}"),
    ("{folder[:2]:.}", "{path[4:]}"),
)


def common_namings() -> Iterator[Naming]:
    """How files of deterministic RSEs are named, by Rucio's own algorithms."""
    for scope, name in _CANDIDATES:
        yield Naming.parse(scope=scope, name=name)


def _refused(what: str, validator: Any, value: str) -> str | None:
    if validator.is_valid(value):
        return None
    return f"Rucio's schema refuses {what} {value!r}: {_rule(validator, value)}"


def _rule(validator: Any, value: str) -> str:
    error = next(validator.iter_errors(value))
    limits: Mapping[str, str] = {
        "maxLength": f"it has {len(value)} characters, and may have {error.validator_value}",
        "pattern": f"it must match {error.validator_value}",
    }
    return limits.get(error.validator) or str(error.message)[:200]
