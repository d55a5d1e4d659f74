"""Old versions are counted file by file, some at a time, and what is not known is never taken for nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.file_versions import OldVersions, old_versions
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo, Quota
from rucio_cs3.inventory import dump, manifest, usage, versions
from rucio_cs3.inventory.crawl import Crawl, Found
from rucio_cs3.inventory.dump import Dump, Incomplete
from rucio_cs3.inventory.versions import VersionCounter, VersionCounts
from tests.unit.test_inventory_crawl import TOP, Folders
from tests.unit.test_inventory_dump import MANY, text_of, wanted


class Versions:
    """Each file has as many old versions as its path is long, of one byte each, unless something else is said."""

    def __init__(self) -> None:
        self.failures: dict[str, errors.CS3Error] = {}
        self.asked: list[str] = []
        self.together = self.inside = 0
        self._lock = threading.Lock()

    def __call__(self, file: Reference) -> OldVersions:
        path = file.path[len(TOP.path) + 1 :]
        with self._lock:
            self.asked.append(path)
            self.inside += 1
            self.together = max(self.together, self.inside)
        try:
            if path in self.failures:
                raise self.failures[path]
            return OldVersions(items=len(path), bytes=len(path))
        finally:
            with self._lock:
                self.inside -= 1


LETTERS = sum(map(len, MANY))

#: More than are asked in vain.
MORE = [f"{number:03}" for number in range(150)]


def counted(look: Versions, folders: Folders) -> VersionCounts:
    counts = VersionCounts()
    for _ in VersionCounter(look, counts).through(Crawl(folders, TOP).events()):
        pass
    return counts


def test_all_events_come_in_their_order_when_they_are_counted() -> None:
    look, counts, seen = Versions(), VersionCounts(), 0
    plain = [event.position for event in Crawl(Folders(MANY), TOP).events()]
    through = []
    for event in VersionCounter(look, counts).through(Crawl(Folders(MANY), TOP).events()):
        through.append(event.position)
        seen += len(event.path) if isinstance(event, Found) else 0
        assert counts.items == seen
    assert through == plain
    assert (counts.files, counts.items, counts.bytes, counts.is_all) == (len(MANY), LETTERS, LETTERS, True)


def test_few_are_asked_for_at_a_time_and_few_wait() -> None:
    """Whatever the number of files, and however slow the answers."""
    look, gate, taken = Versions(), threading.Event(), 0

    def slow(file: Reference) -> OldVersions:
        assert gate.wait(60)
        return look(file)

    def events() -> Iterator[Any]:
        nonlocal taken
        for event in Crawl(Folders(MANY), TOP).events():
            taken += 1
            if taken == 5:
                gate.set()
            yield event

    counter = VersionCounter(slow, VersionCounts(), threads=5)
    handed_out = 0
    for _ in counter.through(events()):
        handed_out += 1
        assert taken - handed_out < 5
    assert handed_out == len(MANY) + 21
    assert look.together <= 5


@pytest.mark.parametrize(
    "error",
    [errors.AccessDenied("not yours"), errors.ServerFault("no reason"), errors.Throttled("too large", retryable=False)],
    ids=["denied", "fault", "too-large"],
)
def test_a_file_that_does_not_tell_is_not_known(error: errors.CS3Error) -> None:
    look = Versions()
    look.failures[MANY[7]] = error
    counts = counted(look, Folders(MANY))
    assert (counts.files, counts.unknown_files, counts.is_all) == (len(MANY) - 1, 1, False)
    assert counts.items == LETTERS - len(MANY[7])
    assert counts.named == [[MANY[7], str(error)]]


def test_what_cannot_be_listed_is_not_known_either() -> None:
    folders = Folders(MANY)
    folders.failures["003"] = errors.AccessDenied("not yours")
    folders.left_out["004"] = 2
    counts = counted(Versions(), folders)
    assert (counts.unknown_folders, counts.unknown_files, counts.is_all) == (1, 2, False)
    assert [path for path, _ in counts.named] == ["003", "004"]


def test_only_a_hundred_are_named() -> None:
    look = Versions()
    look.failures = {path: errors.AccessDenied("not yours") for path in MORE}
    counts = counted(look, Folders(MORE))
    assert (counts.unknown_files, len(counts.named)) == (150, manifest.NAMED_MAX)


def test_a_server_that_keeps_none_is_not_asked_on() -> None:
    look = Versions()
    look.failures = {path: errors.Unsupported("not here") for path in MORE}
    counts = counted(look, Folders(MORE))
    said = counts.as_dict()
    assert (said["supported"], said["items"], said["bytes"], said["stopped"]) == (False, None, None, True)
    assert (counts.unknown_files, counts.is_all) == (len(MORE), False)
    # And those that were under way.
    assert versions.IN_VAIN_MAX <= len(look.asked) <= versions.IN_VAIN_MAX + 8
    # Of few files it is known when all were asked.
    few = counted(look, Folders(MORE[:50]))
    assert (few.supported, few.stopped, few.unknown_files) == (False, False, 50)


@pytest.mark.parametrize(
    ("told", "error", "other", "stops"),
    [
        (range(0), errors.ServerFault, None, True),
        (range(1), errors.ServerFault, None, False),
        (range(0), errors.ServerFault, errors.AccessDenied, False),
        (range(0), errors.AccessDenied, None, False),
    ],
    ids=["always-the-same", "one-tells", "another-failure", "denied"],
)
def test_asking_in_vain_ends(
    told: range, error: type[errors.CS3Error], other: type[errors.CS3Error] | None, stops: bool
) -> None:
    look = Versions()
    look.failures = {path: error(f"of {path}") for number, path in enumerate(MORE) if number not in told}
    if other is not None:
        look.failures[MORE[3]] = other("not yours")
    counts = counted(look, Folders(MORE))
    assert (counts.supported, counts.stopped) == (True, stops)
    assert (len(look.asked) < len(MORE)) is stops
    assert counts.unknown_files == len(MORE) - len(told)
    # So it is for a run that goes on.
    assert VersionCounts(**asdict(counts)).stopped is stops


@pytest.mark.parametrize("some", [slice(30, None), slice(1), slice(30)], ids=["last", "first", "first-half"])
def test_one_that_keeps_some_has_not_told_of_the_others(some: slice) -> None:
    """Another mount, say, whichever comes first."""
    look = Versions()
    look.failures = {path: errors.Unsupported("not on this disk") for path in MANY[some]}
    counts = counted(look, Folders(MANY))
    unknown = len(MANY[some])
    assert (counts.supported, counts.files, counts.unknown_files) == (True, len(MANY) - unknown, unknown)
    assert counts.as_dict()["items"] == counts.items == sum(len(path) for path in {*MANY} - {*MANY[some]})


@pytest.mark.parametrize("error", [errors.Unavailable("gone"), errors.Throttled("slower"), errors.Unauthenticated("?")])
def test_a_dump_that_is_broken_off_goes_on_and_counts_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: errors.CS3Error
) -> None:
    monkeypatch.setattr(dump, "_KEEP_S", 0.0)
    look = Versions()
    look.failures[MANY[31]] = error
    with pytest.raises(type(error)):
        Dump(wanted(versions=True), Folders(MANY), look=look).run(tmp_path / "dump.gz")
    assert not (tmp_path / "dump.gz").exists()

    again = Versions()
    made = Dump(wanted(versions=True), Folders(MANY), look=again).run(tmp_path / "dump.gz")
    assert (made.runs, made.versions) == (2, VersionCounts(files=len(MANY), items=LETTERS, bytes=LETTERS).as_dict())
    assert min(again.asked) == MANY[31]
    assert text_of(tmp_path / "dump.gz").splitlines() == MANY
    assert manifest.read(tmp_path / "dump.gz") == made


def test_another_wish_begins_anew(tmp_path: Path) -> None:
    look = Versions()
    look.failures[MANY[31]] = errors.Unavailable("gone")
    with pytest.raises(errors.Unavailable):
        Dump(wanted(versions=True), Folders(MANY), look=look).run(tmp_path / "dump")
    assert Dump(wanted(), Folders(MANY)).run(tmp_path / "dump").runs == 1


#: What becomes of a folder, so that a dump cannot be complete.
LEFT_OUT: dict[str, Callable[[Folders], object]] = {
    "refused": lambda folders: folders.failures.update({"b": errors.AccessDenied("not yours")}),
    "left_out": lambda folders: folders.left_out.update({"b": 2}),
    "unwritable": lambda folders: folders.add("b/e\nf"),
}


def test_a_count_that_is_not_known_does_not_spoil_a_dump(tmp_path: Path) -> None:
    look = Versions()
    look.failures[MANY[7]] = errors.AccessDenied("not yours")
    made = Dump(wanted(versions=True), Folders(MANY), look=look).run(tmp_path / "dump")
    assert made.complete
    assert json.loads(manifest.path_of(tmp_path / "dump").read_text())["versions"] == {
        "supported": True,
        "stopped": False,
        "files": len(MANY) - 1,
        "items": LETTERS - len(MANY[7]),
        "bytes": LETTERS - len(MANY[7]),
        "unknown_files": 1,
        "unknown_folders": 0,
        "named": [[MANY[7], "not yours"]],
        "refusals": {"AccessDenied": 1},
    }


@pytest.mark.parametrize("count", LEFT_OUT)
@pytest.mark.parametrize("keep_s", [0.0, 3600.0], ids=["kept-always", "kept-once"])
def test_a_trouble_that_is_over_is_not_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_s: float, count: str
) -> None:
    monkeypatch.setattr(dump, "_KEEP_S", keep_s)
    paths = ["a/f", "b/f", "c/f"]
    folders, path = Folders(paths), tmp_path / "dump"
    LEFT_OUT[count](folders)
    with pytest.raises(Incomplete):
        Dump(wanted(versions=True), folders, look=Versions()).run(path)
    made = Dump(wanted(versions=True), Folders(paths), look=Versions()).run(path)
    assert (made.runs, made.complete) == (2, True)
    assert made.versions == VersionCounts(files=3, items=9, bytes=9).as_dict()


def test_nobody_asks_where_that_is_not_wanted(tmp_path: Path) -> None:
    look = Versions()
    made = Dump(wanted(), Folders(MANY), look=look).run(tmp_path / "dump")
    assert (made.versions, look.asked) == (None, [])


# -- one file ------------------------------------------------------------------------------------------------------


def storage(answer: Callable[[], OldVersions], *, there: bool, top: bool) -> Any:
    def stat(reference: Reference) -> None:
        assert reference == TOP
        if not top:
            raise errors.NotFound("is not there")

    return SimpleNamespace(old_versions=lambda _file: answer(), exists=lambda _file: there, stat=stat)


def test_what_was_removed_meanwhile_has_none_and_a_storage_that_is_away_says_nothing() -> None:
    def absent() -> OldVersions:
        raise errors.NotFound("is not there")

    file = TOP.child("f")
    assert versions.looking(storage(absent, there=False, top=True), TOP)(file) == OldVersions()
    with pytest.raises(errors.NotFound):
        versions.looking(storage(absent, there=False, top=False), TOP)(file)
    with pytest.raises(errors.ProtocolViolation, match="it is there, but of its versions the server says: is not"):
        versions.looking(storage(absent, there=True, top=True), TOP)(file)


def test_a_size_that_no_file_has_is_not_added_up() -> None:
    answer = SimpleNamespace(versions=[SimpleNamespace(size=5), SimpleNamespace(size=2**64 - 1)])
    gateway: Any = SimpleNamespace(ask=lambda *_, **__: answer)
    with pytest.raises(errors.ProtocolViolation, match="18446744073709551615 bytes"):
        old_versions(gateway, TOP.child("f"))
    answer.versions.pop()
    assert old_versions(gateway, TOP.child("f")) == OldVersions(items=1, bytes=5)


# -- of a cloud ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "path", "shown", "is_known"),
    [
        ("/eos", "a/b", {"": ["a"], "a": ["other"]}, True),
        ("/eos", "a/b", {"": ["other"]}, True),
        ("/eos", "a/b", {}, False),
        ("/", "eos/b", {"": []}, False),
        ("/", "eos/b", {"": ["eos"], "eos": []}, True),
        ("/eos", "a", {"": ["a"]}, False),
    ],
    ids=["above", "far-above", "away", "mount-away", "mount", "there"],
)
def test_a_folder_that_is_not_seen_is_empty_only_where_one_above_it_shows(
    root: str, path: str, shown: dict[str, list[str]], is_known: bool
) -> None:
    folder = Reference(MountRoot(root), path)

    def listing(reference: Reference, *, is_folder: bool = False) -> Entries:
        if reference == folder or reference.path not in shown:
            raise errors.NotFound("is not there")
        names = shown[reference.path]
        return Entries(FileInfo(reference=reference.child(name), size=0, is_directory=True) for name in names)

    cloud: Any = SimpleNamespace(storage=SimpleNamespace(list=listing), folder=folder)
    seen = usage.Usage(
        cloud=cloud, quota=Quota(total_bytes=None, used_bytes=0, remaining_bytes=None), trash=None, at_s=0
    )
    if is_known:
        assert usage.with_versions(seen).versions == VersionCounts()
    else:
        with pytest.raises(errors.NotFound):
            usage.with_versions(seen)
