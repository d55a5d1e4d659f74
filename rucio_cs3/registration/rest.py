"""Rucio's catalogue by its REST interface, for any account that may add replicas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rucio.client import Client
from rucio.common import exception

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.registration.catalogue import MOST, CatalogueError, Known, NewFile, Refused, essence
from rucio_cs3.registration.content_memory import ContentMemory
from rucio_cs3.registration.plan import ALGORITHMS
from rucio_cs3.registration.templates import Did

#: After one of these no other file has a chance, either.
_HOPELESS = (
    exception.AccessDenied,
    exception.CannotAuthenticate,
    exception.ConfigNotFound,
    exception.InvalidRSEExpression,
    exception.NoAuthInformation,
    exception.RSENotFound,
    exception.ResourceTemporaryUnavailable,
    exception.ServerConnectionException,
    exception.ServiceUnavailable,
)


class RestCatalogue:
    """See :class:`~rucio_cs3.registration.catalogue.Catalogue`.

    :param make_client: makes a client of Rucio; one for each thread, because their HTTP sessions are not shared.
    """

    most = MOST
    remark = ""

    def __init__(self, cloud: Cloud, make_client: Callable[[], Client] = Client) -> None:
        assert cloud.rse is not None
        self._cloud = cloud
        self._rse = cloud.name
        self._keeps_paths = not cloud.rse["deterministic"]
        self._make_client = make_client
        self._local = threading.local()
        self._content = ContentMemory()
        self.vo = str(self._client.vo)

    @property
    def described(self) -> str:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        return f"Rucio's server {self._client.host} as account {self._client.account}"

    @property
    def _client(self) -> Client:
        if not hasattr(self._local, "client"):
            with _asking():
                self._local.client = self._make_client()
        return self._local.client

    def scopes(self) -> Collection[str]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with _asking():
            return set(self._client.list_scopes())

    def look(self, dids: Collection[Did], *, parents: Collection[Did] = ()) -> Mapping[Did, Known]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. One request, one more where some are there, and one
        for each of the parents that was not asked for before.
        """
        with _asking():
            found = {
                Did(row["scope"], row["name"]): _known(row) for row in self._client.get_metadata_bulk(_plain(dids))
            }
            files = [did for did, known in found.items() if known.kind == "FILE"]
            if not files:
                return found
            content = {parent: self._content.of(parent, self._list) for parent in parents}
            one_by_one = None in content.values()
            replicas = self._client.list_replicas(
                _plain(files),
                rse_expression=self._rse,
                all_states=True,
                resolve_parents=one_by_one,
                domain="wan",
                # By default Rucio looks up where on earth the hosts are: some 4 ms of its processor for each file.
                sort="random",
            )
            for row in replicas:
                did = Did(row["scope"], row["name"])
                if did not in found:
                    continue
                above = set(row.get("parents") or ())
                found[did] = replace(
                    found[did],
                    state=(row.get("states") or {}).get(self._rse),
                    path=self._path(row) if self._keeps_paths else None,
                    parents=frozenset(
                        parent
                        for parent, children in content.items()
                        if (str(parent) in above if children is None else did in children)
                    ),
                )
        return found

    def _list(self, parent: Did) -> Iterator[Did]:
        with contextlib.suppress(exception.DataIdentifierNotFound):
            for row in self._client.list_content(*parent):
                yield Did(row["scope"], row["name"])

    def _path(self, row: Mapping[str, Any]) -> str | None:
        above = self._cloud.folder.path
        for pfn in (row.get("rses") or {}).get(self._rse) or ():
            with contextlib.suppress(errors.InvalidReference):
                path = self._cloud.endpoint.webdav.reference(pfn).path
                return path[len(above) :].strip("/") if path.startswith(above) else path
        return None

    def others(self, paths: Collection[str]) -> Mapping[str, Did]:
        """Nothing: 41.5.1 has no such question for RSEs like these. ``POST /replicas/dids`` always takes an RSE's
        protocol for scheme ``srm`` (``core/replica.py``: ``get_did_from_pfns``).
        """
        return {}

    def make(self, collections: Collection[Did], kind: str) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        told = [{**did._asdict(), "type": kind} for did in collections]
        with _asking():
            try:
                self._client.add_dids(told)
            except exception.DataIdentifierAlreadyExists:
                # One of them, and then none was made.
                for one in told:
                    with contextlib.suppress(exception.DataIdentifierAlreadyExists):
                        self._client.add_dids([one])

    def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. Two requests, each of them a transaction."""
        with _asking():
            try:
                if files:
                    self._client.add_replicas(self._rse, [file.as_rucio_has_it() for file in files])
                self._attach(attachments)
            except _HOPELESS:
                raise
            except exception.RucioException as exc:
                # Maybe because somebody else has put the same there; those who ask then want to know.
                self._content.forget(attachments)
                raise Refused(essence(exc)) from exc

    def attach(self, attachments: Mapping[Did, Collection[Did]]) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with _asking():
            self._attach(attachments)

    def _attach(self, attachments: Mapping[Did, Collection[Did]]) -> None:
        told = [{**parent._asdict(), "dids": _plain(children)} for parent, children in attachments.items() if children]
        if told:
            self._client.attach_dids_to_dids(told, ignore_duplicate=True)

    def add_rule(self, dataset: Did, *, locked: bool) -> bool:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with _asking():
            try:
                self._client.add_replication_rule(_plain([dataset]), 1, self._rse, locked=locked)
            except exception.DuplicateRule:
                return False
            except _HOPELESS:
                raise
            except exception.RucioException as exc:
                raise Refused(essence(exc)) from exc
        return True


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except exception.InvalidObject as exc:
        # What its schema does not allow, in any request.
        raise Refused(essence(exc).partition(" Failed validating")[0]) from exc
    except exception.RucioException as exc:
        raise CatalogueError(f"Rucio's server says: {essence(exc)}") from exc


def _plain(dids: Collection[Did]) -> list[dict[str, str]]:
    # Dicts of their own for each request: Rucio's client and server write into them.
    return [did._asdict() for did in dids]


def _known(row: Mapping[str, Any]) -> Known:
    kind = row["did_type"]
    return Known(
        kind=str(getattr(kind, "name", kind)),
        size=row.get("bytes"),
        checksums={name: str(row[name]).lower() for name in ALGORITHMS if row.get(name)},
        is_open=bool(row.get("is_open")),
    )
