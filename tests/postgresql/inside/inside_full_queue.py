"""What a look at the queue costs PostgreSQL when the queue is long: counted in statements and rows, not in time."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rucio.db.sqla import models
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from rucio_cs3.agent import claims
from rucio_cs3.agent.database import reading
from rucio_cs3.agent.queue import ALL, NARROW, WINDOW, YOUNG_ROWS, Queue, Share
from rucio_cs3.sandbox import full_queue

SHORT, LONG = 12_000, 50_000
BATCH = 200
LEASE = datetime.timedelta(seconds=60)
THIRD = Share(1, 3)

REQUESTS = models.Request.__tablename__
(BY_UPDATE,) = (
    index.name
    for index in models.Request.__table__.indexes
    if [column.name for column in index.columns] == ["request_type", "state", "updated_at"]
)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that go to the database meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def explained(statement: Any) -> dict[str, Any]:
    """What PostgreSQL did for a statement, as the tree of ``EXPLAIN ANALYZE``."""
    with reading() as session:
        dialect = session.get_bind().dialect
        compiled = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        (plan,) = session.execute(text("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + str(compiled))).scalar_one()
    root: dict[str, Any] = plan["Plan"]
    return root


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.fixture(scope="module", autouse=True)
def statements() -> dict[int, dict[str, int]]:
    """Length of the queue -> what is done -> in how many statements; the long one stays."""
    found: dict[int, dict[str, int]] = {}
    for rows in (SHORT, LONG):
        full_queue.fill(rows)
        found[rows] = {}
        with counted() as seen, reading() as session:
            look = Queue().look(session, THIRD)
        found[rows]["look"] = len(seen)
        assert not look.complete
        assert len(look.candidates) > WINDOW
        ids = [candidate.request_id for candidate in look.candidates[:BATCH]]
        with counted() as seen:
            held = claims.take(ids, LEASE)
        found[rows]["take"] = len(seen)
        assert len(held) == BATCH
        with counted() as seen:
            claims.keep([(claim, None) for claim in held])
        found[rows]["keep"] = len(seen)
        assert not any(claim.is_lost for claim in held)
    return found


def test_the_length_of_the_queue_changes_no_number_of_statements(statements: dict[int, dict[str, int]]) -> None:
    assert statements[SHORT] == statements[LONG]
    # One for each piece; rows and sources read, and the rows written; rows locked and written, whatever their number.
    assert statements[LONG] == {"look": 3, "take": 3, "keep": 2}


@pytest.mark.parametrize("share", [ALL, THIRD], ids=["all", "a third"])
@pytest.mark.parametrize("piece", ["old", "young", "middle"])
def test_a_piece_is_read_by_the_index_and_no_more_of_it(piece: str, share: Share) -> None:
    after = None
    if piece == "middle":
        with reading() as session:
            (after,) = session.execute(
                text(f"SELECT min(updated_at) + interval '30 minutes' FROM {models.Request.__table__.fullname}")
            ).one()
    with reading() as session:
        statement = Queue().statement(session, share, young_rows=YOUNG_ROWS if piece == "young" else 0, after=after)
    plan = explained(statement)
    scans = [node for node in nodes(plan) if node.get("Relation Name") == REQUESTS]
    assert [scan["Node Type"] for scan in scans] == ["Index Scan"], plan
    assert scans[0]["Index Name"] == BY_UPDATE
    most = YOUNG_ROWS if piece == "young" else WINDOW * share.of
    assert 0 < scans[0]["Actual Rows"] <= most < LONG / 4
    # Those that the fixture has claimed, at most.
    assert scans[0].get("Rows Removed by Filter", 0) <= 2 * BATCH
    # And of the table of sources one entry of an index for each row that is handed out.
    sources = [node for node in nodes(plan) if node.get("Relation Name") == models.Source.__tablename__]
    assert [node["Node Type"] for node in sources] == ["Index Scan"]
    assert sources[0]["Actual Loops"] <= WINDOW


def test_a_narrow_look_reads_few_rows_of_any_queue() -> None:
    queue = Queue()
    with reading() as session:
        first = queue.look(session, window=NARROW)
        with counted() as seen:
            again = queue.look(session, window=NARROW)
    assert len(seen) == 3
    for look in (first, again):
        assert not look.complete
        assert NARROW < len(look.candidates) <= 3 * NARROW
