"""HTTP-TPC as Reva v3.12.1 does it (internal/http/services/owncloud/ocdav/tpc.go): pull by GET, push by PUT.

The answer is 202 with performance markers and, at the end, ``success: Created``. What goes wrong after the 202 is
not told: a refused inner PUT ends in ``success`` too, and a broken one in silence. Read next: ``storing.py``.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from rucio_cs3.sandbox.cloud import storing
from rucio_cs3.sandbox.cloud.faults import Fault
from rucio_cs3.sandbox.cloud.http_server import Exchange
from rucio_cs3.sandbox.cloud.request_body import BLOCK_BYTES
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tree import Tree

# Go's http.Client, which Reva pulls with, gives up after ten redirects.
_MAX_REDIRECTS = 10
# The other site is on this machine, or a test's; a hanging test is worse than an early end.
_PEER_TIMEOUT_S = 60.0

# How a peer can fail under us: refused, reset, or not speaking HTTP.
_PEER_ERRORS = (OSError, http.client.HTTPException)

SUCCESS = b"success: Created"


class _PeerBroke(Exception):
    """The body of the other site ended before it was whole."""


class _Peers:
    """Connections to the other site; broken when the client of the COPY goes away, or the cloud stops.

    Reva v3.12.1: the inner PUT ends with the COPY's context, and with it the GET that feeds it. (Where the source
    says nothing at that moment, Reva holds the GET until it does; nobody but the source can tell.)
    """

    def __init__(self, exchange: Exchange) -> None:
        self.state = exchange.state
        self._exchange = exchange
        self._done = threading.Event()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._watch, name="embedded-cloud-tpc", daemon=True)

    def __enter__(self) -> _Peers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def connect(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        """
        :raises ValueError: the URL is none of HTTP.
        :raises OSError: it cannot be reached.
        """
        connection = _connection(self.state, parts)
        connection.connect()
        self._sockets.append(connection.sock)
        return connection

    def _watch(self) -> None:
        if self._exchange.wait_for_the_end(self._done):
            for one in tuple(self._sockets):
                # It may be closed already.
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Report:
    """The 202 answer of a COPY; its head leaves with the first marker, or with the end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._interval_s = exchange.state.marker_interval_s
        self._last = time.monotonic()
        self._started = False
        self._total = 0

    def count(self, size: int) -> None:
        """More bytes have passed; sends a marker when it is time for one."""
        self._total += size
        now = time.monotonic()
        if now - self._last < self._interval_s:
            return
        self._last = now
        self._start()
        # Reva v3.12.1 writes "Strip Index" where other servers write "Stripe Index".
        self._exchange.chunk(
            b"Perf Marker\nTimestamp: %d\nStripe Bytes Transferred: %d\nStrip Index: 0\n"
            b"Total Stripe Count: 1\nEnd\n\n" % (int(time.time()), self._total)
        )

    def finish(self, last_line: bytes) -> None:
        if not self._started:
            # Reva v3.12.1: without a marker the answer has a Content-Length.
            headers = {"Content-Type": "text/plain; charset=utf-8"} if last_line else {}
            self._exchange.answer(HTTPStatus.ACCEPTED, headers, last_line)
            return
        if self._exchange.fault_is("lost-answer"):
            self._exchange.end("script lost-answer", reset=True)
        if last_line:
            self._exchange.chunk(last_line)
        self._exchange.chunk(b"")

    def cut(self) -> None:
        """End the connection of the COPY without a last line, where the script says so."""
        self._start()
        self._exchange.end("script cut-after", reset=False)

    @property
    def total(self) -> int:
        return self._total

    def _start(self) -> None:
        if not self._started:
            self._started = True
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            self._exchange.start_chunked(HTTPStatus.ACCEPTED, headers)


def pull(exchange: Exchange, tree: Tree, relative: str, overwrite: bool) -> None:
    """COPY with Source: fetch it and store it under ``relative``."""
    state = exchange.state
    if tree.exists(relative) and not overwrite:
        exchange.answer(HTTPStatus.PRECONDITION_FAILED)
        return
    fault = state.faults.take("tpc.inner-get")
    if fault is not None and fault.kind == "return":
        exchange.answer(fault.number)
        return
    if fault is not None and fault.kind == "stall":
        exchange.stall()
    # Without the header an empty Authorization is sent.
    authorization = exchange.headers.get("TransferHeaderAuthorization", "")
    with _Peers(exchange) as peers:
        try:
            connection, response = _open(peers, exchange.headers["Source"], authorization)
        except (*_PEER_ERRORS, ValueError):
            exchange.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        try:
            if response.status == HTTPStatus.NOT_IMPLEMENTED:
                # "source might be a folder"
                exchange.answer(HTTPStatus.BAD_REQUEST)
            elif response.status != HTTPStatus.OK:
                # 404 for a missing source, 401 for a bad token: passed on. 206 is not taken for success either.
                exchange.answer(response.status)
            else:
                _store(exchange, tree, relative, response, fault)
        finally:
            connection.close()


