"""Settings of the property tests, and the fixture of the tests of a transfer."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.unit.transfer_world import World, make_world

# No time limit per example: a loaded machine is no failure. The same examples each time: a test that passes stays so.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(params=["looks-first", "unseen"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two ends of a transfer in memory; once with a first look, as for a large file, and once without, as for the first
    attempt of a small one."""
    return make_world(monkeypatch, unseen=request.param == "unseen")


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, only with a first look."""
    return make_world(monkeypatch, unseen=False)


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, only without a first look."""
    return make_world(monkeypatch, unseen=True)
