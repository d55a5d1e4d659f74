"""A dump is all of a folder or nothing under its name, and goes on where it was broken off."""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.inventory import dump, dump_files, lists, manifest
from rucio_cs3.inventory.dump import Dump, Incomplete, Wanted
from tests.unit.test_inventory_crawl import TOP, Folders

MANY = [f"{folder:03}/{file:02}" for folder in range(20) for file in range(3)]


#: Before a test changes it.
_KEEP_S = dump._KEEP_S


@pytest.fixture(autouse=True)
def _kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "_KEEP_S", 0.0)


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"cloud": "TEST", "gateway": "cloud.example:443", "top": TOP, **changes})


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["dump.gz", "dump_20261121"])
def test_all_paths_are_in_it_and_the_manifest_says_so(tmp_path: Path, name: str) -> None:
    made = Dump(wanted(), Folders([*MANY, "empty/"])).run(tmp_path / name)
    assert text_of(tmp_path / name) == "".join(f"{path}\n" for path in MANY)
    assert names(tmp_path) == [name, f"{name}.json"]
    assert (made.complete, made.counts.files, made.counts.folders) == (True, len(MANY), 21)
    assert made.counts.bytes == 2 * len(MANY)
    assert manifest.read(tmp_path / name) == made
    said = json.loads((tmp_path / f"{name}.json").read_text())
    assert said["complete"] is True
    assert said["dump_bytes"] == (tmp_path / name).stat().st_size
    assert said["began_at"] <= said["ended_at"]


def test_an_empty_folder_is_an_empty_dump(tmp_path: Path) -> None:
    made = Dump(wanted(), Folders([])).run(tmp_path / "dump.gz")
    assert text_of(tmp_path / "dump.gz") == ""
    assert made.complete


def test_paths_are_below_the_prefix(tmp_path: Path) -> None:
    Dump(wanted(below="user.x/y"), Folders(["a/f"])).run(tmp_path / "dump")
    assert text_of(tmp_path / "dump") == "user.x/y/a/f\n"


def broken_off(folder: Path, after: str, paths: list[str] = MANY) -> Path:
    """A dump whose server dies at one folder."""
    folders = Folders(paths)
    folders.failures[after] = errors.Unavailable("gone")
    with pytest.raises(errors.Unavailable):
        Dump(wanted(), folders).run(folder / "dump.gz")
    return folder / "dump.gz"


@pytest.mark.parametrize("after", ["000", "007", "019"])
def test_a_broken_dump_has_no_name_and_goes_on(tmp_path: Path, after: str) -> None:
    path = broken_off(tmp_path, after)
    assert not path.exists()
    assert names(tmp_path) == [".dump.gz.part", ".dump.gz.state"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}

    folders = Folders(MANY)
    made = Dump(wanted(), folders).run(path)
    assert text_of(path) == "".join(f"{one}\n" for one in MANY)
    assert (made.runs, made.counts.files, made.counts.folders) == (2, len(MANY), 20)
    # The one that the last file is in is looked at once more.
    assert min(set(folders.asked) - {""}) == f"{max(int(after) - 1, 0):03}"
    assert names(tmp_path) == ["dump.gz", "dump.gz.json"]


