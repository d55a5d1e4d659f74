"""C1481 to C1499: servers that lie, never end, or lead elsewhere. What is promised: docs/contract.md."""

from __future__ import annotations

import contextlib
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cs3.storage.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.channel import ANSWER_MAX_BYTES
from rucio_cs3.cs3.kept_checksums import KEY_PREFIX
from rucio_cs3.cs3.webdav import markers, tpc
from tests.contract.hostile import HostileGateway, HostileServer, hostile_server, says
from tests.contract.place import TIMEOUTS, Place, adler32, content

MIB = 1024 * 1024
DATA = content(100_000)
OLD = b"what stood there"
OK = b"HTTP/1.1 200 OK\r\n"

pytestmark = pytest.mark.usefixtures("short_pauses", "no_late_commit")


@dataclass
class Trap:
    """A cloud whose gateway says what a case wants, with a file in it, and an old local file."""

    place: Place
    gateway: HostileGateway
    storage: CS3Storage
    file: Reference
    local: Path

    def download(self) -> None:
        self.storage.download(self.file, self.local)

    def upload(self) -> None:
        source = self.place.local_file(DATA, "source.bin")
        self.storage.upload(source, self.place.file("new"))

    def unharmed(self) -> None:
        """Nothing new is anywhere, and what was there is as it was."""
        assert self.local.read_bytes() == OLD
        assert sorted(path.name for path in self.local.parent.iterdir()) == ["target"]
        assert self.place.names() == ["file"]
        assert self.place.stored(self.file) == DATA


