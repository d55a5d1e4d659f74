"""C1431 to C1453: tokens of two sites, which die during a transfer, are swapped, and stay where they belong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from rucio_cs3.cs3 import CS3Storage, errors
from rucio_cs3.cs3.webdav import probes
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Wish
from tests.contract.faulty_reva import FaultyReva
from tests.contract.mortal import ALL, REVOKED, assert_says_whose, at_each_passage, secrets_of
from tests.contract.place import endpoint_of, provider_of
from tests.faults.pairs import PAIRS, label, marks_of
from tests.faults.scene import Scene, Site

Side = Literal["source", "destination"]

_SIDES: tuple[Side, Side] = ("source", "destination")
_WAYS = [
    pytest.param((kinds, mode), marks=marks_of(kinds), id=label(kinds, mode))
    for kinds, modes in PAIRS.items()
    for mode in modes
]


@dataclass
class Pair:
    """Two clouds behind relays, and how files go from one to the other."""

    source: FaultyReva
    destination: FaultyReva
    mode: Wish

    @property
    def both(self) -> list[FaultyReva]:
        return [self.source, self.destination]

    def side(self, side: Side) -> FaultyReva:
        return self.source if side == "source" else self.destination

    @contextlib.contextmanager
    def scene(self) -> Iterator[Scene]:
        """A fresh transfer; what no copy is for has been found out already, and all tokens live."""
        scene = Scene.make(self.source, self.destination, self.mode)
        with contextlib.closing(scene):
            for site in (scene.source, scene.destination):
                site.storage.stat(site.reference.parent.parent.parent)
            if self.mode == "push":
                scene.source.end(self.mode).speaks_tpc()
            elif self.mode == "pull":
                scene.destination.end(self.mode).speaks_tpc()
            yield scene


@pytest.fixture(scope="module")
def clouds(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, int], FaultyReva]]:
    """By kind and side, each started when it is first asked for."""
    with contextlib.ExitStack() as stack:

        class Clouds(dict[tuple[str, int], FaultyReva]):
            def __missing__(self, key: tuple[str, int]) -> FaultyReva:
                kind, number = key
                site: Any
                if kind == "reva":
                    site = request.getfixturevalue("reva_sites")[number]
                else:
                    site = stack.enter_context(EmbeddedCloud(name=f"{kind}-{number}", behaviour=Behaviour(kind)))
                self[key] = stack.enter_context(FaultyReva(site))
                return self[key]

        yield Clouds()


@pytest.fixture(params=_WAYS)
def pair(
    request: pytest.FixtureRequest,
    clouds: dict[tuple[str, int], FaultyReva],
    monkeypatch: pytest.MonkeyPatch,
    no_late_commit: None,
) -> Pair:
    kinds, mode = request.param
    monkeypatch.setattr("rucio_cs3.transfers.cs3_end.TPC_PROBES", probes.TPCProbes())
    monkeypatch.setattr("rucio_cs3.transfers.proof._LATE_S", (0.02, 0.05))
    # Nothing is broken off here, so nothing comes late.
    monkeypatch.setattr("rucio_cs3.transfers.aftermath._STUB_S", 0.1)
    monkeypatch.setattr("rucio_cs3.cs3.uploads.leftovers._STUB_S", 0.1)
    return Pair(clouds[kinds[0], 0], clouds[kinds[1], 1], mode)


def test_c1431_a_transfer_is_done_whenever_tokens_die(pair: Pair) -> None:
    # A first pull is asked for without a look; it has a case of its own.
    attempt = 1 if pair.mode == "pull" else 0
    for _, doom in at_each_passage(ALL, pair.both):
        with pair.scene() as scene:
            with doom:
                outcome = scene.run(attempt=attempt)
            assert outcome.state is State.DONE, (doom.at, outcome.reason)
            scene.check(outcome)


@pytest.mark.parametrize("pair", [way for way in _WAYS if "pull" in str(way.id)], indirect=True)
def test_c1433_so_is_a_first_pull(pair: Pair) -> None:
    for _, doom in at_each_passage(ALL, pair.both):
        with pair.scene() as scene:
            with doom:
                outcome = scene.run()
            assert outcome.state is State.DONE, (doom.at, outcome.reason)
            scene.check(outcome)


@pytest.mark.parametrize("side", _SIDES)
def test_c1432_a_revoked_identity_ends_a_transfer_cleanly(
    pair: Pair, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    cloud = pair.side(side)
    for _, doom in at_each_passage(REVOKED, pair.both, [cloud]):
        with pair.scene() as scene:
            with doom:
                outcome = scene.run(attempt=1)
            if outcome.state is not State.DONE:
                assert isinstance(outcome.error, errors.Unauthenticated), (doom.at, outcome.reason)
                assert_says_whose(outcome.error, cloud)
            _unharmed(scene, outcome)
            # Back in its rights, the next attempt ends well, whatever this one could not remove.
            for site in (scene.source, scene.destination):
                site.storage = _again(site)
            scene.check_next(outcome)
    assert not [secret for secret in secrets_of(*pair.both) if secret in caplog.text]


def _again(site: Site) -> CS3Storage:
    site.storage.close()
    return CS3Storage(endpoint_of(site.cloud), provider_of(site.cloud))


def _unharmed(scene: Scene, outcome: Outcome) -> None:
    assert scene.source.on_disk.read_bytes() == scene.data
    if scene.destination.on_disk.exists():
        assert scene.destination.on_disk.read_bytes() == scene.data
    else:
        assert outcome.state is State.FAILED
