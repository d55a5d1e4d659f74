"""C2xx: uploads that fail half way. Nothing new stands under the name, and what stood there stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.place import Place, content

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
OLD = b"what stood there"

pytestmark = pytest.mark.usefixtures("no_late_commit")

#: Both ways an upload is begun; what must be there after a failure differs.
both = pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])


class Attempt:
    """One upload that is to fail, and what must be as before afterwards."""

    def __init__(self, place: Place, *, overwrite: bool) -> None:
        self.place = place
        self.overwrite = overwrite
        self.neighbour = place.put("neighbour", b"neighbour")
        self.target: Reference = place.file("target")
        if overwrite:
            place.put("target", OLD)
        self.local = place.local_file(content(SIZE))

    def upload(self, storage: CS3Storage | None = None, **options: object) -> None:
        (storage or self.place.storage).upload(
            self.local,
            self.target,
            overwrite=self.overwrite,
            **options,  # type: ignore[arg-type]
        )

    def assert_nothing_happened(self) -> None:
        names = self.place.names()
        if self.overwrite:
            assert names == ["neighbour", "target"]
            assert self.place.stored(self.target) == OLD
            back = self.place.local / "back"
            self.place.storage.download(self.target, back)
            assert back.read_bytes() == OLD
        else:
            assert names == ["neighbour"]
            assert not self.place.on_disk(self.target).exists()
        assert self.place.stored(self.neighbour) == b"neighbour"


@contextlib.contextmanager
def fails(attempt: Attempt, kind: type[errors.CS3Error], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert not isinstance(caught.value, errors.NotFound)
    for word in words:
        assert word in str(caught.value)
    assert attempt.place.pending() == []
    attempt.assert_nothing_happened()


@both
@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c201_the_connection_is_cut(place: Place, overwrite: bool, position: int) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", f"cut-after:{position}")
    with fails(attempt, errors.TransferInterrupted, "PUT", str(place.folder), "127.0.0.1"):
        attempt.upload()


@both
def test_c202_a_byte_is_flipped_on_the_way(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", "flip-byte")
    with fails(attempt, errors.ChecksumMismatch, "PUT", str(place.folder)):
        attempt.upload(read_back=True)


@both
@pytest.mark.parametrize("script", ["stall", f"stall-after:{MIB}"])
def test_c203_the_server_falls_silent(place: Place, overwrite: bool, script: str) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", script)
    with fails(attempt, errors.DeadlineExceeded, "PUT", str(place.folder), "127.0.0.1"):
        attempt.upload(place.impatient())


@both
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, errors.AccessDenied),
        (409, errors.PreconditionFailed),
        (413, errors.NoSpaceLeft),
        (423, errors.Locked),
        (429, errors.Throttled),
        (500, errors.ServerFault),
        (503, errors.Unavailable),
        (507, errors.NoSpaceLeft),
    ],
)
def test_c204_the_data_gateway_refuses(place: Place, overwrite: bool, status: int, kind: type[errors.CS3Error]) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", f"return-{status}")
    with fails(attempt, kind, f"HTTP {status}", "PUT", str(place.folder)):
        attempt.upload()


@both
@pytest.mark.parametrize("behaviour", list(Behaviour), ids=lambda behaviour: str(behaviour.value))
def test_c205_the_quota_is_used_up(behaviour: Behaviour, overwrite: bool, tmp_path: Path) -> None:
    with (
        EmbeddedCloud(name="small", behaviour=behaviour, quota_bytes=MIB) as cloud,
        fresh_place(cloud, tmp_path / "local") as place,
    ):
        attempt = Attempt(place, overwrite=overwrite)
        # A full disk of Reva v3.12.1 is a plain HTTP 500; OpenCloud says what it is.
        kind = errors.NoSpaceLeft if behaviour is Behaviour.SPACES else errors.ServerFault
        with fails(attempt, kind, str(place.folder)):
            attempt.upload()


@both
def test_c206_the_local_file_becomes_shorter(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)

    def shorten(_: int) -> None:
        with attempt.local.open("r+b") as file:
            file.truncate(MIB + 1)

    with fails(attempt, errors.LocalChanged, "became shorter", str(attempt.local)):
        attempt.upload(progress=shorten)


@both
def test_c207_the_local_file_becomes_longer(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)

    def lengthen(_: int) -> None:
        with attempt.local.open("ab") as file:
            file.write(b"more")

    with fails(attempt, errors.LocalChanged, "became longer", str(attempt.local)):
        attempt.upload(progress=lengthen)


@both
def test_c208_the_user_interrupts(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt.upload(progress=interrupt)
    attempt.assert_nothing_happened()


@both
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("PERMISSION_DENIED", errors.AccessDenied),
        ("INSUFFICIENT_STORAGE", errors.NoSpaceLeft),
        ("LOCKED", errors.Locked),
        ("INTERNAL", errors.ServerFault),
    ],
)
def test_c209_the_gateway_gives_no_ticket(
    place: Place, overwrite: bool, code: str, kind: type[errors.CS3Error]
) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.InitiateFileUpload", f"code:{code}")
    with fails(attempt, kind, f"CODE_{code}", "InitiateFileUpload", str(place.folder)):
        attempt.upload()


@both
def test_c210_the_last_rename_is_refused(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.Move", "code:INTERNAL")
    with fails(attempt, errors.ServerFault, "CODE_INTERNAL", "Move", str(attempt.target)):
        attempt.upload(place.another(landing="temporary"))


@both
def test_c211_the_answer_to_the_ticket_is_lost(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.InitiateFileUpload", "lost-answer")
    with fails(attempt, errors.Unavailable, "UNAVAILABLE", "InitiateFileUpload", str(place.folder)):
        attempt.upload()


def test_c212_a_lost_answer_to_the_upload_is_resolved_by_a_look(place: Place) -> None:
    data = content(SIZE)
    sent: list[int] = []
    place.fault("data.put", "lost-answer")
    moved = place.storage.upload(place.local_file(data), place.file("target"), progress=sent.append)
    assert place.pending() == []
    assert moved.size == SIZE
    assert sum(sent) == SIZE  # not sent twice
    assert place.names() == ["target"]
    assert place.stored(place.file("target")) == data


def test_c213_a_lost_answer_to_the_last_rename_is_resolved_by_a_look(place: Place) -> None:
    data = content(SIZE)
    sent: list[int] = []
    storage = place.another(landing="temporary")
    place.fault("gateway.Move", "lost-answer")
    storage.upload(place.local_file(data), place.file("target"), progress=sent.append)
    assert place.pending() == []
    assert sum(sent) == SIZE
    assert place.names() == ["target"]
    assert place.stored(place.file("target")) == data


def test_c214_the_server_states_another_checksum(spaces: Place) -> None:
    attempt = Attempt(spaces, overwrite=False)
    # Three looks: is the name taken, is the folder there, what has arrived.
    spaces.fault("gateway.Stat", "wrong-checksum", times=3)
    with fails(attempt, errors.ChecksumMismatch, "PUT", str(attempt.target)):
        attempt.upload()


def test_c215_another_upload_that_was_faster_survives(place: Place) -> None:
    """What is undone is what this upload made, and never what somebody else was told is done."""
    target, theirs = place.file("contested"), place.local_file(b"theirs", "theirs.bin")
    mine = place.local_file(content(3 * 1024 * 1024), "mine.bin")

    def somebody_else_is_faster(_: int) -> None:
        place.storage.upload(theirs, target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.storage.upload(mine, target, progress=somebody_else_is_faster)
    assert place.names() == ["contested"]
    assert place.stored(target) == b"theirs"


def test_c216_a_lost_answer_for_an_empty_file_is_resolved_by_a_look(spaces: Place) -> None:
    spaces.fault("gateway.InitiateFileUpload", "lost-answer")
    moved = spaces.storage.upload(spaces.local_file(b""), spaces.file("empty"))
    assert moved.checksums == {"adler32": "00000001"}
    assert spaces.names() == ["empty"]


def test_c217_an_empty_file_that_did_not_arrive_is_an_error(spaces: Place) -> None:
    spaces.fault("gateway.InitiateFileUpload", "grpc:UNAVAILABLE")
    with pytest.raises(errors.Unavailable):
        spaces.storage.upload(spaces.local_file(b""), spaces.file("empty"))
    assert spaces.names() == []
