"""A real Reva behind two relays that act the same fault scripts as the embedded clouds.

The client under test is unchanged and talks to the relays: one for gRPC, which passes messages on as bytes and
writes the HTTP relay's address into tickets, and one for HTTP. What no relay can do to a server from outside
(checksums that Reva does not have, its own inner requests) is refused when the script is added.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import select
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from google.protobuf import message_factory

from rucio_cs3.sandbox.cloud.faults import Fault, Faults
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.reva import RevaSite, User

_SERVICE = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"]
_BLOCK_BYTES = 64 * 1024
_POLL_S = 0.05
#: Reva ends a request whose body broke off within milliseconds; a loaded machine gets more.
_SETTLE_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # l_onoff, l_linger 0: close() sends a reset
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})

_REFUSED = {
    "wrong-checksum": "the local driver of Reva v3.12.1 gives no checksums that could be wrong",
    "say": "what Reva writes into its report is Reva's",
}


class FaultyReva(Startable):
    """The surface of a sandbox cloud: a running Reva site, with fault scripts.

    :param site: started already, and stopped by its owner.
    """

    def __init__(self, site: RevaSite) -> None:
        self.site = site
        self.name = site.name
        self.root = site.root
        self.tls = False
        self.ca_bundle: Path | None = None
        self.faults = Faults(refused=_REFUSED)
        self._tokens = _Tokens()
        self._stopping = threading.Event()
        self._http = _HTTPRelay(site, self.faults, self._tokens, self._stopping)
        self._gateway = _GatewayRelay(site, self.faults, self._tokens, self._stopping, self._http.address)

    @property
    def gateway(self) -> str:
        return self._gateway.address

    @property
    def webdav_url(self) -> str:
        return f"http://{self._http.address}/remote.php/webdav"

    @property
    def users(self) -> dict[str, User]:
        return self.site.users

    @property
    def data_directory(self) -> Path:
        return self.site.data_directory

    def path_on_disk(self, relative: str) -> Path:
        return self.site.path_on_disk(relative)

    @property
    def log(self) -> Path | None:
        return self.site.log

    def start(self) -> None:
        self._http.start()
        self._gateway.start()

    def stop(self) -> None:
        self._stopping.set()
        self._gateway.stop()
        self._http.stop()


class _Tokens:
    """Access tokens that were issued, and those that Reva is not to see any more; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: set[str] = set()
        self._expired: set[str] = set()

    def issued(self, token: str) -> None:
        with self._lock:
            self._issued.add(token)
            # Two logins within one second give the same token (Reva's have no jti); the second makes it live again.
            self._expired.discard(token)

    def expire_all(self) -> None:
        with self._lock:
            self._expired |= self._issued

    def as_seen(self, token: str) -> str:
        """What Reva gets in place of a token: a broken signature where it has expired."""
        with self._lock:
            return f"{token}x" if token in self._expired else token


class _GatewayRelay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes unary calls on to the site's gateway."""

    def __init__(
        self, site: RevaSite, faults: Faults, tokens: _Tokens, stopping: threading.Event, http_address: str
    ) -> None:
        self._faults = faults
        self._tokens = tokens
        self._stopping = stopping
        self._http_address = http_address
        self._channel = grpc.insecure_channel(site.gateway, options=[("grpc.enable_http_proxy", 0)])
        self._server = grpc.server(futures.ThreadPoolExecutor(16), handlers=(self,), options=[("grpc.so_reuseport", 0)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        def relay(request: bytes, context: Any) -> bytes:
            return self._relay(method, request, context)

        return grpc.unary_unary_rpc_method_handler(relay)

    def _relay(self, method: str, request: bytes, context: Any) -> bytes:
        name = method.rpartition("/")[2]
        response_class: Any = message_factory.GetMessageClass(_SERVICE.methods_by_name[name].output_type)
        fault = self._faults.take(f"gateway.{name}")
        if fault is not None and fault.kind == "code":
            return self._status(response_class, fault)
        if fault is not None:
            self._act_before(fault, context)
        token = dict(context.invocation_metadata()).get("x-access-token", "")
        try:
            answer: bytes = self._channel.unary_unary(method)(
                request,
                timeout=context.time_remaining(),
                metadata=[("x-access-token", self._tokens.as_seen(token))] if token else [],
            )
        except grpc.RpcError as exc:
            failed: Any = exc
            context.abort(failed.code(), failed.details())
        if fault is not None and fault.kind == "lost-answer":
            context.abort(grpc.StatusCode.UNAVAILABLE, "a scripted fault: the answer got lost")
        response = response_class.FromString(answer)
        if name == "Authenticate":
            self._tokens.issued(response.token)
        for protocol in getattr(response, "protocols", ()):
            for key in ("upload_endpoint", "download_endpoint"):
                if getattr(protocol, key, ""):
                    parts = urlsplit(getattr(protocol, key))
                    setattr(protocol, key, parts._replace(netloc=self._http_address).geturl())
        return bytes(response.SerializeToString())

    @staticmethod
    def _status(response_class: Any, fault: Fault) -> bytes:
        code = code_pb2.Code.Value(f"CODE_{fault.name.removeprefix('CODE_')}")
        response = response_class(status=status_pb2.Status(code=code, message="a scripted fault"))
        return bytes(response.SerializeToString())

    def _act_before(self, fault: Fault, context: Any) -> None:
        if fault.kind == "expire-token":
            self._tokens.expire_all()
        elif fault.kind == "grpc":
            context.abort(grpc.StatusCode[fault.name], "a scripted fault")
        elif fault.kind == "stall":
            while context.is_active() and not self._stopping.wait(_POLL_S):
                pass
            context.abort(grpc.StatusCode.CANCELLED, "a scripted fault: nobody waits any more")


class _Ended(Exception):
    """The exchange with the client ends here."""


class _HTTPRelay:
    """Passes HTTP requests on to the site, and breaks those that a script names."""

    def __init__(self, site: RevaSite, faults: Faults, tokens: _Tokens, stopping: threading.Event) -> None:
        upstream = urlsplit(site.http_url).netloc

        class Relay(_Exchange):
            pass

        Relay.upstream, Relay.faults, Relay.tokens, Relay.stopping = upstream, faults, tokens, stopping
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

    def shutdown_request(self, request: Any) -> None:
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET)) == _RESET:
            self.close_request(request)  # an orderly shutdown would take the reset's place
        else:
            super().shutdown_request(request)


