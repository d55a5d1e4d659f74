"""C2xx: uploads that fail half way. Nothing new stands under the name, and what stood there stays."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Landing
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads import arrivals, leftovers, uploads
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.contract.conftest import fresh_place
from tests.contract.place import Place, adler32, content

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
OLD = b"what stood there"

pytestmark = pytest.mark.usefixtures("no_late_commit", "short_pauses")

#: A local file is sent so often before it is given up.
ATTEMPTS = uploads._RESTARTS.attempts


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin again at once; what a server asks for is waited for all the same."""
    monkeypatch.setattr(uploads, "_RESTARTS", replace(uploads._RESTARTS, base_s=0.01))


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
    place.fault("data.put", f"cut-after:{position}", times=ATTEMPTS)
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
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.DeadlineExceeded),
        (507, errors.NoSpaceLeft),
    ],
)
def test_c204_the_data_gateway_refuses(place: Place, overwrite: bool, status: int, kind: type[errors.CS3Error]) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    # 403 may be about the ticket alone, so there is another one.
    times = ATTEMPTS if status in (429, 502, 503, 504) else 2 if status == 403 else 1
    place.fault("data.put", f"return-{status}", times=times)
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
def test_c211_no_ticket_at_any_attempt(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.InitiateFileUpload", "lost-answer", times=ATTEMPTS)
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
    # The only look: what has arrived.
    spaces.fault("gateway.Stat", "wrong-checksum")
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
    spaces.fault("gateway.InitiateFileUpload", "grpc:UNAVAILABLE", times=ATTEMPTS)
    with pytest.raises(errors.Unavailable):
        spaces.storage.upload(spaces.local_file(b""), spaces.file("empty"))
    assert spaces.names() == []


@both
@pytest.mark.parametrize("position", [0, 1, 4096, MIB, SIZE - 1])
def test_c218_a_cut_connection_is_survived_by_a_new_beginning(place: Place, overwrite: bool, position: int) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", f"cut-after:{position}")
    steps: list[int] = []
    attempt.upload(progress=steps.append)
    assert sum(steps) == SIZE  # what was sent in vain has been taken back
    assert place.stored(attempt.target) == content(SIZE)
    assert place.names() == ["neighbour", "target"]


@both
@pytest.mark.parametrize("script", ["return-429", "return-502", "return-503,retry-after:5", "return-504"])
def test_c219_a_busy_server_is_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, overwrite: bool, script: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(uploads, "time", SimpleNamespace(sleep=waits.append))
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", script)
    attempt.upload()
    assert len(waits) == 1
    assert waits[0] >= (5.0 if "retry-after" in script else 0.0)
    assert place.pending() == []
    assert place.stored(attempt.target) == content(SIZE)
    assert place.names() == ["neighbour", "target"]


@both
def test_c220_a_server_that_wants_to_be_left_alone_is(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("data.put", "return-503,retry-after:3600")
    with fails(attempt, errors.Unavailable, "HTTP 503", "PUT", str(place.folder)):
        attempt.upload()


@both
def test_c221_a_lost_ticket_is_asked_for_again(place: Place, overwrite: bool) -> None:
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.InitiateFileUpload", "lost-answer")
    attempt.upload()
    assert place.pending() == []
    assert place.stored(attempt.target) == content(SIZE)
    assert place.names() == ["neighbour", "target"]


@both
@pytest.mark.parametrize("size", [4096, SIZE], ids=["small", "large"])
def test_c222_a_folder_that_was_removed_since_is_made_again(place: Place, overwrite: bool, size: int) -> None:
    """Somebody removes the folder that this storage has just written to."""
    place.put("folder/deeper/first", b"first")
    place.another().delete(place.file("folder"))
    data = content(size)
    target = place.file("folder/deeper/second")
    place.storage.upload(place.local_file(data), target, overwrite=overwrite)
    assert place.stored(target) == data
    assert [info.reference.name for info in place.storage.list(target.parent)] == ["second"]


@both
def test_c223_a_file_in_place_of_a_known_folder_is_said(place: Place, overwrite: bool) -> None:
    place.put("folder/first", b"first")
    other = place.another()
    other.delete(place.file("folder"))
    other.upload(place.local_file(b"I am a file"), place.file("folder"))
    with pytest.raises(errors.AlreadyExists, match="a file stands where a folder is needed") as caught:
        place.storage.upload(place.local_file(b"x"), place.file("folder/second"), overwrite=overwrite)
    assert str(place.file("folder")) in str(caught.value)
    assert place.stored(place.file("folder")) == b"I am a file"
    assert place.names() == ["folder"]


@pytest.mark.parametrize("size", [4096, SIZE], ids=["small", "large"])
def test_c224_a_name_that_was_taken_meanwhile_is_not_replaced(place: Place, size: int) -> None:
    """Also where the name is looked at only after a small file was sent; the other one comes before that."""
    theirs = place.local_file(b"theirs", "theirs.bin")
    target = place.file("contested")

    def somebody_else_is_faster(_: int) -> None:
        if not place.on_disk(target).exists():
            place.another().upload(theirs, target)

    with pytest.raises(errors.AlreadyExists) as caught:
        place.another(landing="temporary").upload(
            place.local_file(content(size)), target, progress=somebody_else_is_faster
        )
    assert str(target) in str(caught.value)
    assert place.stored(target) == b"theirs"
    assert place.names() == ["contested"]


def _deaths() -> Iterator[ParameterSet]:
    """Where a token can die: at the nth call of a step that is made so often."""
    points = ("gateway.Stat", "gateway.InitiateFileUpload", "gateway.Move")
    landings: tuple[Landing, ...] = ("direct", "temporary")
    for point, nth, size, taken, landing in itertools.product(points, (1, 2), (0, 4096, SIZE), (False, True), landings):
        if point == "gateway.Move":
            # There is one, to a free name; where it fails, nothing is tried again.
            happens = landing == "temporary" and not taken and nth == 1
        elif point == "gateway.InitiateFileUpload":
            # It makes an empty file under the name at once, so that is looked at before.
            happens = not (landing == "direct" and taken and not size)
        else:
            happens = True
        if happens:
            name = f"{point}-{nth}-{size}-{'taken' if taken else 'free'}-{landing}"
            yield pytest.param(point, nth, size, taken, landing, id=name)


@pytest.mark.parametrize(("point", "nth", "size", "taken", "landing"), list(_deaths()))
def test_c225_a_token_that_dies_on_the_way_makes_no_name_free(
    spaces: Place, point: str, nth: int, size: int, taken: bool, landing: Landing
) -> None:
    """OpenCloud says "not found" to a dead token, and that must never replace a file."""
    target, data = spaces.file("target"), content(size)
    if taken:
        spaces.put("target", OLD)
    local = spaces.local_file(data)
    storage = spaces.another(landing=landing)
    storage.access_token()
    # The nth call at this point, and all after it, find the token dead.
    if nth == 2:
        spaces.fault(point, "grpc:UNAVAILABLE")
    spaces.fault(point, "expire-token")
    if taken:
        with pytest.raises((errors.AlreadyExists, errors.Unavailable)):
            storage.upload(local, target)
        assert spaces.stored(target) == OLD
    else:
        try:
            storage.upload(local, target)
        except errors.Unavailable:
            assert not spaces.on_disk(target).exists()
        else:
            assert spaces.stored(target) == data
    assert spaces.pending() == []
    assert spaces.names() == (["target"] if taken or spaces.on_disk(target).exists() else [])


@pytest.mark.parametrize("size", [4096, SIZE], ids=["small", "large"])
def test_c226_a_commit_that_came_very_late_is_no_other_file(
    spaces: Place, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost, the look finds nothing yet, and the next attempt finds the name taken: by its own bytes."""
    monkeypatch.setattr(arrivals, "_LATE_COMMIT_S", 0.0)
    data, steps = content(size), list[int]()
    spaces.fault("data.put", "lost-answer")
    # The look, and that of whether anything is to be removed.
    spaces.fault("gateway.Stat", "code:NOT_FOUND", times=2)
    moved = spaces.storage.upload(spaces.local_file(data), spaces.file("target"), progress=steps.append)
    assert (moved.size, moved.checksums["adler32"]) == (size, adler32(data))
    assert sum(steps) == size
    assert spaces.names() == ["target"]
    assert spaces.stored(spaces.file("target")) == data


def test_c227_another_file_that_came_meanwhile_is_no_late_commit(
    spaces: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_LATE_COMMIT_S", 0.0)
    target, other = spaces.file("target"), spaces.another()
    theirs = spaces.local_file(content(SIZE, seed=2), "theirs.bin")

    def somebody_else_is_faster(_: int) -> None:
        if not spaces.on_disk(target).exists():
            other.upload(theirs, target)

    # All bytes are with the network when the connection breaks, and what then stands there is not ours.
    spaces.fault("data.put", f"cut-after:{SIZE - 1}")
    with pytest.raises(errors.AlreadyExists, match="a file of this name exists"):
        spaces.storage.upload(spaces.local_file(content(SIZE)), target, progress=somebody_else_is_faster)
    assert spaces.pending() == []
    assert spaces.stored(target) == content(SIZE, seed=2)
    assert spaces.names() == ["target"]


@both
@pytest.mark.parametrize("point", ["data.put", "gateway.InitiateFileUpload", "gateway.Move"])
def test_c229_an_upload_never_says_not_found(place: Place, overwrite: bool, point: str) -> None:
    """Callers would take it for an answer about a file that they asked for."""
    attempt = Attempt(place, overwrite=overwrite)
    place.fault(point, "return-404" if point == "data.put" else "code:NOT_FOUND")
    with fails(
        attempt, errors.PreconditionFailed, "404" if point == "data.put" else "CODE_NOT_FOUND", str(place.folder)
    ):
        attempt.upload(place.another(landing="temporary"))


@both
def test_c230_a_code_of_the_client_or_of_a_proxy_is_no_answer(place: Place, overwrite: bool) -> None:
    """So what it is about may come into being yet, and is waited for to be removed."""
    attempt = Attempt(place, overwrite=overwrite)
    place.fault("gateway.Move", "grpc:UNAVAILABLE")
    place.fault("gateway.Delete", "code:NOT_FOUND")
    with fails(attempt, errors.Unavailable, "UNAVAILABLE", "Move"):
        attempt.upload(place.another(landing="temporary"))


class _SourceWithoutToken(io.BytesIO):
    """A file of another cloud that does not accept its token any more after the first MiB."""

    def readinto(self, buffer: Any, /) -> int:
        if self.tell() >= MIB:
            raise errors.Unauthenticated("the source does not accept the token", operation="GET", target="source")
        return super().readinto(buffer)


def test_c231_a_source_that_refuses_its_token_says_nothing_of_ours(place: Place) -> None:
    token = place.storage.access_token()
    body = UploadBody(_SourceWithoutToken(content(SIZE)), SIZE, Digests(["adler32"]), name="source")
    with pytest.raises(errors.Unauthenticated, match="source"):
        place.storage.store(body, place.file("target"))
    assert place.storage.access_token() == token
    assert len(place.passed("data.put")) == 1
    assert place.names() == []


def test_c232_who_interrupts_waits_only_shortly_for_a_silent_gateway(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leftovers, "_UNDO_S", 1.0)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    place.fault("gateway.Delete", "stall")
    with pytest.raises(KeyboardInterrupt):
        place.another(landing="temporary").upload(
            place.local_file(content(SIZE)), place.file("target"), progress=interrupt
        )
    assert place.pending() == []
    assert "did not answer within 1 s" in caplog.text
    assert not place.on_disk(place.file("target")).exists()


@pytest.mark.parametrize("script", ["grpc:UNAVAILABLE", "grpc:RESOURCE_EXHAUSTED", "lost-answer"])
def test_c228_what_was_refuted_goes_also_after_a_short_outage(place: Place, script: str) -> None:
    """From under the name itself (`spaces`), or from under a hidden sibling's."""
    attempt = Attempt(place, overwrite=False)
    if isinstance(place.cloud, EmbeddedCloud) and place.cloud.behaviour is Behaviour.SPACES:
        place.fault("gateway.Stat", "wrong-checksum")
    else:
        place.fault("data.put", "flip-byte")
    # After a lost answer there is nothing left to delete.
    place.fault("gateway.Delete", script, times=1 if script == "lost-answer" else 2)
    with fails(attempt, errors.ChecksumMismatch, "PUT"):
        attempt.upload(read_back=True)
