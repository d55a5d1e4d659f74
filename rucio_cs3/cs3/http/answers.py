"""What a server answers by HTTP/1.1 (RFC 9112): the head, and the body's bytes straight into the caller's memory.

Strict where leniency would be a guess about where a body ends. Knows a buffered reader, no sockets:
:mod:`rucio_cs3.cs3.http.connection` has those, and :mod:`rucio_cs3.cs3.http.client` tells people what went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

#: Longest line and longest head that are read, in bytes. Servers' own limits are 8 to 64 KiB.
_LINE_MAX_BYTES = 64 * 1024
_HEAD_MAX_BYTES = 256 * 1024

#: Most fields of one head, or of the trailers; real ones have some 30. Many of one name are put together into one
#: value, each time anew.
_FIELDS_MAX = 1000

#: Longest line before a chunk, its extensions included, in bytes. Nobody has any use for them.
_CHUNK_LINE_MAX_BYTES = 4096

#: Most "1xx" answers in a row. A server may say "Processing" every few seconds, and who can send all the while reads
#: none of them before the end of an upload of hours.
INTERIM_MAX = 1000

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (.*))?", re.DOTALL)
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class Reader(Protocol):
    """What an answer is read from: an :class:`io.BufferedReader`."""

    def readline(self, size: int, /) -> bytes: ...

    def readinto1(self, buffer: memoryview, /) -> int: ...


class Broken(Exception):
    """The connection or the answer on it is not what it was to be.

    :param reason: ends the sentence "the connection broke: …"; of nobody's secrets.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unanswered(Broken):
    """The connection ended before the first byte of an answer."""

    def __init__(self) -> None:
        super().__init__("it was closed without an answer")


class CutShort(Broken):
    """The connection ended within a body.

    :param announced: its length in bytes.
    """

    def __init__(self, received: int, announced: int) -> None:
        super().__init__(f"it ended after {received} of {announced} bytes")
        self.received = received
        self.announced = announced


