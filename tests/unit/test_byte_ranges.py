"""The header ``Range`` as the two server lines read it: what their sources say, case by case."""

from __future__ import annotations

import pytest

from rucio_cs3.sandbox.cloud.byte_ranges import Unsatisfiable, parse_ranges

SIZE = 11


@pytest.mark.parametrize("v3", [True, False])
@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        ("", []),
        ("bytes=6-", [(6, 10)]),
        ("bytes=0-0", [(0, 0)]),
        ("bytes=6-100", [(6, 10)]),
        ("bytes=-3", [(8, 10)]),
        ("bytes=-100", [(0, 10)]),
        ("bytes= 0-1 , 4-5", [(0, 1), (4, 5)]),
        ("bytes=0-1,50-", [(0, 1)]),
        # More than the file in all: the whole file.
        ("bytes=0-10,0-10", []),
    ],
)
def test_what_both_lines_send(header: str, ranges: list[tuple[int, int]], v3: bool) -> None:
    assert parse_ranges(header, SIZE, v3=v3) == ranges


@pytest.mark.parametrize("v3", [True, False])
@pytest.mark.parametrize(
    ("header", "beyond"),
    [("bytes=11-", True), ("bytes=100-200,300-", True), ("bytes=a-b", False), ("bytes=5-3", False), ("bytes=-", False)],
)
def test_what_both_lines_refuse(header: str, beyond: bool, v3: bool) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        parse_ranges(header, SIZE, v3=v3)
    assert caught.value.beyond is beyond


def test_an_empty_file_has_no_range() -> None:
    with pytest.raises(Unsatisfiable) as caught:
        parse_ranges("bytes=0-", 0, v3=True)
    assert caught.value.beyond


@pytest.mark.parametrize("header", ["lines=1-2", "bytes=5", "5-6"])
def test_what_v3_ignores_and_edge_refuses(header: str) -> None:
    assert parse_ranges(header, SIZE, v3=True) == []
    with pytest.raises(Unsatisfiable):
        parse_ranges(header, SIZE, v3=False)
