"""The byte loop: file to network, in constant memory, counted and digested in the same pass.

Knows files and iterators; no HTTP and no CS3. A file that is read may be a remote one
(:mod:`rucio_cs3.cs3.remote_file`): what is the file's fault and what the network's is kept apart here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests

#: One read and one write move this much. http.client's own blocks of 16 KiB cost a system call each.
CHUNK_BYTES = 1024 * 1024

#: Called with the number of bytes that just moved; a negative number takes back a failed attempt, and 0 says that
#: something is read which has moved already.
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
        #: Where in the file the next piece begins, from the body's first byte on.
        self._position = 0
        self._buffer = memoryview(b"")
        self._progress = progress
        # Not the method below: a body that refers to itself lives, buffer and all, until the garbage collector comes.
        self._wrong_length = wrong_length
        self._stamp = _stamp(file)
        if not size:
            # An empty body is never iterated, so this is the only look; files in /proc have size 0, too.
            self._check_whole()

    def __len__(self) -> int:
        return self._size

    def rewind(self) -> None:
        """Begin again with the first byte, after an attempt that the server refused."""
        self._file.seek(self._start)
        self._position = 0
        self._count_as_sent(0)
        self.failure = None
        self.digests.reset()

    def resume_at(self, position: int) -> None:
        """Go on with the byte at ``position``, because the server has all before it: after an attempt that ended on
        the way, or for an upload that another process began.

        What the checksums have not seen yet is read now; what they have seen is sent again without being digested
        again.

        :raises LocalChanged: (or what ``wrong_length`` makes) when the file ends before.
        :raises ValueError: for a position that is not within the body.
        """
        if not 0 <= position <= self._size:
            raise ValueError(f"position {position} is not within {self._size} bytes")
        self.failure = None
        self.begun = True
        try:
            self._go_to(min(position, self.digests.byte_count))
            self._read_up_to(position)
        except errors.CS3Error as exc:
            self.failure = exc
            raise
        self._count_as_sent(position)

    def part(self, count: int) -> UploadPart:
        """At most ``count`` further bytes of the file, as the body of one request among several.

        They follow those that were handed out last, or begin where :meth:`resume_at` said. The last piece of the
        whole file is held back as ever, until all of it is known to be right.

        :param count: bytes, at least 1; what is left of the file may be less.
        """
        return UploadPart(self, min(self._position + count, self._size))

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
        return self.pieces(self._size)

    def pieces(self, end: int) -> Iterator[memoryview]:
        """The bytes up to the position ``end``; each piece is valid until the next. Errors as those of ``iter()``."""
        self.begun = True
        try:
            for piece in self._read_pieces(end):
                yield piece
                self._count_as_sent(self.sent + len(piece))
        except errors.CS3Error as exc:
            self.failure = exc
            raise

    def _read_pieces(self, end: int) -> Iterator[memoryview]:
        """Read, and digest what was not digested before."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(min(CHUNK_BYTES, self._size) or 1))
        while self._position < end:
            count = self._read(self._buffer[: end - self._position])
            if not count:
                raise self._error_of_length(self._position, self._size)
            piece = self._buffer[:count]
            known = self.digests.byte_count - self._position
            if known < count:
                self.digests.update(piece[known:] if known > 0 else piece)
            self._position += count
            if self._position == self._size:
                # Before the last piece is sent, so that the server never gets a complete body.
                self._check_whole()
            yield piece

    def _go_to(self, position: int) -> None:
        """Have the reader at a position, also where it can only begin again (a remote file)."""
        if position == self._position:
            return
        try:
            self._file.seek(self._start + position)
            self._position = position
        except ValueError:
            self._file.seek(self._start)
            self._position = 0
            self._read_up_to(position)

    def _read_up_to(self, position: int) -> None:
        """Read without sending; whoever watches is called all the same, and may end it."""
        for _ in self._read_pieces(position):
            if self._progress is not None:
                self._progress(0)

    def _count_as_sent(self, position: int) -> None:
        moved, self.sent = position - self.sent, position
        if self._progress is not None and moved:
            self._progress(moved)

    def _check_whole(self) -> None:
        """All bytes have been read: are they all, and the right ones?"""
        if self._read(memoryview(bytearray(1))):
            raise self._error_of_length(self._size + 1, self._size)
        if _stamp(self._file) != self._stamp:
            # A mixture of two contents would be proven to be what was sent, and is no file that ever was.
            raise errors.LocalChanged(f"local file {self.name} was written to while it was uploaded")
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

    def _error_of_length(self, came: int, wanted: int) -> errors.CS3Error:
        if self._wrong_length is not None:
            return self._wrong_length(came, wanted)
        if not wanted:
            return errors.LocalChanged(f"local file {self.name} has size 0, and yet there is something to read")
        if came > wanted:
            return errors.LocalChanged(f"local file {self.name} became longer while it was uploaded")
        return errors.LocalChanged(
            f"local file {self.name} became shorter while it was uploaded: {wanted - came} of {wanted} bytes gone"
        )


class UploadPart:
    """A piece of an :class:`UploadBody` as the body of one request; made by :meth:`UploadBody.part`.

    :param end: position in the whole body that it ends before.
    """

    def __init__(self, body: UploadBody, end: int) -> None:
        self._body = body
        self._size = end - body._position
        self._end = end

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[memoryview]:
        return self._body.pieces(self._end)


def _stamp(file: Reader) -> tuple[int, int] | None:
    """What changes when a local file is written to; None for what is no file on a disk."""
    if not isinstance(file, io.FileIO):
        return None
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
