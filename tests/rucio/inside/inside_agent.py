"""The agent on Rucio's real tables, with the copying itself replaced."""

from __future__ import annotations

import datetime
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rucio.common.config import get_config
from rucio.common.exception import DatabaseException, ServiceUnavailable
from rucio.core import rule as rule_core
from rucio.daemons.common import HeartbeatHandler
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import delete, update

from rucio_cs3 import progress
from rucio_cs3.agent import ahead, claims, database, dispatcher, execution, hops, metrics, underway
from rucio_cs3.agent import daemon as agent
from rucio_cs3.agent.ahead import Prepared
from rucio_cs3.agent.database import utc_now
from rucio_cs3.agent.options import Options, configured
from rucio_cs3.agent.scheduling import PROOFS, Candidate, Caps, Link, Schedule
from rucio_cs3.agent.sites import Site
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.agent.watching import ProgressWatch
from rucio_cs3.cs3 import FileInfo, Reference, errors
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.jobs import Job, Outcome, RequestGone, State, Stopping
from rucio_cs3.transfers.modes import Mode

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

FILE = FileInfo(reference=Reference(MountRoot("/")), size=700, is_directory=False, etag="1")
DONE = Outcome(state=State.DONE, copied=True, mode=Mode.PULL, file=FILE)
LIMIT_S = 60.0


def change(request_id: str, **values: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).where(models.Request.id == request_id).values(**values))


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    agent.GRACEFUL_STOP.clear()
    # What a test leaves SUBMITTED would be taken up by the next one's agent.
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(delete(models.Source))
        session.execute(delete(models.Request))
    yield
    agent.GRACEFUL_STOP.clear()


class FakeEnd(CS3End):
    """Needs no cloud; remembers what was deleted, and for whom a folder was made."""

    deleted: list[str] = []  # noqa: RUF012
    prepared: list[str] = []  # noqa: RUF012

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self.url = url

    @property
    def name(self) -> str:
        return self._name

    def stat(self) -> FileInfo:
        return FILE

    def delete(self) -> None:
        self.deleted.append(self.url)

    def make_parents(self, *, anew: bool = False) -> bool:
        self.prepared.append(self.url)
        return False


class FakeSites:
    def of(self, rse: Any, operation: str, pfn: str) -> Site:
        name = rse.ensure_loaded(load_name=True).name
        return Site(end=lambda url: FakeEnd(name, url), path=lambda url: None, verifies=True)


Transfer = Callable[[Job, Any, Any], Outcome]
Perform = Callable[[Transfer], list[Job]]


@pytest.fixture
def perform(monkeypatch: pytest.MonkeyPatch) -> Perform:
    """Replaces the transfer itself; returns the list of jobs that the agent asked for, in the order of their start."""

    def install(function: Transfer) -> list[Job]:
        jobs: list[Job] = []

        def transfer_one(job: Job, source: Any, destination: Any, claim: Any, watch: Any) -> Outcome:
            jobs.append(job)
            return function(job, claim, watch)

        monkeypatch.setattr(execution, "transfer_one", transfer_one)
        monkeypatch.setattr(hops, "SITES", FakeSites())
        FakeEnd.deleted, FakeEnd.prepared = [], []
        return jobs

    return install


def always(outcome: Outcome) -> Transfer:
    return lambda job, claim, watch: outcome


def once(**options: Any) -> bool:
    return agent.run(once=True, options=Options(**options))


def daemon(**options: Any) -> bool:
    """Run until something in the test stops it."""
    return agent.run(options=Options(**{"sleep_time": 2, **options}), partition_wait_s=0)


def until_stopped(claim: Any) -> Outcome:
    """A transfer that has no end of its own."""
    deadline = time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < deadline:
            claim.check()
            time.sleep(0.02)
    except Stopping as exc:
        return Outcome(state=State.POSTPONED, reason=str(exc), error=exc)
    raise AssertionError("nobody stopped it")


# -- what Rucio sees ------------------------------------------------------------------------------------------


