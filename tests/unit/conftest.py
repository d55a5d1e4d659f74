"""Settings of the property tests, and the fixture of the tests of a transfer."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.unit.transfer_world import World, make_world

# No time limit per example: a loaded machine is no failure. The same examples each time: a test that passes stays so.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(params=["looks-first", "guarded"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two ends of a transfer in memory; once with a destination whose names must be looked at, and once with one that
    has proven to guard them."""
    return make_world(monkeypatch, guards=request.param == "guarded")


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, only with a destination whose names must be looked at."""
    return make_world(monkeypatch)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, only with a destination that has proven to guard its names."""
    return make_world(monkeypatch, guards=True)
