"""Records of checksums: what is believed of which content, what is worth keeping, and servers that take none."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any, cast

import pytest
from cs3.storage.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import errors, kept_checksums, resources
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.kept_checksums import KEEP_FROM_BYTES, KEY_PREFIX, REFUSED_PAUSE_S, KeptChecksums
from rucio_cs3.cs3.reference import MountRoot, Reference

SUMS = {"adler32": "0a1b2c3d", "md5": "0123456789abcdef0123456789abcdef"}
INFO = resources.FileInfo(
    reference=Reference(MountRoot("/"), "d/f"),
    size=KEEP_FROM_BYTES,
    is_directory=False,
    etag='"7e96 2038"',
    mtime_s=1795254183.5,
)


class Server:
    """Takes metadata, or answers with an error."""

    def __init__(self, error: errors.CS3Error | None = None) -> None:
        self.error = error
        self.calls: list[tuple[Reference, dict[str, str]]] = []

    def set_metadata(self, reference: Reference, metadata: dict[str, str]) -> None:
        self.calls.append((reference, metadata))
        if self.error is not None:
            raise self.error


def keeper(server: Server, *, enabled: bool = True) -> KeptChecksums:
    return KeptChecksums(cast(Gateway, server), name="CLOUD", enabled=enabled)


def believed(metadata: dict[str, str], info: resources.FileInfo = INFO) -> dict[str, str]:
    return kept_checksums.believed(metadata, size=info.size, mtime_s=info.mtime_s, etag=info.etag)


def record(info: resources.FileInfo = INFO, sums: dict[str, str] = SUMS) -> dict[str, str]:
    return {kept_checksums.key_of(info): kept_checksums.record_of(info, sums)}


def test_what_is_kept_is_believed() -> None:
    server = Server()
    assert keeper(server).keep(INFO, SUMS)
    [(reference, metadata)] = server.calls
    assert reference == INFO.reference
    assert believed(metadata) == SUMS


def test_the_record_as_it_is_written() -> None:
    [(key, value)] = record().items()
    assert value == f'1 adler32:0a1b2c3d,md5:{SUMS["md5"]} 1048576 1795254183.5 "7e96 2038"'
    # An XML element's name, and an extended attribute's.
    assert re.fullmatch(r"rucio\.checksums\.[0-9a-f]{16}", key)


@pytest.mark.parametrize(
    "change",
    [{"size": KEEP_FROM_BYTES + 1}, {"mtime_s": 1795254184.5}, {"etag": '"7e96 2039"'}, {"etag": ""}],
    ids=["size", "mtime", "etag", "no etag"],
)
def test_of_another_content_nothing_is_believed(change: dict[str, Any]) -> None:
    assert believed(record(), replace(INFO, **change)) == {}


def test_no_two_contents_share_a_key() -> None:
    others = [replace(INFO, size=INFO.size + 1), replace(INFO, mtime_s=1.0), replace(INFO, etag='"x"')]
    assert len({kept_checksums.key_of(info) for info in (INFO, *others)}) == 4


def test_records_of_former_contents_stand_beside() -> None:
    former = record(replace(INFO, etag='"former"'), {"adler32": "ffffffff"})
    assert believed({"color": "red", **former, **record()}) == SUMS
    assert believed(former) == {}


GOOD = next(iter(record().values()))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "x" * 100_000,
        GOOD[1:],
        GOOD.replace("1 ", "2 ", 1),
        GOOD.replace("adler32:0a1b2c3d", "adler32:0a1b2c3"),
        GOOD.replace("adler32:0a1b2c3d", "adler32:0a1b2c3dd"),
        GOOD.replace("adler32:0a1b2c3d", "adler32:0A1B2C3D"),
        GOOD.replace("adler32:0a1b2c3d", "adler32:0a1b2c3x"),
        GOOD.replace("adler32:0a1b2c3d", "adler32"),
        GOOD.replace("adler32:0a1b2c3d", "crc32:0a1b2c3d"),
        GOOD.replace("adler32:0a1b2c3d,", ","),
        GOOD.replace(" 1048576 ", " 01048576 "),
        GOOD.replace(" 1048576 ", " ²048576 "),
        GOOD + "\n",
        GOOD.rpartition(" ")[0],
    ],
)
def test_garbage_is_no_record(value: str) -> None:
    assert believed({next(iter(record())): value}) == {}


def test_a_record_is_believed_under_any_key_of_ours_and_under_no_other() -> None:
    assert believed({f"{KEY_PREFIX}x": GOOD}) == SUMS
    assert believed({f"user.{KEY_PREFIX}x": GOOD}) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"size": KEEP_FROM_BYTES - 1},
        {"etag": ""},
        {"is_directory": True},
        {"processing": True},
        {"checksums": SUMS},
    ],
    ids=["small", "no etag", "folder", "processing", "known already"],
)
def test_what_is_not_worth_it(change: dict[str, Any]) -> None:
    server = Server()
    assert not keeper(server).keep(replace(INFO, **change), SUMS)
    assert server.calls == []


def test_only_known_algorithms_are_kept() -> None:
    server = Server()
    assert not keeper(server).keep(INFO, {"crc32": "00000000"})
    assert keeper(server).keep(INFO, {"crc32": "00000000", **SUMS})
    assert [believed(metadata) for _, metadata in server.calls] == [SUMS]


def test_switched_off() -> None:
    server = Server()
    assert not keeper(server, enabled=False).keep(INFO, SUMS)
    assert server.calls == []


def test_a_server_that_refuses_is_left_in_peace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    server = Server(errors.Unsupported("not implemented", code="CODE_UNIMPLEMENTED"))
    kept = keeper(server)
    with caplog.at_level(logging.INFO, "rucio_cs3"):
        for _ in range(3):
            assert not kept.keep(INFO, SUMS)
        assert len(server.calls) == 1
        now[0] += REFUSED_PAUSE_S
        assert not kept.keep(INFO, SUMS)
    assert len(server.calls) == 2
    [line] = caplog.records
    assert line.levelno == logging.INFO
    assert "CLOUD" in line.message
    server.error = None
    now[0] += REFUSED_PAUSE_S
    assert kept.keep(INFO, SUMS)


def test_a_file_that_went_away_is_not_the_servers_refusal() -> None:
    server = Server(errors.NotFound("gone"))
    kept = keeper(server)
    assert not kept.keep(INFO, SUMS)
    server.error = None
    assert kept.keep(INFO, SUMS)


def test_errors_that_are_none_of_ours_come_through() -> None:
    class Broken(Server):
        def set_metadata(self, reference: Reference, metadata: dict[str, str]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keeper(Broken()).keep(INFO, SUMS)


# -- as a part of what the server says ---------------------------------------------------------------------------


def message(**fields: Any) -> resources_pb2.ResourceInfo:
    return resources_pb2.ResourceInfo(
        type=resources_pb2.RESOURCE_TYPE_FILE,
        size=INFO.size,
        etag=INFO.etag,
        mtime=types_pb2.Timestamp(seconds=1795254183, nanos=500_000_000),
        arbitrary_metadata=resources_pb2.ArbitraryMetadata(metadata=record()),
        **fields,
    )


def test_file_info_has_kept_checksums() -> None:
    assert resources.file_info(INFO.reference, message()).checksums == SUMS


def test_the_servers_own_checksum_wins() -> None:
    own = resources_pb2.ResourceChecksum(type=resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32, sum="1")
    assert resources.file_info(INFO.reference, message(checksum=own)).checksums == {"adler32": "00000001"}


def test_a_checksum_not_known_yet_is_none() -> None:
    # EOS says 000000 right after a transfer.
    own = resources_pb2.ResourceChecksum(type=resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32, sum="000000")
    assert resources.file_info(INFO.reference, message(checksum=own)).checksums == SUMS


@pytest.mark.parametrize("text", ["", "0", "000000", "00000000"])
def test_a_server_that_is_still_summing_says_so(text: str) -> None:
    own = resources_pb2.ResourceChecksum(type=resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32, sum=text)
    assert resources.file_info(INFO.reference, message(checksum=own)).summing
    empty = message(checksum=own)
    empty.size = 0
    assert not resources.file_info(INFO.reference, empty).summing


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32, "1"),
        (resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32, "garbage"),
        (resources_pb2.RESOURCE_CHECKSUM_TYPE_SHA1, ""),
        (resources_pb2.RESOURCE_CHECKSUM_TYPE_INVALID, ""),
        (resources_pb2.RESOURCE_CHECKSUM_TYPE_UNSET, ""),
    ],
)
def test_a_server_that_has_a_checksum_or_will_have_none_is_not_summing(kind: Any, text: str) -> None:
    own = resources_pb2.ResourceChecksum(type=kind, sum=text)
    assert not resources.file_info(INFO.reference, message(checksum=own)).summing


def test_a_folder_has_no_checksums() -> None:
    folder = message()
    folder.type = resources_pb2.RESOURCE_TYPE_CONTAINER
    assert resources.file_info(INFO.reference, folder).checksums == {}