def test_done(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    seen: list[dict[str, Any]] = []

    def look(job: Job, claim: Any, watch: Any) -> Outcome:
        seen.append(queue.row("f"))
        return DONE

    jobs = perform(look)
    assert once()
    (job,) = jobs
    assert (job.request_id, job.size_bytes, job.adler32) == (row["id"], row["bytes"], row["adler32"])
    assert (job.read_back, job.resumed, job.attempt) == (True, False, 0)
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
    perform(always(DONE))
    once()
    finisher.finisher(once=True, partition_wait_time=0)
    assert rule_core.get_rule(rule_id)["state"].name == "OK"
    assert queue.replica_state("f") == "AVAILABLE"


def test_failed_and_tried_again_by_rucio(queue: Queue, perform: Perform) -> None:
    from rucio.daemons.conveyor import finisher

    queue.ask("f")
    queue.submit()
    first = queue.row("f")
    reason = "Stat /localfs/f: quota is used up (CODE_INSUFFICIENT_STORAGE, trace 4711)"
    perform(always(Outcome(state=State.FAILED, reason=reason)))
    once()
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert row["err_msg"].endswith(reason)
    assert row["transferred_at"] is None
    finisher.finisher(once=True, partition_wait_time=0)
    queue.submit()
    perform(always(DONE))
    once()
    again = queue.row("f")
    assert again["id"] != first["id"]
    assert (again["state"], again["retry_count"]) == (RequestState.DONE, 1)


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

    def fail(job: Job, claim: Any, watch: Any) -> Outcome:
        raise error

    perform(fail)
    once()
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert said in row["err_msg"]
    assert "secret" not in row["err_msg"]


def test_without_credentials_the_request_fails_and_says_so(queue: Queue) -> None:
    queue.ask("f")
    queue.submit()
    once()
    row = queue.row("f")
    assert row["state"] == RequestState.FAILED
    assert f"RSE {queue.source_rse}" in row["err_msg"]


def test_without_a_source_the_request_fails(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Source).values(is_using=False))
    jobs = perform(always(DONE))
    once()
    assert jobs == []
    assert "no URL for the request" in queue.row("f")["err_msg"]


def test_copy_mode_is_no_part_of_the_source(queue: Queue, perform: Perform, caplog: pytest.LogCaptureFixture) -> None:
    queue.ask("f")
    queue.submit()
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Source).values(url=models.Source.url + "?copy_mode=push"))

    def begin(job: Job, claim: Any, watch: Any) -> Outcome:
        watch.began(Mode.PULL)
        return DONE

    perform(begin)
    with caplog.at_level(logging.INFO):
        once()
    (began,) = [record for record in caplog.records if getattr(record, "transfer", {}).get("event") == "began"]
    assert began.transfer["source_url"].endswith("/f")  # type: ignore[attr-defined]


# -- which, and how many --------------------------------------------------------------------------------------


def test_urgent_ones_first(queue: Queue, perform: Perform) -> None:
    for name, priority in (("low", 1), ("middle", 3), ("high", 5)):
        queue.ask(name, priority=priority)
    queue.submit()
    names = {queue.row(name)["id"]: name for name in ("low", "middle", "high")}
    jobs = perform(always(DONE))
    once(threads=1)
    assert [names[job.request_id] for job in jobs] == ["high", "middle", "low"]


def test_no_more_than_bulk_in_one_round(queue: Queue, perform: Perform) -> None:
    for number in range(5):
        queue.ask(f"f{number}")
    queue.submit()
    jobs = perform(always(DONE))
    once(bulk=3)
    assert len(jobs) == 3
    once(bulk=3)
    assert len({job.request_id for job in jobs}) == len(jobs) == 5