def test_a_dump_that_stood_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "dump.gz"
    Dump(wanted(), Folders(["old"])).run(path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    broken_off(tmp_path, "010")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    Dump(wanted(), Folders(MANY)).run(path)
    assert text_of(path).startswith("000/00\n")


@pytest.mark.parametrize(
    ("changes", "resume"),
    [
        ({"form": "long"}, True),
        ({"older_than_h": 1.0}, True),
        ({"below": "x"}, True),
        ({"incomplete": True}, True),
        ({}, False),
    ],
)
def test_another_wish_begins_anew(tmp_path: Path, changes: dict[str, Any], resume: bool) -> None:
    path = broken_off(tmp_path, "010")
    folders = Folders(MANY)
    made = Dump(wanted(**changes), folders).run(path, resume=resume)
    assert (made.runs, made.counts.files) == (1, len(MANY))
    assert len(folders.asked) == 21


def test_an_old_state_begins_anew(tmp_path: Path) -> None:
    path = broken_off(tmp_path, "010")
    note = tmp_path / ".dump.gz.state"
    noted = json.loads(note.read_text())
    # Another run has touched it since; when the first one began is what counts.
    noted["began_at"] -= dump_files.RESUME_WITHIN_S - 60
    note.write_text(json.dumps(noted))
    failing = Folders(MANY)
    failing.failures["015"] = errors.Unavailable("gone")
    with pytest.raises(errors.Unavailable):
        Dump(wanted(), failing).run(path)
    kept = json.loads(note.read_text())
    assert (kept["kept"]["runs"], kept["began_at"]) == (2, noted["began_at"])
    note.write_text(json.dumps({**kept, "began_at": kept["began_at"] - 61}))
    assert Dump(wanted(), Folders(MANY)).run(path).runs == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1, "identity": {}, "offset": -1, "kept": {}}', "\0"])
def test_a_state_that_is_none_begins_anew(tmp_path: Path, text: str) -> None:
    path = broken_off(tmp_path, "010")
    (tmp_path / ".dump.gz.state").write_text(text)
    assert Dump(wanted(), Folders(MANY)).run(path).runs == 1
    assert text_of(path) == "".join(f"{one}\n" for one in MANY)


def test_what_was_written_after_the_last_note_is_cut_off(tmp_path: Path) -> None:
    path = broken_off(tmp_path, "010")
    with (tmp_path / ".dump.gz.part").open("ab") as file:
        file.write(b"half a member" * 10_000)
    Dump(wanted(), Folders(MANY)).run(path)
    assert text_of(path) == "".join(f"{one}\n" for one in MANY)


