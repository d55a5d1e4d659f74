"""C11xx: downloads that break off and go on, over several streams, and in another process.

Large files are made of a few MiB here: what counts as large is set lower, and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import Reference, errors
from rucio_cs3.cs3.downloads.ranges import FRUITLESS_MAX, Block
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.cloud.faults import FOREVER
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.conftest import fresh_place
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import Cloud, Place, adler32, content

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
LARGE = 8 * MIB + 5
OLD = b"what stood there"


@pytest.fixture(scope="module", params=["spaces", "eos"])
def ranging_cloud(request: pytest.FixtureRequest) -> Iterator[EmbeddedCloud]:
    """The clouds that serve ranges: OpenCloud's, with etags, and Reva v3's with the EOS driver, without."""
    behaviour = Behaviour.SPACES if request.param == "spaces" else Behaviour.V3
    with EmbeddedCloud(name=request.param, behaviour=behaviour, ranges=request.param == "eos") as cloud:
        yield cloud


@pytest.fixture(scope="module", params=["v3", pytest.param("reva", marks=pytest.mark.reva)])
def plain_cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """The clouds that serve no ranges, and compute no checksums."""
    if request.param == "reva":
        sites: tuple[RevaSite, RevaSite] = request.getfixturevalue("reva_sites")
        with FaultyReva(sites[0]) as reva:
            yield reva
    else:
        with EmbeddedCloud(name="plain") as cloud:
            yield cloud


@pytest.fixture
def plain(plain_cloud: Cloud, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in a cloud that serves no ranges."""
    with fresh_place(plain_cloud, tmp_path / "local") as place:
        yield place


