"""C801-C819: the destination fetches from the source; its word is no proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.copying import SIZE, pull, url
from tests.contract.place import Place, adler32, content


@pytest.mark.parametrize("name", ["file", "a b%20#?&+;", "zoë"])
def test_c801_a_pull_is_proven_by_the_checksum(source: Place, destination: Place, name: str) -> None:
    data = content(SIZE)
    file, target = source.put(name, data), destination.file(name)
    pull(source, file, destination, target)
    assert destination.storage.stat(target).size == SIZE
    assert destination.storage.checksum(target) == adler32(data)
    assert destination.stored(target) == data
    assert source.stored(file) == data


def test_c802_the_source_is_missing(source: Place, destination: Place) -> None:
    missing = source.file("missing")
    with pytest.raises(errors.NotFound, match="the source has no such file") as caught:
        pull(source, missing, destination, destination.file("target"))
    assert url(destination, destination.file("target")) in str(caught.value)
    assert destination.names() == []


def test_c803_the_source_refuses_the_token(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.Unauthenticated) as caught:
        pull(source, file, destination, destination.file("target"), source_authorization="Bearer bad-token-4711")
    assert "HTTP 401" in str(caught.value)
    assert "4711" not in str(caught.value)
    assert destination.names() == []


def test_c804_the_destination_refuses_the_token(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.Unauthenticated) as caught:
        pull(source, file, destination, destination.file("target"), destination_authorization="Bearer bad-token-4711")
    assert "HTTP 401" in str(caught.value)
    assert "4711" not in str(caught.value)
    assert destination.names() == []


def test_c805_what_stands_at_the_destination_stays(source: Place, destination: Place) -> None:
    file, target = source.put("file", b"new"), destination.put("target", b"old")
    with pytest.raises(errors.AlreadyExists, match="something stands at the destination") as caught:
        pull(source, file, destination, target)
    assert url(destination, target) in str(caught.value)
    assert destination.stored(target) == b"old"
    assert source.stored(file) == b"new"


def test_c806_third_party_copies_are_off(without_tpc: Place) -> None:
    """Both ends have the same path, which is when a Reva that copies within itself would destroy the file."""
    file = without_tpc.put("file", b"the only copy")
    elsewhere = url(without_tpc, file).replace("127.0.0.1", "127.0.0.2")
    with pytest.raises((errors.Unsupported, errors.AlreadyExists)):
        pull(without_tpc, file, without_tpc, file, source_url=elsewhere)
    assert without_tpc.stored(file) == b"the only copy"
    with pytest.raises(errors.Unsupported, match="no third-party copies") as caught:
        pull(without_tpc, file, without_tpc, without_tpc.file("other"), source_url=elsewhere)
    assert url(without_tpc, without_tpc.file("other")) in str(caught.value)
    assert without_tpc.names() == ["file"]


@pytest.mark.parametrize("status", [403, 500, 507])
def test_c807_a_claimed_success_is_found_out(embedded_pair: tuple[Place, Place], status: int) -> None:
    source, destination = embedded_pair
    file, target = source.put("file", content(SIZE)), destination.file("target")
    destination.fault("tpc.inner-put", f"return-{status}")
    pull(source, file, destination, target)  # "success: Created"
    assert destination.pending() == []
    with pytest.raises(errors.NotFound) as caught:
        destination.storage.stat(target)
    assert str(target) in str(caught.value)


def test_c808_a_wrong_byte_is_found_out(embedded_pair: tuple[Place, Place]) -> None:
    source, destination = embedded_pair
    data = content(SIZE)
    file, target = source.put("file", data), destination.file("target")
    destination.fault("tpc.inner-put", "flip-byte")
    pull(source, file, destination, target)
    assert destination.storage.stat(target).size == SIZE
    assert destination.storage.checksum(target) != adler32(data)


@pytest.mark.parametrize("point", ["tpc.inner-get", "tpc.inner-put", "webdav.copy"])
def test_c809_a_report_that_breaks_off_is_no_success(embedded_pair: tuple[Place, Place], point: str) -> None:
    source, destination = embedded_pair
    file = source.put("file", content(SIZE))
    destination.fault(point, "cut-after:1000")
    with pytest.raises(errors.TransferInterrupted) as caught:
        pull(source, file, destination, destination.file("target"))
    assert url(destination, destination.file("target")) in str(caught.value)
    assert source.stored(file) == content(SIZE)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("return-201", errors.ProtocolViolation),
        ("return-204", errors.ProtocolViolation),
        ("return-400", errors.Unsupported),
        ("return-503", errors.Unavailable),
        ("lost-answer", errors.TransferInterrupted),
        ("say:failure: rejected GET: 500", errors.ServerFault),
        ("say:", errors.TransferInterrupted),
    ],
)
def test_c810_the_destination_does_not_claim_success(
    embedded_pair: tuple[Place, Place], script: str, kind: type[errors.CS3Error]
) -> None:
    source, destination = embedded_pair
    file = source.put("file", b"x")
    destination.fault("webdav.copy", "say:nothing that anybody knows" if script == "say:" else script)
    with pytest.raises(kind) as caught:
        pull(source, file, destination, destination.file("target"))
    assert destination.pending() == []
    assert "127.0.0.1" in str(caught.value)
    assert source.stored(file) == b"x"


def test_c811_markers_tell_the_progress(embedded_pair: tuple[Place, Place]) -> None:
    source, destination = embedded_pair
    file = source.put("file", content(SIZE))
    transferred = pull(source, file, destination, destination.file("target"))
    assert transferred == sorted(transferred)
    assert transferred[-1] == SIZE


def test_c812_a_pull_by_a_cloud_that_does_none(spaces: Place, tmp_path: Path) -> None:
    with EmbeddedCloud(name="source") as cloud, fresh_place(cloud, tmp_path / "source") as source:
        file = source.put("file", b"x")
        with pytest.raises(errors.Unsupported, match="no third-party copies") as caught:
            pull(source, file, spaces, spaces.file("target"))
        assert url(spaces, spaces.file("target")) in str(caught.value)
        assert source.stored(file) == b"x"
    assert spaces.names() == []


@pytest.mark.parametrize("point", ["before", "within"])
def test_c813_silence_ends(source: Place, destination: Place, point: str) -> None:
    """The source says nothing, or stops in the middle; Reva then has nothing to report, and says nothing either."""
    file = source.put("file", content(SIZE))
    source.fault("webdav.get", "stall" if point == "before" else "stall-after:100000")
    impatient = replace(destination, storage=destination.impatient())
    with pytest.raises(errors.DeadlineExceeded, match="fell silent") as caught:
        pull(source, file, impatient, destination.file("target"))
    assert caught.value.retryable
    assert url(destination, destination.file("target")) in str(caught.value)
    assert source.stored(file) == content(SIZE)


@pytest.mark.parametrize("count", [0, 1, 4096, 1024 * 1024, SIZE - 1])
def test_c814_the_source_may_break_off_at_any_byte(source: Place, destination: Place, count: int) -> None:
    file, target = source.put("file", content(SIZE)), destination.file("target")
    source.fault("webdav.get", f"cut-after:{count}")
    with pytest.raises(errors.TransferInterrupted):
        pull(source, file, destination, target)
    assert source.stored(file) == content(SIZE)
    # What came until then may stand there; whole it is not.
    assert destination.names() in ([], ["target"])
    if destination.names():
        assert destination.storage.stat(target).size == count


def test_c815_a_lost_answer_leaves_it_open(source: Place, destination: Place) -> None:
    file, target = source.put("file", b"x"), destination.file("target")
    destination.fault("webdav.copy", "lost-answer")
    with pytest.raises(errors.TransferInterrupted):
        pull(source, file, destination, target)
    assert destination.stored(target) == b"x", "it was the answer that got lost"


@pytest.mark.parametrize(
    ("script", "kind", "seconds"),
    [
        ("return-503,retry-after:7", errors.Unavailable, 7),
        ("return-429,retry-after:120", errors.Throttled, 120),
        ("return-503", errors.Unavailable, None),
        ("return-500,retry-after:7", errors.ServerFault, None),
    ],
)
def test_c816_a_server_that_asks_for_time(
    source: Place, destination: Place, script: str, kind: type[errors.CS3Error], seconds: int | None
) -> None:
    file = source.put("file", b"x")
    destination.fault("webdav.copy", script)
    with pytest.raises(kind) as caught:
        pull(source, file, destination, destination.file("target"))
    assert caught.value.retry_after_s == seconds
    assert destination.names() == []


def test_c817_a_missing_folder_is_not_told(source: Place, destination: Place) -> None:
    file = source.put("file", content(SIZE))
    pull(source, file, destination, destination.file("missing").child("target"))
    assert destination.names() == []


@pytest.mark.parametrize("status", [403, 500, 503])
def test_c818_the_source_refuses(source: Place, destination: Place, status: int) -> None:
    """Reva passes the source's status on; a wish to be left alone would be the source's, and is not passed on."""
    file = source.put("file", b"x")
    source.fault("webdav.get", f"return-{status},retry-after:7")
    with pytest.raises(errors.for_http_status(status)) as caught:
        pull(source, file, destination, destination.file("target"))
    assert caught.value.retry_after_s is None
    assert destination.names() == []


def test_c819_a_source_that_cannot_be_reached(source: Place, destination: Place) -> None:
    file = source.file("file")
    with pytest.raises(errors.ServerFault):
        pull(source, file, destination, destination.file("target"), source_url="http://127.0.0.1:1/file")
    assert destination.names() == []