class Together:
    """A transfer that waits until as many run as may, so that it is no matter of time how many that are.

    :param expected: as many as may.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._condition = threading.Condition()
        self._running = 0
        self.most = 0

    def __call__(self, job: Job, claim: Any, watch: Any) -> Outcome:
        with self._condition:
            self._running += 1
            self.most = max(self.most, self._running)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self.most >= self._expected, LIMIT_S / 4)
        # For those that may not to come, if they do.
        time.sleep(0.1)
        with self._condition:
            self._running -= 1
        return DONE


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"threads": 4, "per_host": 4}, 4),
        ({"threads": 4, "per_link": 1}, 1),
        ({"threads": 4, "per_host": 2}, 2),
        # So that one host that hangs does not have them all.
        ({"threads": 4}, 3),
        ({"threads": 1}, 1),
    ],
)
def test_caps(queue: Queue, perform: Perform, options: dict[str, int], most: int) -> None:
    for number in range(8):
        queue.ask(f"f{number}")
    queue.submit()
    together = Together(most)
    jobs = perform(together)
    once(**options)
    assert len(jobs) == 8
    assert together.most == most


@pytest.mark.parametrize(("limit", "most"), [(underway._PROVEN_BESIDE_BYTES, 1 + PROOFS), (0, 1)])
def test_the_proof_of_a_small_file_makes_room_for_another_copy(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(underway, "_PROVEN_BESIDE_BYTES", limit)
    for number in range(6):
        queue.ask(f"f{number}")
    queue.submit()
    together = Together(most)

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        watch.began(Mode.PULL)
        watch.copied()
        return together(job, claim, watch)

    jobs = perform(transfer)
    once(threads=1)
    assert len(jobs) == 6
    assert together.most == most


def test_what_copies_again_after_its_proof_says_so() -> None:
    told: list[bool] = []
    subject = Subject(
        request_id="r",
        scope="s",
        name="n",
        size_bytes=1,
        source="A",
        destination="B",
        source_url="davs://a/n",
        destination_url="davs://b/n",
    )
    watch = ProgressWatch(subject, proves=told.append)
    for _ in range(2):
        watch.began(Mode.PULL)
        watch.copied()
    assert told == [True, False, True]


# -- claimed before their turn --------------------------------------------------------------------------------


def waits_ahead(row: dict[str, Any]) -> bool:
    return row["estimated_transferred_at"] is not None and row["started_at"] is None


def test_a_transfer_begins_when_its_turn_comes_and_not_when_it_is_claimed(queue: Queue, perform: Perform) -> None:
    names = ask(queue, 3)
    told: list[datetime.datetime] = []

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            # By now it is known that transfers are short.
            wait_for(lambda: waits_ahead(queue.row(names[2])), "a claim before its turn")
            told.append(utc_now())
        return DONE

    jobs = perform(transfer)
    once(threads=1)
    row = queue.row(names[2])
    assert row["state"] == RequestState.DONE
    assert told[0] <= row["started_at"] <= row["transferred_at"]


def ask(queue: Queue, number: int) -> list[str]:
    """Submitted requests, in the order in which they are done."""
    names = [f"f{index}" for index in range(number)]
    for name in names:
        queue.ask(name)
    queue.submit()
    return sorted(names, key=lambda name: (queue.row(name)["submitted_at"], str(queue.row(name)["id"])))


def test_nothing_is_claimed_behind_what_runs_for_long(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_S", 0.5)
    monkeypatch.setattr(ahead, "_AHEAD_PER_THREAD", 2)
    names = ask(queue, 12)
    steps, takes = counted(monkeypatch, dispatcher.Dispatcher, "step"), counted(monkeypatch, claims, "take")
    seen: list[int] = []

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) <= 4:
            return DONE
        if len(jobs) == 6:
            # All threads are busy: what had been claimed goes back, and is not claimed again.
            begun = {job.request_id for job in jobs}
            rest = [name for name in names if queue.row(name)["id"] not in begun]
            wait_for(lambda: not any(waits_ahead(queue.row(name)) for name in rest), "their return")
            before, first = len(takes), len(steps)
            wait_for(lambda: len(steps) >= first + 8, "some steps")
            seen.append(len(takes) - before)
            agent.stop()
        return until_stopped(claim)

    jobs = perform(transfer)
    assert daemon(threads=2, per_host=2, grace=0)
    assert seen == [0]


def counted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[int]:
    """One entry for each call."""
    calls: list[int] = []
    real = getattr(place, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, call)
    return calls


def test_what_is_claimed_before_its_turn_waits_in_the_metrics(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_S", 2 * LIMIT_S)
    ask(queue, 5)
    told: list[tuple[int, float, int]] = []
    monkeypatch.setattr(metrics, "queue", lambda *values: told.append(values))

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            wait_for(lambda: told and told[-1][0] == 3 and told[-1][1] > 0, "a look at three that wait")
            agent.stop()
        return DONE

    jobs = perform(transfer)
    assert daemon(threads=1)
    assert told[-1][2] == 1


def test_what_is_but_locked_when_it_is_claimed_ahead_is_done_all_the_same(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single look has no other that would find it."""
    names = ask(queue, 6)
    real, locked = claims.take, list[str]()

    def take(ids: Any, *args: Any, ahead: Any = ()) -> Any:
        if ahead and not locked:
            locked.extend(ahead)
            ids = [request_id for request_id in ids if request_id not in locked]
        return real(ids, *args, ahead=[request_id for request_id in ahead if request_id in ids])

    monkeypatch.setattr(claims, "take", take)
    perform(always(DONE))
    once(threads=1)
    assert locked
    assert {queue.row(name)["state"] for name in names} == {RequestState.DONE}


