"""The walk in the order of paths: every file once, from the beginning or from any place where another walk ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.inventory.crawl import Crawl, Entered, Found

TOP = Reference(MountRoot("/"), "top")

#: Names whose order in a folder is not that of their paths, and such as only bytes order.
PATHS = ["a", "a-b/x", "a.b", "b/c", "b-/c", "b", "b/d/e", "b0", "é/ü", "Z", "z/\U0001f600", "z/￿", "empty/"]


class Folders:
    """A tree in memory, listed as a storage does it, in an order that helps nobody."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.entries: dict[str, dict[str, bool]] = {"": {}}
        self.failures: dict[str, errors.CS3Error] = {}
        self.left_out: dict[str, int] = {}
        self.asked: list[str] = []
        self.together = 0
        self._inside = 0
        self._lock = threading.Lock()
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        above = ""
        *folders, name = path.split("/")
        for folder in folders:
            self.entries[above][folder] = True
            above = f"{above}/{folder}" if above else folder
            self.entries.setdefault(above, {})
        if name:
            self.entries[above][name] = False

    def remove(self, folder: str) -> None:
        above, _, name = folder.rpartition("/")
        del self.entries[above][name]
        del self.entries[folder]

    def __call__(self, reference: Reference) -> Entries:
        with self._lock:
            self._inside += 1
            self.together = max(self.together, self._inside)
        try:
            return self._listed(reference)
        finally:
            with self._lock:
                self._inside -= 1

    def _listed(self, reference: Reference) -> Entries:
        assert reference.path == TOP.path or reference.path.startswith(f"{TOP.path}/")
        path = reference.path[len(TOP.path) + 1 :]
        self.asked.append(path)
        if path in self.failures:
            raise self.failures[path]
        if path not in self.entries:
            raise errors.NotFound("is not there", target=str(reference))
        found = Entries(
            FileInfo(reference=reference.child(name), size=len(name), is_directory=is_directory, mtime_s=1.0)
            for name, is_directory in self.entries[path].items()
        )
        random.Random(path).shuffle(found)
        found.left_out = self.left_out.get(path, 0)
        return found


def files(events: Iterable[Found | Entered]) -> list[str]:
    return [event.path for event in events if isinstance(event, Found)]


def sorted_files(paths: Iterable[str]) -> list[str]:
    return sorted((path for path in paths if not path.endswith("/")), key=str.encode)


# "b" is a folder here, and cannot be a file, too.
PATHS.remove("b")


@pytest.mark.parametrize("threads", [1, 8])
def test_all_files_come_once_and_in_the_order_of_their_bytes(threads: int) -> None:
    found = files(Crawl(Folders(PATHS), TOP, threads=threads).events())
    assert found == sorted_files(PATHS)


def test_each_folder_is_asked_for_once_and_its_place_is_before_its_files() -> None:
    folders = Folders(PATHS)
    events = list(Crawl(folders, TOP).events())
    assert sorted(folders.asked) == sorted(folders.entries)
    assert [event.path for event in events if isinstance(event, Entered)] == sorted(folders.entries, key=_with_slash)
    positions = [event.position for event in events]
    assert positions == sorted(positions, key=str.encode)
    assert len(set(positions)) == len(positions)


def _with_slash(path: str) -> bytes:
    return f"{path}/".encode() if path else b""


def test_it_goes_on_after_any_event() -> None:
    events = list(Crawl(Folders(PATHS), TOP).events())
    for number, event in enumerate(events):
        again = list(Crawl(Folders(PATHS), TOP).events(event.position))
        assert [one.position for one in again] == [one.position for one in events[number + 1 :]], event


def test_what_lies_behind_is_not_listed_again() -> None:
    folders = Folders([f"{number:02}/f" for number in range(30)])
    assert files(Crawl(folders, TOP).events("28/f")) == ["29/f"]
    assert sorted(folders.asked) == ["", "28", "29"]


def test_folders_are_listed_beside_each_other_and_not_more_than_wished() -> None:
    folders = Folders([f"{number:02}/f" for number in range(40)])
    barrier = threading.Barrier(3, timeout=20)
    listed = folders._listed

    def meeting(reference: Reference) -> Entries:
        if reference.path.endswith(("00", "01", "02")):
            barrier.wait()  # breaks unless three are asked for at the same time
        return listed(reference)

    folders._listed = meeting  # type: ignore[method-assign]
    assert len(files(Crawl(folders, TOP, threads=3).events())) == 40
    assert folders.together == 3


