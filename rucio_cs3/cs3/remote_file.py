"""A remote file as something to read from: the body of one GET, piece by piece, in one buffer's memory.

Knows HTTP answers; neither tickets nor who asks for what: :mod:`rucio_cs3.cs3.downloads.downloads` reads CS3 clouds
with it. The bytes go from the socket straight into the caller's buffer.

There is no thread that reads ahead on purpose: the kernel's socket buffers let the other side go on sending while a
piece is passed on, and a relay between two links of 6 Gbit/s fills both with the one thread that it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.http.client import Answer, http_error


class RemoteFile:
    """The bytes of a file at a site; a context manager, whose entry sends the GET. For one thread.

    All errors are the site's, and name ``target``: nobody between takes them for those of whoever is written to.

    :param get: sends a GET for the whole file and hands out its answer, any status, body not read yet. Called again
        for each new beginning; the block is left when no more is wanted.
    :param size: bytes that the site says the file has; None where nobody asked.
    :param target: what messages call the file.
    :param status: what the answer must be: 206 where ``get`` asks for a range, whose length ``size`` then is.
    :raises CS3Error: on entry, when the answer is another.
    :raises SizeMismatch: on entry, when the answer announces another size.
    """

    def __init__(
        self,
        get: Callable[[], AbstractContextManager[Answer]],
        *,
        size: int | None,
        target: str,
        status: int = 200,
    ) -> None:
        self._get = get
        self._status = status
        self._size = size
        self._target = target
        self._position = 0
        self._open: _Open | None = None

    def __enter__(self) -> RemoteFile:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the answer; where its body was not read to the end, that ends the connection. Idempotent."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.stack.close()

    def tell(self) -> int:
        """How many bytes have been read since the beginning."""
        return self._position

    def seek(self, position: int, /) -> int:
        """Begin again with the first byte, by a new GET at the next read.

        :raises ValueError: for another position than 0.
        """
        if position:
            raise ValueError(f"a remote file is read from its beginning, not from byte {position}")
        self.close()
        self._position = 0
        return 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, or what the rest of the file takes of it; 0 is the end of the whole file.

        :raises TransferInterrupted: when fewer bytes come than were announced.
        :raises SizeMismatch: when fewer or more come than the site says the file has.
        """
        opened = self._open or self._begin()
        count = opened.answer.readinto(buffer)
        self._position += count
        if self._size is not None and self._position > self._size:
            # Said at once: a body without an end would fill the disk.
            raise self._error(errors.SizeMismatch, f"more than the {self._size} bytes come that the server says it has")
        if not count and len(buffer):
            self._check_end()
        return count

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; errors as those of :meth:`readinto`."""
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.readinto(buffer)])

    def _begin(self) -> _Open:
        with contextlib.ExitStack() as stack:
            answer = stack.enter_context(self._get())
            if answer.status_code != self._status:
                raise http_error(answer, "GET", self._target)
            if answer.length is not None and self._size is not None and answer.length != self._size:
                raise self._error(
                    errors.SizeMismatch,
                    f"the answer announces {answer.length} bytes, but the server says it has {self._size}",
                )
            opened = _Open(answer, stack.pop_all())
        self._open = opened
        return opened

    def _check_end(self) -> None:
        if self._size is not None and self._position != self._size:
            raise self._error(
                errors.SizeMismatch, f"{self._position} bytes came, but the server says it has {self._size}"
            )

    def _error(self, kind: type[errors.CS3Error], message: str) -> errors.CS3Error:
        return kind(message, operation="GET", target=self._target)


class _Open(NamedTuple):
    """An answer, and what is to be left in the end."""

    answer: Answer
    stack: contextlib.ExitStack