@pytest.fixture
def ranging(ranging_cloud: EmbeddedCloud, tmp_path: Path) -> Iterator[Place]:
    """A fresh folder in a cloud that serves ranges."""
    with fresh_place(ranging_cloud, tmp_path / "local") as place:
        yield place


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some MiB are fetched and kept as large ones are."""
    monkeypatch.setattr("rucio_cs3.cs3.downloads.ranges.BLOCK_BYTES", MIB)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._LOOK_S", 0.0)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._FAST_BYTES_PER_S", float("inf"))
    monkeypatch.setattr("rucio_cs3.cs3.downloads.part_files.KEPT_FROM_BYTES", MIB)
    monkeypatch.setattr("rucio_cs3.cs3.downloads.part_files.NOTED_EVERY_BYTES", MIB)


def has_ranges(place: Place) -> bool:
    return isinstance(place.cloud, EmbeddedCloud) and place.cloud.behaviour is Behaviour.SPACES


def asked_for(place: Place) -> list[str]:
    """The ranges of the GETs so far; empty for one of the whole file."""
    return [passed.asked_range for passed in place.passed("data.get")]


def whole(place: Place, target: Path, data: bytes) -> None:
    """The local file is whole, and alone."""
    assert target.read_bytes() == data
    assert [name for name in place.local_names() if name.startswith(".")] == []


def replace(place: Place, reference: Reference, data: bytes) -> None:
    """Somebody else stores another version."""
    with place.another() as storage:
        storage.upload(place.local_file(data, "other.bin"), reference, overwrite=True)


class At:
    """A progress callback that does something once, when so many bytes have come; counts them all."""

    def __init__(self, position: int, act: object) -> None:
        self.total = 0
        self._position = position
        self._act = act

    def __call__(self, count: int) -> None:
        self.total += count
        if self._act is not None and self.total >= self._position:
            act, self._act = self._act, None
            act()  # type: ignore[operator]


# -- one stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c1101_a_cut_connection_is_survived(place: Place, position: int) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    target = place.local / "target"
    steps: list[int] = []
    place.fault("data.get", f"cut-after:{position}")
    moved = place.storage.download(stored, target, algorithms=("adler32", "md5"), progress=steps.append)
    whole(place, target, data)
    assert moved.checksums["adler32"] == adler32(data)
    assert moved.size == sum(steps) == SIZE
    sent = sum(passed.sent for passed in place.passed("data.get"))
    if not position:
        assert asked_for(place) == ["", ""]
    elif has_ranges(place):
        assert asked_for(place) == ["", f"bytes={position}-{SIZE - 1}"]
        assert sent == SIZE, "each byte was sent once"
    else:
        # 416 to the range; then the whole once more.
        assert asked_for(place) == ["", f"bytes={position}-{SIZE - 1}", ""]
        assert sent == position + SIZE


def test_c1102_nothing_is_asked_for_again_when_all_has_come(place: Place) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    place.fault("data.get", f"cut-after:{SIZE}")
    place.storage.download(stored, place.local / "target")
    whole(place, place.local / "target", data)
    assert asked_for(place) == [""]


def test_c1103_a_line_that_breaks_all_the_time_is_survived(ranging: Place) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    times = LARGE // MIB
    assert times > 2 * FRUITLESS_MAX
    ranging.fault("data.get", f"cut-after:{MIB}", times=times)
    ranging.storage.download(stored, ranging.local / "target")
    whole(ranging, ranging.local / "target", data)
    assert sum(passed.sent for passed in ranging.passed("data.get")) == LARGE
    assert len(asked_for(ranging)) == times + 1


def test_c1104_a_line_that_lets_nothing_through_is_given_up(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    target = place.local_file(OLD, "target")
    place.fault("data.get", "cut-after:0", times=FRUITLESS_MAX)
    with pytest.raises(errors.TransferInterrupted) as caught:
        place.storage.download(stored, target)
    assert f"given up at byte 0 of {SIZE}" in str(caught.value)
    assert str(stored) in str(caught.value)
    whole(place, target, OLD)


def test_c1105_a_server_without_ranges_is_asked_once(plain: Place) -> None:
    data = content(SIZE)
    stored = plain.put("file", data)
    for name in ("one", "two"):
        plain.fault("data.get", "cut-after:1000")
        plain.storage.download(stored, plain.local / name)
        whole(plain, plain.local / name, data)
    assert asked_for(plain) == ["", f"bytes=1000-{SIZE - 1}", "", "", ""]


def test_c1106_a_server_may_ignore_a_range(ranging: Place) -> None:
    data = content(SIZE)
    stored = ranging.put("file", data)
    steps: list[int] = []
    ranging.fault("data.get", f"cut-after:{MIB}")
    ranging.fault("data.get", "ignore-range")
    ranging.storage.download(stored, ranging.local / "target", progress=steps.append)
    whole(ranging, ranging.local / "target", data)
    assert sum(steps) == SIZE
    assert asked_for(ranging) == ["", f"bytes={MIB}-{SIZE - 1}", ""]


def test_c1107_a_file_that_is_replaced_meanwhile_is_not_mixed(place: Place) -> None:
    old, new = content(SIZE, seed=1), content(SIZE + 5, seed=2)
    stored = place.put("file", old)
    place.fault("data.get", f"cut-after:{2 * MIB}")
    counted = At(2 * MIB, lambda: replace(place, stored, new))
    moved = place.storage.download(stored, place.local / "target", progress=counted)
    whole(place, place.local / "target", new)
    assert (moved.size, moved.checksums["adler32"]) == (len(new), adler32(new))
    assert counted.total == len(new)


def test_c1108_nor_one_of_the_same_size(place: Place) -> None:
    old, new = content(SIZE, seed=1), content(SIZE, seed=2)
    stored = place.put("file", old)
    # Reva's local driver makes etags of whole seconds, size and inode: another second, to be seen on all clouds.
    os.utime(place.on_disk(stored), (1_600_000_000, 1_600_000_000))
    place.fault("data.get", f"cut-after:{2 * MIB}")
    place.storage.download(stored, place.local / "target", progress=At(2 * MIB, lambda: replace(place, stored, new)))
    whole(place, place.local / "target", new)


def test_c1120_a_thread_that_is_late_writes_into_no_file(ranging: Place) -> None:
    """Each version has a part of its own; what still writes into that of an earlier one does no harm."""

    def replaced() -> None:
        [part] = [path for path in ranging.local.iterdir() if path.name.startswith(".")]
        late.append(os.open(part, os.O_WRONLY))
        replace(ranging, stored, new)

    late: list[int] = []
    new = content(SIZE, seed=2)
    stored = ranging.put("file", content(SIZE + 1, seed=1))
    ranging.fault("data.get", f"cut-after:{2 * MIB}")
    ranging.storage.download(stored, ranging.local / "target", progress=At(2 * MIB, replaced))
    with os.fdopen(late[0], "wb") as file:
        file.write(b"late")
    whole(ranging, ranging.local / "target", new)


def test_c1109_a_file_that_is_replaced_again_and_again_is_given_up(place: Place) -> None:
    stored = place.put("file", content(SIZE, seed=0))
    target = place.local_file(OLD, "target")
    seeds = iter(range(1, 100))
    total = 0

    def replaced(count: int) -> None:
        nonlocal total
        total += count
        if count > 0 and total >= 2 * MIB:
            seed = next(seeds)
            replace(place, stored, content(SIZE + seed, seed=seed))

    place.fault("data.get", f"cut-after:{2 * MIB}", times=3)
    with pytest.raises(errors.TransferInterrupted, match="replaced 3 times"):
        place.storage.download(stored, target, progress=replaced)
    whole(place, target, OLD)


def test_c1110_a_file_that_is_deleted_meanwhile_is_not_found(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    target = place.local_file(OLD, "target")
    place.fault("data.get", f"cut-after:{2 * MIB}")
    with place.another() as other, pytest.raises(errors.NotFound, match="file"):
        place.storage.download(stored, target, progress=At(2 * MIB, lambda: other.delete(stored)))
    whole(place, target, OLD)


@pytest.mark.parametrize("script", ["stall", f"stall-after:{2 * MIB}"])
def test_c1111_silence_is_survived(place: Place, script: str) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    place.fault("data.get", script)
    place.impatient().download(stored, place.local / "target")
    whole(place, place.local / "target", data)


@pytest.mark.parametrize("status", [425, 429, 502, 503, 504])
def test_c1112_a_busy_server_is_survived(place: Place, status: int) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    place.fault("data.get", f"return-{status}")
    place.fault("data.get", f"cut-after:{2 * MIB}")
    place.storage.download(stored, place.local / "target")
    whole(place, place.local / "target", data)


def test_c1113_a_server_that_asks_for_much_time_is_not_waited_for(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    target = place.local_file(OLD, "target")
    place.fault("data.get", "return-503,retry-after:3000")
    with pytest.raises(errors.Unavailable) as caught:
        place.storage.download(stored, target)
    assert caught.value.retry_after_s == 3000
    whole(place, target, OLD)


@pytest.mark.parametrize("point", ["gateway.Stat", "gateway.InitiateFileDownload", "data.get"])
def test_c1114_a_token_that_dies_in_between_is_renewed_unseen(place: Place, point: str) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    place.fault("data.get", f"cut-after:{2 * MIB}")
    # A data gateway looks at the transfer token first; what it says to a dead access token is 401.
    script = "return-401" if point == "data.get" else "expire-token"
    place.storage.download(stored, place.local / "target", progress=At(2 * MIB, lambda: place.fault(point, script)))
    whole(place, place.local / "target", data)


def test_c1115_a_wrong_byte_in_a_continuation_is_found_out(spaces: Place) -> None:
    stored = spaces.put("file", content(SIZE))
    target = spaces.local_file(OLD, "target")
    spaces.fault("data.get", f"cut-after:{MIB}")
    spaces.fault("data.get", "flip-byte")
    with pytest.raises(errors.ChecksumMismatch):
        spaces.storage.download(stored, target)
    whole(spaces, target, OLD)


def test_c1116_what_the_data_gateway_says_of_a_file_is_not_its_loss(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    target = place.local_file(OLD, "target")
    place.fault("data.get", "return-404")
    with pytest.raises(errors.ServerFault, match="HTTP 404"):
        place.storage.download(stored, target)
    whole(place, target, OLD)


def test_c1118_whoever_reads_it_and_however(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    for read in (
        lambda: place.storage.open(stored).__enter__(),
        lambda: place.storage.checksum(stored),
        lambda: place.storage.checksum(stored, size=SIZE),
    ):
        for status in (404, 410):
            place.fault("data.get", f"return-{status}")
            with pytest.raises(errors.ServerFault, match=f"HTTP {status}") as caught:
                read()
            assert str(stored) in str(caught.value)
    # Nor is what is said to whoever asks for a ticket.
    file = place.storage.open(stored)
    place.fault("gateway.InitiateFileDownload", "code:NOT_FOUND")
    with pytest.raises(errors.ServerFault, match="NOT_FOUND"):
        file.__enter__()
    place.fault("gateway.InitiateFileDownload", "code:NOT_FOUND")
    place.storage.download(stored, place.local / "target")


def test_c1119_a_file_that_is_gone_is_not_found(place: Place) -> None:
    stored = place.put("file", content(SIZE))
    file = place.storage.open(stored)
    place.storage.delete(stored)
    with pytest.raises(errors.NotFound):
        file.__enter__()
    with pytest.raises(errors.NotFound):
        place.storage.checksum(stored, size=SIZE)


def test_c1117_a_checksum_is_read_over_a_break(place: Place) -> None:
    data = content(SIZE)
    stored = place.put("file", data)
    place.fault("data.get", f"cut-after:{2 * MIB}")
    assert place.storage.checksum(stored) == adler32(data)


# -- several streams ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("streams", [2, 3, 8])
def test_c1121_streams_bring_each_byte_once(ranging: Place, streams: int) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    steps: list[int] = []
    moved = ranging.storage.download(stored, ranging.local / "target", streams=streams, progress=steps.append)
    whole(ranging, ranging.local / "target", data)
    assert moved.checksums == {"adler32": adler32(data)}
    assert sum(steps) == LARGE
    probe, *ranges = asked_for(ranging)
    assert probe == "bytes=0-0"
    spans = sorted(tuple(int(edge) for edge in one.removeprefix("bytes=").split("-")) for one in ranges)
    assert len(spans) >= streams
    assert spans[0][0] == 0
    assert spans[-1][1] == LARGE - 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.usefixtures("small_is_large")
def test_c1122_of_a_broken_stream_the_rest_is_fetched(ranging: Place) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    ranging.fault("data.get", "delay:1")
    ranging.fault("data.get", "cut-after:1000", times=3)
    ranging.storage.download(stored, ranging.local / "target", streams=4)
    whole(ranging, ranging.local / "target", data)
    assert sum(passed.sent for passed in ranging.passed("data.get")) == LARGE + 1


@pytest.mark.usefixtures("small_is_large")
def test_c1123_versions_are_not_mixed_by_streams(ranging: Place) -> None:
    old, new = content(LARGE, seed=1), content(LARGE, seed=2)
    stored = ranging.put("file", old)
    os.utime(ranging.on_disk(stored), (1_600_000_000, 1_600_000_000))
    counted = At(MIB, lambda: replace(ranging, stored, new))
    ranging.storage.download(stored, ranging.local / "target", streams=4, progress=counted)
    whole(ranging, ranging.local / "target", new)
    assert counted.total == LARGE


@pytest.mark.usefixtures("small_is_large")
def test_c1124_a_server_without_ranges_gets_one_stream(plain: Place) -> None:
    data = content(LARGE)
    stored = plain.put("file", data)
    for name in ("one", "two"):
        plain.storage.download(stored, plain.local / name, streams=4)
        whole(plain, plain.local / name, data)
    assert asked_for(plain) == ["bytes=0-0", "", ""]


@pytest.mark.usefixtures("small_is_large")
def test_c1125_a_server_that_stops_serving_ranges_is_survived(ranging: Place) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    steps: list[int] = []
    ranging.fault("data.get", "delay:1")
    ranging.fault("data.get", "ignore-range", times=2)
    ranging.storage.download(stored, ranging.local / "target", streams=2, progress=steps.append)
    whole(ranging, ranging.local / "target", data)
    assert sum(steps) == LARGE
    assert asked_for(ranging).count("") == 1


@pytest.mark.usefixtures("small_is_large")
def test_c1126_md5_takes_one_stream(ranging: Place) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    moved = ranging.storage.download(stored, ranging.local / "target", streams=4, algorithms=("md5",))
    assert moved.checksums["md5"]
    assert asked_for(ranging) == [""]


@pytest.mark.usefixtures("small_is_large")
def test_c1127_an_error_of_one_stream_ends_all(ranging: Place) -> None:
    stored = ranging.put("file", content(LARGE))
    target = ranging.local_file(OLD, "target")
    ranging.fault("data.get", "delay:1")
    ranging.fault("data.get", "return-403", FOREVER)
    with pytest.raises(errors.AccessDenied):
        ranging.storage.download(stored, target, streams=4)
    whole(ranging, target, OLD)


@pytest.mark.usefixtures("small_is_large")
def test_c1128_what_the_caller_raises_ends_all_streams(ranging: Place) -> None:
    stored = ranging.put("file", content(LARGE))
    target = ranging.local_file(OLD, "target")

    def refuse(_: int) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        ranging.storage.download(stored, target, streams=4, progress=refuse)
    whole(ranging, target, OLD)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("fast", [True, False])
def test_c1129_more_streams_are_for_slow_lines(ranging: Place, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._FAST_BYTES_PER_S", 100e6)
    data = content(LARGE)
    stored = ranging.put("file", data)
    threads: set[int] = set()

    def note_thread(_: int) -> None:
        threads.add(threading.get_ident())

    if fast:
        monkeypatch.setattr("rucio_cs3.cs3.downloads.downloads._FAST_BYTES_PER_S", 0.0)
    else:
        ranging.fault("data.get", "delay:1")
        ranging.fault("data.get", f"throttle:{4 * MIB}", times=8)
    ranging.storage.download(stored, ranging.local / "target", streams=4, progress=note_thread)
    whole(ranging, ranging.local / "target", data)
    assert (len(threads) == 1) is fast


# -- in another process ------------------------------------------------------------------------------------


def hidden(place: Place) -> list[str]:
    return sorted(name for name in place.local_names() if name.startswith("."))


def interrupted(place: Place, stored: Reference, target: Path, *, at: int = 4 * MIB) -> None:
    """A download whose line goes down for good after so many bytes."""
    place.fault("data.get", f"cut-after:{at}")
    place.fault("data.get", "cut-after:0", times=FRUITLESS_MAX - 1)
    with pytest.raises(errors.TransferInterrupted, match="is kept, and the same download"):
        place.storage.download(stored, target, streams=1)


@pytest.mark.usefixtures("small_is_large")
def test_c1131_what_has_come_of_a_large_file_is_kept(ranging: Place) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    target = ranging.local_file(OLD, "target")
    interrupted(ranging, stored, target)
    assert target.read_bytes() == OLD
    note, part = hidden(ranging)
    assert (part.endswith(".part"), note.endswith(".json")) == (True, True)
    assert (ranging.local / note).stat().st_mode & 0o077 == 0
    ranging.cloud.traffic.clear()
    steps: list[int] = []
    with ranging.another() as storage:
        moved = storage.download(stored, target, streams=1, progress=steps.append, algorithms=("adler32", "md5"))
    whole(ranging, target, data)
    assert (moved.checksums["adler32"], sum(steps)) == (adler32(data), LARGE)
    assert asked_for(ranging) == [f"bytes={4 * MIB}-{LARGE - 1}"]


@pytest.mark.usefixtures("small_is_large")
def test_c1132_nothing_is_kept_where_nobody_could_go_on(plain: Place) -> None:
    stored = plain.put("file", content(LARGE))
    target = plain.local_file(OLD, "target")
    plain.fault("data.get", f"cut-after:{4 * MIB}")
    plain.fault("data.get", "delay:1")  # the question for a range
    plain.fault("data.get", "cut-after:0", times=FRUITLESS_MAX - 1)
    with pytest.raises(errors.TransferInterrupted):
        plain.storage.download(stored, target, streams=1)
    whole(plain, target, OLD)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("streams", [1, 4])
def test_c1133_streams_go_on_with_what_is_kept(ranging: Place, streams: int) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    target = ranging.local / "target"

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranging.storage.download(stored, target, streams=streams, progress=At(6 * MIB, interrupt))
    assert len(hidden(ranging)) == 2
    ranging.cloud.traffic.clear()
    steps: list[int] = []
    ranging.storage.download(stored, target, streams=4, progress=steps.append)
    whole(ranging, target, data)
    assert sum(steps) == LARGE
    assert sum(passed.sent for passed in ranging.passed("data.get")) < LARGE


def change_note(place: Place, **changes: object) -> None:
    note = place.local / hidden(place)[0]
    note.write_text(json.dumps({**json.loads(note.read_text("utf-8")), **changes}), "utf-8")


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("change", ["version", "boot", "torn", "beyond", "shorter", "link", "another file"])
def test_c1134_what_is_not_known_to_be_of_this_version_is_not_used(ranging: Place, change: str, tmp_path: Path) -> None:
    data = content(LARGE)
    stored = ranging.put("file", data)
    target = ranging.local / "target"
    interrupted(ranging, stored, target)
    note, part = (ranging.local / name for name in hidden(ranging))
    wanted = stored
    elsewhere = tmp_path / "elsewhere"
    if change == "version":
        data = content(LARGE, seed=2)
        os.utime(ranging.on_disk(stored), (1_600_000_000, 1_600_000_000))
        replace(ranging, stored, data)
    elif change == "boot":
        change_note(ranging, boot="another")
    elif change == "torn":
        note.write_bytes(note.read_bytes()[:-5])
    elif change == "beyond":
        change_note(ranging, front=LARGE * 2)
    elif change == "shorter":
        os.truncate(part, MIB)
    elif change == "link":
        part.rename(elsewhere)
        part.symlink_to(elsewhere)
    else:
        wanted = ranging.put("another", data)
    before = elsewhere.read_bytes() if change == "link" else b""
    ranging.cloud.traffic.clear()
    ranging.storage.download(wanted, target, streams=1)
    assert target.read_bytes() == data
    assert asked_for(ranging) == [""]
    if change == "link":
        assert elsewhere.read_bytes() == before, "nothing is written through somebody's link"
    else:
        whole(ranging, target, data)


@pytest.mark.usefixtures("small_is_large")
def test_c1135_a_part_with_wrong_bytes_is_given_up(spaces: Place) -> None:
    data = content(LARGE)
    stored = spaces.put("file", data)
    target = spaces.local / "target"
    interrupted(spaces, stored, target)
    with (spaces.local / hidden(spaces)[1]).open("r+b") as part:
        part.write(b"other")
    spaces.storage.download(stored, target, streams=1)
    whole(spaces, target, data)


_DOWNLOADER = """
import sys
from pathlib import Path
from rucio_cs3.cs3.downloads import part_files, ranges
part_files.KEPT_FROM_BYTES = part_files.NOTED_EVERY_BYTES = ranges.BLOCK_BYTES = 1024 * 1024
from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, Timeouts, WebDAVBase, parse_root
gateway, url, root, user, password, path, target = sys.argv[1:]
endpoint = Endpoint(
    name="child", gateway=gateway, gateway_tls=False, webdav=WebDAVBase.parse(url, parse_root(root)),
    timeouts=Timeouts(idle_s=20.0),
)
total = 0
def progress(count):
    global total
    total += count
    print(total, flush=True)
