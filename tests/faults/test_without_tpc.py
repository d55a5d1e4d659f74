"""Sites whose front end does no third-party copies, on either side, with equal and with different paths.

There a ``COPY`` with a ``Destination`` at another site is a copy within the source itself. Where the paths were equal,
Reva v3.12.1 would destroy the file; they never are, because a copy lands on a hidden name, under which the copy then
stands where nobody looks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import PART_PREFIX
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.webdav import probes
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Mode, Wish
from tests.contract.faulty_reva import FaultyReva
from tests.faults.conftest import MakeScene
from tests.faults.scene import Scene

if TYPE_CHECKING:
    from tests.contract.place import Cloud

#: By which sites do third-party copies: source, destination.
OFF = {"the source": (False, True), "the destination": (True, False), "both": (False, False)}

WISHES: tuple[Wish, ...] = ("auto", "pull", "push", "relay")


@dataclass(frozen=True)
class Quartet:
    """Clouds of one kind by side and ability."""

    clouds: dict[tuple[str, bool], Cloud]

    def scene(self, make_scene: MakeScene, off: str, wish: Wish, *, equal_paths: bool) -> Scene:
        source, destination = OFF[off]
        scene = make_scene(
            self.clouds["source", source], self.clouds["destination", destination], wish, equal_paths=equal_paths
        )
        # The folder of the destination's path exists at the source: that is when a copy within it succeeds.
        scene.source.cloud.path_on_disk(scene.destination.relative).parent.mkdir(parents=True, exist_ok=True)
        return scene


@pytest.fixture(scope="module", params=["v3", pytest.param("reva", marks=pytest.mark.reva)])
def quartet(request: pytest.FixtureRequest) -> Iterator[Quartet]:
    clouds: dict[tuple[str, bool], Cloud] = {}
    with contextlib.ExitStack() as stack:
        reva = request.getfixturevalue("reva_sites") if request.param == "reva" else None
        for number, side in enumerate(("source", "destination")):
            for speaks in (True, False):
                if reva is None:
                    cloud = stack.enter_context(EmbeddedCloud(name=f"{side}-{speaks}".lower(), http_tpc=speaks))
                    clouds[side, speaks] = cloud
                    continue
                site = reva[number] if speaks else stack.enter_context(RevaSite(side, http_tpc=False))
                clouds[side, speaks] = stack.enter_context(FaultyReva(site))
        yield Quartet(clouds)


def expected(off: str, wish: Wish) -> Mode | None:
    """The mode that brings the file over; None where the RSEs ask for what the sites cannot do."""
    source, destination = OFF[off]
    if wish == "auto":
        return Mode.PULL if destination else Mode.PUSH if source else Mode.RELAY
    able = {"pull": destination, "push": source, "relay": True}[wish]
    return Mode(wish) if able else None


@pytest.mark.parametrize("equal_paths", [True, False], ids=["equal", "different"])
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("off", OFF)
def test_third_party_copy_is_off(
    make_scene: MakeScene, quartet: Quartet, off: str, wish: Wish, equal_paths: bool
) -> None:
    scene = quartet.scene(make_scene, off, wish, equal_paths=equal_paths)
    outcome = scene.run()
    scene.check(outcome)
    mode = expected(off, wish)
    if mode is None:
        assert outcome.state is State.FAILED
        assert isinstance(outcome.error, errors.Unsupported)
        scene.wish = "auto"
    else:
        assert (outcome.state, outcome.mode) == (State.DONE, mode)
    scene.check_next(outcome)


@pytest.mark.parametrize("equal_paths", [True, False], ids=["equal", "different"])
@pytest.mark.parametrize("off", OFF)
def test_third_party_copy_was_switched_off_after_it_was_proven(
    make_scene: MakeScene, quartet: Quartet, monkeypatch: pytest.MonkeyPatch, off: str, equal_paths: bool
) -> None:
    scene = quartet.scene(make_scene, off, "auto", equal_paths=equal_paths)
    with monkeypatch.context() as outdated:
        outdated.setattr("rucio_cs3.transfers.cs3_end.TPC_PROBES.ask", lambda *_, **__: True)
        outcome = scene.run()
    scene.check(outcome)
    if off == "both":
        # The pull is refused, and the source then makes a copy within itself, under the hidden name that was meant for
        # the destination.
        assert outcome.state is State.FAILED
        assert "it is removed again" in str(outcome.error)
        folder = scene.source.cloud.path_on_disk(scene.destination.relative).parent
        assert list(folder.glob(f"{PART_PREFIX}*")) == []
    else:
        assert outcome.state is State.DONE
    scene.check_next(outcome)


@pytest.mark.parametrize("equal_paths", [True, False], ids=["equal", "different"])
def test_a_proof_of_a_while_ago_is_none_for_a_push(
    make_scene: MakeScene, quartet: Quartet, monkeypatch: pytest.MonkeyPatch, equal_paths: bool
) -> None:
    scene = quartet.scene(make_scene, "both", "auto", equal_paths=equal_paths)
    now = [1000.0]
    known = probes.TPCProbes(lambda: now[0])
    monkeypatch.setattr("rucio_cs3.transfers.cs3_end.TPC_PROBES", known)
    root = scene.source.storage.endpoint.root
    for site in (scene.source, scene.destination):
        known.note(site.storage.endpoint.webdav.url(Reference(root)), speaks=True)
    # Since then it was switched off at both sites; for a pull nobody has to know.
    now[0] += 100
    outcome = scene.run()
    scene.check(outcome)
    assert (outcome.state, outcome.mode) == (State.DONE, Mode.RELAY)
    assert scene.watch.modes == [Mode.PULL, Mode.PUSH, Mode.RELAY]
    scene.check_next(outcome)


@pytest.mark.parametrize("attempt", [0, 1, 2, 3])
@pytest.mark.parametrize("off", OFF)
def test_each_further_attempt_is_safe_too(make_scene: MakeScene, quartet: Quartet, off: str, attempt: int) -> None:
    scene = quartet.scene(make_scene, off, "auto", equal_paths=True)
    outcome = scene.run(attempt=attempt)
    scene.check(outcome)
    assert outcome.state is State.DONE
    scene.check_next(outcome)
