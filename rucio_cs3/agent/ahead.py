"""What is claimed before its turn, where transfers are short: how much, for how long, and the folders for it.

A transaction that claims many costs hardly more than one for a single row. What does not start within
:data:`AHEAD_S` goes back to the queue, so that no other agent waits for it; :mod:`rucio_cs3.agent.dispatcher` claims
and gives back. While rows wait here, threads of their own have their folders ready
(:func:`rucio_cs3.agent.execution.prepare`).
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rucio_cs3.agent.claims import RowClaim
from rucio_cs3.agent.database import CHUNK_ROWS
from rucio_cs3.agent.execution import Running, Threads
from rucio_cs3.agent.hops import Hop
from rucio_cs3.agent.scheduling import Candidate, Link, Schedule

#: So many short transfers at most are claimed ahead for each thread, and go back to the queue where they have not
#: started after ``AHEAD_S``, in seconds; of longer ones only what has its turn in half of that. More are claimed when
#: a half is left, so that no thread waits for a transaction.
_AHEAD_PER_THREAD = 8
AHEAD_S = 5.0

#: Weight of the latest transfer in the average.
_LATEST = 0.1


@dataclass
class Ahead:
    """What was claimed before its turn, at ``since`` by the monotonic clock.

    :ivar prepared: whether a thread was asked to have its folder ready.
    :ivar hop: once that thread has found its ends.
    """

    candidate: Candidate
    claim: RowClaim
    since: float = field(default_factory=time.monotonic)
    prepared: bool = False
    hop: Hop | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether its turn should have come by now."""
        return time.monotonic() - self.since > AHEAD_S


@dataclass(frozen=True)
class Prepared:
    """A thread has had a folder made, or not.

    :param retry_after_s: for how long a site asked to be left alone, in seconds.
    """

    link: Link
    retry_after_s: float | None


class ClaimedAhead:
    """Not safe for threads: who calls has the lock of :mod:`.underway`. What is in here still waits in the schedule.

    :param threads: copies at the same time.
    :param per_host: folders that are made at one host at the same time; one that hangs must not have all threads.
    :param make_folder: for a row; gives ``retry_after_s``, and raises nothing. In a thread of its own, without
        the lock.
    :param told: gets a :class:`Prepared` for each; likewise.
    """

    def __init__(
        self,
        schedule: Schedule,
        threads: int,
        per_host: int,
        make_folder: Callable[[Ahead], float | None],
        told: Callable[[Prepared], object],
        name: str,
    ) -> None:
        self.rows: dict[str, Ahead] = {}
        self._schedule = schedule
        self._per_host = per_host
        self._make_folder = make_folder
        self._told = told
        self._average_s = float("inf")
        # How many were wanted when it was last looked.
        self._enough = 0
        self._preparing: Counter[str] = Counter()
        # Of their own: no transfer is to wait behind them.
        self._preparers = Threads(threads, f"{name} folders")

    def took(self, seconds: float) -> None:
        """A transfer ended after so long."""
        first = self._average_s == float("inf")
        self._average_s = seconds if first else _LATEST * seconds + (1 - _LATEST) * self._average_s

    def wanted(self, running: Mapping[str, Running], *, hungry: bool) -> list[Candidate]:
        """What to claim ahead of its turn.

        :param running: what runs, by id. Nothing follows what runs for long, however short others are.
        :param hungry: whether the database is asked anyway.
        """
        each = min(_AHEAD_PER_THREAD, int(AHEAD_S / 2 / max(self._average_s, 0.001)))
        if not each or not (hungry or self.is_low):
            return []
        slow = [request_id for request_id, one in running.items() if one.seconds > AHEAD_S / 2]
        best = self._schedule.ahead(each, CHUNK_ROWS // 2, time.monotonic(), slow=slow)
        self._enough = len(best)
        return [candidate for candidate in best if candidate.request_id not in self.rows]

    @property
    def is_low(self) -> bool:
        """Whether half of what was wanted is used up."""
        return len(self.rows) <= self._enough / 2

    def add(self, candidate: Candidate, claim: RowClaim) -> None:
        self.rows[claim.request_id] = Ahead(candidate, claim)

    def overdue(self) -> list[str]:
        """Those whose turn did not come in time."""
        return [request_id for request_id, ahead in self.rows.items() if ahead.is_overdue]

    def of_link(self, link: Link) -> list[str]:
        return [request_id for request_id, ahead in self.rows.items() if ahead.candidate.link == link]

    def prepare(self) -> None:
        """Have folders made for those that wait here, as many at a time as may be."""
        for ahead in self.rows.values():
            host = ahead.candidate.link.destination
            if not ahead.prepared and self._preparing[host] < self._per_host:
                ahead.prepared = True
                self._preparing[host] += 1
                self._preparers.submit(functools.partial(self._prepare, ahead))

    def prepared(self, told: Prepared) -> None:
        """One is through, and makes room for another."""
        self._preparing[told.link.destination] -= 1

    def close(self, timeout_s: float) -> None:
        self._preparers.close(timeout_s)

    def _prepare(self, ahead: Ahead) -> None:
        """In a thread of its own."""
        wanted = ahead.claim.request_id in self.rows
        self._told(Prepared(ahead.candidate.link, self._make_folder(ahead) if wanted else None))