def _store(
    exchange: Exchange,
    tree: Tree,
    relative: str,
    response: http.client.HTTPResponse,
    inner_get: Fault | None,
) -> None:
    state = exchange.state
    report = _Report(exchange)
    inner_put = state.faults.take("tpc.inner-put")
    if inner_put is not None and inner_put.kind == "return":
        # A refused inner PUT: nothing is stored, and it is success all the same.
        report.finish(SUCCESS)
        return
    if inner_put is not None and inner_put.kind == "stall":
        exchange.stall()
    session = state.uploads.open(tree, relative)
    cut = next((one.number for one in (inner_put, inner_get) if one is not None and one.kind == "cut-after"), None)
    flip = inner_put is not None and inner_put.kind == "flip-byte"
    try:
        blocks = storing.within_disk(state, session, _counted(exchange, report, _body(response, cut)))
        session.append(blocks, flip_byte=flip)
    except storing.DiskFull:
        # Like a refused inner PUT: nothing is stored, and it is success all the same.
        state.uploads.drop(session)
        report.finish(SUCCESS)
        return
    except _PeerBroke:
        # The inner PUT is cut with the source: a stub becomes visible, and no last line is written.
        storing.finish(state, session)
        report.finish(b"")
        return
    # Whatever the status of the inner PUT (a missing parent: 500), the last line is the same.
    storing.finish(state, session)
    report.finish(SUCCESS)


def push(exchange: Exchange, tree: Tree, relative: str) -> None:
    """COPY with Destination: send the file ``relative`` there."""
    state = exchange.state
    try:
        entry = tree.entry(relative)
    except (FileNotFoundError, NotADirectoryError):
        # Reva v3.12.1: the handler panics on a missing source, and the connection ends without an answer.
        exchange.end("push of a missing file", reset=False)
        return
    if entry.is_directory:
        exchange.answer(HTTPStatus.BAD_REQUEST)
        return
    # `Overwrite: F` is not looked at, and not passed on: an existing destination is overwritten.
    report = _Report(exchange)
    fault = state.faults.take("tpc.inner-put")
    if fault is not None and fault.kind == "return":
        report.finish(SUCCESS)
        return
    if fault is not None and fault.kind == "stall":
        exchange.stall()
    destination = exchange.headers["Destination"]
    parts = urllib.parse.urlsplit(destination)
    userinfo = parts.netloc.rpartition("@")[0]
    # A user in the destination's URL is taken as the token.
    authorization = f"Bearer {userinfo}" if userinfo else exchange.headers.get("TransferHeaderAuthorization", "")
    # Go takes a length of 0 for an unknown one, and Reva's own front end refuses a PUT without a length: an empty file
    # does not arrive.
    length = {"Content-Length": str(entry.size)} if entry.size else {"Transfer-Encoding": "chunked"}
    headers = {"Authorization": authorization, **length}
    cut = fault.number if fault is not None and fault.kind == "cut-after" else None
    flip = fault is not None and fault.kind == "flip-byte"
    with _Peers(exchange) as peers:
        try:
            with contextlib.closing(peers.connect(parts)) as connection, entry.path.open("rb") as file:
                blocks = _flipped(_file_blocks(file, cut), flip)
                body = _counted(exchange, report, blocks)
                connection.request("PUT", _target(parts), body, headers, encode_chunked=not entry.size)
                # 201 and 204 are not 200 for Reva, nor is 507: all of them end in success.
                connection.getresponse().read()
        except (*_PEER_ERRORS, _PeerBroke, ValueError):
            # The other site cannot be reached, or broke off: 202 without a last line.
            report.finish(b"")
            return
    report.finish(SUCCESS)


def _counted(exchange: Exchange, report: _Report, blocks: Iterator[bytes]) -> Iterator[bytes]:
    limit = exchange.fault_bytes("cut-after")
    for block in blocks:
        yield block
        report.count(len(block))
        if limit is not None and report.total >= limit:
            report.cut()


def _body(response: http.client.HTTPResponse, cut: int | None) -> Iterator[bytes]:
    """Blocks of the source.

    :raises _PeerBroke: it ended early, or the script says so.
    """
    stated = response.length
    received = 0
    while True:
        wanted = BLOCK_BYTES if cut is None else min(BLOCK_BYTES, cut - received)
        if wanted <= 0:
            raise _PeerBroke
        try:
            # read1: what is there already, so that markers tell of a slow source too.
            block = response.read1(wanted)
        except _PEER_ERRORS as error:
            raise _PeerBroke from error
        if not block:
            break
        received += len(block)
        yield block
    if stated is not None and received < stated:
        raise _PeerBroke


def _file_blocks(file: io.BufferedReader, cut: int | None) -> Iterator[bytes]:
    sent = 0
    while block := file.read(BLOCK_BYTES):
        if cut is not None and sent + len(block) > cut:
            yield block[: cut - sent]
            raise _PeerBroke
        sent += len(block)
        yield block


def _flipped(blocks: Iterator[bytes], flip: bool) -> Iterator[bytes]:
    for block in blocks:
        yield bytes((block[0] ^ 1,)) + block[1:] if flip else block
        flip = False


def _open(peers: _Peers, url: str, authorization: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """GET ``url``, with redirects as Go's client follows them.

    :raises OSError: and HTTPException, ValueError: no answer could be had.
    """
    origin = urllib.parse.urlsplit(url).netloc
    for _ in range(_MAX_REDIRECTS):
        parts = urllib.parse.urlsplit(url)
        connection = peers.connect(parts)
        # The token stays with the host it was given for.
        headers = {"Authorization": authorization} if parts.netloc == origin else {}
        try:
            connection.request("GET", _target(parts), headers=headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        location = response.getheader("Location")
        if response.status not in {301, 302, 303, 307, 308} or not location:
            return connection, response
        connection.close()
        url = urllib.parse.urljoin(url, location)
    raise ValueError("too many redirects")


def _connection(state: CloudState, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an HTTP URL")
    options: dict[str, Any] = {"timeout": _PEER_TIMEOUT_S, "blocksize": BLOCK_BYTES}
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, **options)
    context = state.peers or ssl.create_default_context()
    return http.client.HTTPSConnection(parts.hostname, parts.port, context=context, **options)


def _target(parts: urllib.parse.SplitResult) -> str:
    return urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
