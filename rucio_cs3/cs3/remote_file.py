"""A remote file as something to read from: the body of one GET, piece by piece, in one buffer's memory.

Knows HTTP answers; neither tickets nor who asks for what: :mod:`rucio_cs3.cs3.downloads` reads CS3 clouds with it.

There is no thread that reads ahead on purpose: the kernel's socket buffers let the other side go on sending while a
piece is passed on, and a relay between two links of 6 Gbit/s fills both with the one thread that it has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import requests

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.data_gateway import http_error, translated


class RemoteFile:
    """The bytes of a file at a site; a context manager, whose entry sends the GET. For one thread.

    All errors are the site's, and name ``target``: nobody between takes them for those of whoever is written to.

    :param get: sends a GET for the whole file and hands out its answer, any status, body not read yet. Called again
        for each new beginning; the block is left when no more is wanted.
    :param size: bytes that the site says the file has; None where nobody asked.
    :param target: what messages call the file.
    :raises CS3Error: on entry, when the answer is not 200.
    :raises SizeMismatch: on entry, when the answer announces another size.
    """

    def __init__(
        self, get: Callable[[], AbstractContextManager[requests.Response]], *, size: int | None, target: str
    ) -> None:
        self._get = get
        self._size = size
        self._target = target
        self._position = 0
        self._answer: _Answer | None = None

    def __enter__(self) -> RemoteFile:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the answer; where its body was not read to the end, that ends the connection. Idempotent."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.stack.close()

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
        answer = self._answer or self._begin()
        with translated("GET", self._target, answer.url, since=answer.since):
            # urllib3 1.26 reads into a new object and copies; its inner file object would not, and is private.
            # A relay of 1 GiB takes 1.1 s of processor time instead of 0.85 s.
            count: int = answer.response.raw.readinto(buffer)
        self._position += count
        if self._size is not None and self._position > self._size:
            # Said at once: a body without an end would fill the disk.
            raise self._error(errors.SizeMismatch, f"more than the {self._size} bytes come that the server says it has")
        if not count and len(buffer):
            self._check_end(answer)
        return count

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; errors as those of :meth:`readinto`."""
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.readinto(buffer)])

    def _begin(self) -> _Answer:
        with contextlib.ExitStack() as stack:
            since = time.monotonic()
            response = stack.enter_context(self._get())
            if response.status_code != 200:
                raise http_error(response, "GET", self._target)
            text = response.headers.get("Content-Length", "")
            announced = int(text) if text.isdecimal() else None
            if announced is not None and self._size is not None and announced != self._size:
                raise self._error(
                    errors.SizeMismatch,
                    f"the answer announces {announced} bytes, but the server says it has {self._size}",
                )
            answer = _Answer(response, announced, since, stack.pop_all())
        self._answer = answer
        return answer

    def _check_end(self, answer: _Answer) -> None:
        # urllib3 1.26, which Rucio pins, takes a connection that ends early for the end of the body.
        if answer.announced is not None and self._position != answer.announced:
            raise self._error(
                errors.TransferInterrupted,
                f"the connection ended after {self._position} of {answer.announced} bytes",
            )
        if self._size is not None and self._position != self._size:
            raise self._error(
                errors.SizeMismatch, f"{self._position} bytes came, but the server says it has {self._size}"
            )

    def _error(self, kind: type[errors.CS3Error], message: str) -> errors.CS3Error:
        return kind(message, operation="GET", target=self._target)


class _Answer:
    """One answer.

    :param announced: its Content-Length in bytes; None where it gives none.
    :param since: when the GET was sent, by the monotonic clock, in seconds.
    :param stack: what is to be left in the end.
    """

    def __init__(
        self, response: requests.Response, announced: int | None, since: float, stack: contextlib.ExitStack
    ) -> None:
        self.response = response
        self.announced = announced
        self.since = since
        self.stack = stack
        self.url: str = response.url
