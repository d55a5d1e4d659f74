"""Reading at any position, as files on a disk are read: by ranges, and without them."""

from __future__ import annotations

import io
import os
import random
import stat
import time
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage
from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.cs3.random_access import RandomAccessFile
from tests.commands.clouds import CommandPlace
from tests.contract.place import adler32, content

SIZE = 300_001
DATA = content(SIZE)


@pytest.fixture
def file(site: CommandPlace, small_pages: None) -> RandomAccessFile:
    reference = site.put("large.bin", DATA)
    # A storage of its own, to which nothing is known about ranges.
    return site.storage.open_seekable(reference)


def sent(site: CommandPlace, at_least: int = 0) -> int:
    """The servers' threads count what they have sent, maybe a moment after it came."""
    deadline = time.monotonic() + 20
    while True:
        total = sum(passed.sent for passed in site.cloud.traffic.of("data.get"))
        if total >= at_least or time.monotonic() > deadline:
            return total
        time.sleep(0.01)


def gets(site: CommandPlace) -> int:
    return len([passed for passed in site.cloud.traffic.of("data.get") if passed.status in (200, 206)])


def test_any_order_gives_what_a_local_file_gives(site: CommandPlace, file: RandomAccessFile) -> None:
    local = io.BytesIO(DATA)
    dice = random.Random(7)
    with file:
        assert (file.seekable(), file.readable(), file.writable(), file.size) == (True, True, False, SIZE)
        assert not site.cloud.traffic.of("data.get")  # nothing is fetched by opening
        for _ in range(300):
            whence = dice.choice((io.SEEK_SET, io.SEEK_CUR, io.SEEK_END))
            offset = dice.randrange(-SIZE, SIZE + 50_000)
            try:
                there = local.seek(offset, whence)
            except ValueError:
                with pytest.raises(ValueError, match="there is no byte"):
                    file.seek(offset, whence)
                continue
            if there < 0 or local.tell() != there:  # BytesIO stops at 0 where files refuse
                continue
            try:
                assert file.seek(offset, whence) == there
            except ValueError:
                local.seek(file.tell())
                continue
            length = dice.choice((0, 1, 100, 4096, 30_000))
            assert file.read(length) == local.read(length)
            assert file.tell() == local.tell()
        file.seek(0)
        assert file.read() == DATA
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    if site.kind == "spaces":
        assert {passed.status for passed in site.cloud.traffic.of("data.get") if passed.asked_range} == {206}
    else:
        # Reva v3.12.1 has no ranges: the whole passes once for the beginning, and once more for all jumps.
        assert gets(site) <= 2


def test_the_end_first_and_then_a_piece(site: CommandPlace, file: RandomAccessFile) -> None:
    """As pandas does with Parquet, and h5py and uproot with their files."""
    with file:
        assert file.seek(0, io.SEEK_END) == SIZE
        file.seek(-8, io.SEEK_END)
        assert file.read(8) == DATA[-8:]
        file.seek(100_000)
        assert file.read(5_000) == DATA[100_000:105_000]
        file.seek(50)
        assert file.read(50) == DATA[50:100]
    if site.kind == "spaces":
        assert sent(site) < SIZE / 5
    else:
        assert (gets(site), sent(site, SIZE)) == (1, SIZE)


def test_in_order_one_after_the_other(site: CommandPlace, file: RandomAccessFile) -> None:
    with io.BufferedReader(file, 4096) as reader:
        assert b"".join(iter(lambda: reader.read(1000), b"")) == DATA
    assert sent(site, SIZE) == SIZE
    if site.kind != "spaces":
        assert gets(site) == 1


def test_a_gap_across_the_end_of_what_was_asked_for(site: CommandPlace, file: RandomAccessFile) -> None:
    with file:
        for position in range(0, SIZE, 7_000):
            file.seek(position)
            assert file.read(10) == DATA[position : position + 10]