def test_a_folder_that_is_removed_meanwhile_is_said_to_be_gone() -> None:
    folders = Folders(["a/f", "b/f", "c/f"])
    walk = Crawl(folders, TOP, threads=1).events()
    assert next(walk).path == ""
    folders.remove("b")
    events = list(walk)
    assert files(events) == ["a/f", "c/f"]
    assert [event.path for event in events if isinstance(event, Entered) and event.gone] == ["b"]


@pytest.mark.parametrize(
    "error", [errors.NotFound("is not there"), errors.InvalidRequest("a bad argument", code="CODE_INVALID_ARGUMENT")]
)
def test_a_folder_that_its_parent_still_lists_is_no_folder_that_is_gone(error: errors.CS3Error) -> None:
    folders = Folders(["a/f", "b/c/f", "d/f"])
    folders.failures["b/c"] = error
    events = list(Crawl(folders, TOP).events())
    assert files(events) == ["a/f", "d/f"]
    told = [(event.path, event.refused) for event in events if isinstance(event, Entered) and event.refused]
    assert told == [("b/c", error)]
    assert not any(isinstance(event, Entered) and event.gone for event in events)


def test_a_storage_that_is_away_is_no_empty_storage() -> None:
    folders = Folders(["a/b/f", "c"])
    walk = Crawl(folders, TOP, threads=1).events()
    assert next(walk).path == ""
    folders.entries.clear()
    with pytest.raises(errors.NotFound):
        list(walk)


def test_without_its_top_there_is_nothing() -> None:
    folders = Folders([])
    folders.entries.clear()
    with pytest.raises(errors.NotFound):
        list(Crawl(folders, TOP).events())


@pytest.mark.parametrize(
    "error",
    [
        errors.AccessDenied("no"),
        errors.ServerFault("no"),
        errors.Throttled("too many entries for a message", retryable=False),
    ],
)
def test_a_folder_that_cannot_be_listed_is_said_and_the_others_come(error: errors.CS3Error) -> None:
    folders = Folders(["a/f", "b/f", "c/f"])
    folders.failures["b"] = error
    events = list(Crawl(folders, TOP).events())
    assert files(events) == ["a/f", "c/f"]
    assert [event.refused for event in events if isinstance(event, Entered) and event.path == "b"] == [error]


@pytest.mark.parametrize(
    "error",
    [
        errors.Unavailable("gone"),
        errors.DeadlineExceeded("late"),
        errors.Unauthenticated("who"),
        errors.Throttled("slower, please"),
        errors.Cancelled("closed"),
    ],
)
def test_a_server_that_cannot_be_asked_ends_the_walk(error: errors.CS3Error) -> None:
    folders = Folders(["a/f", "b/f", "c/f"])
    folders.failures["b"] = error
    walk = Crawl(folders, TOP).events()
    seen = [next(walk).position for _ in range(3)]
    with pytest.raises(type(error)):
        next(walk)
    assert seen == ["", "a/", "a/f"]


@pytest.mark.parametrize("error", [errors.AccessDenied("no"), errors.InvalidRequest("is a file")])
def test_of_the_top_nothing_is_left_out(error: errors.CS3Error) -> None:
    folders = Folders(["f"])
    folders.failures[""] = error
    with pytest.raises(type(error)):
        list(Crawl(folders, TOP).events())


def test_a_file_in_the_place_of_a_folder_is_younger_than_the_walk() -> None:
    folders = Folders(["a/f", "b/f"])
    walk = Crawl(folders, TOP, threads=1).events()
    events = [next(walk)]
    folders.remove("b")
    folders.add("b")
    folders.failures["b"] = errors.InvalidRequest("is a file")
    events += walk
    assert files(events) == ["a/f"]
    assert [event.path for event in events if isinstance(event, Entered) and event.gone] == ["b"]


def test_what_nobody_can_name_is_counted() -> None:
    folders = Folders(["a/f"])
    folders.left_out["a"] = 3
    events = list(Crawl(folders, TOP).events())
    assert [event.left_out for event in events if isinstance(event, Entered)] == [0, 3]
