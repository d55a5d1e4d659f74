"""Other RSEs with the same files: of the same host, and of the same folder, or one above or below it.

A file that is a replica at two RSEs goes for both when one of them deletes it. Whether a file is a replica of a
deterministic RSE its place tells, by Rucio's own algorithms; of others nobody can be asked by REST, so they are named.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.registration.naming import common_namings
from rucio_cs3.registration.templates import Did, Located
from rucio_cs3.settings import prefix_path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Neighbour:
    """A deterministic RSE by one of its protocols.

    :param protocol: makes its PFNs.
    :param prefix: of their paths; ends with a slash.
    """

    rse: str
    protocol: Any
    prefix: str

    def did_at(self, path: str, scopes: Collection[str]) -> Did | None:
        """Which file the RSE would have at a path, if any."""
        if not path.startswith(self.prefix):
            return None
        names = tuple(path[len(self.prefix) :].split("/"))
        for naming in common_namings():
            did = naming.file.of(Located(names, 0, self.rse))
            if did.scope in scopes and did.name and self._place(did) == path:
                return did
        return None

    def is_understood(self, scopes: Collection[str]) -> bool:
        """Whether its algorithm is one of Rucio's, and can be used here."""
        place = self._place(Did(min(scopes, default="scope"), "name"))
        return place is not None and self.did_at(place, {*scopes, "scope"}) is not None

    def _place(self, did: Did) -> str | None:
        try:
            (pfn,) = self.protocol.lfns2pfns({"scope": did.scope, "name": did.name}).values()
        except Exception as error:
            # An algorithm of the site, which may take names of its own kind only.
            _log.debug("RSE %s has no place for %s: %s", self.rse, did, error)
            return None
        return unquote(urlsplit(pfn).path)


class Neighbours:
    """Those of one RSE.

    :param unclear: other RSEs of which nobody can say whether a file is a replica there.
    :param unread: other RSEs whose protocols cannot be read here.
    """

    def __init__(
        self,
        deterministic: Collection[_Neighbour],
        scopes: Collection[str],
        *,
        unclear: Collection[str] = (),
        unread: Collection[str] = (),
    ) -> None:
        self._deterministic = deterministic
        self._scopes = scopes
        self.unclear = sorted(set(unclear))
        self.unread = sorted(set(unread))

    @property
    def names(self) -> list[str]:
        """The deterministic ones."""
        return sorted({one.rse for one in self._deterministic})

    def fault(self, url: str) -> str | None:
        """Why a file must not become a replica; None where it may."""
        path = unquote(urlsplit(url).path)
        for one in self._deterministic:
            did = one.did_at(path, self._scopes)
            if did is not None:
                return (
                    f"it lies where RSE {one.rse}, which has the same folder, keeps {did}; as a replica of both it "
                    "would go for both when one deletes it"
                )
        return None


def neighbours_of(
    cloud: Cloud, others: Iterable[tuple[str, Mapping[str, Any] | None]], *, scopes: Collection[str]
) -> Neighbours:
    """
    :param others: names of RSEs with what Rucio says of each (``get_rse_info``), None where it cannot be asked.
    :param scopes: of Rucio; no file has another.
    """
    assert cloud.rse is not None
    mine = {place for protocol in cloud.rse["protocols"] for place in _places(protocol)}
    found: list[_Neighbour] = []
    unclear, unread = [], []
    for name, rse in others:
        if rse is None:
            unread.append(name)
            continue
        for protocol in rse["protocols"]:
            near = [theirs for theirs in _places(protocol) if any(_overlap(theirs, one) for one in mine)]
            if not near:
                continue
            made = _made(protocol, rse) if rse["deterministic"] else None
            clear = [] if made is None else [_Neighbour(name, made, prefix) for _, _, prefix in near]
            if clear and all(one.is_understood(scopes) for one in clear):
                found += clear
            else:
                unclear.append(name)
    return Neighbours(found, scopes, unclear=unclear, unread=unread)


def others_of_rucio(name: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """All RSEs of Rucio but one, with what Rucio says of each; one request for each in a client.

    :raises ConfigurationError: when Rucio cannot be asked for its RSEs.
    """
    from rucio.common.exception import RucioException
    from rucio.rse import rsemanager

    from rucio_cs3 import places

    for other in places.names_of_rses():
        if other != name:
            try:
                yield other, rsemanager.get_rse_info(rse=other)
            except RucioException as error:
                _log.debug("RSE %s: %s", other, error)
                yield other, None


def _places(protocol: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Host, port and path of a protocol's prefix."""
    try:
        prefix = prefix_path(protocol)
    except errors.CS3Error:
        prefix = str(protocol.get("prefix") or "/")
    path = unquote(prefix).rstrip("/") + "/"
    yield str(protocol.get("hostname", "")).casefold(), int(protocol.get("port") or 0), path


def _overlap(one: tuple[str, int, str], other: tuple[str, int, str]) -> bool:
    return one[:2] == other[:2] and (one[2].startswith(other[2]) or other[2].startswith(one[2]))


def _made(protocol: Mapping[str, Any], rse: Mapping[str, Any]) -> Any:
    module, _, name = str(protocol["impl"]).rpartition(".")
    try:
        # A copy: Rucio's base class writes into what it is given.
        return getattr(importlib.import_module(module), name)({**protocol, "auth_token": None}, dict(rse))
    except Exception as error:
        # Anybody's code, and what it needs may not be installed here.
        _log.debug("RSE %s: %s cannot be used here: %s", rse.get("rse"), protocol["impl"], error)
        return None
