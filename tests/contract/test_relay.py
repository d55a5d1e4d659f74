"""C9xx: relays. A file streams from one cloud through this process to another, neither of which speaks to the other.

The clouds are of the same line and of both, in both directions.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.hidden_names import hidden_sibling
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers import copies
from rucio_cs3.transfers.cs3_end import CS3End
from tests.contract.conftest import fresh_place
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import SETTLE_S, Cloud, Place, adler32, content
from tests.sweeping import sweep

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
DATA = content(SIZE)

pytestmark = pytest.mark.usefixtures("no_late_commit")

_PAIRS = [
    pytest.param(("v3", "v3"), id="v3-v3"),
    pytest.param(("spaces", "spaces"), id="spaces-spaces"),
    pytest.param(("v3", "spaces"), id="v3-spaces"),
    pytest.param(("spaces", "v3"), id="spaces-v3"),
    pytest.param(("reva", "reva"), id="reva-reva", marks=pytest.mark.reva),
]


@pytest.fixture(scope="module", params=_PAIRS)
def clouds(request: pytest.FixtureRequest) -> Iterator[tuple[Cloud, Cloud]]:
    """Source and destination, which could not copy by themselves."""
    if request.param == ("reva", "reva"):
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with (
            RevaSite("relay-a", http_tpc=False) as a,
            RevaSite("relay-b", http_tpc=False) as b,
            FaultyReva(a) as source,
            FaultyReva(b) as destination,
        ):
            yield source, destination
    else:
        origin, target = (Behaviour(kind) for kind in request.param)
        with (
            EmbeddedCloud(name="source", behaviour=origin, http_tpc=False) as source_cloud,
            EmbeddedCloud(name="destination", behaviour=target, http_tpc=False) as destination_cloud,
        ):
            yield source_cloud, destination_cloud


@dataclass(kw_only=True)
class Relay:
    """One relay of the file ``origin`` to the name ``target``, beside which a neighbour stands."""

    source: Place
    destination: Place
    origin: Reference
    target: Reference
    data: bytes

    def __post_init__(self) -> None:
        self.moved: list[int] = []
        #: Called at each progress, too.
        self.at: Callable[[int], None] = lambda moved: None
        #: Whether nothing but this relay puts something under the name.
        self.nobody_else = True
        self.destination.put("neighbour", b"neighbour")

    def run(
        self,
        *,
        source: CS3Storage | None = None,
        destination: CS3Storage | None = None,
        size: int | None = None,
        checksum: str | None = None,
    ) -> None:
        """Relay it, and give it its name; what fails before that removes what it has left by itself.

        ``size`` and ``checksum`` are the catalogue's, and those of the file by default.
        """
        landing = _end(destination or self.destination.storage, self.target).landing()
        size = len(self.data) if size is None else size
        sums = {"adler32": checksum or adler32(self.data)}
        copies.relay(size, sums, _end(source or self.source.storage, self.origin), landing, self._progress)
        assert not (self.nobody_else and self.destination.on_disk(self.target).exists()), "it has a name too early"
        try:
            landing.take_name(landing.stat())
        except errors.AlreadyExists:
            landing.discard(may_come=False)
            raise

    def _progress(self, moved: int) -> None:
        assert not (self.nobody_else and self.destination.on_disk(self.target).exists()), "it has a name too early"
        self.moved.append(moved)
        self.at(moved)

    def assert_nothing_landed(self) -> None:
        assert self.destination.names() == ["neighbour"]
        assert not self.destination.on_disk(self.target).exists()
        assert self.destination.stored(self.destination.file("neighbour")) == b"neighbour"
        self.assert_source_unharmed()

    def assert_landed(self) -> None:
        assert self.destination.names() == ["neighbour", "target"]
        assert self.destination.stored(self.target) == self.data
        self.assert_source_unharmed()

    def assert_source_unharmed(self) -> None:
        assert self.source.stored(self.origin) == self.data
        assert self.source.names() == [self.origin.name]


def _end(storage: CS3Storage, reference: Reference) -> CS3End:
    return CS3End(storage, reference, url=storage.endpoint.webdav.url(reference))


@contextlib.contextmanager
def _relay(clouds: tuple[Cloud, Cloud], tmp_path: Path, data: bytes = DATA) -> Iterator[Relay]:
    with (
        fresh_place(clouds[0], tmp_path / "source") as source,
        fresh_place(clouds[1], tmp_path / "destination") as destination,
    ):
        origin = source.put("origin", data)
        yield Relay(source=source, destination=destination, origin=origin, target=destination.file("target"), data=data)


@pytest.fixture
def relay(clouds: tuple[Cloud, Cloud], tmp_path: Path) -> Iterator[Relay]:
    with _relay(clouds, tmp_path) as relay:
        yield relay


@contextlib.contextmanager
def fails(relay: Relay, kind: type[BaseException], *words: str) -> Iterator[None]:
    """The block fails to relay, and leaves nothing."""
    with pytest.raises(kind) as caught:
        yield
    for word in words:
        assert word in str(caught.value)
    assert relay.source.pending() == []
    assert relay.destination.pending() == []
    relay.assert_nothing_landed()


# -- right and wrong content ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, SIZE])
def test_c901_bytes_come_over_as_they_are(clouds: tuple[Cloud, Cloud], tmp_path: Path, size: int) -> None:
    with _relay(clouds, tmp_path, content(size)) as relay:
        relay.run()
        relay.assert_landed()
        assert relay.destination.storage.checksum(relay.target) == adler32(relay.data)
        assert relay.moved == sorted(relay.moved)
        assert relay.moved[-1:] == [size][: bool(size)]


def test_c902_a_source_with_other_content_is_not_committed(relay: Relay) -> None:
    with fails(relay, errors.ChecksumMismatch, "the source sends other content", str(relay.origin)):
        relay.run(checksum="00000002")
    assert sum(relay.moved[-1:]) < SIZE


def test_c903_a_byte_that_is_flipped_at_the_source_is_not_committed(relay: Relay) -> None:
    relay.source.fault("data.get", "flip-byte")
    with fails(relay, errors.ChecksumMismatch, "the source sends other content", str(relay.origin)):
        relay.run()


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_c904_a_source_of_another_size_is_not_committed(relay: Relay, size: int) -> None:
    with fails(relay, errors.SizeMismatch, "the source has", f"says {size}", str(relay.origin)):
        relay.run(size=size)


@pytest.mark.parametrize("script", [f"short-body:{MIB}", "long-body:5"])
def test_c905_a_source_that_announces_another_size_is_not_begun(relay: Relay, script: str) -> None:
    relay.source.fault("data.get", script)
    with fails(relay, errors.SizeMismatch, "GET", str(SIZE), str(relay.origin)):
        relay.run()
    assert relay.moved == []


# -- faults of the source ---------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c906_the_source_is_cut(relay: Relay, position: int) -> None:
    relay.source.fault("data.get", f"cut-after:{position}")
    with fails(relay, errors.TransferInterrupted, "GET", f"{position} of {SIZE}", str(relay.origin)):
        relay.run()


@pytest.mark.parametrize("script", ["stall", f"stall-after:{MIB}"])
def test_c907_the_source_falls_silent(relay: Relay, script: str) -> None:
    relay.source.fault("data.get", script)
    with fails(relay, errors.DeadlineExceeded, "GET", "fell silent", str(relay.origin)):
        relay.run(source=relay.source.impatient())


@pytest.mark.parametrize(
    ("status", "kind"), [(403, errors.AccessDenied), (500, errors.ServerFault), (503, errors.Unavailable)]
)
def test_c908_the_source_refuses(relay: Relay, status: int, kind: type[errors.CS3Error]) -> None:
    # 403 may be about the ticket alone, so there is another one.
    relay.source.fault("data.get", f"return-{status}", times=2 if status == 403 else 1)
    with fails(relay, kind, "GET", f"HTTP {status}", str(relay.origin)):
        relay.run()


def test_c909_a_source_that_is_missing_or_a_folder(relay: Relay) -> None:
    folder = relay.origin.parent
    for origin, kind in ((relay.source.file("missing"), errors.NotFound), (folder, errors.InvalidRequest)):
        relay.origin, there = origin, relay.origin
        with pytest.raises(kind) as caught:
            relay.run()
        relay.origin = there
        assert str(origin) in str(caught.value)
        relay.assert_nothing_landed()


# -- faults of the destination ----------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c910_the_destination_is_cut(relay: Relay, position: int) -> None:
    relay.destination.fault("data.put", f"cut-after:{position}")
    with fails(relay, errors.TransferInterrupted, "PUT", str(relay.target.parent), "127.0.0.1"):
        relay.run()


@pytest.mark.parametrize("script", ["stall", f"stall-after:{MIB}"])
def test_c911_the_destination_falls_silent(relay: Relay, script: str) -> None:
    relay.destination.fault("data.put", script)
    with fails(relay, errors.DeadlineExceeded, "PUT", str(relay.target.parent)):
        relay.run(destination=relay.destination.impatient())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, errors.AccessDenied),
        (413, errors.NoSpaceLeft),
        (500, errors.ServerFault),
        (503, errors.Unavailable),
        (507, errors.NoSpaceLeft),
    ],
)
def test_c912_the_destination_refuses_or_is_full(relay: Relay, status: int, kind: type[errors.CS3Error]) -> None:
    relay.destination.fault("data.put", f"return-{status}", times=2 if status == 403 else 1)
    with fails(relay, kind, "PUT", f"HTTP {status}", str(relay.target.parent)):
        relay.run()


def test_c913_the_destination_gives_no_ticket(relay: Relay) -> None:
    relay.destination.fault("gateway.InitiateFileUpload", "code:INSUFFICIENT_STORAGE")
    with fails(relay, errors.NoSpaceLeft, "CODE_INSUFFICIENT_STORAGE", str(relay.target.parent)):
        relay.run()


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_c914_what_stands_at_the_destination_stays(relay: Relay, moment: str) -> None:
    def take_the_name(moved: int) -> None:
        if moved in (0, SIZE):
            relay.destination.put("target", b"somebody's")

    relay.nobody_else = False
    if moment == "before":
        take_the_name(0)
    else:
        relay.at = take_the_name
    with pytest.raises(errors.AlreadyExists) as caught:
        relay.run()
    assert str(relay.target) in str(caught.value)
    assert relay.moved[-1] == SIZE
    assert relay.destination.names() == ["neighbour", "target"]
    assert relay.destination.stored(relay.target) == b"somebody's"
    relay.assert_source_unharmed()


def test_c915_another_upload_that_was_faster_survives(relay: Relay) -> None:
    def somebody_else_is_faster(moved: int) -> None:
        relay.destination.put("target", b"theirs")
        raise errors.Cancelled("the request was cancelled")

    relay.nobody_else = False
    relay.at = somebody_else_is_faster
    with pytest.raises(errors.Cancelled):
        relay.run()
    assert relay.destination.names() == ["neighbour", "target"]
    assert relay.destination.stored(relay.target) == b"theirs"


# -- tokens and answers that get lost ---------------------------------------------------------------------


def _dead_token(point: str) -> str:
    # A data gateway looks at the transfer token first; what it says to a dead access token is 401.
    return "return-401" if point.startswith("data.") else "expire-token"


@pytest.mark.parametrize("point", ["gateway.Stat", "gateway.InitiateFileDownload", "data.get"])
def test_c916_the_token_of_the_source_dies(relay: Relay, point: str) -> None:
    relay.source.fault(point, _dead_token(point))
    relay.run()
    assert relay.source.pending() == []
    relay.assert_landed()


@pytest.mark.parametrize("point", ["gateway.Stat", "gateway.InitiateFileUpload", "data.put"])
def test_c917_the_token_of_the_destination_dies(relay: Relay, point: str) -> None:
    """At the PUT, the source is asked a second time: what it had sent is gone."""
    relay.destination.fault(point, _dead_token(point))
    relay.run()
    assert relay.destination.pending() == []
    assert relay.moved[-1] == SIZE
    relay.assert_landed()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_c918_two_dead_tokens_in_a_row_are_said(relay: Relay, side: str) -> None:
    place, method, name = {
        "source": (relay.source, "GET", str(relay.origin)),
        "destination": (relay.destination, "PUT", str(relay.target.parent)),
    }[side]
    place.fault(f"data.{method.lower()}", "return-401", times=2)
    with fails(relay, errors.Unauthenticated, method, "HTTP 401", name):
        relay.run()


def test_c919_a_source_that_refuses_at_the_second_beginning_is_named(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination's token dies, so the source is asked again; its refusal is not taken for the destination's."""
    seek = RemoteFile.seek

    def refused_from_now_on(file: RemoteFile, position: int, /) -> int:
        relay.source.fault("data.get", "return-401", times=2)
        return seek(file, position)

    monkeypatch.setattr(RemoteFile, "seek", refused_from_now_on)
    relay.destination.fault("data.put", "return-401")
    with fails(relay, errors.Unauthenticated, "GET", "HTTP 401", str(relay.origin)):
        relay.run()


