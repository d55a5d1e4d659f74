"""What Rucio is told of outcomes: many at once by our statements, and the same as one by one by Rucio's own."""

from __future__ import annotations

import datetime
import json
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest
from rucio.core import rule as rule_core
from rucio.core import transfer as transfer_core
from rucio.core.message import retrieve_messages
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import event, insert, select, update
from sqlalchemy.engine import Engine

from rucio_cs3.agent import claims, hops, outcomes
from rucio_cs3.agent.database import utc_now, writing
from rucio_cs3.agent.outcomes import Finished, Recorded, Verdict
from rucio_cs3.cs3 import errors
from rucio_cs3.progress import POSTPONED_KEY
from rucio_cs3.transfers.jobs import Outcome, State, Stopping
from rucio_cs3.transfers.modes import Mode
from rucio_cs3.transfertool import CS3TransferStatusReport

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

LEASE = datetime.timedelta(seconds=60)
DONE = Outcome(state=State.DONE, copied=True, mode=Mode.PULL)
ERROR = errors.NoSpaceLeft(
    "quota is used up", operation="Stat", target="/f", code="CODE_INSUFFICIENT_STORAGE", trace="4711"
)
FAILED = Outcome(state=State.FAILED, reason=str(ERROR), error=ERROR, mode=Mode.PULL)
BUSY = errors.Throttled("come back later", code="HTTP 503", retry_after_s=30.0)
POSTPONED = Outcome(state=State.POSTPONED, reason=str(BUSY), error=BUSY, retry_after_s=30.0)


class Statistics:
    """Remembers what Rucio's TransferStatsManager would have been told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def observe(self, **arguments: Any) -> None:
        arguments.pop("session", None)
        self.told.append(arguments)


def change(request_id: str, **values: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).where(models.Request.id == request_id).values(**values))


def claimed(queue: Queue, *names: str) -> list[claims.RowClaim]:
    for name in names:
        queue.ask(name)
    queue.submit()
    by_id = {claim.request_id: claim for claim in claims.take([queue.row(name)["id"] for name in names], LEASE)}
    return [by_id[queue.row(name)["id"]] for name in names]


def finished(queue: Queue, claim: claims.RowClaim, outcome: Outcome) -> Finished:
    at = (claim.started_at or utc_now()) + datetime.timedelta(seconds=7)
    return Finished(
        claim=claim,
        outcome=outcome,
        at=at,
        source_rse_id=queue.rse_ids[queue.source_rse],
        source_url="davs://source.test/f",
    )


def record(*batch: Finished) -> Recorded:
    with writing() as session:
        return outcomes.record(session, batch)


def messages(request_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Kind and content of those about the end of a request."""
    found = retrieve_messages(bulk=100_000, old_mode=False)
    return [
        (message["event_type"], message["payload"])
        for message in found
        if message["payload"].get("request-id") == request_id
        and message["event_type"] in ("transfer-done", "transfer-failed")
    ]


@pytest.mark.parametrize("outcome", [DONE, FAILED], ids=["done", "failed"])
def test_it_is_the_same_as_what_rucio_itself_would_write(queue: Queue, outcome: Outcome) -> None:
    ours, rucios = claimed(queue, "ours", "rucios")
    one, other = finished(queue, ours, outcome), finished(queue, rucios, outcome)
    by_us, by_rucio = Statistics(), Statistics()
    recorded = record(one)
    for arguments in recorded.statistics:
        by_us.observe(**arguments)
    done = outcome.state is State.DONE
    report = CS3TransferStatusReport(
        other.request_id,
        state=RequestState.DONE if done else RequestState.FAILED,
        external_id=other.request_id,
        reason=outcome.reason,
        started_at=rucios.started_at,
        transferred_at=other.at if done else None,
        source_rse_id=other.source_rse_id,
        source_url=other.source_url,
        destination_url=rucios.row["dest_url"],
    )
    assert transfer_core.update_transfer_state(report, by_rucio) == 1

    def told_apart(value: Any, claim: claims.RowClaim, name: str) -> Any:
        """The two differ in the request, the file and the moment, and must in nothing else."""
        text = json.dumps(value, default=str, sort_keys=True).replace(claim.request_id, "ID").replace(name, "NAME")
        digits = claim.row["dest_url"].split("/")[-3:-1]
        return text.replace("/".join(digits), "HASH").replace(claim.row["rule_id"], "RULE")

    moments = {"updated_at", "created_at", "submitted_at", "requested_at", "last_processed_at"}
    rows = [{key: value for key, value in queue.row(name).items() if key not in moments} for name in ("ours", "rucios")]
    assert told_apart(rows[0], ours, "ours") == told_apart(rows[1], rucios, "rucios")
    ((kind, payload),), ((expected_kind, expected),) = messages(ours.request_id), messages(rucios.request_id)
    assert kind == expected_kind == f"transfer-{outcome.state.value}"
    for moment in moments & payload.keys():
        assert isinstance(payload.pop(moment), str) == isinstance(expected.pop(moment), str)
    assert told_apart(payload, ours, "ours") == told_apart(expected, rucios, "rucios")
    for arguments in (*by_us.told, *by_rucio.told):
        arguments.pop("submitted_at")
    assert by_us.told == by_rucio.told
    assert len(by_us.told) == 1


