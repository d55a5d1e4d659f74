"""A copy that everybody has given up, and that its site goes on with when a later attempt has done the work.

Seen with Reva v3.12.1, whose link was cut in the middle of a COPY: it heard nothing of the client that had gone, and
when the link was back it made a file of the half that it had. Here relays before both sites hold the bytes of the
first attempt back, and let no site notice that anybody has left.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Wish
from tests.contract.faulty_reva import FaultyReva
from tests.contract.http_relay import Moment, Witness
from tests.faults.conftest import Clouds, MakeScene
from tests.faults.scene import SIZE, Scene
from tests.sweeping import sweep

_LIMIT_S = 20.0

#: Where the bytes of a copy pass, and are held: in the source's answer, or in the request to the destination.
_BYTES: Mapping[Wish, str] = {"pull": "webdav.get", "push": "webdav.put", "relay": "data.put"}


class Held(Witness):
    """Holds the first copy that passes, in its middle, until it is told to let it go on.

    :param point: where its bytes pass.
    """

    def __init__(self, point: str) -> None:
        self._point = point
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._go_on = threading.Event()
        self._cut = False
        self.is_held = threading.Event()
        self.is_over = threading.Event()

    def passes(self, point: str, moment: Moment) -> None:
        if point == "webdav.copy" and moment == "after" and self._is_first(point):
            # Nobody tells the site that acts that its client has gone.
            self.is_over.wait()
        elif point == self._point and moment == "middle" and self._is_first(point):
            self.is_held.set()
            self._wait()

    def answered(self, point: str, sent_bytes: int) -> None:
        if point == self._point and sent_bytes >= SIZE // 2 and self._is_first(point):
            self.is_held.set()
            self._wait()

    def _is_first(self, point: str) -> bool:
        with self._lock:
            first = point not in self._taken
            self._taken.add(point)
            return first

    def _wait(self) -> None:
        self._go_on.wait()
        if self._cut:
            raise ConnectionResetError("the case says so")

    def let_go(self, *, cut: bool) -> None:
        """
        :param cut: the rest is lost; otherwise it comes.
        """
        self._cut = cut
        self._go_on.set()


@pytest.fixture(scope="module", params=["v3", pytest.param("reva", marks=pytest.mark.reva)])
def relayed(request: pytest.FixtureRequest, clouds: Clouds) -> Iterator[tuple[FaultyReva, FaultyReva]]:
    """Source and destination, each behind a relay."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(2):
            cloud = clouds.get(request.param, number)
            found.append(cloud if isinstance(cloud, FaultyReva) else stack.enter_context(FaultyReva(cloud)))  # type: ignore[arg-type]
        yield found[0], found[1]


def _late(scene: Scene) -> list[bytes]:
    """What the copy that went on has made, once there is something and it no longer changes."""
    deadline = time.monotonic() + _LIMIT_S
    before: list[bytes] = []
    while True:
        assert scene.destination.on_disk.read_bytes() == scene.data, "it came under the name of the right file"
        found = [path.read_bytes() for path in scene.destination.hidden()]
        if found and found == before:
            return found
        assert time.monotonic() < deadline, "nothing came late"
        before = found
        time.sleep(0.2)


@pytest.mark.parametrize("cut", [True, False], ids=["half", "whole"])
@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_a_copy_that_goes_on_after_another_has_brought_the_file(
    make_scene: MakeScene,
    relayed: tuple[FaultyReva, FaultyReva],
    monkeypatch: pytest.MonkeyPatch,
    mode: Wish,
    cut: bool,
) -> None:
    scene = make_scene(*relayed, mode)
    for site in (scene.source, scene.destination):
        # The question is a COPY, too, and is not what is held.
        assert site.end(mode).speaks_tpc()
    held = Held(_BYTES[mode])
    for cloud in relayed:
        cloud.witness = held
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr("rucio_cs3.cs3.webdav.tpc.MARKER_TIMEOUT_S", 3.0)
            scene.patience(idle_s=3.0)
            outcome = scene.run()
        assert held.is_held.is_set()
        assert outcome.state is State.FAILED
        scene.check(outcome, strays=True)
        scene.patience(idle_s=20.0)
        again = scene.run(attempt=1)
        assert again.state is State.DONE, again.reason
        scene.check(again, strays=True)
        held.let_go(cut=cut)
        (late,) = _late(scene)
    finally:
        held.let_go(cut=cut)
        held.is_over.set()
        for cloud in relayed:
            cloud.witness = Witness()
    assert scene.data.startswith(late)
    assert (len(late) == SIZE) is not cut
    scene.check(again, strays=True)
    assert len(sweep(scene.destination.end(mode))) == 1
    scene.check(again)
