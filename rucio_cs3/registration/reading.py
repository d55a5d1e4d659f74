"""Checksums of files whose server has none: the whole of each is read, several at a time. Nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.storage import CS3Storage
from rucio_cs3.cs3.team import Team
from rucio_cs3.registration.plan import ALGORITHMS


class Reader:
    """Reads files of one cloud; safe for several threads. Stop it at the end.

    :param parallel: files at a time.
    :param progress: called with the bytes that came, by several threads; negative where they are read again.
    """

    def __init__(self, storage: CS3Storage, *, parallel: int, progress: Callable[[int], object] | None = None) -> None:
        self._storage = storage
        self._progress = progress
        self._team = Team(parallel, "cs3-checksums")

    def read(self, infos: Sequence[FileInfo]) -> list[dict[str, str] | str]:
        """adler32 and md5 of each file; a sentence in place of those of a file that cannot be had.

        :param infos: as the server last said; a file that is another by the time it was read has no checksum here.
        :raises CancelledError: when :meth:`stop` is called meanwhile.
        """
        return [future.result() for future in [self._team.submit(partial(self._checksums, info)) for info in infos]]

    def stop(self) -> None:
        """Begin nothing more, and break off what is being read with the next bytes that come. Idempotent."""
        self._team.stop()

    def _checksums(self, info: FileInfo) -> dict[str, str] | str:
        try:
            sums = self._storage.digests(info.reference, ALGORITHMS, progress=self._told)
            after = self._storage.stat(info.reference)
        except errors.CS3Error as error:
            return f"it could not be read: {error}"
        return sums if after.content == info.content else "it changed meanwhile; register it again"

    def _told(self, count: int) -> None:
        self._team.check()
        if self._progress is not None:
            self._progress(count)
