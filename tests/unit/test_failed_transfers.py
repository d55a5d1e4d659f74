"""Transfers that fail, are cancelled, taken over, stopped or put off, and what is left behind each time.

After every run the source has only been read: see :meth:`tests.unit.transfer_world.World.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.reasons import MAY_GO_ON
from rucio_cs3.transfers import ladder
from rucio_cs3.transfers.copies import Progress
from rucio_cs3.transfers.ladder import ClaimLost, Outcome, RequestGone, State, Stopping
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfers.removal import remove_copied
from tests.unit.transfer_world import CONTENT, OTHER, MemoryEnd, ThirdParty, World, copied, fails, must_not_copy, writes

# -- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [CONTENT[:10], OTHER])
def test_broken_copy_leaves_nothing(world: World, landed: bytes) -> None:
    error = errors.ServerFault("inner PUT failed", operation="COPY", code="HTTP 500", trace="abc123")
    outcome = world.run(writes(landed, error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert "abc123" in str(outcome.reason)
    assert world.landed is None


def test_lost_answer_is_resolved_by_a_look(world: World) -> None:
    outcome = world.run(writes(CONTENT, errors.TransferInterrupted("connection cut")))
    assert outcome == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert world.landed == CONTENT
    assert world.claim.asked == ["confirm"]


@pytest.mark.parametrize(
    ("error", "open_end"),
    [
        (errors.TransferInterrupted("connection cut"), True),
        (errors.DeadlineExceeded("no marker for a while"), True),
        (errors.ServerFault("the destination reports a failed copy"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_reason_says_that_a_copy_may_go_on(world: World, error: errors.CS3Error, open_end: bool) -> None:
    outcome = world.run(writes(CONTENT[:10], error))
    assert outcome.reason == (f"{error}; {MAY_GO_ON}" if open_end else str(error))


@pytest.fixture
def waits(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits for an earlier copy take no time; what they were is in here."""
    now = [0.0]
    waits: list[float] = []

    def sleep(pause_s: float) -> None:
        waits.append(pause_s)
        now[0] += pause_s

    monkeypatch.setattr(ladder, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    world.job = replace(world.job, attempt=1, chased=True)
    return waits


def test_a_copy_that_an_earlier_one_writes_over_is_not_done(
    world: World, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reva v3.12.1, cut off in the middle of a copy, puts what had come into the place when it is back."""

    def check() -> None:
        if len(waits) == 3:
            world.destination.content = CONTENT[:10]

    monkeypatch.setattr(world.claim, "check", check)
    outcome = world.run()
    assert (outcome.state, type(outcome.error)) == (State.FAILED, errors.SizeMismatch)
    assert world.landed is None
    assert sum(waits) == ladder.OUTLAST_S


def test_a_right_file_that_is_there_already_may_be_written_over_too(
    world: World, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        if len(waits) == 3:
            world.destination.content = OTHER

    world.destination.content = CONTENT
    monkeypatch.setattr(world.claim, "check", check)
    outcome = world.run(must_not_copy)
    assert (outcome.state, type(outcome.error)) == (State.FAILED, errors.ChecksumMismatch)


def test_a_copy_that_outlasts_an_earlier_one_is_done(world: World, waits: list[float]) -> None:
    assert world.run().state is State.DONE
    assert sum(waits) == ladder.OUTLAST_S
    world.destination.content = None
    world.job = replace(world.job, chased=False)
    assert world.run().state is State.DONE
    assert sum(waits) == ladder.OUTLAST_S


def test_lost_answer_for_a_cancelled_request_leaves_nothing(world: World) -> None:
    world.claim.confirmed = RequestGone
    outcome = world.run(writes(CONTENT, errors.TransferInterrupted("connection cut")))
    assert outcome.state is State.ABANDONED


def test_a_folder_in_the_place_of_a_failed_copy_stays(world: World) -> None:
    def copy(world: World, progress: Progress) -> None:
        world.destination.is_folder = True
        raise errors.ServerFault("broken")

    assert world.run(copy).reason == "broken"
    assert "delete" not in world.destination.calls


def test_a_failure_that_left_nothing_is_all_that_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    error = errors.ServerFault("broken")
    assert world.run(fails(error)) == Outcome(state=State.FAILED, reason="broken", error=error, mode=Mode.PULL)
    assert world.claim.asked == []
    assert caplog.records == []


def test_file_that_appeared_meanwhile_is_not_ours_to_delete(world: World) -> None:
    outcome = world.run(writes(b"other", errors.AlreadyExists("something stands there", code="HTTP 412")))
    assert outcome.state is State.FAILED
    assert world.landed == b"other"


def test_right_file_that_appeared_meanwhile_counts(world: World) -> None:
    outcome = world.run(writes(CONTENT, errors.AlreadyExists("something stands there", code="HTTP 412")))
    # Not of our making, so that nobody removes it later.
    assert (outcome.state, outcome.copied, outcome.file) == (State.DONE, False, None)


@pytest.mark.parametrize("proof", ["server", "size"])
@pytest.mark.parametrize(
    "error",
    [
        errors.ServerFault("the destination reports a failed copy: checksum mismatch"),
        errors.AlreadyExists("something stands there", code="HTTP 412"),
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
    assert world.landed == (OTHER if isinstance(error, errors.AlreadyExists) else None)


def test_after_a_failure_without_a_checksum_in_the_catalogue(world: World) -> None:
    world.job = replace(world.job, adler32=None)
    assert world.run(writes(OTHER, errors.ServerFault("broken"))).state is State.FAILED
    assert world.landed is None


def test_a_claim_that_is_lost_while_it_is_asked_after_a_failure(world: World) -> None:
    def allow_removal() -> None:
        world.claim.gone = ClaimLost

    world.claim.allow_removal = allow_removal  # type: ignore[method-assign]
    assert world.run(writes(b"by now another agent's", errors.ServerFault("broken"))).state is State.ABANDONED
    assert world.landed == b"by now another agent's"


def test_what_turns_out_to_be_the_source_stays(world: World) -> None:
    """Although nothing stood there before: some servers remember for a while that there is no such file."""
    world.source.etag = world.destination.etag = '"1"'
    assert world.run(writes(OTHER, errors.ServerFault("broken"))).reason == "broken"
    assert world.landed == OTHER


@pytest.mark.parametrize("mtime_s", [0.0, 1700000000.0])
def test_what_cannot_be_told_from_the_source_goes_where_nothing_stood(world: World, mtime_s: float) -> None:
    world.source.mtime_s = world.destination.mtime_s = mtime_s
    assert world.run(writes(OTHER, errors.ServerFault("broken"))).reason == "broken"
    assert world.landed is None


def test_first_error_is_reported_where_cleaning_fails(world: World) -> None:
    error = errors.NoSpaceLeft("the quota is used up", code="HTTP 507")
    world.destination.faults["delete"] = [errors.Unavailable("gateway is gone")]
    outcome = world.run(writes(b"half", error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert world.destination.faults == {"delete": []}


def test_what_a_good_replica_owns_by_now_is_not_cleaned_away(world: World) -> None:
    error = errors.ServerFault("inner PUT failed")
    world.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = world.run(writes(OTHER, error))
    assert outcome == Outcome(state=State.FAILED, reason=str(error), error=error, mode=Mode.PULL)
    assert world.landed == OTHER


def test_what_goes_by_itself_needs_no_removal(world: World) -> None:
    """Somebody else has deleted it between our look and our delete."""
    error = errors.ServerFault("inner PUT failed")
    world.destination.faults["delete"] = [errors.NotFound("gone already")]
    assert world.run(writes(b"half", error)).reason == str(error)


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
    settled, looks = world.destination.settled, iter(range(4))

    def late() -> FileInfo:
        if Mode.PULL in world.notes.modes and next(looks) == 2:
            world.destination.content = CONTENT[:10]
        return settled()

    world.destination.settled = late  # type: ignore[method-assign]
    assert world.run(fails(error)).error is error
    assert world.landed is None
    assert "delete" in world.destination.calls


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
    assert world.landed is None


def test_an_empty_file_in_the_catalogue_that_is_none(world: World) -> None:
    world.source.wish = "relay"
    world.job = replace(world.job, size_bytes=0, adler32="00000001")
    outcome = world.run()
    assert "the source has more than 0 bytes" in str(outcome.reason)
    assert "store" not in world.destination.calls


def test_a_relay_that_finds_something_there_leaves_it(world: World) -> None:
    world.source.wish = "relay"

    def appear(*, anew: bool = False) -> bool:
        world.destination.content = b"somebody's"
        return False

    world.destination.make_parents = appear  # type: ignore[method-assign]
    outcome = world.run()
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.AlreadyExists)
    assert world.landed == b"somebody's"


def parting(world: World, then: errors.CS3Error) -> None:
    """Let the destination leave a part of what is sent under the file's name, as a plain site does."""

    def store(body: UploadBody) -> None:
        world.destination.content = bytes(next(iter(body)))[:10]
        raise then

    world.source.wish = "relay"
    world.destination.store = store  # type: ignore[method-assign]


def test_what_a_cut_relay_leaves_is_removed(world: World) -> None:
    parting(world, errors.TransferInterrupted("connection cut"))
    assert world.run().state is State.FAILED
    assert world.landed is None
    assert world.claim.asked == ["removal"]


@pytest.mark.parametrize("error", [ClaimLost("over"), errors.TransferInterrupted("connection cut")])
def test_what_stands_after_a_cut_relay_may_be_another_agents(world: World, error: errors.CS3Error) -> None:
    parting(world, error)
    world.claim.removal = ClaimLost("another agent has it")
    assert world.run().state is State.ABANDONED
    assert world.landed == CONTENT[:10]


def test_what_stands_after_a_relay_that_leaves_nothing_is_somebody_elses(world: World) -> None:
    parting(world, errors.TransferInterrupted("connection cut"))
    world.destination.leaves_parts = False
    assert world.run().state is State.FAILED
    assert world.landed == CONTENT[:10]
    assert world.claim.asked == []


def test_what_such_a_relay_has_stored_is_removed_where_it_is_wrong(world: World) -> None:
    def store(body: UploadBody) -> None:
        for _ in body:
            pass
        world.destination.content = OTHER

    world.source.wish = "relay"
    world.destination.leaves_parts = False
    world.destination.store = store  # type: ignore[method-assign]
    assert world.run().state is State.FAILED
    assert world.landed is None


# -- cancelled, taken over, stopped, put off --------------------------------------------------------------


def interrupted(gone: type[errors.Cancelled]) -> ThirdParty:
    """The claim ends while the copy is half done."""

    def copy(world: World, progress: Progress) -> None:
        world.destination.content = CONTENT[:10]
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
    assert world.landed is None


def test_cancelled_while_relaying_leaves_nothing(world: World) -> None:
    world.source.wish = "relay"

    def moved(total_bytes: int) -> None:
        world.claim.gone = RequestGone

    world.notes.moved = moved  # type: ignore[method-assign]
    assert world.run().state is State.ABANDONED
    assert world.landed is None


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
    assert world.landed is None


def test_cancelled_and_wanted_again_stays(world: World) -> None:
    world.claim.removal = RequestGone("a newer request wants the same file")
    assert world.run(interrupted(RequestGone)).state is State.ABANDONED
    assert world.landed == CONTENT[:10]


def test_cancelled_and_not_to_be_cleaned_is_abandoned(world: World) -> None:
    world.destination.faults["delete"] = [errors.Unavailable("gateway is gone")]
    assert world.run(interrupted(RequestGone)).state is State.ABANDONED


def test_taken_over_by_another_agent_touches_nothing(world: World) -> None:
    assert world.run(interrupted(ClaimLost)).state is State.ABANDONED
    assert world.landed == CONTENT[:10]
    assert world.claim.asked == []


def test_taken_over_while_cleaning_touches_nothing(world: World) -> None:
    world.claim.removal = ClaimLost("another agent has it")
    assert world.run(writes(b"half", errors.ServerFault("broken"))).state is State.ABANDONED
    assert world.landed == b"half"


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
    assert world.landed is None


def test_stopping_does_not_take_what_merely_looks_right(world: World) -> None:
    """Its size may be right while the server is still at it; so it goes, and comes again."""

    def copy(world: World, progress: Progress) -> None:
        world.destination.content = CONTENT
        world.claim.gone = Stopping
        progress(len(CONTENT))

    assert world.run(copy).state is State.POSTPONED
    assert world.landed is None


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
    assert world.landed is None


# -- what killed agents left ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "resumed", "swept"), [(0, False, False), (1, False, True), (0, True, True), (1, True, True)]
)
def test_leftovers_are_looked_for_where_there_may_be_some(
    world: World, attempt: int, resumed: bool, swept: bool
) -> None:
    world.job = replace(world.job, attempt=attempt, resumed=resumed)
    world.destination.leftovers.append(".hidden.part")
    assert world.run().state is State.DONE
    assert world.destination.leftovers == ([] if swept else [".hidden.part"])


def test_a_claim_that_is_lost_meanwhile_sweeps_nothing(world: World) -> None:
    """By then it may be a living upload of the agent that has taken the request over."""

    def speaks_tpc(*, max_age_s: float | None = None) -> bool:
        world.claim.gone = ClaimLost
        return True

    world.job = replace(world.job, attempt=1)
    world.destination.speaks_tpc = speaks_tpc  # type: ignore[method-assign]
    world.destination.leftovers.append(".living.part")
    assert world.run(must_not_copy).state is State.ABANDONED
    assert world.destination.leftovers == [".living.part"]


def stopping_relay(world: World) -> None:
    def moved(total_bytes: int) -> None:
        world.claim.gone = Stopping

    world.source.wish = "relay"
    world.job = replace(world.job, size_bytes=3 << 20, adler32=None)
    world.source.content = bytes(3 << 20)
    world.notes.moved = moved  # type: ignore[method-assign]
    world.destination.leftovers.append(".hidden.part")


def test_a_relay_that_is_stopped_leaves_nothing_beside_the_file(world: World) -> None:
    """Of what goes back to the queue nobody knows that it was begun."""
    stopping_relay(world)
    assert world.run().state is State.POSTPONED
    assert world.destination.leftovers == []


def test_a_relay_that_is_stopped_and_cannot_tidy_up_leaves_its_traces_in_the_row(world: World) -> None:
    stopping_relay(world)
    world.destination.faults["sweep"] = [errors.Unavailable("gateway is gone")]
    assert world.run().state is State.ABANDONED


@pytest.mark.parametrize("resumed", [False, True])
def test_a_stop_before_the_sweep_leaves_the_traces_in_the_row(world: World, resumed: bool) -> None:
    """They are all that tells the next agent of the one that was killed."""
    world.claim.gone = Stopping
    world.job = replace(world.job, resumed=resumed)
    assert world.run(must_not_copy).state is (State.ABANDONED if resumed else State.POSTPONED)


def test_a_relay_that_is_stopped_and_taken_over_sweeps_nothing(world: World) -> None:
    stopping_relay(world)
    settled = world.destination.settled

    def lost() -> FileInfo:
        if "store" in world.destination.calls:
            world.claim.gone = ClaimLost
        return settled()

    world.destination.settled = lost  # type: ignore[method-assign]
    assert world.run().state is State.ABANDONED
    assert world.destination.leftovers == [".hidden.part"]


def test_leftovers_that_cannot_be_looked_for_keep_nobody_from_copying(world: World) -> None:
    world.job = replace(world.job, resumed=True)
    world.destination.faults["sweep"] = [errors.Throttled("the listing is too long")]
    assert world.run().state is State.DONE
    assert world.landed == CONTENT


# -- what nobody wants any more ---------------------------------------------------------------------------


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("gone", [None, RequestGone, Stopping])
def test_what_was_copied_for_nobody_is_removed(world: World, etags: bool, gone: type[errors.Cancelled] | None) -> None:
    world.destination.etag = '"1"' if etags else ""
    file = world.run().file
    assert file is not None
    world.claim.gone = gone
    remove_copied(file, world.destination, world.claim)
    assert world.landed is None
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
    assert world.landed == CONTENT


def test_what_was_there_already_is_nobodys_to_remove(world: World) -> None:
    world.destination.content = CONTENT
    assert world.run(must_not_copy).file is None


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
