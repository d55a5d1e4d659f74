"""A remote file as something to read from, against servers that misbehave on the bare socket; alone and as a body."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.http.client import Answer
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.streams import CHUNK_BYTES, UploadBody
from tests.unit.test_data_gateway import HELLO, LARGE, RawServer, Script, gateway_of, says, ticket_of

PLACE = "/source/file"
HEAD = b"HTTP/1.1 200 OK\r\n"
#: With l_linger 0 close() sends a reset, as a server that dies does.
RESET = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def remote(server: RawServer, size: int | None = 5, *, idle_s: float = 10) -> Iterator[RemoteFile]:
    """A file at a raw server, not asked for yet."""
    with gateway_of(server.port, idle_s=idle_s) as gateway:
        yield RemoteFile(lambda: gateway.open(ticket_of(server.port), target=PLACE), size=size, target=PLACE)


def read_all(file: RemoteFile) -> bytes:
    got = bytearray()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while count := file.readinto(buffer):
        got += buffer[:count]
    return bytes(got)


def sends(data: bytes) -> Script:
    """A script that sends a file, as far as somebody reads it."""
    return says(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)


def test_it_is_the_file() -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    with RawServer(sends(data)) as server, remote(server, len(data)) as file:
        assert server.heads == []
        with file:
            assert file.tell() == 0
            assert read_all(file) == data
            assert file.tell() == len(data)
            assert file.readinto(memoryview(bytearray(1))) == 0
    assert len(server.heads) == 1


def test_it_can_be_read_in_small_pieces() -> None:
    with RawServer(HELLO) as server, remote(server) as file, file:
        assert [file.read(2), file.read(2), file.read(2), file.read(2)] == [b"he", b"ll", b"o", b""]


def test_seek_begins_again_by_a_new_request() -> None:
    with RawServer(HELLO) as server, remote(server) as file, file:
        assert file.read(2) == b"he"
        assert file.seek(0) == 0
        assert file.tell() == 0
        assert len(server.heads) == 1  # not before somebody reads
        assert read_all(file) == b"hello"
        assert len(server.heads) == 2
        with pytest.raises(ValueError, match="byte 3"):
            file.seek(3)


def test_a_file_of_unknown_size_ends_with_its_answer() -> None:
    with RawServer(says(HEAD + b"\r\nhello")) as server, remote(server, None) as file, file:
        assert read_all(file) == b"hello"


def test_an_empty_file() -> None:
    with RawServer(sends(b"")) as server, remote(server, 0) as file, file:
        assert read_all(file) == b""


@pytest.mark.parametrize("announced", [0, 4, 6])
def test_an_announcement_of_another_size_is_an_error_before_the_first_byte(announced: int) -> None:
    with (
        RawServer(sends(bytes(announced))) as server,
        remote(server) as file,
        pytest.raises(errors.SizeMismatch, match=f"announces {announced} bytes.* it has 5") as caught,
        file,
    ):
        pytest.fail("nobody is to read this")
    assert PLACE in str(caught.value)


@pytest.mark.parametrize("announced", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_cut_body_is_the_sources_fault(announced: bytes, count: int) -> None:
    chunked = b"chunked" in announced
    body = b"5\r\n" + b"hello"[:count] if chunked else b"hello"[:count]
    with (
        RawServer(says(HEAD + announced + b"\r\n" + body)) as server,
        remote(server) as file,
        file,
        pytest.raises(errors.TransferInterrupted) as caught,
    ):
        read_all(file)
    assert f"GET {PLACE}" in str(caught.value)
    assert ("127.0.0.1" if chunked else f"after {count} of 5 bytes") in str(caught.value)


def test_a_body_without_a_length_that_is_short() -> None:
    with (
        RawServer(says(HEAD + b"\r\nhell")) as server,
        remote(server) as file,
        file,
        pytest.raises(errors.SizeMismatch, match="4 bytes came, but the server says it has 5"),
    ):
        read_all(file)


def test_a_body_without_an_end_is_given_up() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + b"\r\n")
        while True:
            connection.sendall(bytes(65536))

    with RawServer(script) as server, remote(server) as file, file:
        with pytest.raises(errors.SizeMismatch, match="more than the 5 bytes"):
            read_all(file)
        assert file.tell() <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("status", "kind"), [(401, errors.Unauthenticated), (404, errors.NotFound), (503, errors.Unavailable)]
)
def test_a_refusal_comes_on_entry(status: int, kind: type[errors.CS3Error]) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 5\r\n\r\nwords".encode()
    with RawServer(says(answer)) as server, remote(server) as file:
        with pytest.raises(kind, match="words") as caught, file:
            pytest.fail("nobody is to read this")
        assert server.closed.acquire(timeout=20)
    assert caught.value.code == f"HTTP {status}"


@pytest.mark.parametrize("status", [204, 206, 302])
def test_only_the_whole_file_is_the_file(status: int) -> None:
    answer = f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n".encode()
    with RawServer(says(answer)) as server, remote(server, 0) as file, pytest.raises(errors.CS3Error), file:
        pytest.fail("nobody is to read this")


def test_silence_in_the_body_ends() -> None:
    released = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + b"Content-Length: 5\r\n\r\nhe")
        released.wait(20)

    with RawServer(script) as server, remote(server, idle_s=0.2) as file, file:
        with pytest.raises(errors.DeadlineExceeded, match=f"GET {PLACE}: 127.0.0.1:{server.port} fell silent"):
            read_all(file)
        released.set()


def test_what_is_not_wanted_any_more_is_not_fetched() -> None:
    ended = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + f"Content-Length: {LARGE}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            connection.sendall(bytes(LARGE))
            return  # all of it went
        ended.set()

    kept: list[AbstractContextManager[Answer]] = []  # so that it does not end by itself

    with RawServer(script) as server, gateway_of(server.port) as gateway:

        def get() -> AbstractContextManager[Answer]:
            kept.append(gateway.open(ticket_of(server.port), target=PLACE))
            return kept[-1]

        with RemoteFile(get, size=LARGE, target=PLACE) as file:
            file.read(1)
        assert ended.wait(20)


# -- as the body of a PUT to another server ---------------------------------------------------------------


class Receiver:
    """A script that takes a PUT's body and says 200 when it is whole."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.received = 0
        self.whole = False
        self.began = threading.Event()

    def __call__(self, connection: socket.socket, rest: bytes) -> None:
        self.began.set()
        wanted = int(self.server.header("Content-Length") or 0)
        piece = rest
        while True:
            self.received += len(piece)
            self.digest.update(piece)
            if self.received == wanted:
                break
            piece = connection.recv(1 << 20)
            if not piece:
                return
        self.whole = True
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    @contextlib.contextmanager
    def serving(self) -> Iterator[RawServer]:
        with RawServer(self) as self.server:
            yield self.server


