"""The HTTP side of an embedded cloud: one threaded HTTP/1.1 server with keep-alive and streamed bodies.

It stands on the standard library's server because the faults need the bare connection: bodies that are cut,
answers that never come. What is answered is decided elsewhere: ``data_gateway.py`` and ``webdav.py``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.server
import select
import socket
import socketserver
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

from rucio_cs3.sandbox.cloud import faults
from rucio_cs3.sandbox.cloud.faults import Fault, Throttle
from rucio_cs3.sandbox.cloud.request_body import BLOCK_BYTES, RequestBody
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tokens import InvalidToken
from rucio_cs3.sandbox.cloud.traffic import Passed
from rucio_cs3.sandbox.reva import User

# How often a stalled exchange looks whether its client is still there, in seconds.
_STALL_POLL_S = 0.05
# Of a socket that is read slowly on purpose; the kernel would take megabytes ahead.
_SMALL_BUFFER_BYTES = 1 << 16
# With l_linger 0 close() sends a reset, as a server that dies does.
_RESET = struct.pack("ii", 1, 0)
# Go's net/http gives a client that is still sending this long to read the answer, and then closes (server.go of
# Go 1.24: rstAvoidanceDelay), in seconds.
_LEAVE_S = 0.5
# Threads end as soon as their connection is shut down.
_JOIN_TIMEOUT_S = 10.0


class Cut(Exception):
    """The exchange ends here, without an answer or in the middle of it."""


class Answered(Exception):
    """A script has answered already; the connection goes on."""


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection; each request of it goes through :meth:`_exchange`."""

    protocol_version = "HTTP/1.1"
    server_version = "embedded-cs3-cloud"
    sys_version = ""
    disable_nagle_algorithm = True
    server: HttpServer
    body: RequestBody
    fault: Fault | None
    passed: Passed | None

    def _exchange(self) -> None:
        state = self.server.state
        self.fault = self.passed = None
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        length = self.headers.get("Content-Length", "0")
        self.body = RequestBody(self.rfile, None if chunked else int(length) if length.isdigit() else 0)
        # Tokens may be part of a data gateway's URL, so the log gets the first part of the path only.
        parts = self.path.split("?")[0]
        shown = "/".join(parts.split("/")[:2]) if parts.startswith("/data") else parts
        try:
            self.server.route(self)
            self.body.drain()
        except Answered:
            pass
        except Cut as cut:
            self.close_connection = True
            state.log(f"HTTP {self.command} {shown} cut: {cut}")
        except (BrokenPipeError, ConnectionError, ssl.SSLError, TimeoutError) as error:
            # The client went away; there is nobody to tell.
            self.close_connection = True
            state.log(f"HTTP {self.command} {shown} client gone: {type(error).__name__}")

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The base class looks for do_GET and the like; any method is answered at one place.
        if name.startswith("do_"):
            return self._exchange
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        shown = self.path.split("?")[0] if hasattr(self, "path") else ""
        if shown.startswith("/data"):
            shown = "/".join(shown.split("/")[:2])
        self.server.state.log(f"HTTP {getattr(self, 'command', '')} {shown} {args[1] if len(args) > 1 else ''}")

    @property
    def state(self) -> CloudState:
        return self.server.state

    @property
    def url_path(self) -> str:
        """Decoded path of the request."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)

    def begin(self, point: str) -> None:
        """Take the fault of this point, and act what comes before everything else.

        :raises Cut: the script was ``stall``, and the client gave up.
        :raises Answered: the script was a status.
        """
        self.passed = self.body.passed = self.state.traffic.begin(
            point,
            length=self.body.length,
            asked_range=self.headers.get("Range", ""),
            upload_offset=self.headers.get("Upload-Offset", ""),
        )
        self.fault = self.state.faults.take(point)
        if self.fault is None:
            return
        if self.fault.kind == "expire-token":
            self.state.mint.expire_all()
        elif self.fault.kind == "stall":
            self.stall()
        elif self.fault.kind == "ignore-range":
            del self.headers["Range"]
        elif self.fault.kind == "throttle" and self.command in {"PUT", "PATCH"}:
            # A client sends no more than its own buffers hold ahead of what was read here.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        elif self.fault.kind == "return" and self.fault.at is not None:
            for _ in self.body.blocks(self.fault.at):
                pass
            self._start(self.fault.number, {**self.fault.headers, "Content-Length": "0", "Connection": "close"})
            self._leave()
        elif self.fault.kind == "return":
            self.answer(self.fault.number, self.fault.headers)
            raise Answered

    def fault_bytes(self, kind: str) -> int | None:
        """The argument of the fault, if it is of this kind."""
        return self.fault.number if self.fault is not None and self.fault.kind == kind else None

    def fault_is(self, kind: str) -> bool:
        return self.fault is not None and self.fault.kind == kind

    def user(self, *, links: bool = False) -> User | None:
        """Who asks, by access token (either header) or basic authentication.

        Reva v3.12.1: with two tokens one valid one is enough.

        :param links: whether those of public links are let in, too.
        """
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        tokens = [self.headers.get("X-Access-Token", "")]
        if scheme.lower() == "bearer":
            tokens.append(value.strip())
        for token in filter(None, tokens):
            try:
                if links or "publicshare" not in self.state.mint.scope(token):
                    return self.state.users.get(self.state.mint.username(token))
            except InvalidToken:
                continue
        if scheme.lower() == "basic":
            try:
                username, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return self.state.password_matches(username, password)
        return None

    def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send a whole answer, or lose it where the script says so."""
        if self.fault_is("lost-answer"):
            self.end("script lost-answer", reset=True)
        # The rest of a body that nobody wants; a close before it is read would reset the answer away.
        self.body.drain()
        if self.fault is not None and self.fault.kind == "answer":
            status, headers, body = self.fault.number, self.fault.headers, b""
        elif self.fault is not None and self.fault.kind == "delay":
            self.state.stopping.wait(self.fault.number / 1000)
        self._start(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def start_chunked(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer whose length is not known; then :meth:`chunk`, and an empty one at the end."""
        self._start(status, {**headers, "Transfer-Encoding": "chunked"})

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def send_file(self, status: int, headers: Mapping[str, str], path: Path, start: int, size: int) -> None:
        """Send ``size`` bytes of a file from ``start``; a script may make them fewer, more, or wrong.

        :raises Cut: the file has fewer bytes, or the script ends the answer early.
        """
        stated = size
        if (short := self.fault_bytes("short-body")) is not None:
            stated = size = min(short, size)
        extra = self.fault_bytes("long-body") or 0
        self._start(status, {**headers, "Content-Length": str(stated + extra)})
        if self.command == "HEAD":
            return
        stop = self.fault_bytes("cut-after")
        pause = self.fault_bytes("stall-after")
        flipped = None if self.fault is None else self.fault.flipped_byte
        throttle = self._throttle()
        sent = 0
        with path.open("rb") as file:
            file.seek(start)
            while sent < size:
                wanted = throttle.piece(min(BLOCK_BYTES, size - sent))
                for limit in (stop, pause):
                    if limit is not None:
                        wanted = min(wanted, max(limit - sent, 0))
                if wanted == 0:
                    break
                block = file.read(wanted)
                if not block:
                    break
                self.wfile.write(faults.flip(block, sent, flipped))
                sent += len(block)
                if self.passed is not None:
                    self.passed.sent = sent
                throttle.moved(len(block))
        self.wfile.flush()
        if pause is not None:
            self.stall()
        if stop is not None:
            self.end("script cut-after", reset=False)
        if sent < size:
            # Reva v3.12.1: a folder; OpenCloud: a file with a wrong declared size. The GET breaks off.
            self.end("fewer bytes than stated", reset=False)
        for _ in range(extra):
            self.wfile.write(b"+")
        if self.fault_is("lost-answer"):
            self.end("script lost-answer", reset=False)

    def receive_blocks(self) -> Iterator[memoryview]:
        """Blocks of the request body, as the script lets them come."""
        limit = self.fault_bytes("cut-after")
        if limit is None:
            limit = self.fault_bytes("stall-after")
        yield from faults.received(self.body.blocks(limit, self._throttle()), self.body.length, self.fault)

    def stopped_receiving(self) -> bool:
        """Whether a script said that no more of the body is to be read, or stored."""
        return self.fault is not None and self.fault.kind in {"cut-after", "stall-after", "lose-after"}

    def _throttle(self) -> Throttle:
        return Throttle(self.fault_bytes("throttle"), self.state.stopping.wait)

    def end_receiving(self) -> None:
        """End the exchange of a request whose body was read in part only.

        :raises Cut: always.
        """
        if self.fault_bytes("stall-after") is not None:
            self.stall()
        # A client that broke off itself is left in an orderly way: it may still be reading.
        self.end("the body was cut", reset=self.stopped_receiving())

    def stall(self) -> None:
        """Send nothing until the client gives up or the cloud stops.

        :raises Cut: then.
        """
        self.wait_for_the_end(threading.Event())
        self.end("script stall", reset=True)

    def wait_for_the_end(self, done: threading.Event) -> bool:
        """Wait until the client has gone or the cloud stops; False when ``done`` was set before."""
        poll = select.poll()
        poll.register(self.connection, getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR)
        while not done.wait(_STALL_POLL_S):
            if self.state.stopping.is_set() or poll.poll(0):
                return True
        return False

    def end(self, why: str, *, reset: bool) -> NoReturn:
        """End the connection: with a reset, or in an orderly way, behind what has been sent.

        :raises Cut: always.
        """
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise Cut(why)

    def _leave(self) -> NoReturn:
        """Close without reading on, as a Go server does that has answered before the body came.

        :raises Cut: always.
        """
        self.connection.shutdown(socket.SHUT_WR)
        over = threading.Event()
        timer = threading.Timer(_LEAVE_S, over.set)
        timer.start()
        self.wait_for_the_end(over)
        timer.cancel()
        self.end("answered before the body had come", reset=False)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        if self.passed is not None:
            self.passed.status = status
        phrase = None if status in HTTPStatus._value2member_map_ else "Other"
        self.send_response(status, phrase)
        for name, value in headers.items():
            # 204 and 304 have no body and say no length.
            if not (name == "Content-Length" and status in {204, 304}):
                self.send_header(name, value)
        self.end_headers()


Route = Callable[[Exchange], None]


class HttpServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The listening socket and its connections, one thread each."""

    daemon_threads = True
    block_on_close = False
    # A burst of new connections must not wait for SYN retries.
    request_queue_size = 128

    def __init__(self, state: CloudState, route: Route, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self.state = state
        self.route = route
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, Exchange)
        if tls is not None:
            # The handshake is the connection thread's work: a slow client must not hold the others.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="embedded-cloud-http", daemon=True
        )

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of our own name, which may ask a name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, break open connections, and wait for their threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                # It may be closed already.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, timeout=_JOIN_TIMEOUT_S)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._connections.discard(request)
                self._changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET))
        if linger == _RESET:
            # An orderly shutdown before the close would take the reset's place.
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Broken connections and failed handshakes are what tests ask for; a bug shows as a test that fails,
        # and here.
        import traceback

        self.state.log(traceback.format_exc())
