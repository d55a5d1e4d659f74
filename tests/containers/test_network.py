"""What networks, machines and disks do to transfers, uploads and downloads, done to real ones.

Each case has three transfers under way (pull, push, relay), an upload and a download when something happens to one of
the sites. Afterwards nothing may be lost, and nothing half there; and what failed must end well at the next attempt.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference
from rucio_cs3.cs3.errors import AlreadyExists
from rucio_cs3.sandbox.ports import free_ports
from tests.containers import links
from tests.containers.containers import ContainerReva
from tests.containers.places import ContainerPlace
from tests.containers.traffic import MODES, Client, RucioWithHosts, Traffic, storage_of, working_rucio

pytestmark = [pytest.mark.docker, pytest.mark.links, pytest.mark.reva, pytest.mark.rucio]

SIZE_BYTES = 4_000_000

#: What a link carries in a second: so little that on the busiest machine nothing is over before something happens.
LINK_BYTES = 400_000

DISK_BYTES = 1_500_000

CABLE_BYTES = 400_000

_COME_BACK_S = 150.0

Sites = tuple[ContainerReva, ContainerReva]


@pytest.fixture(scope="module")
def rucio() -> Iterator[RucioWithHosts]:
    with working_rucio() as rucio:
        yield rucio


@pytest.fixture(scope="module")
def sites(container_place: ContainerPlace) -> Iterator[Sites]:
    """Where files come from, and where they go to."""
    with container_place.site("from") as source, container_place.site("to") as destination:
        yield source, destination


def pause(site: ContainerReva, place: ContainerPlace) -> Callable[[], None]:
    site.box.pause()
    return site.box.go_on


def kill(site: ContainerReva, place: ContainerPlace) -> Callable[[], None]:
    site.kill()
    return site.start


def cut(site: ContainerReva, place: ContainerPlace) -> Callable[[], None]:
    site.box.cut_off(place.network)
    return lambda: site.box.join(place.network)


class Both:
    """An upload to a site and a download from it."""

    def __init__(
        self, storage: CS3Storage, folder: str, directory: Path, *, sent_bytes: int, stored_bytes: int
    ) -> None:
        self._storage = storage
        self.up, self.down = (Reference(storage.endpoint.root, f"{folder}/{name}") for name in ("up", "down"))
        self.sent, self.stored, self.received = (directory / name for name in ("sent", "stored", "received"))
        self.sent.write_bytes(random.Random(folder).randbytes(sent_bytes))
        self.stored.write_bytes(random.Random(f"{folder} stored").randbytes(stored_bytes))
        storage.upload(self.stored, self.down)

    def begin(self) -> list[Client]:
        return [Client(self._upload), Client(self._download)]

    def _upload(self) -> object:
        return self._storage.upload(self.sent, self.up)

    def _is_there(self, site: ContainerReva) -> bool:
        return site.path_on_disk(self.up.path).read_bytes() == self.sent.read_bytes()

    def _download(self) -> object:
        return self._storage.download(self.down, self.received)

    def assert_nothing_half(self, site: ContainerReva) -> None:
        assert not self.received.exists()
        assert not site.path_on_disk(self.up.path).exists()

    def assert_done(self, site: ContainerReva) -> None:
        """Once more, now that nothing is in the way; a connection that was cut is found dead only after a while."""
        deadline = time.monotonic() + _COME_BACK_S
        left = [self._upload, self._download]
        while left:
            clients = [(work, Client(work)) for work in left]
            for _, client in clients:
                client.end()
            errors = [client.error for _, client in clients if client.error is not None]
            # One whose last answer was lost may have stored its file, which the next finds there.
            again = [error for error in errors if not (isinstance(error, AlreadyExists) and self._is_there(site))]
            assert all(error.retryable for error in again), errors
            assert not again or time.monotonic() < deadline, errors
            left = [work for work, client in clients if client.error in again]
        assert self.received.read_bytes() == self.stored.read_bytes()
        assert site.path_on_disk(self.up.path).read_bytes() == self.sent.read_bytes()


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("happen", [pause, kill, cut])
def test_a_site_is_away_for_a_while(
    container_place: ContainerPlace,
    sites: Sites,
    rucio: RucioWithHosts,
    tmp_path: Path,
    happen: Callable[[ContainerReva, ContainerPlace], Callable[[], None]],
    side: str,
) -> None:
    site = sites[0] if side == "source" else sites[1]
    traffic = Traffic(rucio, f"{happen.__name__}-{side}", *sites)
    with storage_of(site) as storage:
        # More than what waits in the buffers of both kernels when the site stands still.
        both = Both(storage, traffic.name, tmp_path, sent_bytes=4 * SIZE_BYTES, stored_bytes=4 * SIZE_BYTES)
        links.throttle(site.box, LINK_BYTES)
        traffic.begin(SIZE_BYTES)
        traffic.wait("all transfers to move", lambda: traffic.moving() == len(MODES))
        clients = both.begin()
        before = links.passed_bytes(site.box)
        traffic.wait("bytes to move", lambda: links.passed_bytes(site.box) > before + SIZE_BYTES // 4)
        heal = happen(site, container_place)
        try:
            traffic.wait("a failure", lambda: bool(traffic.failures()))
            for client in clients:
                client.end()
            both.assert_nothing_half(site)
        finally:
            heal()
        links.unthrottle(site.box)
        assert [client for client in clients if client.error is None] == [], "neither was in the middle of anything"
        both.assert_nothing_half(site)
        both.assert_done(site)
    traffic.finish()


def test_a_long_bad_cable(container_place: ContainerPlace, sites: Sites, rucio: RucioWithHosts, tmp_path: Path) -> None:
    traffic = Traffic(rucio, "cable", *sites)
    with storage_of(sites[1]) as storage:
        # TCP finds room for some 100 kB in a second there.
        both = Both(storage, traffic.name, tmp_path, sent_bytes=CABLE_BYTES, stored_bytes=CABLE_BYTES)
        with links.bad_cable(sites[1].box, round_trip_ms=100, loss=0.01, log=tmp_path / "cable.log"):
            traffic.begin(CABLE_BYTES)
            both.assert_done(sites[1])
            traffic.finish()


def test_a_slow_disk(container_place: ContainerPlace, sites: Sites, rucio: RucioWithHosts, tmp_path: Path) -> None:
    directory = tmp_path / "slow"
    directory.mkdir()
    with links.disk(directory / "storage", megabytes=64) as device:
        slow = [{"Path": device, "Rate": DISK_BYTES}]
        options = {"device_write_bps": slow}
        with container_place.site("slow", directory=directory, container_options=options) as site:
            traffic = Traffic(rucio, "slow-disk", sites[0], site)
            with storage_of(site) as storage:
                traffic.begin(SIZE_BYTES // 2)
                sizes = {"sent_bytes": SIZE_BYTES, "stored_bytes": SIZE_BYTES // 4}
                Both(storage, traffic.name, tmp_path, **sizes).assert_done(site)
                traffic.finish()


def test_sites_see_each_other_at_other_addresses(container_place: ContainerPlace, rucio: RucioWithHosts) -> None:
    """One name for each site, which means one address to the agent, and another one to the other site."""
    front, back = container_place.network, container_place.engine.network("back")
    both = []
    with contextlib.ExitStack() as stack:
        for side in ("a", "b"):
            name = f"{side}.sites.test"
            networks = [(front, container_place.address(front), ()), (back, container_place.address(back), (name,))]
            site = stack.enter_context(container_place.site(f"split-{side}", networks=networks, host=name))
            rucio.add_host(networks[0][1], name)
            both.append((site, networks[0][1], networks[1][1]))
        (source, at_front, at_back), (destination, *_) = both
        traffic = Traffic(rucio, "split", source, destination)
        traffic.begin(SIZE_BYTES)
        traffic.finish()
        # Pull and push went from site to site, the relay through the agent.
        assert links.passed_bytes(source.box, at_back) > 2 * SIZE_BYTES
        assert SIZE_BYTES < links.passed_bytes(source.box, at_front) < 2 * SIZE_BYTES


def test_sites_do_not_know_the_names_of_the_agent(container_place: ContainerPlace, rucio: RucioWithHosts) -> None:
    """Ports of the agent's own machine lead to the sites; a site that is sent there finds nobody."""
    with contextlib.ExitStack() as stack:
        sites = [container_place.site(f"published-{side}", published=free_ports(2)) for side in ("a", "b")]
        for site in sites:
            stack.enter_context(site)
        traffic = Traffic(rucio, "published", *sites, modes=["auto"])
        traffic.begin(SIZE_BYTES)
        traffic.finish()
