"""A temporary copy of bytes on this machine: in memory while it is small, and beyond that in a file without a name.

For files that are read or written out of order where the server cannot do that. Nobody else can open it, and nothing is
left of it when the process ends, however that is. Knows no network; failures of the disk become
:class:`~.errors.LocalError` here.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rucio_cs3.cs3.local_files import local_errors

#: Up to so many bytes it is in memory.
MEMORY_MAX_BYTES = 16 * 1024 * 1024


class Spool:
    """Bytes to be written and read at any position; for one thread at a time. Close it in the end.

    It has what :class:`~.streams.UploadBody` reads from.
    """

    def __init__(self) -> None:
        # The file is the owner's alone (0600), and has no name where the system can do that (O_TMPFILE).
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_MAX_BYTES)  # noqa: SIM115  # closed by close()
        #: How many bytes it has.
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the current position.

        :returns: how many bytes: all.
        :raises LocalNoSpaceLeft: when the disk of temporary files is full.
        """
        with _naming_the_disk():
            count = self._file.write(data)
            self.size = max(self.size, self._file.tell())
            return count

    def append(self, data: bytes) -> None:
        """Write behind the last byte; errors as those of :meth:`write`."""
        with _naming_the_disk():
            self._file.seek(self.size)
        self.write(data)

    def read_at(self, position: int, count: int) -> bytes:
        """At most ``count`` bytes from a position on.

        :raises LocalError: when the disk fails.
        """
        with _naming_the_disk():
            self._file.seek(position)
            return self._file.read(count)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read from the current position; 0 is the end."""
        with _naming_the_disk():
            # SpooledTemporaryFile has no readinto before Python 3.11.
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int, whence: int = 0, /) -> int:
        self._file.seek(position, whence)
        return self._file.tell()

    def truncate(self, size: int) -> None:
        """Have so many bytes; what is missing becomes zeros. The position stays."""
        with _naming_the_disk():
            position = self._file.tell()
            self._file.truncate(size)
            # A file on the disk grows so; what is in memory does not.
            missing = size - self._file.seek(0, io.SEEK_END)
            if missing > 0:
                self._file.write(bytes(missing))
            self._file.seek(position)
        self.size = size

    def close(self) -> None:
        """Idempotent."""
        # A full disk may say so only now, of bytes that nobody wants any more.
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def _naming_the_disk() -> Iterator[None]:
    with local_errors(Path(tempfile.gettempdir())):
        yield
