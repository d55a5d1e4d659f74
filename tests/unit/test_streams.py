"""The byte loops: a file that is not what it was to be is noticed, and a download that fails leaves nothing."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors, streams
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.streams import CHUNK_BYTES, Reader, SafeFile, UploadBody, open_source

SIZE = 2 * CHUNK_BYTES + 5


def body_of(file: Reader, size: int, **options: Any) -> UploadBody:
    return UploadBody(file, size, Digests(["adler32", "md5"]), name="/local/file", **options)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, SIZE])
def test_a_body_is_the_file(size: int) -> None:
    data = os.urandom(size)
    steps: list[int] = []
    body = body_of(io.BytesIO(data), size, progress=steps.append)
    assert len(body) == size
    assert b"".join(bytes(piece) for piece in body) == data
    assert body.digests.byte_count == sum(steps) == size
    expected = Digests(["adler32", "md5"])
    expected.update(data)
    assert body.digests.hexdigests() == expected.hexdigests()
    assert not hasattr(body, "read")


def test_a_body_reads_in_chunks() -> None:
    body = body_of(io.BytesIO(bytes(SIZE)), SIZE)
    assert [len(piece) for piece in body] == [CHUNK_BYTES, CHUNK_BYTES, 5]


def test_a_body_survives_short_reads() -> None:
    class Trickle(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    data = bytes(range(100))
    assert b"".join(bytes(piece) for piece in body_of(Trickle(data), 100)) == data


def test_a_shrinking_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with path.open("rb", buffering=0) as file:
        pieces = iter(body_of(file, SIZE))
        assert len(next(pieces)) == CHUNK_BYTES
        os.truncate(path, CHUNK_BYTES + 1)
        assert len(next(pieces)) == 1
        with pytest.raises(errors.LocalChanged, match="/local/file became shorter"):
            next(pieces)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, SIZE])
def test_a_growing_file_is_noticed_before_the_last_piece(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size + 1))
    sent: list[int] = []
    with path.open("rb", buffering=0) as file:
        body = body_of(file, size)
        with pytest.raises(errors.LocalChanged, match="/local/file became longer"):
            sent.extend(len(piece) for piece in body)
    assert sum(sent) < size


def test_an_empty_file_that_is_not_is_noticed() -> None:
    with pytest.raises(errors.LocalChanged, match="has size 0"):
        body_of(io.BytesIO(b"x"), 0)


def test_an_unreadable_file_is_said() -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(errors.LocalError, match="/local/file cannot be read"):
        list(body_of(Broken(), 5))


def test_rewind_begins_again() -> None:
    data = os.urandom(SIZE)
    file = io.BytesIO(b"skipped" + data)
    file.seek(7)
    steps: list[int] = []
    body = body_of(file, SIZE, progress=steps.append)
    pieces = iter(body)
    next(pieces)
    next(pieces)
    body.rewind()
    assert b"".join(bytes(piece) for piece in body) == data
    assert sum(steps) == body.digests.byte_count == SIZE
    expected = Digests(["adler32", "md5"])
    expected.update(data)
    assert body.digests.hexdigests() == expected.hexdigests()


def test_what_was_sent_is_counted_when_it_has_gone() -> None:
    body = body_of(io.BytesIO(bytes(SIZE)), SIZE)
    counts = [(body.sent, body.digests.byte_count) for _ in body]
    assert counts == [(0, CHUNK_BYTES), (CHUNK_BYTES, 2 * CHUNK_BYTES), (2 * CHUNK_BYTES, SIZE)]
    assert body.sent == SIZE
    body.rewind()
    assert body.sent == 0


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, SIZE])
def test_expected_content_passes(size: int) -> None:
    data = os.urandom(size)
    digests = Digests(["adler32", "md5"])
    digests.update(data)
    body = body_of(io.BytesIO(data), size, expected=digests.hexdigests())
    assert sum(len(piece) for piece in body) == size


@pytest.mark.parametrize("algorithm", ["adler32", "md5"])
@pytest.mark.parametrize("size", [1, CHUNK_BYTES, SIZE])
def test_the_last_piece_of_other_content_is_held_back(size: int, algorithm: str) -> None:
    digests = Digests(["adler32", "md5"])
    digests.update(b"\1" * size)
    body = body_of(io.BytesIO(bytes(size)), size, expected={algorithm: digests.hexdigests()[algorithm]})
    sent: list[int] = []
    with pytest.raises(errors.ChecksumMismatch, match="other content than the catalogue says") as caught:
        sent.extend(len(piece) for piece in body)
    assert sum(sent) < size
    assert body.failure is caught.value
    assert f"its {algorithm} is" in str(caught.value)
    assert "/local/file" in str(caught.value)


def test_an_empty_file_is_not_taken_for_another() -> None:
    with pytest.raises(errors.ChecksumMismatch, match="its adler32 is 00000001, not 00000002"):
        body_of(io.BytesIO(b""), 0, expected={"adler32": "00000002"})


@pytest.mark.parametrize(("size", "came"), [(0, 1), (4, 5), (6, 5), (2 * CHUNK_BYTES, 5)])
def test_another_size_is_the_fault_that_the_caller_names(size: int, came: int) -> None:
    def wrong_length(came: int, wanted: int) -> errors.CS3Error:
        return errors.SizeMismatch(f"{came} for {wanted}")

    with pytest.raises(errors.SizeMismatch, match=f"{came} for {size}"):
        list(body_of(io.BytesIO(b"hello"), size, wrong_length=wrong_length))


@pytest.mark.parametrize("failure", [errors.TransferInterrupted("the source went away"), None])
def test_a_failure_of_the_file_is_remembered_until_the_next_beginning(failure: errors.CS3Error | None) -> None:
    class Remote(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            if failure is not None and self.tell() == CHUNK_BYTES:
                raise failure
            return super().readinto(memoryview(buffer)[:CHUNK_BYTES])

    body = body_of(Remote(bytes(SIZE)), SIZE)
    if failure is None:
        list(body)
    else:
        with pytest.raises(errors.TransferInterrupted, match="the source went away"):
            list(body)
    assert body.failure is failure
    body.rewind()
    assert body.failure is None


def test_a_checksum_is_foreseen_and_the_file_then_sent() -> None:
    data = os.urandom(SIZE)
    digests = Digests(["adler32", "md5"])
    digests.update(data)
    file = io.BytesIO(b"skipped" + data)
    file.seek(7)
    body = body_of(file, SIZE)
    assert body.foresee("adler32") == digests.hexdigests()["adler32"]
    assert body.digests.byte_count == 0
    assert b"".join(bytes(piece) for piece in body) == data


def test_a_checksum_that_is_expected_needs_no_look() -> None:
    class Unread(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise AssertionError("nobody was to read this")

    body = body_of(Unread(b"hello"), 5, expected={"adler32": "062c0215"})
    assert body.foresee("adler32") == "062c0215"


@pytest.mark.parametrize("name", ["target", "n" * 255, " -ä%41"])
def test_a_safe_file_appears_at_once(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes(b"old")
    with SafeFile(target) as file:
        file.write(b"new ")
        file.write(b"content")
        assert target.read_bytes() == b"old"
        file.commit()
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
        file.commit()
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own ENOSPC, from /dev/full in place of the hidden sibling."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    real_open = Path.open

    def open_full(path: Path, *arguments: Any, **options: Any) -> Any:
        real_open(path, *arguments, **options).close()
        return real_open(Path("/dev/full"), "wb", buffering=0)

    target = tmp_path / "target"
    target.write_bytes(b"old")
    monkeypatch.setattr(Path, "open", open_full)
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


def test_the_chunk_is_what_memory_is_used_for() -> None:
    assert streams.CHUNK_BYTES == 1024 * 1024
