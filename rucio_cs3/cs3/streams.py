"""The byte loops: file to network and back, in constant memory, counted and digested in the same pass.

Knows files and iterators; no HTTP and no CS3. A file that is read may be a remote one
(:mod:`rucio_cs3.cs3.remote_file`): what is the file's fault and what the network's is kept apart here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests

#: One read and one write move this much. http.client's own blocks of 16 KiB cost a system call each.
CHUNK_BYTES = 1024 * 1024

#: Called with the number of bytes that just moved; a negative number takes back a failed attempt.
Progress = Callable[[int], None]


class Reader(Protocol):
    """What an upload reads: a local file, :class:`io.BytesIO`, or a :class:`rucio_cs3.cs3.remote_file.RemoteFile`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read at most as much as the buffer takes; 0 is the end."""
        ...

    def tell(self) -> int: ...

    def seek(self, position: int, /) -> int: ...


#: Makes the error of a reader that gives another number of bytes than it was to: gets those that came (one more than
#: wanted where more could be read) and those wanted.
WrongLength = Callable[[int, int], errors.CS3Error]


class UploadBody:
    """A request body that reads a file once, for an HTTP library that wants a length and an iterator.

    It has no ``read`` on purpose: with one, http.client would choose the (small) block size.

    :param file: read from its current position.
    :param size: bytes to send, exactly.
    :param digests: of at least the algorithms of ``expected``.
    :param name: what messages call the file.
    :param expected: checksums that the content must have, algorithm -> full-width lower-case hex digits. Other content
        is never sent as a whole: the last piece of it is held back, and the request stays unfinished.
    :param wrong_length: whose fault another size is; that of the local file ``name`` by default.
    :raises LocalChanged: (or what ``wrong_length`` makes) when ``size`` is 0 and the file is not empty.
    :raises ChecksumMismatch: when ``size`` is 0 and ``expected`` is not the checksum of nothing.
    """

    def __init__(
        self,
        file: Reader,
        size: int,
        digests: Digests,
        *,
        name: str,
        progress: Progress | None = None,
        expected: Mapping[str, str] | None = None,
        wrong_length: WrongLength | None = None,
    ) -> None:
        self._file = file
        self._start = file.tell()
        self._size = size
        #: Of the bytes that were read so far; the last piece of them may still be unsent.
        self.digests = digests
        self.name = name
        self.expected = expected or {}
        #: Whether anybody has begun to send it: what then fails may leave something at the server, also of no bytes.
        self.begun = False
        #: Bytes that were handed to the network so far.
        self.sent = 0
        #: What ended the reading: an error of the file or of the content. Never one of whoever is sent to.
        self.failure: errors.CS3Error | None = None
        self._progress = progress
        self._wrong_length = wrong_length or self._local_change
        if not size:
            # An empty body is never iterated, so this is the only look; files in /proc have size 0, too.
            self._check_whole()

    def __len__(self) -> int:
        return self._size

    def rewind(self) -> None:
        """Begin again with the first byte, after an attempt that the server refused."""
        self._file.seek(self._start)
        if self._progress is not None and self.sent:
            self._progress(-self.sent)
        self.sent = 0
        self.failure = None
        self.digests.reset()

    def foresee(self, algorithm: str) -> str:
        """The checksum of what is going to be sent: what is expected, or a read of the whole file now."""
        if algorithm not in self.expected:
            digests = Digests([algorithm])
            buffer = memoryview(bytearray(CHUNK_BYTES))
            while count := self._read(buffer):
                digests.update(buffer[:count])
            self._file.seek(self._start)
            return digests.hexdigests()[algorithm]
        return self.expected[algorithm]

    def __iter__(self) -> Iterator[memoryview]:
        """
        :raises LocalChanged: (or what ``wrong_length`` makes) when the file has become shorter or longer; the
            request then stays unfinished, so that no server takes it for whole.
        :raises ChecksumMismatch: when the content is not what is expected, likewise.
        :raises LocalError: when a local file cannot be read; another reader raises its own errors.
        """
        self.begun = True
        try:
            yield from self._pieces()
        except errors.CS3Error as exc:
            self.failure = exc
            raise

    def _pieces(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self._size) or 1))
        left = self._size
        while left:
            count = self._read(buffer[: min(left, len(buffer))])
            if not count:
                raise self._wrong_length(self._size - left, self._size)
            piece = buffer[:count]
            self.digests.update(piece)
            left -= count
            if not left:
                # Before the last piece is sent, so that the server never gets a complete body.
                self._check_whole()
            yield piece
            self.sent += count
            if self._progress is not None:
                self._progress(count)

    def _check_whole(self) -> None:
        """All bytes have been read: are they all, and the right ones?"""
        if self._read(memoryview(bytearray(1))):
            raise self._wrong_length(self._size + 1, self._size)
        found = self.digests.hexdigests()
        for algorithm, wanted in self.expected.items():
            if found[algorithm] != wanted:
                raise errors.ChecksumMismatch(
                    "the source sends other content than the catalogue says: "
                    f"its {algorithm} is {found[algorithm]}, not {wanted}",
                    operation="GET",
                    target=self.name,
                )

    def _read(self, buffer: memoryview) -> int:
        try:
            # None is what a device says that has nothing yet; no such file is ever opened here.
            return self._file.readinto(buffer) or 0
        except OSError as exc:
            raise errors.LocalError(f"local file {self.name} cannot be read: {exc.strerror}") from exc

    def _local_change(self, came: int, wanted: int) -> errors.CS3Error:
        if not wanted:
            return errors.LocalChanged(f"local file {self.name} has size 0, and yet there is something to read")
        if came > wanted:
            return errors.LocalChanged(f"local file {self.name} became longer while it was uploaded")
        return errors.LocalChanged(
            f"local file {self.name} became shorter while it was uploaded: {wanted - came} of {wanted} bytes gone"
        )


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

    def write(self, data: bytes | memoryview) -> None:
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
def open_source(path: Path) -> Iterator[tuple[FileIO, os.stat_result]]:
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