def test_c920_a_lost_answer_to_the_upload_is_resolved_by_a_look(relay: Relay) -> None:
    relay.destination.fault("data.put", "lost-answer")
    relay.run()
    assert relay.destination.pending() == []
    assert relay.moved.count(SIZE) == 1  # not sent twice
    relay.assert_landed()


# -- ended from here --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [errors.Cancelled, KeyboardInterrupt])
def test_c921_a_relay_that_is_ended_leaves_nothing(relay: Relay, stop: type[BaseException]) -> None:
    def end(moved: int) -> None:
        raise stop("over")

    relay.at = end
    with fails(relay, stop):
        relay.run()
    assert len(relay.moved) == 1


class _Stuck(io.BytesIO):
    """A source that says so after two pieces, and nothing more."""

    def __init__(self, ready: Connection) -> None:
        super().__init__(DATA)
        self._ready = ready

    def readinto(self, buffer: Any) -> int:
        if self.tell() >= 2 * MIB:
            self._ready.send("stuck")
            self._ready.recv()  # for ever: nobody sends anything
        return super().readinto(memoryview(buffer)[:MIB])


def _begin_and_get_stuck(endpoint: Endpoint, login: tuple[str, str], reference: Reference, ready: Connection) -> None:
    with CS3Storage(endpoint, BasicProvider(login[0], Secret(login[1]))) as storage:
        _end(storage, reference).landing().store(UploadBody(_Stuck(ready), SIZE, Digests(), name="stuck"))