def test_many_cost_hardly_more_statements_than_one(queue: Queue) -> None:
    batch = [finished(queue, claim, DONE) for claim in claimed(queue, *(f"f{number}" for number in range(12)))]
    statements: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        recorded = record(*batch)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert set(recorded.verdicts.values()) == {Verdict.TOLD}
    assert {queue.row(f"f{number}")["state"] for number in range(12)} == {RequestState.DONE}
    assert len(statements) <= 8


def test_a_failed_intermediate_hop_takes_those_behind_it_along(queue: Queue) -> None:
    first, last = claimed(queue, "first", "last")
    attributes = {**json.loads(first.row["attributes"]), "is_intermediate_hop": True}
    change(first.request_id, attributes=json.dumps(attributes))
    change(last.request_id, state=RequestState.QUEUED)
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(
            insert(models.TransferHop),
            [
                {
                    "request_id": first.request_id,
                    "next_hop_request_id": last.request_id,
                    "initial_request_id": last.request_id,
                }
            ],
        )
    record(finished(queue, first, FAILED))
    assert queue.row("first")["state"] == RequestState.FAILED
    behind = queue.row("last")
    assert behind["state"] == RequestState.FAILED
    assert "Unused hop" in behind["err_msg"]
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(models.TransferHop.__table__.delete())


