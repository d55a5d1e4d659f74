"""Downloads: all bytes of a file, in order, compared with what the server says it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo, pick_ticket


class Downloads:
    """Fetches files from one endpoint; safe for many threads."""

    def __init__(self, gateway: Gateway, data: DataGateway, namespace: Namespace) -> None:
        self._gateway = gateway
        self._data = data
        self._namespace = namespace

    def readable(self, reference: Reference) -> FileInfo:
        """Look before a download: OpenCloud gives tickets for missing files and folders, too."""
        info = self._namespace.settled(reference)
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="GET", target=str(reference))
        return info

    def fetch(self, info: FileInfo, write: Callable[[bytes], object], *, idle_timeout_s: float | None = None) -> None:
        """Hand all bytes of a file to ``write``, piece by piece.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        :raises SizeMismatch: as soon as more come than the server says there are.
        """
        target = str(info.reference)
        received = 0

        def take(piece: bytes) -> None:
            nonlocal received
            received += len(piece)
            if received > info.size:
                # Said at once: a body without an end would fill the disk.
                raise errors.SizeMismatch(
                    f"more than the {info.size} bytes come that the server says it has", operation="GET", target=target
                )
            write(piece)

        used = self._gateway.tokens.get()
        for last in (False, True):
            tickets = self._gateway.initiate_download(info.reference)
            try:
                ticket = pick_ticket(tickets, ("simple", "spaces"), info.reference)
                self._data.get(ticket, take, target=target, idle_timeout_s=idle_timeout_s)
            except errors.Unauthenticated:
                # The token died between ticket and GET; a 401 comes before any byte.
                if last:
                    raise
                self._gateway.tokens.invalidate(used)
            else:
                return


def compare(info: FileInfo, size: int, digests: Mapping[str, str], *, operation: str) -> None:
    """Compare what passed through here with what the server says it has."""
    target = str(info.reference)
    if info.size != size:
        raise errors.SizeMismatch(
            f"{size} bytes passed, but the server has {info.size}", operation=operation, target=target
        )
    for algorithm in digests.keys() & info.checksums.keys():
        if digests[algorithm] != info.checksums[algorithm]:
            raise errors.ChecksumMismatch(
                f"{algorithm} of what passed is {digests[algorithm]}, but the server says {info.checksums[algorithm]}",
                operation=operation,
                target=target,
            )
