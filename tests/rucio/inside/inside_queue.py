"""Looks at the agents' queue, on Rucio's own tables and indices: what is seen, in which order, and by which index."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
from rucio.common.utils import generate_uuid
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, RequestState, RequestType
from rucio.db.sqla.session import db_session
from sqlalchemy import delete, insert, text, update

from rucio_cs3.agent import queue as agents_queue
from rucio_cs3.agent.database import reading, utc_now
from rucio_cs3.agent.queue import Look, Queue, Share, count
from rucio_cs3.agent.scheduling import Link

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue as RucioQueue

INDEX = "REQUESTS_TYP_STA_UPD_IDX_OLD"
START = datetime.datetime(2030, 1, 1)


@pytest.fixture(autouse=True)
def empty() -> None:
    """The tests before, of other files too, may have left requests."""
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(delete(models.Source))
        session.execute(delete(models.Request))


@pytest.fixture
def waiting(queue: RucioQueue) -> RucioQueue:
    """One request of Rucio's own, whose file the others share."""
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).values(updated_at=START, submitted_at=START))
    return queue


def add(queue: RucioQueue, number: int, **values: Any) -> list[str]:
    """More rows, each a second younger than the one before; ids in that order."""
    ids = [generate_uuid() for _ in range(number)]
    rows = []
    for index, request_id in enumerate(ids):
        moment = START + datetime.timedelta(seconds=index + 1)
        rows.append(
            {
                "id": request_id,
                "request_type": RequestType.TRANSFER,
                "scope": queue.scope,
                "name": "f",
                "did_type": DIDType.FILE,
                "dest_rse_id": queue.rse_ids[queue.destination_rse],
                "source_rse_id": queue.rse_ids[queue.source_rse],
                "attributes": "{}",
                "state": RequestState.SUBMITTED,
                "external_id": request_id,
                "retry_count": 0,
                "activity": "User Subscriptions",
                "dest_url": "davs://dst.test:443/f",
                "created_at": moment,
                "updated_at": moment,
                "submitted_at": moment,
                "priority": 3,
                "transfertool": "cs3",
                **values,
            }
        )
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(insert(models.Request), rows)
    return ids


def look(queue: Queue | None = None, share: Share = agents_queue.ALL) -> Look:
    with reading() as session:
        return (queue or Queue()).look(session, share)


def seen(queue: Queue | None = None) -> set[str]:
    return {candidate.request_id for candidate in look(queue).candidates}


def test_a_submitted_row_is_seen_with_its_hosts(waiting: RucioQueue) -> None:
    found = look()
    (candidate,) = found.candidates
    row = waiting.row("f")
    assert candidate.request_id == row["id"]
    assert candidate.link == Link(
        f"{waiting.source_rse.lower()}.test:443", f"{waiting.destination_rse.lower()}.test:443"
    )
    assert (candidate.priority, candidate.since) == (3, START)
    assert (found.complete, found.oldest) == (True, START)


@pytest.mark.parametrize(
    "values",
    [
        {"state": RequestState.QUEUED},
        {"state": RequestState.DONE},
        {"state": RequestState.WAITING},
        {"transfertool": "fts3"},
        {"request_type": RequestType.STAGEIN},
        {"estimated_transferred_at": utc_now() + datetime.timedelta(minutes=10)},
    ],
)
def test_other_rows_are_not(waiting: RucioQueue, values: dict[str, Any]) -> None:
    row = waiting.row("f")
    add(waiting, 3, **values)
    assert seen() == {row["id"]}
    with reading() as session:
        assert count(session) == 1


@pytest.mark.parametrize("left", [datetime.timedelta(seconds=-1), datetime.timedelta(days=365)])
def test_a_row_whose_lease_is_over_is_and_one_that_only_a_wrong_clock_can_have_made(
    waiting: RucioQueue, left: datetime.timedelta
) -> None:
    ids = add(waiting, 1, estimated_transferred_at=utc_now() + left)
    assert set(ids) < seen()


def test_a_row_without_priority_source_or_times_is_seen_all_the_same(waiting: RucioQueue) -> None:
    ids = add(waiting, 1, priority=None, dest_url=None, submitted_at=None)
    (candidate,) = [candidate for candidate in look().candidates if candidate.request_id in ids]
    assert (candidate.priority, candidate.link) == (3, Link("", ""))
    assert candidate.since == START + datetime.timedelta(seconds=1)


def test_only_the_activities_that_were_asked_for(waiting: RucioQueue) -> None:
    wanted = add(waiting, 2, activity="T0 Export") + add(waiting, 2, activity="Express")
    add(waiting, 2, activity="Analysis")
    assert seen(Queue(activities=["T0 Export", "Express"])) == set(wanted)


