"""C12xx: checksums that are kept beside a file, where the server keeps none, and what is believed of them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import grpc
import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import FileInfo, Reference, errors
from rucio_cs3.cs3.kept_checksums import KEEP_FROM_BYTES, KEY_PREFIX
from rucio_cs3.cs3.resources import to_message
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.jobs import Job, State
from rucio_cs3.transfers.ladder import transfer_one
from rucio_cs3.transfers.modes import Wish
from tests.contract import copying
from tests.contract.place import SETTLE_S, Place, adler32, content
from tests.unit.transfer_world import Notes, PaperClaim

SIZE = KEEP_FROM_BYTES + 17


def put(place: Place, name: str, data: bytes, *, read_back: bool = True, overwrite: bool = False) -> Reference:
    """Upload and prove it, as the RSE protocol does."""
    reference = place.file(name)
    local = place.local_file(data, "put.bin")
    place.storage.upload(local, reference, read_back=read_back, overwrite=overwrite, algorithms=("adler32", "md5"))
    return reference


def sums(data: bytes) -> dict[str, str]:
    return {"adler32": adler32(data), "md5": hashlib.md5(data).hexdigest()}


def believed(place: Place, reference: Reference) -> dict[str, str]:
    """Rucio's checksums of a file, as a process that knows nothing of it sees them."""
    info = place.another().stat(reference)
    return {name: info.checksums[name] for name in ("adler32", "md5") if name in info.checksums}


def expected(place: Place, data: bytes, *, kept: bool) -> dict[str, str]:
    """What is known of a content: what is kept, or what a server knows by itself (OpenCloud)."""
    return sums(data) if kept or not place.storage.endpoint.stores_paths else {}


