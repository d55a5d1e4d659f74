"""Local files: a download that fails leaves nothing, and what is no file is not read."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors, local_files
from rucio_cs3.cs3.local_files import SafeFile, open_source

MIB = 1024 * 1024


@pytest.mark.parametrize("name", ["target", "n" * 255, " -ä%41"])
def test_a_safe_file_appears_at_once(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes(b"old")
    with SafeFile(target) as file:
        file.write(b"new ")
        file.write(b"content")
        assert target.read_bytes() == b"old"
        file.commit(11)
    assert target.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, None])
def test_a_safe_file_leaves_nothing(tmp_path: Path, failure: type[BaseException] | None) -> None:
    target = tmp_path / "target"

    def attempt() -> None:
        with SafeFile(target) as file:
            file.write(b"x")
            if failure is not None:
                raise failure

    if failure is None:
        attempt()  # left without a commit
    else:
        with pytest.raises(failure):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_safe_file_without_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "target"
    with pytest.raises(errors.LocalNotFound, match="does not exist") as caught, SafeFile(target):
        pytest.fail("the folder is missing")
    assert str(target) in str(caught.value)


def test_a_safe_file_whose_name_is_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    with pytest.raises(errors.LocalError, match="cannot be used"), SafeFile(target) as file:
        file.commit(0)
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own ENOSPC, from /dev/full in place of the hidden sibling."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    real_open = os.open

    def open_full(path: Path, *arguments: Any, **options: Any) -> int:
        os.close(real_open(path, *arguments, **options))
        return real_open("/dev/full", os.O_WRONLY)

    target = tmp_path / "target"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "open", open_full)
    with pytest.raises(errors.LocalNoSpaceLeft, match="disk is full") as caught, SafeFile(target) as file:
        file.write(b"x")
    monkeypatch.undo()
    assert str(target) in str(caught.value)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_source_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with open_source(path) as (file, status):
        assert (file.read(), status.st_size) == (b"abc", 3)
    assert file.closed


def test_sources_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.LocalNotFound, match="missing"), open_source(tmp_path / "missing"):
        pytest.fail("it is missing")
    with pytest.raises(errors.LocalError, match="is a folder"), open_source(tmp_path):
        pytest.fail("it is a folder")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Opening it would wait for a writer that never comes.
    with pytest.raises(errors.LocalError, match="a device or pipe"), open_source(pipe):
        pytest.fail("it is a pipe")


def test_our_errors_pass_through_a_source(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with pytest.raises(errors.NotFound, match="remote"), open_source(path):
        raise errors.NotFound("remote")
    with pytest.raises(ConnectionResetError), open_source(path):
        # What happens to the connection meanwhile is not the local file's fault.
        raise ConnectionResetError


def test_room_is_kept_and_the_length_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with SafeFile(target) as file:
        file.reserve(4 * MIB)
        (part,) = tmp_path.iterdir()
        assert part.stat().st_size == 0
        file.write(b"abc")
        file.commit(3)
    assert target.read_bytes() == b"abc"


def test_too_large_a_file_is_not_begun(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    with pytest.raises(errors.LocalNoSpaceLeft, match="disk is full"), SafeFile(tmp_path / "target") as file:
        file.reserve(disk.f_bavail * disk.f_frsize + 1024 * MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_knows_no_numbers_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = os.statvfs_result((0,) * 10)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: nothing)
    with SafeFile(tmp_path / "target") as file:
        file.reserve(2 * MIB)
        file.commit(0)


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, errors.LocalNoSpaceLeft), (errno.EDQUOT, errors.LocalNoSpaceLeft)]
)
def test_a_quota_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[errors.CS3Error]
) -> None:
    def fallocate(*_: int) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(local_files, "_fallocate_call", lambda: fallocate)
    with pytest.raises(kind, match=os.strerror(code)), SafeFile(tmp_path / "target") as file:
        file.reserve(2 * MIB)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EFBIG])
def test_what_cannot_be_reserved_may_still_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fallocate(*_: int) -> int:
        ctypes.set_errno(code)
        return -1

    for call in (lambda: fallocate, lambda: None):
        monkeypatch.setattr(local_files, "_fallocate_call", call)
        with SafeFile(tmp_path / "target") as file:
            file.reserve(2 * MIB)
            file.write(b"abc")
            file.commit(3)
        assert (tmp_path / "target").read_bytes() == b"abc"


@pytest.mark.parametrize(("took_s", "reserved"), [(0.0, [16 * MIB, 100 * MIB]), (1.0, [16 * MIB])])
def test_room_is_reserved_only_where_that_is_faster_than_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_s: float, reserved: list[int]
) -> None:
    asked: list[int] = []
    clock = [0.0]

    def fallocate(_descriptor: int, _mode: int, _first: int, size: int) -> int:
        asked.append(size)
        clock[0] += took_s
        return 0

    monkeypatch.setattr(local_files, "_fallocate_call", lambda: fallocate)
    monkeypatch.setattr("rucio_cs3.cs3.local_files.time.perf_counter", lambda: clock[0])
    with SafeFile(tmp_path / "target") as file:
        file.reserve(100 * MIB)
    assert asked == reserved


def test_a_writer_that_is_late_hurts_nobody(tmp_path: Path) -> None:
    with SafeFile(tmp_path / "target") as file:
        writer = file.writer()
    other = tmp_path / "other"
    # It gets the descriptor that has just become free.
    with other.open("wb"):
        writer.write_at(0, memoryview(b"late"))
    writer.close()
    assert (other.read_bytes(), list(tmp_path.iterdir())) == (b"", [other])


def test_writers_write_to_their_places(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with SafeFile(target) as file:
        one, other = file.writer(), file.writer()
        other.write_at(3, memoryview(b"def"))
        one.write_at(0, memoryview(b"abc"))
        one.close()
        other.close()
        file.commit(6)
    assert target.read_bytes() == b"abcdef"


def test_what_is_cleared_is_forgotten(tmp_path: Path) -> None:
    with SafeFile(tmp_path / "target") as file:
        file.write(b"a long beginning")
        file.clear()
        file.write(b"short")
        file.commit(5)
    assert (tmp_path / "target").read_bytes() == b"short"


def test_a_folder_that_cannot_be_read_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new name cannot be made durable, and the file is whole under it all the same."""
    real_open = os.open

    def refuse(path: Path, flags: int, *arguments: Any, **options: Any) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with SafeFile(tmp_path / "target") as file:
        file.write(b"abc")
        file.commit(3)
    assert (tmp_path / "target").read_bytes() == b"abc"