with CS3Storage(endpoint, BasicProvider(user, Secret(password))) as storage:
    storage.download(Reference(endpoint.root, path), Path(target), progress=progress, streams=1)
"""


@contextlib.contextmanager
def downloading(place: Place, stored: Reference, target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that downloads, and says how many bytes have come; killed at the end."""
    user = next(iter(place.cloud.users.values()))
    arguments = [place.cloud.gateway, place.cloud.webdav_url, place.cloud.root, user.username, user.password]
    with subprocess.Popen(
        [sys.executable, "-c", _DOWNLOADER, *arguments, stored.path, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], count: int) -> None:
    """Wait until so many bytes have come there."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            return
    pytest.fail("it ended early")


@pytest.mark.usefixtures("small_is_large")
def test_c1136_a_killed_download_leaves_nothing_under_the_name(place: Place) -> None:
    data = content(LARGE)
    stored = place.put("file", data)
    target = place.local_file(OLD, "target")
    place.fault("data.get", f"stall-after:{5 * MIB}")
    with downloading(place, stored, target) as process:
        wait_for(process, 5 * MIB)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert target.read_bytes() == OLD
    place.cloud.traffic.clear()
    place.storage.download(stored, target, streams=1)
    whole(place, target, data)
    if has_ranges(place):
        assert asked_for(place) == [f"bytes={5 * MIB}-{LARGE - 1}"]
    else:
        assert asked_for(place) == [f"bytes={5 * MIB}-{LARGE - 1}", ""]


@pytest.mark.usefixtures("small_is_large")
def test_c1137_two_that_download_to_one_name_do_not_mix(place: Place) -> None:
    one, other = content(LARGE, seed=1), content(LARGE, seed=2)
    slow, fast = place.put("slow", one), place.put("fast", other)
    target = place.local / "target"
    place.fault("data.get", f"stall-after:{5 * MIB}")
    with downloading(place, slow, target) as process:
        wait_for(process, 5 * MIB)
        part = [name for name in hidden(place) if name.endswith(".part")]
        place.storage.download(fast, target, streams=1)
        assert target.read_bytes() == other
        # The other one's part is untouched.
        assert [name for name in hidden(place) if name.endswith(".part")] == part
    place.storage.download(slow, target, streams=1)
    whole(place, target, one)


@pytest.mark.usefixtures("small_is_large")
def test_c1138_old_parts_are_swept(ranging: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = ranging.put("file", content(LARGE))
    left = [ranging.local / name for name in (".rucio-cs3.0123456789abcdef.part", ".rucio-cs3.0123456789abcdef.json")]
    others = [ranging.local / name for name in (".rucio-cs3.rc", "file.part", ".rucio-cs3.fedcba9876543210.part")]
    for path in (*left, *others):
        path.write_bytes(b"x")
    old = time.time() - 8 * 24 * 3600
    for path in (*left, *others[:2]):
        os.utime(path, (old, old))
    ranging.storage.download(stored, ranging.local / "target", streams=1)
    assert [path for path in left if path.exists()] == []
    assert [path for path in others if not path.exists()] == []


def test_c1139_nothing_is_kept_of_a_small_file_or_where_it_is_not_wanted(
    ranging: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ranging.put("file", content(LARGE))
    target = ranging.local_file(OLD, "target")
    for limit, resume in ((LARGE + 1, True), (MIB, False)):
        monkeypatch.setattr("rucio_cs3.cs3.downloads.part_files.KEPT_FROM_BYTES", limit)
        monkeypatch.setattr("rucio_cs3.cs3.downloads.part_files.NOTED_EVERY_BYTES", MIB)
        ranging.fault("data.get", f"cut-after:{4 * MIB}")
        ranging.fault("data.get", "cut-after:0", times=FRUITLESS_MAX - 1)
        with pytest.raises(errors.TransferInterrupted) as caught:
            ranging.storage.download(stored, target, streams=1, resume=resume)
        assert "kept" not in str(caught.value)
        whole(ranging, target, OLD)


# -- size and room -----------------------------------------------------------------------------------------


def sparse(place: Place, name: str, size: int) -> Reference:
    """A file of so many bytes in the cloud that takes no room on its disk."""
    stored = place.put(name, b"")
    os.truncate(place.on_disk(stored), size)
    return stored


def test_c1141_a_file_that_the_local_disk_has_no_room_for_is_not_begun(plain: Place) -> None:
    disk = os.statvfs(plain.local)
    stored = sparse(plain, "file", disk.f_bavail * disk.f_frsize + 1024 * MIB)
    target = plain.local_file(OLD, "target")
    with pytest.raises(errors.LocalNoSpaceLeft, match="target"):
        plain.storage.download(stored, target, streams=1)
    whole(plain, target, OLD)
    assert asked_for(plain) == []


_MEASURED = """
import re
import sys
from pathlib import Path
from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, Timeouts, WebDAVBase, parse_root
from rucio_cs3.cs3.local_files import SafeFile

