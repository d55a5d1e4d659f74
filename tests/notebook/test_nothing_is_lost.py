"""Whoever writes, moves and deletes by a program loses nothing that they did not mean."""

from __future__ import annotations

import contextlib
import errno
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pytest

from rucio_cs3 import CloudStorage, places
from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.cs3.errors import ConfigurationError
from rucio_cs3.cs3.resources import Entries
from rucio_cs3.cs3.spool import Spool
from rucio_cs3.notebook import copying
from rucio_cs3.notebook.shared_files import SharedFiles
from tests.commands.clouds import CommandPlace
from tests.contract.place import adler32, content
from tests.notebook.by_options import filesystem_by_options


def test_a_block_that_succeeds_while_another_fails_is_stored(spaces_site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")

    def report(name: str) -> None:
        with cloud.open(f"{name}.txt", "w") as file:
            file.write("it failed")
        cloud.write_bytes(f"{name}.bin", b"it failed")
        with fsspec.open(f"cs3://TEST/{name}.gz", "wt", compression="gzip") as file:
            file.write("it failed")

    class Reports:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> bool:
            report("class")
            return True

    @contextlib.contextmanager
    def reports() -> Iterator[None]:
        try:
            yield
        except ValueError:
            report("generator")

    for block in (Reports(), reports()):
        with block:
            raise ValueError
    packed = {name: gzip.decompress(data) for name, data in spaces_site.tree().items() if data and name.endswith("gz")}
    assert packed == {"class.gz": b"it failed", "generator.gz": b"it failed"}
    assert spaces_site.tree().keys() == packed.keys() | {"class.txt", "class.bin", "generator.txt", "generator.bin"}
    # A file that is closed by somebody else's failed block stays none.
    with pytest.raises(ValueError, match="on the way"):  # noqa: PT012, SIM117  # it is about the inner block
        with contextlib.closing(cloud.open("half", "wb")) as file:
            file.write(b"half")
            raise ValueError("on the way")
    assert not spaces_site.disk("half").exists()


def test_text_that_cannot_be_written_to_its_end_is_no_file(
    spaces_site: CommandPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CloudStorage("TEST").open("new", "w")
    file.write("x" * 100)

    def full(*_: object) -> int:
        raise cs3_errors.LocalNoSpaceLeft("the disk is full")

    monkeypatch.setattr(Spool, "write", full)
    with pytest.raises(OSError, match="disk is full"):
        file.close()
    assert spaces_site.tree() == {}


def test_compressed_files_are_stored(spaces_site: CommandPlace) -> None:
    fs = fsspec.filesystem("cs3")
    for name, mode, piece, how in (
        ("a.gz", "wb", b"hello", "gzip"),
        ("b.gz", "wt", "hello", "infer"),
        ("c.bz2", "xb", b"hello", "infer"),
        ("d.txt", "wb", b"hello", "infer"),
        ("e.zip", "wb", b"hello", "zip"),
    ):
        with fs.open(f"TEST/{name}", mode, compression=how) as file:
            file.write(piece)
        with fs.open(f"TEST/{name}", "rb", compression=how) as file:
            assert file.read() == b"hello"
        with fs.open(f"TEST/{name}", "rt", compression=how) as file:
            assert file.read() == "hello"
    assert gzip.decompress(spaces_site.disk("a.gz").read_bytes()) == b"hello"
    closed = fs.open("TEST/bare.gz", "w", compression="gzip")
    closed.write("hello")
    closed.close()
    assert gzip.decompress(spaces_site.disk("bare.gz").read_bytes()) == b"hello"
    with pytest.raises(RuntimeError, match="on the way"):  # noqa: PT012, SIM117  # it is about the inner block
        with fs.open("TEST/half.gz", "wb", compression="gzip") as file:
            file.write(b"half")
            raise RuntimeError("on the way")
    left = [fs.open("TEST/left.gz", "wb", compression="gzip")]
    with pytest.warns(RuntimeWarning, match="was not closed"):
        left.clear()
    assert not {"half.gz", "left.gz"} & spaces_site.tree().keys()


@pytest.mark.parametrize("memory", [1000, 4])
def test_a_file_that_is_made_longer_is_padded(
    spaces_site: CommandPlace, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.spool.MEMORY_MAX_BYTES", memory)
    with CloudStorage("TEST").open("long", "wb") as file:
        file.write(b"ab")
        file.truncate(10)
        assert file.tell() == 2
        file.write(b"c")
    assert spaces_site.disk("long").read_bytes() == b"abc" + bytes(7)


def test_the_folder_of_a_cloud_stays(site: CommandPlace) -> None:
    site.put("a/b", b"1")
    cloud, deep, fs = CloudStorage("TEST"), CloudStorage("TEST:a"), fsspec.filesystem("cs3")
    url = site.url("a").rpartition("/")[0].replace("http://", "cs3://")
    for call in (
        lambda: cloud.remove("", recursive=True),
        lambda: cloud.move("", "a/inside"),
        lambda: deep.remove("", recursive=True),
        lambda: fs.rm("TEST", recursive=True),
        lambda: fs.mv("TEST", "TEST/a/inside"),
        lambda: fs.rmdir("TEST"),
        lambda: fs.rm(url, recursive=True),
    ):
        with pytest.raises(OSError, match=r"is never (deleted|moved) here") as caught:
            call()
        assert caught.value.errno == errno.EINVAL
    assert site.tree() == {"a": None, "a/b": b"1"}


def test_of_a_cloud_in_no_file_only_the_root_stays(spaces_site: CommandPlace) -> None:
    site = spaces_site
    fs, _ = filesystem_by_options(site)
    for name in ("file", "folder/x", "stays"):
        site.put(name, b"1")
    for name in ("file", "folder"):
        fs.rm(site.url(name).replace("http://", "cs3://"), recursive=True)
    assert site.tree() == {"stays": b"1"}
    with pytest.raises(OSError, match="is the root of the storage, and is never deleted here"):
        fs.rm(site.cloud.webdav_url.replace("http://", "cs3://"), recursive=True)


def test_between_clouds(spaces_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    site = spaces_site
    # The same place by another storage, which is as good as another cloud.
    site.add_entry("OTHER", cs3_call_timeout_s="21")
    site.put("run/a", b"precious")
    fs = fsspec.filesystem("cs3")
    with pytest.raises(OSError, match="is a folder, and is not moved to another cloud") as caught:
        fs.mv("TEST/run", "OTHER/moved", recursive=True)
    assert caught.value.errno == errno.ENOTSUP
    fs.mv("TEST/run/a", "OTHER/moved/a")
    assert site.tree() == {"moved": None, "moved/a": b"precious", "run": None}
    with pytest.raises(FileExistsError):
        fs.mv("TEST/moved/a", "OTHER/moved/a")

    def copy(*args: Any, real: Any = copying.copy, **kwargs: Any) -> None:
        real(*args, **kwargs)
        fs.pipe("TEST/moved/a", b"arrived meanwhile")

    monkeypatch.setattr(copying, "copy", copy)
    with pytest.raises(OSError, match="was replaced while it was copied"):
        fs.mv("TEST/moved/a", "OTHER/b")
    assert site.tree() == {"b": b"precious", "moved": None, "moved/a": b"arrived meanwhile", "run": None}


def test_exact_names_come_before_patterns(spaces_site: CommandPlace) -> None:
    site, fs = spaces_site, fsspec.filesystem("cs3")
    for name in ("data1.csv", "data[1].csv", "dir[1]/x", "dir1/x"):
        site.put(name, name.encode())
    assert fs.cat("TEST/data[1].csv") == b"data[1].csv"
    fs.rm("TEST/data[1].csv")
    fs.rm(["TEST/dir[1]"], recursive=True)
    assert site.tree() == {"data1.csv": b"data1.csv", "dir1": None, "dir1/x": b"dir1/x"}
    # Where there is none of this name it is a pattern.
    fs.rm("TEST/data[1].csv")
    assert "data1.csv" not in site.tree()


def test_a_folder_with_what_cannot_be_named_is_not_empty(
    spaces_site: CommandPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces_site.storage.make_directories(spaces_site.file("folder"))
    listed = Entries()
    listed.left_out = 1
    monkeypatch.setattr("rucio_cs3.cs3.storage.CS3Storage.list", lambda *_, **__: listed)
    with pytest.raises(OSError, match="is not empty") as caught:
        fsspec.filesystem("cs3").rmdir("TEST/folder")
    assert caught.value.errno == errno.ENOTEMPTY
    assert spaces_site.disk("folder").is_dir()


def test_only_files_are_deleted_as_files(site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("folder/x", b"1")
    cloud, fs = CloudStorage("TEST"), fsspec.filesystem("cs3")
    # Whatever was there at a first look: only what deletes nothing but files is asked.
    monkeypatch.setattr("rucio_cs3.cs3.storage.CS3Storage.delete", lambda *_: pytest.fail("deletes folders"))
    for call in (lambda: cloud.remove("folder"), lambda: fs.rm_file("TEST/folder"), lambda: fs.rm("TEST/folder")):
        with pytest.raises(IsADirectoryError):
            call()
    for missing in ("none", "folder/x/below"):
        with pytest.raises(FileNotFoundError):
            cloud.remove(missing)
    cloud.remove("folder/x")
    assert site.tree() == {"folder": None}


def test_wrong_bytes_are_not_handed_out_again(site: CommandPlace) -> None:
    """Of a file that is fetched as a whole, by whatever it is read."""
    data = content(1024 * 1024)
    info = site.storage.stat(site.put("file.bin", data))
    if "adler32" not in info.checksums:
        assert site.storage.keep_checksums(info, {"adler32": adler32(data)})
    place, shared = places.find("TEST:file.bin"), SharedFiles()
    site.fault("data.get", "flip-byte-at:5")
    with CloudStorage("TEST").open("file.bin") as file:
        file.read(100)  # now the buffer has the first bytes
        for _ in range(2):
            for size in (-1, 100):
                with pytest.raises(OSError, match="adler32 of what passed"):
                    file.read(size)
                file.seek(0)
    site.fault("data.get", "flip-byte-at:5")
    info = place.storage.stat(place.reference)
    with shared.open(place, info) as first, shared.open(place, info) as second:
        assert first.read(100) != data[:100]
        for reader in (first, second):
            with pytest.raises(cs3_errors.ChecksumMismatch):
                reader.readall()
            reader.seek(0)
            with pytest.raises(cs3_errors.ChecksumMismatch):
                reader.read(100)
        # Whoever comes later begins anew.
        with shared.open(place, info) as third:
            assert third.readall() == data


@pytest.mark.parametrize(
    "url",
    ["cs3s://jane:made-up-secret@host/webdav/x", "cs3://jane:made-up-secret@host:80/x", "cs3://j:made-up-secret@h"],
)
def test_passwords_in_urls_are_in_no_message(spaces_site: CommandPlace, url: str) -> None:
    with_options: dict[str, Any] = {"gateway": "host:1"}
    calls: tuple[Callable[[], object], ...] = (
        lambda: fsspec.open(url).open(),
        lambda: fsspec.filesystem(url.partition("://")[0]).ls(url),
        lambda: CloudStorage(url.replace("cs3", "dav")),
        lambda: CloudStorage(url.replace("cs3", "dav"), **with_options),
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match="has a user name or password in it") as caught:
            call()
        assert "made-up-secret" not in str(caught.value)