def test_a_host_that_hangs_does_not_keep_others_from_having_their_folders() -> None:
    hangs, others = Link("a.test:1", "hangs.test:1"), Link("a.test:1", "others.test:1")
    free, told = threading.Event(), SimpleQueue[Prepared]()

    def make_folder(one: ahead.Ahead) -> float | None:
        if one.candidate.link is hangs:
            assert free.wait(LIMIT_S)
            return 7.0
        return None

    found = ahead.ClaimedAhead(Schedule(Caps(total=3)), 3, 2, make_folder, told.put, "test")
    for number in range(8):
        link = hangs if number < 6 else others
        candidate = Candidate(request_id=str(number), link=link, priority=3, since=utc_now())
        found.add(candidate, SimpleNamespace(request_id=str(number)))  # type: ignore[arg-type]
    try:
        found.prepare()
        assert [told.get(timeout=LIMIT_S) for _ in range(2)] == [Prepared(others, None)] * 2
    finally:
        free.set()
    for _ in range(6):
        through = told.get(timeout=LIMIT_S)
        assert through == Prepared(hangs, 7.0)
        found.prepared(through)
        found.prepare()
    found.close(LIMIT_S)


def test_a_site_that_asks_for_a_pause_before_a_folder_gets_it(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ask(queue, 3)
    at: list[float] = []

    def make_parents(self: FakeEnd, *, anew: bool = False) -> bool:
        if self.url.endswith(names[2]) and not at:
            at.append(time.monotonic())
            raise errors.Throttled("come back later", code="HTTP 429", retry_after_s=2.0)
        return False

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            wait_for(lambda: at, "a folder beforehand")
        elif len(jobs) == 3:
            at.append(time.monotonic())
            agent.stop()
        return DONE

    jobs = perform(transfer)
    monkeypatch.setattr(FakeEnd, "make_parents", make_parents)
    assert daemon(threads=1)
    assert at[1] - at[0] >= 2.0


def test_folders_of_the_next_are_there_before_their_turn(queue: Queue, perform: Perform) -> None:
    for number in range(3):
        queue.ask(f"f{number}")
    queue.submit()

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            # By now it is known that transfers are short; the third waits for its turn.
            wait_for(lambda: any(url.endswith(names[-1]) for url in FakeEnd.prepared), "a folder beforehand")
        return DONE

    jobs = perform(transfer)
    names = [f"f{number}" for number in range(3)]
    once(threads=1)
    assert [queue.row(name)["state"] for name in names] == [RequestState.DONE] * 3


def test_ends_that_were_found_for_a_folder_are_not_looked_for_again(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ask(queue, 3)
    prepared = counted(monkeypatch, underway.Underway, "_prepared")
    opened: list[str] = []
    real = hops.open_hop

    def open_hop(row: Any, *args: Any) -> Any:
        opened.append(row["name"])
        return real(row, *args)

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            wait_for(lambda: any(url.endswith(names[2]) for url in FakeEnd.prepared), "a folder beforehand")
            wait_for(lambda: len(prepared) == len(FakeEnd.prepared), "its end")
        return DONE

    jobs = perform(transfer)
    monkeypatch.setattr(execution, "open_hop", open_hop)
    once(threads=1)
    assert len(jobs) == 3
    assert opened.count(names[2]) == 1


@pytest.mark.parametrize("limit", [underway._PROVEN_BESIDE_BYTES, 0], ids=["before the proof", "after it"])
def test_what_is_claimed_follows_a_copy_at_once(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Also while the dispatching thread waits for the database, say."""
    monkeypatch.setattr(underway, "_PROVEN_BESIDE_BYTES", limit)
    names = ask(queue, 5)
    hold, held, free = threading.Event(), threading.Event(), threading.Event()
    begun: list[bool] = []
    real = dispatcher.Dispatcher._collect

    def collect(self: dispatcher.Dispatcher, timeout_s: float) -> None:
        real(self, timeout_s)
        if hold.is_set() and not held.is_set():
            held.set()
            free.wait(LIMIT_S / 4)
            free.set()

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        number = len(jobs)
        watch.began(Mode.PULL)
        if number == 2:
            # By now it is known that transfers are short; the next ones wait for their turn.
            wait_for(lambda: waits_ahead(queue.row(names[2])), "a claim before its turn")
            hold.set()
            assert held.wait(LIMIT_S)
        elif number == 3:
            begun.append(not free.is_set())
            free.set()
        watch.copied()
        if number == 2 and limit:
            assert free.wait(LIMIT_S)
        return DONE

    monkeypatch.setattr(dispatcher.Dispatcher, "_collect", collect)
    jobs = perform(transfer)
    once(threads=1)
    assert len(jobs) == 5
    assert begun == [True]


def test_nothing_begins_until_the_database_is_asked_again() -> None:
    stopped = threading.Event()
    found = dispatcher.Dispatcher(Options(threads=1), None, stopped, once=True, name="test")
    assert found._may_begin()
    found._absence.noticed(DatabaseException("away"), logging.log)
    assert not found._may_begin()
    found._absence.over(logging.log)
    assert found._may_begin()
    stopped.set()
    assert not found._may_begin()
    found._underway.close(LIMIT_S, LIMIT_S)


def test_nothing_that_is_claimed_follows_where_a_site_asks_for_a_pause(queue: Queue, perform: Perform) -> None:
    names = ask(queue, 4)
    at: list[float] = []
    error = errors.Throttled("come back later", code="HTTP 429", retry_after_s=2.0)

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) == 2:
            wait_for(lambda: waits_ahead(queue.row(names[2])), "a claim before its turn")
            at.append(time.monotonic())
            return Outcome(state=State.POSTPONED, reason=str(error), error=error, retry_after_s=2.0)
        if len(jobs) == 3:
            at.append(time.monotonic())
            agent.stop()
        return DONE

    jobs = perform(transfer)
    assert daemon(threads=1)
    assert at[1] - at[0] >= 2.0


def test_python_changes_threads_soon_while_the_agent_runs_and_not_after(queue: Queue, perform: Perform) -> None:
    before = sys.getswitchinterval()
    queue.ask("f")
    queue.submit()
    seen: list[float] = []

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        seen.append(sys.getswitchinterval())
        return DONE

    perform(transfer)
    once()
    assert seen == [pytest.approx(agent._SWITCH_S)]
    assert sys.getswitchinterval() == before


def test_only_the_activities_that_were_asked_for(queue: Queue, perform: Perform) -> None:
    for name in ("mine", "other"):
        queue.ask(name)
    queue.submit()
    change(queue.row("mine")["id"], activity="T0 Export")
    jobs = perform(always(DONE))
    once(activity=("T0 Export",))
    assert [job.request_id for job in jobs] == [queue.row("mine")["id"]]


def test_what_the_throttler_holds_back_is_not_touched(queue: Queue, perform: Perform) -> None:
    """Rucio's throttler holds requests in WAITING, before its submitter; the agents never see them."""
    for name in ("released", "held"):
        queue.ask(name)
    queue.submit()
    change(queue.row("held")["id"], state=RequestState.WAITING)
    jobs = perform(always(DONE))
    once()
    assert [job.request_id for job in jobs] == [queue.row("released")["id"]]
    assert queue.row("held")["state"] == RequestState.WAITING


# -- more than one agent, and agents that died ----------------------------------------------------------------


def test_a_claimed_row_is_left_to_its_agent(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()
    row = queue.row("f")
    assert claims.take([row["id"]])
    jobs = perform(always(DONE))
    once()
    assert jobs == []
    assert queue.row("f")["state"] == RequestState.SUBMITTED
    change(row["id"], estimated_transferred_at=utc_now() - datetime.timedelta(seconds=2))
    once()
    (job,) = jobs
    # So that it looks for what the dead one has left.
    assert job.resumed
    assert queue.row("f")["state"] == RequestState.DONE


def test_two_agents_do_not_do_one_thing_twice(queue: Queue, perform: Perform) -> None:
    for number in range(12):
        queue.ask(f"f{number}")
    queue.submit()
    jobs = perform(always(DONE))
    both = [threading.Thread(target=agent.run, kwargs={"once": True, "options": Options(threads=2)}) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(jobs) == len({job.request_id for job in jobs}) == 12
    assert {queue.row(f"f{number}")["state"] for number in range(12)} == {RequestState.DONE}


def test_daemon_works_on_and_renews(queue: Queue, perform: Perform) -> None:
    queue.ask("slow")
    queue.submit()
    leases: set[datetime.datetime] = set()

    def slow(job: Job, claim: Any, watch: Any) -> Outcome:
        # Long enough for the lease of six seconds to be renewed; ends as soon as it was.
        def renewed() -> bool:
            leases.add(queue.row("slow")["estimated_transferred_at"])
            return len(leases) > 1

        wait_for(renewed, "a renewal")
        claim.check()
        agent.stop()
        return DONE

    perform(slow)
    assert daemon(threads=1, lease=6)
    assert len(leases) == 2
    assert queue.row("slow")["state"] == RequestState.DONE


# -- cancelled ------------------------------------------------------------------------------------------------


def test_cancelled_meanwhile_is_noticed_and_not_reported(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatcher, "_PROGRESS_S", 0.1)
    rule_id = queue.ask("f")
    queue.submit()

    def cancelled(job: Job, claim: Any, watch: Any) -> Outcome:
        watch.began(Mode.PULL)
        rule_core.delete_rule(rule_id)
        wait_for(lambda: claim.is_lost, "the loss")
        with pytest.raises(RequestGone) as caught:
            claim.check()
        return Outcome(state=State.ABANDONED, reason="cancelled", error=caught.value)

    perform(cancelled)
    with caplog.at_level(logging.WARNING):
        once()
    assert "abandoned" in caplog.text


def test_the_file_of_a_request_that_was_cancelled_before_the_report_is_removed(queue: Queue, perform: Perform) -> None:
    rule_id = queue.ask("f")
    queue.submit()
    destination = queue.row("f")["dest_url"]

    def cancelled(job: Job, claim: Any, watch: Any) -> Outcome:
        rule_core.delete_rule(rule_id)
        return DONE

    perform(cancelled)
    assert once()
    assert queue.replica_state("f") == "UNAVAILABLE"
    assert FakeEnd.deleted == [destination]


def test_the_file_of_a_request_that_was_told_and_archived_stays(queue: Queue, perform: Perform) -> None:
    """As after a commit whose answer was lost: the row is gone, because it is finished."""
    from rucio.core import replica as replica_core
    from rucio.core import request as request_core
    from rucio.db.sqla.constants import ReplicaState

    queue.ask("f")
    queue.submit()

    def told_already(job: Job, claim: Any, watch: Any) -> Outcome:
        change(job.request_id, state=RequestState.DONE)
        request_core.archive_request(job.request_id)
        replica_core.update_replica_state(
            queue.rse_ids[queue.destination_rse], queue.scope, "f", ReplicaState.AVAILABLE
        )
        return DONE

    perform(told_already)
    assert once()
    assert FakeEnd.deleted == []


# -- progress -------------------------------------------------------------------------------------------------


def test_progress_of_what_runs_long_is_in_the_row(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_PROGRESS_S", 0.1)
    queue.ask("f")
    queue.submit()
    before = queue.row("f")
    seen: list[progress.Progress] = []

    def slow(job: Job, claim: Any, watch: Any) -> Outcome:
        watch.began(Mode.PUSH)
        watch.moved(400)

        def written() -> bool:
            row = queue.row("f")
            found = progress.read(row["attributes"], since=row["started_at"])
            if found is not None and found.bytes_moved == 400:
                seen.append(found)
            return bool(seen)

        wait_for(written, "progress")
        return DONE

    perform(slow)
    once()
    assert seen[0].mode is Mode.PUSH
    after = queue.row("f")
    assert after["state"] == RequestState.DONE
    assert {key: value for key, value in after["attributes"].items() if key != progress.KEY} == before["attributes"]


def test_short_transfers_write_no_progress(queue: Queue, perform: Perform) -> None:
    queue.ask("f")
    queue.submit()

    def short(job: Job, claim: Any, watch: Any) -> Outcome:
        watch.began(Mode.PULL)
        watch.moved(job.size_bytes)
        return DONE

    perform(short)
    once()
    assert progress.KEY not in queue.row("f")["attributes"]


# -- put off --------------------------------------------------------------------------------------------------


def test_a_link_that_asks_for_a_pause_gets_it_and_holds_up_no_other(
    make_queue: Callable[..., Queue], perform: Perform
) -> None:
    busy, idle = make_queue(), make_queue()
    for queue, priority in ((busy, 5), (idle, 1)):
        queue.ask("f", priority=priority)
        queue.submit()
    error = errors.Throttled("come back later", code="HTTP 503", retry_after_s=3.0)
    order: list[tuple[str, float]] = []

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        queue = busy if job.request_id == busy.row("f")["id"] else idle
        order.append((queue.destination_rse, time.monotonic()))
        if order == [order[0]]:
            return Outcome(state=State.POSTPONED, reason=str(error), error=error, retry_after_s=3.0)
        if len(order) == 3:
            agent.stop()
        return DONE

    perform(transfer)
    assert daemon(threads=1)
    assert [name for name, _ in order] == [busy.destination_rse, idle.destination_rse, busy.destination_rse]
    assert order[2][1] - order[0][1] >= 3.0
    for queue in (busy, idle):
        assert queue.row("f")["state"] == RequestState.DONE


# -- stopping -------------------------------------------------------------------------------------------------


def test_stop_finishes_what_runs_and_gives_up_nothing(queue: Queue, perform: Perform) -> None:
    for number in range(6):
        queue.ask(f"f{number}")
    queue.submit()

    def stopping(job: Job, claim: Any, watch: Any) -> Outcome:
        # By the second it is known that transfers are short, and that others are claimed ahead.
        if len(jobs) == 2:
            agent.stop()
        return DONE

    jobs = perform(stopping)
    assert daemon(threads=1)
    states = [queue.row(f"f{number}")["state"] for number in range(6)]
    assert states.count(RequestState.DONE) == len(jobs)
    assert 2 <= len(jobs) < 6
    left = [queue.row(f"f{number}") for number in range(6) if states[number] == RequestState.SUBMITTED]
    assert {(row["estimated_transferred_at"], row["started_at"]) for row in left} == {(None, None)}


def test_what_does_not_end_in_time_goes_back_to_the_queue(queue: Queue, perform: Perform) -> None:
    queue.ask("endless")
    queue.ask("quick")
    queue.submit()

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if job.request_id == queue.row("endless")["id"]:
            agent.stop()
            return until_stopped(claim)
        wait_for(agent.GRACEFUL_STOP.is_set, "the stop")
        return DONE

    perform(transfer)
    assert daemon(threads=2, per_host=2, grace=1)
    assert queue.row("quick")["state"] == RequestState.DONE
    row = queue.row("endless")
    assert (row["state"], row["estimated_transferred_at"], row["started_at"]) == (RequestState.SUBMITTED, None, None)


def test_what_hangs_does_not_keep_the_agent(queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_TIDY_S", 0.5)
    queue.ask("f")
    queue.submit()
    free = threading.Event()

    def hang(job: Job, claim: Any, watch: Any) -> Outcome:
        agent.stop()
        assert free.wait(LIMIT_S)
        return DONE

    perform(hang)
    assert not daemon(threads=1, grace=0)
    row = queue.row("f")
    assert row["state"] == RequestState.SUBMITTED
    assert row["estimated_transferred_at"] > utc_now()
    free.set()


def test_after_the_first_signal_the_second_has_its_own_effect() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in handlers:
            signal.signal(number, agent.stop)
        signal.raise_signal(signal.SIGTERM)
        assert agent.GRACEFUL_STOP.is_set()
        assert {signal.getsignal(number) for number in handlers} == {signal.SIG_DFL}
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# -- the database is away -------------------------------------------------------------------------------------


class Outage:
    """While it is on, nothing of the agent's reaches the database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = threading.Event()
        self.refused = 0
        real_session, real_live = db_session, HeartbeatHandler.live

        def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                if self.on.is_set():
                    self.refused += 1
                    raise DatabaseException("the database is away")
                return function(*args, **kwargs)

            return wrapped

        monkeypatch.setattr(database, "db_session", refusing(real_session))
        monkeypatch.setattr(HeartbeatHandler, "live", refusing(real_live))


def test_a_database_that_is_away_stops_nothing_and_loses_nothing(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(monkeypatch)
    for number in range(4):
        queue.ask(f"f{number}")
    queue.submit()

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        if len(jobs) <= 2:
            # Both run on while the database is away, and end before it is back.
            outage.on.set()
            threading.Timer(3.0, outage.on.clear).start()
        elif len(jobs) == 4:
            agent.stop()
        return DONE

    jobs = perform(transfer)
    with caplog.at_level(logging.WARNING):
        assert daemon(threads=2, per_host=2)
    assert outage.refused
    assert len({job.request_id for job in jobs}) == len(jobs) == 4
    assert {queue.row(f"f{number}")["state"] for number in range(4)} == {RequestState.DONE}
    assert "reports: Rucio's database is back" in caplog.text
    # Once for each of those that ask, not once for each attempt.
    assert 1 <= caplog.text.count("Rucio's database fails") <= 3 * 2


def test_without_a_database_a_single_look_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch)
    real = HeartbeatHandler.__enter__

    def enter(self: Any) -> Any:
        found = real(self)
        outage.on.set()
        return found

    monkeypatch.setattr(HeartbeatHandler, "__enter__", enter)
    with pytest.raises(DatabaseException):
        once()


def test_one_unforeseen_failure_is_not_the_end(
    queue: Queue, perform: Perform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent, "_UNFORESEEN_S", 0.01)
    queue.ask("f")
    queue.submit()
    real, failures = dispatcher.Dispatcher.step, [ZeroDivisionError("once")]

    def step(self: Any, *args: Any) -> None:
        if failures:
            raise failures.pop()
        real(self, *args)

    monkeypatch.setattr(dispatcher.Dispatcher, "step", step)

    def transfer(job: Job, claim: Any, watch: Any) -> Outcome:
        agent.stop()
        return DONE

    perform(transfer)
    assert daemon()
    assert queue.row("f")["state"] == RequestState.DONE
    assert "ZeroDivisionError" in caplog.text


# -- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"bulk": 0},
        {"sleep_time": 1},
        {"lease": 5},
        {"per_host": 0},
        {"per_link": 0},
        {"grace": -1},
    ],
)
def test_numbers_that_are_too_small_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
        Options(**wrong)


def test_a_lease_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="lease must be at most 3600"):
        Options(lease=3601)


def test_the_command_line_wins_over_the_configuration_and_that_over_the_defaults() -> None:
    parser = get_config()
    parser.read_dict({"cs3": {"threads": "3", "per_host": "2", "activity": "T0 Export, Express"}})
    try:
        options = configured(threads=5, per_link=None, activity=())
        assert (options.threads, options.per_host, options.per_link) == (5, 2, None)
        assert options.activity == ("T0 Export", "Express")
        assert options.lease == Options().lease
        parser.set("cs3", "per_host", "many")
        with pytest.raises(ValueError, match=r"per_host in section \[cs3\]"):
            configured()
    finally:
        parser.remove_section("cs3")
