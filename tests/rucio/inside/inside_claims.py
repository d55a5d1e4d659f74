"""Rows as a right to work on them: who gets it, how long it lasts, and what it allows, in Rucio's own tables."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from rucio.common.exception import DatabaseException
from rucio.core import rule as rule_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, ReplicaState, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import update

from rucio_cs3 import progress
from rucio_cs3.agent import claims, database
from rucio_cs3.agent.database import utc_now
from rucio_cs3.cs3 import errors
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.jobs import ClaimLost, RequestGone, Stopping
from rucio_cs3.transfers.modes import Mode

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

LEASE = datetime.timedelta(seconds=60)


def change(request_id: str, **values: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).where(models.Request.id == request_id).values(**values))


def change_replica(queue: Queue, rse: str, **values: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        replica = models.RSEFileAssociation
        session.execute(
            update(replica).where(replica.scope == queue.scope, replica.rse_id == queue.rse_ids[rse]).values(**values)
        )


@pytest.fixture
def row(queue: Queue) -> dict[str, Any]:
    queue.ask("f")
    queue.submit()
    found: dict[str, Any] = queue.row("f")
    return found


def taken(row: dict[str, Any], lease: datetime.timedelta = LEASE) -> claims.RowClaim:
    (claim,) = claims.take([row["id"]], lease)
    return claim


def expire(claim: claims.RowClaim) -> None:
    """Put the clock forward, by putting the lease back."""
    claim._until -= 2 * LEASE
    claim._values = (claim._until,)
    change(claim.request_id, estimated_transferred_at=claim._until)


def half_over(claim: claims.RowClaim) -> None:
    claim._until -= LEASE / 2
    claim._values = (claim._until,)
    change(claim.request_id, estimated_transferred_at=claim._until)


def some_progress(moved: int = 7) -> Progress:
    now = utc_now().replace(microsecond=0)
    return Progress(mode=Mode.PULL, bytes_moved=moved, rate=3, at=now, started=now)


# -- taking ---------------------------------------------------------------------------------------------------


def test_one_of_many_gets_it(row: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = [future.result() for future in [pool.submit(claims.take, [row["id"]], LEASE) for _ in range(8)]]
    assert sum(map(len, got)) == 1


def test_batches_that_overlap_are_shared_out(queue: Queue) -> None:
    for number in range(12):
        queue.ask(f"f{number}")
    queue.submit()
    ids = [queue.row(f"f{number}")["id"] for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        batches = [ids[start : start + 6] for start in (0, 2, 4, 6)]
        got = [future.result() for future in [pool.submit(claims.take, batch, LEASE) for batch in batches]]
    assert Counter(claim.request_id for part in got for claim in part) == Counter(ids)


def test_taking_shows_the_start_and_the_end(queue: Queue, row: dict[str, Any]) -> None:
    before = utc_now()
    claim = taken(row)
    now = queue.row("f")
    assert claim.started_at is not None
    assert before <= now["started_at"] == claim.started_at <= utc_now()
    assert now["estimated_transferred_at"] > before + LEASE - datetime.timedelta(seconds=1)
    assert now["updated_at"] >= before.replace(microsecond=0)
    assert claim.is_ours(now)
    claim.confirm()
    claim.check()


def test_a_claim_has_the_row_as_it_was_and_its_sources(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    assert claim.row["started_at"] is None
    assert (claim.row["scope"], claim.row["name"], claim.row["bytes"]) == (queue.scope, "f", row["bytes"])
    (source,) = claim.row["sources"]
    assert source["rse_id"] == queue.rse_ids[queue.source_rse]
    assert source["url"].endswith("/f")


def test_what_is_claimed_before_its_turn_starts_later_and_stays_for_less(queue: Queue) -> None:
    for name in ("now", "next"):
        queue.ask(name)
    queue.submit()
    ids = {name: queue.row(name)["id"] for name in ("now", "next")}
    before, lease = utc_now(), 10 * claims.AHEAD_LEASE
    held = {claim.request_id: claim for claim in claims.take(ids.values(), lease, ahead=[ids["next"]])}
    at_once, claim = (held[ids[name]] for name in ("now", "next"))
    rows = [queue.row(name) for name in ("now", "next")]
    assert rows[0]["started_at"] == at_once.started_at is not None
    assert rows[1]["started_at"] is claim.started_at is None
    assert rows[1]["estimated_transferred_at"] <= utc_now() + claims.AHEAD_LEASE
    assert rows[0]["estimated_transferred_at"] > before + claims.AHEAD_LEASE
    assert claims.take(ids.values(), lease) == []
    assert not claim.is_due
    claim.begin()
    # So that it has the whole lease, and shows its start, with the next renewal.
    assert claim.is_due
    claims.keep([(claim, None)])
    row = queue.row("next")
    assert row["started_at"] == claim.started_at
    assert row["started_at"] >= before
    assert row["estimated_transferred_at"] > before + claims.AHEAD_LEASE
    assert not claim.is_due
    at_once.begin()
    assert queue.row("now")["started_at"] == at_once.started_at


def test_a_claim_before_its_turn_is_renewed_as_what_it_is(queue: Queue, row: dict[str, Any]) -> None:
    (claim,) = claims.take([row["id"]], 10 * claims.AHEAD_LEASE, ahead=[row["id"]])
    claims.keep([(claim, None)])
    after = queue.row("f")
    assert after["started_at"] is None
    assert after["estimated_transferred_at"] <= utc_now() + claims.AHEAD_LEASE + datetime.timedelta(seconds=1)
    assert claim.is_ours(after)


@pytest.mark.parametrize("state", [RequestState.QUEUED, RequestState.DONE, RequestState.FAILED])
def test_only_submitted_rows_can_be_taken(row: dict[str, Any], state: RequestState) -> None:
    change(row["id"], state=state)
    assert claims.take([row["id"]], LEASE) == []


def test_a_dead_agents_row_is_free_again_and_it_notices(queue: Queue, row: dict[str, Any]) -> None:
    first = taken(row)
    expire(first)
    second = taken(row)
    with pytest.raises(ClaimLost, match="renewed in time"):
        first.check()
    claims.keep([(first, None)])
    with pytest.raises(ClaimLost, match="another agent"):
        first.confirm()
    with pytest.raises(ClaimLost):
        first.allow_removal()
    claims.keep([(second, None)])
    second.confirm()
    assert not first.is_ours(queue.row("f"))
    assert second.is_ours(queue.row("f"))


# -- keeping --------------------------------------------------------------------------------------------------


def test_renewing_is_due_at_a_third_and_prolongs(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    assert not claim.is_due
    half_over(claim)
    assert claim.is_due
    old = queue.row("f")["estimated_transferred_at"]
    claims.keep([(claim, None)])
    assert queue.row("f")["estimated_transferred_at"] > old
    assert not claim.is_due
    assert claim.is_ours(queue.row("f"))
    claim.check()


def test_renewing_after_the_end_works_if_nobody_came(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    expire(claim)
    claims.keep([(claim, None)])
    claim.check()
    assert claim.is_ours(queue.row("f"))


def test_progress_is_written_and_the_rest_stays(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    claims.keep([(claim, some_progress(7))])
    claims.keep([(claim, some_progress(9))])
    after = queue.row("f")["attributes"]
    found = progress.read(after)
    assert found is not None
    assert (found.mode, found.bytes_moved, found.rate) == (Mode.PULL, 9, 3)
    assert {key: value for key, value in after.items() if key != progress.KEY} == row["attributes"]
    claims.keep([(claim, None)])
    assert queue.row("f")["attributes"] == after
    assert claim.is_ours(queue.row("f"))


def test_no_room_for_progress_is_no_reason_to_lose_the_lease(queue: Queue, row: dict[str, Any]) -> None:
    full = json.dumps({"activity": "x" * 3950})
    change(row["id"], attributes=full)
    claim = taken(row)
    half_over(claim)
    claims.keep([(claim, some_progress())])
    assert not claim.is_due
    assert queue.row("f")["attributes"] == json.loads(full)


def test_keeping_many_is_one_transaction(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        queue.ask(f"f{number}")
    queue.submit()
    held = claims.take([queue.row(f"f{number}")["id"] for number in range(3)], LEASE)
    opened: list[int] = []
    real = database.writing

    @contextmanager
    def writing() -> Iterator[Any]:
        opened.append(1)
        with real() as session:
            yield session

    monkeypatch.setattr(claims, "writing", writing)
    claims.keep([(claim, some_progress()) for claim in held])
    assert len(opened) == 1


@pytest.mark.parametrize("cancelled", [True, False])
def test_keeping_finds_out_the_loss(queue: Queue, cancelled: bool) -> None:
    rule_id = queue.ask("f")
    queue.submit()
    claim = taken(queue.row("f"))
    if cancelled:
        rule_core.delete_rule(rule_id)
    else:
        change(claim.request_id, estimated_transferred_at=utc_now() + 5 * LEASE)
    claims.keep([(claim, some_progress())])
    assert claim.is_lost
    with pytest.raises(RequestGone if cancelled else ClaimLost):
        claim.check()


def test_what_another_agent_has_finished_is_not_taken_for_cancelled(row: dict[str, Any]) -> None:
    """Otherwise the file that it has proven would be removed."""
    claim = taken(row)
    change(row["id"], state=RequestState.DONE, estimated_transferred_at=utc_now() + 5 * LEASE)
    claims.keep([(claim, None)])
    with pytest.raises(ClaimLost):
        claim.check()
    with pytest.raises(ClaimLost):
        claim.allow_removal()


def test_a_renewal_whose_answer_is_lost_is_no_loss(
    queue: Queue, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = taken(row)
    half_over(claim)
    real = database.writing

    @contextmanager
    def writing() -> Iterator[Any]:
        with real() as session:
            yield session
        raise DatabaseException("the connection broke after the commit")

    monkeypatch.setattr(claims, "writing", writing)
    with pytest.raises(DatabaseException):
        claims.keep([(claim, None)])
    assert claim.is_ours(queue.row("f"))
    monkeypatch.undo()
    claims.keep([(claim, None)])
    assert not claim.is_lost
    assert claim.is_ours(queue.row("f"))


def test_stopping_is_told_by_a_check_but_not_to_what_is_done(row: dict[str, Any]) -> None:
    stopping = False
    (claim,) = claims.take([row["id"]], LEASE, lambda: stopping)
    claim.check()
    stopping = True
    with pytest.raises(Stopping):
        claim.check()
    claim.confirm()


# -- removing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "allowed"),
    [
        (ReplicaState.COPYING, True),
        (ReplicaState.UNAVAILABLE, True),
        (ReplicaState.BAD, True),
        (ReplicaState.AVAILABLE, False),
        (ReplicaState.TEMPORARY_UNAVAILABLE, False),
        (ReplicaState.BEING_DELETED, False),
    ],
)
def test_removal_goes_by_the_replicas_state(
    queue: Queue, row: dict[str, Any], state: ReplicaState, allowed: bool
) -> None:
    assert queue.replica_state("f") == "COPYING"
    change_replica(queue, queue.destination_rse, state=state)
    claim = taken(row)
    if allowed:
        claim.allow_removal()
        return
    with pytest.raises(errors.AlreadyExists, match=state.name):
        claim.allow_removal()


def test_removal_after_cancelling_is_allowed(queue: Queue) -> None:
    rule_id = queue.ask("f")
    queue.submit()
    claim = taken(queue.row("f"))
    rule_core.delete_rule(rule_id)
    claim.allow_removal()
    with pytest.raises(RequestGone):
        claim.check()


def test_removal_after_cancelling_respects_a_newer_request(queue: Queue) -> None:
    rule_id = queue.ask("f")
    queue.submit()
    old = queue.row("f")
    claim = taken(old)
    # Rucio cancels the request and makes another for the same file.
    rule_core.update_rule(rule_id, {"activity": "User Subscriptions"})
    assert queue.row("f")["id"] != old["id"]
    with pytest.raises(RequestGone, match="newer request"):
        claim.allow_removal()


def test_removal_respects_another_file_at_the_same_path(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue()
    queue.ask("f")
    queue.ask("g")
    queue.submit()
    change_replica(queue, queue.destination_rse, path="/data/f")
    claim = taken(queue.row("f"))
    claim.allow_removal()
    claim.path = "/data/f"
    with pytest.raises(errors.AlreadyExists, match="same path"):
        claim.allow_removal()


def test_removal_waits_for_a_database_that_is_away(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    claim = taken(row)
    real, failures = database.reading, [DatabaseException("away")] * 2

    @contextmanager
    def reading() -> Iterator[Any]:
        if failures:
            raise failures.pop()
        with real() as session:
            yield session

    monkeypatch.setattr(claims, "reading", reading)
    monkeypatch.setattr("rucio_cs3.agent.claims.time.sleep", lambda seconds: None)
    claim.allow_removal()
    assert failures == []


def test_removal_is_refused_when_the_lease_ends_before_the_database_is_back(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = taken(row)

    @contextmanager
    def reading() -> Iterator[Any]:
        claim._until -= LEASE / 4
        raise DatabaseException("away")
        yield

    monkeypatch.setattr(claims, "reading", reading)
    monkeypatch.setattr("rucio_cs3.agent.claims.time.sleep", lambda seconds: None)
    with pytest.raises(ClaimLost):
        claim.allow_removal()
