"""HTTP answers that have no end, no form or no sense: each ends in an error of ours, in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Site, Timeouts
from rucio_cs3.cs3.downloads.ranges import ContentRange
from rucio_cs3.cs3.http import answers, client, wire
from rucio_cs3.cs3.http.answers import Body, Broken, Headers, read_final_head, read_head
from rucio_cs3.cs3.http.client import HTTPClient, http_error
from rucio_cs3.cs3.http.retry_after import RETRY_AFTER_MAX_S, retry_after_s
from rucio_cs3.cs3.http.wire import FellSilent, Incoming, Wire
from rucio_cs3.cs3.redaction import WORDS_MAX_CHARACTERS, hidden, without_secrets
from tests.unit.hostile import TEXT, is_told, reader

OK = b"HTTP/1.1 200 OK\r\n"

#: Pieces of answers, whole and broken.
PIECES = st.sampled_from(
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: 9223372036854775808\r\n",
        b"Content-Length: \xd9\xa3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Connection: close\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"5\r\nhello\r\n",
        b"0\r\n",
        b"fffffffffffffff\r\n",
        b"-1\r\n",
        b"5;x=" + b"y" * 5000 + b"\r\n",
        b"hello",
        b"\0",
    ]
) | st.binary(max_size=20)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.sampled_from(["GET", "HEAD", "PUT"]))
@example(OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 9000, "GET")
def test_any_bytes_are_an_answer_or_broken(data: bytes, method: str) -> None:
    source = reader(data)
    received = b""
    try:
        body = Body(source, read_final_head(source), method)
        buffer = memoryview(bytearray(100))
        while count := body.readinto1(buffer):
            received += buffer[:count]
    except Broken:
        return
    assert body.complete
    assert len(received) == body.received <= len(data)
    assert body.length in (None, len(received))


def test_a_head_has_so_many_fields() -> None:
    """Equal names are put together into one value, each time anew: 87,000 of them took half a second, and so did each
    answer of that kind."""
    for field in (b"a:\r\n", b"Set-Cookie: x\r\n", b"b: 1\r\n c\r\n"):
        with pytest.raises(Broken, match="no end"):
            read_head(reader(OK + field * answers._FIELDS_MAX + b"b:\r\n\r\n"))
    most = b"".join(b"h%d: 1\r\n" % number for number in range(answers._FIELDS_MAX - 1))
    assert len(read_head(reader(OK + most + b"\r\n")).headers) == answers._FIELDS_MAX - 1


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 10_000_000,
        OK + b"x: " + b"y" * 10_000_000,
        OK + b"x: y\r\n" * 1_000_000,
        OK + b"x: y\r\n" + b" z\r\n" * 1_000_000,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100_000,
    ],
    ids=["line", "field", "fields", "folded", "interim"],
)
def test_a_head_without_end_takes_little_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Broken):
            read_final_head(reader(data))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_what_a_chunk_has_beside_its_length_is_limited() -> None:
    def body(line: bytes) -> Body:
        source = reader(OK + b"Transfer-Encoding: chunked\r\n\r\n" + line + b"\r\nhello\r\n0\r\n\r\n")
        return Body(source, read_head(source), "GET")

    assert body(b"5;" + b"x" * 4000).readinto1(memoryview(bytearray(5))) == 5
    with pytest.raises(Broken, match="a chunk of the answer is none"):
        body(b"5;" + b"x" * answers._CHUNK_LINE_MAX_BYTES).readinto1(memoryview(bytearray(5)))


def test_trailers_have_an_end() -> None:
    source = reader(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2000 + b"\r\n")
    body = Body(source, read_head(source), "GET")
    with pytest.raises(Broken, match="no end"):
        body.readinto1(memoryview(bytearray(5)))


# -- one byte now and then -------------------------------------------------------------------------------------------


#: So many, and then the end: more than any test waits for.
_DRIPS = 500


@contextlib.contextmanager
def dripping(data: bytes, *then: bytes) -> Iterator[Incoming]:
    """The reading end of a connection over which ``data`` come at once, and then a piece every 10 ms; the last again
    and again."""
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(data)
            for number in range(_DRIPS):
                if over.wait(0.01):
                    break
                theirs.sendall(then[min(number, len(then) - 1)])
            theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=drip)
    ours.setblocking(False)
    line = Wire(ours)
    line.silence_s = 20.0
    incoming = Incoming(line)
    thread.start()
    try:
        yield incoming
    finally:
        over.set()
        incoming.close()
        theirs.close()
        thread.join()


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nx: "])
def test_a_head_that_drips_ends(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its silences is long."""
    monkeypatch.setattr(wire, "LINES_S", 0.3)
    with dripping(data, b"x") as incoming, pytest.raises(FellSilent):
        read_head(incoming)


@pytest.mark.parametrize("chunk", [b"", b"2\r\nab\r\n", b"0\r\n"])
def test_what_drips_between_two_chunks_ends(chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINES_S", 0.3)
    with dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"5;", b"x") as incoming:
        body = Body(incoming, read_head(incoming), "GET")
        buffer = memoryview(bytearray(100))

        def all_of_it() -> None:
            while body.readinto1(buffer):
                pass

        with pytest.raises(FellSilent):
            all_of_it()


