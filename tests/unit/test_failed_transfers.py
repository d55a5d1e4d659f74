"""Transfers that fail, are cancelled, taken over, stopped or put off, and what is left behind each time.

After every run the source has only been read: see :meth:`tests.unit.transfer_world.World.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.transfers.copies import Progress
from rucio_cs3.transfers.ladder import ClaimLost, Outcome, RequestGone, State, Stopping
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.removal import remove_copied
from tests.unit.transfer_world import (
    CONTENT,
    OTHER,
    MemoryEnd,
    MemoryLanding,
    ThirdParty,
    World,
    copied,
    fails,
    must_not_copy,
    writes,
)

# -- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [CONTENT[:10], OTHER])
def test_broken_copy_leaves_nothing(world: World, landed: bytes) -> None:
    error = errors.ServerFault("inner PUT failed", operation="COPY", code="HTTP 500", trace="abc123")
    outcome = world.run(writes(landed, error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert "abc123" in str(outcome.reason)
    assert world.named is None


def test_lost_answer_is_resolved_by_a_look(world: World) -> None:
    outcome = world.run(writes(CONTENT, errors.TransferInterrupted("connection cut")))
    assert outcome == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.named == CONTENT
    assert world.claim.asked == ["confirm"]


def test_lost_answer_for_a_cancelled_request_leaves_nothing(world: World) -> None:
    world.claim.confirmed = RequestGone
    outcome = world.run(writes(CONTENT, errors.TransferInterrupted("connection cut")))
    assert outcome.state is State.ABANDONED
    assert (world.named, world.left) == (None, [])


def test_a_failure_that_left_nothing_is_all_that_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    error = errors.ServerFault("broken")
    assert world.run(fails(error)) == Outcome(state=State.FAILED, reason="broken", error=error, mode=Mode.PULL)
    assert world.claim.asked == []
    assert caplog.records == []


def appears(data: bytes) -> ThirdParty:
    """A copy during which somebody else stores something under the name."""

    def copy(world: World, progress: Progress) -> None:
        copied(world, progress)
        world.destination.content = data

    return copy


def test_a_wrong_file_that_appeared_meanwhile_goes_by_leave_of_the_claim(world: World) -> None:
    assert world.run(appears(OTHER)).copied
    assert (world.named, world.left) == (CONTENT, [])
    assert world.claim.asked == ["confirm", "removal"]


def test_a_good_replica_that_appeared_meanwhile_stays(world: World) -> None:
    world.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = world.run(appears(OTHER))
    assert (outcome.state, outcome.error) == (State.FAILED, world.claim.removal)
    assert (world.named, world.left) == (OTHER, [])


def test_right_file_that_appeared_meanwhile_counts(world: World) -> None:
    outcome = world.run(appears(CONTENT))
    # Not of our making, so that nobody removes it later.
    assert (outcome.state, outcome.copied, outcome.file) == (State.DONE, False, None)
    assert world.left == []
    assert "delete" not in world.destination.calls


def test_a_name_that_is_taken_again_and_again_is_a_failure(world: World) -> None:
    def delete() -> None:
        world.destination.content = b"the next"

    world.destination.delete = delete  # type: ignore[method-assign]
    outcome = world.run(appears(OTHER))
    assert isinstance(outcome.error, errors.AlreadyExists)
    assert (world.named, world.left) == (b"the next", [])


def test_a_proven_file_is_named_again_after_a_short_outage(world: World) -> None:
    world.destination.faults["take_name"] = [errors.Unavailable("gateway restarts")] * 3
    assert world.run().copied
    assert world.named == CONTENT
    assert len(world.pauses) == 3


def test_a_name_that_cannot_be_given_is_a_failure(world: World) -> None:
    error = errors.Unavailable("gateway is gone")
    world.destination.faults["take_name"] = [error] * 4
    outcome = world.run()
    assert (outcome.state, outcome.error) == (State.FAILED, error)
    assert (world.named, world.left) == (None, [])


@pytest.mark.parametrize("reads_at_once", [True, False])
@pytest.mark.parametrize("proof", ["read", "server", "size"])
def test_a_lost_answer_to_the_name_is_resolved_by_a_look(world: World, proof: Proof, reads_at_once: bool) -> None:
    world.destination.proof = proof
    world.destination.reads_at_once = reads_at_once
    world.destination.lost = [errors.Unavailable("gateway restarts")]
    outcome = world.run()
    assert (outcome.state, outcome.copied, outcome.file is not None) == (State.DONE, True, True)
    assert (world.named, world.left) == (CONTENT, [])
    assert world.claim.asked == ["confirm"]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("gone", "state"),
    [(RequestGone, State.ABANDONED), (ClaimLost, State.ABANDONED), (Stopping, State.DONE)],
)
def test_a_claim_that_ends_between_two_trials_of_the_name(
    world: World, gone: type[errors.Cancelled], state: State, named: bool
) -> None:
    class Ends(errors.Unavailable):
        """The claim ends while nobody knows what has become of the name."""

        @property
        def retry_after_s(self) -> float | None:
            world.claim.gone = gone
            return None

        @retry_after_s.setter
        def retry_after_s(self, value: float | None) -> None:
            pass

    if named:
        world.destination.lost = [Ends("gateway restarts")]
    else:
        world.destination.faults["take_name"] = [Ends("gateway restarts")]
    outcome = world.run()
    # One that has its name is reported, and removed by whoever finds then that nobody wants it.
    assert outcome.state is (State.DONE if named else state)
    assert outcome.copied is (outcome.state is State.DONE)
    assert (world.named, world.left) == (CONTENT if outcome.copied else None, [])


@pytest.mark.parametrize("proof", ["server", "size"])
@pytest.mark.parametrize(
    "error",
    [
        errors.ServerFault("the destination reports a failed copy: checksum mismatch"),
        errors.Unavailable("busy", code="HTTP 503"),
        # It may have its size before its bytes.
        errors.TransferInterrupted("connection cut"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_a_failure_the_right_size_alone_is_nothing(world: World, proof: Proof, error: errors.CS3Error) -> None:
    world.destination.proof = proof
    outcome = world.run(writes(OTHER, error))
    assert (outcome.state, outcome.error) == (State.FAILED, error)
    assert (world.named, world.left) == (None, [])


def test_after_a_failure_without_a_checksum_in_the_catalogue(world: World) -> None:
    world.job = replace(world.job, adler32=None)
    assert world.run(writes(OTHER, errors.ServerFault("broken"))).state is State.FAILED
    assert (world.named, world.left) == (None, [])


def test_first_error_is_reported_where_cleaning_fails(world: World) -> None:
    error = errors.NoSpaceLeft("the quota is used up", code="HTTP 507")
    world.destination.faults["discard"] = [errors.Unavailable("gateway is gone")]
    outcome = world.run(writes(b"half", error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert world.destination.faults == {"discard": []}
    assert world.named is None


@pytest.mark.parametrize("method", ["stat", "make_parents"])
def test_unreachable_destination_fails_clearly(looking: World, method: str) -> None:
    error = errors.Unavailable("no route", operation="Stat", code="UNAVAILABLE")
    looking.destination.faults[method] = [error]
    assert looking.run(must_not_copy) == Outcome(state=State.FAILED, reason="Stat: no route (UNAVAILABLE)", error=error)


def test_unreachable_source_fails_clearly(looking: World) -> None:
    error = errors.Unavailable("no route", operation="Stat", code="UNAVAILABLE")
    looking.source.faults["stat"] = [error]
    assert looking.run(must_not_copy) == Outcome(state=State.FAILED, reason="Stat: no route (UNAVAILABLE)", error=error)


def test_a_front_end_that_is_away_is_done_without(looking: World) -> None:
    looking.destination.faults["speaks_tpc"] = [errors.Unavailable("no route")]
    assert looking.run(must_not_copy).mode is Mode.PUSH


@pytest.mark.parametrize(
    "error",
    [
        errors.TransferInterrupted("connection cut"),
        errors.Unavailable("a proxy cannot reach the site", code="HTTP 502"),
        errors.DeadlineExceeded("a proxy has waited long enough", code="HTTP 504"),
        errors.Unavailable("connection refused", code="UNAVAILABLE"),
    ],
    ids=lambda error: error.code,
)
def test_what_comes_late_after_a_copy_that_nobody_says_is_over_goes(world: World, error: errors.CS3Error) -> None:
    looks = iter(range(4))

    def landing() -> MemoryLanding:
        landing = MemoryLanding(world.destination)
        settled = landing.settled

        def late() -> FileInfo:
            if next(looks) == 2:
                landing.content = CONTENT[:10]
            return settled()

        world.destination.landings.append(landing)
        landing.settled = late  # type: ignore[method-assign]
        return landing

    world.destination.landing = landing  # type: ignore[method-assign]
    assert world.run(fails(error)).error is error
    assert (world.named, world.left) == (None, [])
    assert next(looks) == 3


# -- a relay of what is no such file ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (OTHER, errors.ChecksumMismatch, "the source sends other content than the catalogue says"),
        (CONTENT[:-1], errors.SizeMismatch, f"the source has {len(CONTENT) - 1} bytes"),
        (CONTENT + b"x", errors.SizeMismatch, f"the source has more than {len(CONTENT)} bytes"),
        (b"", errors.SizeMismatch, "the source has 0 bytes"),
    ],
)
def test_a_wrong_source_is_named_and_nothing_lands(
    world: World, content: bytes, kind: type[errors.CS3Error], words: str
) -> None:
    world.source.wish = "relay"
    world.source.content = content
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, kind)
    assert words in str(outcome.reason)
    assert world.source.place in str(outcome.reason)
    assert world.named is None


def test_an_empty_file_in_the_catalogue_that_is_none(world: World) -> None:
    world.source.wish = "relay"
    world.job = replace(world.job, size_bytes=0, adler32="00000001")
    outcome = world.run()
    assert "the source has more than 0 bytes" in str(outcome.reason)
    assert "store" not in world.destination.calls


@pytest.mark.parametrize("error", [ClaimLost("over"), errors.TransferInterrupted("connection cut")])
def test_what_a_cut_relay_leaves_is_removed(world: World, error: errors.CS3Error) -> None:
    """Also where another agent has the request by now: nobody else has that name."""

    def landing() -> MemoryLanding:
        landing = MemoryLanding(world.destination)

        def store(body: UploadBody) -> None:
            landing.content = bytes(next(iter(body)))[:10]
            raise error

        world.destination.landings.append(landing)
        landing.store = store  # type: ignore[method-assign]
        return landing

    world.source.wish = "relay"
    world.destination.landing = landing  # type: ignore[method-assign]
    assert world.run().state is (State.ABANDONED if isinstance(error, ClaimLost) else State.FAILED)
    assert (world.named, world.left) == (None, [])
    # The server may notice the end later than we do.
    assert world.landing.discards == [True]
    assert world.claim.asked == []


# -- cancelled, taken over, stopped, put off --------------------------------------------------------------


def interrupted(gone: type[errors.Cancelled]) -> ThirdParty:
    """The claim ends while the copy is half done."""

    def copy(world: World, progress: Progress) -> None:
        world.landing.content = CONTENT[:10]
        world.claim.gone = gone
        progress(10)

    return copy


def test_cancelled_before_the_start(world: World) -> None:
    world.claim.gone = RequestGone
    outcome = world.run(must_not_copy)
    assert (outcome.state, outcome.mode) == (State.ABANDONED, None)
    assert world.destination.calls == []


def test_cancelled_while_copying_leaves_nothing(world: World) -> None:
    assert world.run(interrupted(RequestGone)).state is State.ABANDONED
    assert (world.named, world.left) == (None, [])


def test_cancelled_while_relaying_leaves_nothing(world: World) -> None:
    world.source.wish = "relay"

    def moved(total_bytes: int) -> None:
        world.claim.gone = RequestGone

    world.notes.moved = moved  # type: ignore[method-assign]
    assert world.run().state is State.ABANDONED
    assert world.named is None


def test_cancelled_before_anything_landed(world: World) -> None:
    def copy(world: World, progress: Progress) -> None:
        world.claim.gone = RequestGone
        progress(0)

    assert world.run(copy).state is State.ABANDONED
    assert world.claim.asked == []


@pytest.mark.parametrize("at", ["gone", "confirmed"])
def test_cancelled_at_the_end_leaves_no_dark_data(world: World, at: str) -> None:
    def copy(world: World, progress: Progress) -> None:
        copied(world, progress)
        setattr(world.claim, at, RequestGone)

    assert world.run(copy).state is State.ABANDONED
    assert world.named is None


def test_cancelled_and_not_to_be_cleaned_is_abandoned(world: World) -> None:
    world.destination.faults["discard"] = [errors.Unavailable("gateway is gone")]
    assert world.run(interrupted(RequestGone)).state is State.ABANDONED


def test_taken_over_by_another_agent_leaves_only_that_ones_copy(world: World) -> None:
    def copy(world: World, progress: Progress) -> None:
        world.destination.content = CONTENT
        interrupted(ClaimLost)(world, progress)

    assert world.run(copy).state is State.ABANDONED
    assert (world.named, world.left) == (CONTENT, [])
    assert world.claim.asked == []


def test_stopping_before_the_start_puts_it_off(world: World) -> None:
    world.claim.gone = Stopping
    outcome = world.run(must_not_copy)
    assert (outcome.state, outcome.mode, outcome.retry_after_s) == (State.POSTPONED, None, None)
    assert world.destination.calls == []


@pytest.mark.parametrize("mode", list(Mode))
def test_stopping_half_way_puts_it_off_and_leaves_nothing(world: World, mode: Mode) -> None:
    world.source.wish = mode.value
    world.pulls = world.pushes = interrupted(Stopping)

    def moved(total_bytes: int) -> None:
        world.claim.gone = Stopping

    if mode is Mode.RELAY:
        world.job = replace(world.job, size_bytes=3 << 20, adler32=None)
        world.source.content = bytes(3 << 20)
        world.notes.moved = moved  # type: ignore[method-assign]
    outcome = world.run()
    assert (outcome.state, outcome.mode) == (State.POSTPONED, mode)
    assert (world.named, world.left) == (None, [])
    assert world.landing.discards == [True]


def test_stopping_does_not_take_what_merely_looks_right(world: World) -> None:
    """Its size may be right while the server is still at it; so it goes, and comes again."""

    def copy(world: World, progress: Progress) -> None:
        world.landing.content = CONTENT
        world.claim.gone = Stopping
        progress(len(CONTENT))

    assert world.run(copy).state is State.POSTPONED
    assert (world.named, world.left) == (None, [])


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_site_that_asks_to_come_back_later_is_left_alone(looking: World, side: str) -> None:
    error = errors.Throttled("slow down", code="HTTP 429", retry_after_s=30.0)
    getattr(looking, side).faults["stat"] = [error]
    outcome = looking.run(must_not_copy)
    assert outcome == Outcome(state=State.POSTPONED, reason=str(error), error=error, retry_after_s=30.0)


def test_a_copy_that_is_put_off_leaves_nothing(world: World) -> None:
    error = errors.Unavailable("busy", code="HTTP 503", retry_after_s=7.0)
    outcome = world.run(writes(b"half", error))
    assert outcome == Outcome(state=State.POSTPONED, reason=str(error), error=error, mode=Mode.PULL, retry_after_s=7.0)
    assert (world.named, world.left) == (None, [])


# -- what killed agents left ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "resumed", "swept"), [(0, False, False), (1, False, True), (0, True, True), (1, True, True)]
)
def test_leftovers_are_looked_for_where_there_may_be_some(
    world: World, attempt: int, resumed: bool, swept: bool
) -> None:
    world.job = replace(world.job, attempt=attempt, resumed=resumed)
    world.destination.leave(b"half")
    assert world.run().copied
    assert (world.named, world.left) == (CONTENT, [] if swept else [b"half"])


def test_what_an_earlier_attempt_has_brought_whole_gets_the_name(world: World) -> None:
    world.job = replace(world.job, resumed=True)
    for data in (b"half", OTHER, CONTENT, CONTENT):
        world.destination.leave(data)
    outcome = world.run(must_not_copy)
    assert (outcome.state, outcome.copied, outcome.mode) == (State.DONE, True, None)
    assert outcome.file is not None
    assert (world.named, world.left) == (CONTENT, [])
    assert world.claim.asked == ["confirm"]


@pytest.mark.parametrize("gone", [RequestGone, ClaimLost])
def test_what_nobody_wants_any_more_gets_no_name(world: World, gone: type[errors.Cancelled]) -> None:
    world.job = replace(world.job, resumed=True)
    world.destination.leave(CONTENT)
    world.claim.confirmed = gone
    assert world.run(must_not_copy).state is State.ABANDONED
    assert (world.named, world.left) == (None, [])


@pytest.mark.parametrize("proof", ["server", "size"])
def test_the_right_size_alone_is_no_whole_file(world: World, proof: Proof) -> None:
    world.job = replace(world.job, resumed=True)
    world.destination.proof = proof
    world.destination.leave(OTHER)
    assert world.run().mode is Mode.PULL
    assert (world.named, world.left) == (CONTENT, [])


def test_what_is_still_processed_is_not_copied_once_more(world: World) -> None:
    """A server that takes longer than anybody waits would be given a new copy with each attempt."""
    world.job = replace(world.job, attempt=1)
    leftover = world.destination.leave(CONTENT)
    error = errors.StillProcessing("stuck")
    leftover.settled = lambda: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    outcome = world.run(must_not_copy)
    assert (outcome.state, outcome.error) == (State.FAILED, error)
    assert leftover.content == CONTENT


def test_a_leftover_that_cannot_be_removed_is_removed_in_the_end(world: World) -> None:
    """OpenCloud refuses that while it processes the file."""
    world.job = replace(world.job, attempt=1)
    world.destination.leave(b"half")
    world.destination.faults["discard"] = [errors.TooEarly("in post-processing")]
    assert world.run().copied
    assert world.left == []


def test_who_has_lost_its_claim_removes_no_leftovers(world: World) -> None:
    """By then it may be a living copy of the agent that has taken the request over."""
    world.claim.gone = ClaimLost
    world.job = replace(world.job, attempt=1)
    world.destination.leave(b"living")
    assert world.run(must_not_copy).state is State.ABANDONED
    assert world.left == [b"living"]


def test_leftovers_go_where_the_right_file_is_there_too(world: World) -> None:
    world.job = replace(world.job, resumed=True)
    world.destination.content = CONTENT
    world.destination.leave(b"half")
    assert world.run(must_not_copy) == Outcome(state=State.DONE)
    assert world.left == []


def test_a_copy_that_is_stopped_and_cannot_tidy_up_leaves_its_traces_in_the_row(world: World) -> None:
    """Of what goes back to the queue nobody knows that it was begun."""
    world.destination.faults["discard"] = [errors.Unavailable("gateway is gone")]
    assert world.run(interrupted(Stopping)).state is State.ABANDONED


@pytest.mark.parametrize("resumed", [False, True])
def test_a_stop_before_the_sweep_leaves_the_traces_in_the_row(world: World, resumed: bool) -> None:
    """They are all that tells the next agent of the one that was killed."""
    world.claim.gone = Stopping
    world.job = replace(world.job, resumed=resumed)
    assert world.run(must_not_copy).state is (State.ABANDONED if resumed else State.POSTPONED)


def test_leftovers_that_cannot_be_looked_for_keep_nobody_from_copying(world: World) -> None:
    world.job = replace(world.job, resumed=True)
    world.destination.faults["leftovers"] = [errors.Throttled("the listing is too long")]
    assert world.run().state is State.DONE
    assert world.named == CONTENT


# -- what nobody wants any more ---------------------------------------------------------------------------


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("gone", [None, RequestGone, Stopping])
def test_what_was_copied_for_nobody_is_removed(world: World, etags: bool, gone: type[errors.Cancelled] | None) -> None:
    world.destination.etag = '"1"' if etags else ""
    file = world.run().file
    assert file is not None
    world.claim.gone = gone
    remove_copied(file, world.destination, world.claim)
    assert world.named is None
    assert world.claim.asked[-1] == "removal"


def _another_content(end: MemoryEnd) -> None:
    end.content, end.etag = OTHER, '"2"'


def _another_size(end: MemoryEnd) -> None:
    end.content = CONTENT[:-1]


def _another_time(end: MemoryEnd) -> None:
    end.content, end.etag, end.mtime_s = OTHER, "", 1.0


def _no_time(end: MemoryEnd) -> None:
    end.content, end.etag, end.mtime_s = OTHER, "", 0.0


def _folder(end: MemoryEnd) -> None:
    end.is_folder = True


@pytest.mark.parametrize("change", [_another_content, _another_size, _another_time, _no_time, _folder])
def test_what_somebody_has_put_there_since_stays(world: World, change: Callable[[MemoryEnd], None]) -> None:
    world.destination.etag = '"1"'
    file = world.run().file
    assert file is not None
    change(world.destination)
    with pytest.raises(errors.AlreadyExists, match="not known to be the file"):
        remove_copied(file, world.destination, world.claim)
    assert "delete" not in world.destination.calls


def test_what_another_agent_has_by_now_stays(world: World) -> None:
    file = world.run().file
    assert file is not None
    world.claim.gone = ClaimLost
    with pytest.raises(ClaimLost):
        remove_copied(file, world.destination, world.claim)
    assert world.named == CONTENT


def test_what_was_there_already_is_nobodys_to_remove(world: World) -> None:
    world.destination.content = CONTENT
    assert world.run().file is None


# -- tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["source", "destination", None])
def test_only_a_token_that_has_died_is_a_reason_to_copy_again(world: World, dead: str | None) -> None:
    """Another copy at once may meet what the first destination is still writing."""
    begun = []

    def pulls(world: World, progress: Progress) -> None:
        begun.append(1)
        if dead is not None:
            getattr(world, dead).token_has_died = len(begun) == 1
        if len(begun) == 1:
            raise errors.ServerFault("the disk is full", code="HTTP 500")
        copied(world, progress)

    outcome = world.run(pulls)
    assert (outcome.state, len(begun)) == ((State.FAILED, 1) if dead is None else (State.DONE, 2))
