"""C3xx: downloads. Nothing stands under the local name unless it is whole, and nothing else is left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, FileInfo, Reference, errors
from rucio_cs3.cs3.http.client import Answer
from rucio_cs3.cs3.resources import Ticket
from tests.contract.place import Place, adler32, content

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
OLD = b"what stood there"


@pytest.fixture
def stored(place: Place) -> Reference:
    """A file in the cloud."""
    return place.put("file", content(SIZE))


@contextlib.contextmanager
def fails(place: Place, kind: type[BaseException], *words: str) -> Iterator[Path]:
    """The block fails to download to the path it is given; a file that stood there is unharmed."""
    target = place.local / "target"
    target.write_bytes(OLD)
    before = place.local_names()
    with pytest.raises(kind) as caught:
        yield target
    for word in words:
        assert word in str(caught.value)
    assert place.pending() == []
    assert target.read_bytes() == OLD
    assert place.local_names() == before


@pytest.mark.parametrize("name", ["missing", "missing/below"])
def test_c301_a_missing_file(place: Place, name: str) -> None:
    missing = place.file(name)
    with fails(place, errors.NotFound, str(missing)) as target:
        place.storage.download(missing, target)


def test_c302_a_folder(place: Place) -> None:
    with fails(place, errors.InvalidRequest, "is a folder", str(place.folder)) as target:
        place.storage.download(place.folder, target)


def test_c303_the_body_is_short(place: Place, stored: Reference) -> None:
    place.fault("data.get", f"short-body:{MIB}")
    with fails(place, errors.SizeMismatch, str(MIB), str(SIZE), str(stored)) as target:
        place.storage.download(stored, target)


def test_c304_the_body_is_long(place: Place, stored: Reference) -> None:
    place.fault("data.get", "long-body:5")
    with fails(place, errors.SizeMismatch, str(SIZE), str(stored)) as target:
        place.storage.download(stored, target)


@contextlib.contextmanager
def for_ever(place: Place, point: str, script: str) -> Iterator[None]:
    """A fault that no number of attempts gets past; and they do end."""
    place.fault(point, script, times=1000)
    try:
        yield
    finally:
        (left,) = place.pending()
        assert not left.endswith("x1000")
        place.cloud.faults.clear()


@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c305_the_connection_is_cut_for_good(place: Place, stored: Reference, position: int) -> None:
    place.fault("data.get", f"cut-after:{position}")
    with (
        fails(place, errors.TransferInterrupted, f"of {SIZE}", str(stored)) as target,
        for_ever(place, "data.get", "cut-after:0"),
    ):
        place.storage.download(stored, target)


def test_c306_a_byte_is_flipped_on_the_way(place: Place, stored: Reference) -> None:
    place.fault("data.get", "flip-byte")
    if place.storage.stat(stored).checksums:
        with fails(place, errors.ChecksumMismatch, "adler32", str(stored)) as target:
            place.storage.download(stored, target)
    else:
        # Where the server has no checksum, the one of what arrived is handed out for the caller to compare.
        moved = place.storage.download(stored, place.local / "target")
        assert moved.checksums["adler32"] == adler32((place.local / "target").read_bytes())
        assert moved.checksums["adler32"] != adler32(content(SIZE))


@pytest.mark.parametrize("script", ["stall", f"stall-after:{MIB}"])
def test_c307_the_server_falls_silent(place: Place, stored: Reference, script: str) -> None:
    place.fault("data.get", script)
    with (
        fails(place, errors.DeadlineExceeded, "fell silent", "127.0.0.1", str(stored)) as target,
        for_ever(place, "data.get", "stall"),
    ):
        place.impatient().download(stored, target)


@contextlib.contextmanager
def largest_file(limit: int) -> Iterator[None]:
    """Let this process write no file beyond ``limit`` bytes, as a full disk would (EFBIG in place of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_c308_the_local_disk_takes_no_more(place: Place, stored: Reference) -> None:
    with fails(place, errors.LocalError, "target", os.strerror(27)) as target, largest_file(2 * MIB):
        place.storage.download(stored, target)


def test_c309_the_local_folder_is_missing(place: Place, stored: Reference) -> None:
    before = place.local_names()
    target = place.local / "missing" / "target"
    with pytest.raises(errors.LocalNotFound) as caught:
        place.storage.download(stored, target)
    assert str(target) in str(caught.value)
    assert place.local_names() == before


def test_c310_a_local_file_is_replaced_at_the_end(place: Place, stored: Reference) -> None:
    target = place.local / "target"
    target.write_bytes(OLD)
    seen: list[bytes] = []
    place.storage.download(stored, target, progress=lambda _: seen.append(target.read_bytes()))
    assert set(seen) == {OLD}
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, errors.AccessDenied), (425, errors.TooEarly), (500, errors.ServerFault), (503, errors.Unavailable)],
)
def test_c311_the_data_gateway_refuses(
    place: Place, stored: Reference, status: int, kind: type[errors.CS3Error]
) -> None:
    with (
        fails(place, kind, f"HTTP {status}", "GET", str(stored)) as target,
        for_ever(place, "data.get", f"return-{status}"),
    ):
        place.storage.download(stored, target)


def test_c312_the_user_interrupts(place: Place, stored: Reference) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with fails(place, KeyboardInterrupt) as target:
        place.storage.download(stored, target, progress=interrupt)


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [("cut-after:0", errors.TransferInterrupted, str(SIZE)), ("short-body:1000", errors.SizeMismatch, "1000")],
)
def test_c313_a_checksum_of_part_of_a_file_is_none(
    place: Place, stored: Reference, script: str, kind: type[errors.CS3Error], text: str
) -> None:
    place.fault("data.get", "cut-after:1000")
    with for_ever(place, "data.get", script), pytest.raises(kind) as caught:
        place.storage.checksum(stored)
    assert text in str(caught.value)
    assert str(stored) in str(caught.value)


def test_c315_tickets_do_not_age_while_post_processing_is_waited_for(
    place: Place, stored: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = place.another()
    gateway, data = storage._gateway, storage._downloads._data
    stat, initiate, opened = gateway.stat, gateway.initiate_download, data.open
    looks, late, used = 0, [], []

    def look(reference: Reference) -> FileInfo:
        nonlocal looks
        looks += 1
        return replace(stat(reference), processing=looks == 1)

    def tickets(reference: Reference) -> Collection[Ticket]:
        given = initiate(reference)
        if threading.current_thread() is threading.main_thread():
            late.extend(given)
        return given

    def get(ticket: Ticket, **details: Any) -> AbstractContextManager[Answer]:
        used.append(ticket)
        return opened(ticket, **details)

    monkeypatch.setattr(gateway, "stat", look)
    monkeypatch.setattr(gateway, "initiate_download", tickets)
    monkeypatch.setattr(data, "open", get)
    storage.download(stored, place.local / "target")
    assert (place.local / "target").read_bytes() == content(SIZE)
    [ticket] = used
    assert any(ticket is one for one in late)


def test_c314_many_threads_share_a_storage(place: Place, stored: Reference) -> None:
    from concurrent.futures import ThreadPoolExecutor

    storage: CS3Storage = place.another()
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(storage.download, stored, place.local / f"copy-{n}") for n in range(16)]:
            assert future.result().checksums["adler32"] == adler32(content(SIZE))
