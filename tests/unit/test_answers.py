"""What servers answer, byte by byte."""

from __future__ import annotations

import io

import pytest

from rucio_cs3.cs3.http.answers import (
    INTERIM_MAX,
    Body,
    Broken,
    CutShort,
    Head,
    Unanswered,
    read_final_head,
    read_head,
)


def reader(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def answer(fields: bytes, rest: bytes = b"", *, method: str = "GET", status: bytes = b"HTTP/1.1 200 OK") -> Body:
    source = reader(status + b"\r\n" + fields + b"\r\n" + rest)
    return Body(source, read_head(source), method)


def read(body: Body, step: int = 1000) -> bytes:
    got = b""
    buffer = memoryview(bytearray(step))
    while count := body.readinto1(buffer):
        got += buffer[:count]
    return got


def test_a_head() -> None:
    head = read_head(
        reader(b"HTTP/1.1 404 Not Found\r\nA: 1\r\nb-C:\t x y \r\na: 2\r\nEmpty:\r\nFolded: a\r\n  b\r\n\r\n")
    )
    assert (head.minor, head.status, head.reason) == (1, 404, "Not Found")
    assert dict(head.headers) == {"a": "1, 2", "b-c": "x y", "empty": "", "folded": "a b"}
    assert head.headers["B-c"] == "x y"
    assert head.headers.get("none") is None
    assert "EMPTY" in head.headers


@pytest.mark.parametrize(
    ("line", "reason"), [(b"HTTP/1.0 200", ""), (b"HTTP/1.1 200 ", ""), (b"HTTP/1.1 200 \xe9", "é")]
)
def test_a_reason_may_be_none(line: bytes, reason: str) -> None:
    head = read_head(reader(line + b"\r\n\r\n"))
    assert (head.status, head.reason) == (200, reason)


def test_lines_may_end_without_a_return() -> None:
    assert dict(read_head(reader(b"HTTP/1.1 200 OK\na: 1\n\n")).headers) == {"a": "1"}


@pytest.mark.parametrize(
    "data",
    [
        b"HT",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\na: 1\r\n",
        b"HTTP/1.1 200 OK\r\na: 1",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folds nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nl\xe9ngth: 5\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    ],
    ids=range(21),
)
def test_no_head(data: bytes) -> None:
    with pytest.raises(Broken) as caught:
        read_head(reader(data))
    assert not isinstance(caught.value, Unanswered)


def test_nothing() -> None:
    with pytest.raises(Unanswered):
        read_head(reader(b""))


def test_interim_answers_are_passed_over() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\n\r\n"
    assert read_final_head(reader(data)).status == 201


def test_interim_answers_without_end() -> None:
    with pytest.raises(Broken, match="no end"):
        read_final_head(reader(b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_MAX + 1)))


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Content-Length: 5\r\n", b"hello, and what is not of it"),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: Chunked\r\n", b'1\r\nh\r\n004 ; x="y"\r\nello\r\n0;z\r\nTrailer: 1\r\n\r\nmore'),
        (b"", b"hello"),
    ],
)
def test_a_body(fields: bytes, rest: bytes, step: int) -> None:
    body = answer(fields, rest)
    assert read(body, step) == b"hello"
    assert body.complete
    assert body.received == 5
    assert body.readinto1(memoryview(bytearray(1))) == 0


def test_what_has_come_is_handed_out_without_waiting_for_more() -> None:
    body = answer(b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    buffer = memoryview(bytearray(100))
    assert [bytes(buffer[: body.readinto1(buffer)]) for _ in range(3)] == [b"he", b"llo", b""]


@pytest.mark.parametrize(
    ("fields", "method", "status"),
    [
        (b"Content-Length: 5\r\n", "HEAD", b"HTTP/1.1 200 OK"),
        (b"Transfer-Encoding: chunked\r\n", "HEAD", b"HTTP/1.1 200 OK"),
        (b"", "PUT", b"HTTP/1.1 204 No Content"),
        (b"Content-Length: 5\r\n", "GET", b"HTTP/1.1 304 Not Modified"),
        (b"Content-Length: 0\r\n", "GET", b"HTTP/1.1 200 OK"),
    ],
)
def test_no_body(fields: bytes, method: str, status: bytes) -> None:
    body = answer(fields, b"HTTP/1.1 200 OK\r\n\r\n", method=method, status=status)
    assert body.complete
    assert read(body) == b""


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: \r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5_0\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_body_whose_end_nobody_knows(fields: bytes) -> None:
    with pytest.raises(Broken):
        answer(fields, b"hello")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_body_that_is_cut(count: int) -> None:
    with pytest.raises(CutShort) as caught:
        read(answer(b"Content-Length: 5\r\n", b"hello"[:count]))
    assert (caught.value.received, caught.value.announced) == (count, 5)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"5",
        b"5\r\n",
        b"5\r\nhell",
        b"5\r\nhello",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\nTrailer: 1\r\n",
        b"5\r\nhello5\r\nhello0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\n",
        b"\r\n",
        b"f" * 16 + b"\r\nhello",
        b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    ],
    ids=range(16),
)
def test_chunks_that_are_broken(rest: bytes) -> None:
    body = answer(b"Transfer-Encoding: chunked\r\n", rest)
    with pytest.raises(Broken):
        read(body)
    assert not body.complete


@pytest.mark.parametrize(
    ("status", "fields", "keeps"),
    [
        (b"HTTP/1.1 200 OK", b"Content-Length: 0\r\n", True),
        (b"HTTP/1.1 200 OK", b"Content-Length: 0\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK", b"Content-Length: 0\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK", b"Content-Length: 0\r\nConnection: x, close\r\n", False),
        (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked\r\n", True),
        (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.1 200 OK", b"", False),
        (b"HTTP/1.0 200 OK", b"Content-Length: 0\r\n", False),
        (b"HTTP/1.0 200 OK", b"Content-Length: 0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_which_connections_are_kept(status: bytes, fields: bytes, keeps: bool) -> None:
    assert answer(fields, b"0\r\n\r\n", status=status).keeps_connection is keeps


def test_a_large_read_goes_straight_into_the_callers_memory() -> None:
    class Source(io.RawIOBase):
        """Remembers how much was asked of it at once."""

        def __init__(self) -> None:
            self.asked: list[int] = []

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.asked.append(len(buffer))
            return len(buffer)

    source = Source()
    head = Head(1, 200, "OK", read_head(reader(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")).headers)
    body = Body(io.BufferedReader(source, 16 * 1024), head, "GET")
    assert body.readinto1(memoryview(bytearray(256 * 1024))) == 256 * 1024
    assert source.asked == [256 * 1024]