@pytest.fixture
def trap(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    # Nothing that goes to a hostile server can come into being at the cloud a moment later.
    monkeypatch.setattr("rucio_cs3.cs3.uploads.leftovers._STUB_S", 0.1)
    stored = place.put("file", DATA)
    folder = place.local / "downloads"
    folder.mkdir()
    (folder / "target").write_bytes(OLD)
    with HostileGateway(place.cloud) as gateway:
        # By name, so that 127.0.0.1 is somebody else.
        storage = place.another(
            gateway=f"localhost:{gateway.port}",
            webdav=replace(place.storage.endpoint.webdav, host="localhost"),
            data_hosts=frozenset({"127.0.0.1"}),
            timeouts=replace(TIMEOUTS, idle_s=5.0),
        )
        storage.stat(stored)
        yield Trap(place, gateway, storage, stored, folder / "target")


Act = Callable[[Trap], None]
ACTS: list[Any] = [pytest.param(Trap.download, id="download"), pytest.param(Trap.upload, id="upload")]


def untrusting(trap: Trap, *data_hosts: str) -> CS3Storage:
    """The same cloud, with these data hosts only."""
    return trap.place.another(
        gateway=trap.storage.endpoint.gateway, webdav=trap.storage.endpoint.webdav, data_hosts=frozenset(data_hosts)
    )


#: Where a ticket must not lead to; {port} is that of a server of this machine that waits for a token.
ELSEWHERE = [
    "http://127.0.0.1:{port}/data",
    "http://127.1:{port}/data",
    "http://0x7f000001:{port}/data",
    "http://2130706433:{port}/data",
    "http://[::ffff:127.0.0.1]:{port}/data",
    "http://localhost.:{port}/data",
    "http://localhost@127.0.0.1:{port}/data",
    "http://localhost:80@127.0.0.1:{port}/data",
    "http://127.0.0.1:{port}\\@localhost/data",
    "http://127.0.0.1:{port}#@localhost/data",
    "http://lоcalhost:{port}/data",  # noqa: RUF001 (a Cyrillic letter)
    "http://ⓛocalhost:{port}/data",
    "http://localhost%00.evil.test:{port}/data",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/data",
    "http://0.0.0.0:{port}/data",
    "https://evil.test/data",
    "file://{path}",
    "file://localhost{path}",
    "gopher://localhost:{port}/_x",
    "ftp://localhost:{port}/data",
    "//localhost:{port}/data",
    "{path}",
    "http://localhost:99999/data",
    "",
]


@pytest.mark.parametrize("act", ACTS)
def test_c1481_a_ticket_that_leads_elsewhere(trap: Trap, act: Act) -> None:
    trap.storage = untrusting(trap)
    with hostile_server(says(OK + b"\r\nhello")) as server:
        for pattern in ELSEWHERE:
            trap.gateway.lead(pattern.format(port=server.port, path=trap.place.on_disk(trap.file)))
            with pytest.raises(errors.ProtocolViolation) as caught:
                act(trap)
            assert trap.storage.access_token() not in str(caught.value)
            assert server.heads == [], pattern
    trap.unharmed()


def test_c1482_a_data_host_may_be_one_port_only(trap: Trap) -> None:
    with hostile_server(says(OK + f"Content-Length: {len(DATA)}\r\n\r\n".encode() + DATA)) as server:
        trap.gateway.lead(server.url)
        trap.storage = untrusting(trap, f"127.0.0.1:{server.port + 1 if server.port < 65535 else 1}")
        with pytest.raises(errors.ProtocolViolation, match="data_hosts"):
            trap.download()
        assert server.heads == []
        trap.unharmed()
        trap.storage = untrusting(trap, f"127.0.0.1:{server.port}")
        trap.download()
        assert len(server.heads) == 1
    assert trap.local.read_bytes() == DATA


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("act", ACTS)
def test_c1483_a_data_gateway_that_sends_us_on(trap: Trap, act: Act, status: int) -> None:
    """Also to where its ticket might have led."""
    with hostile_server() as server, hostile_server(says(OK + b"\r\n")) as other:
        server.script = says(f"HTTP/1.1 {status} Go\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode())
        trap.gateway.lead(server.url)
        with pytest.raises(errors.CS3Error, match="redirects are not followed"):
            act(trap)
        assert server.heads
        assert other.heads == []
    trap.unharmed()


#: What a download and an upload ask the gateway first, in any case.
ASKED = [
    pytest.param(Trap.download, "Stat", id="stat"),
    pytest.param(Trap.download, "InitiateFileDownload", id="download"),
    pytest.param(Trap.upload, "InitiateFileUpload", id="upload"),
]


def padded(message: Any) -> Any:
    message.status.trace = "t" * (ANSWER_MAX_BYTES + 1)
    return message


@pytest.mark.parametrize(("act", "method"), ASKED)
def test_c1484_a_message_that_is_too_large(trap: Trap, act: Act, method: str) -> None:
    trap.gateway.alter[method] = padded
    with pytest.raises(errors.Throttled, match="larger than 4 MiB"):
        act(trap)
    trap.gateway.alter.clear()
    # That of a folder may be.
    trap.gateway.alter["ListContainer"] = padded
    assert [info.reference.name for info in trap.storage.list(trap.place.folder)] == ["file"]
    trap.unharmed()


NONSENSE = [b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\x1a\x02\xff\xfe", b"<html>"]


@pytest.mark.parametrize("data", NONSENSE, ids=["garbage", "length", "no UTF-8", "page"])
@pytest.mark.parametrize(("act", "method"), ASKED)
def test_c1485_a_message_that_is_none(trap: Trap, act: Act, method: str, data: bytes) -> None:
    trap.gateway.alter = {method: lambda _: data}
    with pytest.raises(errors.ServerFault) as caught:
        act(trap)
    assert (caught.value.operation, caught.value.code) == (method, "INTERNAL")
    trap.gateway.alter.clear()
    trap.unharmed()


@pytest.mark.parametrize("method", ["Stat", "ListContainer"])
def test_c1486_words_without_end(trap: Trap, method: str) -> None:
    token = trap.storage.access_token()

    def refuse(message: Any) -> Any:
        message.status.code = 13  # CODE_ABORTED
        message.status.message = "\x1b[2J\u202e" + f"{token[:8]} {token}\n" * 5000
        message.status.trace = "t" * MIB
        return message

    trap.gateway.alter[method] = refuse
    with pytest.raises(errors.CS3Error) as caught:
        trap.storage.list(trap.place.folder)
    told = str(caught.value)
    assert len(told) < 10_000
    assert len(told.splitlines()) == 1
    assert told.isprintable()
    assert token not in told


SIZES = [2**63, 2**64 - 1, 2**62]


@pytest.mark.parametrize("size", SIZES)
def test_c1487_a_size_that_no_file_has(trap: Trap, size: int) -> None:
    def lie(message: Any) -> Any:
        message.info.size = size
        return message

    trap.gateway.alter["Stat"] = lie
    tracemalloc.start()
    try:
        with pytest.raises((errors.ProtocolViolation, errors.LocalNoSpaceLeft)):
            trap.download()
        assert tracemalloc.get_traced_memory()[1] < 50 * MIB
    finally:
        tracemalloc.stop()
    trap.unharmed()


@pytest.mark.parametrize("framing", ["", "Content-Length: 999999999999999999\r\n", "Transfer-Encoding: chunked\r\n"])
def test_c1488_a_body_without_end(trap: Trap, framing: str) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if "chunked" in framing else b"x" * 65536
    with hostile_server() as server:
        server.script = server.endless(OK + framing.encode() + b"\r\n", piece)
        trap.gateway.lead(server.url)
        with pytest.raises(errors.SizeMismatch):
            trap.download()
    assert server.sent < 100 * MIB
    trap.unharmed()


@pytest.mark.parametrize(
    "length", ["100000", "999999999999999999", "-1", "9223372036854775808", "100000, 5", "0x5", "٣"]
)
def test_c1489_a_length_that_lies(trap: Trap, length: str) -> None:
    with hostile_server(says(OK + b"Content-Length: " + length.encode() + b"\r\n\r\nfew")) as server:
        trap.gateway.lead(server.url)
        with pytest.raises((errors.SizeMismatch, errors.TransferInterrupted)):
            trap.download()
    trap.unharmed()


HEADS = {
    "line": (b"HTTP/1.1 200 ", b"x" * 65536),
    "field": (OK + b"x: ", b"x" * 65536),
    "fields": (OK, b"x: y\r\n" * 10_000),
    "folded": (OK + b"x: y\r\n", b" z\r\n" * 10_000),
    "interim": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 65536),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("act", ACTS)
def test_c1490_a_head_without_end(trap: Trap, act: Act, kind: str) -> None:
    broken: tuple[type[errors.CS3Error], ...] = (errors.TransferInterrupted,)
    if act is Trap.upload and kind in ("extension", "trailers"):
        # "200 OK" is there, whatever follows; the file is not.
        broken = (errors.TransferInterrupted, errors.SizeMismatch)
    with hostile_server() as server:
        server.script = server.endless(*HEADS[kind])
        trap.gateway.lead(server.url)
        with pytest.raises(broken) as caught:
            act(trap)
    assert caught.value.operation == ("GET" if act is Trap.download else "PUT")
    # Three attempts, and what is in the buffers of each connection.
    assert len(server.heads) <= 3
    assert server.sent < 100 * MIB
    trap.unharmed()


@pytest.mark.parametrize(
    "begin", [b"", OK + b"x", OK + b"Transfer-Encoding: chunked\r\n\r\n5;x"], ids=["line", "head", "chunk"]
)
def test_c1491_a_head_that_drips(trap: Trap, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then: none of its silences is long."""
    monkeypatch.setattr("rucio_cs3.cs3.http.wire.LINES_S", 0.2)
    with hostile_server() as server:
        server.script = server.endless(begin, b"x", pause_s=0.02)
        trap.gateway.lead(server.url)
        with pytest.raises(errors.DeadlineExceeded, match="fell silent"):
            trap.download()
    trap.unharmed()


@pytest.mark.parametrize("status", [403, 413, 500, 507])
@pytest.mark.parametrize("act", ACTS)
def test_c1492_an_error_without_end(trap: Trap, act: Act, status: int) -> None:
    begin = f"HTTP/1.1 {status} {'z' * 60_000}\r\nX-Request-Id: {'t' * 60_000}\r\n\r\n".encode()
    with hostile_server() as server:
        server.script = server.endless(begin, b"\x1b[2J word\r\n" * 1000)
        trap.gateway.lead(server.url)
        with pytest.raises(errors.CS3Error) as caught:
            act(trap)
    told = str(caught.value)
    assert f"HTTP {status}" in told
    assert len(told) < 10_000
    assert told.isprintable()
    trap.unharmed()


@pytest.mark.parametrize("name", ["../../evil", "/tmp/rucio-cs3-evil", "evil", "./evil"])
def test_c1493_a_name_that_the_server_gives_is_nothing(trap: Trap, name: str) -> None:
    head = (
        f'Content-Length: {len(DATA)}\r\nContent-Disposition: attachment; filename="{name}"\r\nLocation: {name}\r\n'
        f"Content-Location: {name}\r\nOC-File: {name}\r\n\r\n"
    )
    with hostile_server(says(OK + head.encode() + DATA)) as server:
        trap.gateway.lead(server.url)
        trap.download()
    assert trap.local.read_bytes() == DATA
    assert [path.name for path in trap.local.parent.iterdir()] == ["target"]
    assert not (trap.local.parent / name).resolve().exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc/passwd", "a/", "a\0b", "x" * 256, "../file", "huge"])
def test_c1494_a_listing_with_what_can_be_no_entry(trap: Trap, name: str, caplog: pytest.LogCaptureFixture) -> None:
    def add(message: Any) -> Any:
        size = 2**63 if name == "huge" else 5
        message.infos.add(name=name, path=name, type=resources_pb2.RESOURCE_TYPE_FILE, size=size)
        return message

    trap.gateway.alter["ListContainer"] = add
    trap.gateway.calls.clear()
    listed = trap.storage.list(trap.place.folder)
    assert [info.reference for info in listed] == [trap.file]
    assert listed.left_out == 1
    assert "left out 1 of its entries" in caplog.text
    # It looks for hidden siblings of the file, and the one that was added is none of them.
    assert trap.storage.hidden_files.left_of(trap.file) == []
    trap.gateway.alter["ListContainer"] = lambda message: (message.infos.append(message.infos[0]), message)[1]
    assert [info.reference for info in trap.storage.list(trap.place.folder)] == [trap.file]
    trap.unharmed()


def wrong_types(message: Any) -> Any:
    """What a cloud says beside size and name, all of it nonsense."""
    info = message.info
    for key, decoder, value in (
        ("adler32", "plain", b"\xff\xfe\xfd"),
        ("md5", "plain", b"d41d8cd98f00b204e9800998ecf8427"),
        ("status", "json", b"processing"),
        ("x", "json", b"[" * 100_000),
    ):
        info.opaque.map[key].CopyFrom(types_pb2.OpaqueEntry(decoder=decoder, value=value))
    info.checksum.type = resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32
    info.checksum.sum = "0123456789"
    metadata = info.arbitrary_metadata.metadata
    metadata[f"{KEY_PREFIX}1"] = "1 adler32:00000001 5"
    metadata[f"{KEY_PREFIX}2"] = f"1 adler32:1 {info.size} {float(info.mtime.seconds)!r} {info.etag}"
    metadata[f"{KEY_PREFIX}3"] = "[" * 100_000
    return message


def absurd_times(message: Any) -> Any:
    message.info.mtime.seconds, message.info.mtime.nanos = 2**64 - 1, 2**32 - 1
    message.info.etag = "e" * MIB
    return message


@pytest.mark.parametrize("alter", [wrong_types, absurd_times])
def test_c1495_nonsense_about_a_file_does_not_keep_it_from_us(trap: Trap, alter: Callable[[Any], Any]) -> None:
    """Nothing of it is believed, and nothing of it is compared."""
    trap.gateway.alter["Stat"] = alter
    info = trap.storage.stat(trap.file)
    assert (info.size, info.is_directory, info.processing) == (len(DATA), False, False)
    assert "00000001" not in info.checksums.values()
    trap.download()
    assert trap.local.read_bytes() == DATA


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a b", "\x00", "tökén", "x" * MIB, "\u202e"])
def test_c1496_a_token_that_no_header_can_carry(trap: Trap, token: str) -> None:
    def login(message: Any) -> Any:
        message.token = token
        return message

    trap.gateway.alter["Authenticate"] = login
    trap.gateway.calls.clear()
    with pytest.raises(errors.ProtocolViolation, match="no header can carry") as caught:
        untrusting(trap).stat(trap.file)
    assert token not in str(caught.value)
    assert set(trap.gateway.calls) == {"Authenticate"}


def test_c1497_an_upload_in_pieces_of_which_next_to_nothing_is_taken(trap: Trap) -> None:
    """A byte of each PATCH: it is given up, and leaves nothing."""
    kept = 0

    def script(connection: socket.socket, head: str) -> None:
        nonlocal kept
        if head.startswith("PATCH"):
            kept += 1
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while connection.recv(65536):
                    pass
        offset = f"Upload-Offset: {kept}\r\nUpload-Length: {2 * MIB}\r\nTus-Resumable: 1.0.0\r\n"
        connection.sendall(f"HTTP/1.1 200 OK\r\n{offset}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())

    data = content(2 * MIB)
    source = trap.place.local_file(data, "source.bin")
    with hostile_server(script) as server:
        trap.gateway.lead(server.url)
        storage = trap.place.another(
            gateway=trap.storage.endpoint.gateway,
            webdav=trap.storage.endpoint.webdav,
            data_hosts=frozenset({"127.0.0.1"}),
            upload_protocol="tus",
        )
        # OpenCloud's line goes by TUS only where it can be told the checksum before.
        with pytest.raises(errors.ProtocolViolation, match="takes next to nothing") as caught:
            storage.upload(source, trap.place.file("new"), resume=False, checksums={"adler32": adler32(data)})
    assert caught.value.operation == "PATCH"
    assert kept
    assert len(server.heads) < 100
    trap.unharmed()


MARKER = b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: %d\nEnd\n"


@pytest.mark.parametrize("kind", ["line", "lines", "markers", "behind the outcome"])
def test_c1498_a_report_of_a_copy_without_end(kind: str, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setattr(markers, "REPORT_MAX_BYTES", MIB)
    begin = b"HTTP/1.1 202 Accepted\r\n\r\n" + (b"success: Created\n" if kind == "behind the outcome" else b"")
    more = {"line": b"x" * 10_000, "markers": b"".join(MARKER % count for count in range(100))}.get(
        kind, b"words\n" * 1000
    )
    moved: list[int] = []

    def pull(server: HostileServer) -> None:
        tpc.pull(
            place.storage.http,
            source_url=f"{server.url}/source",
            destination_url=f"{server.url}/destination",
            source_authorization="Bearer a",
            destination_authorization="Bearer b",
            on_marker=lambda marker: moved.append(marker.transferred_bytes),
        )

    with hostile_server() as server:
        server.script = server.endless(begin, more)
        if kind == "behind the outcome":
            pull(server)
        else:
            with pytest.raises(errors.ProtocolViolation, match=r"over 8 KiB|has no end"):
                pull(server)
    assert moved == sorted(moved)
    assert bool(moved) is (kind == "markers")


NAMES = [
    "..\\..\\x", "a\\b", "%2e%2e", "%2F", "%252e%252e", "...", "~", "-rf", "a\nb", "\x1b[2J", "\x7f", "\u202e",
    "\uff0e\uff0e", "e\u0301", "\u00e9", " a", "a ", "${HOME}", "`id`", "*", "?", "#", "a;b", "'\"", "a:b",
    "a&b=c", "\U0001f600" * 60,
]  # fmt: skip


def test_c1499_a_name_that_looks_like_a_way_elsewhere(place: Place) -> None:
    """It is a name: the file is in its folder, on the server's disk, too, and is found again by its PFN."""
    folder = place.folder.child("names")
    webdav = place.storage.endpoint.webdav
    source = place.local_file(OLD)
    for name in NAMES:
        place.storage.upload(source, folder.child(name))
    assert sorted(info.reference.name for info in place.storage.list(folder)) == sorted(NAMES)
    assert sorted(path.name for path in place.on_disk(folder).iterdir()) == sorted(NAMES)
    assert [path.name for path in place.on_disk(place.folder).iterdir()] == ["names"]
    for name in NAMES:
        found = webdav.reference(webdav.url(folder.child(name)))
        place.storage.download(found, place.local / "back")
        place.storage.delete_file(found)
    assert place.storage.list(folder) == []
