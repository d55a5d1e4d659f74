"""First attempts that ask for the copy before anybody has looked, at a destination that has proven to guard its names.

What holds of every transfer is in test_transfers.py and test_failed_transfers.py, which use such a destination, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.transfers.copies import Progress
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode, Wish
from rucio_cs3.transfers.removal import remove_copied
from tests.unit.transfer_world import CONTENT, OTHER, World, copied, fails, must_not_copy, writes


class Copies:
    """A pull that goes otherwise each time."""

    def __init__(self, *ways: Callable[[World, Progress], None]) -> None:
        self._ways = list(ways)
        self.asked = 0

    def __call__(self, world: World, progress: Progress) -> None:
        self.asked += 1
        self._ways.pop(0)(world, progress)


def nothing(world: World, progress: Progress) -> None:
    """Claims success, and has stored nothing."""
    progress(0)


def test_nobody_is_asked_but_for_the_copy_and_the_proof(guarded: World) -> None:
    guarded.destination.has_parents = guarded.destination.reads_at_once = True
    assert guarded.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert guarded.source.calls == []
    assert guarded.destination.calls == ["make_parents", "read_back"]
    assert guarded.claim.asked == ["confirm"]


@pytest.mark.parametrize(
    "change",
    [
        lambda world: setattr(world, "job", replace(world.job, attempt=1)),
        lambda world: setattr(world, "job", replace(world.job, resumed=True)),
        lambda world: setattr(world.destination, "guards", False),
        lambda world: setattr(world.destination, "wish", "push"),
        lambda world: setattr(world.source, "wish", "relay"),
    ],
    ids=["later-attempt", "resumed", "not-proven", "push", "relay"],
)
def test_everybody_else_looks_first(guarded: World, change: Callable[[World], None]) -> None:
    change(guarded)
    assert guarded.run().state is State.DONE
    assert guarded.destination.calls[0] == "stat"
    assert guarded.source.calls[0] == "stat"


@pytest.mark.parametrize("wish", ["auto", "pull"])
def test_a_pull_that_is_wished_for_looks_at_nothing_either(guarded: World, wish: Wish) -> None:
    guarded.source.wish = wish
    assert guarded.run().mode is Mode.PULL
    assert guarded.source.calls == []


def test_wishes_that_conflict_ask_for_no_copy(guarded: World) -> None:
    guarded.source.wish, guarded.destination.wish = "pull", "relay"
    outcome = guarded.run(must_not_copy)
    assert isinstance(outcome.error, errors.ConfigurationError)


# -- answers that a look explains -------------------------------------------------------------------------


def test_what_stands_there_and_is_right_is_found_by_the_refusal(guarded: World) -> None:
    guarded.destination.content = CONTENT
    assert guarded.run(must_not_copy) == Outcome(state=State.DONE, copied=False)
    assert "delete" not in guarded.destination.calls


def test_a_leftover_is_replaced_by_leave_of_the_claim(guarded: World) -> None:
    guarded.destination.content = OTHER
    assert guarded.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert guarded.claim.asked == ["removal", "confirm"]
    assert guarded.source.calls[0] == "stat"


@pytest.mark.parametrize(
    "error",
    [
        errors.Unauthenticated("the source does not accept the token", code="HTTP 401"),
        errors.NotFound("the source has no such file", code="HTTP 404"),
    ],
)
def test_an_answer_that_a_look_may_change_is_asked_for_once_more(guarded: World, error: errors.CS3Error) -> None:
    # A look over CS3 replaces a token that is over.
    pull = Copies(fails(error), copied)
    assert guarded.run(pull).state is State.DONE
    assert pull.asked == 2
    assert "stat" in guarded.source.calls
    assert "stat" in guarded.destination.calls


def test_an_answer_that_a_look_does_not_change_is_final(guarded: World) -> None:
    error = errors.Unauthenticated("the source does not accept the token", code="HTTP 401")
    pull = Copies(fails(error), fails(error))
    outcome = guarded.run(pull)
    assert (outcome.state, outcome.error, pull.asked) == (State.FAILED, error, 2)


def test_a_missing_source_is_asked_for_once(guarded: World) -> None:
    guarded.source.content = None
    pull = Copies(fails(errors.NotFound("no such file", code="HTTP 404")))
    outcome = guarded.run(pull)
    assert "the source source has no such file" in str(outcome.reason)
    assert pull.asked == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.Throttled("slow down", code="HTTP 429", retry_after_s=30.0),
        errors.ServerFault("broken", code="HTTP 500"),
        errors.AccessDenied("no", code="HTTP 403"),
    ],
)
def test_any_other_answer_is_final(guarded: World, error: errors.CS3Error) -> None:
    pull = Copies(fails(error))
    outcome = guarded.run(pull)
    assert outcome.error is error
    assert outcome.state is (State.POSTPONED if error.retry_after_s else State.FAILED)
    assert pull.asked == 1


# -- a folder that was known and is gone ------------------------------------------------------------------


def test_a_folder_that_is_gone_is_made_anew(guarded: World) -> None:
    def folder_is_gone(world: World, progress: Progress) -> None:
        world.destination.has_parents = False

    pull = Copies(folder_is_gone, copied)
    assert guarded.run(pull) == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert pull.asked == 2


def test_a_folder_that_vanishes_again_is_a_failure(guarded: World) -> None:
    def folder_is_gone(world: World, progress: Progress) -> None:
        world.destination.has_parents = False

    outcome = guarded.run(Copies(folder_is_gone, folder_is_gone))
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)


def test_success_without_a_file_in_a_folder_that_is_there_is_final(guarded: World) -> None:
    pull = Copies(nothing)
    outcome = guarded.run(pull)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)
    assert pull.asked == 1


def test_a_folder_that_cannot_be_looked_for_is_a_failure(guarded: World) -> None:
    def nothing_more(world: World, progress: Progress) -> None:
        world.destination.faults["make_parents"] = [errors.Unavailable("no route")]

    outcome = guarded.run(nothing_more)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)


# -- what a failed copy leaves ----------------------------------------------------------------------------


def test_what_was_begun_goes_even_where_the_source_cannot_be_seen(guarded: World) -> None:
    # Nothing stood there when the destination began, so it can be nothing else.
    guarded.source.faults["stat"] = [errors.Unavailable("no route")]
    assert guarded.run(writes(b"half", errors.ServerFault("broken"))).state is State.FAILED
    assert guarded.landed is None


def without_report(data: bytes, error: errors.CS3Error) -> Callable[[World, Progress], None]:
    """A copy whose answer never came; what stands there may have stood there before."""

    def copy(world: World, progress: Progress) -> None:
        world.destination.content = data
        raise error

    return copy


def test_what_may_have_stood_there_before_goes_as_a_leftover_does(guarded: World) -> None:
    outcome = guarded.run(without_report(b"half", errors.TransferInterrupted("cut")))
    assert outcome.state is State.FAILED
    assert guarded.landed is None
    assert guarded.claim.asked == ["removal"]


@pytest.mark.parametrize("why", ["it may be the source", "the source cannot be seen", "the source is gone", "no leave"])
def test_what_may_have_stood_there_before_stays_where_a_leftover_does(guarded: World, why: str) -> None:
    if why == "it may be the source":
        guarded.source.etag = guarded.destination.etag = '"1"'
    elif why == "no leave":
        guarded.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    elif why == "the source is gone":
        guarded.source.content = None
    else:
        guarded.source.faults["stat"] = [errors.Unavailable("no route")]
    error = errors.TransferInterrupted("cut")
    outcome = guarded.run(without_report(OTHER, error))
    assert (outcome.state, outcome.error) == (State.FAILED, error)
    assert guarded.landed == OTHER


def test_the_right_file_after_a_lost_answer_is_done_and_not_taken_for_ours(guarded: World) -> None:
    outcome = guarded.run(without_report(CONTENT, errors.TransferInterrupted("cut")))
    assert outcome.state is State.DONE
    # So nobody removes it where the request turns out to be cancelled.
    assert outcome.file is None


# -- the proof by reading alone ---------------------------------------------------------------------------


def test_a_wrong_content_is_looked_at_and_removed(guarded: World) -> None:
    guarded.destination.reads_at_once = True
    outcome = guarded.run(writes(OTHER))
    assert isinstance(outcome.error, errors.ChecksumMismatch)
    assert guarded.landed is None


def test_a_wrong_size_is_looked_at_again(guarded: World) -> None:
    guarded.destination.reads_at_once = True
    outcome = guarded.run(writes(CONTENT[:-1]))
    assert isinstance(outcome.error, errors.SizeMismatch)
    assert guarded.landed is None


def test_what_cannot_be_read_at_once_is_looked_at(guarded: World) -> None:
    guarded.destination.reads_at_once = True
    guarded.destination.faults["read_back"] = [errors.ServerFault("the ticket has expired")]
    assert guarded.run().state is State.DONE
    assert guarded.destination.calls[-2:] == ["stat", "checksum"]


@pytest.mark.parametrize("why", ["proof", "read_back", "no checksum"])
def test_nothing_is_read_that_nobody_asked_for(guarded: World, why: str) -> None:
    guarded.destination.reads_at_once = True
    if why == "proof":
        guarded.destination.proof = "size"
    elif why == "read_back":
        guarded.job = replace(guarded.job, read_back=False)
    else:
        guarded.job = replace(guarded.job, adler32=None)
    assert guarded.run().state is State.DONE
    assert "read_back" not in guarded.destination.calls


def test_a_file_that_was_proven_by_reading_is_known_again_by_reading(guarded: World) -> None:
    guarded.destination.reads_at_once = True
    file = guarded.run().file
    assert file is not None
    guarded.destination.content = OTHER
    with pytest.raises(errors.AlreadyExists, match="not known to be the file"):
        remove_copied(file, guarded.destination, guarded.claim)
    guarded.destination.content = CONTENT
    remove_copied(file, guarded.destination, guarded.claim)
    assert guarded.landed is None
