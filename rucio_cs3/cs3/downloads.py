"""Downloads: all bytes of a file, in order, compared with what the server says it has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import requests

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import FileInfo, pick_ticket
from rucio_cs3.cs3.streams import CHUNK_BYTES


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

    def open(self, info: FileInfo, *, idle_timeout_s: float | None = None) -> RemoteFile:
        """A file to read from; it is asked for on entry of the ``with`` block, and for each new beginning.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        """
        return RemoteFile(lambda: self._get(info, idle_timeout_s), size=info.size, target=str(info.reference))

    def fetch(
        self, info: FileInfo, write: Callable[[memoryview], object], *, idle_timeout_s: float | None = None
    ) -> None:
        """Hand all bytes of a file to ``write``, piece by piece; each is valid only until the next.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        :raises SizeMismatch: as soon as more come than the server says there are.
        :raises TransferInterrupted: when fewer come than were announced.
        """
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with self.open(info, idle_timeout_s=idle_timeout_s) as file:
            while count := file.readinto(buffer):
                write(buffer[:count])

    @contextlib.contextmanager
    def _get(self, info: FileInfo, idle_timeout_s: float | None) -> Iterator[requests.Response]:
        used = self._gateway.tokens.get()
        for last in (False, True):
            tickets = self._gateway.initiate_download(info.reference)
            ticket = pick_ticket(tickets, ("simple", "spaces"), info.reference)
            with self._data.open(ticket, target=str(info.reference), idle_timeout_s=idle_timeout_s) as response:
                if last or response.status_code != 401:
                    yield response
                    return
            # The token died between ticket and GET.
            self._gateway.tokens.invalidate(used)


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
