"""An HTTP relay that passes requests on to a real server, and breaks those that a fault script names.

The vocabulary is that of :mod:`rucio_cs3.sandbox.cloud.faults`. What the relay cannot do is to make the server do
something: it changes, cuts, slows down and counts what passes.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from rucio_cs3.sandbox.cloud.faults import Faults, Throttle, flip
from rucio_cs3.sandbox.cloud.traffic import Passed, Traffic

_BLOCK_BYTES = 64 * 1024

Moment = Literal["before", "middle", "after"]

_POLL_S = 0.05
#: Reva ends a request whose body broke off within milliseconds; a loaded machine gets more.
_SETTLE_S = 10.0
#: As the embedded clouds: what a Go server leaves a client that it has answered early, in seconds.
_LEAVE_S = 0.5
#: Of a socket that is read slowly on purpose; the kernel would take megabytes ahead.
_SMALL_BUFFER_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # l_onoff, l_linger 0: close() sends a reset
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})
_WITH_BODY = frozenset({"PUT", "PATCH"})


class Tokens:
    """Tokens that were issued, and those that the server is not to see alive any more; thread-safe.

    :param aged: gives a token as it is after its end.
    """

    def __init__(self, aged: Callable[[str], str]) -> None:
        self._aged = aged
        self._lock = threading.Lock()
        self._access: set[str] = set()
        self._transfer: set[str] = set()
        self._expired: set[str] = set()

    def issued(self, token: str) -> None:
        """An access token."""
        with self._lock:
            self._access.add(token)
            # Two logins within one second give the same token (Reva's have no jti); the second makes it live again.
            self._expired.discard(token)

    def offered(self, token: str) -> None:
        """A transfer token."""
        with self._lock:
            self._transfer.add(token)
            self._expired.discard(token)

    def expire_all(self, *, access: bool = True, transfer: bool = False) -> None:
        """All that were issued until now."""
        with self._lock:
            self._expired |= (self._access if access else set()) | (self._transfer if transfer else set())

    def all(self) -> set[str]:
        """All tokens that were ever issued."""
        with self._lock:
            return self._access | self._transfer

    def as_seen(self, token: str) -> str:
        """What the server gets in place of a token."""
        with self._lock:
            expired = token in self._expired
        return self._aged(token) if expired else token


class Witness:
    """Is told of all that passes; does nothing by itself. May be called by many threads."""

    def passes(self, point: str, moment: Moment) -> None:
        """Something passes a point: ``before`` the server gets it, in the ``middle`` of its body, and ``after`` the
        server's answer, which the client has not got yet.
        """

    def answered(self, point: str, sent_bytes: int) -> None:
        """So much of the body of an answer has been passed on. An OSError from here ends the connection."""

    def came(self, point: str, headers: Mapping[str, str]) -> None:
        """A request has come, with these headers (or metadata), as its sender wrote them; names in lower case."""


class _Ended(Exception):
    """The exchange with the client ends here."""


class HTTPRelay:
    """One listening socket before one server.

    :param upstream_url: where the server is; only host and port count.
    :param witness: gives the witness of the moment.
    """

    def __init__(
        self,
        upstream_url: str,
        faults: Faults,
        traffic: Traffic,
        tokens: Tokens,
        stopping: threading.Event,
        witness: Callable[[], Witness],
    ) -> None:
        class Relay(_Exchange):
            pass

        Relay.upstream = urlsplit(upstream_url).netloc
        Relay.faults, Relay.traffic, Relay.tokens, Relay.stopping = faults, traffic, tokens, stopping
        Relay.witness = staticmethod(witness)
        self._server = _Server(("127.0.0.1", 0), Relay)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _POLL_S}, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET)) == _RESET:
            self.close_request(request)  # an orderly shutdown would take the reset's place
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that wants no more resets its connection.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Exchange(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    faults: Faults
    traffic: Traffic
    tokens: Tokens
    stopping: threading.Event
    witness: Callable[[], Witness]
    passed: Passed

    def _exchange(self) -> None:
        area = "data" if self.path.startswith("/data") else "webdav"
        self.point = point = f"{area}.{self.command.lower()}"
        self.passed = self.traffic.begin(
            point,
            length=int(self.headers.get("Content-Length", 0)),
            asked_range=self.headers.get("Range", ""),
            upload_offset=self.headers.get("Upload-Offset", ""),
        )
        self.fault = self.faults.take(point)
        self.witness().came(point, {name.lower(): value for name, value in self.headers.items()})
        self.witness().passes(point, "before")
        try:
            self._relay()
        except (_Ended, OSError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_COPY = _exchange  # noqa: N815
    do_MOVE = do_MKCOL = do_PROPFIND = do_OPTIONS = _exchange  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing is logged: a request holds tokens."""

    def _is(self, *kinds: str) -> bool:
        return self.fault is not None and self.fault.kind in kinds

    def _bytes(self, *kinds: str) -> int | None:
        """The argument of the fault, if it is of one of these kinds."""
        return self.fault.number if self.fault is not None and self.fault.kind in kinds else None

    def _relay(self) -> None:
        if self._is("expire-token"):
            self.tokens.expire_all()
        elif self._is("stall"):
            self._stall()
        elif self._is("ignore-range"):
            del self.headers["Range"]
        elif self.fault is not None and self.fault.kind == "return":
            for _ in self._body(self.fault.at):
                pass
            self._say(self.fault.number, self.fault.headers, last=self.fault.at is not None)
            if self.fault.at is not None:
                self._leave()
            return
        connection = http.client.HTTPConnection(self.upstream)
        with contextlib.closing(connection):
            self._forward(connection)
            with connection.getresponse() as response:
                self.witness().passes(self.point, "after")
                if self._is("lost-answer", "answer"):
                    response.read()
                    if self.fault is not None and self.fault.kind == "answer":
                        self._say(self.fault.number, self.fault.headers)
                        return
                    self._reset()
                if (delay_ms := self._bytes("delay")) is not None:
                    self.stopping.wait(delay_ms / 1000)
                self._answer(response)

    def _say(self, status: int, headers: dict[str, str], *, last: bool = False) -> None:
        """An answer without a body, of our own."""
        self.send_response(status)
        for name, value in {**headers, **({"Connection": "close"} if last else {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.passed.status = status

    # -- the request -------------------------------------------------------------------------------------------

    def _forward(self, connection: http.client.HTTPConnection) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sending = self.command in _WITH_BODY
        limit = self._bytes("cut-after", "stall-after") if sending else None
        dropped, more = self._bytes("drop-bytes") or 0, self._bytes("add-bytes") or 0
        kept = length - min(dropped, length) if limit is None else limit
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() == "content-length" and (dropped or more):
                value = str(kept + more)
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, self._as_seen(name, value))
        connection.endheaders()
        if (lost := self._bytes("lose-after")) is not None:
            kept = min(lost, length)
        flipped = self.fault.flipped_byte if sending and self.fault is not None else None
        offset = 0
        for piece in self._body(limit):
            connection.send(flip(piece[: max(kept - offset, 0)], offset, flipped))
            if offset < length / 2 <= offset + len(piece):
                self.witness().passes(self.point, "middle")
            offset += len(piece)
        connection.send(b"+" * more)
        if limit is not None or lost is not None or offset < length:
            self._break_off(connection)

    def _as_seen(self, name: str, value: str) -> str:
        if name.lower() in ("x-access-token", "x-reva-transfer"):
            return self.tokens.as_seen(value)
        scheme, _, token = value.partition(" ")
        if name.lower() == "authorization" and scheme == "Bearer":
            return f"{scheme} {self.tokens.as_seen(token)}"
        return value

    def _body(self, limit: int | None = None) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        if limit is not None:
            left = min(left, limit)
        rate = self._bytes("throttle") if self.command in _WITH_BODY else None
        if rate is not None:
            # A client sends no more than its own buffers hold ahead of what was read here.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        throttle = Throttle(rate, self.stopping.wait)
        while left:
            piece = self.rfile.read1(throttle.piece(min(left, _BLOCK_BYTES)))
            if not piece:
                return
            left -= len(piece)
            self.passed.received += len(piece)
            throttle.moved(len(piece))
            yield piece

    def _break_off(self, connection: http.client.HTTPConnection) -> NoReturn:
        """The body did not come whole: tell Reva so, and wait until it has done what it does then."""
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(_SETTLE_S)
        with contextlib.suppress(OSError):
            while connection.sock.recv(_BLOCK_BYTES):
                pass
        if self._is("stall-after"):
            self._stall()
        self._reset()

    # -- the answer --------------------------------------------------------------------------------------------

    def _answer(self, response: http.client.HTTPResponse) -> None:
        length = response.length
        getting = self.command == "GET"
        stop, pause = (self._bytes(kind) if getting else None for kind in ("cut-after", "stall-after"))
        short, extra = self._bytes("short-body"), self._bytes("long-body") or 0
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in (*_HOP_BY_HOP, "content-length"):
                self.send_header(name, value)
        self.passed.status = response.status
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := response.read1(_BLOCK_BYTES):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        stated = length if short is None else min(short, length)
        if self.command == "HEAD":
            # That of the body that a GET would get; http.client calls the length of this answer 0.
            stated = int(response.headers.get("Content-Length", 0))
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(stated + extra))
        self.end_headers()
        if self.command == "HEAD":
            return
        self._answer_body(response, min(stated, *(limit for limit in (stop, pause) if limit is not None), stated))
        self.wfile.write(b"+" * extra)
        if pause is not None:
            self._stall()
        if stop is not None:
            raise _Ended

    def _answer_body(self, response: http.client.HTTPResponse, left: int) -> None:
        getting = self.command == "GET"
        flipped = self.fault.flipped_byte if getting and self.fault is not None else None
        throttle = Throttle(self._bytes("throttle") if getting else None, self.stopping.wait)
        while left and (piece := response.read(throttle.piece(min(left, _BLOCK_BYTES)))):
            left -= len(piece)
            self.wfile.write(flip(piece, self.passed.sent, flipped))
            self.passed.sent += len(piece)
            self.witness().answered(self.point, self.passed.sent)
            throttle.moved(len(piece))
        if left:
            raise _Ended  # the server itself broke off

    # -- ends --------------------------------------------------------------------------------------------------

    def _stall(self) -> NoReturn:
        """Say nothing until the client has gone."""
        self._wait_for_the_client_to_go(None)
        self._reset()

    def _leave(self) -> NoReturn:
        """Close without reading on, as a Go server does that has answered before the body came."""
        self.connection.shutdown(socket.SHUT_WR)
        self._wait_for_the_client_to_go(_LEAVE_S)
        raise _Ended

    def _wait_for_the_client_to_go(self, at_most_s: float | None) -> None:
        left = None if at_most_s is None else round(at_most_s / _POLL_S)
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while left != 0 and not self.stopping.wait(_POLL_S) and not poll.poll(0):
            left = None if left is None else left - 1

    def _reset(self) -> NoReturn:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise _Ended
