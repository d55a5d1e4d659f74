"""What is read from Rucio's real tables for ``rucio-cs3 transfers``."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session, get_engine
from sqlalchemy import delete, event, text, update

from rucio_cs3.listing import database
from rucio_cs3.listing.entries import Count, Listing, Stage, Transfer, UnknownName, Wanted
from rucio_cs3.transfers.modes import Mode
from tests.rucio.every_state import EXPECTED, RATE, REASON, SIZE, fill

ON_SQLITE = get_engine().dialect.name == "sqlite"


@pytest.fixture(scope="module")
def rses() -> Iterator[tuple[str, str]]:
    """Source and destination of the requests."""
    yield fill(uuid.uuid4().hex[:8])
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(delete(models.Source))
        session.execute(delete(models.Request))
        session.execute(delete(models.RequestHistory))


def look(rses: tuple[str, str], **wanted: Any) -> Listing:
    return database.look(Wanted(**{"destination": rses[1], **wanted}))


def one(listing: Listing, name: str) -> Transfer:
    (found,) = [transfer for transfer in listing.transfers if transfer.name == name]
    return found


def test_every_state_is_seen_where_it_belongs(rses: tuple[str, str]) -> None:
    listing = look(rses)
    assert {transfer.name: transfer.stage.value for transfer in listing.transfers} == EXPECTED
    assert len(listing.transfers) == len(EXPECTED)
    numbers = Counter(EXPECTED.values())
    assert listing.counts == {stage: Count(number=numbers[stage.value]) for stage in Stage}
    stages = [transfer.stage for transfer in listing.transfers]
    assert stages == sorted(stages, key=list(Stage).index)


def test_what_is_known_of_a_running_transfer(rses: tuple[str, str]) -> None:
    listing = look(rses)
    pull = one(listing, "running-pull")
    assert (pull.source, pull.destination) == rses
    assert (pull.mode, pull.bytes_moved, pull.size_bytes) == (Mode.PULL, SIZE // 4, SIZE)
    assert pull.rate(listing.at) == RATE
    assert pull.left_s(listing.at) == pytest.approx(0.75 * SIZE / RATE)
    assert pull.lease_until is not None
    assert timedelta() < pull.lease_until - listing.at <= timedelta(seconds=500)
    seconds = pull.seconds(listing.at)
    assert seconds is not None
    assert seconds >= 25
    # Its agent has said nothing for more than a minute, so nobody knows how fast it is.
    relay = one(listing, "running-relay")
    assert (relay.mode, relay.bytes_moved) == (Mode.RELAY, 7)
    assert (relay.rate(listing.at), relay.left_s(listing.at)) == (None, None)
    silent = one(listing, "running-silent")
    assert (silent.mode, silent.bytes_moved, silent.rate(listing.at)) == (None, None, None)
    assert listing.rate == RATE


def test_what_waits_is_in_the_order_of_the_agents(rses: tuple[str, str]) -> None:
    listing = look(rses)
    waiting = [transfer.name for transfer in listing.of(Stage.WAITING)]
    assert waiting[:2] == ["waiting-urgent", "waiting-old"]
    assert listing.oldest_s is not None
    assert 700 <= listing.oldest_s < 1000
    # Progress is an earlier attempt's, and the lease a dead agent's.
    assert one(listing, "waiting-retried").progress is None
    assert one(listing, "waiting-retried").attempt == 1
    assert one(listing, "waiting-orphan").lease_until is None
    assert one(listing, "waiting-put-off").reason == "put off 2 times by a site"
    assert one(listing, "waiting-old").reason is None


def test_what_is_over_says_how_it_went(rses: tuple[str, str]) -> None:
    listing = look(rses)
    for name in ("failed", "failed-archived"):
        assert one(listing, name).reason == REASON
    assert one(listing, "failed").mode is Mode.PUSH
    assert one(listing, "no-sources").reason == "no sources"
    done = one(listing, "done")
    assert (done.seconds(listing.at), done.rate(listing.at), done.reason) == (40, SIZE // 40, None)
    assert [transfer.name for transfer in listing.of(Stage.DONE)] == ["done", "done-archived"]
    assert [transfer.name for transfer in listing.of(Stage.FAILED)] == ["failed", "failed-archived", "no-sources"]


def test_long_ago_is_seen_where_it_is_asked_for(rses: tuple[str, str]) -> None:
    names = {transfer.name for transfer in look(rses, since=timedelta(hours=2)).transfers}
    assert names == EXPECTED.keys() | {"done-long-ago"}
    assert [t.name for t in look(rses, since=timedelta(seconds=500), stages=[Stage.DONE]).transfers] == ["done"]


def test_filters(rses: tuple[str, str]) -> None:
    source, destination = rses
    everything = set(EXPECTED)
    # Before the submission Rucio has chosen no source.
    chosen = everything - {"throttled", "preparing", "queued", "no-sources"}

    def names(**wanted: Any) -> set[str]:
        return {t.name for t in database.look(Wanted(**wanted)).transfers}

    assert names(rse=destination) == everything
    assert names(rse=source) == names(source=source) == chosen
    assert names(source=source, destination=destination) == chosen
    assert names(source=destination) == names(destination=source) == set()
    assert names(destination=destination, activity="Staging") == {"done-archived"}
    assert names(destination=destination, rule_id="0" * 32) == set()
    assert names(destination=destination, stages=[Stage.QUEUED, Stage.THROTTLED]) == {
        name for name, stage in EXPECTED.items() if stage in ("queued", "throttled")
    }
    rule_id = uuid.uuid4().hex
    with db_session(DatabaseOperationType.WRITE) as session:
        request = models.Request
        session.execute(update(request).where(request.name == "done").values(rule_id=rule_id))
    assert names(rule_id=rule_id) == {"done"}


@pytest.mark.parametrize("wanted", [Wanted(rse="NOWHERE"), Wanted(source="NOWHERE"), Wanted(destination="NOWHERE")])
def test_an_rse_that_is_not_there(wanted: Wanted) -> None:
    with pytest.raises(UnknownName, match="Rucio has no RSE NOWHERE"):
        database.look(wanted)


def test_limit_is_of_each_stage_and_counts_are_of_all(rses: tuple[str, str]) -> None:
    listing = look(rses, limit=1)
    assert [transfer.stage for transfer in listing.transfers] == list(Stage)
    assert listing.counts[Stage.WAITING] == Count(number=6)
    assert listing.counts[Stage.FAILED] == Count(number=3)
    # Of all that run, not of those that are shown.
    assert listing.rate == RATE


def test_more_than_the_window_is_said(rses: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WINDOW", 2)
    counts = look(rses, limit=5).counts
    assert counts[Stage.WAITING] == Count(number=2, at_least=True)
    assert str(counts[Stage.WAITING]) == "2+"
    assert counts[Stage.FAILED] == Count(number=3, at_least=True)


def test_only_the_end_of_the_history_is_read(rses: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"stages": [Stage.DONE, Stage.FAILED], "since": timedelta(hours=2)}

    def names() -> set[str]:
        return {transfer.name for transfer in look(rses, **wanted).transfers}

    now, archived = {"done", "failed"}, {"failed-archived", "no-sources", "done-archived", "done-long-ago"}
    assert names() == now | archived
    # The last two rows that were archived; and of pages none.
    monkeypatch.setattr(database, "_TAIL_ROWS", 2)
    monkeypatch.setattr(database, "_TAIL_PAGES", 0)
    assert names() == (now | {"done-archived", "done-long-ago"} if ON_SQLITE else now)
    # An index that somebody made is better.
    table = models.RequestHistory.__table__
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(text(f"CREATE INDEX tests_history ON {table.fullname} (updated_at)"))
    try:
        assert names() == now | archived
    finally:
        with db_session(DatabaseOperationType.WRITE) as session:
            schema = f"{table.schema}." if table.schema else ""
            session.execute(text(f"DROP INDEX {schema}tests_history"))


@pytest.fixture
def statements() -> Iterator[list[tuple[str, Any]]]:
    """All that is asked of the database, with parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        noted.append((statement, parameters))

    engine = get_engine()
    event.listen(engine, "before_cursor_execute", note)
    yield noted
    event.remove(engine, "before_cursor_execute", note)