def _kill_a_relay_to(place: Place, reference: Reference) -> None:
    """Have another process begin to bring a file, and end it by SIGKILL."""
    context = multiprocessing.get_context("spawn")  # a fork would take gRPC's threads' locks along
    here, there = context.Pipe()
    user = next(iter(place.cloud.users.values()))
    process = context.Process(
        target=_begin_and_get_stuck,
        args=(place.storage.endpoint, (user.username, user.password), reference, there),
        daemon=True,
    )
    process.start()
    try:
        assert here.poll(60)
        assert here.recv() == "stuck"
    finally:
        process.kill()
        process.join()


def test_c922_what_a_killed_relay_left_is_found(relay: Relay) -> None:
    """Servers with paths keep what had come, under a hidden name; nothing is ever under the name itself."""
    place, other = relay.destination, relay.destination.file("other")
    paths = place.storage.endpoint.stores_paths
    for reference in (relay.target, other):
        _kill_a_relay_to(place, reference)
    deadline = time.monotonic() + SETTLE_S
    while paths and len(place.names()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    hidden = [name for name in place.names() if name.startswith(".rucio-cs3.")]
    assert len(hidden) == (2 if paths else 0)
    sweep(_end(place.storage, relay.target))
    # What the other file's relay left is for that file's next attempt to remove: it may be at work still.
    assert len(set(place.names()) & set(hidden)) == (1 if paths else 0)
    relay.run()
    sweep(_end(place.storage, other))
    relay.assert_landed()


def test_c923_nothing_else_is_taken_for_a_leftover(relay: Relay) -> None:
    place = relay.destination
    others = hidden_sibling(place.file("other"), traceable=True).name
    kept = [".hidden", ".rucio-cs3.0123456789abcdef.part", others, "target", "target.part"]
    for name in kept:
        place.put(name, b"kept")
    sweep(_end(place.storage, relay.target))
    assert sweep(_end(place.storage, place.file("missing/target"))) == []
    assert place.names() == sorted([*kept, "neighbour"])
