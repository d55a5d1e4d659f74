"""What one agent has in hand: looks at the queue, claims what may run, hands it to threads, keeps the claims, reports.

One thread calls :meth:`Dispatcher.step` over and over. A step is one ladder::

    Dispatcher.step
      _collect                    transfers that have ended: reporting.Reporter tells Rucio
      _look                       queue.Queue: what waits; scheduling.Schedule has the order and the caps
      _start                      claims.take: all that starts now in one transaction; execution.perform in a thread
      _keep                       claims.keep: leases and progress of what runs long

Rows are claimed when their transfers start, not when they are read; only where transfers are short are those that come
next claimed along with them (ahead.ClaimedAhead), so that a transaction serves many. They go back to the queue where
their turn does not come within seconds. What is claimed may begin while this thread does something else: what runs and
what comes next is :mod:`rucio_cs3.agent.underway`. Only this thread claims, renews and hands in reports.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rucio.core.topology import ExpiringObjectCache, Topology

from rucio_cs3.agent import claims, metrics
from rucio_cs3.agent.database import FAILURES, Absence, reading, utc_now
from rucio_cs3.agent.execution import Running, perform, prepare
from rucio_cs3.agent.hops import Hop
from rucio_cs3.agent.options import Options
from rucio_cs3.agent.outcomes import Finished
from rucio_cs3.agent.queue import NARROW, Queue, Share, count
from rucio_cs3.agent.reporting import Reporter
from rucio_cs3.agent.scheduling import PROOFS, Candidate, Caps
from rucio_cs3.agent.underway import Underway
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.jobs import Outcome, State

LoggerFunction = Callable[..., Any]

#: Between two looks at a queue that has more than one look shows, in seconds.
_LOOK_AGAIN_S = 0.2

#: Between two counts of all that waits, in seconds; the count is the only thing that is not quite cheap.
_COUNT_S = 60.0

#: A transfer that runs for longer has its progress written down, and again after as long; in seconds.
_PROGRESS_S = 10.0

#: Requests that have waited for longer are taken even from another agent's share, in seconds. Longer than an agent
#: with nothing else to do needs to take them itself.
_PATIENCE_S = 30.0

#: The dispatching thread looks up at least so often, in seconds, to see whether it is to stop.
_LOOK_UP_S = 0.5

#: What transfers get to tidy up after they were told to stop, and reports to be written after that; in seconds.
_TIDY_S = 15.0
_DRAIN_S = 10.0


class Dispatcher:
    """A context manager.

    :param stats_manager: Rucio's ``TransferStatsManager``.
    :param stopped: set when the agent is to stop: nothing is claimed any more.
    :param once: look once, and claim at most ``options.bulk`` rows.
    """

    def __init__(
        self, options: Options, stats_manager: Any, stopped: threading.Event, *, once: bool, name: str
    ) -> None:
        self._options = options
        self._stopped = stopped
        self._once = once
        self._logger: LoggerFunction = logging.log
        # Set when running transfers have to end, too.
        self._stopping = threading.Event()
        self._topology = ExpiringObjectCache(ttl=300, new_obj_fnc=Topology)
        self._queue = Queue(activities=options.activity, window=options.bulk)
        self._lease = datetime.timedelta(seconds=options.lease)
        self._absence = Absence("queue")
        self._underway = Underway(_caps(options), self._perform, self._prepare, self._may_begin, name)
        # Somebody else had them when they were to be claimed ahead; only where no other look finds them again.
        self._passed_over: set[str] = set()
        self._reporter = Reporter(stats_manager, self._remove, self._log)
        self._looked_at = self._counted_at = self._kept_at = -float("inf")
        self._counted = 0
        self._complete = False
        self._window: int | None = None if once else NARROW

    def __enter__(self) -> Dispatcher:
        self._reporter.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Nobody would report what begins from here on.
        self._underway.withdraw()
        self._reporter.__exit__(*exc_info)

    @property
    def idle(self) -> bool:
        """Whether all that was found has been done and reported."""
        looked = self._looked_at > 0
        return looked and not (self._underway.running or self._underway.waiting or self._reporter.outstanding)

    def step(self, share: Share, logger: LoggerFunction) -> None:
        """Do what is due, or wait for it, at most half a second.

        :param share: of the queue that is this agent's.
        :raises DatabaseException: when the only look of ``once`` fails.
        """
        self._logger = logger
        self._collect(self._pause_s())
        if self._absence.pause_s:
            return
        try:
            if self._next_look() <= time.monotonic():
                self._look(share)
            self._start()
            self._keep()
        except FAILURES as exc:
            if self._once and self._looked_at < 0:
                raise
            self._absence.noticed(exc, logger)
        else:
            self._absence.over(logger)

    def finish(self, grace_s: float, logger: LoggerFunction) -> bool:
        """Claim nothing more; wait for what runs, stop it after ``grace_s``, and report.

        :returns: whether nothing was left running or unreported. What was is found again when its claim ends.
        """
        self._logger = logger
        self._give_back(self._underway.withdraw())
        # A timer, because this thread may be waiting for a database that is away.
        stop_all = threading.Timer(grace_s, self._stopping.set)
        stop_all.daemon = True
        stop_all.start()
        deadline = time.monotonic() + grace_s + _TIDY_S
        while self._underway.running and time.monotonic() < deadline:
            self._collect(_LOOK_UP_S)
            if not self._absence.pause_s:
                try:
                    self._keep()
                except FAILURES as exc:
                    self._absence.noticed(exc, logger)
                else:
                    self._absence.over(logger)
        stop_all.cancel()
        for running in self._underway.running:
            logger(logging.ERROR, "%s: does not stop; its claim ends by itself", running.claim.request_id)
        drained = self._reporter.drain(_DRAIN_S)
        if not drained:
            logger(logging.ERROR, "%d reports are left unsaid; their claims end", self._reporter.outstanding)
        ended = self._underway.close(0.0 if self._underway.running else _DRAIN_S, _LOOK_UP_S)
        return drained and ended

    # -- the rungs ------------------------------------------------------------------------------------------------

    def _collect(self, timeout_s: float) -> None:
        """Take in what has ended; wait until this thread is needed."""
        self._underway.wait(timeout_s)
        self._give_back(self._underway.unwanted(overdue=False))
        for finished in self._underway.ended():
            if finished.outcome.state is not State.ABANDONED:
                # From here on its claim is not renewed, so a report never meets a renewal.
                self._reporter.report(finished)

    def _next_look(self) -> float:
        """When to look at the queue, by the monotonic clock."""
        if self._stopped.is_set() or (self._once and self._looked_at > 0):
            return float("inf")
        # Of what it had most is gone, or may not run now, and there is more.
        hungry = self._underway.room > 0 or self._underway.waiting < self._options.threads
        return self._looked_at + (_LOOK_AGAIN_S if hungry and not self._complete else self._options.sleep_time)

    def _look(self, share: Share) -> None:
        if self._window is not None:
            # What still waits waits for hosts that are busy; others may be further back.
            blocked = self._underway.room > 0 and self._underway.waiting > 0 and not self._complete
            self._window = min(4 * self._window, self._options.bulk) if blocked else NARROW
        with reading() as session:
            look = self._queue.look(session, share, window=self._window)
            candidates = list(look.candidates)
            if share.of > 1 and look.complete and len(candidates) < self._underway.room:
                candidates += self._queue.look_at_left(session, datetime.timedelta(seconds=_PATIENCE_S))
            if look.complete:
                self._counted = len(look.candidates)
            elif time.monotonic() - self._counted_at >= _COUNT_S:
                # Of this agent's share, as above: the sum over all agents is what waits.
                self._counted, self._counted_at = count(session) // share.of, time.monotonic()
        self._looked_at, self._complete = time.monotonic(), look.complete
        if self._once:
            candidates = sorted(candidates, key=lambda candidate: candidate.order)[: self._options.bulk]
        waiting = self._underway.offer(candidates)
        claimed = [ahead.candidate for ahead in self._underway.claimed]
        since = [one.since for one in claimed] + ([look.oldest] if look.oldest else [])
        age_s = (utc_now() - min(since)).total_seconds() if since else 0.0
        metrics.queue(self._counted + len(claimed), max(0.0, age_s), len(self._underway.running))
        self._log(logging.DEBUG, "%d requests found, %d run", waiting, len(self._underway.running))

    def _start(self) -> None:
        """Claim and start all that may run now."""
        unclaimed, following = self._underway.start(self._passed_over)
        try:
            if unclaimed or following:
                self._claim(unclaimed, following)
        finally:
            self._underway.start_claimed(unclaimed)

    def _claim(self, at_once: Sequence[Candidate], following: Sequence[Candidate]) -> None:
        """
        :param following: what does not start now.
        """
        by_id = {candidate.request_id: candidate for candidate in (*at_once, *following)}
        ahead = [candidate.request_id for candidate in following]
        taken = claims.take(by_id, self._lease, self._stopping.is_set, ahead=ahead)
        self._underway.add((by_id.pop(claim.request_id), claim) for claim in taken)
        if self._once:
            # One that was but locked for a moment is not found by another look, so it is tried again at its turn.
            self._passed_over.update(by_id)
        elif by_id:
            self._underway.forget(by_id)

    def _give_back(self, unwanted: Sequence[claims.RowClaim]) -> None:
        """Put what was claimed ahead back into the queue."""
        outcome = Outcome(state=State.POSTPONED, reason="its turn did not come")
        for claim in unwanted:
            self._reporter.report(Finished(claim=claim, outcome=outcome, at=utc_now()))

    def _keep(self) -> None:
        """Renew claims that are due, and write down the progress of what runs long."""
        now = time.monotonic()
        if not self._once:
            self._give_back(self._underway.unwanted(overdue=True))
        if now - self._kept_at < min(_PROGRESS_S, self._options.lease / 6):
            return
        self._kept_at = now
        held: list[tuple[claims.RowClaim, Progress | None]] = [
            (ahead.claim, None) for ahead in self._underway.claimed if ahead.claim.is_due
        ]
        for running in self._underway.running:
            if running.claim.is_lost:
                continue
            done = running.watch.progress() if running.watch and running.seconds >= _PROGRESS_S else None
            if done is not None or running.claim.is_due:
                held.append((running.claim, done))
        claims.keep(held)

    # -- in other threads -------------------------------------------------------------------------------------------

    def _perform(self, running: Running) -> Finished:
        return perform(running, self._current_topology, self._log)

    def _prepare(self, claim: claims.RowClaim) -> tuple[Hop | None, float | None]:
        return prepare(claim, self._current_topology, self._log)

    def _may_begin(self) -> bool:
        return not (self._stopped.is_set() or self._absence.pause_s)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def _pause_s(self) -> float:
        """For how long there is nothing to do unless a transfer ends."""
        if self._absence.pause_s:
            return min(self._absence.pause_s, _LOOK_UP_S)
        now = time.monotonic()
        due = [now + _LOOK_UP_S, self._next_look()]
        resumed_at = self._underway.next_change(now)
        if resumed_at is not None:
            due.append(resumed_at)
        return max(0.0, min(due) - now)

    def _remove(self, finished: Finished) -> None:
        """In the thread of the reports: the request is gone, so its file is nobody's."""
        if finished.remove is not None:
            self._underway.submit(finished.remove)

    def _current_topology(self) -> Any:
        return self._topology.get(self._log)

    def _log(self, level: int, message: str, *arguments: Any, **more: Any) -> None:
        """By way of the logger of the moment, which names this agent's place among all."""
        self._logger(level, message, *arguments, **more)


def _caps(options: Options) -> Caps:
    return Caps(
        total=options.threads, per_host=options.host_cap, per_link=options.per_link, proofs=PROOFS * options.threads
    )
