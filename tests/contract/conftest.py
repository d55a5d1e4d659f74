"""The clouds that the contract is run against, and a fresh folder for each case. What is promised: docs/contract.md."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.faces import RucioFace, StorageFace
from tests.contract.faulty_reva import FaultyReva, behind_relays
from tests.contract.place import Cloud, Place, endpoint_of, provider_of
from tests.contract.truths import OLD, Truths

_REVA = pytest.param("reva", marks=pytest.mark.reva)
_numbers = itertools.count(1)


@contextlib.contextmanager
def _opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    if kind == "reva":
        sites: tuple[RevaSite, RevaSite] = request.getfixturevalue("reva_sites")
        with FaultyReva(sites[0]) as reva:
            yield reva
    else:
        with EmbeddedCloud(name=kind, behaviour=Behaviour(kind)) as cloud:
            yield cloud


@pytest.fixture(scope="session", params=["v3", "spaces", _REVA])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Each cloud in turn; one server for all its cases."""
    with _opened(request.param, request) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def spaces_cloud() -> Iterator[EmbeddedCloud]:
    """An embedded OpenCloud, for what only that line does."""
    with EmbeddedCloud(name="spaces-only", behaviour=Behaviour.SPACES) as cloud:
        yield cloud


@pytest.fixture(scope="session", params=["v3", _REVA])
def cloud_pair(request: pytest.FixtureRequest) -> Iterator[tuple[Cloud, Cloud]]:
    """Source and destination of third-party copies: two clouds of the same kind, of the line that does them."""
    if request.param == "reva":
        sites: tuple[RevaSite, RevaSite] = request.getfixturevalue("reva_sites")
        with FaultyReva(sites[0]) as source, FaultyReva(sites[1]) as destination:
            yield source, destination
    else:
        with EmbeddedCloud(name="source") as source_cloud, EmbeddedCloud(name="destination") as destination_cloud:
            yield source_cloud, destination_cloud


@contextlib.contextmanager
def fresh_place(cloud: Cloud, local: Path) -> Iterator[Place]:
    """A new folder in a cloud; at the end every planned fault must have happened."""
    endpoint = endpoint_of(cloud)
    storage = CS3Storage(endpoint, provider_of(cloud))
    folder = Reference(endpoint.root, f"case-{next(_numbers)}")
    storage.make_directories(folder)
    # The first absence makes the client find out how this server refuses tokens; no case's faults are for that.
    storage.exists(folder.child("nothing"))
    local.mkdir(exist_ok=True)
    cloud.traffic.clear()
    place = Place(cloud=cloud, storage=storage, folder=folder, local=local)
    try:
        yield place
        assert place.pending() == []
    finally:
        cloud.faults.clear()
        place.close()


