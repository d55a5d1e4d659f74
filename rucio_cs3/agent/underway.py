"""What runs in an agent and what comes next, and the threads that do it.

The thread whose copy has ended starts the next one itself where that is claimed, so that no place stays empty until the
dispatching thread is awake, which may just be waiting for the database. All of it is therefore changed under one lock,
which nobody keeps while a site or the database is asked.

While a small file is being proven, another copy goes on in its place: caps count copies, and proofs have three
times as many places. Knows no database; :mod:`rucio_cs3.agent.dispatcher` claims, renews and reports.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Callable, Collection, Iterable

from rucio_cs3.agent.ahead import AHEAD_S, Ahead, ClaimedAhead, Prepared
from rucio_cs3.agent.claims import RowClaim
from rucio_cs3.agent.database import CHUNK_ROWS
from rucio_cs3.agent.execution import Running, Threads
from rucio_cs3.agent.hops import Hop
from rucio_cs3.agent.outcomes import Finished
from rucio_cs3.agent.scheduling import Candidate, Caps, Link, Schedule
from rucio_cs3.transfers.jobs import State

#: A link is paused for no longer, whatever its hosts ask for, and for as long as ``_PAUSE_S`` where nobody says; in
#: seconds. A request that is put off too often fails after a while, which such a pause must not exceed by much.
_LONGEST_PAUSE_S = 900.0
_PAUSE_S = 10.0

#: The proofs of files up to this size are but a round trip or two, in bytes: meanwhile another copy goes on in their
#: place. A larger file's may be a read of the whole, which is as much work for a site as a copy.
_PROVEN_BESIDE_BYTES = 4 * 1024 * 1024


class Underway:
    """Methods with a public name are for the dispatching thread.

    :param perform: does a transfer, in a thread of its own; raises nothing.
    :param prepare: see :func:`rucio_cs3.agent.execution.prepare`; likewise.
    :param may_begin: whether anything may begin at all; asked in any thread.
    """

    def __init__(
        self,
        caps: Caps,
        perform: Callable[[Running], Finished],
        prepare: Callable[[RowClaim], tuple[Hop | None, float | None]],
        may_begin: Callable[[], bool],
        name: str,
    ) -> None:
        self._perform_one = perform
        self._prepare_one = prepare
        self._may_begin = may_begin
        self._lock = threading.Lock()
        self._schedule = Schedule(caps)
        # With those that have ended until :meth:`ended` has told of them.
        self._running: dict[str, Running] = {}
        self._ended: list[Finished] = []
        self._paused: collections.deque[Link] = collections.deque()
        self._woken = threading.Event()
        self._heard_at = time.monotonic()
        # Half as many folders as copies at one host: they come on top of those.
        folders = max(1, (caps.per_host or caps.total) // 2)
        self._ahead = ClaimedAhead(self._schedule, caps.total, folders, self._prepare, self._prepared, name)
        self._threads = Threads(caps.total + caps.proofs, name)

    # -- what there is ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[Running]:
        """What runs, and what has ended and was not told of."""
        with self._lock:
            return list(self._running.values())

    @property
    def waiting(self) -> int:
        """How many wait, with those that are claimed."""
        with self._lock:
            return self._schedule.waiting

    @property
    def room(self) -> int:
        """How many more may begin."""
        with self._lock:
            return self._schedule.room

    @property
    def claimed(self) -> list[Ahead]:
        """What is claimed before its turn."""
        with self._lock:
            return list(self._ahead.rows.values())

    def next_change(self, now: float) -> float | None:
        """See :meth:`rucio_cs3.agent.scheduling.Schedule.next_change`."""
        with self._lock:
            return self._schedule.next_change(now)

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to claim or to tell of; single ends among many wait for others."""
        self._heard_at = time.monotonic()
        if self._woken.wait(timeout_s):
            self._woken.clear()

    def ended(self) -> list[Finished]:
        """What has ended; told once."""
        with self._lock:
            ended, self._ended = self._ended, []
            for finished in ended:
                del self._running[finished.request_id]
        return ended

    # -- what comes next --------------------------------------------------------------------------------------------

    def offer(self, candidates: Iterable[Candidate]) -> int:
        """Let these wait in place of all that waited but those that are claimed, which are in the queue for nobody.

        :returns: how many wait now.
        """
        with self._lock:
            # What has ended and was not told of may be in the queue again, where its claim has run out.
            others = [candidate for candidate in candidates if candidate.request_id not in self._running]
            return self._schedule.offer([*others, *(ahead.candidate for ahead in self._ahead.rows.values())])

    def start(self, passed_over: Collection[str]) -> tuple[list[Candidate], list[Candidate]]:
        """Begin all that may and is claimed.

        :param passed_over: ids that are not to be claimed before their turn.
        :returns: what may begin and is not claimed, which counts as running until :meth:`start_claimed`; and what else
            to claim now.
        """
        unclaimed: list[Candidate] = []
        with self._lock:
            while len(unclaimed) < CHUNK_ROWS // 2 and self._may_begin():
                candidate = self._schedule.next(time.monotonic())
                if candidate is None:
                    break
                if not self._begin(candidate):
                    unclaimed.append(candidate)
            if not self._may_begin():
                return unclaimed, []
            following = self._ahead.wanted(self._running, hungry=bool(unclaimed))
        return unclaimed, [candidate for candidate in following if candidate.request_id not in passed_over]

    def add(self, taken: Iterable[tuple[Candidate, RowClaim]]) -> None:
        """These are claimed."""
        with self._lock:
            for candidate, claim in taken:
                self._ahead.add(candidate, claim)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Let these wait no more: they are somebody else's, or gone."""
        with self._lock:
            self._schedule.forget(request_ids)

    def start_claimed(self, unclaimed: Iterable[Candidate]) -> None:
        """Begin what :meth:`start` gave and was claimed since; have the folders of the others ready."""
        with self._lock:
            for candidate in unclaimed:
                if not self._begin(candidate):
                    # Gone, or another agent was faster; or the database failed, and the next look finds it again.
                    self._schedule.ended(candidate.request_id)
            self._ahead.prepare()

    def unwanted(self, *, overdue: bool) -> list[RowClaim]:
        """What is claimed, and whose turn does not come soon; it is no longer in here.

        :param overdue: also what has waited for too long.
        """
        with self._lock:
            ids = set(self._ahead.overdue() if overdue else ())
            while self._paused:
                ids.update(self._ahead.of_link(self._paused.popleft()))
            return [self._ahead.rows.pop(request_id).claim for request_id in ids]

    def withdraw(self) -> list[RowClaim]:
        """Let nothing wait any more; gives what was claimed."""
        with self._lock:
            self._schedule.withdraw()
            rows = [ahead.claim for ahead in self._ahead.rows.values()]
            self._ahead.rows.clear()
        return rows

    def submit(self, task: Callable[[], object]) -> None:
        """Do something else in one of the threads; it must not raise."""
        self._threads.submit(task)

    def close(self, timeout_s: float, folders_timeout_s: float) -> bool:
        """Let the threads end.

        :returns: whether those of the transfers have, within ``timeout_s``.
        """
        ended = self._threads.close(timeout_s)
        self._ahead.close(folders_timeout_s)
        return ended

    # -- with the lock ----------------------------------------------------------------------------------------------

    def _begin(self, candidate: Candidate) -> bool:
        """Hand a claimed one to a thread; False where it is not claimed."""
        ahead = self._ahead.rows.pop(candidate.request_id, None)
        if ahead is None:
            return False
        ahead.claim.begin()
        proves = functools.partial(self._proves, candidate.request_id, ahead.claim.row["bytes"] or 0)
        # What was found long ago, as behind large files with ``--run-once``, is found anew.
        hop = None if ahead.is_overdue else ahead.hop
        running = self._running[candidate.request_id] = Running(ahead.claim, candidate.link, proves, hop)
        self._threads.submit(functools.partial(self._perform, running))
        return True

    def _begin_claimed(self) -> None:
        """Begin what comes next, as far as it is claimed; the dispatching thread claims more."""
        while self._may_follow() and (candidate := self._schedule.next(time.monotonic(), self._ahead.rows)):
            self._begin(candidate)
        if self._schedule.room > 0 or self._ahead.is_low:
            self._woken.set()

    def _may_follow(self) -> bool:
        # While the dispatching thread hangs, as in a statement, nobody renews claims.
        return time.monotonic() - self._heard_at < AHEAD_S and self._may_begin()

    def _pause(self, link: Link, pause_s: float) -> None:
        """Begin nothing on a link for a while; see :meth:`unwanted`."""
        self._schedule.pause(link, time.monotonic() + min(pause_s, _LONGEST_PAUSE_S))
        self._paused.append(link)
        self._woken.set()

    # -- in other threads -------------------------------------------------------------------------------------------

    def _perform(self, running: Running) -> None:
        """One transfer."""
        finished = self._perform_one(running)
        outcome = finished.outcome
        with self._lock:
            self._schedule.ended(finished.request_id)
            if outcome.state is State.POSTPONED:
                # Before another one begins.
                self._pause(running.link, _PAUSE_S if outcome.retry_after_s is None else outcome.retry_after_s)
            else:
                self._ahead.took(running.seconds)
            self._ended.append(finished)
            self._begin_claimed()
            if not self._schedule.running:
                self._woken.set()

    def _proves(self, request_id: str, size_bytes: int, begins: bool) -> None:
        """A transfer is at its proof now, or, where not ``begins``, copies again."""
        if size_bytes > _PROVEN_BESIDE_BYTES:
            return
        with self._lock:
            if not begins:
                self._schedule.copies_again(request_id)
                return
            self._schedule.proves(request_id)
            self._begin_claimed()
        # The next copy goes before this proof: without a pause this thread keeps Python's lock until it waits itself.
        time.sleep(0)

    def _prepare(self, ahead: Ahead) -> float | None:
        """One folder."""
        if not self._may_begin():
            return None
        ahead.hop, retry_after_s = self._prepare_one(ahead.claim)
        return retry_after_s

    def _prepared(self, told: Prepared) -> None:
        """The same thread is through with it."""
        with self._lock:
            self._ahead.prepared(told)
            if told.retry_after_s is not None:
                self._pause(told.link, told.retry_after_s)
            self._ahead.prepare()
