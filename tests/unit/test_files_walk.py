"""Walks of trees that only look large: order, sums, trouble, and memory."""

from __future__ import annotations

import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.files.copying import Wishes
from rucio_cs3.files.trees import get_tree
from rucio_cs3.files.walk import Entry, Total, Trouble, totals, walk

ROOT = Reference(MountRoot("/"), "top")


class Listed:
    """A storage in which each folder of a level has so many folders, and those of the last so many files."""

    def __init__(self, *widths: int, closed: str = "", left_out: int = 0) -> None:
        self._widths = widths
        self._closed = closed
        self._left_out = left_out
        self.http = self

    def break_off(self) -> None:
        pass

    def list(self, folder: Reference, **_: bool) -> Entries:
        if folder.name == self._closed:
            raise errors.AccessDenied("closed", target=str(folder))
        depth = folder.path.count("/")
        found = Entries(
            FileInfo(
                reference=Reference(folder.root, f"{folder.path}/{number:05}"),
                size=10,
                is_directory=depth + 1 < len(self._widths),
            )
            for number in range(self._widths[depth])
        )
        found.left_out = self._left_out
        return found


def test_a_walk_comes_by_name_each_folder_before_what_is_in_it() -> None:
    storage: Any = Listed(2, 2)
    found = [one.relative for one in walk(storage, ROOT)]
    assert found == ["00000", "00000/00000", "00000/00001", "00001", "00001/00000", "00001/00001"]
    assert list(totals(storage, ROOT)) == [
        Total("00000", 1, bytes=20, files=2),
        Total("00001", 1, bytes=20, files=2),
        Total("", 0, bytes=40, files=4, folders=2),
    ]


def test_trouble_in_one_folder_is_told_and_does_not_end_a_walk() -> None:
    storage: Any = Listed(3, 2, closed="00001")
    found = list(walk(storage, ROOT))
    assert [one.relative for one in found if isinstance(one, Trouble)] == ["00001"]
    assert len([one for one in found if isinstance(one, Entry)]) == 3 + 4
    with pytest.raises(errors.AccessDenied):
        list(walk(Listed(1, closed="top"), ROOT))  # type: ignore[arg-type]
    hidden: Any = Listed(1, left_out=2)
    assert [str(one.error) for one in walk(hidden, ROOT) if isinstance(one, Trouble)] == [
        "ListContainer /top: left out 2 of its entries, whose names lead elsewhere or whose sizes no file has"
    ]
    assert [type(one) for one in totals(hidden, ROOT)] == [Trouble, Total]


def test_memory_is_that_of_the_largest_folders(tmp_path: Path) -> None:
    def peak_bytes(*widths: int) -> int:
        storage: Any = Listed(*widths)
        tracemalloc.start()
        try:
            (last,) = deque(totals(storage, ROOT), maxlen=1)
            assert isinstance(last, Total)
            assert last.files == widths[0] * widths[1] * widths[2]
            for _ in get_tree(storage, ROOT, tmp_path / "never", Wishes(dry_run=True, threads=1)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(2, 2, 2)  # what is imported late
    # The interpreter's table of interned strings takes some megabytes now and then (pathlib); 20 000 outcomes take ten.
    assert peak_bytes(20, 20, 50) < peak_bytes(2, 20, 50) + 6_000_000
