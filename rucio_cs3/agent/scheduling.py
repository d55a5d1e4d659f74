"""Which hop goes next: what waits, what runs, and the caps on it. Pure: no clock, no threads, no I/O.

:mod:`rucio_cs3.agent.dispatcher` asks before it claims anything, so no thread ever waits for a cap, and a host that is
busy or has asked for a pause holds up no other.

The order is FTS': priority 5 before 1, then the oldest. It holds among the hops that may run at that moment: a hop of
lower priority to an idle host goes before an urgent one to a busy host.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


class Link(NamedTuple):
    """From one host to another; ``host:port`` each. They may be one and the same."""

    source: str
    destination: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A hop that waits.

    :param priority: Rucio's, 1 to 5; 5 goes first.
    :param since: for how long it has waited; the older goes first.
    """

    request_id: str
    link: Link
    priority: int
    since: datetime

    @property
    def order(self) -> tuple[int, datetime, str]:
        """The smaller goes first; never equal for two requests."""
        return (-self.priority, self.since, self.request_id)


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Most transfers at the same time; all at least 1.

    :param total: of this agent.
    :param per_host: with a host at either end; None is no cap.
    :param per_link: from one host to another; None is no cap.
    """

    total: int
    per_host: int | None = None
    per_link: int | None = None


@dataclass
class Schedule:
    """Not safe for threads: one thread owns it."""

    caps: Caps
    _waiting: dict[Link, list[Candidate]] = field(default_factory=dict)
    _running: dict[str, Link] = field(default_factory=dict)
    _per_host: Counter[str] = field(default_factory=Counter)
    _per_link: Counter[Link] = field(default_factory=Counter)
    _paused: dict[Link, float] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def room(self) -> int:
        """How many more may run."""
        return self.caps.total - len(self._running)

    def offer(self, candidates: Iterable[Candidate]) -> int:
        """Let these wait in place of all that waited; one that runs already is passed over.

        What waits here is a copy of a part of the queue, so what is left out of it is not lost.

        :returns: how many wait now.
        """
        by_id = {candidate.request_id: candidate for candidate in candidates}
        self._waiting = {}
        # The best of each link is at the end of its list, from where it is taken.
        for candidate in sorted(by_id.values(), key=lambda candidate: candidate.order, reverse=True):
            if candidate.request_id not in self._running:
                self._waiting.setdefault(candidate.link, []).append(candidate)
        return self.waiting

    def withdraw(self) -> None:
        """Let nothing wait any more."""
        self._waiting = {}

    def next(self, now: float) -> Candidate | None:
        """Take the best hop that may run, and count it as running until :meth:`ended`; None where there is none.

        :param now: of the clock that :meth:`pause` goes by.
        """
        best: Candidate | None = None
        if self.room > 0:
            for link, candidates in self._waiting.items():
                if (best is None or candidates[-1].order < best.order) and self._may_run(link, now):
                    best = candidates[-1]
        if best is None:
            return None
        candidates = self._waiting[best.link]
        candidates.pop()
        if not candidates:
            del self._waiting[best.link]
        self._running[best.request_id] = best.link
        self._per_link[best.link] += 1
        self._per_host.update(set(best.link))
        return best

    def ahead(self, number: int, now: float) -> list[Candidate]:
        """The best that wait, whether or not there is room for them yet; best first, and none of a paused link."""
        best: list[Candidate] = []
        for link, candidates in self._waiting.items():
            if not self._is_paused(link, now):
                best += candidates[-number:]
        return heapq.nsmallest(number, best, key=lambda candidate: candidate.order)

    def ended(self, request_id: str) -> None:
        """One that ran runs no more; what is not running is passed over."""
        link = self._running.pop(request_id, None)
        if link is None:
            return
        self._per_link[link] -= 1
        if not self._per_link[link]:
            del self._per_link[link]
        for host in set(link):
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    def pause(self, link: Link, until: float) -> None:
        """Start nothing on a link before ``until``; a shorter pause than one that is on changes nothing."""
        self._paused[link] = max(until, self._paused.get(link, until))

    def next_change(self, now: float) -> float | None:
        """When a pause ends that holds up something that waits; None where no pause does."""
        ends = [until for link, until in self._paused.items() if until > now and link in self._waiting]
        return min(ends, default=None)

    def _may_run(self, link: Link, now: float) -> bool:
        if self._is_paused(link, now):
            return False
        if self.caps.per_link is not None and self._per_link[link] >= self.caps.per_link:
            return False
        per_host = self.caps.per_host
        return per_host is None or all(self._per_host[host] < per_host for host in link)

    def _is_paused(self, link: Link, now: float) -> bool:
        until = self._paused.get(link)
        if until is not None and now >= until:
            del self._paused[link]
        return link in self._paused