def test_the_temporary_copy_is_nobody_elses_and_goes(
    site: CommandPlace, file: RandomAccessFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if site.kind == "spaces":
        # It has ranges, and needs no copy.
        with file:
            file.seek(200_000)
            file.read(10)
            assert file._spool is None
        return
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def copies() -> list[os.stat_result]:
        there = []
        for link in Path("/proc/self/fd").iterdir():
            if link.is_symlink() and str(link.readlink()).startswith(str(folder)):
                there.append(link.stat())
        return there

    with file:
        file.seek(SIZE - 10)
        file.read(10)
        (copy,) = copies()
        assert (stat.S_IMODE(copy.st_mode), copy.st_uid, copy.st_nlink) == (0o600, os.getuid(), 0)
        assert copy.st_size > SIZE / 2  # the last of it may be in Python's buffer still
        assert list(folder.iterdir()) == []
    assert copies() == []


@pytest.mark.parametrize("script", ["cut-after:9000", "return-503", "expire-token"])
def test_what_breaks_off_is_not_seen(site: CommandPlace, file: RandomAccessFile, script: str) -> None:
    # Of a token that dies between ticket and GET twice in a row, nobody would believe that a third helps.
    site.fault("data.get", script, times=1 if script == "expire-token" else 2)
    with file:
        parts = [file.read(20_000)]
        file.seek(250_000)
        parts.append(file.read(20_000))
        file.seek(20_000)
        parts.append(file.read())
    assert parts == [DATA[:20_000], DATA[250_000:270_000], DATA[20_000:]]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_replaced_file_is_an_error_and_no_mixture(site: CommandPlace, file: RandomAccessFile, cut: bool) -> None:
    other = content(SIZE, seed=2)
    with file:
        came = file.read(9_000)
        if cut and site.kind != "spaces":
            site.fault("data.get", "cut-after:20000")
            file.close()
            file = site.storage.open_seekable(site.file("large.bin"))
            came = file.read(9_000)
        site.storage.upload(local(site, other), site.file("large.bin"), overwrite=True)
        with pytest.raises(cs3_errors.PreconditionFailed, match="was replaced since it was opened"):  # noqa: PT012
            while piece := file.read(9_000):
                came += piece
        # What came until then is of the old one only, and no more comes.
        assert DATA.startswith(came)
        file.seek(0)
        with pytest.raises(cs3_errors.PreconditionFailed):
            file.read(1)
    with site.storage.open_seekable(site.file("large.bin")) as again:
        assert again.read() == other


def local(site: CommandPlace, data: bytes) -> Path:
    path = site.local / "other.bin"
    path.write_bytes(data)
    return path


def test_a_deleted_file_and_none_at_all(site: CommandPlace, file: RandomAccessFile) -> None:
    with file:
        site.storage.delete(site.file("large.bin"))
        with pytest.raises(cs3_errors.NotFound):
            file.read(10)
    with pytest.raises(cs3_errors.NotFound):
        site.storage.open_seekable(site.file("nothing"))
    site.storage.make_directories(site.file("folder"))
    with pytest.raises(cs3_errors.InvalidRequest, match="is a folder"):
        site.storage.open_seekable(site.file("folder"))


def test_an_empty_file(site: CommandPlace) -> None:
    with site.storage.open_seekable(site.put("empty", b"")) as file:
        assert (file.read(), file.read_at(0, 10), file.seek(0, io.SEEK_END)) == (b"", b"", 0)


def test_positions_of_their_own(site: CommandPlace, file: RandomAccessFile) -> None:
    with file:
        file.seek(5)
        assert file.read_at(250_000, 250_100) == DATA[250_000:250_100]
        assert file.read_at(SIZE - 5, SIZE + 5) == DATA[-5:]
        assert file.read_at(3, 3) == b""
        assert file.tell() == 5
        assert file.read(5) == DATA[5:10]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12: a fork with threads
def test_a_child_process_has_to_open_it_itself(site: CommandPlace, file: RandomAccessFile) -> None:
    with file:
        assert file.read(100) == DATA[:100]
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                file.read(1)
                os.write(writing, b"read")
            except cs3_errors.Unsupported as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            assert "opened by another process" in told.read().decode()
        assert file.read(100) == DATA[100:200]


def test_flipped_bytes_where_the_whole_passes(site: CommandPlace, small_pages: None) -> None:
    """What comes by one GET is compared with the checksum that is known of it."""
    reference = site.put("larger.bin", content(1_200_000))
    info = site.storage.stat(reference)
    if "adler32" not in info.checksums:
        assert site.storage.keep_checksums(info, {"adler32": adler32(content(1_200_000))})
    with site.storage.open_seekable(reference) as file:
        file.read_at(1_000_000, 1_000_001)
    site.fault("data.get", "flip-byte-at:150000")
    with site.storage.open_seekable(reference) as file:
        with pytest.raises(cs3_errors.ChecksumMismatch, match="adler32 of what passed"):
            file.read()
        # Nobody knows which bytes are wrong: none is handed out again, not even those that would be fetched anew.
        for position in (0, 150_000, 1_199_999):
            file.seek(position)
            with pytest.raises(cs3_errors.ChecksumMismatch, match="adler32 of what passed"):
                file.read(100)
            with pytest.raises(cs3_errors.ChecksumMismatch):
                file.read_at(position, position + 1)
    with site.storage.open_seekable(reference) as file:
        assert file.read() == content(1_200_000)


def test_storages_find_out_about_ranges_once(site: CommandPlace, file: RandomAccessFile) -> None:
    storage: CS3Storage = site.storage
    with file:
        file.read_at(100_000, 100_010)
    with storage.open_seekable(site.file("large.bin")) as again:
        again.read_at(100_000, 100_010)
    refused = [passed for passed in site.cloud.traffic.of("data.get") if passed.status == 416]
    assert len(refused) == (0 if site.kind == "spaces" else 1)
