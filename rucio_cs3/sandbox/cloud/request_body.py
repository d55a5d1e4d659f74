"""The body of a request, sized or chunked, read block by block and counted.

Knows no request and no fault; what becomes of the blocks is decided in ``http_server.py`` and ``storing.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from rucio_cs3.sandbox.cloud.faults import Throttle
from rucio_cs3.sandbox.cloud.traffic import Passed

BLOCK_BYTES = 1 << 20


class RequestBody:
    """The body of a request, read block by block.

    :param length: Content-Length in bytes; None for a chunked body.
    """

    def __init__(self, stream: io.BufferedIOBase, length: int | None) -> None:
        self.length = length
        self.received = 0
        # Where the bytes are counted, too.
        self.passed: Passed | None = None
        # Whether the whole body has come; False after the client broke off.
        self.complete = length == 0
        self._stream = stream
        self._ended = length == 0
        self._buffer = memoryview(bytearray(BLOCK_BYTES))

    def blocks(self, limit: int | None = None, throttle: Throttle | None = None) -> Iterator[memoryview]:
        """Blocks of the body; each is valid only until the next one.

        :param limit: stop after this many bytes of the whole body, without looking at the rest.
        :param throttle: read no faster than it lets.
        """
        pieces = self._sized_pieces() if self.length is not None else self._chunked_pieces()
        for size in pieces:
            left = size
            while left:
                wanted = min(left, BLOCK_BYTES)
                if throttle is not None:
                    wanted = throttle.piece(wanted)
                if limit is not None:
                    wanted = min(wanted, limit - self.received)
                    if wanted == 0:
                        return
                try:
                    # BufferedReader.readinto() waits for all it was asked for, or the end of the stream.
                    count: int = self._stream.readinto(self._buffer[:wanted])
                except OSError:
                    count = 0
                if count == 0:
                    self._ended = True
                    return
                self.received += count
                if self.passed is not None:
                    self.passed.received = self.received
                left -= count
                if throttle is not None:
                    throttle.moved(count)
                yield self._buffer[:count]
        if not self._ended:
            self._ended = self.complete = True

    def drain(self) -> None:
        """Read what is left, so that the next request of the connection can be read."""
        if not self._ended:
            for _ in self.blocks():
                pass

    def _sized_pieces(self) -> Iterator[int]:
        if self.length is not None:
            yield self.length - self.received

    def _chunked_pieces(self) -> Iterator[int]:
        try:
            while True:
                line = self._stream.readline(1024)
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while self._stream.readline(8192).strip():
                        pass
                    return
                yield size
                self._stream.readline(16)
        except (OSError, ValueError):
            self._ended = True
