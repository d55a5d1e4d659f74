"""Connections that are kept, that die, and on which both sides speak at once; over plain TCP and over TLS."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from rucio_cs3.cs3 import Endpoint, Timeouts, WebDAVBase, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.http import connection, connections
from rucio_cs3.cs3.http.answers import INTERIM_MAX
from rucio_cs3.cs3.http.client import HTTPClient, drain, http_error
from rucio_cs3.cs3.streams import CHUNK_BYTES, UploadBody
from tests.listening import Listening

#: More than all socket buffers between two ends take.
LARGE = 32 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: With l_linger 0 close() sends a reset, as a server that dies does.
RESET = struct.pack("ii", 1, 0)


class Peer:
    """One connection as the server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def head(self) -> str:
        """Read one request's head; empty at the end of the connection."""
        while b"\r\n\r\n" not in self._rest:
            if not (piece := self.sock.recv(65536)):
                return ""
            self._rest += piece
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def body(self, count: int) -> bytes:
        """Read so much, or what there is until the end."""
        pieces, left = [self._rest], count - len(self._rest)
        while left > 0 and (piece := self.sock.recv(1 << 20)):
            pieces.append(piece)
            left -= len(piece)
        whole = b"".join(pieces)
        self._rest = whole[count:]
        return whole[:count]

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


#: Gets each connection with its number.
Script = Callable[[Peer, int], None]


class Server(Listening):
    """Hands each connection to a script."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        #: Heads of all requests, with the number of their connection; a script puts them here.
        self.heads: list[tuple[int, str]] = []
        self._script = script

    def serve(self, connection: socket.socket, number: int) -> None:
        self._script(Peer(connection), number)


@contextlib.contextmanager
def client(server: Server, *, idle_s: float = 10, ca_bundle: Path | None = None) -> Iterator[Client]:
    endpoint = Endpoint(
        name="CLOUD",
        gateway="127.0.0.1:1",
        gateway_tls=False,
        webdav=WebDAVBase.parse(f"http://127.0.0.1:{server.port}/webdav"),
        timeouts=Timeouts(connect_s=10, idle_s=idle_s),
        ca_bundle=ca_bundle,
    )
    scheme = "http" if ca_bundle is None else "https"
    with contextlib.closing(HTTPClient(endpoint)) as http:
        yield Client(http, f"{scheme}://127.0.0.1:{server.port}")


class Client:
    """Short forms of requests."""

    def __init__(self, http: HTTPClient, base: str) -> None:
        self.http = http
        self.base = base

    def ask(self, method: str = "GET", body: UploadBody | bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """One request; status and body of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.http.request(method, f"{self.base}/x", headers=named, target="/x", body=body) as answer:
            return answer.status_code, answer.read(1000)

    def put(self, size: int, **headers: str) -> tuple[int, UploadBody]:
        body = UploadBody(io.BytesIO(bytes(size)), size, Digests(), name="local")
        return self.ask("PUT", body, **headers)[0], body


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
def serving(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path
) -> Callable[[Script], contextlib.AbstractContextManager[tuple[Server, Client]]]:
    """Starts a script's server, with a client for it; over TCP, and over TLS."""

    @contextlib.contextmanager
    def serve(script: Script, idle_s: float = 10) -> Iterator[tuple[Server, Client]]:
        context = bundle = None
        if request.param == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            bundle = tmp_path / "ca.pem"
            authority.cert_pem.write_to_path(str(bundle))
        with Server(script, context) as server, client(server, idle_s=idle_s, ca_bundle=bundle) as one:
            yield server, one

    return serve


Serving = Callable[..., contextlib.AbstractContextManager[tuple[Server, Client]]]


def keeps(answer: bytes = OK) -> Script:
    """Answers whatever is asked, as often as it is."""

    def script(peer: Peer, number: int) -> None:
        while head := peer.head():
            length = [line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("content-length")]
            peer.body(int(length[0]) if length else 0)
            peer.say(answer)

    return script


# -- kept connections -----------------------------------------------------------------------------------------


