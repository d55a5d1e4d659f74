"""Ranges: checksums put together, blocks that cover a file exactly, and when to give up."""

from __future__ import annotations

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.downloads import ranges
from rucio_cs3.cs3.downloads.ranges import (
    BEGINNINGS_MAX,
    FRUITLESS_MAX,
    Block,
    ContentRange,
    Patience,
    RangeSupport,
    Row,
    combine_adler32,
    is_strong,
    row_for,
    worthwhile_streams,
)

MIB = 1024 * 1024
BLOCK = ranges.BLOCK_BYTES
BROKEN = errors.TransferInterrupted("broken")


@given(st.binary(), st.binary())
def test_two_sums_are_put_together(one: bytes, other: bytes) -> None:
    assert combine_adler32(zlib.adler32(one), zlib.adler32(other), len(other)) == zlib.adler32(one + other)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
@pytest.mark.parametrize("length", [0, 1, 65520, 65521, 65522, 5 * MIB + 3])
def test_sums_of_long_pieces_are_put_together(byte: bytes, length: int) -> None:
    one, other = byte * (length + 7), byte * length
    assert combine_adler32(zlib.adler32(one), zlib.adler32(other), length) == zlib.adler32(one + other)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_a_row_has_the_sum_of_the_whole(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    blocks = [Block(first, end) for first, end in itertools.pairwise(edges)] or [Block(0, 0)]
    for block in reversed(blocks):
        block.digests.update(data[block.first : block.end])
    assert Row(blocks).hexdigests() == {"adler32": f"{zlib.adler32(data):08x}"}


@given(st.integers(2 * BLOCK, 2**42), st.integers(2, 8), st.integers(0, 100))
def test_blocks_cover_the_file_once(size: int, streams: int, done_percent: int) -> None:
    done = Block(0, size * done_percent // 100) if 0 < done_percent < 100 else None
    if done is not None:
        done.digests.byte_count = done.end
    row = row_for(size, streams, ["adler32"], done)
    position = 0
    for block in row.blocks:
        assert block.first == position
        position = block.end
    assert position == size
    fresh = row.blocks[1:] if done is not None else row.blocks
    assert all(block.end - block.first <= ranges.BLOCK_MAX_BYTES for block in fresh)
    assert all(block.end - block.first >= BLOCK for block in fresh[:-1])
    assert row.front == (done.end if done is not None else 0)


def test_one_stream_has_one_block_that_goes_on() -> None:
    done = Block(0, 3, ["adler32", "md5"])
    done.digests.update(b"abc")
    row = row_for(6, 1, ["adler32", "md5"], done)
    (block,) = row.blocks
    assert (block.first, block.position, block.end) == (0, 3, 6)
    block.digests.update(b"def")
    assert row.hexdigests()["md5"] == "e80b5017098950fc58aad83c8c14978e"


def test_blocks_are_taken_once_and_those_that_are_there_never() -> None:
    done = Block(0, 3)
    done.digests.update(b"abc")
    blocks = [done, Block(3, 5), Block(5, 6)]
    row = Row(blocks)
    assert [row.take(), row.take(), row.take()] == [blocks[1], blocks[2], None]


def test_the_front_is_what_is_there_without_a_gap() -> None:
    row = Row([Block(0, 4), Block(4, 8), Block(8, 9)])
    row.blocks[1].digests.update(b"1234")
    assert row.front == 0
    row.blocks[0].digests.update(b"12")
    assert row.front == 2
    row.blocks[0].digests.update(b"34")
    assert row.front == 8
    row.blocks[2].digests.update(b"1")
    assert row.front == 9


def test_an_empty_file_is_asked_for() -> None:
    row = row_for(0, 1, ["adler32"])
    assert row.take() is row.blocks[0]
    assert (row.take(), row.front, row.hexdigests()) == (None, 0, {"adler32": "00000001"})


@pytest.mark.parametrize(
    ("size", "streams", "algorithms", "worth"),
    [
        (0, 8, ["adler32"], 1),
        (BLOCK - 1, 8, ["adler32"], 1),
        (2 * BLOCK, 8, ["adler32"], 2),
        (2**40, 8, ["adler32"], 8),
        (2**40, 1, ["adler32"], 1),
        (2**40, 8, ["adler32", "md5"], 1),
        (2**40, 8, [], 8),
    ],
)
def test_how_many_streams_are_worth_it(size: int, streams: int, algorithms: list[str], worth: int) -> None:
    assert worthwhile_streams(size, streams, algorithms) == worth


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-0/1", ContentRange(0, 0, 1)),
        ("bytes 6-10/11", ContentRange(6, 10, 11)),
        ("bytes 4294967296-4294967300/*", ContentRange(2**32, 2**32 + 4, None)),
        ("bytes */11", None),
        ("bytes=6-10/11", None),
        ("bytes 6-10", None),
        ("bytes -1-2/3", None),
        ("bytes \u0663-\u0664/\u0665", None),
        ("", None),
    ],
)
def test_what_an_answer_says_it_holds(text: str, found: ContentRange | None) -> None:
    assert ContentRange.parse(text) == found


@pytest.mark.parametrize("digits", [19, 5000])
@pytest.mark.parametrize("form", ["bytes {}-1/*", "bytes 0-{}/*", "bytes 0-1/{}"])
def test_numbers_without_end_are_none(form: str, digits: int) -> None:
    assert ContentRange.parse(form.replace("{}", "9" * digits)) is None
    assert ContentRange.parse(form.replace("{}", "9" * 18)) is not None


@given(st.text() | st.from_regex(r"bytes \d*-\d*/(\d*|\*)"))
def test_any_text_is_an_answer_or_none(text: str) -> None:
    found = ContentRange.parse(text)
    if found is not None:
        assert max(found.first, found.last, found.size or 0) < 2**63


def test_which_etags_a_condition_may_name() -> None:
    assert [etag for etag in ('"a"', 'W/"a"', "a", "", '"', '""') if is_strong(etag)] == ['"a"', '""']


def test_patience_ends_without_progress() -> None:
    patience = Patience(0)
    pauses = [patience.pause_s(BROKEN, 5) for _ in range(FRUITLESS_MAX)]
    assert pauses[-1] is None
    assert all(pause is not None and pause >= 0 for pause in pauses[:-1])


def test_patience_is_renewed_by_progress_alone() -> None:
    patience = Patience(0)
    for megabytes in range(1, 100):
        assert patience.pause_s(BROKEN, megabytes * MIB) is not None
    # One byte at a time is none.
    assert [patience.pause_s(BROKEN, 99 * MIB + n) for n in range(1, FRUITLESS_MAX)][-1] is None


def test_a_server_that_asks_for_time_gets_it_within_reason() -> None:
    asked = errors.Throttled("slowly", retry_after_s=7.0)
    assert Patience(0).pause_s(asked, 0) == 7.0
    assert Patience(0).pause_s(errors.Throttled("tomorrow", retry_after_s=3600.0), 0) is None


def test_a_file_is_begun_so_often() -> None:
    patience = Patience(0)
    assert [patience.may_begin_again() for _ in range(BEGINNINGS_MAX)] == [True] * (BEGINNINGS_MAX - 1) + [False]


def test_what_is_known_of_a_server_is_forgotten() -> None:
    now = 0.0
    support = RangeSupport(clock=lambda: now)
    assert support.known is None
    support.seen(False)
    assert support.known is False
    now = 3599.0
    assert support.known is False
    now = 3600.0
    assert support.known is None
    support.seen(True)
    assert support.known is True
