"""The agent on Rucio's real tables, with the copying itself replaced."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from rucio.common.exception import DatabaseException, ServiceUnavailable
from rucio.core import rule as rule_core
from rucio.core import transfer as transfer_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import delete, update

from rucio_cs3 import agent, claims
from rucio_cs3.cs3 import errors
from rucio_cs3.transfers import Job, Outcome, RequestGone, State

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

DONE = Outcome(state=State.DONE, copied=True)


def change(request_id: str, **values: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).where(models.Request.id == request_id).values(**values))


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    agent.GRACEFUL_STOP.clear()
    yield
    agent.GRACEFUL_STOP.clear()
    # What a test leaves SUBMITTED would be taken up by the next one's agent.
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(delete(models.Source))
        session.execute(delete(models.Request))


@pytest.fixture
def perform(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Job, Any], Outcome]], list[Job]]:
    """Replaces the transfer itself; returns the list of jobs that the agent asked for."""

    def install(function: Callable[[Job, Any], Outcome]) -> list[Job]:
        jobs: list[Job] = []

        def transfer_one(job: Job, source: Any, destination: Any, claim: Any) -> Outcome:
            jobs.append(job)
            return function(job, claim)

        monkeypatch.setattr(agent, "transfer_one", transfer_one)
        # Connecting needs a cloud; all before it is Rucio's and this package's own code.
        monkeypatch.setattr("rucio_cs3.protocol.Default.connect", lambda self: None)
        return jobs

    return install


Perform = Callable[[Callable[[Job, Any], Outcome]], list[Job]]


def test_done(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    seen: list[dict[str, Any]] = []

    def look(job: Job, claim: Any) -> Outcome:
        seen.append(queue.row("f"))
        return DONE

    jobs = perform(look)
    agent.run(once=True)
    (job,) = jobs
    assert (job.request_id, job.destination_url) == (row["id"], row["dest_url"])
    assert job.source_url == row["dest_url"].replace(queue.destination_rse.lower(), queue.source_rse.lower())
    assert (job.size_bytes, job.adler32, job.read_back) == (row["bytes"], row["adler32"], True)
    # While it runs the row shows that somebody is at work.
    assert seen[0]["state"] == RequestState.SUBMITTED
    assert seen[0]["started_at"] is not None
    after = queue.row("f")
    assert after["state"] == RequestState.DONE
    assert after["started_at"] == seen[0]["started_at"] <= after["transferred_at"]
    assert after["source_rse_id"] == queue.rse_ids[queue.source_rse]


def test_finisher_completes_the_rule(queue: Queue, perform: Perform) -> None:
    from rucio.daemons.conveyor import finisher

    rule_id = queue.ask("f")
    queue.submit()
    perform(lambda job, claim: DONE)
    agent.run(once=True)
    finisher.finisher(once=True, partition_wait_time=0)
    assert rule_core.get_rule(rule_id)["state"].name == "OK"
    assert queue.replica_state("f") == "AVAILABLE"


def test_failed_and_tried_again_by_rucio(queue: Queue, perform: Perform) -> None:
    from rucio.daemons.conveyor import finisher

    queue.ask("f")
    queue.submit()
    first = queue.row("f")
    reason = "Stat /localfs/f: quota is used up (CODE_INSUFFICIENT_STORAGE, trace 4711)"
    perform(lambda job, claim: Outcome(state=State.FAILED, reason=reason))
    agent.run(once=True)
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert row["err_msg"].endswith(reason)
    assert row["transferred_at"] is None
    finisher.finisher(once=True, partition_wait_time=0)
    queue.submit()
    perform(lambda job, claim: DONE)
    agent.run(once=True)
    again = queue.row("f")
    assert again["id"] != first["id"]
    assert (again["state"], again["retry_count"]) == (RequestState.DONE, 1)


def failing(error: Exception) -> Callable[[Job, Any], Outcome]:
    def fail(job: Job, claim: Any) -> Outcome:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.ConfigurationError("RSE X: setting cs3_gateway is missing"), "setting cs3_gateway is missing"),
        (ServiceUnavailable("no gateway at 127.0.0.1:1"), "no gateway at 127.0.0.1:1"),
        (ZeroDivisionError("token=secret"), "unexpected ZeroDivisionError in rucio-cs3-agent"),
    ],
)
def test_no_error_leaves_the_request_waiting(queue: Queue, perform: Perform, error: Exception, said: str) -> None:
    queue.ask("f")
    queue.submit()
    perform(failing(error))
    agent.run(once=True)
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert said in row["err_msg"]
    assert "secret" not in row["err_msg"]


def test_without_credentials_the_request_fails_and_says_so(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    agent.run(once=True)
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert f"RSE {queue.source_rse}" in row["err_msg"]


def test_without_a_source_the_request_fails(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Source).values(is_using=False))
    jobs = perform(lambda job, claim: DONE)
    agent.run(once=True)
    assert jobs == []
    assert "no URL for the request" in queue.row("f")["err_msg"]


def test_copy_mode_is_no_part_of_the_source(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Source).values(url=models.Source.url + "?copy_mode=push"))
    jobs = perform(lambda job, claim: DONE)
    agent.run(once=True)
    assert "?" not in jobs[0].source_url


def test_urgent_ones_first(queue: Queue, perform: Perform) -> None:
    for name, priority in (("low", 1), ("middle", 3), ("high", 5)):
        queue.ask(name, priority=priority)
    queue.submit()
    names = {queue.row(name)["id"]: name for name in ("low", "middle", "high")}
    jobs = perform(lambda job, claim: DONE)
    agent.run(once=True, threads=1)
    assert [names[job.request_id] for job in jobs] == ["high", "middle", "low"]


def test_no_more_than_bulk_in_one_round(queue: Queue, perform: Perform) -> None:
    for number in range(5):
        queue.ask(f"f{number}")
    queue.submit()
    jobs = perform(lambda job, claim: DONE)
    agent.run(once=True, bulk=3)
    assert len(jobs) == 3
    agent.run(once=True, bulk=3)
    assert len({job.request_id for job in jobs}) == len(jobs) == 5


def test_a_claimed_row_is_left_to_its_agent(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    assert claims.take(row) is not None
    jobs = perform(lambda job, claim: DONE)
    agent.run(once=True)
    assert jobs == []
    assert queue.row("f")["state"] == RequestState.SUBMITTED
    change(row["id"], estimated_transferred_at=claims.utc_now() - datetime.timedelta(seconds=2))
    agent.run(once=True)
    assert len(jobs) == 1
    assert queue.row("f")["state"] == RequestState.DONE


def test_two_agents_do_not_do_one_thing_twice(queue: Queue, perform: Perform) -> None:
    for number in range(12):
        queue.ask(f"f{number}")
    queue.submit()
    jobs = perform(lambda job, claim: DONE)
    both = [threading.Thread(target=agent.run, kwargs={"once": True, "threads": 2}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(jobs) == len({job.request_id for job in jobs}) == 12
    assert {queue.row(f"f{number}")["state"] for number in range(12)} == {RequestState.DONE}


def test_cancelled_meanwhile_is_not_reported(queue: Queue, perform: Perform, caplog: pytest.LogCaptureFixture) -> None:
    rule_id = queue.ask("f")
    queue.submit()

    def cancelled(job: Job, claim: Any) -> Outcome:
        rule_core.delete_rule(rule_id)
        with pytest.raises(RequestGone):
            claim.confirm()
        return Outcome(state=State.ABANDONED, reason="cancelled")

    perform(cancelled)
    with caplog.at_level(logging.WARNING):
        agent.run(once=True)
    assert "abandoned: cancelled" in caplog.text


def test_cancelled_before_the_report_is_not_reported(queue: Queue, perform: Perform) -> None:
    rule_id = queue.ask("f")
    queue.submit()

    def cancelled(job: Job, claim: Any) -> Outcome:
        rule_core.delete_rule(rule_id)
        return DONE

    perform(cancelled)
    agent.run(once=True)
    assert queue.replica_state("f") == "UNAVAILABLE"


def test_report_survives_a_database_that_is_away(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.ask("f")
    queue.submit()
    perform(lambda job, claim: DONE)
    answers: list[Exception | None] = [DatabaseException("away"), None]
    real = transfer_core.update_transfer_state

    def update_transfer_state(*args: Any, **kwargs: Any) -> Any:
        if answers:
            error = answers.pop(0)
            if error is not None:
                raise error
            return None  # what Rucio returns after an error that it has logged
        return real(*args, **kwargs)

    monkeypatch.setattr(transfer_core, "update_transfer_state", update_transfer_state)
    monkeypatch.setattr("rucio_cs3.agent.time.sleep", lambda seconds: None)
    agent.run(once=True)
    assert answers == []
    assert queue.row("f")["state"] == RequestState.DONE


def test_stop_finishes_what_runs_and_gives_up_nothing(queue: Queue, perform: Perform) -> None:
    for number in range(4):
        queue.ask(f"f{number}")
    queue.submit()

    def stopping(job: Job, claim: Any) -> Outcome:
        agent.stop()
        return DONE

    jobs = perform(stopping)
    agent.run(once=False, threads=1, partition_wait_s=0, sleep_time_s=2)
    states = [queue.row(f"f{number}")["state"] for number in range(4)]
    assert states.count(RequestState.DONE) == len(jobs)
    assert 1 <= len(jobs) < 4
    left = [queue.row(f"f{number}") for number in range(4) if states[number] == RequestState.SUBMITTED]
    assert all(row["estimated_transferred_at"] is None for row in left)


def test_daemon_works_round_after_round_and_renews(queue: Queue, perform: Perform) -> None:
    queue.ask("slow")
    queue.submit()
    done = threading.Event()
    leases: set[datetime.datetime] = set()

    def slow(job: Job, claim: Any) -> Outcome:
        # Long enough for the lease of six seconds to be renewed; ends as soon as it was.
        for _ in range(200):
            leases.add(queue.row("slow")["estimated_transferred_at"])
            if len(leases) > 1 or done.wait(0.1):
                break
        agent.stop()
        return DONE

    perform(slow)
    agent.run(threads=1, partition_wait_s=0, sleep_time_s=2, lease_s=6)
    assert len(leases) == 2
    assert queue.row("slow")["state"] == RequestState.DONE


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"bulk": 0}, {"sleep_time_s": 1}, {"lease_s": 5}])
def test_senseless_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        agent.run(once=True, **wrong)
