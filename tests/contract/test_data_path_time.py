"""C134x: the data path and time: silence and slowness, and tokens that live shorter than a transfer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, errors
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.cloud.faults import FOREVER
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.conftest import fresh_place
from tests.contract.faces import StorageFace
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import TIMEOUTS, Cloud, Place, adler32, content
from tests.contract.truths import Truths

MIB = 1024 * 1024

#: Longest silence of a slow transfer, in seconds, and the bytes and rate that make it several times as long. Both are
#: so that what the kernel holds at both ends of a connection (about 3 MiB) has gone within it.
IDLE_S = 1.5
RATE = 4 * MIB
SLOW_BYTES = 16 * MIB

#: What a token lives, in whole seconds.
TOKEN_S = 2

pytestmark = pytest.mark.usefixtures("no_late_commit", "short_pauses", "quick_tus")


def test_c1341_slow_and_steady_is_not_silent(place: Place) -> None:
    """Up, down and a checksum at the same time, each of them several idle times long."""
    data = content(SLOW_BYTES)
    source, there = place.local_file(data, "up.bin"), place.put("there", data)
    storage = place.another(timeouts=replace(TIMEOUTS, idle_s=IDLE_S), upload_protocol="simple")
    place.fault("data.put", f"throttle:{RATE}")
    place.fault("data.get", f"throttle:{RATE}", 2)
    with ThreadPoolExecutor(3) as pool:
        up = pool.submit(storage.upload, source, place.file("new"))
        down = pool.submit(storage.download, there, place.local / "down")
        checksum = pool.submit(storage.checksum, there)
        assert up.result().seconds > 2 * IDLE_S
        assert down.result().seconds > 2 * IDLE_S
        assert checksum.result() == adler32(data)
    assert place.stored(place.file("new")) == data
    assert (place.local / "down").read_bytes() == data
    assert place.names() == ["new", "there"]


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("position", [0, SLOW_BYTES // 2, SLOW_BYTES])
def test_c1342_an_upload_that_stands_still_ends(
    place: Place, caplog: pytest.LogCaptureFixture, overwrite: bool, position: int
) -> None:
    quick = {"timeouts": replace(TIMEOUTS, idle_s=0.4), "upload_protocol": "simple"}
    truths = Truths(place, StorageFace(place, overwrite, quick), caplog, size=SLOW_BYTES).prepare_upload()
    place.fault("data.put", f"stall-after:{position}", FOREVER)
    error = truths.upload()
    # After the last byte a look decides; Reva's line has the file then.
    if error is not None or position != SLOW_BYTES:
        truths.fails(error, errors.DeadlineExceeded, words=("127.0.0.1", "PUT"))


@contextlib.contextmanager
def forgetful(kind: str, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A cloud whose access and transfer tokens live for two seconds."""
    if kind == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with (
            RevaSite("forgetful", access_token_lifetime_s=TOKEN_S, transfer_token_lifetime_s=TOKEN_S) as site,
            FaultyReva(site) as reva,
        ):
            yield reva
    else:
        with EmbeddedCloud(
            name="forgetful",
            behaviour=Behaviour(kind),
            access_token_lifetime_s=TOKEN_S,
            transfer_token_lifetime_s=TOKEN_S,
        ) as cloud:
            yield cloud


@pytest.mark.parametrize("kind", ["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def test_c1343_a_transfer_may_outlive_its_tokens(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each of them three lives of a token long, and at the same time: up and read back, over an old file, down,
    a checksum.
    """
    size, rate = 6 * MIB, MIB
    data = content(size)
    with forgetful(kind, request) as cloud, fresh_place(cloud, tmp_path / "local") as place:
        source, there = place.local_file(data, "up.bin"), place.put("there", data)
        place.put("old", b"old")
        # The read-back is not slowed down: that of the upload itself begins when all tokens are dead.
        place.fault("data.put", f"throttle:{rate}", 2)
        place.fault("data.get", f"throttle:{rate}", 2)
        storage: CS3Storage = place.another(upload_protocol="simple")
        with ThreadPoolExecutor(4) as pool:
            running = [
                pool.submit(storage.upload, source, place.file("new"), read_back=True),
                pool.submit(storage.upload, source, place.file("old"), overwrite=True, read_back=True),
                pool.submit(storage.download, there, place.local / "down"),
            ]
            checksum = pool.submit(storage.checksum, there)
            assert all(future.result().seconds > 2 * TOKEN_S for future in running)
            assert checksum.result() == adler32(data)
        assert place.names() == ["new", "old", "there"]
        for name in place.names():
            assert place.stored(place.file(name)) == data
        assert (place.local / "down").read_bytes() == data


@pytest.mark.parametrize("kind", ["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def test_c1344_so_may_one_in_several_requests(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload in pieces, and a download over a line that breaks.

    The transfer token of an upload in pieces is the name of what the server has of it. With a dead one it begins again,
    and then in one piece.
    """
    with forgetful(kind, request) as cloud, fresh_place(cloud, tmp_path / "local") as place:
        size = 6 * MIB
        down = Truths(place, StorageFace(place, overwrite=False), caplog, size=size).prepare_download()
        source = tmp_path / "up.bin"
        source.write_bytes(content(size, seed=2))
        place.fault("data.patch", f"throttle:{MIB}", FOREVER)
        place.fault("data.get", f"cut-after:{2 * MIB}")
        place.fault("data.get", f"throttle:{MIB}", FOREVER)
        with ThreadPoolExecutor(1) as pool:
            up = pool.submit(place.another(upload_protocol="tus").upload, source, place.folder.parent.child("pieces"))
            assert down.download() is None
            assert up.result().seconds > 2 * TOKEN_S
        offsets = [patch.upload_offset for patch in place.passed("data.patch")]
        assert MIB in offsets, "it began in pieces"
        assert offsets[-1] == 0, "and ended in one"
        assert place.stored(place.folder.parent.child("pieces")) == source.read_bytes()
