"""Settings of the property tests, and the fixture of the tests of a transfer."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.unit.transfer_world import World, make_world

# No time limit per example: a loaded machine is no failure. The same examples each time: a test that passes stays so.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two ends of a transfer in memory."""
    return make_world(monkeypatch)