@pytest.fixture
def place(cloud: Cloud, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in the cloud under test."""
    with fresh_place(cloud, tmp_path / "local") as place:
        yield place


@pytest.fixture
def spaces(spaces_cloud: EmbeddedCloud, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in an embedded OpenCloud."""
    with fresh_place(spaces_cloud, tmp_path / "local") as place:
        yield place


@pytest.fixture
def source(cloud_pair: tuple[Cloud, Cloud], tmp_path: Path) -> Iterator[Place]:
    with fresh_place(cloud_pair[0], tmp_path / "source") as place:
        yield place


@pytest.fixture
def destination(cloud_pair: tuple[Cloud, Cloud], tmp_path: Path) -> Iterator[Place]:
    with fresh_place(cloud_pair[1], tmp_path / "destination") as place:
        yield place


@pytest.fixture(params=["v3", _REVA])
def without_tpc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in a cloud of the line that does third-party copies, where they are switched off."""
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with (
            RevaSite("plain", http_tpc=False) as site,
            FaultyReva(site) as reva,
            fresh_place(reva, tmp_path / "plain") as place,
        ):
            yield place
    else:
        with EmbeddedCloud(name="plain", http_tpc=False) as cloud, fresh_place(cloud, tmp_path / "plain") as place:
            yield place


@pytest.fixture
def embedded_pair(tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """Source and destination in two embedded clouds that report their progress all the time."""
    with (
        EmbeddedCloud(name="a", marker_interval_s=0) as a,
        EmbeddedCloud(name="b", marker_interval_s=0) as b,
        fresh_place(a, tmp_path / "a") as source,
        fresh_place(b, tmp_path / "b") as destination,
    ):
        yield source, destination


@pytest.fixture(scope="session", params=["v3", "spaces", _REVA])
def mortal_cloud(request: pytest.FixtureRequest) -> Iterator[FaultyReva]:
    """Each cloud in turn, behind relays."""
    with behind_relays(request) as cloud:
        yield cloud


@pytest.fixture
def mortal(mortal_cloud: FaultyReva, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in a cloud behind relays."""
    with fresh_place(mortal_cloud, tmp_path / "local") as place:
        yield place


@pytest.fixture(autouse=True)
def _stubs_come_soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for what an embedded cloud might yet make of an upload that broke off: it does that within
    milliseconds, on a busy machine too. A real server gets the package's own time.
    """
    if request.node.get_closest_marker("reva") is None:
        monkeypatch.setattr("rucio_cs3.cs3.uploads.leftovers._STUB_S", 0.5)
        monkeypatch.setattr("rucio_cs3.transfers.aftermath._STUB_S", 0.5)


@pytest.fixture
def no_late_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a commit that a lost answer might have hidden; these servers do all at once."""
    monkeypatch.setattr("rucio_cs3.cs3.uploads.arrivals._LATE_COMMIT_S", 0.2)
    monkeypatch.setattr("rucio_cs3.cs3.namespace._LOOK_AGAIN_S", 0.02)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long between two attempts."""
    monkeypatch.setattr("rucio_cs3.cs3.retry.RetryPolicy.pause_s", lambda _self, _attempt: 0.01)


@pytest.fixture
def quick_tus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Short pieces and pauses for uploads by TUS, and a folder of their own for state files."""
    from rucio_cs3.cs3 import retry
    from rucio_cs3.cs3.uploads import tus, tus_uploads, upload_state

    folder = tmp_path / "states"
    monkeypatch.setenv(upload_state.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(tus_uploads, "FIRST_PIECE_BYTES", 1024 * 1024)
    monkeypatch.setattr(tus_uploads, "_PAUSES", retry.RetryPolicy(base_s=0.01, cap_s=0.05))
    monkeypatch.setattr(tus, "SETTLE_S", 0.1)
    monkeypatch.setattr("rucio_cs3.cs3.namespace._LOOK_AGAIN_S", 0.02)
    return folder


@pytest.fixture
def rucio_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as a Rucio client that knows of no server; for :class:`tests.contract.faces.RucioFace`."""
    pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")
    from rucio_cs3 import rses
    from tests.unit.rucio_client import configure

    (tmp_path / "home").mkdir()
    configure(tmp_path / "home", monkeypatch)
    # All settings are in the protocol's attributes; a client would ask its server for those of the RSE.
    monkeypatch.setattr(rses, "rse_attributes", lambda _settings: {})


@pytest.fixture(params=["new", "overwrite"])
def uploading(request: pytest.FixtureRequest, place: Place, caplog: pytest.LogCaptureFixture) -> Callable[..., Truths]:
    """Makes the upload of a case, to a new name and over an old file."""

    def prepare(*, size: int, old: bytes = OLD, **settings: Any) -> Truths:
        face = StorageFace(place, request.param == "overwrite", settings)
        return Truths(place, face, caplog, size=size).prepare_upload(old)

    return prepare


@pytest.fixture
def downloading(place: Place, caplog: pytest.LogCaptureFixture) -> Callable[..., Truths]:
    """Makes the download of a case, over an old local file."""

    def prepare(*, size: int, **settings: Any) -> Truths:
        return Truths(place, StorageFace(place, False, settings), caplog, size=size).prepare_download()

    return prepare


@pytest.fixture
def as_rucio(place: Place, caplog: pytest.LogCaptureFixture, rucio_client: None) -> Callable[..., Truths]:
    """Makes an upload or download of a case by the protocol class, as Rucio does; uploads are over an old file."""

    def prepare(*, size: int, **settings: Any) -> Truths:
        return Truths(place, RucioFace(place, settings), caplog, size=size)

    return prepare