def test_a_body_may_drip_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow data are data; the limit of the head before them is over, and so is that of each chunk."""
    monkeypatch.setattr(wire, "LINES_S", 0.2)
    with dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n") as incoming:
        body = Body(incoming, read_head(incoming), "GET")
        buffer = memoryview(bytearray(100))
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            assert body.readinto1(buffer)


def test_the_end_of_a_chunk_is_not_late_because_its_data_were_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINES_S", 0.2)
    with dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n4", b"0\r\n", b"x") as incoming:
        body = Body(incoming, read_head(incoming), "GET")
        buffer = memoryview(bytearray(1))
        for _ in range(0x40):
            assert body.readinto1(buffer)
        with pytest.raises(Broken, match="longer than it says"):
            body.readinto1(buffer)


# -- as the client reads it ------------------------------------------------------------------------------------------

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[str]:
    """One connection, handed to ``serve`` once a request's head is here."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def asked(url: str, headers: Mapping[str, str] | None = None) -> contextlib.AbstractContextManager[client.Answer]:
    site = Site(name="CLOUD", timeouts=Timeouts(idle_s=10))
    return HTTPClient(site).request("GET", url, headers=headers or {}, target="f")


def endless(begin: bytes, more: bytes) -> Serve:
    """Says something, and then something else for ever."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(more)

    return serve


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 999999999999999999\r\n"])
def test_an_error_without_end_is_told_in_few_words(framing: bytes) -> None:
    piece = b"400\r\n" + b"words " * 170 + b"word\r\n" if b"chunked" in framing else b"words " * 1000
    with (
        server(
            endless(
                b"HTTP/1.1 507 " + b"z" * 60_000 + b"\r\nX-Request-Id: " + b"t" * 60_000 + b"\r\n" + framing + b"\r\n",
                piece,
            )
        ) as url,
        asked(url) as answer,
    ):
        error = http_error(answer, "PUT", "f")
    assert isinstance(error, errors.NoSpaceLeft)
    assert len(str(error)) < errors.MESSAGE_MAX_CHARACTERS + 1000
    assert len(error.trace or "") <= errors.DETAIL_MAX_CHARACTERS + 1


def test_a_document_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WORDS_S", 0.3)
    monkeypatch.setattr(client, "_GATHER_S", 0.05)

    def serve(connection: socket.socket) -> None:
        connection.sendall(OK + b"\r\n")
        for _ in range(_DRIPS):
            connection.sendall(b"{")
            time.sleep(0.01)

    with server(serve) as url, asked(url) as answer, pytest.raises(errors.DeadlineExceeded, match="not ended"):
        answer.read(1_000_000)


@given(TEXT | st.text(st.sampled_from("0123456789 ,:;-+GMTSunonJaFeb٣\t\0"), max_size=80) | st.integers().map(str))
@example("9" * 60_000)
@example("Sun, 06 Nov 1994 08:49:37 " + "x" * 60_000)
@example("Sun, 06 Nov 99999999999994 08:49:37 GMT")
@example("Sun, 06 Nov 1994 08:49:37 +999999")
@example(" , ")
def test_any_wish_to_be_left_alone_is_a_number_of_seconds(text: str) -> None:
    for headers in ({"Retry-After": text}, {"Retry-After": text, "Date": text}):
        seconds = retry_after_s(headers)
        assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


@given(TEXT | st.from_regex(r"bytes [0-9]{1,20}-[0-9]{1,20}/([0-9]{1,20}|\*)"))
@example("bytes 0-" + "9" * 60_000 + "/1")
def test_any_range_is_read_or_none(text: str) -> None:
    held = ContentRange.parse(text)
    assert held is None or (held.first < 10**18 and held.last < 10**18)


@given(st.lists(st.tuples(st.text("aBc-", min_size=1, max_size=3), TEXT), max_size=5))
def test_headers_are_found_in_any_case(fields: list[tuple[str, str]]) -> None:
    headers = Headers()
    for name, value in fields:
        headers.add(name, value)
    assert len(headers) == len({name.lower() for name, _ in fields})
    assert all(value in headers[name.swapcase()] for name, value in fields)


# -- words -----------------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("abcdefghs.://@=&\"' \t"), max_size=300), TEXT)
def test_no_secret_is_left_in_any_words(words: str, more: str) -> None:
    secret = "abcdefgh" + "s" * 12
    told = hidden(f"{words}{secret}{more}{words}", {secret})
    assert secret not in told
    assert secret not in without_secrets(words + secret, {"Authorization": f"Bearer {secret}"}, "https://c.test/?x=1")


@pytest.mark.parametrize(
    "word", ["abcdefgh", "://", "x:", "eyJ", "bearer ", "token=", 'secret":"', "\\u0041", "&#", "%41"]
)
def test_words_are_looked_through_no_further_than_they_are_told(word: str) -> None:
    """160 MiB of the beginning of a token, as a gateway may send them, took hours."""
    assert len(hidden(word * (1_000_000 // len(word)), {"abcdefgh" + "s" * 30})) <= WORDS_MAX_CHARACTERS * 3


@given(TEXT, TEXT, TEXT, TEXT)
@example("a\nb\r\n\x1b[2Jc\u202ed\u2028e\ud800f\0", "\n", "\n", "\x9b31m")
def test_an_error_is_of_one_line(message: str, target: str, code: str, trace: str) -> None:
    error = errors.ServerFault(message, operation="Stat", target=target, code=code, trace=trace)
    assert is_told(str(error))
    str(error).encode()  # for logs and databases
    assert str(errors.ServerFault(error.message)) == error.message


def test_a_message_is_limited() -> None:
    error = errors.ServerFault(
        "a" * 10_000_000 + "z", target="t" * 10_000_000, code="c" * 10_000_000, trace="x" * 10**7
    )
    assert len(str(error)) < 3 * errors.MESSAGE_MAX_CHARACTERS
    assert error.message[0] == "a"
    assert error.message[-1] == "z"
    assert io.StringIO(str(error)).readlines() == [str(error)]
