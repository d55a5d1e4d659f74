"""The byte loops: local file to network and back, in constant memory, counted and digested in the same pass.

Knows files and iterators; no HTTP and no CS3.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests

#: One read and one write move this much. http.client's own blocks of 16 KiB cost a system call each.
CHUNK_BYTES = 1024 * 1024

#: Called with the number of bytes that just moved; a negative number takes back a failed attempt.
Progress = Callable[[int], None]


class UploadBody:
    """A request body that reads a file once, for an HTTP library that wants a length and an iterator.

    It has no ``read`` on purpose: with one, http.client would choose the (small) block size.

    :param file: read from its current position.
    :param size: bytes to send, exactly.
    :raises LocalChanged: when ``size`` is 0 and the file is not empty.
    """

    def __init__(
        self, file: BinaryIO, size: int, digests: Digests, *, name: str, progress: Progress | None = None
    ) -> None:
        self._file = file
        self._start = file.tell()
        self._size = size
        #: Of the bytes that were handed out so far.
        self.digests = digests
        #: The local file.
        self.name = name
        self._progress = progress
        self._told = 0
        if not size and file.read(1):
            # An empty body is never iterated, so this is the only look; files in /proc have size 0, too.
            raise errors.LocalChanged(f"local file {name} has size 0, and yet there is something to read")

    def __len__(self) -> int:
        return self._size

    def rewind(self) -> None:
        """Begin again with the first byte, after an attempt that the server refused."""
        self._file.seek(self._start)
        if self._progress is not None and self._told:
            self._progress(-self._told)
        self._told = 0
        self.digests.reset()

    def __iter__(self) -> Iterator[memoryview]:
        """
        :raises LocalChanged: when the file has become shorter or longer; the request then stays unfinished,
            so that no server takes it for whole.
        :raises LocalError: when the file cannot be read.
        """
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self._size) or 1))
        left = self._size
        while left:
            try:
                # FileIO and BufferedReader both have readinto; BinaryIO only forgets to say so.
                count: int = self._file.readinto(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]
            except OSError as exc:
                raise errors.LocalError(f"local file {self.name} cannot be read: {exc.strerror}") from exc
            if not count:
                raise errors.LocalChanged(
                    f"local file {self.name} became shorter while it was uploaded: {left} of {self._size} bytes gone"
                )
            piece = buffer[:count]
            self.digests.update(piece)
            left -= count
            if not left and self._file.read(1):
                # Found before the last piece is sent, so the server never gets a complete body.
                raise errors.LocalChanged(f"local file {self.name} became longer while it was uploaded")
            yield piece
            if self._progress is not None:
                self._told += count
                self._progress(count)


class SafeFile:
    """A download's target: bytes go to a hidden sibling, which takes the final name only in :meth:`commit`.

    Leaving the ``with`` block without a commit removes the sibling and touches nothing else.

    :param path: final name; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Short and without the final name, so that a name of 255 bytes has a sibling, too.
        self._part = path.with_name(f".rucio-cs3.{secrets.token_hex(8)}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> SafeFile:
        with _local_errors(self._path):
            self._file = self._part.open("xb", buffering=0)
        return self

    def write(self, data: bytes) -> None:
        """
        :raises LocalNoSpaceLeft: when the disk is full.
        """
        assert self._file is not None
        with _local_errors(self._path):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def commit(self) -> None:
        """Put the bytes on the disk and give them the final name, replacing what stood there."""
        assert self._file is not None
        with _local_errors(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
            _sync_folder(self._path.parent)
        self._file = None

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        self._file.close()
        # Only our own sibling; that it may be gone already is what we want.
        with contextlib.suppress(OSError):
            self._part.unlink()


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a local file for an upload, with its status.

    :raises LocalNotFound: when it does not exist.
    :raises LocalError: when it is no regular file, or cannot be read.
    """
    with _local_errors(path):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            # Checked before it is opened: the open of a pipe waits for its writer.
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise errors.LocalError(f"local path {path} is {kind}, not a file")
        file = path.open("rb", buffering=0)
    with file:
        yield file, os.fstat(file.fileno())


@contextlib.contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        text = exc.strerror or str(exc)
        if exc.errno == errno.ENOENT:
            raise errors.LocalNotFound(f"local path {path} or its folder does not exist") from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.LocalNoSpaceLeft(f"local disk is full while writing {path}: {text}") from exc
        raise errors.LocalError(f"local path {path} cannot be used: {text}") from exc


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; file systems that cannot sync a folder say EINVAL, which is no loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
