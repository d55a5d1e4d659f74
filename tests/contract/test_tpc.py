"""C8xx: third-party copies. The destination fetches from the source; its word is no proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import Reference, errors, tpc
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.conftest import fresh_place
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import Place, adler32, content

SIZE = 2 * 1024 * 1024 + 17
_REVA = pytest.param("reva", marks=pytest.mark.reva)


def pull(source: Place, file: Reference, destination: Place, target: Reference, **changes: str) -> list[tpc.Marker]:
    """Have ``destination`` fetch a file from ``source``."""
    markers: list[tpc.Marker] = []
    arguments = {
        "source_url": source.storage.endpoint.webdav.url(file),
        "destination_url": destination.storage.endpoint.webdav.url(target),
        "source_token": source.storage.access_token(),
        "destination_token": destination.storage.access_token(),
        **changes,
    }
    tpc.pull(destination.storage.http, on_marker=markers.append, **arguments)
    return markers


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
    assert destination.storage.endpoint.webdav.url(destination.file("target")) in str(caught.value)
    assert destination.names() == []


def test_c803_the_source_refuses_the_token(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.Unauthenticated) as caught:
        pull(source, file, destination, destination.file("target"), source_token="bad-token-4711")
    assert "HTTP 401" in str(caught.value)
    assert "4711" not in str(caught.value)
    assert destination.names() == []


def test_c804_the_destination_refuses_the_token(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.Unauthenticated) as caught:
        pull(source, file, destination, destination.file("target"), destination_token="bad-token-4711")
    assert "HTTP 401" in str(caught.value)
    assert "4711" not in str(caught.value)
    assert destination.names() == []


def test_c805_what_stands_at_the_destination_stays(source: Place, destination: Place) -> None:
    file, target = source.put("file", b"new"), destination.put("target", b"old")
    with pytest.raises(errors.AlreadyExists, match="something stands at the destination") as caught:
        pull(source, file, destination, target)
    assert destination.storage.endpoint.webdav.url(target) in str(caught.value)
    assert destination.stored(target) == b"old"
    assert source.stored(file) == b"new"


@pytest.fixture(params=["v3", _REVA])
def without_tpc(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A folder in a cloud whose WebDAV front end does no third-party copies."""
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


def test_c806_third_party_copies_are_off(without_tpc: Place) -> None:
    """Both ends have the same path, which is when a Reva that copies within itself would destroy the file."""
    file = without_tpc.put("file", b"the only copy")
    elsewhere = without_tpc.storage.endpoint.webdav.url(file).replace("127.0.0.1", "127.0.0.2")
    with pytest.raises((errors.Unsupported, errors.AlreadyExists)):
        pull(without_tpc, file, without_tpc, file, source_url=elsewhere)
    assert without_tpc.stored(file) == b"the only copy"
    with pytest.raises(errors.Unsupported, match="no third-party copies") as caught:
        pull(without_tpc, file, without_tpc, without_tpc.file("other"), source_url=elsewhere)
    assert without_tpc.storage.endpoint.webdav.url(without_tpc.file("other")) in str(caught.value)
    assert without_tpc.names() == ["file"]


@pytest.fixture
def embedded_pair(tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """Two embedded clouds, for faults inside the destination; it reports its progress all the time."""
    with (
        EmbeddedCloud(name="a") as a,
        EmbeddedCloud(name="b", marker_interval_s=0) as b,
        fresh_place(a, tmp_path / "a") as source,
        fresh_place(b, tmp_path / "b") as destination,
    ):
        yield source, destination


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
    assert destination.storage.endpoint.webdav.url(destination.file("target")) in str(caught.value)
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
    transferred = [marker.transferred_bytes for marker in pull(source, file, destination, destination.file("target"))]
    assert transferred == sorted(transferred)
    assert transferred[-1] == SIZE


def test_c812_a_pull_by_a_cloud_that_does_none(spaces: Place, tmp_path: Path) -> None:
    with EmbeddedCloud(name="source") as cloud, fresh_place(cloud, tmp_path / "source") as source:
        file = source.put("file", b"x")
        with pytest.raises(errors.Unsupported, match="no third-party copies") as caught:
            pull(source, file, spaces, spaces.file("target"))
        assert spaces.storage.endpoint.webdav.url(spaces.file("target")) in str(caught.value)
        assert source.stored(file) == b"x"
    assert spaces.names() == []
