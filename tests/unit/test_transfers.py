"""One transfer against two clouds in memory: every way it can end, and what is left behind each time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint, Proof, Timeouts
from rucio_cs3.cs3.data_gateway import HTTPClient
from rucio_cs3.cs3.reference import MountRoot, Reference, WebDAVBase
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import ClaimLost, Job, Outcome, Progress, RequestGone, Side, State, transfer_one

ROOT = MountRoot("/localfs")
CONTENT = b"physics" * 100
ADLER32 = f"{zlib.adler32(CONTENT):08x}"
GOOD = Reference(ROOT, "rucio/t/f")


class MemoryStorage:
    """A cloud in memory; ``faults`` maps a method to the error that its next call raises."""

    def __init__(self, name: str, *, proof: Proof = "read", server_sums: bool = False) -> None:
        self.endpoint = Endpoint(
            name=name,
            gateway=f"127.0.0.1:{9000 + len(name)}",
            gateway_tls=False,
            webdav=WebDAVBase(secure=False, host="127.0.0.1", port=9500 + len(name), path="/webdav", root=ROOT),
            proof=proof,
            timeouts=Timeouts(processing_s=0.001),
        )
        self.http = HTTPClient(self.endpoint)
        self.files: dict[Reference, bytes] = {}
        self.folders: set[Reference] = set()
        self.processing: set[Reference] = set()
        self.faults: dict[str, errors.CS3Error] = {}
        self.calls: list[str] = []
        self.etag = ""
        self._server_sums = server_sums

    def _called(self, method: str) -> None:
        self.calls.append(method)
        fault = self.faults.pop(method, None)
        if fault is not None:
            raise fault

    def stat(self, reference: Reference) -> FileInfo:
        self._called("stat")
        if reference in self.folders:
            return FileInfo(reference=reference, size=0, is_directory=True)
        if reference not in self.files:
            raise errors.NotFound("no such file", operation="Stat", target=str(reference), code="CODE_NOT_FOUND")
        data = self.files[reference]
        return FileInfo(
            reference=reference,
            size=len(data),
            is_directory=False,
            checksums={"adler32": f"{zlib.adler32(data):08x}"} if self._server_sums else {},
            processing=reference in self.processing,
            etag=self.etag,
        )

    def settled(self, reference: Reference) -> FileInfo:
        info = self.stat(reference)
        if info.processing:
            raise errors.TooEarly("the server is stuck in post-processing", operation="Stat", target=str(reference))
        return info

    def delete(self, reference: Reference) -> None:
        self._called("delete")
        del self.files[reference]

    def make_directories(self, reference: Reference) -> None:
        self._called("make_directories")
        self.folders.add(reference)

    def checksum(self, reference: Reference, algorithm: str = "adler32") -> str:
        self._called("checksum")
        assert algorithm == "adler32"
        return f"{zlib.adler32(self.files[reference]):08x}"

    def access_token(self) -> str:
        return f"token-of-{self.endpoint.name}"


@dataclass
class MemorySide:
    storage: MemoryStorage

    def reference(self, pfn: str) -> Reference:
        return Reference(ROOT, pfn.partition("/webdav/")[2])

    def http_url(self, pfn: str) -> str:
        return pfn.replace("davs://", "https://")


@dataclass
class PaperClaim:
    """A claim that says what the test wrote on it."""

    gone: type[RequestGone] | type[ClaimLost] | None = None
    removal: errors.CS3Error | None = None
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        if self.gone is not None:
            raise self.gone("over")

    def confirm(self) -> None:
        self.asked.append("confirm")
        self.check()

    def allow_removal(self) -> None:
        self.asked.append("removal")
        if self.removal is not None:
            raise self.removal


@dataclass
class World:
    source: MemorySide
    destination: MemorySide
    claim: PaperClaim
    job: Job

    def run(self, copy: Callable[[World], None] | None = None) -> Outcome:
        def copying(job: Job, source: Side, destination: Side, progress: Progress) -> None:
            progress(0)
            (copy or World.copied)(self)

        return transfer_one(self.job, self.source, self.destination, self.claim, copy=copying)

    def copied(self) -> None:
        self.destination.storage.files[GOOD] = self.source.storage.files[GOOD]

    @property
    def landed(self) -> bytes | None:
        return self.destination.storage.files.get(GOOD)


@pytest.fixture
def world() -> World:
    return make_world()


def make_world(*, proof: Proof = "read", server_sums: bool = False) -> World:
    source = MemoryStorage("source")
    source.files[GOOD] = CONTENT
    return World(
        source=MemorySide(source),
        destination=MemorySide(MemoryStorage("target-cloud", proof=proof, server_sums=server_sums)),
        claim=PaperClaim(),
        job=Job(
            request_id="f" * 32,
            source_url="davs://a.test/webdav/rucio/t/f",
            destination_url="davs://b.test/webdav/rucio/t/f",
            size_bytes=len(CONTENT),
            adler32=ADLER32,
        ),
    )


def writes(data: bytes, then: errors.CS3Error | None = None) -> Callable[[World], None]:
    """A copy that leaves ``data`` and then fails, or claims success."""

    def copy(world: World) -> None:
        world.destination.storage.files[GOOD] = data
        if then is not None:
            raise then

    return copy


def fails(error: errors.CS3Error) -> Callable[[World], None]:
    def copy(world: World) -> None:
        raise error

    return copy


def must_not_copy(world: World) -> None:
    raise AssertionError("nothing was to be copied")


def test_copies_and_proves(world: World) -> None:
    assert world.run() == Outcome(state=State.DONE, copied=True)
    assert world.landed == CONTENT
    assert GOOD.parent in world.destination.storage.folders
    assert world.claim.asked == ["confirm"]
    # One look: it finds a token that the source no longer accepts.
    assert world.source.storage.calls == ["stat"]


def test_right_file_is_recognised_without_copying(world: World) -> None:
    world.copied()
    assert world.run(must_not_copy) == Outcome(state=State.DONE, copied=False)
    assert "delete" not in world.destination.storage.calls


@pytest.mark.parametrize("leftover", [b"", CONTENT[:-1], CONTENT + b"x", b"X" * len(CONTENT)])
def test_leftover_is_replaced(world: World, leftover: bytes) -> None:
    world.destination.storage.files[GOOD] = leftover
    assert world.run().state is State.DONE
    assert world.landed == CONTENT
    assert "removal" in world.claim.asked


def test_file_of_a_good_replica_stays(world: World) -> None:
    world.destination.storage.files[GOOD] = b"somebody's"
    world.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "AVAILABLE" in str(outcome.reason)
    assert world.landed == b"somebody's"


def test_leftover_stays_where_the_source_is_missing(world: World) -> None:
    world.destination.storage.files[GOOD] = b"half"
    world.source.storage.files.clear()
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "CODE_NOT_FOUND" in str(outcome.reason)
    assert world.landed == b"half"


def test_folder_at_the_destination_is_never_deleted(world: World) -> None:
    world.destination.storage.folders.add(GOOD)
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "a folder stands" in str(outcome.reason)
    assert "delete" not in world.destination.storage.calls


def test_same_place_is_refused(world: World) -> None:
    world.destination.storage = world.source.storage
    world.job = replace(world.job, size_bytes=1)  # otherwise it would look like a file that is there already
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "the same file" in str(outcome.reason)
    assert world.source.storage.files[GOOD] == CONTENT


def test_same_place_under_other_roots_is_refused(world: World) -> None:
    """``/localfs`` and ``d/x``, ``/localfs/d`` and ``x``: one file, whose deletion would be that of the source."""
    mount = Reference(MountRoot(f"{ROOT.path}/rucio"), "t/f")
    one = world.source.storage.endpoint
    world.destination.storage.endpoint = replace(one, webdav=replace(one.webdav, port=81, root=mount.root))
    world.destination.storage.files[mount] = b"short"
    world.destination.reference = lambda pfn: mount  # type: ignore[method-assign]
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "the same file" in str(outcome.reason)
    assert world.destination.storage.files[mount] == b"short"


def test_what_looks_like_the_source_is_not_removed(world: World) -> None:
    """The same etag: one server under two names."""
    world.source.storage.etag = world.destination.storage.etag = '"1"'
    world.destination.storage.files[GOOD] = CONTENT
    world.job = replace(world.job, size_bytes=1)
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "look like the same file" in str(outcome.reason)
    assert world.landed == CONTENT


@pytest.mark.parametrize("proof", ["server", "size"])
def test_the_right_size_alone_does_not_end_a_repair(world: World, proof: Proof) -> None:
    world.destination.storage.endpoint = replace(world.destination.storage.endpoint, proof=proof)
    world.destination.storage.files[GOOD] = b"X" * len(CONTENT)
    assert world.run() == Outcome(state=State.DONE, copied=True)
    assert world.landed == CONTENT
    assert "removal" in world.claim.asked


@pytest.mark.parametrize(
    ("landed", "kind"),
    [(b"", errors.SizeMismatch), (CONTENT[:-1], errors.SizeMismatch), (b"X" * len(CONTENT), errors.ChecksumMismatch)],
)
def test_false_success_is_found_out_and_removed(world: World, landed: bytes, kind: type[errors.IntegrityError]) -> None:
    outcome = world.run(writes(landed))
    assert outcome.state is State.FAILED
    assert ("bytes are at" if kind is errors.SizeMismatch else "adler32 at") in str(outcome.reason)
    assert world.landed is None
    assert world.source.storage.files[GOOD] == CONTENT


def test_success_without_a_file_is_no_success(world: World) -> None:
    outcome = world.run(lambda _: None)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)


@pytest.mark.parametrize("landed", [CONTENT[:10], b"X" * len(CONTENT)])
def test_broken_copy_leaves_nothing(world: World, landed: bytes) -> None:
    error = errors.ServerFault("inner PUT failed", operation="COPY", code="HTTP 500", trace="abc123")
    outcome = world.run(writes(landed, error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error))
    assert "abc123" in str(outcome.reason)
    assert world.landed is None


def test_lost_answer_is_resolved_by_a_look(world: World) -> None:
    outcome = world.run(writes(CONTENT, errors.TransferInterrupted("connection cut")))
    assert outcome == Outcome(state=State.DONE, copied=True)
    assert world.landed == CONTENT


def test_file_that_appeared_meanwhile_is_not_ours_to_delete(world: World) -> None:
    outcome = world.run(writes(b"other", errors.AlreadyExists("something stands there", code="HTTP 412")))
    assert outcome.state is State.FAILED
    assert world.landed == b"other"


def test_right_file_that_appeared_meanwhile_counts(world: World) -> None:
    outcome = world.run(writes(CONTENT, errors.AlreadyExists("something stands there", code="HTTP 412")))
    assert outcome.state is State.DONE


def test_proof_is_tried_again_after_a_fault(world: World) -> None:
    world.destination.storage.faults["checksum"] = errors.Unavailable("data gateway restarts")
    assert world.run() == Outcome(state=State.DONE, copied=True)
    assert world.destination.storage.calls.count("checksum") == 2


def test_what_cannot_be_proven_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def checksum(reference: Reference, algorithm: str = "adler32") -> str:
        raise errors.Unavailable("data gateway is gone")

    monkeypatch.setattr(world.destination.storage, "checksum", checksum)
    assert world.run() == Outcome(state=State.FAILED, reason="data gateway is gone")
    assert world.landed is None


def test_endless_processing_is_a_failure(world: World) -> None:
    world.destination.storage.processing.add(GOOD)
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert "post-processing" in str(outcome.reason)
    assert "confirm" not in world.claim.asked


def test_first_error_is_reported_where_cleaning_fails(world: World) -> None:
    def copy(_: World) -> None:
        world.destination.storage.files[GOOD] = b"half"
        world.destination.storage.faults["delete"] = errors.Unavailable("gateway is gone")
        raise errors.NoSpaceLeft("the quota is used up", code="HTTP 507")

    outcome = world.run(copy)
    assert outcome.state is State.FAILED
    assert str(outcome.reason) == "the quota is used up (HTTP 507)"
    assert world.destination.storage.faults == {}


@pytest.mark.parametrize("method", ["stat", "make_directories"])
def test_unreachable_destination_fails_clearly(world: World, method: str) -> None:
    world.destination.storage.faults[method] = errors.Unavailable("no route", operation="Stat", code="UNAVAILABLE")
    outcome = world.run(must_not_copy)
    assert outcome == Outcome(state=State.FAILED, reason="Stat: no route (UNAVAILABLE)")


def test_cancelled_before_the_start(world: World) -> None:
    world.claim.gone = RequestGone
    assert world.run(must_not_copy).state is State.ABANDONED
    assert world.destination.storage.calls == []


def test_cancelled_while_copying_leaves_nothing(world: World) -> None:
    def copy(_: World) -> None:
        world.destination.storage.files[GOOD] = CONTENT[:10]
        world.claim.gone = RequestGone
        world.claim.check()

    assert world.run(copy).state is State.ABANDONED
    assert world.landed is None


def test_cancelled_at_the_end_leaves_no_dark_data(world: World) -> None:
    def copy(_: World) -> None:
        world.copied()
        world.claim.gone = RequestGone

    assert world.run(copy).state is State.ABANDONED
    assert world.landed is None


def test_cancelled_and_wanted_again_stays(world: World) -> None:
    world.claim.removal = RequestGone("a newer request wants the same file")

    def copy(_: World) -> None:
        world.destination.storage.files[GOOD] = CONTENT[:10]
        world.claim.gone = RequestGone
        world.claim.check()

    assert world.run(copy).state is State.ABANDONED
    assert world.landed == CONTENT[:10]


def test_taken_over_by_another_agent_touches_nothing(world: World) -> None:
    def copy(_: World) -> None:
        world.destination.storage.files[GOOD] = CONTENT[:10]
        world.claim.gone = ClaimLost
        world.claim.check()

    assert world.run(copy).state is State.ABANDONED
    assert world.landed == CONTENT[:10]
    assert world.claim.asked == []


@pytest.mark.parametrize(
    ("proof", "server_sums", "read_back", "notices", "reads"),
    [
        ("read", False, True, True, 1),
        ("read", False, False, False, 0),
        ("read", True, True, True, 0),
        ("server", False, True, False, 0),
        ("server", True, True, True, 0),
        ("size", True, True, False, 0),
    ],
)
def test_proof_is_what_the_endpoint_says(
    proof: Proof, server_sums: bool, read_back: bool, notices: bool, reads: int
) -> None:
    world = make_world(proof=proof, server_sums=server_sums)
    world.job = replace(world.job, read_back=read_back)
    outcome = world.run(writes(b"X" * len(CONTENT)))
    assert (outcome.state is State.FAILED) == notices
    assert world.destination.storage.calls.count("checksum") == reads


def test_trimmed_checksum_of_the_catalogue_is_padded() -> None:
    world = make_world(server_sums=True)
    content = b"\0" * 8  # adler32 00080001
    world.source.storage.files[GOOD] = content
    world.job = replace(world.job, size_bytes=8, adler32="80001")
    assert world.run().state is State.DONE