def test_a_rule_begins_with_what_the_server_said_its_code_and_its_trace(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    path = "/data/" + "very-long-name/" * 20
    error = errors.ServerFault(
        f"the destination reports a failed copy from https://source.test{path}: 507 Insufficient Storage",
        operation="COPY",
        target=f"https://destination.test{path}",
        code="HTTP 507",
        trace="0af7651916cd43dd8448eb211c80319c",
    )
    record(finished(queue, claim, Outcome(state=State.FAILED, reason=str(error), error=error)))
    text = queue.row("f")["err_msg"]
    # What Rucio keeps of it in the rule (core/lock.py:521).
    for essence in ("reports a failed copy", "507 Insufficient Storage", "HTTP 507", error.trace):
        assert essence is not None
        assert essence in text[:245]
    assert text.endswith(str(error))


# -- not ours to tell -----------------------------------------------------------------------------------------


def test_nothing_is_written_over_another_agents_claim(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    change(claim.request_id, estimated_transferred_at=utc_now() + 5 * LEASE)
    before = queue.row("f")
    assert record(finished(queue, claim, DONE)).verdicts == {claim.request_id: Verdict.LOST}
    assert queue.row("f") == before
    assert messages(claim.request_id) == []


def test_a_cancelled_request_is_gone(queue: Queue) -> None:
    rule_id = queue.ask("f")
    queue.submit()
    (claim,) = claims.take([queue.row("f")["id"]], LEASE)
    rule_core.delete_rule(rule_id)
    assert record(finished(queue, claim, DONE)).verdicts == {claim.request_id: Verdict.GONE}


def test_telling_twice_is_telling_once(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    record(finished(queue, claim, DONE))
    before = queue.row("f")
    again = record(finished(queue, claim, FAILED))
    assert (again.verdicts, again.statistics) == ({claim.request_id: Verdict.TOLD}, [])
    assert queue.row("f") == before
    assert len(messages(claim.request_id)) == 1


# -- put off --------------------------------------------------------------------------------------------------


def test_what_is_stopped_goes_back_as_if_nothing_had_been(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    stopped = Stopping("the agent stops")
    record(finished(queue, claim, Outcome(state=State.POSTPONED, reason=str(stopped), error=stopped)))
    row = queue.row("f")
    assert (row["state"], row["started_at"], row["estimated_transferred_at"]) == (RequestState.SUBMITTED, None, None)
    assert row["attributes"] == json.loads(claim.row["attributes"])
    assert messages(claim.request_id) == []
    assert len(claims.take([row["id"]], LEASE)) == 1


def test_how_often_a_site_put_it_off_is_known_to_the_next_agent(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    request_id = queue.row("f")["id"]
    for times in (1, 2, 3):
        (claim,) = claims.take([request_id], LEASE)
        record(finished(queue, claim, POSTPONED))
        row = queue.row("f")
        assert (row["state"], row["estimated_transferred_at"]) == (RequestState.SUBMITTED, None)
        assert row["attributes"][POSTPONED_KEY]["times"] == times
    assert row["attributes"]["activity"] == json.loads(claim.row["attributes"])["activity"]


def test_what_is_put_off_for_too_long_fails_with_the_servers_words(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    since = utc_now() - outcomes.POSTPONED_FOR - datetime.timedelta(minutes=1)
    mark = {"request": claim.request_id, "since": since.isoformat(timespec="seconds"), "times": 3}
    change(claim.request_id, attributes=json.dumps({**json.loads(claim.row["attributes"]), POSTPONED_KEY: mark}))
    record(finished(queue, claim, POSTPONED))
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert "come back later (HTTP 503)" in row["err_msg"]
    assert "put off 4 times in 31 minutes" in row["err_msg"]
    ((kind, payload),) = messages(claim.request_id)
    assert kind == "transfer-failed"
    assert "put off 4 times" in payload["reason"]


def test_an_earlier_requests_count_is_not_this_ones(queue: Queue) -> None:
    """Rucio copies the attributes into the request that it makes after a failure."""
    (claim,) = claimed(queue, "f")
    mark = {"request": "0" * 32, "since": "2020-01-01T00:00:00", "times": 99}
    change(claim.request_id, attributes=json.dumps({**json.loads(claim.row["attributes"]), POSTPONED_KEY: mark}))
    record(finished(queue, claim, POSTPONED))
    row = queue.row("f")
    assert row["state"] == RequestState.SUBMITTED
    assert row["attributes"][POSTPONED_KEY]["times"] == 1


# -- the thread -----------------------------------------------------------------------------------------------


class Database:
    """Stands before ``reporting.writing``: fails as it is told."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.failures: list[Exception] = []
        self.opened = 0

    def __call__(self) -> AbstractContextManager[Any]:
        self.opened += 1
        if self.failures:
            raise self.failures.pop(0)
        found: AbstractContextManager[Any] = self._real()
        return found


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    from rucio_cs3.agent import reporting

    found = Database(writing)
    monkeypatch.setattr(reporting, "writing", found)
    return found


def test_reports_wait_for_a_database_that_is_away(
    queue: Queue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rucio.common.exception import DatabaseException

    from rucio_cs3.agent import database as module
    from rucio_cs3.agent import reporting

    database.failures = [DatabaseException("away")] * 3
    monkeypatch.setattr(module, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(reporting, "answers", lambda: not database.failures and database.opened > 3)
    statistics = Statistics()
    batch = claimed(queue, "f", "g")
    with reporting.Reporter(statistics, lambda gone: None) as reporter:
        for claim in batch:
            reporter.report(finished(queue, claim, DONE))
        assert reporter.drain(30.0)
    assert database.failures == []
    assert {queue.row(name)["state"] for name in ("f", "g")} == {RequestState.DONE}
    # What was rolled back did not count.
    assert len(statistics.told) == 2


def test_one_that_cannot_be_written_does_not_keep_back_the_others(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rucio_cs3.agent import reporting

    broken, sound = claimed(queue, "broken", "sound")
    real = outcomes.record

    def record_sound(session: Any, batch: Any) -> Recorded:
        if any(each.request_id == broken.request_id for each in batch):
            raise ZeroDivisionError
        return real(session, batch)

    monkeypatch.setattr(reporting, "record", record_sound)
    statistics = Statistics()
    with reporting.Reporter(statistics, lambda gone: None) as reporter:
        for claim in (broken, sound):
            reporter.report(finished(queue, claim, DONE))
        assert reporter.drain(30.0)
    assert queue.row("sound")["state"] == RequestState.DONE
    # By Rucio's own function.
    assert queue.row("broken")["state"] == RequestState.DONE
    assert len(statistics.told) == 2


@pytest.mark.parametrize("kind", ["record", "receiver", "anything"])
def test_no_failure_ends_the_reports(queue: Queue, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """As when the database is restarted: a transaction breaks, and the next question is answered."""
    from rucio.common.exception import DatabaseException

    from rucio_cs3.agent import reporting

    failures: list[Exception] = [DatabaseException("server closed the connection")] * 2
    first, second = claimed(queue, "first", "second")
    real_record, real_update = outcomes.record, transfer_core.update_transfer_state

    def record(session: Any, batch: Any) -> Recorded:
        if kind == "record" and failures:
            raise failures.pop()
        if kind == "receiver" and any(each.request_id == first.request_id for each in batch):
            raise ZeroDivisionError
        return real_record(session, batch)

    def update_transfer_state(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return real_update(*arguments, **options)

    monkeypatch.setattr(reporting, "record", record)
    monkeypatch.setattr(transfer_core, "update_transfer_state", update_transfer_state)
    monkeypatch.setattr(reporting, "answers", lambda: True)
    monkeypatch.setattr(reporting, "_AGAIN_S", 0.01)
    with reporting.Reporter(Statistics(), lambda gone: None) as reporter:
        if kind == "anything":
            real_told = reporter._told

            def told(due: Any) -> Any:
                if failures:
                    raise failures.pop()
                return real_told(due)

            monkeypatch.setattr(reporter, "_told", told)
        for claim in (first, second):
            reporter.report(finished(queue, claim, DONE))
        assert reporter.drain(30.0)
    assert failures == []
    assert {queue.row(name)["state"] for name in ("first", "second")} == {RequestState.DONE}


def test_what_is_given_back_still_says_that_somebody_had_begun_it(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    (killed,) = claims.take([queue.row("f")["id"]], LEASE)
    change(killed.request_id, estimated_transferred_at=utc_now() - datetime.timedelta(seconds=1))
    (claim,) = claims.take([killed.request_id], LEASE)
    with writing() as session:
        outcomes.record(session, [finished(queue, claim, POSTPONED)])
    row = queue.row("f")
    assert (row["state"], row["estimated_transferred_at"]) == (RequestState.SUBMITTED, None)
    assert row["started_at"] == killed.started_at


def test_so_does_what_may_have_been_begun_before_that_was_written(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    request_id = queue.row("f")["id"]
    claims.take([request_id], LEASE, ahead=[request_id])
    change(request_id, estimated_transferred_at=utc_now() - datetime.timedelta(seconds=1))
    (claim,) = claims.take([request_id], LEASE, ahead=[request_id])
    record(finished(queue, claim, Outcome(state=State.POSTPONED, reason="its turn did not come")))
    row = queue.row("f")
    assert row["estimated_transferred_at"] is None
    assert hops.was_begun(row)


def test_a_lease_of_a_clock_that_is_wrong_is_none(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    change(claim.request_id, estimated_transferred_at=utc_now() + datetime.timedelta(days=30))
    assert [taken.request_id for taken in claims.take([claim.request_id], LEASE)] == [claim.request_id]


def test_what_cannot_be_counted_is_not_put_off_for_ever(queue: Queue) -> None:
    (claim,) = claimed(queue, "f")
    change(claim.request_id, attributes=json.dumps({"activity": "x" * 3980}))
    with writing() as session:
        outcomes.record(session, [finished(queue, claim, POSTPONED)])
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert "leave no room" in row["err_msg"]


def test_what_is_gone_is_handed_to_whoever_removes_it(queue: Queue) -> None:
    from rucio_cs3.agent import reporting

    rule_id = queue.ask("f")
    queue.submit()
    (claim,) = claims.take([queue.row("f")["id"]], LEASE)
    rule_core.delete_rule(rule_id)
    gone: list[Finished] = []
    with reporting.Reporter(Statistics(), gone.append) as reporter:
        reporter.report(finished(queue, claim, DONE))
        assert reporter.drain(30.0)
    assert [each.request_id for each in gone] == [claim.request_id]


def test_the_history_of_a_request_can_be_read(queue: Queue) -> None:
    """Rucio's own columns hold what was written: nothing of it is too wide for them."""
    (claim,) = claimed(queue, "f")
    error = errors.ServerFault("ö" * 5000 + "\x00\x1b[31m", code="X" * 300, trace="y" * 300)
    record(finished(queue, claim, Outcome(state=State.FAILED, reason=str(error), error=error)))
    with db_session(DatabaseOperationType.READ) as session:
        text = session.execute(select(models.Request.err_msg).where(models.Request.id == claim.request_id)).scalar_one()
    assert text is not None
    assert len(text.encode()) <= 4000
    assert "\x00" not in text
    assert "\x1b" not in text
