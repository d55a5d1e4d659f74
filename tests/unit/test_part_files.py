"""Parts that outlive their process: what is trusted, who may have one, and what is swept."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.downloads import part_files
from rucio_cs3.cs3.downloads.part_files import ResumableFile, sweep

VERSION = {"file": "/a/b", "size": 6, "etag": '"x"', "mtime_s": 1.5}


@pytest.fixture(autouse=True)
def noted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "NOTED_EVERY_BYTES", 1)


def left_behind(target: Path, data: bytes = b"abc", version: dict[str, Any] = VERSION) -> None:
    """What a process that was killed leaves."""
    with ResumableFile(target, version) as file:
        file.write(data)
        file.note(len(data))
        assert file.keep()


def front_of(target: Path, version: dict[str, Any] = VERSION) -> int:
    with ResumableFile(target, version) as file:
        return file.front


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_what_was_left_is_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    left_behind(target)
    assert names(tmp_path) == [".json", ".part"]
    again: list[bytes] = []
    with ResumableFile(target, VERSION) as file:
        assert file.front == 3
        file.reread(lambda piece: again.append(bytes(piece)))
        writer = file.writer()
        writer.write_at(3, memoryview(b"def"))
        writer.close()
        file.commit(6)
    assert again == [b"abc"]
    assert target.read_bytes() == b"abcdef"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_left_where_it_was_not_kept(tmp_path: Path) -> None:
    with ResumableFile(tmp_path / "target", VERSION) as file:
        file.write(b"abc")
        file.note(3)
    assert names(tmp_path) == []


def test_nothing_is_kept_where_nothing_was_noted(tmp_path: Path) -> None:
    with ResumableFile(tmp_path / "target", VERSION) as file:
        file.write(b"abc")
        assert not file.keep()
    assert names(tmp_path) == []


@pytest.mark.parametrize("key", list(VERSION))
def test_another_version_begins_anew(tmp_path: Path, key: str) -> None:
    target = tmp_path / "target"
    left_behind(target)
    assert front_of(target, {**VERSION, key: "other"}) == 0
    assert names(tmp_path) == []


def test_a_part_of_a_machine_that_was_started_anew_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    left_behind(target)
    monkeypatch.setattr(part_files, "_boot", lambda: "another")
    assert front_of(target) == 0


def test_nothing_is_kept_where_that_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "_boot", lambda: "")
    with ResumableFile(tmp_path / "target", VERSION) as file:
        file.write(b"abc")
        file.note(3)
        assert not file.keep()


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"{}", b'{"front": 3}', b"[" * 100_000], ids=repr
)
def test_a_note_that_is_none_is_not_believed(tmp_path: Path, note: bytes) -> None:
    target = tmp_path / "target"
    left_behind(target)
    (path,) = tmp_path.glob(".*.json")
    path.write_bytes(note)
    assert front_of(target) == 0


@pytest.mark.parametrize("front", [-1, 0, 4, 2**80, "3", None, 1.5, True])
def test_a_note_that_says_what_cannot_be_is_not_believed(tmp_path: Path, front: Any) -> None:
    target = tmp_path / "target"
    left_behind(target)
    (path,) = tmp_path.glob(".*.json")
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "front": front}), "utf-8")
    assert front_of(target) == (1 if front is True else 0)


def test_the_second_gets_a_part_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with ResumableFile(target, VERSION) as first, ResumableFile(target, VERSION) as second:
        first.write(b"first")
        second.write(b"second")
        second.note(6)
        assert not second.keep()
        assert names(tmp_path) == [".json", ".part", ".part"]
        second.commit(6)
        assert target.read_bytes() == b"second"
        first.commit(5)
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("suffix", [".part", ".json"])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "pipe"])
def test_what_somebody_else_put_there_is_not_touched(tmp_path: Path, suffix: str, kind: str) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_bytes(b"theirs")
    target = folder / "target"
    left_behind(target)
    (path,) = folder.glob(f".*{suffix}")
    path.unlink()
    if kind == "symlink":
        path.symlink_to(elsewhere)
    elif kind == "hard link":
        path.hardlink_to(elsewhere)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with ResumableFile(target, VERSION) as file:
        assert file.front == 0
        file.write(b"abc")
        file.note(3)
        file.commit(3)
    assert target.read_bytes() == b"abc"
    assert elsewhere.read_bytes() == b"theirs"


def test_a_note_is_for_its_owner_only(tmp_path: Path) -> None:
    left_behind(tmp_path / "target")
    (note,) = tmp_path.glob(".*.json")
    assert note.stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.LocalNotFound, match="missing"), ResumableFile(tmp_path / "missing" / "target", VERSION):
        pytest.fail("the folder is missing")


def test_a_new_beginning_is_noted(tmp_path: Path) -> None:
    target = tmp_path / "target"
    left_behind(target)
    other = {**VERSION, "etag": "other"}
    with ResumableFile(target, VERSION) as file:
        file.begin(other)
        file.write(b"xy")
        file.note(2)
        file.keep()
    assert front_of(target, VERSION) == 0
    left_behind(target, b"xy", other)
    assert front_of(target, other) == 2


def test_only_old_parts_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    held, left = tmp_path / "held", tmp_path / "left"
    left_behind(left)
    stranger = tmp_path / ".rucio-cs3.rc"
    stranger.write_bytes(b"")
    long_ago = time.time() - part_files.STALE_S - 1
    with ResumableFile(held, VERSION) as file:
        file.write(b"abc")
        kept = [path for path in tmp_path.iterdir() if path.suffix == ".part"]
        sweep(tmp_path)
        assert len(names(tmp_path)) == 5
        for path in tmp_path.iterdir():
            os.utime(path, (long_ago, long_ago))
        sweep(tmp_path)
        assert stranger.exists()
        assert [path.exists() for path in kept].count(True) == 1
        file.commit(3)
    assert held.read_bytes() == b"abc"


def test_a_folder_that_is_missing_is_swept_of_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "missing")


@pytest.mark.parametrize("all_of_it", [True, False], ids=["part and note", "part"])
def test_the_name_of_a_part_is_anothers_now(tmp_path: Path, all_of_it: bool) -> None:
    """Who is robbed of his part fails, and what another makes under its name stays his."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with ResumableFile(target, VERSION) as robbed:
        robbed.write(b"abcdef")
        robbed.note(6)
        for path in tmp_path.glob(".rucio-cs3.*" if all_of_it else ".rucio-cs3.*.part"):
            path.unlink()
        with ResumableFile(target, VERSION) as other:
            assert other.front == 0
            other.write(b"xyz")
            other.note(3)
            with pytest.raises(errors.LocalError, match="took its part away"):
                robbed.commit(6)
            assert target.read_bytes() == b"old"
            assert not robbed.keep()
            robbed.__exit__()
            assert names(tmp_path) == ["", ".json", ".part"]
            other.write(b"123")
            other.commit(6)
    assert target.read_bytes() == b"xyz123"
    assert list(tmp_path.iterdir()) == [target]


