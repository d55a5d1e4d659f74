"""The HTTP choke point against a server that misbehaves on the bare socket."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from rucio_cs3.cs3 import Endpoint, Timeouts, WebDAVBase, errors, tls
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.http.client import HTTPClient, http_error
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.sandbox.ports import free_port
from tests.listening import Listening, read_head

ACCESS, TRANSFER = "access-token-4711", "transfer-token-0815"
#: More than all socket buffers between two ends take.
LARGE = 32 * 1024 * 1024

Script = Callable[[socket.socket, bytes], None]


class RawServer(Listening):
    """Reads the head of one request for each connection, and lets a script do the rest with the bare socket.

    The script gets what has come behind the head already.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.heads: list[str] = []
        self._script = script

    def serve(self, connection: socket.socket, number: int) -> None:
        request = read_head(connection)
        if request is not None:
            self.heads.append(request[0])
            self._script(connection, request[1])

    def header(self, name: str, request: int = -1) -> str | None:
        """A header of a request, None where it has none."""
        for line in self.heads[request].split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


def says(answer: bytes) -> Script:
    """A script that sends ``answer`` and closes."""

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)

    return script


def reads_and_says(answer: bytes) -> Script:
    """A script that answers when the client has nothing more to send, or before that and then listens on."""

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    return script


@contextlib.contextmanager
def gateway_of(
    port: int,
    *,
    scheme: str = "http",
    host: str = "127.0.0.1",
    connect_s: float = 10,
    idle_s: float = 10,
    **changes: Any,
) -> Iterator[DataGateway]:
    endpoint = Endpoint(
        name="CLOUD",
        gateway="127.0.0.1:1",
        gateway_tls=False,
        webdav=WebDAVBase.parse(f"{scheme}://{host}:{port}/webdav"),
        timeouts=Timeouts(connect_s=connect_s, idle_s=idle_s),
        **changes,
    )
    with contextlib.closing(HTTPClient(endpoint)) as http:
        yield DataGateway(endpoint, http, lambda: Credential(ACCESS))


def ticket_of(port: int, *, scheme: str = "http", host: str = "127.0.0.1", path: str = "/data") -> Ticket:
    return Ticket(protocol="simple", url=f"{scheme}://{host}:{port}{path}", token=TRANSFER)


def fetch(gateway: DataGateway, ticket: Ticket, write: Callable[[memoryview], object]) -> None:
    """GET by a ticket, as far as it goes."""
    buffer = memoryview(bytearray(1 << 20))
    with RemoteFile(lambda: gateway.open(ticket, target="/a/file"), size=None, target="/a/file") as file:
        while count := file.readinto(buffer):
            write(buffer[:count])
        assert file.readinto(buffer) == 0


def get(port: int, **changes: Any) -> bytes:
    """GET from a raw server; the bytes that came."""
    got = bytearray()
    ticket = ticket_of(port, **{key: changes[key] for key in ("scheme", "host") if key in changes})
    with gateway_of(port, **changes) as gateway:
        fetch(gateway, ticket, got.extend)
    return bytes(got)


def put(port: int, size: int, **changes: Any) -> UploadBody:
    """PUT to a raw server; the body that was sent."""
    body = UploadBody(io.BytesIO(bytes(size)), size, Digests(), name="local")
    with gateway_of(port, **changes) as gateway:
        gateway.put(ticket_of(port), body, target="/a/file")
    return body


def send(method: str, port: int) -> None:
    """GET, or PUT of five bytes."""
    if method == "GET":
        get(port)
    else:
        put(port, 5)


def test_a_body_comes_whole() -> None:
    with RawServer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) as server:
        assert get(server.port) == b"hello"
    assert server.heads[0].startswith("GET /data HTTP/1.1")
    assert server.header("X-Reva-Transfer") == TRANSFER
    assert server.header("X-Access-Token") == ACCESS
    assert server.header("Accept-Encoding") == "identity"
    assert server.header("Authorization") is None


@pytest.mark.parametrize("count", [0, 1, 400, 999])
def test_a_truncated_body_is_noticed(count: int) -> None:
    with (
        RawServer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(count))) as server,
        pytest.raises(errors.TransferInterrupted, match=f"GET /a/file: the connection ended after {count} of 1000"),
    ):
        get(server.port)


