"""What a gateway's messages may hold: names that lead elsewhere, sizes that cannot be, words without end."""

from __future__ import annotations

import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2
from cs3.types.v1beta1 import types_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from rucio_cs3.cs3 import call_errors, errors, resources
from rucio_cs3.cs3.checksums import HEX_DIGITS
from rucio_cs3.cs3.downloads.ranges import BLOCKS_MAX, row_for
from rucio_cs3.cs3.redaction import WORDS_MAX_CHARACTERS
from rucio_cs3.cs3.reference import MountRoot, Reference, SpaceRoot
from rucio_cs3.cs3.resources import ETAG_MAX_CHARACTERS, SIZE_MAX_BYTES, Ticket
from tests.unit.hostile import TRICKY, is_told

ROOTS = st.sampled_from([MountRoot("/eos"), MountRoot("/"), SpaceRoot("st", "sp")])

#: Text that a protobuf message can hold.
WIRE = TRICKY.map(lambda text: text.encode("utf-8", "replace").decode())


@given(ROOTS, st.lists(st.tuples(WIRE, WIRE), max_size=5))
@example(MountRoot("/eos"), [("..", "")])
@example(MountRoot("/eos"), [("", "/eos/folder/..")])
@example(MountRoot("/eos"), [("", "")])
@example(MountRoot("/eos"), [("a/b", "")])
@example(MountRoot("/eos"), [("a/", "")])
@example(MountRoot("/eos"), [("/etc/passwd", "")])
@example(MountRoot("/eos"), [("a\0b", "")])
@example(MountRoot("/eos"), [("x" * 256, "")])
def test_a_listing_names_entries_of_this_folder(root: MountRoot | SpaceRoot, entries: list[tuple[str, str]]) -> None:
    folder = Reference(root, "folder")
    infos = [resources_pb2.ResourceInfo(name=name, path=path) for name, path in entries]
    found = resources.listed(folder, infos)
    assert len(found) + found.left_out == len({resources.listed_name(info) for info in infos})
    assert all(info.reference.parent == folder for info in found)
    assert all(info.reference.name not in ("", ".", "..") for info in found)
    names = [info.reference.name for info in found]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, 1) for name in ("", ".", "..", "a/b", "/a", "a/", "a\0b", "\x1b[2J" * 64)), ("a", SIZE_MAX_BYTES + 1)],
)
def test_what_can_be_no_entry_is_left_out_and_told(name: str, size: int, caplog: pytest.LogCaptureFixture) -> None:
    """It may be somebody else's, who could make a folder unreadable by it."""
    folder = Reference(MountRoot("/eos"), "folder")
    bad = resources_pb2.ResourceInfo(name=name, size=size)
    found = resources.listed(folder, [bad, resources_pb2.ResourceInfo(name="good"), bad])
    assert [info.reference for info in found] == [folder.child("good")]
    assert found.left_out == 1
    (told,) = caplog.messages
    assert "/eos/folder: left out 1 " in told
    assert is_told(told)


def test_all_that_is_left_out_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    infos = [resources_pb2.ResourceInfo(name=f"{number}/") for number in range(100)]
    found = resources.listed(Reference(MountRoot("/eos"), "folder"), infos)
    assert (found, found.left_out) == ([], 100)
    assert len(caplog.messages) == 1


def test_of_two_entries_of_one_name_the_first_counts() -> None:
    infos = [resources_pb2.ResourceInfo(name="a", size=size) for size in (1, 2)]
    assert [info.size for info in resources.listed(Reference(MountRoot("/")), infos)] == [1]


def test_a_size_that_no_file_has() -> None:
    place = Reference(MountRoot("/"), "f")
    assert resources.file_info(place, resources_pb2.ResourceInfo(size=SIZE_MAX_BYTES)).size == SIZE_MAX_BYTES
    for size in (SIZE_MAX_BYTES + 1, 2**64 - 1):
        with pytest.raises(errors.ProtocolViolation, match=str(size)):
            resources.file_info(place, resources_pb2.ResourceInfo(size=size))
        folder = resources_pb2.ResourceInfo(size=size, type=resources_pb2.RESOURCE_TYPE_CONTAINER)
        assert resources.file_info(place, folder).is_directory


