"""First attempts that ask for the copy before anybody has looked.

What holds of every transfer is in test_transfers.py and test_failed_transfers.py, which make such attempts, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.transfers import ladder
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


def test_nobody_is_asked_but_for_the_copy_and_the_proof(unseen: World) -> None:
    unseen.destination.has_parents = unseen.destination.reads_at_once = True
    assert unseen.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert unseen.source.calls == []
    assert unseen.destination.calls == ["speaks_tpc", "make_parents", "read_back", "take_name"]
    assert unseen.claim.asked == ["confirm"]


@pytest.mark.parametrize(
    "change",
    [
        lambda world: setattr(world, "job", replace(world.job, attempt=1)),
        lambda world: setattr(world, "job", replace(world.job, resumed=True)),
        lambda world: setattr(world.destination, "speaks", False),
        lambda world: world.destination.faults.update(speaks_tpc=[errors.Unavailable("no route")]),
        lambda world: setattr(world, "job", replace(world.job, size_bytes=ladder.UNSEEN_BYTES + 1)),
        lambda world: setattr(world.destination, "wish", "push"),
        lambda world: setattr(world.source, "wish", "relay"),
    ],
    ids=["later-attempt", "resumed", "no-tpc", "not-known", "large", "push", "relay"],
)
def test_everybody_else_looks_first(unseen: World, change: Callable[[World], None]) -> None:
    change(unseen)
    unseen.run()
    assert next(call for call in unseen.destination.calls if call not in ("speaks_tpc", "leftovers")) == "stat"
    assert unseen.source.calls[0] == "stat"


@pytest.mark.parametrize("wish", ["auto", "pull"])
def test_a_pull_that_is_wished_for_looks_at_nothing_either(unseen: World, wish: Wish) -> None:
    unseen.source.wish = wish
    assert unseen.run().mode is Mode.PULL
    assert unseen.source.calls == []


def test_wishes_that_conflict_ask_for_no_copy(unseen: World) -> None:
    unseen.source.wish, unseen.destination.wish = "pull", "relay"
    outcome = unseen.run(must_not_copy)
    assert isinstance(outcome.error, errors.ConfigurationError)


# -- answers that a look explains -------------------------------------------------------------------------


def test_what_stands_there_and_is_right_stays(unseen: World) -> None:
    unseen.destination.content = CONTENT
    assert unseen.run() == Outcome(state=State.DONE, copied=False, mode=Mode.PULL)
    assert "delete" not in unseen.destination.calls
    assert unseen.left == []


def test_a_leftover_is_replaced_by_leave_of_the_claim(unseen: World) -> None:
    unseen.destination.content = OTHER
    assert unseen.run() == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert unseen.claim.asked == ["confirm", "removal"]
    assert (unseen.named, unseen.left) == (CONTENT, [])


@pytest.mark.parametrize(
    "error",
    [
        errors.Unauthenticated("the source does not accept the token", code="HTTP 401"),
        errors.NotFound("the source has no such file", code="HTTP 404"),
    ],
)
def test_an_answer_that_a_look_may_change_is_asked_for_once_more(unseen: World, error: errors.CS3Error) -> None:
    # A look over CS3 replaces a token that is over.
    pull = Copies(fails(error), copied)
    assert unseen.run(pull).state is State.DONE
    assert pull.asked == 2
    assert "stat" in unseen.source.calls
    assert "stat" in unseen.destination.calls


def test_an_answer_that_a_look_does_not_change_is_final(unseen: World) -> None:
    error = errors.Unauthenticated("the source does not accept the token", code="HTTP 401")
    pull = Copies(fails(error), fails(error))
    outcome = unseen.run(pull)
    assert (outcome.state, outcome.error, pull.asked) == (State.FAILED, error, 2)


@pytest.mark.parametrize("seen", [True, False], ids=["missing", "away"])
def test_a_server_that_does_not_say_that_the_source_is_missing(unseen: World, seen: bool) -> None:
    """XRootD 5.5.3 says that the copy failed, and leaves an empty file."""
    error = errors.ServerFault("the destination reports a failed copy")
    unseen.source.faults["stat"] = [errors.NotFound("no such file") if seen else errors.Unavailable("no route")]
    outcome = unseen.run(writes(b"", error))
    assert outcome.state is State.FAILED
    assert ("the source source has no such file" in str(outcome.reason)) is seen
    assert (outcome.error is error) is not seen
    assert (unseen.named, unseen.left) == (None, [])


def test_what_cannot_be_removed_before_the_look_is_removed_in_the_end(unseen: World) -> None:
    def leaves(world: World, progress: Progress) -> None:
        world.landing.content = b""
        raise errors.NotFound("the source has no such file", code="HTTP 404")

    unseen.destination.faults["discard"] = [errors.ServerFault("internal")]
    assert unseen.run(Copies(leaves, copied)).copied
    assert (unseen.named, unseen.left) == (CONTENT, [])


def test_a_missing_source_is_asked_for_once(unseen: World) -> None:
    unseen.source.content = None
    pull = Copies(fails(errors.NotFound("no such file", code="HTTP 404")))
    outcome = unseen.run(pull)
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
def test_any_other_answer_is_final(unseen: World, error: errors.CS3Error) -> None:
    pull = Copies(fails(error))
    outcome = unseen.run(pull)
    assert outcome.error is error
    assert outcome.state is (State.POSTPONED if error.retry_after_s else State.FAILED)
    assert pull.asked == 1


# -- a folder that was known and is gone ------------------------------------------------------------------


def test_a_folder_that_is_gone_is_made_anew(unseen: World) -> None:
    def folder_is_gone(world: World, progress: Progress) -> None:
        world.destination.has_parents = False

    pull = Copies(folder_is_gone, copied)
    assert unseen.run(pull) == Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
    assert pull.asked == 2


def test_a_folder_that_vanishes_again_is_a_failure(unseen: World) -> None:
    def folder_is_gone(world: World, progress: Progress) -> None:
        world.destination.has_parents = False

    outcome = unseen.run(Copies(folder_is_gone, folder_is_gone))
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)


def test_success_without_a_file_in_a_folder_that_is_there_is_final(unseen: World) -> None:
    pull = Copies(nothing)
    outcome = unseen.run(pull)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)
    assert pull.asked == 1


def test_a_folder_that_cannot_be_looked_for_is_a_failure(unseen: World) -> None:
    def nothing_more(world: World, progress: Progress) -> None:
        world.destination.faults["make_parents"] = [errors.Unavailable("no route")]

    outcome = unseen.run(nothing_more)
    assert outcome.state is State.FAILED
    assert "there is no file" in str(outcome.reason)


# -- what a failed copy leaves ----------------------------------------------------------------------------


def test_what_was_begun_goes_even_where_the_source_cannot_be_seen(unseen: World) -> None:
    unseen.source.faults["stat"] = [errors.Unavailable("no route")]
    assert unseen.run(writes(b"half", errors.ServerFault("broken"))).state is State.FAILED
    assert (unseen.named, unseen.left) == (None, [])


@pytest.mark.parametrize("why", ["it may be the source", "the source cannot be seen", "the source is gone", "no leave"])
def test_what_stood_there_before_stays_where_a_leftover_does(unseen: World, why: str) -> None:
    if why == "it may be the source":
        unseen.source.etag = unseen.destination.etag = '"1"'
    elif why == "no leave":
        unseen.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    elif why == "the source is gone":
        unseen.source.faults["stat"] = [errors.NotFound("no such file")]
    else:
        # It is asked again after each pause.
        unseen.source.faults["stat"] = [errors.Unavailable("no route")] * 4
    unseen.destination.content = OTHER
    assert unseen.run().state is State.FAILED
    assert (unseen.named, unseen.left) == (OTHER, [])


# -- the proof by reading alone ---------------------------------------------------------------------------


def test_a_wrong_content_is_looked_at_and_removed(unseen: World) -> None:
    unseen.destination.reads_at_once = True
    outcome = unseen.run(writes(OTHER))
    assert isinstance(outcome.error, errors.ChecksumMismatch)
    assert (unseen.named, unseen.left) == (None, [])


def test_a_wrong_size_is_looked_at_again(unseen: World) -> None:
    unseen.destination.reads_at_once = True
    outcome = unseen.run(writes(CONTENT[:-1]))
    assert isinstance(outcome.error, errors.SizeMismatch)
    assert (unseen.named, unseen.left) == (None, [])


def test_what_cannot_be_read_at_once_is_looked_at(unseen: World) -> None:
    unseen.destination.reads_at_once = True
    unseen.destination.faults["read_back"] = [errors.ServerFault("the ticket has expired")]
    assert unseen.run().state is State.DONE
    assert unseen.destination.calls[-3:] == ["stat", "checksum", "take_name"]


@pytest.mark.parametrize("why", ["proof", "read_back", "no checksum"])
def test_nothing_is_read_that_nobody_asked_for(unseen: World, why: str) -> None:
    unseen.destination.reads_at_once = True
    if why == "proof":
        unseen.destination.proof = "size"
    elif why == "read_back":
        unseen.job = replace(unseen.job, read_back=False)
    else:
        unseen.job = replace(unseen.job, adler32=None)
    assert unseen.run().state is State.DONE
    assert "read_back" not in unseen.destination.calls


def test_a_file_that_was_proven_by_reading_is_known_again_by_reading(unseen: World) -> None:
    unseen.destination.reads_at_once = True
    file = unseen.run().file
    assert file is not None
    unseen.destination.content = OTHER
    with pytest.raises(errors.AlreadyExists, match="not known to be the file"):
        remove_copied(file, unseen.destination, unseen.claim)
    unseen.destination.content = CONTENT
    remove_copied(file, unseen.destination, unseen.claim)
    assert (unseen.named, unseen.left) == (None, [])