class _Exchange(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    upstream: str
    faults: Faults
    tokens: _Tokens
    stopping: threading.Event

    def _exchange(self) -> None:
        area = "data" if self.path.startswith("/datagateway") else "webdav"
        self.fault = self.faults.take(f"{area}.{self.command.lower()}")
        try:
            self._relay()
        except (_Ended, OSError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_DELETE = do_COPY = _exchange  # noqa: N815
    do_MOVE = do_MKCOL = do_PROPFIND = do_OPTIONS = _exchange  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing is logged: a request holds tokens."""

    def _is(self, kind: str) -> bool:
        return self.fault is not None and self.fault.kind == kind

    def _bytes(self, kind: str) -> int | None:
        return self.fault.number if self.fault is not None and self.fault.kind == kind else None

    def _relay(self) -> None:
        if self._is("expire-token"):
            self.tokens.expire_all()
        elif self._is("stall"):
            self._stall()
        elif self.fault is not None and self.fault.kind == "return":
            for _ in self._body():
                pass
            self.send_response(self.fault.number)
            for name, value in self.fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.upstream)
        with contextlib.closing(connection):
            self._forward(connection)
            with connection.getresponse() as response:
                if self._is("lost-answer"):
                    response.read()
                    self._reset()
                self._answer(response)

    def _forward(self, connection: http.client.HTTPConnection) -> None:
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                connection.putheader(name, self._as_seen(name, value))
        connection.endheaders()
        limit = self._bytes("cut-after")
        if limit is None:
            limit = self._bytes("stall-after")
        sending = self.command == "PUT"
        sent = 0
        for piece in self._body(limit if sending else None):
            if sending and self._is("flip-byte") and not sent:
                piece = bytes((piece[0] ^ 1,)) + piece[1:]
            connection.send(piece)
            sent += len(piece)
        if sent < int(self.headers.get("Content-Length", 0)):
            self._break_off(connection)

    def _as_seen(self, name: str, value: str) -> str:
        if name.lower() == "x-access-token":
            return self.tokens.as_seen(value)
        scheme, _, token = value.partition(" ")
        if name.lower() == "authorization" and scheme == "Bearer":
            return f"{scheme} {self.tokens.as_seen(token)}"
        return value

    def _body(self, limit: int | None = None) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        if limit is not None:
            left = min(left, limit)
        while left:
            piece = self.rfile.read1(min(left, _BLOCK_BYTES))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def _break_off(self, connection: http.client.HTTPConnection) -> None:
        """The body did not come whole: tell Reva so, and wait until it has done what it does then."""
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(_SETTLE_S)
        with contextlib.suppress(OSError):
            while connection.sock.recv(_BLOCK_BYTES):
                pass
        if self._is("stall-after"):
            self._stall()
        self._reset()

    def _answer(self, response: http.client.HTTPResponse) -> None:
        length = response.length
        stop = self._bytes("cut-after") if self.command == "GET" else None
        pause = self._bytes("stall-after") if self.command == "GET" else None
        short, extra = self._bytes("short-body"), self._bytes("long-body") or 0
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in (*_HOP_BY_HOP, "content-length"):
                self.send_header(name, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := response.read1(_BLOCK_BYTES):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        stated = length if short is None else min(short, length)
        self.send_header("Content-Length", str(stated + extra))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = min(stated, *(limit for limit in (stop, pause) if limit is not None), stated)
        first = True
        while left and (piece := response.read(min(left, _BLOCK_BYTES))):
            left -= len(piece)
            if first and self._is("flip-byte") and self.command == "GET":
                piece = bytes((piece[0] ^ 1,)) + piece[1:]
            first = False
            self.wfile.write(piece)
        self.wfile.write(b"+" * extra)
        if pause is not None:
            self._stall()
        if stop is not None:
            raise _Ended

    def _stall(self) -> None:
        """Say nothing until the client has gone."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not self.stopping.wait(_POLL_S) and not poll.poll(0):
            pass
        self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise _Ended
