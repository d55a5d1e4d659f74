"""Transfers that work, in which mode, and what counts as proof.

After every run the source has only been read: see :meth:`tests.unit.transfer_world.World.run`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof
from rucio_cs3.transfers import ladder
from rucio_cs3.transfers.copies import Progress
from rucio_cs3.transfers.ends import NothingToLend
from rucio_cs3.transfers.ladder import ClaimLost, Job, Outcome, State
from rucio_cs3.transfers.modes import Mode, Wish
from rucio_cs3.transfers.proof import _LATE_S
from tests.unit.transfer_world import CONTENT, OTHER, World, adler32, copied, fails, must_not_copy, writes

# -- it works ---------------------------------------------------------------------------------------------


def test_copies_and_proves(world: World) -> None:
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.named == CONTENT
    assert world.destination.has_parents
    assert world.claim.asked == ["confirm"]
    # One look: it finds a token that the source no longer accepts. Where the copy was asked for at once, nobody looked.
    assert world.source.calls == ([] if ladder.UNSEEN_BYTES > 0 else ["stat", "speaks_tpc"])
    assert world.destination.calls[-1] == "take_name"
    assert world.left == []
    assert world.pauses == []


def test_nothing_is_under_the_name_before_it_is_proven(world: World) -> None:
    seen = []

    def confirm() -> None:
        seen.append((world.named, world.landing.content, "checksum" in world.destination.calls))

    world.claim.confirm = confirm  # type: ignore[method-assign]
    assert world.run().copied
    assert seen == [(None, CONTENT, True)]
    assert world.named == CONTENT


def test_a_copy_that_goes_on_after_it_was_given_up_harms_nothing(world: World) -> None:
    """Reva v3.12.1, cut off in the middle of a copy, goes on when its link is back, and commits what had come."""
    assert world.run(writes(CONTENT[:10], errors.TransferInterrupted("connection cut"))).state is State.FAILED
    late = world.landing
    world.job = replace(world.job, attempt=1)
    assert world.run(copied).state is State.DONE
    late.content = CONTENT[:10]
    assert world.named == CONTENT
    assert world.left == [CONTENT[:10]]


@pytest.mark.parametrize("mode", list(Mode))
def test_the_wished_mode_is_the_one_that_is_used(world: World, mode: Mode) -> None:
    world.destination.wish = mode.value
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=mode)
    assert world.named == CONTENT
    assert world.notes.modes == [mode]
    # Only who is to push is asked whether it can, and again just before: it would make a copy within itself.
    assert world.source.calls.count("speaks_tpc") == (2 if mode is Mode.PUSH else 0)
    assert world.source.ages_asked == ([60] if mode is Mode.PUSH else [])
    assert "speaks_tpc" not in world.destination.calls


def test_a_push_that_is_wished_for_and_not_proven_is_a_failure(world: World) -> None:
    world.source.wish, world.source.speaks = "push", False
    world.pushes = must_not_copy
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "cannot push" in str(outcome.reason)


def test_wishes_that_conflict_are_a_failure(world: World) -> None:
    world.source.wish, world.destination.wish = "push", "pull"
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.ConfigurationError)
    assert outcome.mode is None


def test_a_relay_moves_what_it_says_it_moves(world: World) -> None:
    world.source.speaks = world.destination.speaks = False
    assert world.run(must_not_copy) == Outcome(state=State.DONE, copied=True, mode=Mode.RELAY)
    assert world.notes.told == [Mode.RELAY, len(CONTENT)]
    assert world.named == CONTENT


def test_an_empty_file_is_relayed(world: World) -> None:
    world.source.content = b""
    world.source.wish = "relay"
    world.job = replace(world.job, size_bytes=0, adler32="00000001")
    assert world.run().state is State.DONE
    assert world.named == b""


def test_markers_are_passed_on(world: World) -> None:
    def copy(world: World, progress: Progress) -> None:
        for total in (1, 300, len(CONTENT)):
            progress(total)
        copied(world, progress)

    assert world.run(copy).state is State.DONE
    assert world.notes.told == [Mode.PULL, 1, 300, len(CONTENT), 0]


# -- what stands there already ----------------------------------------------------------------------------


def test_right_file_is_recognised_without_copying(looking: World) -> None:
    looking.destination.content = CONTENT
    assert looking.run(must_not_copy) == Outcome(state=State.DONE, copied=False)
    assert "delete" not in looking.destination.calls


@pytest.mark.parametrize("leftover", [b"", CONTENT[:-1], CONTENT + b"x", OTHER])
@pytest.mark.parametrize("mode", list(Mode))
def test_leftover_is_replaced(world: World, leftover: bytes, mode: Mode) -> None:
    world.destination.content = leftover
    world.source.wish = mode.value
    assert world.run().state is State.DONE
    assert world.named == CONTENT
    assert world.left == []
    assert sorted(world.claim.asked) == ["confirm", "removal"]


def test_file_of_a_good_replica_stays(world: World) -> None:
    world.destination.content = b"somebody's"
    world.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert world.left == []
    assert "AVAILABLE" in str(outcome.reason)
    assert world.named == b"somebody's"


def test_a_claim_that_is_lost_while_it_asks_removes_nothing(world: World) -> None:
    def allow_removal() -> None:
        world.claim.gone = ClaimLost

    world.destination.content = b"by now another agent's"
    world.claim.allow_removal = allow_removal  # type: ignore[method-assign]
    assert world.run().state is State.ABANDONED
    assert world.left == []
    assert world.named == b"by now another agent's"


@pytest.mark.parametrize("leftover", [b"half", None])
def test_a_missing_source_is_named_and_leftovers_stay(world: World, leftover: bytes | None) -> None:
    world.destination.content = leftover
    world.source.content = None
    missing = fails(errors.NotFound("the source has no such file", code="HTTP 404"))
    outcome = world.run(missing)
    assert outcome.state is State.FAILED
    assert "the source source has no such file" in str(outcome.reason)
    assert "CODE_NOT_FOUND" in str(outcome.reason)
    assert world.named == leftover


def test_folder_at_the_destination_is_never_deleted(world: World) -> None:
    world.destination.is_folder = True
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert "a folder stands" in str(outcome.reason)
    assert "delete" not in world.destination.calls


def test_a_folder_that_appears_meanwhile_is_never_deleted(world: World) -> None:
    def copy(world: World, progress: Progress) -> None:
        copied(world, progress)
        world.destination.is_folder = True

    outcome = world.run(copy)
    assert outcome.state is State.FAILED
    assert "a folder stands" in str(outcome.reason)
    assert "delete" not in world.destination.calls


def test_same_place_is_refused(world: World) -> None:
    world.destination.url = world.source.url
    world.job = replace(world.job, size_bytes=1)  # otherwise it would look like a file that is there already
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "the same file" in str(outcome.reason)
    assert world.destination.calls == []


def test_what_looks_like_the_source_is_not_removed(world: World) -> None:
    """The same etag: one server under two names."""
    world.source.etag = world.destination.etag = '"1"'
    world.destination.content = OTHER
    world.source.content = OTHER
    outcome = world.run(writes(CONTENT))
    assert outcome.state is State.FAILED
    assert "look like the same file" in str(outcome.reason)
    assert world.named == OTHER


@pytest.mark.parametrize("proof", ["read", "server"])
@pytest.mark.parametrize(
    ("etags", "mtimes", "words"),
    [
        # XRootD 5.5.3 gives no etags.
        (('"1"', ""), (1700000000.75, 1700000000.0), "look like the same file"),
        (("", '"1"'), (1700000000.0, 1700000000.0), "look like the same file"),
        (("", ""), (1700000000.0, 1700000000.25), "look like the same file"),
        (('"1"', 'W/"1"'), (1700000000.0, 1700000009.0), "look like the same file"),
        (('"1"', ""), (1700000000.0, 0.0), "may be the same file"),
        (("", ""), (0.0, 1700000000.0), "may be the same file"),
        (("", ""), (0.0, 0.0), "may be the same file"),
    ],
)
def test_what_may_be_the_source_is_not_removed(
    world: World, etags: tuple[str, str], mtimes: tuple[float, float], words: str, proof: Proof
) -> None:
    """A cloud and a plain site before one disk: nothing else tells that what is in the way is the source itself."""
    world.destination.proof = proof
    world.source.content = world.destination.content = OTHER if proof == "read" else CONTENT
    world.source.etag, world.destination.etag = etags
    world.source.mtime_s, world.destination.mtime_s = mtimes
    outcome = world.run(writes(CONTENT))
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.InvalidRequest)
    assert words in str(outcome.reason)
    assert "delete" not in world.destination.calls
    assert "removal" not in world.claim.asked


@pytest.mark.parametrize(
    ("leftover", "etags", "mtimes"),
    [
        # The same file has one size.
        (CONTENT[:-1], ("", ""), (0.0, 0.0)),
        (CONTENT[:-1], ("", ""), (1700000000.0, 1700000000.0)),
        (OTHER, ('"1"', ""), (1700000000.0, 1700000001.0)),
        # Written in the same second.
        (OTHER, ('"1"', '"2"'), (1700000000.0, 1700000000.0)),
        (OTHER, ('"1"', '"2"'), (0.0, 0.0)),
    ],
)
def test_what_cannot_be_the_source_is_removed(
    world: World, leftover: bytes, etags: tuple[str, str], mtimes: tuple[float, float]
) -> None:
    world.destination.content = leftover
    world.source.etag, world.destination.etag = etags
    world.source.mtime_s, world.destination.mtime_s = mtimes
    assert world.run().state is State.DONE
    assert world.named == CONTENT


@pytest.mark.parametrize("proof", ["server", "size"])
def test_the_right_size_alone_does_not_end_a_repair(world: World, proof: Proof) -> None:
    world.destination.proof = proof
    world.destination.content = OTHER
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.named == CONTENT
    assert "removal" in world.claim.asked


def test_without_a_checksum_in_the_catalogue_the_right_size_is_no_reason_to_keep_a_file(world: World) -> None:
    world.job = replace(world.job, adler32=None)
    world.destination.content = OTHER
    assert world.run().copied
    assert world.named == CONTENT


# -- which way --------------------------------------------------------------------------------------------


def test_a_refusal_leads_to_the_next_mode(world: World) -> None:
    world.pulls = fails(errors.Unsupported("no third-party copies", code="HTTP 400"))
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PUSH)
    assert world.notes.modes == [Mode.PULL, Mode.PUSH]
    # The probe was older than this answer.
    assert "refused_tpc" in world.destination.calls
    assert "refused_tpc" not in world.source.calls


def test_two_refusals_lead_to_a_relay(world: World) -> None:
    world.pulls = world.pushes = fails(errors.Unsupported("no third-party copies", code="HTTP 400"))
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.RELAY)
    assert world.notes.modes == [Mode.PULL, Mode.PUSH, Mode.RELAY]
    assert "refused_tpc" in world.destination.calls
    assert "refused_tpc" in world.source.calls
    assert world.named == CONTENT


@pytest.mark.parametrize("wish", ["pull", "push"])
def test_a_refusal_of_the_only_mode_is_a_failure(world: World, wish: Wish) -> None:
    world.source.wish = wish
    world.pulls = world.pushes = fails(errors.Unsupported("no third-party copies", code="HTTP 400"))
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert outcome.mode is Mode(wish)
    assert str(outcome.reason) == "no third-party copies (HTTP 400)"


def test_a_source_that_pushes_no_more_is_not_asked_to(world: World) -> None:
    """It would make a copy within itself, where nobody looks for it."""
    world.source.speaks_still = world.destination.speaks = False
    world.pushes = must_not_copy
    assert world.run().mode is Mode.RELAY
    assert world.notes.modes == [Mode.PUSH, Mode.RELAY]
    # The probe has said so, and remembers.
    assert "refused_tpc" not in world.source.calls


def test_a_push_that_is_wished_for_and_proven_no_more_is_a_failure(world: World) -> None:
    world.source.wish, world.source.speaks_still = "push", False
    world.pushes = must_not_copy
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "cannot push" in str(outcome.reason)


def test_a_source_that_cannot_be_asked_just_before_does_not_push(world: World) -> None:
    world.source.wish = "push"
    world.pushes = must_not_copy
    asked = world.source.speaks_tpc

    def speaks_tpc(*, max_age_s: float | None = None) -> bool:
        if max_age_s is not None:
            raise errors.Unavailable("no route")
        return asked()

    world.source.speaks_tpc = speaks_tpc  # type: ignore[method-assign]
    outcome = world.run(must_not_copy)
    assert outcome.state is State.FAILED
    assert "no route" in str(outcome.reason)


def test_a_refused_relay_leads_to_what_is_left(world: World) -> None:
    world.job = replace(world.job, attempt=2)
    world.destination.faults["store"] = [errors.Unsupported("the server offers tus only")]
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.notes.modes == [Mode.RELAY, Mode.PULL]
    assert "refused_tpc" not in world.source.calls + world.destination.calls


@pytest.mark.parametrize("wish", ["pull", "push"])
def test_nothing_to_lend_says_nothing_about_third_party_copies(world: World, wish: Wish) -> None:
    world.pulls = world.pushes = fails(NothingToLend("no token for the other side"))
    assert world.run().mode is Mode.RELAY
    assert "refused_tpc" not in world.source.calls + world.destination.calls


def test_a_copy_that_nobody_understood_is_not_tried_another_way(world: World) -> None:
    """A bare 201: something was written, and who knows where."""
    error = errors.ProtocolViolation("a bare 201", code="HTTP 201")
    outcome = world.run(writes(OTHER, error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert world.notes.modes == [Mode.PULL]
    assert "refused_tpc" in world.destination.calls
    assert world.named is None


def test_the_mode_that_failed_is_the_one_that_is_reported(world: World) -> None:
    world.pulls = fails(errors.Unsupported("no"))
    world.pushes = fails(errors.ServerFault("broken"))
    assert world.run().mode is Mode.PUSH


@pytest.mark.parametrize(
    ("attempt", "mode"), [(0, Mode.PULL), (1, Mode.PUSH), (2, Mode.RELAY), (3, Mode.RELAY), (7, Mode.RELAY)]
)
def test_each_attempt_begins_with_another_mode(world: World, attempt: int, mode: Mode) -> None:
    world.job = replace(world.job, attempt=attempt)
    assert world.run().mode is mode


# -- proof ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("landed", "kind"),
    [(b"", errors.SizeMismatch), (CONTENT[:-1], errors.SizeMismatch), (OTHER, errors.ChecksumMismatch)],
)
def test_false_success_is_found_out_and_removed(world: World, landed: bytes, kind: type[errors.IntegrityError]) -> None:
    outcome = world.run(writes(landed))
    assert outcome.state is State.FAILED
    assert ("bytes are at" if kind is errors.SizeMismatch else "adler32 at") in str(outcome.reason)
    assert isinstance(outcome.error, kind)
    assert world.named is None


def test_success_without_a_file_is_no_success(world: World) -> None:
    outcome = world.run(lambda world, progress: None)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)
    # NotFound would say that the source has lost it.
    assert isinstance(outcome.error, errors.ServerFault)


def test_a_size_that_comes_late_is_waited_for(world: World) -> None:
    world.destination.told_sizes = [0, 100]
    assert world.run().state is State.DONE
    assert world.pauses == list(_LATE_S[:2])


def test_a_size_that_never_comes_is_a_failure(world: World) -> None:
    world.destination.told_sizes = [0] * (len(_LATE_S) + 1)
    outcome = world.run()
    assert isinstance(outcome.error, errors.SizeMismatch)
    assert world.pauses == list(_LATE_S)
    assert world.named is None


@pytest.mark.parametrize("none_yet", ["00000000", ""])
def test_a_checksum_that_comes_late_is_waited_for(world: World, none_yet: str) -> None:
    world.destination.server_sums = True
    world.destination.told_sums = [none_yet] * 3
    assert world.run().state is State.DONE
    assert world.pauses == list(_LATE_S[:3])
    assert "checksum" not in world.destination.calls  # the server's own is enough


@pytest.mark.parametrize("none_yet", ["00000000", ""])
@pytest.mark.parametrize("proof", ["read", "server"])
def test_a_wrong_checksum_that_comes_late_is_found_out(world: World, proof: Proof, none_yet: str) -> None:
    world.destination.proof = proof
    world.destination.server_sums = True
    world.destination.told_sums = [none_yet]
    outcome = world.run(writes(OTHER))
    assert isinstance(outcome.error, errors.ChecksumMismatch)
    assert world.pauses == list(_LATE_S[:1])
    assert world.named is None


@pytest.mark.parametrize(
    ("proof", "landed", "state", "reads"),
    [
        ("read", CONTENT, State.DONE, 1),
        ("read", OTHER, State.FAILED, 1),
        # The server keeps none for this file, and nothing more was asked for.
        ("server", OTHER, State.DONE, 0),
    ],
)
def test_a_checksum_that_never_comes_is_done_without(
    world: World, proof: Proof, landed: bytes, state: State, reads: int
) -> None:
    world.destination.proof = proof
    world.destination.told_sums = ["00000000"] * (len(_LATE_S) + 1)
    assert world.run(writes(landed)).state is state
    assert world.pauses == list(_LATE_S)
    assert world.destination.calls.count("checksum") == reads


def test_a_checksum_that_nobody_compares_is_not_waited_for(world: World) -> None:
    world.destination.proof = "size"
    world.destination.told_sums = ["00000000"] * 9
    assert world.run().state is State.DONE
    assert world.pauses == []


def test_a_checksum_that_the_catalogue_does_not_have_is_not_waited_for(world: World) -> None:
    world.job = replace(world.job, adler32=None)
    world.destination.told_sums = ["00000000"] * 9
    assert world.run().state is State.DONE
    assert world.pauses == []


def test_the_checksum_that_stands_for_late_may_be_right(world: World) -> None:
    content = bytes(63473) + b"\xff" * 256 + b"\xf0"  # both sums of RFC 1950, 8.2 are a multiple of 65521
    assert adler32(content) == "00000000"
    world.source.content = content
    world.destination.server_sums = True
    world.job = replace(world.job, size_bytes=len(content), adler32="00000000")
    assert world.run().state is State.DONE
    assert world.destination.calls.count("checksum") == 1


def test_proof_is_tried_again_after_a_fault(world: World) -> None:
    world.destination.faults["checksum"] = [errors.Unavailable("data gateway restarts")]
    assert world.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.destination.calls.count("checksum") == 2
    assert world.claim.asked == ["confirm"]


def test_what_cannot_be_proven_is_removed(world: World) -> None:
    error = errors.Unavailable("data gateway is gone")
    world.destination.faults["checksum"] = [error] * 2
    assert world.run() == Outcome(state=State.FAILED, reason="data gateway is gone", error=error, mode=Mode.PULL)
    assert world.named is None


def test_endless_processing_is_a_failure(world: World) -> None:
    world.destination.processing = True
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert "post-processing" in str(outcome.reason)
    assert "confirm" not in world.claim.asked


@pytest.mark.parametrize(
    ("proof", "server_sums", "read_back", "notices", "reads"),
    [
        ("read", False, True, True, 1),
        ("read", False, False, False, 0),
        ("read", True, True, True, 0),
        ("read", True, False, True, 0),
        ("server", False, True, False, 0),
        ("server", True, True, True, 0),
        ("size", True, True, False, 0),
    ],
)
def test_proof_is_what_the_endpoint_says(
    world: World, proof: Proof, server_sums: bool, read_back: bool, notices: bool, reads: int
) -> None:
    world.destination.proof = proof
    world.destination.server_sums = server_sums
    world.job = replace(world.job, read_back=read_back)
    outcome = world.run(writes(OTHER))
    assert (outcome.state is State.FAILED) == notices
    assert world.destination.calls.count("checksum") == reads


def test_trimmed_checksum_of_the_catalogue_is_padded(world: World) -> None:
    content = b"\0" * 8  # adler32 00080001
    world.destination.server_sums = True
    world.source.content = content
    world.job = replace(world.job, size_bytes=8, adler32="80001")
    assert world.run().state is State.DONE


def test_what_is_no_checksum_in_the_catalogue_is_none() -> None:
    job = Job(request_id="1", size_bytes=1, adler32="not hex", md5="D41D8CD98F00B204E9800998ECF8427E")
    assert job.checksums == {"md5": "d41d8cd98f00b204e9800998ecf8427e"}


def test_checksums_of_a_file_that_was_read_are_kept(world: World) -> None:
    world.run()
    assert world.destination.kept == world.job.checksums


@pytest.mark.parametrize("wrong", [True, False])
def test_checksums_that_were_not_read_or_are_wrong_are_not_kept(world: World, wrong: bool) -> None:
    world.destination.server_sums = not wrong
    world.run(writes(OTHER) if wrong else None)
    assert world.destination.kept == {}