def test_the_note_of_another_part_is_not_believed(tmp_path: Path) -> None:
    """One who was robbed of his part only goes on with his note, which the next one shares."""
    target = tmp_path / "target"
    with ResumableFile(target, VERSION) as robbed:
        (part,) = tmp_path.glob(".*.part")
        part.unlink()
        with ResumableFile(target, VERSION) as other:
            # Of several streams the second is the first to come.
            writer = other.writer()
            writer.write_at(3, memoryview(b"def"))
            writer.close()
            other.note(1)
            robbed.write(b"abcdef")
            robbed.note(6)
            assert other.keep()
        assert front_of(target) == 0


def test_a_part_that_comes_at_the_last_moment_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    real_rename = Path.rename
    renamed: list[Path] = []

    def rename(path: Path, to: Path) -> Path:
        if not renamed:
            path.unlink()
            path.write_bytes(b"half")
        renamed.append(path)
        return real_rename(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with ResumableFile(target, VERSION) as file:
        file.write(b"abcd")
        with pytest.raises(errors.LocalError, match="took its part away"):
            file.commit(4)
    (left,) = tmp_path.iterdir()
    assert (left, left.read_bytes()) == (renamed[0], b"half")


def test_a_machine_does_not_touch_the_part_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of two machines whose locks hold only within each."""
    target = tmp_path / "target"
    monkeypatch.setattr(part_files, "_lock", lambda descriptor: True)
    with ResumableFile(target, VERSION) as here:
        here.write(b"here")
        monkeypatch.setattr(part_files, "_boot", lambda: "another")
        with ResumableFile(target, VERSION) as there:
            there.write(b"th")
            here.commit(4)
            assert target.read_bytes() == b"here"
            there.write(b"ere")
            there.commit(5)
    assert target.read_bytes() == b"there"
    assert list(tmp_path.iterdir()) == [target]


def test_a_late_thread_of_another_version_writes_to_nobody(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with ResumableFile(target, VERSION) as file:
        file.write(b"old version")
        writer = file.writer()
        file.begin({**VERSION, "etag": "other"})
        file.write(b"new")
        writer.write_at(0, memoryview(b"late"))
        writer.close()
        file.commit(3)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_download_needs_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may have room for one file and not for two."""
    real_open = os.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(".json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, *arguments, **options)

    before = open_files()
    monkeypatch.setattr(os, "open", refuse)
    target = tmp_path / "target"
    with ResumableFile(target, VERSION) as file:
        file.write(b"abc")
        file.note(3)
        assert not file.keep()
        file.commit(3)
    assert target.read_bytes() == b"abc"
    assert (list(tmp_path.iterdir()), open_files()) == ([target], before)


def test_a_part_that_cannot_be_emptied_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = open_files()
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(errors.LocalError, match="target"), ResumableFile(tmp_path / "target", VERSION):
        pytest.fail("it cannot be begun")
    assert (list(tmp_path.iterdir()), open_files()) == ([], before)


def test_where_files_change_their_numbers_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems in user space number a file anew with each look."""
    tries: list[int] = []

    def never(*_: object) -> bool:
        tries.append(1)
        if len(tries) > 100:
            pytest.fail("it tries for ever")
        return False

    monkeypatch.setattr(os.path, "samestat", never)
    target = tmp_path / "target"
    with ResumableFile(target, VERSION) as file:
        file.write(b"abc")
        file.note(3)
        assert not file.keep()
        file.commit(3)
    assert target.read_bytes() == b"abc"
    assert tries
