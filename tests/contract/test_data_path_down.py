"""C132x: the data path on the way down, by both public faces; what is asserted in every case is in ``truths.py``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.storage import Moved
from rucio_cs3.sandbox.cloud.faults import FOREVER
from tests.contract.faces import StorageFace
from tests.contract.place import SETTLE_S, Place, content
from tests.contract.test_downloads import largest_file
from tests.contract.truths import OLD, Truths, Watch, at_progress

MIB = 1024 * 1024
SIZE = 3 * MIB + 17

pytestmark = pytest.mark.usefixtures("short_pauses")

Downloading = Callable[..., Truths]

LOST = (errors.TransferInterrupted, errors.Unavailable, errors.DeadlineExceeded)


@pytest.mark.parametrize("position", [1, SIZE // 2])
def test_c1321_every_answer_is_cut(downloading: Downloading, position: int) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("data.get", f"cut-after:{position}", FOREVER)
    error = truths.download()
    # Where the server gives ranges, several parts make the whole.
    if error is None:
        assert len(truths.place.passed("data.get")) > 1
    else:
        truths.fails(error, errors.TransferInterrupted, words=("GET", str(SIZE)))


@pytest.mark.parametrize("script", [f"short-body:{SIZE - 1}", "long-body:1"])
def test_c1322_a_body_of_another_size(downloading: Downloading, script: str) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("data.get", script, FOREVER)
    truths.fails(truths.download(), errors.SizeMismatch, words=("GET",))


@pytest.mark.parametrize("position", [SIZE // 2, SIZE - 1])
def test_c1323_a_flipped_byte(downloading: Downloading, position: int) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("data.get", f"flip-byte-at:{position}")
    if truths.place.storage.stat(truths.file).checksums:
        truths.fails(truths.download(), errors.ChecksumMismatch, words=("GET",))
    else:
        # Nobody can know here; Rucio compares what it has got with its catalogue.
        flipped = bytearray(truths.new)
        flipped[position] ^= 1
        assert truths.download(also=(bytes(flipped),)) is None


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("return-429,retry-after:3000", errors.Throttled),
        ("return-502", errors.Unavailable),
        ("return-503,retry-after:3000", errors.Unavailable),
        ("return-504", errors.DeadlineExceeded),
        ("return-507", errors.NoSpaceLeft),
    ],
)
def test_c1324_a_refusal_keeps_its_meaning(downloading: Downloading, script: str, kind: type[errors.CS3Error]) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("data.get", script, FOREVER)
    truths.is_refused(truths.download(), kind, script, method="GET")


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("grpc:UNAVAILABLE", errors.Unavailable),
        ("grpc:RESOURCE_EXHAUSTED", errors.Throttled),
    ],
)
def test_c1325_the_gateway_gives_no_ticket(downloading: Downloading, script: str, kind: type[errors.CS3Error]) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("gateway.InitiateFileDownload", script, FOREVER)
    truths.fails(truths.download(), kind, words=("InitiateFileDownload",))


@pytest.mark.parametrize("script", ["grpc:UNAVAILABLE", "lost-answer"])
def test_c1326_a_short_outage_of_the_gateway_is_survived(downloading: Downloading, script: str) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("gateway.InitiateFileDownload", script)
    assert truths.download() is None


def test_c1327_the_data_gateway_is_away_and_the_gateway_is_there(downloading: Downloading) -> None:
    truths = downloading(size=SIZE)
    truths.place.fault("gateway.InitiateFileDownload", "nowhere", FOREVER)
    truths.fails(truths.download(), errors.Unavailable, words=("cannot be reached", "127.0.0.1"))


@pytest.mark.parametrize("script", ["return-503", "cut-after:0", "long-body:1"])
def test_c1328_an_empty_file_is_no_exception(downloading: Downloading, script: str) -> None:
    truths = downloading(size=0)
    truths.place.fault("data.get", script, FOREVER)
    error = truths.download()
    # A connection that ends after all the bytes there are has brought them.
    if error is not None:
        truths.fails(error, *LOST, errors.SizeMismatch, words=("GET",))
    else:
        assert script == "cut-after:0"


@pytest.fixture
def fetching(place: Place, caplog: pytest.LogCaptureFixture) -> Truths:
    """A download by the storage, which tells its progress."""
    return Truths(place, StorageFace(place, overwrite=False), caplog, size=SIZE).prepare_download()


def test_c1329_the_file_is_replaced(place: Place, fetching: Truths) -> None:
    other = content(SIZE, seed=2)
    changed = place.local.parent / "changed"
    changed.write_bytes(other)
    storage = place.another()
    with at_progress(1, lambda: storage.upload(changed, fetching.file, overwrite=True)) as progress:
        error = fetching.download(progress=progress, also=(other,))
    if error is not None:
        fetching.fails(error, errors.IntegrityError, errors.TransferInterrupted, errors.PreconditionFailed)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("another", [False, True])
def test_c1330_the_part_file_is_taken_away(
    place: Place, fetching: Truths, monkeypatch: pytest.MonkeyPatch, another: bool, kept: bool
) -> None:
    """And another download of the same file to the same place takes its name: each gets its own bytes, or none."""
    if kept:
        monkeypatch.setattr("rucio_cs3.cs3.downloads.part_files.KEPT_FROM_BYTES", 1)
    begun, go_on = threading.Event(), threading.Event()
    second: list[Future[Moved]] = []

    def wait(_: int) -> None:
        begun.set()
        assert go_on.wait(SETTLE_S)

    def tidy() -> None:
        for path in place.local.iterdir():
            if path != fetching.local:
                path.unlink()
        if another:
            second.append(pool.submit(place.another().download, fetching.file, fetching.local, progress=wait))
            assert begun.wait(SETTLE_S)

    with ThreadPoolExecutor(1) as pool, at_progress(1, tidy) as progress:
        if not another:
            fetching.fails(fetching.download(progress=progress), errors.LocalError, words=("moved",))
            return
        try:
            with Watch(fetching.local, OLD, fetching.new) as watch, pytest.raises(errors.LocalError, match="moved"):
                fetching.face.download(fetching.file, fetching.local, progress=progress)
            assert fetching.local.read_bytes() == OLD
        finally:
            go_on.set()
        assert second[0].result().size == SIZE
    assert watch.wrong == []
    assert fetching.local.read_bytes() == fetching.new
    assert place.local_names() == [fetching.local.name]


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[bool]:
    """Make ``folder`` a disk of its own (tmpfs), which only root may; False where that cannot be had."""
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_c1331_the_local_disk_is_full(downloading: Downloading) -> None:
    truths = downloading(size=SIZE)
    disk = truths.place.local / "disk"
    disk.mkdir()
    with small_disk(disk, 2 * MIB) as mounted, contextlib.ExitStack() as stack:
        if not mounted:
            stack.enter_context(largest_file(2 * MIB))
        target = disk / "moved"
        target.write_bytes(OLD)
        with pytest.raises(BaseException) as caught:  # noqa: PT011  # the face says of which class
            truths.face.download(truths.file, target)
        assert sorted(path.name for path in disk.iterdir()) == ["moved"]
        assert target.read_bytes() == OLD
    kind = errors.LocalNoSpaceLeft if mounted else errors.LocalError
    truths.fails(caught.value, kind, words=("moved",))


@pytest.mark.parametrize(
    ("point", "script", "kind"),
    [
        ("data.get", "cut-after:1", errors.TransferInterrupted),
        ("data.get", f"short-body:{SIZE - 1}", errors.SizeMismatch),
        ("data.get", "return-429,retry-after:3000", errors.Throttled),
        ("gateway.InitiateFileDownload", "grpc:UNAVAILABLE", errors.Unavailable),
        ("gateway.InitiateFileDownload", "nowhere", errors.Unavailable),
    ],
)
def test_c1332_a_download_by_rucio_is_no_exception(
    as_rucio: Downloading, point: str, script: str, kind: type[errors.CS3Error]
) -> None:
    truths = as_rucio(size=SIZE).prepare_download()
    truths.place.fault(point, script, FOREVER)
    truths.fails(truths.download(), kind)
