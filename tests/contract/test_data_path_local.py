"""C135x: the local file of an upload, which somebody changes, takes away, or gives to nobody."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from tests.contract.place import content
from tests.contract.truths import Progress, Truths, at_progress

MIB = 1024 * 1024
SIZE = 3 * MIB + 17

Uploading = Callable[..., Truths]


def test_c1351_the_file_is_replaced_by_another(uploading: Uploading) -> None:
    """What was opened is what is sent, all of it: the other one is a file of its own."""
    truths = uploading(size=SIZE)
    other = truths.place.local / "other"
    other.write_bytes(content(SIZE, seed=2))
    with at_progress(1, lambda: other.replace(truths.local)) as progress:
        assert truths.upload(progress=progress) is None


def test_c1352_the_file_is_removed(uploading: Uploading) -> None:
    truths = uploading(size=SIZE)
    with at_progress(1, truths.local.unlink) as progress:
        assert truths.upload(progress=progress) is None


@pytest.mark.parametrize("left", [0, MIB + 1, SIZE - 1])
def test_c1353_the_file_is_truncated(uploading: Uploading, left: int) -> None:
    truths = uploading(size=SIZE)
    with at_progress(1, lambda: os.truncate(truths.local, left)) as progress:
        truths.fails(truths.upload(progress=progress), errors.LocalChanged, words=("moved",))


def test_c1354_the_file_is_written_to(uploading: Uploading) -> None:
    """A mixture of two contents is no file: neither of them was ever all there."""
    truths = uploading(size=SIZE)

    def write() -> None:
        with truths.local.open("r+b") as file:
            file.write(content(SIZE, seed=2))

    with at_progress(1, write) as progress:
        truths.fails(truths.upload(progress=progress), errors.LocalChanged, words=("moved",))


def test_c1355_the_file_cannot_be_read(uploading: Uploading, monkeypatch: pytest.MonkeyPatch) -> None:
    truths = uploading(size=SIZE)
    truths.local.chmod(0)
    upload = truths.face.upload

    def as_nobody(local: Path, *, progress: Progress | None = None) -> None:
        # Root may read everything. A thread may look at files as somebody else (setfsuid(2)), who is not root.
        with ThreadPoolExecutor(1, initializer=ctypes.CDLL(None).setfsuid, initargs=(65534,)) as pool:
            pool.submit(upload, local).result()

    monkeypatch.setattr(truths.face, "upload", as_nobody)
    truths.fails(truths.upload(), errors.LocalError, words=("moved", "Permission denied"))
