"""One connection to an HTTP server, for one exchange after the other: the request out, the head of its answer in.

A body is sent while an eye is kept on the answer: a server that refuses it (413, 507) says so before it has all, and
is believed at once. Nothing here retries.

Below are :mod:`rucio_cs3.cs3.http.wire` (one socket, and all waiting) and :mod:`rucio_cs3.cs3.http.answers` (what comes
back).
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from rucio_cs3.cs3.http.answers import INTERIM_MAX, Broken, Head, is_interim, read_final_head, read_head
from rucio_cs3.cs3.http.wire import FellSilent, Incoming, Wire
from rucio_cs3.cs3.tls import is_about_us

#: A body up to this size goes with the head in one piece, in bytes.
_WITH_HEAD_BYTES = 16 * 1024

#: How long to wait for "100 Continue" before the body is sent anyway, in seconds: curl's value. RFC 9110, 10.1.1 wants
#: no client to wait for ever, because old servers say nothing.
_CONTINUE_S = 1.0

#: How long after a connection broke while a body was being sent the answer is looked for, in seconds: it is here
#: already, or nowhere.
_LAST_WORDS_S = 1.0

#: "100 Continue".
_CONTINUE = 100


class Pieces(Protocol):
    """A body that is not in memory: so many bytes, in pieces that are each valid until the next is asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[memoryview]: ...


class PiecesFailed(Exception):
    """What makes the pieces of a body raised an OSError, which is not the network's.

    :param error: it.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__("a piece of a body could not be had")
        self.error = error


class Request(NamedTuple):
    """What is sent.

    :param head: all of it, with the empty line.
    :param asks_first: whether the head has ``Expect: 100-continue``.
    :param silence_s: longest wait for the answer and within it, in seconds.
    :param standstill_s: longest wait for the server to take more of the body, in seconds.
    """

    method: str
    head: bytes
    body: bytes | Pieces
    asks_first: bool
    silence_s: float
    standstill_s: float

    def __repr__(self) -> str:
        # The head has tokens.
        return f"<Request {self.method}>"


class Connection:
    """One connection, for one exchange after the other.

    :param sock: connected, and not blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._wire = Wire(sock)
        #: Where answers are read from.
        self.reader = Incoming(self._wire)
        #: The address of the other end; empty where it was gone at once.
        self.peer = _peer(sock)
        #: When it was last used, by the monotonic clock, in seconds.
        self.kept_since = 0.0
        self._pid = os.getpid()
        #: "1xx" answers since the server took something last.
        self._interim = 0

    def close(self) -> None:
        """Idempotent."""
        self.reader.close()

    def break_off(self) -> None:
        """Break it, from another thread than the one that uses it, which then closes it."""
        self._wire.break_off()

    def hurry(self, silence_s: float) -> None:
        """Wait no longer than this for what is still to come of an answer, in seconds."""
        self._wire.silence_s = min(self._wire.silence_s, silence_s)

    def wait_for(self, silence_s: float) -> float:
        """Wait no longer than this from now on, in seconds; gives how long it was until now."""
        before, self._wire.silence_s = self._wire.silence_s, silence_s
        return before

    def held(self) -> bytes:
        """What has come and was not read yet, or some of it; does not wait, and takes nothing."""
        silence_s = self._wire.silence_s
        self.has_spoken()
        self._wire.silence_s = silence_s
        return self.reader.held()

    def is_ours(self) -> bool:
        """Whether this process opened it, and not the parent that it was forked from."""
        return self._pid == os.getpid()

    def has_spoken(self) -> bool:
        """Whether bytes of the server are here, or the end is."""
        if self.reader.held():
            return True
        if not self._wire.is_readable():
            return False
        self._wire.silence_s = 0.0
        try:
            self.reader.peek(1)
        except FellSilent:
            return False  # something of TLS, for itself
        except OSError:
            pass  # an end, too
        return True

    def ask(self, request: Request) -> tuple[Head, bool]:
        """Send a request and read the head of its answer.

        :returns: the head, and whether all of the request was sent: if not, the server may still wait for the rest.
        """
        wire = self._wire
        wire.standstill_s = request.standstill_s
        self._interim = 0
        try:
            early = self._send(request)
        except OSError:
            # A server that has said all that it has to say closes the connection: its words are here before its end.
            wire.silence_s = min(request.silence_s, _LAST_WORDS_S)
            early = self._last_words()
            if early is None:
                raise
        wire.silence_s = request.silence_s
        if early is not None:
            return early, False
        return read_final_head(self.reader), True

    def _send(self, request: Request) -> Head | None:
        """Send head and body; the answer's head where it came before their end."""
        pieces = _pieces(request.body)
        together = not request.asks_first and len(request.body) <= _WITH_HEAD_BYTES
        first = b"".join((request.head, next(pieces, b""))) if together else request.head
        early = self._send_piece(memoryview(first), request)
        if early is None and request.asks_first:
            early = self._agreement(request)
        while early is None:
            piece = next(pieces, None)
            if piece is None:
                return None
            early = self._early_head(request) or self._send_piece(piece, request)
        return early

    def _send_piece(self, piece: memoryview, request: Request) -> Head | None:
        while piece:
            count = self._wire.send(piece)
            if count:
                self._interim = 0
            elif (early := self._early_head(request)) is not None:
                return early
            piece = piece[count:]
        return None

    def _agreement(self, request: Request) -> Head | None:
        """Wait for "100 Continue", for a while; the answer's head where that comes instead."""
        agreed_by = time.monotonic() + _CONTINUE_S
        while self.has_spoken() or self._wire.wait(select.POLLIN, max(agreed_by - time.monotonic(), 0.0)):
            if self.has_spoken():
                head = self._next_head(request)
                if head.status == _CONTINUE:
                    break
                if not is_interim(head):
                    return head
        return None

    def _early_head(self, request: Request) -> Head | None:
        """The head of an answer that came before the end of the request."""
        while self.has_spoken():
            head = self._next_head(request)
            if not is_interim(head):
                return head
        return None

    def _next_head(self, request: Request) -> Head:
        """The head of an answer that comes before the end of the request, interim ones too.

        :raises Broken: where they have no end; one now and then, from a server that reads on, is none too many.
        """
        self._wire.silence_s = request.silence_s
        head = read_head(self.reader)
        self._interim += is_interim(head)
        if self._interim >= INTERIM_MAX:
            raise Broken("it has no end of interim answers")
        return head

    def _last_words(self) -> Head | None:
        try:
            return read_final_head(self.reader)
        except (OSError, Broken, FellSilent) as exc:
            if is_about_us(exc):
                # The connection ended because of that.
                raise
            return None


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return str(name[0]) if name else ""


def _pieces(body: bytes | Pieces) -> Iterator[memoryview]:
    """
    :raises PiecesFailed: for an OSError of whoever makes them, say of a progress callback.
    :raises ValueError: for a body that is not as long as it says: what follows would be taken for it.
    """
    left = len(body)
    if not left:
        return
    pieces = iter((memoryview(body),) if isinstance(body, bytes) else body)
    while (piece := _next_of(pieces)) is not None:
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise ValueError(f"a body is {abs(left)} bytes {'shorter' if left > 0 else 'longer'} than it says")


def _next_of(pieces: Iterator[memoryview]) -> memoryview | None:
    try:
        return next(pieces, None)
    except OSError as exc:
        raise PiecesFailed(exc) from exc
