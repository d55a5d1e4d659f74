"""Folders that were there a moment ago: what is known, what is forgotten, how much is kept."""

from __future__ import annotations

from rucio_cs3.cs3.folder_memory import FolderMemory
from rucio_cs3.cs3.reference import MountRoot, Reference

ROOT = MountRoot("/localfs")


def folder(path: str) -> Reference:
    return Reference(ROOT, path)


def known(memory: FolderMemory, *paths: str) -> list[str]:
    return [path for path in paths if memory.knows(folder(path))]


def test_the_root_is_always_there() -> None:
    assert FolderMemory().knows(folder(""))


def test_a_folder_is_there_with_those_above_it() -> None:
    memory = FolderMemory()
    memory.learn(folder("a/b/c"))
    assert known(memory, "a", "a/b", "a/b/c", "a/b/c/d", "b") == ["a", "a/b", "a/b/c"]


def test_roots_are_not_mixed_up() -> None:
    memory = FolderMemory()
    memory.learn(folder("a"))
    assert not memory.knows(Reference(MountRoot("/other"), "a"))


def test_what_is_forgotten_is_forgotten_with_all_below_it() -> None:
    memory = FolderMemory()
    for path in ("a/b/c", "a/bb", "z"):
        memory.learn(folder(path))
    memory.forget(folder("a/b"))
    assert known(memory, "a", "a/b", "a/b/c", "a/bb", "z") == ["a", "a/bb", "z"]
    memory.forget(folder("never/heard/of"))
    assert len(memory) == 3


def test_the_memory_is_bounded_and_keeps_the_newest() -> None:
    memory = FolderMemory(most=10)
    for number in range(100):
        memory.learn(folder(f"a/{number}"))
        assert memory.knows(folder(f"a/{number}"))
        assert memory.knows(folder("a"))  # what is not known has nothing below it that is
        assert len(memory) <= 10
