"""``cs3://`` for fsspec, and what pandas and workers of dask do with it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.filesystem import CS3FileSystem, CS3SecureFileSystem
from rucio_cs3.notebook.shared_files import SharedFiles
from tests.commands.clouds import CommandPlace
from tests.contract.place import content
from tests.notebook.by_options import filesystem_by_options


def test_pandas_reads_and_writes(site: CommandPlace) -> None:
    table = pd.DataFrame({"run": range(1000), "energy": [number / 7 for number in range(1000)]})
    table.to_csv("cs3://TEST/results/fit.csv", index=False)
    assert site.disk("results/fit.csv").read_text() == table.to_csv(index=False)
    assert pd.read_csv("cs3://TEST/results/fit.csv").equals(table)
    assert len(pd.read_csv("cs3://TEST/results/fit.csv", nrows=5)) == 5
    table.to_csv("cs3://TEST/results/fit.csv.gz", index=False)
    assert pd.read_csv("cs3://TEST/results/fit.csv.gz").equals(table)


def test_half_a_table_is_no_file(site: CommandPlace) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("this cell cannot be written")

    broken = pd.DataFrame({"x": [1, 2, Broken()]})
    for url in ("cs3://TEST/new.csv", "cs3://TEST/new.csv.gz"):
        with pytest.raises(RuntimeError, match="this cell"):
            broken.to_csv(url)
        with pytest.raises(RuntimeError, match="on the way"):  # noqa: PT012, SIM117  # it is about the inner block
            with fsspec.open(url, "wt") as file:
                file.write("half")
                raise RuntimeError("on the way")
    assert site.tree() == {}
    with fsspec.open("cs3://TEST/new.csv", "w") as file:
        file.write("whole")
    assert site.tree() == {"new.csv": b"whole"}


def test_names_and_looks(site: CommandPlace) -> None:
    fs = fsspec.filesystem("cs3")
    assert fs.ls("cs3://", detail=False) == ["TEST"]
    for name in ("a/one.csv", "a/b/two.csv", "a/b/100% ?.txt"):
        site.put(name, name.encode())
    assert fs.ls("cs3://TEST/a", detail=False) == ["TEST/a/b", "TEST/a/one.csv"]
    assert fs.find("TEST/a") == ["TEST/a/b/100% ?.txt", "TEST/a/b/two.csv", "TEST/a/one.csv"]
    assert fs.glob("cs3://TEST/a/**/*.csv") == ["TEST/a/b/two.csv", "TEST/a/one.csv"]
    assert [found[0] for found in fs.walk("TEST/a")] == ["TEST/a", "TEST/a/b"]
    info = fs.info("cs3://TEST/a/one.csv")
    assert (info["name"], info["type"], info["size"]) == ("TEST/a/one.csv", "file", 9)
    assert (fs.isfile("TEST/a/one.csv"), fs.isdir("TEST/a"), fs.exists("TEST/a/x"), fs.isdir("TEST/a/x")) == (
        True,
        True,
        False,
        False,
    )
    assert fs.cat("TEST/a/b/100% ?.txt") == b"a/b/100% ?.txt"
    assert fs.cat_file("TEST/a/one.csv", start=-4, end=-1) == b".cs"
    assert fs.cat_ranges(["TEST/a/one.csv", "TEST/none"], [0, 0], [3, 3], on_error="return")[0] == b"a/o"
    assert fs.du("TEST/a") == 9 + 11 + 14
    before = (fs.ukey("TEST/a/one.csv"), fs.checksum("TEST/a/one.csv"))
    assert fs.modified("TEST/a/one.csv").utcoffset() is not None
    fs.pipe("TEST/a/one.csv", b"changed content")
    assert fs.ukey("TEST/a/one.csv") != before[0]
    assert fs.checksum("TEST/a/one.csv") != before[1]
    with pytest.raises(NotImplementedError, match="when a file was created"):
        fs.created("TEST/a/one.csv")
    assert isinstance(fs.isfile("TEST"), bool)


def test_paths_of_pfns(site: CommandPlace) -> None:
    site.put("a b/100%.txt", b"1")
    pfn = site.url("a b/100%.txt").replace("http://", "cs3://")
    assert "a%20b/100%25.txt" in pfn
    fs, path = fsspec.core.url_to_fs(pfn)
    assert path.endswith("/a b/100%.txt")
    assert fs.cat(path) == fs.cat(pfn) == b"1"
    assert fs.unstrip_protocol(path) == pfn
    assert fs.ls(fs._parent(path), detail=False) == [path]
    secure = CS3SecureFileSystem()
    assert secure._strip_protocol("cs3s://host/remote.php/webdav/a%20b") == "host/remote.php/webdav/a b"
    assert secure.unstrip_protocol("host/webdav/a b") == "cs3s://host/webdav/a%20b"
    plain = CS3FileSystem()
    assert plain._strip_protocol("cs3://NAME/a%20b") == "NAME/a%20b"
    assert plain.unstrip_protocol("NAME/a b%") == "cs3://NAME/a b%"


def test_errors_are_those_of_python(site: CommandPlace) -> None:
    fs = fsspec.filesystem("cs3")
    fs.pipe("TEST/file", b"1")
    fs.mkdir("TEST/folder")
    fs.pipe("TEST/full/x", b"2")
    wrong: tuple[tuple[Callable[[], object], type[OSError], int], ...] = (
        (lambda: fs.open("TEST/none"), FileNotFoundError, errno.ENOENT),
        (lambda: fs.info("TEST/none"), FileNotFoundError, errno.ENOENT),
        (lambda: fs.info("TEST/file/below"), FileNotFoundError, errno.ENOENT),
        (lambda: fs.ls("TEST/none"), FileNotFoundError, errno.ENOENT),
        (lambda: fs.rm("TEST/none"), FileNotFoundError, errno.ENOENT),
        (lambda: fs.mkdir("TEST/none/x", create_parents=False), FileNotFoundError, errno.ENOENT),
        (lambda: fs.rm("TEST/folder"), IsADirectoryError, errno.EISDIR),
        (lambda: fs.open("TEST/folder", "wb"), IsADirectoryError, errno.EISDIR),
        (lambda: fs.cat_file("TEST/folder"), IsADirectoryError, errno.EISDIR),
        (lambda: fs.mkdir("TEST/folder"), FileExistsError, errno.EEXIST),
        (lambda: fs.makedirs("TEST/file"), FileExistsError, errno.EEXIST),
        (lambda: fs.makedirs("TEST/folder"), FileExistsError, errno.EEXIST),
        (lambda: fs.mv("TEST/file", "TEST/full/x"), FileExistsError, errno.EEXIST),
        (lambda: fs.pipe_file("TEST/file", b"3", mode="create"), FileExistsError, errno.EEXIST),
        (lambda: fs.rmdir("TEST/full"), OSError, errno.ENOTEMPTY),
        (lambda: fs.rmdir("TEST/file"), NotADirectoryError, errno.ENOTDIR),
        (lambda: fs.cp_file("TEST/file", "TEST/file"), OSError, errno.EINVAL),
        (lambda: fs.info("TEST/../x"), OSError, errno.EINVAL),
    )
    for call, kind, number in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.errno == number
    assert site.tree() == {"file": b"1", "folder": None, "full": None, "full/x": b"2"}
    fs.rmdir("TEST/folder")
    fs.mv("TEST/file", "TEST/full/y")
    assert site.tree() == {"full": None, "full/x": b"2", "full/y": b"1"}
    with pytest.raises(cs3_errors.ConfigurationError, match="NOPE"):
        fs.exists("NOPE/x")


def test_a_listing_that_fails_is_no_shorter_one(site: CommandPlace) -> None:
    fs = fsspec.filesystem("cs3")
    fs.pipe("TEST/a/b", b"1")
    site.fault("gateway.ListContainer", "code:INTERNAL")
    with pytest.raises(OSError, match="INTERNAL"):
        fs.find("TEST")
    site.fault("gateway.Stat", "code:PERMISSION_DENIED")
    with pytest.raises(PermissionError):
        fs.exists("TEST/a")


def _in_a_worker(fs: Any, path: str, opened: Any) -> tuple[int, bytes, str]:
    with opened as file:
        text = file.read()
    fs.pipe(f"{path}.{os.getpid()}", b"from a worker")
    return os.getpid(), fs.cat_file(path, 1, 4), text


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12: a fork with threads
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_in_other_processes(site: CommandPlace, method: str) -> None:
    by_options, password = filesystem_by_options(site)
    for fs, path in (
        (fsspec.filesystem("cs3"), "TEST/data.txt"),
        (by_options, site.url("data.txt").partition("://")[2]),
    ):
        fs.pipe(path, b"content")
        opened = fsspec.core.OpenFile(fs, path, "r")
        pickled = pickle.dumps((fs, opened))
        assert password.encode() not in pickled
        assert pickle.loads(pickled)[0] == fs
        with multiprocessing.get_context(method).Pool(1) as pool:
            (found,) = pool.starmap(_in_a_worker, [(fs, path, opened)])
            pool.close()
            pool.join()
        worker, piece, text = found
        assert (piece, text) == (b"ont", "content")
        assert worker != os.getpid()
        assert site.disk(f"data.txt.{worker}").read_bytes() == b"from a worker"
        assert fs.cat(path) == b"content"


def test_instances_and_options(site: CommandPlace) -> None:
    assert fsspec.filesystem("cs3") is fsspec.filesystem("cs3")
    assert fsspec.filesystem("cs3") is not fsspec.filesystem("cs3", rse="TEST")
    assert fsspec.filesystem("cs3s").protocol == "cs3s"
    with pytest.raises(cs3_errors.ConfigurationError, match="password is a secret") as caught:
        fsspec.filesystem("cs3", password="made-up-secret")
    assert "made-up-secret" not in str(caught.value)
    with pytest.raises(cs3_errors.ConfigurationError, match="there is no option gatway"):
        fsspec.filesystem("cs3", gatway="x:1")
    with pytest.raises(cs3_errors.ConfigurationError, match="gateway go with PFNs"):
        fsspec.filesystem("cs3", gateway="x:1").exists("TEST/x")


def test_pieces_of_one_file_for_many_threads(site: CommandPlace, small_pages: None) -> None:
    """As uproot reads: many ranges at a time. Where the server has none, the file passes once for all of them."""
    data = content(200_000)
    site.put("tree.root", data)
    site.cloud.traffic.clear()
    fs = fsspec.filesystem("cs3")
    starts = [number * 7919 % 190_000 for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda start: fs.cat_file("TEST/tree.root", start, start + 100), starts))
    assert found == [data[start : start + 100] for start in starts]
    whole = [passed for passed in site.cloud.traffic.of("data.get") if passed.status == 200]
    assert len(whole) == (0 if site.kind == "spaces" else 1)
    fs.pipe("TEST/tree.root", b"another version")
    assert fs.cat_file("TEST/tree.root", 0, 7) == b"another"


def test_files_that_nobody_asks_for_are_given_up(site: CommandPlace, small_pages: None) -> None:
    from rucio_cs3 import places

    shared = SharedFiles(idle_s=0.05)
    place = places.find("TEST:file")
    info = place.storage.stat(site.put("file", content(50_000)))
    with shared.open(place, info) as reader, shared.open(place, info) as other:
        file = reader._loan.file
        assert other._loan.file is file
        reader.seek(10_000)
        assert (reader.read(5), other.read(5)) == (content(50_000)[10_000:10_005], content(50_000)[:5])
    assert not file.closed
    deadline = time.monotonic() + 20
    while not file.closed and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.closed
    assert not shared._held


def test_files_between_this_machine_and_the_cloud(site: CommandPlace) -> None:
    fs = fsspec.filesystem("cs3")
    for name in ("one", "b/two", "b/100%25 sure"):
        path = Path("tree", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    counts: list[int] = []

    class Callback(fsspec.callbacks.Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            counts.append(inc)

        def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Any:
            return self

    fs.put("tree/", "cs3://TEST/copy", recursive=True, callback=Callback())
    assert sum(counts) >= 3 + 5 + 13
    assert site.tree() == {
        "copy": None,
        "copy/b": None,
        "copy/b/100%25 sure": b"b/100%25 sure",
        "copy/b/two": b"b/two",
        "copy/one": b"one",
    }
    fs.get("cs3://TEST/copy", "back", recursive=True)
    assert Path("back/b/100%25 sure").read_text() == "b/100%25 sure"
    fs.cp("TEST/copy", "TEST/again", recursive=True)
    assert site.disk("again/b/two").read_bytes() == b"b/two"
    fs.rm("TEST/copy", recursive=True)
    fs.rm("TEST/again/b/*")
    assert site.tree() == {"again": None, "again/b": None, "again/one": b"one"}
    with fs.transaction:
        fs.pipe("TEST/late", b"1")
        assert not site.disk("late").exists()
    assert site.disk("late").read_bytes() == b"1"
