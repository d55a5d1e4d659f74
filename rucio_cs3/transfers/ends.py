"""The two ends of a transfer: one file at one site, with all that a transfer asks of it; knows no Rucio.

:class:`End` is what :mod:`rucio_cs3.transfers.ladder` and :mod:`rucio_cs3.transfers.copies` use. There are two kinds: a
CS3 cloud (:class:`CS3End`, here), and any other WebDAV site, which is reached over HTTP only
(:class:`rucio_cs3.transfers.webdav_end.WebDAVEnd`). :mod:`rucio_cs3.agent.hops` makes them from a row of Rucio's.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.tokens import LENT_LIFE_S, Credential
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.storage import CS3Storage
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.cs3.webdav.probes import TPC_PROBES
from rucio_cs3.transfers.modes import Wish

#: Files up to this size are read for their proof without a look before it, in bytes: a look costs as much as a MiB.
_READ_AT_ONCE_BYTES = 1024 * 1024

#: Storages that store paths, and had no checksum of the last file that was looked at.
_SUMLESS: weakref.WeakSet[CS3Storage] = weakref.WeakSet()


class End(Protocol):
    """One file at one site. All methods may be called from any thread, and raise :class:`~.cs3.errors.CS3Error`."""

    @property
    def name(self) -> str:
        """Of the RSE; for messages."""
        ...

    @property
    def place(self) -> str:
        """What messages call the file."""
        ...

    @property
    def url(self) -> str:
        """The file's ``https`` or ``http`` URL, free of secrets."""
        ...

    @property
    def wish(self) -> Wish:
        """The mode that the RSE asks for."""
        ...

    @property
    def proof(self) -> Proof:
        """See :attr:`rucio_cs3.cs3.config.Endpoint.proof`."""
        ...

    @property
    def http(self) -> HTTPClient:
        """HTTP client of the site."""
        ...

    @property
    def leaves_parts(self) -> bool:
        """Whether a :meth:`store` that fails may leave something of it under the file's name. Where it never does,
        what stands there is somebody else's.
        """
        ...

    @property
    def token_has_died(self) -> bool:
        """Whether the token that :meth:`authorization` gave last is known to be dead by now: the site has refused it,
        or its time is over. A new one in its place proves nothing; False where no token is kept.
        """
        ...

    def is_same_place(self, other: End) -> bool:
        """Whether both are one file, as far as names tell."""
        ...

    def stat(self) -> FileInfo:
        """
        :raises NotFound: when nothing is there.
        """
        ...

    def settled(self) -> FileInfo:
        """As :meth:`stat`, once the site has finished with the file."""
        ...

    def checksum(self, algorithm: str) -> str:
        """Of the whole file as it reads; streamed through here."""
        ...

    def read_back(self, size_bytes: int, algorithm: str) -> FileInfo | None:
        """What a read of the whole file shows, with no look before: its checksum, and that it has that size.

        :returns: None where a look is needed, or tells as much for less; nothing was read then.
        :raises CS3Error: when it cannot be read, or has another size.
        """
        ...

    def make_parents(self, *, anew: bool = False) -> bool:
        """Make the folder that the file belongs to, and those above it.

        :param anew: look for all of them; otherwise what is remembered is believed.
        :returns: whether a look found one missing; False where nobody looked.
        """
        ...

    def delete(self) -> None:
        """Delete a file, never a folder.

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder.
        """
        ...

    def speaks_tpc(self, *, max_age_s: float | None = None) -> bool:
        """Whether the site has proven that it copies to and from other sites by itself; asked once for a while.

        :param max_age_s: a proof that is older than that is none, in seconds.
        :raises CS3Error: when it cannot be found out now.
        """
        ...

    def refused_tpc(self) -> None:
        """Note that the site has just shown the opposite of what it had proven."""
        ...

    def guards_names(self) -> bool:
        """Whether the site has proven that a pull replaces nothing, so that a file may be asked for without a look at
        what stands there. What cannot be found out now is a no.
        """
        ...

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        """Value of an ``Authorization`` header that lets its bearer read (or write) this file. A secret; never a token
        of another site.

        :param lent: it is for the other side of a copy, and not for a request from here to this site: the narrowest
            and shortest-lived that the site gives.
        :raises NothingToLend: when there is none that the other side may see.
        """
        ...

    def open(self) -> AbstractContextManager[Reader]:
        """The file's bytes from the first on, through ``readinto``; ``seek(0)`` begins again.

        Reading raises TransferInterrupted where fewer bytes come than the site announced.
        """
        ...

    def store(self, body: UploadBody) -> None:
        """Send the file's bytes; nothing that stands there is replaced.

        After a failure a part may stand under the file's name where :attr:`leaves_parts` says so, and the caller knows
        whether it may go. Once this has raised, the site makes nothing more of what was sent.

        :raises AlreadyExists: when something stands there.
        """
        ...

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        """Keep checksums beside a file that was just read and has them, where the site can and it is worth it.

        :param info: the last look before the read.
        """
        ...

    def sweep(self) -> None:
        """Remove what a killed process has left of a :meth:`store` elsewhere than under the file's name.

        A :meth:`store` of the same file that somebody is still at then fails.
        """
        ...


class NothingToLend(errors.Unsupported):
    """An end has no token for the other side; it may still act itself, or the file be relayed."""


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
    def leaves_parts(self) -> bool:
        return False

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

    def guards_names(self) -> bool:
        # The probe is a pull onto a folder. Reva v3.12.1 looks at what stands there before it asks the source, and in
        # the same way at files (ocdav/tpc.go, handleTPCPull).
        try:
            return TPC_PROBES.guards(self.http, self._base_url, self.authorization(write=True))
        except errors.CS3Error:
            return False

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        # Neither line of servers takes a transfer token alone (Reva v3.12.1 and OpenCloud: 401), nor gives out a
        # token for one file, so the access token it is, for both.
        self._given = self._storage.tokens.get(min_life_s=LENT_LIFE_S if lent else 0.0)
        return f"Bearer {self._given.token}"

    def open(self) -> AbstractContextManager[Reader]:
        return self._storage.open(self._reference)

    def store(self, body: UploadBody) -> None:
        self._storage.store(body, self._reference)

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        self._storage.keep_checksums(info, checksums)

    def sweep(self) -> None:
        self._storage.sweep(self._reference)

    @property
    def _base_url(self) -> str:
        # The root's own URL: any name below it will do for questions about the front end.
        webdav = self._storage.endpoint.webdav
        return webdav.url(Reference(webdav.root))
