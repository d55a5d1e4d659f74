"""The pairs of clouds that the faults happen between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from rucio_cs3.cs3.webdav import probes
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.transfers.modes import Wish
from tests.contract.faulty_reva import FaultyReva
from tests.faults.scene import Scene

if TYPE_CHECKING:
    from tests.contract.place import Cloud

MakeScene = Callable[..., Scene]


class Clouds:
    """Clouds by kind and side, each started when it is first asked for."""

    def __init__(self, request: pytest.FixtureRequest, stack: contextlib.ExitStack) -> None:
        self._request = request
        self._stack = stack
        self._clouds: dict[tuple[str, int], Cloud] = {}

    def get(self, kind: str, number: int) -> Cloud:
        """
        :param kind: ``v3``, ``spaces`` or ``reva``.
        :param number: 0 for sources, 1 for destinations.
        """
        key = (kind, number)
        if key not in self._clouds:
            self._clouds[key] = self._stack.enter_context(self._make(kind, number))
        return self._clouds[key]

    def _make(self, kind: str, number: int) -> contextlib.AbstractContextManager[Cloud]:
        if kind == "reva":
            return FaultyReva(self._request.getfixturevalue("reva_sites")[number])
        name = f"{kind}-{'to' if number else 'from'}"
        # Reports at each block: real servers' come every 5 s, which is longer than these files take.
        return EmbeddedCloud(name=name, behaviour=Behaviour(kind), marker_interval_s=0)


@pytest.fixture(scope="session")
def clouds(request: pytest.FixtureRequest) -> Iterator[Clouds]:
    with contextlib.ExitStack() as stack:
        yield Clouds(request, stack)


@pytest.fixture
def make_scene(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeScene]:
    """Makes scenes between clouds of two kinds, or between two given clouds."""
    # What one case finds out about a site is not to help the next.
    monkeypatch.setattr("rucio_cs3.transfers.cs3_end.TPC_PROBES", probes.TPCProbes())
    monkeypatch.setattr("rucio_cs3.transfers.ladder._NAME_AGAIN_S", (0.02, 0.05))
    # No cloud here commits late. The longer waits are for real ones.
    monkeypatch.setattr("rucio_cs3.cs3.uploads.arrivals._LATE_COMMIT_S", 0.2)
    monkeypatch.setattr("rucio_cs3.cs3.namespace._LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr("rucio_cs3.transfers.proof._LATE_S", (0.05, 0.1))
    with contextlib.ExitStack() as stack:

        def make(source: str | Cloud, destination: str | Cloud, wish: Wish, *, equal_paths: bool = True) -> Scene:
            first = clouds.get(source, 0) if isinstance(source, str) else source
            second = clouds.get(destination, 1) if isinstance(destination, str) else destination
            if isinstance(second, EmbeddedCloud):
                # Its stubs are there before its answers are; a real one's may come later on a loaded machine.
                monkeypatch.setattr("rucio_cs3.transfers.aftermath._STUB_S", 0.2)
                monkeypatch.setattr("rucio_cs3.cs3.uploads.leftovers._STUB_S", 0.2)
            scene = Scene.make(first, second, wish, equal_paths=equal_paths)
            stack.callback(scene.close)
            return scene

        yield make