def relayed(source: RawServer, destination: RawServer, size: int, **options: object) -> UploadBody:
    """Send a file on; the body that was sent."""
    with remote(source, size, idle_s=5) as file, gateway_of(destination.port) as gateway, file:
        body = UploadBody(file, size, Digests(), name=PLACE, **options)  # type: ignore[arg-type]
        gateway.put(ticket_of(destination.port), body, target="/destination/file")
    return body


def test_bytes_go_from_server_to_server() -> None:
    data = os.urandom(3 * CHUNK_BYTES + 17)
    receiver = Receiver()
    with RawServer(sends(data)) as source, receiver.serving() as destination:
        body = relayed(source, destination, len(data))
    assert body.sent == len(data)
    assert receiver.digest.digest() == hashlib.sha256(data).digest()


def test_memory_is_constant() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + f"Content-Length: {LARGE}\r\n\r\n".encode())
        for _piece in range(LARGE // 65536):
            connection.sendall(bytes(65536))

    def thrown_away(connection: socket.socket, rest: bytes) -> None:
        left = LARGE - len(rest)
        while left:
            left -= len(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with RawServer(script) as source, RawServer(thrown_away) as destination:
        tracemalloc.start()
        try:
            relayed(source, destination, LARGE)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # The body's buffer, and the object that urllib3 reads a piece into.
    assert peak < 3 * CHUNK_BYTES


@pytest.mark.parametrize("fault", ["cut", "reset", "silence"])
@pytest.mark.parametrize("position", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES - 1])
def test_a_fault_of_the_source_stays_its_own_and_ends_the_upload(fault: str, position: int) -> None:
    """Whatever the HTTP library makes of an exception in a body: it must not say that the destination failed."""
    size = 3 * CHUNK_BYTES
    released = threading.Event()
    receiver = Receiver()

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(HEAD + f"Content-Length: {size}\r\n\r\n".encode() + bytes(position))
        if fault == "silence":
            released.wait(20)
        elif fault == "reset":
            receiver.began.wait(20)  # what was sent is to arrive before
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    kind, words = {
        "cut": (errors.TransferInterrupted, f"the connection ended after {position} of {size} bytes"),
        "reset": (errors.TransferInterrupted, "the connection to 127.0.0.1:{port} broke"),
        "silence": (errors.DeadlineExceeded, "127.0.0.1:{port} fell silent"),
    }[fault]
    with RawServer(script) as source, receiver.serving() as destination:
        with remote(source, size, idle_s=0.3) as file, gateway_of(destination.port) as gateway, file:
            body = UploadBody(file, size, Digests(), name=PLACE)
            with pytest.raises(kind) as caught:
                gateway.put(ticket_of(destination.port), body, target="/destination/file")
        released.set()
        assert destination.closed.acquire(timeout=20)
    assert f"GET {PLACE}" in str(caught.value)
    assert words.format(port=source.port) in str(caught.value)
    assert caught.value is body.failure
    assert not receiver.whole
    assert receiver.received < size


def test_wrong_content_never_arrives_as_a_whole() -> None:
    receiver = Receiver()
    with RawServer(sends(b"hello")) as source, receiver.serving() as destination:
        with pytest.raises(errors.ChecksumMismatch, match="the source sends other content than the catalogue says"):
            relayed(source, destination, 5, expected={"adler32": "00000001"})
        assert destination.closed.acquire(timeout=20)
    assert receiver.received == 0


def test_a_refusal_of_the_destination_stays_its_own() -> None:
    with (
        RawServer(sends(bytes(LARGE))) as source,
        RawServer(says(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n")) as destination,
        pytest.raises(errors.CS3Error) as caught,
    ):
        relayed(source, destination, LARGE)
    assert "PUT /destination/file" in str(caught.value)
