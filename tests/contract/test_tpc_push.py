"""C821-C833: the source sends to the destination; a source that cannot takes it for a copy within itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import hidden_sibling
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.copying import SIZE, pull, push, url
from tests.contract.place import Place, adler32, content


@pytest.mark.parametrize("name", ["file", "a b%20#?&+;", "zoë"])
def test_c821_a_push_is_proven_by_the_checksum(source: Place, destination: Place, name: str) -> None:
    data = content(SIZE)
    file, target = source.put(name, data), destination.file(name)
    push(source, file, destination, target)
    assert destination.storage.stat(target).size == SIZE
    assert destination.storage.checksum(target) == adler32(data)
    assert destination.stored(target) == data
    assert source.stored(file) == data


def test_c822_the_source_is_missing(source: Place, destination: Place) -> None:
    """Reva breaks the connection; the reason is not told."""
    with pytest.raises(errors.TransferInterrupted) as caught:
        push(source, source.file("missing"), destination, destination.file("target"))
    assert url(source, source.file("missing")) in str(caught.value)
    assert destination.names() == []
    assert source.names() == []


def test_c823_the_source_refuses_the_token(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.Unauthenticated) as caught:
        push(source, file, destination, destination.file("target"), source_authorization="Bearer bad-token-4711")
    assert "HTTP 401" in str(caught.value)
    assert "4711" not in str(caught.value)
    assert destination.names() == []


def test_c824_a_refused_token_of_the_destination_is_not_told(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    push(source, file, destination, destination.file("target"), destination_authorization="Bearer bad-token-4711")
    assert destination.names() == [], "only a look at the destination tells"
    assert source.stored(file) == b"x"


def test_c825_what_stands_at_the_destination_is_not_safe(source: Place, destination: Place) -> None:
    """Why a transfer looks at the destination before it pushes."""
    file, target = source.put("file", b"new"), destination.put("target", b"old")
    push(source, file, destination, target)
    assert destination.stored(target) == b"new"
    assert source.stored(file) == b"new"


def test_c826_a_destination_that_cannot_be_reached(source: Place, destination: Place) -> None:
    file = source.put("file", b"x")
    with pytest.raises(errors.TransferInterrupted, match="without an outcome") as caught:
        push(source, file, destination, destination.file("target"), destination_url="http://127.0.0.1:1/target")
    assert url(source, file) in str(caught.value)
    assert source.stored(file) == b"x"


def test_c827_third_party_copies_are_off(without_tpc: Place) -> None:
    """Equal paths are when a Reva that copies within itself would destroy the file."""
    file = without_tpc.put("file", b"the only copy")
    same, other, below = (
        url(without_tpc, reference).replace("127.0.0.1", "127.0.0.2")
        for reference in (file, without_tpc.file("other"), without_tpc.file("missing").child("other"))
    )
    with pytest.raises(errors.Unsupported, match="copy within itself") as caught:
        push(without_tpc, file, without_tpc, file, destination_url=same)
    assert url(without_tpc, file) in str(caught.value)
    assert without_tpc.stored(file) == b"the only copy"
    with pytest.raises(errors.Unsupported, match="copy within itself"):
        push(without_tpc, file, without_tpc, file, destination_url=below)
    assert without_tpc.names() == ["file"], "nothing was written"
    with pytest.raises(errors.ProtocolViolation, match="a bare 201") as bare:
        push(without_tpc, file, without_tpc, file, destination_url=other)
    assert url(without_tpc, without_tpc.file("other")) in str(bare.value), "the stray is named"
    assert without_tpc.names() == ["file", "other"]
    # A name that only this package gives.
    hidden = hidden_sibling(without_tpc.file("other"))
    with pytest.raises(errors.ProtocolViolation, match="removed again"):
        push(without_tpc, file, without_tpc, file, destination_url=url(without_tpc, hidden).replace("0.0.1", "0.0.2"))
    assert without_tpc.names() == ["file", "other"]
    assert without_tpc.stored(file) == b"the only copy"


@pytest.mark.parametrize("status", [403, 500, 507])
def test_c828_a_claimed_success_is_found_out(source: Place, destination: Place, status: int) -> None:
    file, target = source.put("file", content(SIZE)), destination.file("target")
    destination.fault("webdav.put", f"return-{status}")
    push(source, file, destination, target)  # "success: Created"
    assert destination.pending() == []
    with pytest.raises(errors.NotFound):
        destination.storage.stat(target)
    assert source.stored(file) == content(SIZE)


@pytest.mark.parametrize("count", [0, 1, 4096, 1024 * 1024, SIZE - 1])
def test_c829_the_destination_may_break_off_at_any_byte(source: Place, destination: Place, count: int) -> None:
    file, target = source.put("file", content(SIZE)), destination.file("target")
    destination.fault("webdav.put", f"cut-after:{count}")
    with pytest.raises(errors.TransferInterrupted):
        push(source, file, destination, target)
    assert source.stored(file) == content(SIZE)
    if destination.names():
        assert destination.storage.stat(target).size < SIZE


def test_c830_silence_ends(source: Place, destination: Place) -> None:
    file = source.put("file", content(SIZE))
    destination.fault("webdav.put", "stall")
    impatient = replace(source, storage=source.impatient())
    with pytest.raises(errors.DeadlineExceeded, match="fell silent") as caught:
        push(impatient, file, destination, destination.file("target"))
    assert url(source, file) in str(caught.value)
    assert source.stored(file) == content(SIZE)


def test_c831_markers_tell_the_progress(embedded_pair: tuple[Place, Place]) -> None:
    source, destination = embedded_pair
    file = source.put("file", content(SIZE))
    transferred = push(source, file, destination, destination.file("target"))
    assert transferred == sorted(transferred)
    assert transferred[-1] == SIZE


def test_c832_a_push_by_a_cloud_that_does_none(spaces: Place, tmp_path: Path) -> None:
    with EmbeddedCloud(name="destination") as cloud, fresh_place(cloud, tmp_path / "destination") as destination:
        file = spaces.put("file", b"x")
        with pytest.raises(errors.Unsupported, match="no third-party copies"):
            push(spaces, file, destination, destination.file("target"))
        assert destination.names() == []
    assert spaces.stored(file) == b"x"
    assert spaces.names() == ["file"]


def test_c833_an_empty_file_does_not_arrive(source: Place, destination: Place) -> None:
    """Why a transfer never pushes one."""
    push(source, source.put("file", b""), destination, destination.file("target"))
    assert destination.names() == [], "it was sent without a length, and refused"
    pull(source, source.file("file"), destination, destination.file("target"))
    assert destination.stored(destination.file("target")) == b""
