"""The agents' queue in Rucio's table ``requests``: looks that cost the same with a thousand and with a million rows.

The queue are the rows in state SUBMITTED with transfertool ``cs3`` that no agent has claimed
(:mod:`rucio_cs3.agent.claims`). Rucio's index on ``(request_type, state, updated_at)`` has them in the order of their
last change, and a look reads a bounded piece of it: from the old end, from the young end, or from anywhere between.
Rucio's own ``get_and_mark_next`` has IN lists where this has equations; the databases then sort the whole queue for
each look (41.5.1 on PostgreSQL 15: 0.01 s for a thousand rows, 2 s for a million; this: as much for a million as for
a thousand; ``benchmarks/ticks.py``).

**What that means for priorities.** :class:`Queue` looks at the oldest :data:`WINDOW` rows, at the youngest
:data:`YOUNG_ROWS`, and, where there are more than that, at one more piece of the middle each time. Among all of these
the order is exact: priority 5 before 1, then the oldest submission. A request is at the young end when it is
submitted, when its priority changes and when it comes back to the queue; so an urgent one is found by the next look,
however many wait. Only one that became young while no agent looked is first seen when the pieces of the middle come
to it, or when it is old.

Rucio's poller moves the rows that it has asked about to the young end, too, which is why more rows are read there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rucio.db.sqla import filter_thread_work, models
from rucio.db.sqla.constants import RequestState, RequestType
from sqlalchemy import ColumnElement, Select, case, func, or_, select

from rucio_cs3.agent.claims import latest_lease
from rucio_cs3.agent.database import utc_now
from rucio_cs3.agent.scheduling import Candidate, Link
from rucio_cs3.policy import TRANSFERTOOL

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Most rows that one piece of the queue yields.
WINDOW = 1000

#: How many it yields to a look that only has to find what goes next; more where these leave threads idle, because
#: their hosts are busy. What a look costs is what it hands out, hardly how many wait.
NARROW = 200

#: Of how many of the youngest the best :data:`WINDOW` are handed out. Rucio's poller moves up to a few hundred rows
#: a second to that end.
YOUNG_ROWS = 10_000

#: The same for a look that follows another: so many for each second since, for there cannot be more new ones, and so
#: many at least. It is this piece that a long queue would make dear (0.005 ms a row), and what most looks read of it
#: costs the same with a thousand rows as with a million.
_YOUNG_ROWS_PER_S = 1000.0
_YOUNG_ROWS_SHORTLY = 1000

#: Beyond that many agents each sees less than :data:`WINDOW` rows of its share at once.
_SHARES_READ = 20

#: Most rows that :func:`count` counts.
COUNT_ROWS = 100_000

#: Rucio's middle priority, for rows without one (Rucio 41.5.1 core/request.py:146).
DEFAULT_PRIORITY = 3

_request = models.Request
_lease = _request.estimated_transferred_at


@dataclass(frozen=True)
class Share:
    """One of the equal parts of the queue, by Rucio's hash of the id; one agent's. SQLite has no hash: all is one."""

    number: int = 0
    of: int = 1


ALL = Share()


@dataclass(frozen=True, kw_only=True)
class Look:
    """
    :param candidates: what may be taken, in no order.
    :param complete: whether that is all of the share, so that another look finds only what is new.
    :param oldest: when the oldest of them was submitted; None for none.
    """

    candidates: Sequence[Candidate]
    complete: bool
    oldest: datetime | None


class Queue:
    """An agent's view of the queue; keeps nothing but how far it has looked into the middle, and when it looked last.

    :param activities: Rucio's; empty for all.
    :param window: see :data:`WINDOW`; at least 1.
    """

    def __init__(self, *, activities: Collection[str] = (), window: int = WINDOW) -> None:
        self._activities = tuple(activities)
        self._window = window
        self._middle: datetime | None = None
        self._looked_at = -float("inf")

    def look(self, session: Session, share: Share = ALL, *, window: int | None = None) -> Look:
        """Read the old end, and where that is not all, the young end and a piece of the middle.

        :param window: most rows of each piece, where fewer than this queue's own will do.
        """
        window = min(window or self._window, self._window)
        rows = self._read(session, share, window)
        complete = not rows or rows[0].piece_rows < _piece_rows(window, share)
        if complete:
            self._middle = None
        else:
            old_end = rows[0].piece_end
            between = self._read(session, share, window, after=max(self._middle or old_end, old_end))
            # From the old end again where the young one is reached.
            self._middle = between[0].piece_end if between else None
            since_s = time.monotonic() - self._looked_at
            young_rows = int(min(YOUNG_ROWS, max(_YOUNG_ROWS_SHORTLY, _YOUNG_ROWS_PER_S * since_s)))
            rows = [*rows, *between, *self._read(session, share, window, young_rows=max(window, young_rows))]
        self._looked_at = time.monotonic()
        candidates = {row.id: _candidate(row) for row in rows}
        return Look(
            candidates=list(candidates.values()),
            complete=complete,
            oldest=min((candidate.since for candidate in candidates.values()), default=None),
        )

    def look_at_left(self, session: Session, patience: timedelta) -> list[Candidate]:
        """What has waited at the old end for longer than ``patience``, whosever share it is in: its agent is busy, or
        dead without Rucio having noticed."""
        submitted_before = utc_now() - patience
        rows = self._read(session, ALL, self._window)
        return [candidate for candidate in map(_candidate, rows) if candidate.since < submitted_before]

    def _read(
        self, session: Session, share: Share, window: int, *, young_rows: int = 0, after: datetime | None = None
    ) -> Sequence[Any]:
        return session.execute(self.statement(session, share, window, young_rows=young_rows, after=after)).all()

    def statement(
        self,
        session: Session,
        share: Share,
        window: int = WINDOW,
        *,
        young_rows: int = 0,
        after: datetime | None = None,
    ) -> Select[Any]:
        """Selects the best of a piece of the queue, and in each row how long the piece is and where it ends.

        :param young_rows: how long a piece at the young end is; 0 for one at the old end, or behind ``after``.

        The share is cut out of the piece, not of the queue: a planner that does not know how many rows a hash leaves
        (PostgreSQL guesses 0.5 %) would otherwise rather sort all rows than go by the index.
        """
        conditions = [*_waiting()]
        if self._activities:
            conditions.append(_request.activity.in_(self._activities))
        if after is not None:
            conditions.append(_request.updated_at > after)
        piece = (
            select(
                _request.id,
                _request.priority,
                _request.submitted_at,
                _request.created_at,
                _request.updated_at,
                _request.source_rse_id,
                _request.dest_url,
            )
            .where(*conditions)
            .order_by(_request.updated_at.desc() if young_rows else _request.updated_at)
            .limit(young_rows or _piece_rows(window, share))
            .subquery()
        )
        measured = select(
            *piece.c,
            func.count().over().label("piece_rows"),
            func.max(piece.c.updated_at).over().label("piece_end"),
        ).subquery()
        best = select(*measured.c).order_by(
            func.coalesce(measured.c.priority, DEFAULT_PRIORITY).desc(), measured.c.updated_at
        )
        best = filter_thread_work(
            session=session, query=best, total_threads=share.of, thread_id=share.number, hash_variable="id"
        )
        chosen = best.limit(window).subquery()
        return select(*chosen.c, _source_url(chosen).label("source_url"))


def _piece_rows(window: int, share: Share) -> int:
    """How many rows to read so that a share of them fills a window."""
    return window * min(share.of, _SHARES_READ)


def count(session: Session) -> int:
    """How many rows wait, :data:`COUNT_ROWS` at most; the costliest look of all (0.02 s for so many)."""
    some = select(_request.id).where(*_waiting()).limit(COUNT_ROWS).subquery()
    return int(session.execute(select(func.count()).select_from(some)).scalar_one())


def _waiting() -> list[ColumnElement[bool]]:
    """The conditions of a row that waits for an agent."""
    now = utc_now()
    return [
        _request.request_type == RequestType.TRANSFER,
        _request.state == RequestState.SUBMITTED,
        _request.transfertool == TRANSFERTOOL,
        or_(_lease.is_(None), _lease < now, _lease > latest_lease(now)),
    ]


def _source_url(row: Any) -> Any:
    """The URL at the source that the submitter chose, or at any other, of a row.

    With the request's id as the only equation, so that no planner without statistics takes the index on RSEs.
    """
    source = models.Source
    chosen = func.max(case((source.rse_id == row.c.source_rse_id, source.url)))
    return (
        select(func.coalesce(chosen, func.max(source.url)))
        .where(source.request_id == row.c.id, source.is_using.is_(True))
        .scalar_subquery()
    )


def _candidate(row: Any) -> Candidate:
    return Candidate(
        request_id=row.id,
        link=Link(_host(row.source_url), _host(row.dest_url)),
        priority=row.priority or DEFAULT_PRIORITY,
        since=row.submitted_at or row.created_at,
    )


def _host(url: str | None) -> str:
    """``host:port`` of a PFN; empty where there is none, which is found out when the hop is opened."""
    return (url or "").partition("://")[2].partition("/")[0].lower()
