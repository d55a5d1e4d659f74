"""How tests are dealt out to workers."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import _SCATTERED, _scope

ROOT = Path(__file__).parents[2]


def test_a_file_with_servers_of_its_own_stays_whole() -> None:
    assert _scope("tests/rucio/test_conveyor.py::test_a[b::c]") == "tests/rucio/test_conveyor.py"
    for nodeid in ("tests/rucio/test_story.py::test_a", "tests/contract/test_tus.py::test_a[v3]"):
        assert _scope(nodeid) == nodeid


def test_files_that_are_named_are_there() -> None:
    assert [name for name in _SCATTERED if not (ROOT / name).is_file()] == []