def test_a_connection_is_kept(serving: Serving) -> None:
    with serving(keeps()) as (server, one):
        for _ in range(3):
            assert one.ask() == (200, b"ok")
            assert one.put(CHUNK_BYTES + 1)[0] == 200
            assert one.ask("PROPFIND", b"<x/>") == (200, b"ok")
    assert server.count == 1


def test_the_youngest_is_taken_and_no_more_than_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEPT_MAX", 2)
    with Server(keeps()) as server, client(server) as one:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                answer = stack.enter_context(one.http.request("GET", one.base, headers={}, target="/"))
                drain(answer)
        # Given back by the last that was opened first: numbers 1 and 0 are kept.
        for _ in range(2):
            assert server.closed.acquire(timeout=20)
        for _ in range(3):
            assert one.ask() == (200, b"ok")
    assert server.count == 4


@pytest.mark.parametrize("kept_s", [-1.0, 30.0])
def test_an_old_one_is_not_used(kept_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEPT_S", kept_s)
    with Server(keeps()) as server, client(server) as one:
        one.http._connections._look_at = float("inf")  # nobody tidies up meanwhile
        for _ in range(2):
            one.ask()
    assert server.count == (2 if kept_s < 0 else 1)


def test_old_ones_are_closed_although_younger_ones_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(keeps()) as server, client(server) as one:
        with one.http.request("GET", one.base, headers={}, target="/") as first:
            one.ask()
            monkeypatch.setattr(connections, "_KEPT_S", -1.0)
            one.http._connections._look_at = 0.0
            drain(first)
        for _ in range(2):
            assert server.closed.acquire(timeout=20)
        assert one.http._connections._kept == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
    ],
)
def test_a_connection_that_cannot_be_used_again_is_not(answer: bytes, serving: Serving) -> None:
    with serving(keeps(answer)) as (server, one):
        for _ in range(2):
            assert one.ask() == (200, b"ok")
        assert server.count == 2


def test_an_answer_that_is_not_read_ends_its_connection() -> None:
    with Server(keeps()) as server, client(server) as one:
        with one.http.request("GET", one.base, headers={}, target="/"):
            pass
        assert server.closed.acquire(timeout=20)
        assert one.ask() == (200, b"ok")


def test_a_small_rest_can_be_read_away() -> None:
    with Server(keeps()) as server, client(server) as one:
        for _ in range(2):
            with one.http.request("GET", one.base, headers={}, target="/") as answer:
                drain(answer)
    assert server.count == 1


def test_a_large_rest_is_not() -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n")
        server.over.wait(30)  # and it does not come

    with Server(script) as server, client(server) as one:
        with one.http.request("GET", one.base, headers={}, target="/") as answer:
            drain(answer)
        assert answer.status_code == 500


