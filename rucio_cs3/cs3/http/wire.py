"""One socket that does not block, plain or with TLS: all waiting for the network is here, limited by silence.

Knows no HTTP; :mod:`rucio_cs3.cs3.http.connection` speaks that on it.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
import time
from typing import Any

#: Unused for so long, a connection is probed by the kernel, so that no firewall forgets it while a server computes.
_PROBE_AFTER_S = 60

#: Read ahead of the head of an answer, in bytes; what is larger is read into the caller's memory.
_READER_BYTES = 16 * 1024


#: How long a head may take from its first byte on, and so what stands between two chunks, in seconds: with a byte now
#: and then, which is no silence, either would last for days.
LINES_S = 60.0


class FellSilent(Exception):
    """Nothing came for too long."""


class StoppedReading(Exception):
    """Nothing of a body was taken for too long."""


def tune(sock: socket.socket) -> None:
    """Set what all connections have in common."""
    # The sizes of the buffers stay the kernel's business: to set one ends its own tuning, and the limit of what may be
    # set (net.core.wmem_max, often 208 KiB) is far below what it goes up to by itself (tcp_wmem, 4 MiB).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)


class Wire(io.RawIOBase):
    """A socket that does not block, with limits on silence.

    TLS may have to read in order to write, and the other way round (RFC 8446, 4.6).
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock: Any = sock
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._events = select.POLLIN
        #: Longest wait for something to read, in seconds.
        self.silence_s = 0.0
        #: Longest wait until something can be sent, in seconds.
        self.standstill_s = 0.0
        #: Whether nothing is to be read for a moment, though there may be something.
        self.muted = False
        #: Whether lines are being read: see :data:`LINES_S`.
        self.in_lines = False
        #: When the first of them came, by the monotonic clock, in seconds; None before.
        self.lines_since: float | None = None
        #: Whether all that had come was read: to ask for more before waiting for it costs an exception.
        self._drained = True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._sock.close()
        super().close()

    def break_off(self) -> None:
        """End all waiting for it, in whatever thread; what is asked of it then fails."""
        with contextlib.suppress(OSError):  # closed meanwhile
            # Past TLS, which another thread may be in the middle of.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def wait(self, events: int, seconds: float) -> int:
        """Wait until the socket can be read or written; 0 is that it could not."""
        if events != self._events:
            self._poll.modify(self._sock, events)
            self._events = events
        ready = self._poll.poll(seconds * 1000)
        return ready[0][1] if ready else 0

    def is_readable(self) -> bool:
        """Whether something has come, or the end has; over TLS it may be nothing that is for us."""
        return (self._secure and self._sock.pending() > 0) or bool(self.wait(select.POLLIN, 0.0))

    def readinto(self, buffer: Any) -> int | None:
        """
        :returns: bytes; None where this is muted.
        :raises FellSilent: when nothing comes.
        """
        if self.muted:
            return None
        # OpenSSL may hold what the socket does not know of any more.
        events = select.POLLIN if self._drained and not self._secure else 0
        while True:
            if events and not self.wait(events, self._patience_s()):
                raise FellSilent
            try:
                count: int = self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            else:
                self._drained = count < len(buffer)
                if self.in_lines and self.lines_since is None:
                    self.lines_since = time.monotonic()
                return count

    def _patience_s(self) -> float:
        if not self.in_lines or self.lines_since is None:
            return self.silence_s
        return max(min(self.lines_since + LINES_S - time.monotonic(), self.silence_s), 0.0)

    def send(self, data: memoryview) -> int:
        """Send some of it; 0 where something has come instead, which is to be looked at first.

        :raises StoppedReading: when nothing of it is taken.
        """
        while True:
            try:
                count: int = self._sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = select.POLLIN | select.POLLOUT
            except ssl.SSLWantReadError:
                events = select.POLLIN
            else:
                return count
            ready = self.wait(events, self.standstill_s)
            if not ready:
                raise StoppedReading
            if not ready & select.POLLOUT and events & select.POLLOUT:
                return 0


class Incoming(io.BufferedReader):
    """What comes over a wire: lines for heads, and large pieces past the buffer."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire, _READER_BYTES)
        self._wire = wire

    def held(self) -> bytes:
        """What was read from the wire already, and is not taken by that."""
        self._wire.muted = True
        try:
            return self.peek(1)
        finally:
            self._wire.muted = False

    def readline(self, size: int | None = -1, /) -> bytes:
        self._wire.in_lines = True
        try:
            line = super().readline(size)
        finally:
            self._wire.in_lines = False
        if not line.strip(b"\r\n"):
            self._wire.lines_since = None  # the end of a head, or of a chunk
        return line

    def readinto1(self, buffer: Any, /) -> int:
        self._wire.lines_since = None
        # That of the base reads on behind what it holds, and waits for that.
        self._wire.muted = True
        try:
            count = super().readinto1(buffer)
        finally:
            self._wire.muted = False
        return count or super().readinto1(buffer)
