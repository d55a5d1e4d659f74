"""Clouds for programs: ``site`` is a fresh folder in each kind of cloud in turn, and ``TEST`` is its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.notebook.shared_files import SHARED
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.commands.clouds import CommandPlace
from tests.commands.conftest import _fresh, commands_cloud
from tests.contract.place import Cloud

__all__ = ["commands_cloud"]


@pytest.fixture
def site(commands_cloud: tuple[str, Cloud], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandPlace]:
    """A fresh folder in each kind of cloud in turn, which this process finds by the clouds file."""
    yield from _found_here(commands_cloud, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def notebook_spaces() -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud(name="notebook-spaces", behaviour=Behaviour.SPACES) as cloud:
        yield cloud


@pytest.fixture
def spaces_site(
    notebook_spaces: EmbeddedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandPlace]:
    """A fresh folder in an embedded OpenCloud only, for many tests of what no cloud can change."""
    yield from _found_here(("spaces", notebook_spaces), tmp_path, monkeypatch)


def _found_here(cloud: tuple[str, Cloud], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandPlace]:
    for place in _fresh(*cloud, tmp_path):
        for name, value in place.settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(place.local)
        place.cloud.traffic.clear()
        yield place
        # What is kept for a while would still be read from when the server ends.
        SHARED.clear()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some hundred kilobytes as large ones: they neither fit into the cache nor are fetched as a whole."""
    for name, value in {
        "PAGE_BYTES": 4096,
        "CACHE_BYTES": 4 * 4096,
        "WHOLE_BYTES": 2 * 4096,
        "SKIP_BYTES": 2 * 4096,
        "AHEAD_BYTES": 2 * 4096,
        "AHEAD_MAX_BYTES": 8 * 4096,
    }.items():
        monkeypatch.setattr(f"rucio_cs3.cs3.random_access.{name}", value)
    monkeypatch.setattr("rucio_cs3.cs3.spool.MEMORY_MAX_BYTES", 4096)
