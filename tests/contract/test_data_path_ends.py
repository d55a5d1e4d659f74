"""C136x: the ends of processes in the middle of a transfer: a client that is killed, a Reva that is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.child import Child
from tests.contract.conftest import fresh_place
from tests.contract.faces import StorageFace
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import Place, content
from tests.contract.truths import OLD, Truths, Watch, at_progress, until

MIB = 1024 * 1024
SIZE = 12 * MIB
RATE = 8 * MIB

pytestmark = pytest.mark.usefixtures("no_late_commit", "short_pauses")


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_c1361_an_upload_is_killed_and_made_again(place: Place, overwrite: bool) -> None:
    """SIGKILL in the middle: nothing under the name, or what stood there; only a hidden sibling may be left."""
    target, data = place.file("target"), content(SIZE)
    if overwrite:
        place.put("target", OLD)
    source = place.local_file(data, "source.bin")
    place.fault("data.put", f"throttle:{RATE}")
    before = source.stat()
    with Watch(place.on_disk(target), OLD if overwrite else None) as watch:
        child = Child(place, target, source, overwrite=overwrite, tell=True, upload_protocol="simple")
        child.moved(SIZE // 2)
        child.kill()
        until(lambda: place.passed("data.put")[-1].received < SIZE and _visible(place) == ["target"] * overwrite)
    assert watch.wrong == []
    assert place.pending() == []
    with Watch(place.on_disk(target), OLD if overwrite else None, data) as watch:
        place.storage.upload(source, target, overwrite=overwrite)
    assert watch.wrong == []
    assert place.stored(target) == data
    assert _visible(place) == ["target"]
    assert len(place.names()) <= 2
    assert (source.stat().st_ino, source.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _visible(place: Place) -> list[str]:
    return [name for name in place.names() if not name.startswith(".rucio-cs3.")]


@pytest.fixture
def restarting(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[RevaSite, Callable[..., Truths]]]:
    """A Reva of its own that may be killed, and what makes a case in it."""
    request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(RevaSite("restarting", directory=tmp_path / "reva"))
        cloud = stack.enter_context(FaultyReva(site))
        place = stack.enter_context(fresh_place(cloud, tmp_path / "local"))

        def prepare(*, overwrite: bool) -> Truths:
            return Truths(place, StorageFace(place, overwrite, {"upload_protocol": "simple"}), caplog, size=SIZE)

        yield site, prepare


@pytest.mark.reva
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_c1362_reva_is_killed_while_it_receives(
    restarting: tuple[RevaSite, Callable[..., Truths]], overwrite: bool
) -> None:
    site, prepare = restarting
    truths = prepare(overwrite=overwrite).prepare_upload()
    expected = OLD if overwrite else None

    def kill() -> None:
        site.kill()

    truths.place.fault("data.put", f"throttle:{RATE}")
    with Watch(truths.place.on_disk(truths.target), expected) as watch, at_progress(SIZE // 2, kill) as progress:
        with pytest.raises(errors.CS3Error) as caught:
            truths.face.upload(truths.local, progress=progress)
        site.start()
    assert watch.wrong == []
    truths.fails(caught.value, errors.TransferInterrupted, errors.Unavailable, errors.DeadlineExceeded)
    assert truths.place.names() == sorted(["neighbour", *(["target"] if overwrite else [])])
    assert truths.upload() is None


@pytest.mark.reva
def test_c1363_reva_is_killed_and_started_again_while_it_sends(
    restarting: tuple[RevaSite, Callable[..., Truths]],
) -> None:
    site, prepare = restarting
    truths = prepare(overwrite=False).prepare_download()

    def restart() -> None:
        site.kill()
        site.start()

    truths.place.fault("data.get", f"throttle:{RATE}")
    with at_progress(SIZE // 2, restart) as progress:
        error = truths.download(progress=progress)
    if error is not None:
        truths.fails(error, errors.TransferInterrupted, errors.Unavailable, errors.DeadlineExceeded)
    assert truths.download() is None