def test_both_ends_of_a_long_queue_are_seen(waiting: RucioQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_queue, "YOUNG_ROWS", 6)
    ids = [waiting.row("f")["id"], *add(waiting, 40)]
    found = seen(Queue(window=3))
    # Of the six youngest, which are equally urgent, the three that have waited longest.
    assert {*ids[:3], *ids[-6:-3]} <= found
    assert not look(Queue(window=3)).complete
    # The old end, the young end, and a piece of the middle.
    assert len(found) == 9


def test_an_urgent_one_is_found_at_once_behind_many(waiting: RucioQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_queue, "YOUNG_ROWS", 6)
    ids = add(waiting, 40)
    # As update_requests_priority does it: updated_at moves with it.
    with db_session(DatabaseOperationType.WRITE) as session:
        statement = update(models.Request).where(models.Request.id == ids[20])
        session.execute(statement.values(priority=5, updated_at=START + datetime.timedelta(hours=1)))
    found = look(Queue(window=3))
    best = min(found.candidates, key=lambda candidate: candidate.order)
    assert (best.request_id, best.priority) == (ids[20], 5)


def test_the_best_of_the_young_end_are_taken_from_more_than_a_window(
    waiting: RucioQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_queue, "YOUNG_ROWS", 20)
    ids = add(waiting, 40)
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            update(models.Request)
            .where(models.Request.id == ids[25])
            .values(priority=4, updated_at=START + datetime.timedelta(seconds=26))
        )
    assert ids[25] in seen(Queue(window=3))


def test_a_look_that_follows_shortly_reads_less_and_finds_what_is_new(
    waiting: RucioQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_queue, "YOUNG_ROWS", 20)
    monkeypatch.setattr(agents_queue, "_YOUNG_ROWS_SHORTLY", 4)
    # However slow this machine is.
    monkeypatch.setattr(agents_queue, "_YOUNG_ROWS_PER_S", 1e-9)
    ids = add(waiting, 40)
    queue = Queue()
    with reading() as session:
        first = queue.look(session, window=3)
        again = queue.look(session, window=3)
    # Three of the old end and three of the middle each time; of the young end the oldest of what was read.
    assert {ids[-20], ids[-19], ids[-18]} <= {candidate.request_id for candidate in first.candidates}
    assert {ids[-4], ids[-3], ids[-2]} <= {candidate.request_id for candidate in again.candidates}
    assert len(first.candidates) == len(again.candidates) == 9
    # As if it were a while ago.
    monkeypatch.setattr(agents_queue, "_YOUNG_ROWS_PER_S", 1e12)
    with reading() as session:
        later = queue.look(session, window=3)
    assert ids[-20] in {candidate.request_id for candidate in later.candidates}


def test_one_look_after_another_sees_all(waiting: RucioQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_queue, "YOUNG_ROWS", 3)
    # In this order: afterwards "f" is the name of many.
    ids = {waiting.row("f")["id"], *add(waiting, 40)}
    queue, found = Queue(window=3), set()
    for _ in range(20):
        found |= seen(queue)
    assert found == ids


def test_what_waits_too_long_in_another_share_is_seen(waiting: RucioQueue) -> None:
    first = waiting.row("f")["id"]
    add(waiting, 2, submitted_at=utc_now())
    with db_session(DatabaseOperationType.WRITE) as session:
        old = utc_now() - datetime.timedelta(minutes=5)
        session.execute(update(models.Request).where(models.Request.submitted_at == START).values(submitted_at=old))
    with reading() as session:
        found = Queue().look_at_left(session, datetime.timedelta(minutes=1))
    assert [candidate.request_id for candidate in found] == [first]


@pytest.mark.parametrize("share", [Share(), Share(1, 3)])
@pytest.mark.parametrize("piece", [{}, {"young_rows": 100}, {"after": START}])
def test_looks_go_by_the_index_and_sort_a_piece_alone(waiting: RucioQueue, share: Share, piece: dict[str, Any]) -> None:
    """SQLite's plan; with statistics it would be the same one."""
    add(waiting, 5)
    with reading() as session:
        if session.get_bind().dialect.name != "sqlite":
            pytest.skip("PostgreSQL's plan depends on the number of rows; see tests/postgresql/inside")
        statement = Queue().statement(session, share, **piece)
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in session.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    searched = [line for line in plan if "requests" in line]
    assert len(searched) == 1
    assert INDEX in searched[0]
    # The first thing in the plan is that search, within a limit; what is sorted is its result.
    assert [line for line in plan if "TEMP B-TREE" in line] == ["USE TEMP B-TREE FOR ORDER BY"]
    assert plan.index(searched[0]) < plan.index("USE TEMP B-TREE FOR ORDER BY")
    (sources,) = [line for line in plan if "sources" in line]
    assert "request_id=?" in sources