def dav(place: Place, method: str, reference: Reference, body: bytes = b"", **headers: str) -> int:
    """What somebody else does with another program."""
    url = urlsplit(copying.url(place, reference))
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, url.path, body, {"Authorization": copying.authorization(place), **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status


@contextlib.contextmanager
def stub(place: Place) -> Iterator[tuple[gateway_api_pb2_grpc.GatewayAPIStub, list[tuple[str, str]]]]:
    """Somebody else's gRPC client, with the metadata that log it in."""
    with grpc.insecure_channel(place.cloud.gateway, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield gateway_api_pb2_grpc.GatewayAPIStub(channel), [("x-access-token", place.storage.access_token())]


def metadata(place: Place, reference: Reference) -> dict[str, str]:
    """The records of a file."""
    with stub(place) as (gateway, login):
        answer = gateway.Stat(provider_api_pb2.StatRequest(ref=to_message(reference)), metadata=login, timeout=20)
    assert answer.status.code == code_pb2.CODE_OK
    return {key: value for key, value in answer.info.arbitrary_metadata.metadata.items() if key.startswith(KEY_PREFIX)}


def set_metadata(place: Place, reference: Reference, values: dict[str, str]) -> None:
    with stub(place) as (gateway, login):
        request = provider_api_pb2.SetArbitraryMetadataRequest(
            ref=to_message(reference), arbitrary_metadata=resources_pb2.ArbitraryMetadata(metadata=values)
        )
        assert gateway.SetArbitraryMetadata(request, metadata=login, timeout=20).status.code == code_pb2.CODE_OK


def settled(place: Place, reference: Reference) -> FileInfo:
    return place.storage.settled(reference)


def test_c1201_what_was_proven_is_kept_and_believed(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data)
    assert believed(place, reference) == sums(data)
    [listed] = place.another().list(place.folder)
    assert {**listed.checksums, **sums(data)} == listed.checksums
    assert len(metadata(place, reference)) == (1 if place.storage.endpoint.stores_paths else 0)
    back = place.local / "back"
    assert place.storage.download(reference, back).checksums["adler32"] == adler32(data)
    assert back.read_bytes() == data


def test_c1202_what_was_not_proven_is_not_kept(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data, read_back=False)
    assert believed(place, reference) == expected(place, data, kept=False)
    assert metadata(place, reference) == {}


@pytest.mark.parametrize("size", [0, 1, KEEP_FROM_BYTES - 1, KEEP_FROM_BYTES])
def test_c1203_small_files_are_not_worth_it(place: Place, size: int) -> None:
    data = content(size)
    reference = put(place, "file", data)
    if size:
        assert believed(place, reference) == expected(place, data, kept=size == KEEP_FROM_BYTES)
    else:
        assert believed(place, reference)["adler32"] == "00000001"
    kept = size == KEEP_FROM_BYTES and place.storage.endpoint.stores_paths
    assert len(metadata(place, reference)) == kept


def test_c1204_of_an_overwritten_file_nothing_is_believed(place: Place) -> None:
    # Both within one second, which is as exact as Reva's modification times are.
    deadline = time.monotonic() + SETTLE_S
    for number in range(100):
        reference = put(place, f"file-{number}", content(SIZE, seed=1))
        before = settled(place, reference)
        other = content(SIZE, seed=2)
        assert dav(place, "PUT", reference, other) == 204
        after = settled(place, reference)
        assert believed(place, reference) == expected(place, other, kept=False)
        if (before.mtime_s, before.size) == (after.mtime_s, after.size) or time.monotonic() > deadline:
            break
    assert (before.mtime_s, before.size) == (after.mtime_s, after.size)
    # An upload of ours is, again.
    third = content(SIZE, seed=3)
    put(place, reference.name, third, overwrite=True)
    assert believed(place, reference) == sums(third)


def test_c1205_of_a_successor_nothing_is_believed(place: Place) -> None:
    reference = put(place, "file", content(SIZE, seed=1))
    place.storage.delete(reference)
    other = content(SIZE, seed=2)
    assert dav(place, "PUT", reference, other) == 201
    settled(place, reference)
    assert believed(place, reference) == expected(place, other, kept=False)


@pytest.mark.parametrize("how", ["CS3", "WebDAV"])
def test_c1206_a_moved_file_keeps_them(place: Place, how: str) -> None:
    # At the new name stood a file with a record, and one stands at each now; Reva fails where two have the same key.
    place.storage.delete(put(place, "new", content(SIZE, seed=1)))
    data = content(SIZE, seed=2)
    reference, new = put(place, "old", data), place.file("new")
    if how == "CS3":
        place.storage.move(reference, new)
    else:
        assert dav(place, "MOVE", reference, Destination=copying.url(place, new)) == 201
    assert believed(place, new) == sums(data)
    assert place.names() == ["new"]


def test_c1207_of_a_copy_nothing_is_believed(without_tpc: Place) -> None:
    place = without_tpc
    data = content(SIZE)
    reference, copy = put(place, "file", data), place.file("copy")
    assert dav(place, "COPY", reference, Destination=copying.url(place, copy)) == 201
    assert place.stored(copy) == data
    assert believed(place, copy) == {}
    # Nor where the record itself is copied.
    set_metadata(place, copy, metadata(place, reference))
    assert believed(place, copy) == {}
    assert believed(place, reference) == sums(data)


GARBAGE = {
    "nothing": "",
    "text": "garbage",
    "long": "1 " + "x" * 50_000,
    "short sum": "1 adler32:abc {content}",
    "no sum": "1 adler32: {content}",
    "version 2": "2 adler32:{adler32} {content}",
    "unknown algorithm": "1 crc32:{adler32} {content}",
}


@pytest.mark.parametrize("record", GARBAGE.values(), ids=GARBAGE)
def test_c1208_garbage_is_no_record(place: Place, record: str) -> None:
    data = content(SIZE)
    reference = put(place, "file", data, read_back=False)
    info = settled(place, reference)
    text = record.format(adler32=adler32(data), content=f"{info.size} {info.mtime_s!r} {info.etag}")
    set_metadata(place, reference, {f"{KEY_PREFIX}0123456789abcdef": text})
    assert believed(place, reference) == expected(place, data, kept=False)
    back = place.local / "back"
    place.storage.download(reference, back)
    assert back.read_bytes() == data


REFUSALS = ["code:UNIMPLEMENTED", "code:PERMISSION_DENIED", "code:INTERNAL", "grpc:UNIMPLEMENTED", "grpc:UNAVAILABLE"]


@pytest.mark.parametrize("script", [*REFUSALS, "lost-answer"])
def test_c1209_a_server_that_takes_none_gets_its_file_all_the_same(place: Place, script: str) -> None:
    data = content(SIZE)
    asked = place.storage.endpoint.stores_paths
    if asked:
        place.fault("gateway.SetArbitraryMetadata", script)
    reference = put(place, "file", data)
    assert place.pending() == []
    assert place.stored(reference) == data
    assert believed(place, reference) == expected(place, data, kept=script == "lost-answer")
    assert place.names() == ["file"]
    # It is not asked again for a while.
    second = put(place, "second", data)
    assert believed(place, second) == expected(place, data, kept=not asked)


def test_c1210_a_restored_file_keeps_them(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data)
    place.storage.delete(reference)
    with stub(place) as (gateway, login):
        request = provider_api_pb2.ListRecycleRequest(ref=to_message(place.folder))
        items = gateway.ListRecycle(request, metadata=login, timeout=20).recycle_items
        [item] = [item for item in items if item.ref.path.endswith(f"{place.folder.name}/file")]
        root = Reference(place.folder.root)
        restore = provider_api_pb2.RestoreRecycleItemRequest(ref=to_message(root), key=item.key)
        assert gateway.RestoreRecycleItem(restore, metadata=login, timeout=20).status.code == code_pb2.CODE_OK
    assert believed(place, reference) == sums(data)


def test_c1211_a_download_is_compared_with_them(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data)
    assert believed(place, reference) == sums(data)
    # A disk that forgets: nothing but the bytes changes.
    disk = place.on_disk(reference)
    times = disk.stat()
    with disk.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(bytes([data[SIZE // 2] ^ 1]))
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(errors.ChecksumMismatch) as caught:
        place.storage.download(reference, place.local / "back")
    assert str(reference) in str(caught.value)
    assert "back" not in place.local_names()


def test_c1215_so_it_is_where_only_another_checksum_is_known(place: Place) -> None:
    data = content(SIZE)
    reference = place.file("file")
    place.storage.upload(place.local_file(data), reference, read_back=True, algorithms=("md5",))
    assert "md5" in place.storage.stat(reference).checksums
    disk = place.on_disk(reference)
    times = disk.stat()
    with disk.open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(errors.ChecksumMismatch):
        place.storage.download(reference, place.local / "back", streams=4)
    assert "back" not in place.local_names()


def test_c1217_what_is_kept_later_adds_to_what_was_kept(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data, read_back=False)
    for algorithm, value in sums(data).items():
        place.storage.keep_checksums(settled(place, reference), {algorithm: value})
    assert believed(place, reference) == sums(data)


def test_c1212_of_a_third_party_copy_nothing_is_believed(source: Place, destination: Place) -> None:
    # A record of what stood there before does not vouch for what a copy brings.
    file = source.put("file", content(SIZE, seed=1))
    target = put(destination, "file", content(SIZE, seed=2))
    destination.storage.delete(target)
    copying.pull(source, file, destination, target)
    assert destination.stored(target) == content(SIZE, seed=1)
    assert believed(destination, target) == {}


def test_c1213_who_has_proven_a_content_may_keep_its_checksums(place: Place) -> None:
    data = content(SIZE)
    reference = put(place, "file", data, read_back=False)
    info = settled(place, reference)
    assert place.storage.keep_checksums(info, sums(data)) == place.storage.endpoint.stores_paths
    assert believed(place, reference) == sums(data)
    # Once is enough.
    assert not place.storage.keep_checksums(settled(place, reference), sums(data))
    # Of a file that has changed since the look, they are not believed.
    other = content(SIZE, seed=2)
    second = put(place, "second", data, read_back=False)
    info = settled(place, second)
    assert dav(place, "PUT", second, other) == 204
    settled(place, second)
    place.storage.keep_checksums(info, sums(data))
    assert believed(place, second) == expected(place, other, kept=False)


def test_c1214_they_can_be_switched_off(place: Place) -> None:
    data = content(SIZE)
    storage = place.another(keep_checksums=False)
    reference = place.file("file")
    storage.upload(place.local_file(data), reference, read_back=True)
    assert metadata(place, reference) == {}
    assert not storage.keep_checksums(storage.settled(reference), sums(data))
    # What others kept is believed.
    kept = put(place, "kept", data)
    assert {**storage.stat(kept).checksums, **sums(data)} == storage.stat(kept).checksums


@pytest.mark.parametrize("wish", ["relay", "pull"])
def test_c1216_a_transfer_that_has_read_the_file_keeps_its_checksum(
    source: Place, destination: Place, wish: Wish
) -> None:
    data = content(SIZE)
    file, target = source.put("file", data), destination.file("target")
    origin, end = (
        CS3End(place.storage, reference, url=copying.url(place, reference), wish=wish)
        for place, reference in ((source, file), (destination, target))
    )
    job = Job(request_id="f" * 32, size_bytes=SIZE, adler32=adler32(data))
    assert transfer_one(job, origin, end, PaperClaim(), Notes()).copied
    assert believed(destination, target) == {"adler32": adler32(data)}
    # Whoever looks again, such as a second attempt whose first report was lost, reads nothing.
    reads = len(destination.passed("data.get"))
    assert reads
    again = transfer_one(replace(job, attempt=1), origin, end, PaperClaim(), Notes())
    assert (again.state, again.copied) == (State.DONE, False)
    assert len(destination.passed("data.get")) == reads
