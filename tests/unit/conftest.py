"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# No time limit per example: a loaded machine is no failure. The same examples each time: a test that passes stays so.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")