class Headers(Mapping[str, str]):
    """The fields of an answer by their names in any case; one that comes several times is one list."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        """Take a field as it came."""
        name = name.lower()
        earlier = self._fields.get(name)
        self._fields[name] = value if earlier is None else f"{earlier}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True)
class Head:
    """What comes before a body.

    :param minor: of the version HTTP/1.
    """

    minor: int
    status: int
    reason: str
    headers: Headers


def read_head(reader: Reader) -> Head:
    """Read the head of one answer, interim ones ("1xx") too.

    :raises Unanswered: where nothing comes any more.
    :raises Broken: for anything that is no head.
    """
    line = reader.readline(_LINE_MAX_BYTES)
    if not line:
        raise Unanswered
    match = _STATUS_LINE.fullmatch(line.rstrip(b"\r\n"))
    if match is None or not line.endswith(b"\n"):
        raise Broken("its answer is no HTTP/1.1")
    headers = Headers()
    for name, value in _fields(reader):
        headers.add(name, value)
    reason = (match[3] or b"").decode("latin-1").strip()
    return Head(int(match[1]), int(match[2]), reason, headers)


def read_final_head(reader: Reader) -> Head:
    """Read the head of the answer itself; errors as of :func:`read_head`."""
    for _ in range(INTERIM_MAX):
        head = read_head(reader)
        if not is_interim(head):
            return head
    raise Broken("it has no end of interim answers")


def is_interim(head: Head) -> bool:
    """Whether another answer follows (RFC 9110, 15.2; nobody here asks for 101)."""
    return 100 <= head.status < 200


def _fields(reader: Reader) -> Iterator[tuple[str, str]]:
    left, fields = _HEAD_MAX_BYTES, 0
    name, value = "", ""
    while True:
        line = reader.readline(_LINE_MAX_BYTES)
        left -= len(line)
        fields += 1
        if not line.endswith(b"\n"):
            raise Broken("it ended within the head of an answer" if not line else "a line of the answer has no end")
        if left < 0 or fields > _FIELDS_MAX:
            raise Broken("the head of the answer has no end")
        line = line.rstrip(b"\r\n")
        if line[:1] in (b" ", b"\t") and name:
            value += f" {line.decode('latin-1').strip()}"  # obsolete folding (RFC 9112, 5.2)
            continue
        if name:
            yield name, value
        if not line:
            return
        raw, colon, rest = line.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(raw):
            raise Broken("a header of the answer is none")
        name, value = raw.decode("ascii"), rest.decode("latin-1").strip()


class Body:
    """The body of one answer.

    :param method: of the request; the answer to HEAD has none.
    :raises Broken: when the head does not say where it ends; also all methods, when it does not come as announced.
    """

    def __init__(self, reader: Reader, head: Head, method: str) -> None:
        self._reader = reader
        self._chunked = False
        #: Bytes still to come of the body, or of the chunk; None until the connection ends.
        self._left: int | None = None
        #: Bytes that were handed out.
        self.received = 0
        #: Its length in bytes, where the head says it.
        self.length: int | None = None
        #: Whether all of it was handed out.
        self.complete = False
        codings = head.headers.get("Transfer-Encoding")
        if method == "HEAD" or head.status in (204, 304):
            self._left = self.length = 0
        elif codings is not None:
            if codings.lower() != "chunked" or head.minor == 0:
                raise Broken("its answer is coded in a way that nobody asked for")
            self._chunked = True
            self._left = 0
        elif "Content-Length" in head.headers:
            self._left = self.length = _content_length(head.headers["Content-Length"])
        self.complete = self._left == 0 and not self._chunked
        persistent = "keep-alive" if head.minor == 0 else "close"
        told = persistent in (word.strip() for word in head.headers.get("Connection", "").lower().split(","))
        #: Whether the connection may be used again after it.
        self.keeps_connection = (
            self._left is not None
            and told == (head.minor == 0)
            # Whoever says both may be two servers that disagree about where the body ends (RFC 9112, 6.3).
            and not (self._chunked and "Content-Length" in head.headers)
        )

    @property
    def between_chunks(self) -> bool:
        """Whether the length of a chunk comes next, or the end."""
        return self._chunked and not self._left and not self.complete

    def is_next_chunk(self, held: bytes) -> bool:
        """Whether that is here, after a chunk, as a whole: reading it then waits for nothing.

        :param held: what comes next.
        """
        _, *lines = held.split(b"\n")
        return len(lines) > 1 and (lines[0].strip(b"0\r") != b"" or (len(lines) > 2 and lines[1] in (b"", b"\r")))

    def readinto1(self, buffer: memoryview) -> int:
        """Take what is there, waiting only where nothing is; 0 is the end.

        :returns: bytes.
        """
        if self.between_chunks:
            self._next_chunk()
        if self.complete or not buffer:
            return 0
        count = self._reader.readinto1(buffer if self._left is None else buffer[: self._left])
        self.received += count
        if self._left is None:
            self.complete = not count
        elif count:
            self._left -= count
            self.complete = not self._left and not self._chunked
        elif self.length is not None:
            raise CutShort(self.received, self.length)
        else:
            raise Broken("the answer broke off within a chunk")
        return count

    def _next_chunk(self) -> None:
        if self.received and self._reader.readline(len(b"\r\n") + 1).strip(b"\r\n"):
            raise Broken("a chunk of the answer is longer than it says")
        line = self._reader.readline(_CHUNK_LINE_MAX_BYTES)
        match = _CHUNK_SIZE.fullmatch(line.rstrip(b"\r\n"))
        if match is None or not line.endswith(b"\n"):
            raise Broken("the answer broke off between two chunks" if not line else "a chunk of the answer is none")
        self._left = int(match[1], 16)
        if not self._left:
            for _ in _fields(self._reader):
                pass  # nobody asked for trailers
            self.complete = True


def _content_length(text: str) -> int:
    """
    :raises Broken: for a length that is none, or several that differ.
    """
    lengths = {length.strip() for length in text.split(",")}
    length = lengths.pop()
    # 18 digits are an exabyte, and int() of thousands takes its time.
    if lengths or not (length.isascii() and length.isdecimal() and len(length) <= 18):
        raise Broken("the length of its answer is none")
    return int(length)