def test_a_folder_that_nobody_may_write_to() -> None:
    if not Path("/sys").is_dir():
        pytest.skip("this system has no /sys, which not even root may write to")
    with pytest.raises(errors.LocalError, match="/sys/target"), SafeFile(Path("/sys/target")):
        pytest.fail("nothing can be written there")


@pytest.mark.parametrize("held", [0, 2, 4])
def test_what_has_not_the_right_length_gets_no_name(tmp_path: Path, held: int) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with SafeFile(target) as file:
        file.write(b"abcd"[:held])
        with pytest.raises(errors.LocalError, match=f"{held} bytes instead of 3") as caught:
            file.commit(3)
    assert str(target) in str(caught.value)
    assert (target.read_bytes(), list(tmp_path.iterdir())) == (b"old", [target])


def test_a_writer_of_what_was_cleared_is_late(tmp_path: Path) -> None:
    with SafeFile(tmp_path / "target") as file:
        writer = file.writer()
        file.clear()
        file.write(b"new")
        writer.write_at(0, memoryview(b"late"))
        writer.close()
        file.commit(3)
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize("end", ["close", "leave", "commit"])
def test_a_descriptor_is_closed_once_whatever_that_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Once it is closed its number may be another thread's file."""
    real_close = os.close
    mine: set[int] = set()
    wrong: list[int] = []

    def close(descriptor: int) -> None:
        try:
            real_close(descriptor)
        except OSError:
            wrong.append(descriptor)
            raise
        if descriptor in mine:
            mine.remove(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    target = tmp_path / "target"
    file = SafeFile(target).__enter__()
    writer = file.writer()
    mine.update((file._descriptor, writer._descriptor))
    monkeypatch.setattr(os, "close", close)
    if end == "close":
        with pytest.raises(errors.LocalError, match="target"):
            writer.close()
        writer.close()
        file.__exit__()
    else:
        if end == "commit":
            # It is synced: that the end of it fails takes nothing back.
            file.commit(0)
        file.__exit__()
        file.__exit__()
        with pytest.raises(errors.LocalError, match="target"):
            writer.close()
    assert (mine, wrong) == (set(), [])
    assert target.exists() is (end == "commit")
