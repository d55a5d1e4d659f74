"""What runs in an agent and what comes next, where something is in the way; nobody else is there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from rucio_cs3.agent.ahead import AHEAD_S
from rucio_cs3.agent.database import utc_now
from rucio_cs3.agent.dispatcher import Dispatcher
from rucio_cs3.agent.execution import Running
from rucio_cs3.agent.options import Options
from rucio_cs3.agent.outcomes import Finished
from rucio_cs3.agent.scheduling import Candidate, Caps, Link
from rucio_cs3.agent.underway import Underway
from rucio_cs3.transfers.jobs import Outcome, State

LIMIT_S = 60.0
DONE = Outcome(state=State.DONE)


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


class Waiting:
    """Two transfers that are claimed, and wait; the agent around them is not there."""

    def __init__(
        self,
        perform_one: Callable[[Running], object] = lambda running: None,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        def perform(running: Running) -> Finished:
            perform_one(running)
            return Finished(claim=running.claim, outcome=DONE, at=utc_now())

        link = Link("a.test:1", "b.test:1")
        self.candidates = [Candidate(request_id=name, link=link, priority=3, since=utc_now()) for name in "ab"]
        self.underway = Underway(Caps(total=1), perform, lambda claim: (None, None), may_begin, "test")
        self.underway.offer(self.candidates)
        self.claim(*self.candidates)

    def claim(self, *candidates: Candidate) -> None:
        for one in candidates:
            claim = SimpleNamespace(request_id=one.request_id, row={"bytes": 1}, begin=lambda: None)
            self.underway.add([(one, claim)])  # type: ignore[list-item]

    def ended(self) -> list[str]:
        return [finished.request_id for finished in self.underway.ended()]

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.underway.close(LIMIT_S, LIMIT_S)


def test_nothing_follows_while_nothing_may_begin() -> None:
    may = [True]
    with Waiting(lambda running: may.__setitem__(0, False), lambda: may[0]) as waiting:
        for left in (1, 0):
            may[0] = True
            assert waiting.underway.start(()) == ([], [])
            wait_for(waiting.ended, "the end of a transfer")
            assert (waiting.underway.waiting, len(waiting.underway.claimed)) == (left, left)
            assert waiting.underway.running == []


def test_what_has_ended_is_not_begun_again_before_it_is_told() -> None:
    """A claim may run out while the database is away; the next look then finds a request that is done here."""
    with Waiting() as waiting:
        waiting.underway.start(())
        wait_for(lambda: len(waiting.underway._ended) == 2, "the end of both")
        assert waiting.underway.offer(waiting.candidates) == 0
        assert waiting.ended() == ["a", "b"]
        assert waiting.underway.offer(waiting.candidates) == 2


def test_nothing_follows_while_nobody_renews_claims() -> None:
    """The dispatching thread hangs in a statement, say."""
    ends = threading.Event()
    with Waiting(lambda running: ends.wait(LIMIT_S)) as waiting:
        waiting.underway.start(())
        waiting.underway._heard_at -= AHEAD_S
        ends.set()
        wait_for(waiting.ended, "the end of the first")
        assert [one.claim.request_id for one in waiting.underway.claimed] == ["b"]
        waiting.underway.wait(0.0)
        waiting.underway.start(())
        wait_for(waiting.ended, "the end of the second")


def test_nothing_follows_after_an_agent_that_broke_down() -> None:
    found = Dispatcher(Options(threads=1), None, threading.Event(), once=True, name="test")
    with contextlib.suppress(ZeroDivisionError), found, Waiting() as waiting:
        found._underway.offer(waiting.candidates)
        raise ZeroDivisionError
    assert found._underway.waiting == 0
    found._underway.close(LIMIT_S, LIMIT_S)