SafeFile.reserve = lambda self, size: None  # the disk of a test machine may have no room for all of it
gateway, url, root, user, password, small, large, target, limit = sys.argv[1:]

class Enough(Exception):
    pass

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

total = 0
def progress(count):
    global total
    total += count
    if total >= int(limit):
        raise Enough

endpoint = Endpoint(
    name="child", gateway=gateway, gateway_tls=False, webdav=WebDAVBase.parse(url, parse_root(root)),
    timeouts=Timeouts(idle_s=60.0),
)
with CS3Storage(endpoint, BasicProvider(user, Secret(password))) as storage:
    storage.download(Reference(endpoint.root, small), Path(target))
    before = peak_kib()
    try:
        storage.download(Reference(endpoint.root, large), Path(target), progress=progress, streams=1)
    except Enough:
        print(peak_kib() - before, total)
"""


def test_c1142_memory_does_not_grow_with_the_file(plain: Place) -> None:
    limit = 256 * MIB
    small, large = plain.put("small", content(4096)), sparse(plain, "large", 30 << 30)
    target = plain.local / "target"
    user = next(iter(plain.cloud.users.values()))
    arguments = [plain.cloud.gateway, plain.cloud.webdav_url, plain.cloud.root, user.username, user.password]
    answer = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments, small.path, large.path, str(target), str(limit)],
        check=True,
        capture_output=True,
        text=True,
    )
    grown_kib, total = map(int, answer.stdout.split())
    assert total >= limit
    assert grown_kib < 32 * 1024, "of what came, little is held at any time"
    assert hidden(plain) == []


def test_c1143_positions_have_more_than_32_bits(tmp_path: Path) -> None:
    """Only the last bytes of a sparse file are fetched."""
    with EmbeddedCloud(name="eos", ranges=True) as cloud, fresh_place(cloud, tmp_path / "local") as place:
        stored = sparse(place, "file", 5 << 30)
        first = (1 << 32) + 7
        with place.on_disk(stored).open("r+b") as file:
            file.seek(first)
            file.write(b"behind four GiB")
        reading = place.storage._downloads._reading(place.storage.stat(stored), (), None, None)
        block = Block(first, first + 15)
        came: list[tuple[int, bytes]] = []
        reading.fill(block, lambda position, piece: came.append((position, bytes(piece))))
        assert came == [(first, b"behind four GiB")]
        assert asked_for(place) == [f"bytes={first}-{first + 14}"]