def test_a_truncated_chunked_body_is_noticed() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        RawServer(says(head + b"5\r\nhello\r\n10\r\nhal")) as server,
        pytest.raises(errors.TransferInterrupted, match="GET /a/file"),
    ):
        get(server.port)


def test_a_body_longer_than_announced_is_not_read_on() -> None:
    script = says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
    got = bytearray()
    with RawServer(script) as server, gateway_of(server.port) as gateway:
        for _ in range(2):
            fetch(gateway, ticket_of(server.port), got.extend)
            assert server.closed.acquire(timeout=20)
    assert bytes(got) == b"hellohello"
    assert len(server.heads) == 2


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with RawServer(says(b"HTTP/1.1 200 OK\r\n\r\nhello")) as server:
        assert get(server.port) == b"hello"


@pytest.mark.parametrize("answer", [b"", b"HT", b"SSH-2.0-OpenSSH\r\n\r\n", b"\0" * 100])
def test_an_answer_that_is_none(answer: bytes) -> None:
    with RawServer(says(answer)) as server, pytest.raises(errors.CS3Error) as caught:
        get(server.port)
    assert isinstance(caught.value, errors.TransferInterrupted | errors.InvalidRequest)
    assert "GET /a/file" in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_redirect_is_not_followed(status: int, method: str) -> None:
    with RawServer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")) as other:
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{other.port}/x\r\nContent-Length: 0\r\n\r\n"
        with (
            RawServer(reads_and_says(answer.encode())) as server,
            pytest.raises(errors.ProtocolViolation, match="redirects are not followed") as caught,
        ):
            send(method, server.port)
    assert caught.value.code == f"HTTP {status}"
    assert len(server.heads) == 1
    assert other.heads == []


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, errors.InvalidRequest, False),
        (401, errors.Unauthenticated, False),
        (403, errors.AccessDenied, False),
        (404, errors.NotFound, False),
        (409, errors.PreconditionFailed, False),
        (412, errors.PreconditionFailed, False),
        (413, errors.NoSpaceLeft, False),
        (416, errors.InvalidRequest, False),
        (419, errors.ChecksumMismatch, False),
        (423, errors.Locked, True),
        (425, errors.TooEarly, True),
        (429, errors.Throttled, True),
        (500, errors.ServerFault, False),
        (503, errors.Unavailable, True),
        (507, errors.NoSpaceLeft, False),
        (206, errors.UnknownCode, False),
        (299, errors.UnknownCode, False),
    ],
)
def test_a_refusal_has_its_class(method: str, status: int, kind: type[errors.CS3Error], retryable: bool) -> None:
    answer = f"HTTP/1.1 {status} Words\r\nX-Request-Id: trace-1\r\nContent-Length: 11\r\n\r\nits reason."
    with RawServer(reads_and_says(answer.encode())) as server, pytest.raises(kind) as caught:
        send(method, server.port)
    error = caught.value
    assert (error.code, error.trace, error.operation, error.target) == (f"HTTP {status}", "trace-1", method, "/a/file")
    assert error.retryable is retryable
    assert f"{status} Words: its reason." in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100000000\r\n\r\n" + b"word " * 100_000,  # endless, and cut
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Content-Type: text/html\r\nContent-Length: 17\r\n\r\n<h1>an error</h1>",
        b"\r\n\xff\xfe\x00",
    ],
)
def test_an_error_page_of_any_kind(body: bytes) -> None:
    with (
        RawServer(says(b"HTTP/1.1 500 Words\r\n" + body)) as server,
        pytest.raises(errors.ServerFault, match="answered 500 Words") as caught,
    ):
        get(server.port)
    assert len(str(caught.value)) < 700
    assert "<h1>" not in str(caught.value)


def echoing(*parts: str) -> Script:
    """A server that says back what it was told, all of it: a debug page, or an exception with the request in it."""

    def script(connection: socket.socket, _: bytes) -> None:
        text = " ".join(parts).encode()
        head = f"HTTP/1.1 403 Not {parts[0]}\r\nX-Request-Id: of {parts[0]}\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall(head.encode() + text)

    return script


LONG = "eyJhbGciOiJub25lIn0." + "x1y2z3" * 200
BASIC = base64.b64encode(b"user:pass/word+4711?").decode()


