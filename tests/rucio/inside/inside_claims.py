"""A row as a right to work on it: who gets it, how long it lasts, and what it allows, in Rucio's own tables."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from rucio.core import rule as rule_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, ReplicaState, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import update

from rucio_cs3 import claims
from rucio_cs3.cs3 import errors
from rucio_cs3.transfers import ClaimLost, RequestGone

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
    claim = claims.take(row, lease)
    assert claim is not None
    return claim


def expire(claim: claims.RowClaim) -> None:
    """Put the clock forward, by putting the lease back."""
    claim._until -= 2 * LEASE
    change(claim.request_id, estimated_transferred_at=claim._until)


def test_one_of_many_gets_it(row: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = [future.result() for future in [pool.submit(claims.take, row, LEASE) for _ in range(8)]]
    assert sum(claim is not None for claim in got) == 1


def test_taking_shows_the_start_and_the_end(queue: Queue, row: dict[str, Any]) -> None:
    assert not claims.is_claimed(row)
    before = claims.utc_now()
    claim = taken(row)
    now = queue.row("f")
    assert before <= now["started_at"] == claim.started_at <= claims.utc_now()
    assert now["estimated_transferred_at"] > before + LEASE - datetime.timedelta(seconds=1)
    assert now["updated_at"] >= before.replace(microsecond=0)
    assert claims.is_claimed(now)
    assert claim.is_ours(now)
    claim.confirm()
    claim.check()


@pytest.mark.parametrize("state", [RequestState.QUEUED, RequestState.DONE, RequestState.FAILED])
def test_only_submitted_rows_can_be_taken(row: dict[str, Any], state: RequestState) -> None:
    change(row["id"], state=state)
    assert claims.take(row, LEASE) is None


def test_a_row_that_was_submitted_anew_is_another_job(row: dict[str, Any]) -> None:
    change(row["id"], external_id="other")
    assert claims.take(row, LEASE) is None


def test_a_dead_agents_row_is_free_again_and_it_notices(queue: Queue, row: dict[str, Any]) -> None:
    first = taken(row)
    expire(first)
    second = taken(row)
    second.confirm()
    with pytest.raises(ClaimLost):
        first.confirm()
    with pytest.raises(ClaimLost):
        first.check()
    with pytest.raises(ClaimLost):
        first.allow_removal()
    assert not first.is_ours(queue.row("f"))
    assert second.is_ours(queue.row("f"))


def test_renewing_starts_at_a_third_and_prolongs(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    until = queue.row("f")["estimated_transferred_at"]
    claim.renew()
    assert queue.row("f")["estimated_transferred_at"] == until  # too early
    old = claims.utc_now().replace(microsecond=0) + LEASE / 2
    change(row["id"], estimated_transferred_at=old)
    claim._until = old
    claim.renew()
    assert queue.row("f")["estimated_transferred_at"] > old
    assert claim.is_ours(queue.row("f"))
    claim.confirm()


def test_renewing_after_the_end_works_if_nobody_came(queue: Queue, row: dict[str, Any]) -> None:
    claim = taken(row)
    expire(claim)
    claim.renew()
    claim.confirm()
    assert claims.is_claimed(queue.row("f"))


@pytest.mark.parametrize("cancelled", [True, False])
def test_renewing_finds_out_the_loss(queue: Queue, row: dict[str, Any], cancelled: bool) -> None:
    claim = taken(row)
    claim._until -= LEASE / 2  # as if somebody else had written the row since
    if cancelled:
        change(row["id"], state=RequestState.FAILED)
    claim.renew()
    with pytest.raises(RequestGone if cancelled else ClaimLost):
        claim.check()


def test_a_report_under_way_holds_the_lease(row: dict[str, Any]) -> None:
    claim = taken(row)
    claim._until -= LEASE / 2
    with claim.lock:
        claim.renew()
    claim.check()


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
