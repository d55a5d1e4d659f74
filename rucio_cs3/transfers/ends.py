"""The two ends of a transfer: one file at one site, with all that a transfer asks of it; knows no Rucio.

:class:`End` and :class:`Landing` are what :mod:`rucio_cs3.transfers.ladder` and :mod:`rucio_cs3.transfers.copies` use.
There are two kinds: of a CS3 cloud (:mod:`rucio_cs3.transfers.cs3_end`), and of any other WebDAV site, which is reached
over HTTP only (:mod:`rucio_cs3.transfers.webdav_end`). :mod:`rucio_cs3.agent.hops` makes them from a row of Rucio's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.transfers.modes import Wish


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

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        """Keep checksums beside a file that was just read and has them, where the site can and it is worth it.

        :param info: the last look before the read.
        """
        ...

    def landing(self) -> Landing:
        """A new hidden sibling of the file, for one copy. Nothing stands there, and nobody is asked."""
        ...

    def leftovers(self) -> Sequence[Landing]:
        """Landings of this file that earlier attempts have left. One that somebody else's copy is still on its way into
        is among them.

        :raises CS3Error: when that cannot be found out.
        """
        ...


class Landing(End, Protocol):
    """Where a copy lands: a hidden sibling that nobody else has.

    Whatever becomes of the copy, nothing of it is under the file's name before :meth:`take_name`. A site that goes on
    with a copy which everybody else has given up makes no more than a hidden file (Reva v3.12.1 does so when its link
    is back).
    """

    def store(self, body: UploadBody) -> None:
        """Send the file's bytes here.

        After a failure :meth:`discard` is to follow.
        """
        ...

    def take_name(self, file: FileInfo) -> None:
        """Give it the name of the file that it is for.

        :param file: what its proof has found here.
        :raises AlreadyExists: when something stands there; both stay.
        """
        ...

    def discard(self, *, may_come: bool) -> None:
        """Remove what is here, if anything.

        :param may_come: it may yet come into being, as what a broken connection leaves.
        :raises CS3Error: when something may be left.
        """
        ...


class NothingToLend(errors.Unsupported):
    """An end has no token for the other side; it may still act itself, or the file be relayed."""