@pytest.mark.parametrize(
    ("header", "value", "repeated"),
    [
        ("Authorization", f"Bearer {ACCESS}", f"Bearer {ACCESS}"),
        ("Authorization", f"Bearer {ACCESS}", f'{{"token":"{ACCESS}"}}'),
        ("authorization", f"bearer {ACCESS}", ACCESS),
        ("Authorization", f"Basic {BASIC}", BASIC),
        ("Authorization", f"Basic {BASIC}", "pass\\/word+4711?"),
        ("Authorization", f"Basic {BASIC}", "no such password: pass/word+4711?"),
        ("Authorization", f"Basic {BASIC}", "pass%2Fword%2B4711%3F"),
        ("TransferHeaderAuthorization", f"Bearer {ACCESS}", ACCESS),
        ("X-Access-Token", ACCESS, f"reva {ACCESS}!"),
        ("X-Reva-Transfer", ACCESS, ACCESS),
        # Longer than what is kept of an answer, and than what some servers repeat.
        ("Authorization", f"Bearer {LONG}", LONG),
        ("Authorization", f"Bearer {LONG}", f"{LONG[:60]}..."),
    ],
)
def test_what_a_server_repeats_is_not_told(header: str, value: str, repeated: str) -> None:
    with RawServer(echoing(repeated, "said you")) as server, gateway_of(server.port) as gateway:
        http = gateway._http
        with http.request("GET", f"http://127.0.0.1:{server.port}/", headers={header: value}, target="f") as response:
            told = http_error(response, "GET", "f")
    assert "403 Not" in str(told)
    for text in (str(told), repr(vars(told))):
        assert "***" in text
        for secret in ("4711", "x1y2z3", BASIC[:12]):
            assert secret not in text


@pytest.mark.parametrize("repeated", ["authz=Bearer%20t-4711&n=1", "Bearer t-4711", "t-4711", "/f?authz=Bearer+t-4711"])
def test_the_query_of_a_url_that_a_server_repeats_is_not_told(repeated: str) -> None:
    with RawServer(echoing(repeated, "is no ticket, 1 of 2")) as server, gateway_of(server.port) as gateway:
        url = f"http://127.0.0.1:{server.port}/f?authz=Bearer%20t-4711&n=1"
        with gateway._http.request("GET", url, headers={}, target="f") as response:
            told = str(http_error(response, "GET", "f"))
    assert "4711" not in told
    assert "is no ticket, 1 of 2" in told


@pytest.mark.parametrize("url", ["http://[::1]x/?authz=SECRET", "http://[::1/?authz=SECRET", "http://h:SECRET/"])
def test_a_url_that_is_none_is_not_told(url: str) -> None:
    with (
        gateway_of(1) as gateway,
        pytest.raises(errors.ProtocolViolation) as caught,
        gateway._http.request("GET", url, headers={}, target="/a/file"),
    ):
        pass
    assert "GET /a/file" in str(caught.value)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def receives(size: int, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") -> Script:
    """A script that reads a whole body and answers."""

    def script(connection: socket.socket, rest: bytes) -> None:
        left = size - len(rest)
        while left > 0:
            left -= len(connection.recv(1 << 20))
        connection.sendall(answer)

    return script


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024])
@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_body_is_sent_with_its_length(size: int, status: int) -> None:
    with RawServer(receives(size, f"HTTP/1.1 {status} Done\r\nContent-Length: 0\r\n\r\n".encode())) as server:
        body = put(server.port, size)
    assert body.digests.byte_count == size
    assert server.heads[0].startswith("PUT /data HTTP/1.1")
    assert server.header("Content-Length") == str(size)
    assert server.header("Transfer-Encoding") is None
    assert server.header("X-Reva-Transfer") == TRANSFER


@pytest.mark.parametrize(("status", "kind"), [(413, errors.NoSpaceLeft), (401, errors.Unauthenticated)])
def test_an_answer_before_the_body_is_read_counts(status: int, kind: type[errors.CS3Error]) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with RawServer(reads_and_says(answer.encode())) as server, pytest.raises(kind) as caught:
        put(server.port, LARGE)
    assert caught.value.code == f"HTTP {status}"


