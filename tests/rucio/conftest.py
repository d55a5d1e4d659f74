"""One Rucio for the tests that go through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from tests.rucio.recorded_rucio import RecordedRucio
from tests.rucio.story_clouds import StoryClouds


@pytest.fixture(scope="session")
def sandbox_rucio() -> Iterator[RecordedRucio]:
    """A Rucio with the sandbox's policy package, for all tests here; each has RSEs and a scope of its own."""
    with RecordedRucio(policy_package=SANDBOX_POLICY) as site:
        yield site


@pytest.fixture(scope="module")
def story_clouds(request: pytest.FixtureRequest) -> Iterator[StoryClouds]:
    """Starts the clouds of a module's stories; see ``--clouds``."""
    with contextlib.ExitStack() as stack:
        yield StoryClouds(request, stack)
