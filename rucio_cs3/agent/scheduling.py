"""Which hop goes next: what waits, what runs, and the caps on it. Pure: no clock, no threads, no I/O.

:mod:`rucio_cs3.agent.underway` asks before anything is claimed or begun, so no thread ever waits for a cap, and a host
that is busy or has asked for a pause holds up no other.

The order is FTS': priority 5 before 1, then the oldest. It holds among the hops that may run at that moment: a hop of
lower priority to an idle host goes before an urgent one to a busy host.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

#: So many proofs for each copy. A proof and the name take four round trips and a copy three: with twice as many proofs
#: as copies, a copy would now and then wait for the end of a proof.
PROOFS = 3


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
    """Most copies at the same time; all at least 1, but for ``proofs``.

    :param total: of this agent.
    :param per_host: with a host at either end; None is no cap.
    :param per_link: from one host to another; None is no cap.
    :param proofs: so many transfers beside those may be at their proofs; of each host and link
        :data:`PROOFS` for each copy.
    """

    total: int
    per_host: int | None = None
    per_link: int | None = None
    proofs: int = 0


@dataclass
class _Load:
    """How many there are now, of one kind."""

    links: dict[str, Link] = field(default_factory=dict)
    per_host: Counter[str] = field(default_factory=Counter)
    per_link: Counter[Link] = field(default_factory=Counter)

    def add(self, request_id: str, link: Link) -> None:
        self.links[request_id] = link
        self.per_link[link] += 1
        self.per_host.update(set(link))

    def remove(self, request_id: str) -> Link | None:
        """None where it is not among them."""
        link = self.links.pop(request_id, None)
        if link is None:
            return None
        self.per_link[link] -= 1
        if not self.per_link[link]:
            del self.per_link[link]
        for host in set(link):
            self.per_host[host] -= 1
            if not self.per_host[host]:
                del self.per_host[host]
        return link


@dataclass
class Schedule:
    """Not safe for threads: who calls has the lock of its owner."""

    caps: Caps
    _waiting: dict[Link, list[Candidate]] = field(default_factory=dict)
    _copies: _Load = field(default_factory=_Load)
    _proofs: _Load = field(default_factory=_Load)
    _paused: dict[Link, float] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._copies.links) + len(self._proofs.links)

    @property
    def room(self) -> int:
        """How many more may begin."""
        return min(self.caps.total - len(self._copies.links), self.caps.total + self.caps.proofs - self.running)

    def offer(self, candidates: Iterable[Candidate]) -> int:
        """Let these wait in place of all that waited; one that runs already is passed over.

        What waits here is a copy of a part of the queue, so what is left out of it is not lost.

        :returns: how many wait now.
        """
        by_id = {candidate.request_id: candidate for candidate in candidates}
        self._waiting = {}
        # The best of each link is at the end of its list, from where it is taken.
        for candidate in sorted(by_id.values(), key=lambda candidate: candidate.order, reverse=True):
            if candidate.request_id not in self._copies.links and candidate.request_id not in self._proofs.links:
                self._waiting.setdefault(candidate.link, []).append(candidate)
        return self.waiting

    def withdraw(self) -> None:
        """Let nothing wait any more."""
        self._waiting = {}

    def forget(self, request_ids: Iterable[str]) -> None:
        """Let these wait no more: they are somebody else's, or gone."""
        gone = frozenset(request_ids)
        kept = ((link, [one for one in ones if one.request_id not in gone]) for link, ones in self._waiting.items())
        self._waiting = {link: ones for link, ones in kept if ones}

    def next(self, now: float, among: Container[str] | None = None) -> Candidate | None:
        """Take the best hop that may run, and count it as running until :meth:`ended`; None where there is none.

        :param now: of the clock that :meth:`pause` goes by.
        :param among: ids; where the best is none of them, none is taken. All are good without this.
        """
        best: Candidate | None = None
        if self.room > 0:
            for link, candidates in self._waiting.items():
                if (best is None or candidates[-1].order < best.order) and self._may_run(link, now):
                    best = candidates[-1]
        if best is None or (among is not None and best.request_id not in among):
            return None
        candidates = self._waiting[best.link]
        candidates.pop()
        if not candidates:
            del self._waiting[best.link]
        self._copies.add(best.request_id, best.link)
        return best

    def ahead(self, each: int, most: int, now: float, *, slow: Iterable[str] = ()) -> list[Candidate]:
        """The best that wait, whether or not there is room for them yet: those whose turn comes next if all that run
        end soon. Best first, and none of a paused link.

        :param each: how many for each copy that may run at the same time: of this agent, and of each host and link
            that has a cap.
        :param most: how many in all.
        :param slow: copies that do not end soon, so that nothing follows them.
        """
        caps, stuck, taken = self.caps, _Load(), _Load()
        for request_id in slow:
            if (link := self._copies.links.get(request_id)) is not None:
                stuck.add(request_id, link)
        most = min(most, each * (caps.total - len(stuck.links)))

        def room(link: Link) -> int:
            """How many more of this link."""
            left = [most]
            if caps.per_link is not None:
                left.append(each * (caps.per_link - stuck.per_link[link]) - taken.per_link[link])
            if caps.per_host is not None:
                left += [each * (caps.per_host - stuck.per_host[host]) - taken.per_host[host] for host in link]
            return max(0, min(left))

        found: list[Candidate] = []
        # The best of each link, which are at its end.
        best = [
            reversed(candidates[-number:])
            for link, candidates in self._waiting.items()
            if not self._is_paused(link, now) and (number := room(link))
        ]
        for candidate in heapq.merge(*best, key=lambda candidate: candidate.order):
            if len(taken.links) >= most:
                break
            if room(candidate.link):
                taken.add(candidate.request_id, candidate.link)
                found.append(candidate)
        return found

    def proves(self, request_id: str) -> None:
        """One that runs has copied, and only its proof is left: it makes room for another copy."""
        link = self._copies.remove(request_id)
        if link is not None:
            self._proofs.add(request_id, link)

    def copies_again(self, request_id: str) -> None:
        """It was not proven, and is copied once more: until others have ended, there may be more than the caps say."""
        link = self._proofs.remove(request_id)
        if link is not None:
            self._copies.add(request_id, link)

    def ended(self, request_id: str) -> None:
        """One that ran runs no more; what is not running is passed over."""
        if self._copies.remove(request_id) is None:
            self._proofs.remove(request_id)

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
        caps, copies, proofs = self.caps, self._copies, self._proofs
        if not _has_room(caps.per_link, copies.per_link[link], proofs.per_link[link], caps.proofs):
            return False
        return all(_has_room(caps.per_host, copies.per_host[host], proofs.per_host[host], caps.proofs) for host in link)

    def _is_paused(self, link: Link, now: float) -> bool:
        until = self._paused.get(link)
        if until is not None and now >= until:
            del self._paused[link]
        return link in self._paused


def _has_room(cap: int | None, copies: int, proofs: int, most_proofs: int) -> bool:
    """Whether one more copy is within a cap of a host or link."""
    return cap is None or (copies < cap and copies + proofs < cap + min(PROOFS * cap, most_proofs))
