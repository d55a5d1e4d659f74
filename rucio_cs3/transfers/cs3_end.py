"""A file in a CS3 cloud as an end of a transfer, and where a copy lands beside it; knows no Rucio.

Names and looks go over gRPC, the copy itself is the business of the cloud's WebDAV front end.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from rucio_cs3.cs3.config import Proof
from rucio_cs3.cs3.hidden_names import hidden_sibling
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.tokens import LENT_LIFE_S, Credential
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.storage import CS3Storage
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.cs3.webdav.probes import TPC_PROBES
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.modes import Wish

#: Files up to this size are read for their proof without a look before it, in bytes: a look costs as much as a MiB.
_READ_AT_ONCE_BYTES = 1024 * 1024

#: Storages that store paths, and had no checksum of the last file that was looked at.
_SUMLESS: weakref.WeakSet[CS3Storage] = weakref.WeakSet()


class CS3End:
    """A file in a CS3 cloud.

    :param storage: of the cloud; shared by all its files.
    :param url: ``http(s)`` URL at the cloud's WebDAV front end.
    :param wish: the RSE's transfer mode.
    """

    def __init__(self, storage: CS3Storage, reference: Reference, *, url: str, wish: Wish = "auto") -> None:
        self._storage = storage
        self._reference = reference
        self.url = url
        self.wish = wish
        self._given: Credential | None = None

    @property
    def name(self) -> str:
        return self._storage.endpoint.name

    @property
    def place(self) -> str:
        return str(self._reference)

    @property
    def proof(self) -> Proof:
        return self._storage.endpoint.proof

    @property
    def http(self) -> HTTPClient:
        return self._storage.http

    @property
    def token_has_died(self) -> bool:
        return self._given is not None and self._storage.tokens.has_died(self._given)

    def is_same_place(self, other: End) -> bool:
        if self.url == other.url:
            return True
        if not isinstance(other, CS3End):
            return False
        # By text: /localfs + d/x and /localfs/d + x are one place.
        return self._storage.endpoint.gateway == other._storage.endpoint.gateway and self.place == other.place

    def stat(self) -> FileInfo:
        return self._storage.stat(self._reference)

    def settled(self) -> FileInfo:
        info = self._storage.settled(self._reference)
        # Servers that post-process (OpenCloud) keep checksums, too, so the others need no look before a read.
        if info.checksums or not self._storage.endpoint.stores_paths:
            _SUMLESS.discard(self._storage)
        elif info.size and not info.is_directory:
            _SUMLESS.add(self._storage)
        return info

    def checksum(self, algorithm: str) -> str:
        return self._storage.checksum(self._reference, algorithm)

    def read_back(self, size_bytes: int, algorithm: str) -> FileInfo | None:
        if self._storage not in _SUMLESS or not 0 < size_bytes <= _READ_AT_ONCE_BYTES:
            return None
        found = self._storage.checksum(self._reference, algorithm, size=size_bytes)
        return FileInfo(reference=self._reference, size=size_bytes, is_directory=False, checksums={algorithm: found})

    def make_parents(self, *, anew: bool = False) -> bool:
        return self._storage.make_directories(self._reference.parent, remembered=not anew)

    def delete(self) -> None:
        self._storage.delete_file(self._reference)

    def speaks_tpc(self, *, max_age_s: float | None = None) -> bool:
        return TPC_PROBES.ask(self.http, self._base_url, self.authorization(write=True), max_age_s=max_age_s)

    def refused_tpc(self) -> None:
        TPC_PROBES.note(self._base_url, speaks=False)

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        # Neither line of servers takes a transfer token alone (Reva v3.12.1 and OpenCloud: 401), nor gives out a
        # token for one file, so the access token it is, for both.
        self._given = self._storage.tokens.get(min_life_s=LENT_LIFE_S if lent else 0.0)
        return f"Bearer {self._given.token}"

    def open(self) -> AbstractContextManager[Reader]:
        return self._storage.open(self._reference)

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        self._storage.keep_checksums(info, checksums)

    def landing(self) -> CS3Landing:
        return CS3Landing(self._storage, self._reference, wish=self.wish)

    def leftovers(self) -> Sequence[CS3Landing]:
        found = self._storage.hidden_files.left_of(self._reference)
        return [CS3Landing(self._storage, self._reference, hidden, wish=self.wish) for hidden in found]

    @property
    def _base_url(self) -> str:
        # The root's own URL: any name below it will do for questions about the front end.
        webdav = self._storage.endpoint.webdav
        return webdav.url(Reference(webdav.root))


class CS3Landing(CS3End):
    """A hidden sibling of a file in a CS3 cloud.

    :param named: the file.
    :param hidden: a new one by default.
    """

    def __init__(
        self, storage: CS3Storage, named: Reference, hidden: Reference | None = None, *, wish: Wish = "auto"
    ) -> None:
        hidden = hidden or hidden_sibling(named, traceable=True)
        super().__init__(storage, hidden, url=storage.endpoint.webdav.url(hidden), wish=wish)
        self._named = named
        self._stored = False

    def store(self, body: UploadBody) -> None:
        # An upload that fails waits for what may come, and removes it.
        self._stored = True
        self._storage.hidden_files.store(body, self._reference)

    def take_name(self, file: FileInfo) -> None:
        self._storage.hidden_files.take_name(self._reference, self._named, size=file.size)

    def discard(self, *, may_come: bool) -> None:
        self._storage.hidden_files.discard(self._reference, may_come=may_come and not self._stored)
