"""What messages of both server lines say."""

from __future__ import annotations

import pytest
from cs3.storage.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.reference import MountRoot, Reference, SpaceRoot
from rucio_cs3.cs3.resources import Quota

MOUNT = MountRoot("/localfs")
SPACE = SpaceRoot("st", "sp")


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        (Reference(MOUNT), "/localfs"),
        (Reference(MOUNT, "a/b%41 c"), "/localfs/a/b%41 c"),
        (Reference(MountRoot("/"), "a"), "/a"),
    ],
)
def test_a_mount_path_is_sent_whole(reference: Reference, path: str) -> None:
    message = resources.to_message(reference)
    assert message == resources_pb2.Reference(path=path)
    assert not message.HasField("resource_id")


@pytest.mark.parametrize(("path", "sent"), [("", "."), ("a", "./a"), ("a/b c", "./a/b c")])
def test_a_space_is_sent_by_id(path: str, sent: str) -> None:
    message = resources.to_message(Reference(SPACE, path))
    assert (message.resource_id.storage_id, message.resource_id.space_id) == ("st", "sp")
    assert message.resource_id.opaque_id == "sp"
    assert message.path == sent


@pytest.mark.parametrize(
    ("kind", "value", "opaque", "size", "expected"),
    [
        ("INVALID", "", {}, 5, {}),
        ("UNSET", "ignored", {}, 5, {}),
        ("INVALID", "", {}, 0, {"adler32": "00000001"}),
        ("ADLER32", "f40092", {}, 5, {"adler32": "00f40092"}),
        ("MD5", "A" * 32, {}, 5, {"md5": "a" * 32}),
        ("SHA1", "b" * 40, {"adler32": "00f40092", "md5": "c" * 32}, 5,
         {"sha1": "b" * 40, "adler32": "00f40092", "md5": "c" * 32}),
    ],
)  # fmt: skip
def test_checksums_of_a_file(
    kind: str, value: str, opaque: dict[str, str], size: int, expected: dict[str, str]
) -> None:
    info = resources_pb2.ResourceInfo(
        type=resources_pb2.RESOURCE_TYPE_FILE,
        size=size,
        checksum={"type": f"RESOURCE_CHECKSUM_TYPE_{kind}", "sum": value},
        opaque=resources.plain_opaque(opaque),
    )
    assert resources.file_info(Reference(MOUNT, "x"), info).checksums == expected


def test_a_file() -> None:
    info = resources_pb2.ResourceInfo(
        type=resources_pb2.RESOURCE_TYPE_FILE,
        size=2**40,
        etag='"e"',
        path="/some/other/path",
        mtime={"seconds": 10, "nanos": 500_000_000},
        opaque=resources.plain_opaque({"status": "processing"}),
    )
    read = resources.file_info(Reference(SPACE, "d/x"), info)
    assert (read.reference, read.size, read.is_directory) == (Reference(SPACE, "d/x"), 2**40, False)
    assert (read.etag, read.mtime_s, read.processing) == ('"e"', 10.5, True)


def test_a_folder_has_no_checksums() -> None:
    info = resources_pb2.ResourceInfo(type=resources_pb2.RESOURCE_TYPE_CONTAINER, size=0)
    read = resources.file_info(Reference(MOUNT), info)
    assert (read.is_directory, dict(read.checksums), read.processing) == (True, {}, False)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("x", "x", "x"),  # OpenCloud
        ("x", "/d/x", "x"),
        ("", "/localfs/d/x", "x"),  # Reva v3.12.1
        ("", "/localfs/d/x/", "x"),
        ("", "", ""),
    ],
)
def test_the_name_of_a_listed_entry(name: str, path: str, expected: str) -> None:
    assert resources.listed_name(resources_pb2.ResourceInfo(name=name, path=path)) == expected


@pytest.mark.parametrize(
    ("total", "used", "opaque", "expected"),
    [
        (100, 30, {}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=70)),
        (100, 130, {}, Quota(total_bytes=100, used_bytes=130, remaining_bytes=0)),
        (0, 30, {"remaining": str(2**64 - 1)}, Quota(total_bytes=None, used_bytes=30, remaining_bytes=None)),
        (100, 30, {"remaining": "5"}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=5)),
        (100, 30, {"remaining": str(2**64 - 1)}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=None)),
        (100, 30, {"remaining": "many"}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=70)),
        (100, 30, {"remaining": "9" * 18}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=10**18 - 1)),
        (100, 30, {"remaining": "9" * 19}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=70)),
        (100, 30, {"remaining": "9" * 5000}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=70)),
        (100, 30, {"remaining": "\u0663"}, Quota(total_bytes=100, used_bytes=30, remaining_bytes=70)),
    ],
)
def test_quota(total: int, used: int, opaque: dict[str, str], expected: Quota) -> None:
    assert resources.quota(total, used, resources.plain_opaque(opaque)) == expected


UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(codec="utf-8"))
OPAQUE = st.dictionaries(
    st.sampled_from(["remaining", "status", "adler32", "md5"]),
    st.binary() | st.from_regex(r"\d+").map(str.encode) | st.from_regex(r"[0-9a-f]{1,40}").map(str.encode),
).map(
    lambda entries: types_pb2.Opaque(
        map={key: types_pb2.OpaqueEntry(decoder="plain", value=value) for key, value in entries.items()}
    )
)


@given(UINT64, UINT64, OPAQUE)
def test_any_answer_is_a_quota(total: int, used: int, opaque: types_pb2.Opaque) -> None:
    read = resources.quota(total, used, opaque)
    assert read.remaining_bytes is None or 0 <= read.remaining_bytes < 2**64


@given(
    UINT64,
    st.integers(0, 2**32),
    TEXT,
    OPAQUE,
    st.dictionaries(TEXT.map(lambda text: f"rucio.checksums.{text}"), TEXT),
    st.sampled_from(resources_pb2.ResourceChecksumType.values()),
    st.tuples(UINT64, st.integers(0, 2**32 - 1)),
)
def test_any_answer_is_a_file(
    size: int,
    kind: int,
    text: str,
    opaque: types_pb2.Opaque,
    metadata: dict[str, str],
    checksum: resources_pb2.ResourceChecksumType.ValueType,
    mtime: tuple[int, int],
) -> None:
    info = resources_pb2.ResourceInfo(
        size=size,
        etag=text,
        opaque=opaque,
        checksum={"type": checksum, "sum": text},
        arbitrary_metadata={"metadata": metadata},
        mtime={"seconds": mtime[0], "nanos": mtime[1]},
    )
    try:
        read = resources.file_info(Reference(MOUNT, "x"), info)
    except errors.ProtocolViolation:
        assert size > resources.SIZE_MAX_BYTES
        return
    assert (read.size, read.etag) == (size, text)


def test_only_plain_entries_are_read() -> None:
    opaque = types_pb2.Opaque(
        map={
            "a": types_pb2.OpaqueEntry(decoder="plain", value=b"1"),
            "b": types_pb2.OpaqueEntry(decoder="json", value=b"{}"),
            "c": types_pb2.OpaqueEntry(decoder="plain", value=b"\xff"),
        }
    )
    assert resources.plain_entries(opaque) == {"a": "1", "c": "�"}
