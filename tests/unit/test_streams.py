"""The byte loop: a file that is not what it was to be is noticed."""

from __future__ import annotations

import errno
import gc
import io
import os
import weakref
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors, streams
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.streams import CHUNK_BYTES, Reader, UploadBody

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


def test_the_chunk_is_what_memory_is_used_for() -> None:
    assert streams.CHUNK_BYTES == 1024 * 1024


# -- in parts, one request each -------------------------------------------------------------------------------


def digests_of(data: bytes) -> dict[str, str]:
    digests = Digests(["adler32", "md5"])
    digests.update(data)
    return digests.hexdigests()


@pytest.mark.parametrize("count", [1, 999, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, SIZE, SIZE + 1])
def test_parts_are_the_file(count: int) -> None:
    size = min(SIZE, 100 * count)
    data = os.urandom(size)
    steps: list[int] = []
    body = body_of(io.BytesIO(data), size, progress=steps.append)
    got = b""
    while len(got) < size:
        part = body.part(count)
        sent = b"".join(bytes(piece) for piece in part)
        assert len(sent) == len(part) == min(count, size - len(got))
        got += sent
        assert body.sent == len(got)
    assert got == data
    assert body.digests.hexdigests() == digests_of(data)
    assert sum(steps) == size
    assert len(body.part(count)) == 0


class ForwardOnly(io.BytesIO):
    """Begins again, and goes nowhere else: a remote file."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        if position:
            raise ValueError(position)
        return super().seek(position, whence)


@pytest.mark.parametrize("kind", [io.BytesIO, ForwardOnly])
@pytest.mark.parametrize("read", [0, 1, CHUNK_BYTES, SIZE])
@pytest.mark.parametrize("position", [0, 1, CHUNK_BYTES + 7, SIZE - 1, SIZE])
def test_a_body_goes_on_where_the_server_is(kind: type[io.BytesIO], read: int, position: int) -> None:
    """Less, as much or more than was read: a cut, or an upload that another process began."""
    data = os.urandom(SIZE)
    steps: list[int] = []
    body = body_of(kind(data), SIZE, progress=steps.append)
    if read:
        for _ in body.part(read):
            pass
    body.resume_at(position)
    assert body.begun
    assert body.sent == sum(steps) == position
    rest = b"".join(bytes(piece) for piece in body.part(SIZE))
    assert rest == data[position:]
    assert body.digests.hexdigests() == digests_of(data)
    assert body.digests.byte_count == body.sent == sum(steps) == SIZE


def test_a_body_goes_on_only_within_itself() -> None:
    body = body_of(io.BytesIO(b"hello"), 5)
    for position in (-1, 6):
        with pytest.raises(ValueError, match=str(position)):
            body.resume_at(position)


def test_the_last_part_of_other_content_is_held_back() -> None:
    body = body_of(io.BytesIO(bytes(SIZE)), SIZE, expected={"adler32": "00000001"})
    assert sum(len(piece) for piece in body.part(CHUNK_BYTES)) == CHUNK_BYTES
    body.resume_at(CHUNK_BYTES - 1)
    for _ in range(2):
        sent: list[int] = []
        with pytest.raises(errors.ChecksumMismatch) as caught:
            sent.extend(len(piece) for piece in body.part(SIZE))
        assert sum(sent) < SIZE - CHUNK_BYTES + 1
        assert body.failure is caught.value
        body.resume_at(body.sent)
        assert body.failure is None


def test_a_file_that_ends_before_the_place_to_go_on_at_is_noticed() -> None:
    body = body_of(io.BytesIO(b"hello"), SIZE)
    with pytest.raises(errors.LocalChanged, match="became shorter") as caught:
        body.resume_at(6)
    assert body.failure is caught.value


def test_who_watches_may_end_what_is_only_read_again() -> None:
    """A remote file that begins anew may take long, and nothing of it is sent."""
    calls: list[int] = []
    stopped = False

    def watch(count: int) -> None:
        calls.append(count)
        if stopped:
            raise KeyboardInterrupt

    size = 4 * CHUNK_BYTES
    body = UploadBody(ForwardOnly(bytes(size)), size, Digests(["adler32"]), name="file", progress=watch)
    assert len(list(body.part(3 * CHUNK_BYTES))) == 3
    calls.clear()
    body.resume_at(2 * CHUNK_BYTES)
    assert calls == [0, 0, -CHUNK_BYTES]
    stopped = True
    with pytest.raises(KeyboardInterrupt):
        body.resume_at(CHUNK_BYTES)
    assert calls == [0, 0, -CHUNK_BYTES, 0]


def test_a_body_is_gone_with_its_last_user() -> None:
    """A body in a circle of references keeps its buffer until the garbage collector comes: a megabyte for each file."""
    body = UploadBody(io.BytesIO(b"x" * 100), 100, Digests(["adler32"]), name="file")
    for _ in body:
        pass
    gone = weakref.ref(body)
    gc.disable()
    try:
        del body
        assert gone() is None
    finally:
        gc.enable()