def test_requests_are_found_by_an_index(rses: tuple[str, str], statements: list[tuple[str, Any]]) -> None:
    database.look(Wanted())
    tables = {table: table.__table__.fullname for table in (models.Request, models.RequestHistory)}
    with get_engine().connect() as connection:
        if not ON_SQLITE:
            # So few rows would be read one after the other.
            connection.exec_driver_sql("SET enable_seqscan = off")
        for table, number in ((models.Request, 6), (models.RequestHistory, 2)):
            asked = [one for one in statements if re.search(rf"FROM {tables[table]}\s", one[0])]
            # Running, waiting, throttled, queued, failed and done; of the history the last two.
            assert len(asked) == number
            for statement, parameters in asked:
                explain = "EXPLAIN QUERY PLAN" if ON_SQLITE else "EXPLAIN"
                steps = [str(step[-1]) for step in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
                if ON_SQLITE:
                    assert [step for step in steps if step.startswith(f"SEARCH {table.__tablename__} USING")], steps
                elif table is models.Request:
                    assert [step for step in steps if " Scan " in step and '"REQUESTS_' in step], steps
                else:
                    assert [step for step in steps if f"Tid Range Scan on {table.__tablename__}" in step], steps


def test_a_look_costs_as_many_statements_for_many_as_for_few(
    rses: tuple[str, str], statements: list[tuple[str, Any]]
) -> None:
    look(rses, limit=1)
    few = len(statements)
    look(rses, limit=100)
    assert len(statements) == 2 * few
