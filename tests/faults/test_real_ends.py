"""What only a real server shows: a Reva that dies, comes back or stands still in the middle, and disks that refuse.

A relay before one of the sites holds the bytes back, so that "in the middle" is a place and no matter of luck.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Wish
from tests.contract.faulty_reva import FaultyReva
from tests.faults.conftest import MakeScene
from tests.faults.scene import Scene, Side
from tests.sweeping import sweep

pytestmark = pytest.mark.reva

MODES: tuple[Wish, ...] = ("pull", "push", "relay")
_TIMEOUT_S = 60.0

#: Where bytes can be held back in each mode: for pull and relay between the source and who fetches, for push between
#: who sends and the destination.
_HELD: dict[Wish, tuple[Side, str]] = {
    "pull": ("source", "webdav.get"),
    "push": ("destination", "webdav.put"),
    "relay": ("source", "data.get"),
}


class OwnReva(FaultyReva):
    """A site for one test, whose server may be ended and started again at the same ports."""

    def __init__(self, name: str, directory: Path) -> None:
        reva = RevaSite(name, directory=directory)
        reva.start()
        super().__init__(reva)

    def stop(self) -> None:
        super().stop()
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.site.stop()

    def signal(self, number: signal.Signals) -> None:
        os.kill(int((self.site.directory / "revad.pid").read_text()), number)

    def kill(self) -> None:
        """End the server as a power cut does."""
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + _TIMEOUT_S
        while self.site.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self.site.running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[OwnReva, OwnReva]]:
    """Source and destination."""
    with OwnReva("from", tmp_path / "from") as source, OwnReva("to", tmp_path / "to") as destination:
        yield source, destination


def in_the_middle(scene: Scene, mode: Wish, act: Callable[[], None]) -> Outcome:
    """Run a transfer, and act when the first 1000 bytes of it have moved and no more will."""
    side, point = _HELD[mode]
    faults = scene.site(side).cloud.faults
    faults.add(point, "stall-after:1000")
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(scene.run()), daemon=True)
    thread.start()
    deadline = time.monotonic() + _TIMEOUT_S
    while faults.pending() and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert faults.pending() == []
    act()
    thread.join(_TIMEOUT_S)
    (outcome,) = outcomes
    return outcome


def until_done(scene: Scene) -> None:
    """Further attempts until one succeeds, for a server may come back only after a while, and then nothing is left."""
    deadline = time.monotonic() + _TIMEOUT_S
    attempt = 1
    while True:
        outcome = scene.run(attempt=attempt, resumed=True)
        scene.check(outcome, strays=True)
        if outcome.state is State.DONE:
            break
        assert time.monotonic() < deadline, outcome.reason
        time.sleep(0.1)
    # A site that was away goes on with the first copy, and may make a hidden file of it only now.
    while sweep(scene.destination.end("auto")) or scene.strays():
        assert time.monotonic() < deadline, scene.strays()
        time.sleep(0.1)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("mode", MODES)
def test_a_site_dies_and_comes_back(
    make_scene: MakeScene, own: tuple[OwnReva, OwnReva], monkeypatch: pytest.MonkeyPatch, mode: Wish, side: Side
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.webdav.tpc.MARKER_TIMEOUT_S", 3.0)
    site = own[0] if side == "source" else own[1]
    scene = make_scene(*own, mode)
    scene.patience(call_s=5.0, operation_s=5.0, idle_s=3.0)

    def restart() -> None:
        site.kill()
        site.site.start()

    outcome = in_the_middle(scene, mode, restart)
    assert outcome.state is not State.DONE
    scene.check(outcome, strays=True)
    until_done(scene)


@pytest.mark.parametrize("mode", MODES)
def test_a_destination_stays_away(
    make_scene: MakeScene, own: tuple[OwnReva, OwnReva], monkeypatch: pytest.MonkeyPatch, mode: Wish
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.webdav.tpc.MARKER_TIMEOUT_S", 3.0)
    scene = make_scene(*own, mode)
    scene.patience(call_s=1.0, operation_s=1.0, idle_s=1.0)
    outcome = in_the_middle(scene, mode, own[1].kill)
    assert outcome.state is State.FAILED
    scene.check(outcome, strays=True)
    own[1].site.start()
    scene.patience(call_s=20.0, operation_s=20.0, idle_s=20.0)
    until_done(scene)


@pytest.mark.parametrize("mode", MODES)
def test_a_destination_stands_still(
    make_scene: MakeScene, own: tuple[OwnReva, OwnReva], monkeypatch: pytest.MonkeyPatch, mode: Wish
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.webdav.tpc.MARKER_TIMEOUT_S", 1.0)
    scene = make_scene(*own, mode)
    scene.patience(call_s=0.5, operation_s=0.5, idle_s=0.5)
    outcome = in_the_middle(scene, mode, lambda: own[1].signal(signal.SIGSTOP))
    assert outcome.state is State.FAILED
    scene.check(outcome, strays=True)
    own[1].signal(signal.SIGCONT)
    # What the destination still had in hand may be there by now, half or whole: the next attempt finds out.
    scene.patience(call_s=20.0, operation_s=20.0, idle_s=20.0)
    until_done(scene)


# -- disks ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A disk of its own under a folder; a skip by name where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no right to mount a disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ["size=128k", "ro"], ids=["full", "read-only"])
def test_a_disk_refuses(make_scene: MakeScene, mode: Wish, options: str) -> None:
    scene = make_scene("reva", "reva", mode)
    with mounted(scene.destination.on_disk.parent, options):
        outcome = scene.run()
        scene.check(outcome)
        assert outcome.state is State.FAILED
    scene.check_next(outcome)


@pytest.mark.parametrize("mode", MODES)
def test_a_leftover_on_a_disk_that_takes_no_removal(make_scene: MakeScene, mode: Wish) -> None:
    scene = make_scene("reva", "reva", mode)
    folder = scene.destination.on_disk.parent
    with mounted(folder, "size=1m"):
        scene.destination.write(b"of an earlier attempt")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        outcome = scene.run()
        scene.check(outcome, foreign=b"of an earlier attempt")
        assert outcome.state is State.FAILED
    scene.check_next(outcome)