def test_a_success_before_the_body_is_sent_is_none() -> None:
    """The server closes with most of the body unread, and says 200."""

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)

    with RawServer(script) as server, pytest.raises(errors.TransferInterrupted, match="PUT /a/file"):
        put(server.port, LARGE)


def test_a_lost_answer_to_a_put() -> None:
    with (
        RawServer(receives(5, b"")) as server,
        pytest.raises(errors.TransferInterrupted, match="PUT /a/file") as caught,
    ):
        put(server.port, 5)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert len(server.heads) == 1


@pytest.fixture
def until_released() -> Iterator[threading.Event]:
    """Scripts that stall wait for this; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"])
def test_a_silent_server(start: bytes, until_released: threading.Event) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        until_released.wait(30)

    with RawServer(script) as server:
        with pytest.raises(errors.DeadlineExceeded, match="fell silent") as caught:
            get(server.port, idle_s=0.2)
        until_released.set()
    assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_a_server_that_stops_reading(until_released: threading.Event) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        until_released.wait(30)

    with RawServer(script) as server:
        with pytest.raises(errors.DeadlineExceeded, match="stopped reading") as caught:
            put(server.port, LARGE, idle_s=0.2)
        until_released.set()
    assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_the_connect_timeout_does_not_limit_the_sending() -> None:
    """A pause in the reading longer than the connect timeout is no failure; the idle timeout counts."""
    pause = threading.Event()

    def script(connection: socket.socket, rest: bytes) -> None:
        pause.wait(0.6)
        receives(LARGE)(connection, rest)

    with RawServer(script) as server:
        assert put(server.port, LARGE, connect_s=0.2, idle_s=20).digests.byte_count == LARGE


def test_the_connect_timeout_does_not_limit_the_sending_on_a_kept_connection() -> None:
    """urllib3 sets the connect timeout again for each request on a connection that it kept."""
    pause = threading.Event()
    connections: list[int] = []

    def script(connection: socket.socket, rest: bytes) -> None:
        connections.append(1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        pause.wait(0.6)  # the next request comes on this connection, and is not read for a while
        left = LARGE
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        left -= len(data.partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(connection.recv(1 << 20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    body = UploadBody(io.BytesIO(bytes(LARGE)), LARGE, Digests(), name="local")
    with RawServer(script) as server, gateway_of(server.port, connect_s=0.2, idle_s=20) as gateway:
        fetch(gateway, ticket_of(server.port), bytearray().extend)
        gateway.put(ticket_of(server.port), body, target="/a/file")
    assert body.digests.byte_count == LARGE
    assert connections == [1]


def test_our_own_errors_pass_through() -> None:
    def write(_: memoryview) -> None:
        raise errors.LocalNoSpaceLeft("the disk is full")

    with (
        RawServer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) as server,
        gateway_of(server.port) as gateway,
        pytest.raises(errors.LocalNoSpaceLeft, match="the disk is full"),
    ):
        fetch(gateway, ticket_of(server.port), write)


def test_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(errors.Unavailable, match="refused") as caught:
        get(port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert caught.value.retryable


def test_an_unknown_host() -> None:
    with pytest.raises(errors.Unavailable, match=r"name\.invalid:8080 cannot be reached"):
        get(8080, host="name.invalid", allow_plaintext=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def ca_bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


HELLO = says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_tls_with_its_authority(authority: trustme.CA, ca_bundle: Path) -> None:
    with RawServer(HELLO, server_tls(authority, "127.0.0.1")) as server:
        assert get(server.port, scheme="https", ca_bundle=ca_bundle) == b"hello"


@pytest.mark.parametrize("case", ["unknown authority", "other authority", "wrong name"])
def test_tls_that_is_refused(authority: trustme.CA, ca_bundle: Path, tmp_path: Path, case: str) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    bundle = {"unknown authority": None, "other authority": other, "wrong name": ca_bundle}[case]
    name = "elsewhere.test" if case == "wrong name" else "127.0.0.1"
    with RawServer(HELLO, server_tls(authority, name)) as server:
        advice = "use a name of that certificate" if case == "wrong name" else "name the PEM file of its authority"
        with pytest.raises(errors.ConfigurationError, match=advice) as caught:
            get(server.port, scheme="https", ca_bundle=bundle)
        port = server.port
    assert f"TLS with 127.0.0.1:{port} failed" in str(caught.value)
    assert server.heads == []


def test_insecure_is_loud(
    authority: trustme.CA, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_warned", set())
    with RawServer(HELLO, server_tls(authority, "elsewhere.test")) as server:
        with pytest.warns(tls.InsecureTLSWarning, match="CLOUD: INSECURE"):
            assert get(server.port, scheme="https", insecure=True) == b"hello"
        assert get(server.port, scheme="https", insecure=True) == b"hello"
    assert any(record.levelno == logging.WARNING and "INSECURE" in record.message for record in caplog.records)


def test_tls_to_a_plaintext_server() -> None:
    # The script never gets a head: a TLS greeting has no empty line, so the client's wait must end by itself.
    with RawServer(HELLO) as server, pytest.raises(errors.CS3Error) as caught:
        get(server.port, scheme="https", idle_s=0.5, connect_s=0.5)
    assert isinstance(caught.value, errors.ConfigurationError | errors.DeadlineExceeded)
    assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_plaintext_to_a_tls_server(authority: trustme.CA) -> None:
    with (
        RawServer(HELLO, server_tls(authority, "127.0.0.1")) as server,
        pytest.raises(errors.TransferInterrupted, match="broke") as caught,
    ):
        get(server.port)
    assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with RawServer(HELLO) as server:
        assert get(server.port) == b"hello"
    assert server.header("Authorization") is None
    assert server.header("Proxy-Authorization") is None


def test_cookies_are_not_kept() -> None:
    script = says(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=other; Path=/\r\nContent-Length: 5\r\n\r\nhello")
    with RawServer(script) as server, gateway_of(server.port) as gateway:
        for _ in range(2):
            fetch(gateway, ticket_of(server.port), lambda _: None)
            assert server.closed.acquire(timeout=20)
    assert len(server.heads) == 2
    assert server.header("Cookie") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.test/data",
        "http://127.0.0.2:1/data",
        "http://elsewhere.test\\@127.0.0.1/data",
        "file:///etc/x",
    ],
)
def test_tokens_go_to_no_other_host(url: str) -> None:
    ticket = Ticket(protocol="simple", url=url, token=TRANSFER)
    with gateway_of(1) as gateway:
        with pytest.raises(errors.ProtocolViolation):
            fetch(gateway, ticket, lambda _: None)
        with pytest.raises(errors.ProtocolViolation):
            gateway.put(ticket, UploadBody(io.BytesIO(b"x"), 1, Digests(), name="local"), target="/a/file")


BROKEN: dict[str, Script] = {
    "cut": says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n123"),
    "garbage": says(b"garbage\r\n\r\n"),
    "refused": says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    "redirect": says(f"HTTP/1.1 302 Found\r\nLocation: /{TRANSFER}\r\nContent-Length: 0\r\n\r\n".encode()),
    "chunks": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


@pytest.mark.parametrize("case", [*BROKEN, "tls", "nothing"])
def test_no_token_is_told(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """A ticket's URL may end in its token (OpenCloud); exceptions and our log hold neither it nor a header."""
    caplog.set_level(logging.DEBUG, logger="rucio_cs3")
    script = BROKEN.get(case, HELLO)
    scheme = "https" if case == "tls" else "http"
    told = ""
    for method in ("GET", "PUT"):
        with RawServer(script) as server:
            port = free_port() if case == "nothing" else server.port
            ticket = ticket_of(port, scheme=scheme, path=f"/data/{TRANSFER}")
            with gateway_of(port, scheme=scheme, connect_s=0.5, idle_s=0.5) as gateway:
                try:
                    if method == "GET":
                        fetch(gateway, ticket, lambda _: None)
                    else:
                        body = UploadBody(io.BytesIO(b"x"), 1, Digests(), name="local")
                        gateway.put(ticket, body, target="/a/file")
                except errors.CS3Error as error:
                    told += "".join(traceback.format_exception(error)) + repr(vars(error))
    assert "GET /a/file" in told
    told += "".join(record.getMessage() for record in caplog.records if record.name.startswith("rucio_cs3"))
    assert TRANSFER not in told
    assert ACCESS not in told