def test_a_kill_costs_two_seconds_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    notes: list[int] = []
    keep = dump_files.Growing.keep

    def noted(growing: dump_files.Growing, state: Any) -> None:
        notes.append(state["counts"]["files"])
        keep(growing, state)

    # A second for each time that somebody looks at it: at each event, and at each note.
    monkeypatch.setattr(dump, "time", SimpleNamespace(time=time.time, monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(dump, "_KEEP_S", _KEEP_S)
    monkeypatch.setattr(dump_files.Growing, "keep", noted)
    Dump(wanted(), Folders([f"{number:03}" for number in range(60)])).run(tmp_path / "dump")
    assert max(after - before for before, after in itertools.pairwise([0, *notes, 60])) <= 3


def test_two_do_not_write_the_same(tmp_path: Path) -> None:
    with (
        dump_files.Growing(tmp_path / "dump.gz", {}),
        pytest.raises(errors.LocalError, match="another process is writing"),
    ):
        Dump(wanted(), Folders(MANY)).run(tmp_path / "dump.gz")
    assert not (tmp_path / "dump.gz").exists()


def test_a_full_disk_is_said_and_what_was_kept_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = os.write, 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 20:  # and somebody makes room at once
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(errors.LocalNoSpaceLeft, match=r"dump\.gz"):
            Dump(wanted(), Folders(MANY)).run(tmp_path / "dump.gz")
    assert not (tmp_path / "dump.gz").exists()
    made = Dump(wanted(), Folders(MANY)).run(tmp_path / "dump.gz")
    assert text_of(tmp_path / "dump.gz") == "".join(f"{one}\n" for one in MANY)
    assert (made.runs, made.counts.files) == (2, len(MANY))


_LEFT_OUT: list[tuple[str, Callable[[Folders], object], str]] = [
    ("left_out", lambda folders: folders.left_out.update({"a": 2}), "2 entries"),
    ("refused", lambda folders: folders.failures.update({"b": errors.AccessDenied("not yours")}), "not yours"),
    ("unwritable", lambda folders: folders.add("a/two\nlines"), "line break"),
    ("unwritable", lambda folders: folders.add("a/two\rlines"), "line break"),
]


@pytest.mark.parametrize(("count", "spoil", "words"), _LEFT_OUT)
def test_what_cannot_be_told_makes_it_fail_unless_that_is_wished(
    tmp_path: Path, count: str, spoil: Callable[[Folders], object], words: str
) -> None:
    folders, path = Folders(["a/f", "b/f", "c/f"]), tmp_path / "dump.gz"
    spoil(folders)
    with pytest.raises(Incomplete, match=words):
        Dump(wanted(), folders).run(path)
    assert not path.exists()

    made = Dump(wanted(incomplete=True), folders).run(path)
    expected = ["c/f"] if count == "refused" else ["b/f", "c/f"]
    assert text_of(path).splitlines() == ["a/f", *expected]
    assert made.complete is False
    assert getattr(made.counts, count) == made.counts.missing > 0
    assert len(made.counts.named) == 1
    assert json.loads(manifest.path_of(path).read_text())["complete"] is False


def test_a_wish_for_all_does_not_go_on_with_less(tmp_path: Path) -> None:
    path, folders = tmp_path / "dump.gz", Folders(["a/f", "b/f", "c/f"])
    folders.failures.update({"a": errors.AccessDenied("not yours"), "c": errors.Unavailable("gone")})
    with pytest.raises(errors.Unavailable):
        Dump(wanted(incomplete=True), folders).run(path)
    del folders.failures["c"]
    with pytest.raises(Incomplete, match="not yours"):
        Dump(wanted(), folders).run(path)
    # Whatever a note says.
    Dump(wanted(), Folders(["a/f"])).run(path)
    folders.failures["b"] = errors.Unavailable("gone")
    folders.failures.pop("a")
    with pytest.raises(errors.Unavailable):
        Dump(wanted(), folders).run(path)
    note = tmp_path / ".dump.gz.state"
    noted = json.loads(note.read_text())
    noted["kept"]["counts"]["refused"] = 1
    note.write_text(json.dumps(noted))
    folders.failures.clear()
    with pytest.raises(Incomplete, match="1 entries or folders"):
        Dump(wanted(), folders).run(path)
    assert text_of(path) == "a/f\n"


def test_no_dump_is_without_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump.gz"
    Dump(wanted(), Folders(["old"])).run(path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    replace = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if target == refused_name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    refused_name = manifest.path_of(path)
    with pytest.raises(errors.LocalNoSpaceLeft):
        Dump(wanted(), Folders(MANY)).run(path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    # And killed between the two names.
    refused_name = path
    with pytest.raises(errors.LocalNoSpaceLeft):
        Dump(wanted(), Folders(MANY)).run(path)
    with pytest.raises(errors.LocalError, match="another dump"):
        manifest.read(path)
    refused_name = tmp_path / "nothing"
    made = Dump(wanted(), Folders(MANY)).run(path)
    assert manifest.read(path) == made
    assert names(tmp_path) == ["dump.gz", "dump.gz.json"]


def test_names_are_on_the_disk_before_the_note_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that dies right after must not come back with neither."""
    seen: list[list[str]] = []
    for module in (dump_files, lists):
        monkeypatch.setattr(module, "sync_folder", lambda folder: seen.append(names(folder)))
    Dump(wanted(), Folders(MANY)).run(tmp_path / "dump.gz")
    assert seen == [[".dump.gz.state", "dump.gz", "dump.gz.json"]]
    lists.write_gz(tmp_path / "one.gz", ["text\n"])
    with lists.Lists(tmp_path, ["a", "b"]) as written:
        written.commit()
    assert [folder[-1] for folder in seen[1:]] == ["one.gz", "one.gz"]
    assert [{"a", "b"} & {*folder} for folder in seen[1:]] == [set(), {"a", "b"}]


@pytest.mark.parametrize("hidden", [".dump.gz.part", ".dump.gz.state.new", ".dump.gz.json.new"])
def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path, hidden: str) -> None:
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("not ours")
    (folder / hidden).symlink_to(victim)
    with pytest.raises(errors.LocalError):
        Dump(wanted(), Folders(MANY)).run(folder / "dump.gz")
    assert victim.read_text() == "not ours"


def test_a_line_break_is_no_trouble_in_json(tmp_path: Path) -> None:
    made = Dump(wanted(form="jsonl"), Folders(["a/two\nlines"])).run(tmp_path / "dump")
    assert made.complete
    assert [json.loads(line) for line in text_of(tmp_path / "dump").splitlines()] == [
        {"path": "a/two\nlines", "bytes": 9, "mtime": 1, "adler32": None}
    ]


def test_files_that_are_younger_are_left_out_and_counted(tmp_path: Path) -> None:
    folders = Folders(["a/old", "a/younger"])
    listed = folders._listed

    def aged(reference: Any) -> Any:
        found = listed(reference)
        for info in found:
            if info.reference.name == "younger":
                object.__setattr__(info, "mtime_s", time.time() - 1800)
        return found

    folders._listed = aged  # type: ignore[method-assign]
    made = Dump(wanted(older_than_h=1.0), folders).run(tmp_path / "dump")
    assert text_of(tmp_path / "dump") == "a/old\n"
    assert (made.complete, made.counts.younger_files, made.counts.younger_bytes) == (True, 1, len("younger"))
    assert Dump(wanted(older_than_h=0.25), folders).run(tmp_path / "dump").counts.files == 2


def test_a_manifest_of_another_file_is_refused(tmp_path: Path) -> None:
    Dump(wanted(), Folders(MANY)).run(tmp_path / "dump")
    with (tmp_path / "dump").open("a") as file:
        file.write("more\n")
    with pytest.raises(errors.LocalError, match="another dump"):
        manifest.read(tmp_path / "dump")


_MILLION = """
import sys
from pathlib import Path
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.inventory.dump import Dump, Wanted

FOLDERS, FILES = int(sys.argv[2]), 1000
top = Reference(MountRoot("/"), "top")

def most_kib():
    # What getrusage tells begins with the memory of the process that started this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

def lister(folder):
    if folder == top:
        return Entries(FileInfo(reference=Reference(top.root, f"top/{n:06}"), size=0, is_directory=True)
                       for n in range(FOLDERS))
    return Entries(
        FileInfo(reference=Reference(top.root, f"{folder.path}/{n:04}.data"), size=n, is_directory=False,
                 etag=f"etag-{n}", mtime_s=1e9 + n, checksums={"adler32": f"{n:08x}"})
        for n in range(FILES))

wanted = Wanted(cloud="T", gateway="c.example:443", top=top, form="long")
before = most_kib()
made = Dump(wanted, lister).run(Path(sys.argv[1]))
print(made.counts.files, most_kib() - before)
"""

#: Four times what it takes: the listings of some folders of a thousand files, and a block of text. A million files in
#: memory take ten times as much.
_MEMORY_MAX_KIB = 48 * 1024


def test_a_million_files_take_no_more_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, str(tmp_path / "dump.gz"), "1000"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    files, grown_kib = map(int, done.stdout.split())
    assert files == 1_000_000
    assert grown_kib < _MEMORY_MAX_KIB
    with gzip.open(tmp_path / "dump.gz", "rt") as file:
        assert sum(1 for _ in file) == 1_000_000


def test_a_limit_of_file_sizes_is_said_like_a_full_disk(tmp_path: Path) -> None:
    code = _MILLION + "\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dump"), "20"],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    assert done.returncode == 1
    assert "LocalError: local path" in done.stderr
    assert not (tmp_path / "dump").exists()