@given(st.integers(0, 2**64), st.integers(1, 8))
@example(SIZE_MAX_BYTES, 4)
def test_a_file_of_any_size_has_few_blocks(size: int, streams: int) -> None:
    """8 EiB in blocks of 1 GiB are 8 billion."""
    row = row_for(size, streams, ["adler32"])
    assert len(row.blocks) <= BLOCKS_MAX + 1
    ends = [0, *(block.end for block in row.blocks)]
    assert [block.first for block in row.blocks] == ends[:-1]
    assert ends[-1] == size


def test_an_etag_is_not_kept_at_any_length() -> None:
    place = Reference(MountRoot("/"), "f")
    for length, kept in ((ETAG_MAX_CHARACTERS, True), (ETAG_MAX_CHARACTERS + 1, False)):
        info = resources.file_info(place, resources_pb2.ResourceInfo(etag="x" * length))
        assert bool(info.etag) is kept


@given(st.binary(max_size=200))
def test_any_message_is_read_or_none(data: bytes) -> None:
    info = resources_pb2.ResourceInfo()
    try:
        info.ParseFromString(data)
        found = resources.file_info(Reference(MountRoot("/"), "f"), info)
    except (DecodeError, errors.ProtocolViolation):
        return
    assert 0 <= found.size < 2**64
    assert all(len(value) == HEX_DIGITS[name] for name, value in found.checksums.items())


@given(
    st.dictionaries(
        st.sampled_from(["status", "adler32", "md5", "remaining", "x"]),
        st.tuples(st.sampled_from(["plain", "json", "xml", ""]), st.binary(max_size=60) | st.just(b"[" * 9000)),
    ),
    WIRE,
    st.sampled_from(resources_pb2.ResourceChecksumType.values()),
)
def test_any_opaque_is_read(entries: dict[str, tuple[str, bytes]], value: str, kind: int) -> None:
    opaque = types_pb2.Opaque(
        map={key: types_pb2.OpaqueEntry(decoder=decoder, value=data) for key, (decoder, data) in entries.items()}
    )
    info = resources_pb2.ResourceInfo(size=5, opaque=opaque, checksum={"type": kind, "sum": value})
    found = resources.file_info(Reference(MountRoot("/"), "f"), info)
    assert all(len(hexes) == HEX_DIGITS[name] for name, hexes in found.checksums.items())
    quota = resources.quota(2**64 - 1, 2**64 - 1, opaque)
    assert quota.used_bytes <= SIZE_MAX_BYTES
    assert quota.remaining_bytes is None or quota.remaining_bytes <= SIZE_MAX_BYTES


@given(st.lists(WIRE, max_size=20))
def test_offers_that_nobody_wants_are_told_in_few_words(protocols: list[str]) -> None:
    tickets = [Ticket(protocol=protocol * 1000, url="", token="") for protocol in protocols]
    with pytest.raises(errors.Unsupported) as caught:
        resources.pick_ticket(tickets, ("simple",), Reference(MountRoot("/")))
    assert len(str(caught.value)) < 500
    assert is_told(str(caught.value))


@pytest.mark.parametrize("code", [*code_pb2.Code.values(), -1, 2**31 - 1])
def test_a_status_of_any_length_and_code_is_told_in_few_words(code: int) -> None:
    status = status_pb2.Status(code=code, message="\x1b[2J words " * 30_000, trace="t" * 100_000)
    error = call_errors.of_status(status, "Stat", "/f", {"secret-token"})
    assert len(str(error)) < 2 * WORDS_MAX_CHARACTERS
    assert is_told(str(error))


def test_limits_of_messages_are_for_calls_that_exist() -> None:
    """A method that is renamed would get the default, and large folders could not be listed any more."""
    methods = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"].methods_by_name
    assert "ListContainer" in methods
    assert provider_api_pb2.ListContainerResponse.DESCRIPTOR is methods["ListContainer"].output_type
