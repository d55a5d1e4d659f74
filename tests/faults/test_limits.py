"""Destinations with a limit: a quota that is used up, post-processing that takes its time, tokens that live shortly."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Wish
from tests.contract.place import content
from tests.faults.conftest import MakeScene
from tests.faults.scene import SIZE

#: Destination's kind, and the modes that a v3 source can reach it by.
_WAYS: tuple[tuple[str, Wish], ...] = (
    ("v3", "pull"),
    ("v3", "push"),
    ("v3", "relay"),
    ("spaces", "push"),
    ("spaces", "relay"),
)


@pytest.fixture(scope="module")
def small(request: pytest.FixtureRequest) -> Iterator[EmbeddedCloud]:
    """Room for one file of a scene, and not for two."""
    with EmbeddedCloud(name="small", behaviour=Behaviour(request.param), quota_bytes=SIZE * 3 // 2) as cloud:
        yield cloud


@pytest.mark.parametrize(("small", "mode"), _WAYS, indirect=["small"])
def test_the_quota_is_used_up(make_scene: MakeScene, small: EmbeddedCloud, mode: Wish) -> None:
    filler = small.path_on_disk("filler")
    filler.write_bytes(content(SIZE))
    scene = make_scene("v3", small, mode)
    outcome = scene.run()
    scene.check(outcome)
    assert outcome.state is State.FAILED
    # OpenCloud says so when a ticket is asked for; Reva v3.12.1 answers the PUT with 500, and that only to us.
    told = mode == "relay" and small.behaviour is Behaviour.SPACES
    assert isinstance(outcome.error, errors.NoSpaceLeft if told else errors.ServerFault), outcome.reason
    filler.unlink()
    scene.forget("destination", "filler")
    scene.check_next(outcome)
    scene.destination.on_disk.unlink()


@pytest.fixture(scope="module")
def slow() -> Iterator[EmbeddedCloud]:
    """OpenCloud with post-processing, a virus scanner for example."""
    with EmbeddedCloud(name="slow", behaviour=Behaviour.SPACES, processing_delay_s=0.3) as cloud:
        yield cloud


@pytest.mark.parametrize("mode", ["push", "relay"])
def test_post_processing_is_waited_for(make_scene: MakeScene, slow: EmbeddedCloud, mode: Wish) -> None:
    scene = make_scene("v3", slow, mode)
    outcome = scene.run()
    scene.check(outcome)
    assert outcome.state is State.DONE
    scene.check_next(outcome)


@pytest.mark.parametrize("mode", ["push", "relay"])
def test_post_processing_takes_longer_than_anybody_waits(
    make_scene: MakeScene, slow: EmbeddedCloud, mode: Wish
) -> None:
    scene = make_scene("v3", slow, mode)
    scene.patience(processing_s=0.05)
    outcome = scene.run()
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.TooEarly), outcome.reason
    # What the server still has in hand cannot be removed; that is for the next attempt, once it is over.
    scene.check(outcome, strays=True)
    assert scene.destination.hidden()
    scene.patience(processing_s=20.0)
    again = scene.run(attempt=1)
    assert again.state is State.DONE, again.reason
    scene.check(again)


@pytest.fixture(scope="module")
def hasty() -> Iterator[tuple[EmbeddedCloud, EmbeddedCloud]]:
    """Two clouds whose access tokens live for two seconds."""
    with (
        EmbeddedCloud(name="hasty-from", access_token_lifetime_s=2) as source,
        EmbeddedCloud(name="hasty-to", access_token_lifetime_s=2) as destination,
    ):
        yield source, destination


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_tokens_that_ran_out_between_two_transfers(
    make_scene: MakeScene, hasty: tuple[EmbeddedCloud, EmbeddedCloud], mode: Wish
) -> None:
    scene = make_scene(*hasty, mode)
    first = scene.source.storage.access_token(), scene.destination.storage.access_token()
    deadline = time.monotonic() + 20.0
    while scene.source.storage.access_token() == first[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    outcome = scene.run()
    scene.check(outcome)
    assert outcome.state is State.DONE
    assert scene.destination.storage.access_token() != first[1]
    scene.check_next(outcome)