@pytest.mark.parametrize("status", [200, 500])
def test_a_rest_that_does_not_come_is_not_waited_for(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle timeout, which may be minutes, is for what matters."""
    monkeypatch.setattr("rucio_cs3.cs3.http.client._REST_S", 0.1)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(f"HTTP/1.1 {status} So\r\nContent-Length: 100\r\n\r\n".encode())
        server.over.wait(60)

    with (
        Server(script) as server,
        client(server, idle_s=1000) as one,
        one.http.request("GET", one.base, headers={}, target="/") as answer,
    ):
        drain(answer)
        assert "answered" in str(http_error(answer, "GET", "/"))
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_one_that_the_server_has_closed_is_not_used(method: str, serving: Serving) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(OK)

    with serving(script) as (server, one):
        assert one.ask() == (200, b"ok")
        assert server.closed.acquire(timeout=20)
        assert one.ask(method, b"body" if method == "PUT" else None) == (200, b"ok")
    assert server.count == 2


def dies_when_asked_again(*, reset: bool) -> Script:
    """Closes its first connection when a second request has come there."""

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(OK)
        if peer.head():
            if reset:
                peer.reset()
            return
        assert number

    return script


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("HEAD", None), ("PROPFIND", b"<x/>")])
def test_a_look_is_repeated_where_a_kept_connection_dies(method: str, body: bytes | None, reset: bool) -> None:
    with Server(dies_when_asked_again(reset=reset)) as server, client(server) as one:
        assert one.ask() == (200, b"ok")
        assert one.ask(method, body)[0] == 200
    assert server.count == 2


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "MKCOL", "POST", "COPY"])
def test_a_change_is_not_repeated(method: str, reset: bool) -> None:
    """Whether the server has done it nobody knows."""
    with Server(dies_when_asked_again(reset=reset)) as server, client(server) as one:
        assert one.ask() == (200, b"ok")
        with pytest.raises(errors.TransferInterrupted, match="broke"):
            one.ask(method)
        assert server.count == 1


def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()

    with Server(script) as server, client(server) as one:
        with pytest.raises(errors.TransferInterrupted, match="closed without an answer"):
            one.ask()
        assert server.count == 1


def test_nothing_is_kept_after_the_end() -> None:
    with Server(keeps()) as server, client(server) as one:
        one.ask()
        one.http.close()
        assert server.closed.acquire(timeout=20)
        one.ask()
        assert server.closed.acquire(timeout=20)


def test_threads_share_them() -> None:
    with Server(keeps()) as server, client(server) as one, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: one.ask(), range(400)))
    assert answers == [(200, b"ok")] * 400
    assert server.count <= 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads, which is the point
def test_a_forked_child_opens_its_own() -> None:
    with Server(keeps()) as server, client(server) as one:
        one.ask()
        one.http._connections._look_at = float("inf")
        asked = one.http.request("GET", one.base, headers={}, target="/")
        with asked as under_way:
            one.ask()
            child = os.fork()
            if not child:
                # Neither what is kept nor what was under way is used; and nothing but the exit code comes out.
                status = 1
                with contextlib.suppress(BaseException):
                    answered = one.ask()
                    drain(under_way)
                    asked.__exit__(None, None, None)
                    kept = sum(map(len, one.http._connections._kept.values()))
                    status = 0 if (answered, kept) == ((200, b"ok"), 1) else 2
                os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        before = server.count
        assert one.ask() == (200, b"ok")
        assert server.count == before == 3


# -- both speak -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", [0, 100_000])
def test_a_refusal_ends_the_sending_also_where_the_server_stays(takes: int, serving: Serving) -> None:
    """It neither reads on nor closes: curl would wait with a server that reads on, and urllib3 until the timeout."""

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.body(takes)
        peer.say(b"HTTP/1.1 507 Full\r\nContent-Length: 2\r\n\r\nno")
        server.over.wait(30)

    with serving(script) as (server, one):
        status, body = one.put(LARGE)
        assert status == 507
        assert takes <= body.sent < LARGE
        server.over.set()
        assert server.closed.acquire(timeout=20)
    assert server.count == 1


def test_a_refusal_by_a_server_that_reads_on_ends_the_sending(serving: Serving) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")
        got.append(len(peer.body(16 * LARGE)))

    got: list[int] = []
    with serving(script) as (server, one):
        assert one.put(16 * LARGE)[0] == 507
        assert server.closed.acquire(timeout=20)
    assert got[0] < 16 * LARGE


def test_an_answer_is_noticed_before_the_next_piece() -> None:
    """Also where the server takes whatever comes, so that nothing is ever waited for."""

    class Body:
        given = 0

        def __len__(self) -> int:
            return 10 * CHUNK_BYTES

        def __iter__(self) -> Iterator[memoryview]:
            for _ in range(10):
                self.given += 1
                yield memoryview(bytes(CHUNK_BYTES))
                assert answered.wait(20)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.body(CHUNK_BYTES)
        peer.say(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")
        answered.set()
        peer.body(10 * CHUNK_BYTES)

    answered = threading.Event()
    body = Body()
    with (
        Server(script) as server,
        client(server) as one,
        one.http.request("PUT", one.base, headers={}, target="/x", body=body) as answer,
    ):
        assert answer.status_code == 507
    assert body.given == 2  # the second was read, and stayed here


def test_the_last_words_of_a_server_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come between a look and a sending that then fails."""
    monkeypatch.setattr(connection.Connection, "has_spoken", lambda self: False)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")

    with Server(script) as server, client(server) as one:
        assert one.put(LARGE)[0] == 507


@pytest.mark.parametrize("asks_first", [False, True])
def test_interim_answers_without_end_end_the_sending(asks_first: bool, serving: Serving) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        with contextlib.suppress(OSError):
            for _ in range(5000):
                peer.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    with serving(script) as (_, one), pytest.raises(errors.TransferInterrupted, match="no end of interim answers"):
        one.put(LARGE, **({"Expect": "100-continue"} if asks_first else {}))


def test_interim_answers_of_a_server_that_reads_on_do_not() -> None:
    """Also where they are read all together at the end, because the client could send all the while."""

    def script(peer: Peer, number: int) -> None:
        peer.head()
        for _ in range(4):
            peer.say(b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_MAX // 5))
            peer.body(LARGE // 4)
        peer.say(OK)

    with Server(script) as server, client(server) as one:
        assert one.put(LARGE)[0] == 200


def test_an_error_of_a_progress_callback_is_not_the_networks() -> None:
    """Also one of the kind that sockets raise."""

    def progress(count: int) -> None:
        raise closed

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.body(LARGE)

    closed = BrokenPipeError(32, "Broken pipe")
    body = UploadBody(io.BytesIO(bytes(LARGE)), LARGE, Digests(), name="x", progress=progress)
    with Server(script) as server, client(server) as one, pytest.raises(BrokenPipeError) as caught:
        one.ask("PUT", body)
    assert caught.value is closed


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, errors.LocalError),
        (errno.ENFILE, errors.LocalError),
        (errno.ECONNREFUSED, errors.Unavailable),
    ],
)
def test_who_is_to_blame_for_no_connection(
    number: int, kind: type[errors.CS3Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_connection(*_: object, **__: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    with Server(keeps()) as server, client(server) as one:
        monkeypatch.setattr(socket, "create_connection", create_connection)
        with pytest.raises(errors.CS3Error, match=os.strerror(number)) as caught:
            one.ask()
    assert type(caught.value) is kind


def test_a_callers_own_limit_on_silence() -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        server.over.wait(60)

    with (
        Server(script) as server,
        client(server, idle_s=1000) as one,
        pytest.raises(errors.DeadlineExceeded, match="fell silent"),
        one.http.request("GET", one.base, headers={}, target="/x", idle_timeout_s=0.1, patience_s=0.1),
    ):
        pytest.fail("nothing was answered")


def test_what_is_no_answer_yet_does_not_end_it(serving: Serving) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        peer.body(LARGE // 2)
        peer.say(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        got.append(len(peer.body(LARGE - LARGE // 2)))
        peer.say(OK)
        assert peer.head()  # on the same connection
        peer.say(OK)

    got: list[int] = []
    with serving(script) as (server, one):
        assert one.put(LARGE)[0] == 200
        assert one.ask() == (200, b"ok")
    assert got == [LARGE - LARGE // 2]
    assert server.count == 1


def test_an_end_without_an_answer_ends_the_sending(serving: Serving) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.head()

    with serving(script) as (_, one), pytest.raises(errors.TransferInterrupted, match="broke"):
        one.put(LARGE)


def test_large_bodies_go_both_ways(serving: Serving) -> None:
    """More than all buffers hold, so that both sides wait for each other."""
    data = os.urandom(1 << 20) * (LARGE >> 20)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        same.append(peer.body(LARGE) == data)
        peer.say(f"HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n".encode())
        peer.say(data)

    same: list[bool] = []
    body = UploadBody(io.BytesIO(data), LARGE, Digests(), name="local")
    with (
        serving(script) as (_, one),
        one.http.request("PUT", one.base, headers={}, target="/x", body=body) as answer,
    ):
        assert answer.read(LARGE + 1) == data
    assert same == [True]
    assert body.sent == LARGE


def test_a_slow_server_is_not_a_silent_one(serving: Serving) -> None:
    """Each piece is waited for as long as any; together they take longer."""

    def script(peer: Peer, number: int) -> None:
        peer.head()
        for byte in OK:
            server.over.wait(0.05)
            peer.say(bytes([byte]))

    with serving(script, idle_s=1) as (server, one):
        assert one.ask() == (200, b"ok")


@pytest.mark.parametrize(
    ("framing", "first", "rest"),
    [
        ("Content-Length: 4", b"ab", b"cd"),
        ("Transfer-Encoding: chunked", b"4\r\nab", b"cd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"1\r\na\r\n1\r\nb\r\n0", b"2\r\ncd\r\n0\r\n\r\n"),
        ("Connection: close", b"ab", b"cd"),
    ],
)
@pytest.mark.parametrize("size", [100, 100_000])
def test_what_trickles_in_is_handed_on_meanwhile(
    framing: str, first: bytes, rest: bytes, size: int, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it is passed on to has a clock, too: the rest comes only after the beginning was handed on."""
    monkeypatch.setattr("rucio_cs3.cs3.http.client._GATHER_S", 0.05)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + first)
        if handed_on.wait(20):
            peer.say(rest)

    handed_on = threading.Event()
    buffer = memoryview(bytearray(size))
    with (
        serving(script, idle_s=60) as (_, one),
        one.http.request("GET", one.base, headers={}, target="/x") as answer,
    ):
        assert answer.readinto(buffer) == 2
        handed_on.set()
        assert answer.read(size) == b"cd"


def test_chunks_that_have_come_are_handed_out_together(serving: Serving) -> None:
    """With the end, so that the connection can be used again."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    with serving(keeps(chunks)) as (server, one):
        for _ in range(2):
            with one.http.request("GET", one.base, headers={}, target="/x") as answer:
                assert answer.readinto(memoryview(bytearray(100))) == 4
    assert server.count == 1


@pytest.mark.parametrize("reset", [False, True])
def test_what_came_before_a_failure_is_handed_out(reset: bool) -> None:
    """Whoever goes on at that byte later needs all of it."""

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
        if reset:
            got.wait(20)
            peer.reset()

    got = threading.Event()
    buffer = memoryview(bytearray(100_000))
    count = 0
    with (
        Server(script) as server,
        client(server) as one,
        one.http.request("GET", one.base, headers={}, target="/x") as answer,
    ):

        def read_on() -> None:
            nonlocal count
            while True:
                count += answer.readinto(buffer[: 50_000 if reset else None])
                got.set()

        with pytest.raises(errors.TransferInterrupted) as caught:
            read_on()
        with pytest.raises(errors.TransferInterrupted):
            answer.readinto(buffer)
    assert count == 50_000
    assert ("broke" if reset else "after 50000 of 100000") in str(caught.value)


# -- Expect: 100-continue -------------------------------------------------------------------------------------


def test_a_body_is_sent_when_the_server_agrees(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONTINUE_S", 20.0)

    def script(peer: Peer, number: int) -> None:
        head = peer.head()
        assert "Expect: 100-continue" in head
        peer.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            early.append(peer.body(1))
        peer.sock.settimeout(30)
        peer.say(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        peer.body(5)
        peer.say(OK)

    early: list[bytes] = []
    with serving(script) as (_, one):
        assert one.put(5, Expect="100-continue")[0] == 200
    assert early == []


def test_a_body_is_not_sent_when_the_server_refuses(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONTINUE_S", 20.0)

    def script(peer: Peer, number: int) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 307 There\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
        got.append(peer.body(5))

    got: list[bytes] = []
    with serving(script) as (server, one):
        status, body = one.put(5, Expect="100-continue")
        assert status == 307
        assert server.closed.acquire(timeout=20)  # it might wait for the body
    assert (got, body.sent, body.begun) == ([b""], 0, False)


def test_a_body_is_sent_when_the_server_says_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONTINUE_S", 0.1)
    with serving(keeps()) as (server, one):
        assert one.put(5, Expect="100-continue")[0] == 200
        assert one.ask() == (200, b"ok")
    assert server.count == 1


# -- requests that are none -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Access-Token": "SECRET\r\nHost: elsewhere"},
        {"X-Access-Token": "SECRET\n"},
        {"X-Access-Token": "SECRET\0"},
        {"X-Access-Token": "SECRET\u20ac"},
        {"X-Bad\r\nName": "SECRET"},
        {"X Bad": "SECRET"},
        {"": "SECRET"},
    ],
)
def test_a_header_is_one_header(headers: dict[str, str]) -> None:
    with (
        Server(keeps()) as server,
        client(server) as one,
        pytest.raises(errors.InvalidRequest, match="no header may have") as caught,
        one.http.request("GET", one.base, headers=headers, target="/x"),
    ):
        pytest.fail("nobody is to be asked")
    assert "SECRET" not in str(caught.value)
    assert server.count == 0


@pytest.mark.parametrize("path", ["/x\r\nHost: y", "/x\n", "/x\ty", "/\0", "/a\\b"])
def test_a_url_is_one_line(path: str) -> None:
    with (
        Server(keeps()) as server,
        client(server) as one,
        pytest.raises(errors.ProtocolViolation, match="is none"),
        one.http.request("GET", f"{one.base}{path}", headers={}, target="/x"),
    ):
        pytest.fail("nobody is to be asked")
    assert server.count == 0


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/a%20b%2Fc?x=%3D&y=z#part", "/a%20b%2Fc?x=%3D&y=z"),
        ("/a b/\u00e9?\u00e9 ", "/a%20b/%C3%A9?%C3%A9%20"),
        ("/storage$space!x/(1)+,;='~*@:", "/storage$space!x/(1)+,;='~*@:"),
    ],
)
def test_a_url_is_sent_as_it_is(path: str, sent: str) -> None:
    heads: list[str] = []

    def script(peer: Peer, number: int) -> None:
        heads.append(peer.head())
        peer.say(OK)

    with (
        Server(script) as server,
        client(server) as one,
        one.http.request("GET", f"{one.base}{path}", headers={}, target="/x") as answer,
    ):
        assert answer.status_code == 200
    assert heads[0].splitlines()[:2] == [f"GET {sent} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]


def test_what_every_request_has() -> None:
    heads: list[str] = []

    def script(peer: Peer, number: int) -> None:
        heads.append(peer.head())
        peer.say(OK)

    for method, body, length in (
        ("GET", None, None),
        ("PUT", b"", "0"),
        ("COPY", None, "0"),
        ("PROPFIND", b"abc", "3"),
    ):
        with Server(script) as server, client(server) as one:
            one.ask(method, body, accept="x/y", content_length="7", transfer_encoding="chunked")
        fields = dict(line.split(": ", 1) for line in heads[-1].splitlines()[1:])
        assert fields == {
            "Host": f"127.0.0.1:{server.port}",
            "Accept-Encoding": "identity",
            "User-Agent": "rucio-cs3",
            "accept": "x/y",
            **({} if length is None else {"Content-Length": length}),
        }


@pytest.mark.parametrize("said", [4, 6])
def test_a_body_that_is_not_as_long_as_it_says_spoils_no_connection(said: int) -> None:
    class Liar:
        def __len__(self) -> int:
            return said

        def __iter__(self) -> Iterator[memoryview]:
            yield memoryview(b"hello")

    with Server(keeps()) as server, client(server) as one:
        with (
            pytest.raises(ValueError, match="than it says"),
            one.http.request("PUT", one.base, headers={}, target="/x", body=Liar()),
        ):
            pytest.fail("there is no answer to this")
        assert server.closed.acquire(timeout=20)


def test_a_bundle_without_certificates_is_said(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("nothing\n")
    with (
        Server(keeps()) as server,
        client(server, ca_bundle=bundle) as one,
        pytest.raises(errors.ConfigurationError, match=r"ca\.pem cannot be used"),
    ):
        one.ask()
