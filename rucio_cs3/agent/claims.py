"""Rows of Rucio's ``requests`` as the right to work on them: taken, kept, given back and lost in the database.

A claim is a lease in the row's column ``estimated_transferred_at``: until then its agent expects to be done or to
have renewed it. Nothing else in Rucio (38 to 41) writes that column, and it means what it says. A row whose lease
is over had an agent that died, and anybody may take it; leases only grow, so the value itself tells whose it is.

Rucio's own mark (``last_processed_by`` and ``last_processed_at`` of ``get_and_mark_next``) cannot serve as one: the
poller writes it to the same rows, it is made with local time and compared with UTC (Rucio 41.5.1
core/request.py:821 and 912), and it cannot be renewed.

:func:`take` and :func:`keep` change many rows in one transaction, in a handful of statements. The clocks of all
agents' machines must agree to within a fraction of the lease, as NTP does.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rucio.db.sqla import models
from rucio.db.sqla.constants import ReplicaState, RequestState
from sqlalchemy import BindParameter, bindparam, or_, select, update

from rucio_cs3 import progress
from rucio_cs3.agent.database import CHUNK_ROWS, FAILURES, first_line, lock_rows, reading, utc_now, writing
from rucio_cs3.cs3 import errors
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.jobs import ClaimLost, RequestGone, Stopping

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_log = logging.getLogger(__name__)

#: How long a row stays with an agent that has died. Long against a database that is away for a moment, short
#: against the patience of people.
LEASE = datetime.timedelta(minutes=10)

#: How long one stays that was claimed before its turn, and at most as long as another: it goes back to the queue or
#: begins within seconds, and is renewed some seconds after that (:mod:`rucio_cs3.agent.ahead`).
AHEAD_LEASE = datetime.timedelta(minutes=1)

#: The longest lease that an agent may be given, and how far its clock may be ahead. A row whose lease ends later than
#: that was claimed by a clock that is plainly wrong, and is free.
LONGEST_LEASE = datetime.timedelta(hours=1)
_CLOCK_ERROR = datetime.timedelta(minutes=10)

#: A replica in one of these states is in the making or known to be no good: a wrong file under its name is what an
#: attempt left. In all others Rucio takes the file for good, or is about to delete it itself.
_NOT_GOOD = frozenset({ReplicaState.COPYING, ReplicaState.UNAVAILABLE, ReplicaState.BAD})

#: Earlier values of a lease that are still taken for ours; see :meth:`RowClaim.renewing`.
_VALUES_KEPT = 4

#: Pause before the database is asked again, in seconds.
_ASK_AGAIN_S = 1.0

# Made once: SQLAlchemy's look at a new statement costs more than the statement.
_table = models.Request.__table__
_ids: BindParameter[Any] = bindparam("ids", expanding=True)
_FREE = (
    select(_table)
    .where(
        _table.c.id.in_(_ids),
        _table.c.state == RequestState.SUBMITTED,
        or_(
            _table.c.estimated_transferred_at.is_(None),
            _table.c.estimated_transferred_at < bindparam("now"),
            _table.c.estimated_transferred_at > bindparam("latest"),
        ),
    )
    .with_for_update(skip_locked=True)
)
_TAKE = (
    update(_table)
    .where(_table.c.id.in_(_ids))
    .values(estimated_transferred_at=bindparam("until"), started_at=bindparam("now"), updated_at=bindparam("now"))
)
_TAKE_AHEAD = (
    update(_table)
    .where(_table.c.id.in_(_ids))
    .values(estimated_transferred_at=bindparam("until"), started_at=None, updated_at=bindparam("now"))
)
_SOURCES = select(models.Source.__table__).where(models.Source.__table__.c.request_id.in_(_ids))
_KEEP = (
    update(_table)
    .where(_table.c.id == bindparam("request_id"))
    .values(
        estimated_transferred_at=bindparam("until"),
        started_at=bindparam("started"),
        attributes=bindparam("attributes"),
        updated_at=bindparam("now"),
    )
)


def latest_lease(now: datetime.datetime) -> datetime.datetime:
    """The latest end that a lease can have which was taken by a clock that is about right."""
    return now + LONGEST_LEASE + _CLOCK_ERROR


def never() -> bool:
    """For a claim whose agent does not stop."""
    return False


def take(
    ids: Collection[str],
    lease: datetime.timedelta = LEASE,
    stopping: Callable[[], bool] = never,
    *,
    ahead: Collection[str] = (),
) -> list[RowClaim]:
    """Claim rows, and note that their transfers start now; in one transaction.

    :param ids: at most :data:`~rucio_cs3.agent.database.CHUNK_ROWS`.
    :param lease: at least two seconds.
    :param stopping: see :class:`RowClaim`.
    :param ahead: those of them that do not start now; :meth:`RowClaim.begin` says when.
    :returns: those that were free: not cancelled, not another agent's, not locked by anybody.
    """
    now = utc_now()
    until, until_ahead = _whole(now + lease), _whole(now + min(lease, AHEAD_LEASE))
    with writing() as session:
        connection = session.connection()
        found = connection.execute(_FREE, {"ids": list(ids), "now": now, "latest": latest_lease(now)}).mappings()
        rows: dict[str, dict[str, Any]] = {row["id"]: {**row, "sources": []} for row in found}
        if not rows:
            return []
        later = frozenset(ahead) & rows.keys()
        if at_once := rows.keys() - later:
            connection.execute(_TAKE, {"ids": list(at_once), "until": until, "now": now})
        if later:
            connection.execute(_TAKE_AHEAD, {"ids": list(later), "until": until_ahead, "now": now})
        for source in connection.execute(_SOURCES, {"ids": list(rows)}).mappings():
            rows[source["request_id"]]["sources"].append(dict(source))
    return [
        RowClaim(
            row,
            until=until_ahead if request_id in later else until,
            started_at=None if request_id in later else now,
            lease=lease,
            stopping=stopping,
        )
        for request_id, row in rows.items()
    ]


def keep(held: Sequence[tuple[RowClaim, Progress | None]]) -> None:
    """Renew leases and write down starts and progress, in one transaction for at most 500 rows; find out which claims
    are lost.

    A row that somebody else has locked is left as it is.

    :param held: with None the row's progress stays as it is.
    """
    for start in range(0, len(held), CHUNK_ROWS):
        _keep(held[start : start + CHUNK_ROWS])


def _keep(held: Sequence[tuple[RowClaim, Progress | None]]) -> None:
    now = utc_now()
    losses: dict[RowClaim, type[errors.Cancelled]] = {}
    changes = []
    with writing() as session:
        locked = lock_rows(session, [claim.request_id for claim, _ in held])
        for claim, done in held:
            row = locked.rows.get(claim.request_id)
            loss = None if claim.request_id in locked.busy else claim.loss_by(row)
            if loss is not None:
                losses[claim] = loss
            elif row is not None:
                attributes = row["attributes"]
                if done is not None:
                    # None where there is no room for it.
                    attributes = progress.written(attributes, done) or attributes
                changes.append(
                    {
                        "request_id": claim.request_id,
                        "until": claim.renewing(now),
                        "started": claim.started_at,
                        "attributes": attributes,
                        "now": now,
                    }
                )
        if changes:
            session.connection().execute(_KEEP, changes)
    for claim, loss in losses.items():
        claim.lose(loss)
    kept = {change["request_id"] for change in changes}
    for claim, _ in held:
        if claim.request_id in kept:
            claim.renewed()


class RowClaim:
    """One agent's claim of one row; :class:`rucio_cs3.transfers.jobs.Claim` for a transfer. Made by :func:`take`.

    :param row: all columns as they were before the claim, and ``sources``, which is what Rucio's ``get_sources`` gives.
    :param until: end of the lease.
    :param started_at: None for what was claimed before its turn.
    :param stopping: whether the agent cannot wait for running transfers any longer.
    :ivar started_at: when this attempt's transfer began, UTC; None before that.
    :ivar path: of the file at a non-deterministic RSE, where two files might be given the same; None elsewhere.
    """

    def __init__(
        self,
        row: Mapping[str, Any],
        *,
        until: datetime.datetime,
        started_at: datetime.datetime | None,
        lease: datetime.timedelta,
        stopping: Callable[[], bool] = never,
    ) -> None:
        self.row = row
        self.request_id: str = row["id"]
        self.started_at = started_at
        self._start_is_written = started_at is not None
        self.path: str | None = None
        self._lease = lease
        self._stopping = stopping
        self._loss: type[errors.Cancelled] | None = None
        self._until = until
        # The last values that the row had or may have by this claim: where the answer to a commit is lost, it has one
        # of two; and a transfer's thread may have read the row just before another thread renewed the lease.
        self._values: tuple[datetime.datetime, ...] = (until,)

    # -- what a transfer asks -------------------------------------------------------------------------------

    def check(self) -> None:
        """As of the last renewal; see :class:`rucio_cs3.transfers.jobs.Claim`."""
        if self._loss is RequestGone:
            raise RequestGone("the request was cancelled in Rucio", operation="Transfer", target=self.request_id)
        if self._loss is ClaimLost:
            raise ClaimLost("another agent has taken the request over", operation="Transfer", target=self.request_id)
        if utc_now() > self._until:
            # Any agent may have it by now. One that was suspended, or cut off from the database alone, must not
            # meet another one at the same file.
            raise ClaimLost("the claim could not be renewed in time", operation="Transfer", target=self.request_id)
        if self._stopping():
            raise Stopping("the agent stops", operation="Transfer", target=self.request_id)

    def confirm(self) -> None:
        """Nothing is asked here for one transfer alone: the report looks at the row, together with those of many others
        and under a lock, and a file that turns out to be nobody's is removed then (:mod:`rucio_cs3.agent.reporting`).
        """
        try:
            self.check()
        except Stopping:
            # The file is there and proven; nothing is left to stop.
            return

    def allow_removal(self) -> None:
        """See :class:`rucio_cs3.transfers.jobs.Claim`. Waits for a database that is away, until the lease is over, and
        for :data:`LEASE` at most: a database that answers others may still refuse this question for good.
        """
        give_up_at = time.monotonic() + LEASE.total_seconds()
        while True:
            try:
                with reading() as session:
                    self._allow_removal(session)
            except FAILURES as exc:
                _log.warning("%s: Rucio's database cannot be asked: %s", self.request_id, first_line(exc))
                if self._stopping() or utc_now() > self._until or time.monotonic() > give_up_at:
                    raise ClaimLost(
                        "Rucio's database cannot be asked", operation="Delete", target=self.request_id
                    ) from None
                time.sleep(_ASK_AGAIN_S)
            else:
                return

    def _allow_removal(self, session: Session) -> None:
        request, replica, row = models.Request, models.RSEFileAssociation, self.row
        own = select(request.state, request.estimated_transferred_at).where(request.id == self.request_id)
        found = session.execute(own).mappings().one_or_none()
        self.lose(self.loss_by(dict(found) if found else None))
        if self._loss is ClaimLost:
            self.check()
        same_file = (request.scope == row["scope"], request.name == row["name"])
        newer = session.execute(
            select(request.id).where(
                *same_file, request.dest_rse_id == row["dest_rse_id"], request.id != self.request_id
            )
        ).first()
        at_destination = replica.rse_id == row["dest_rse_id"]
        this_file = (replica.scope == row["scope"], replica.name == row["name"])
        state = session.execute(select(replica.state).where(at_destination, *this_file)).scalar()
        others = select(replica.name).where(
            at_destination,
            replica.path == self.path,
            or_(replica.scope != row["scope"], replica.name != row["name"]),
        )
        shared = self.path is not None and session.execute(others).first() is not None
        if newer is not None:
            raise RequestGone("a newer request wants the same file", operation="Delete", target=self.request_id)
        if shared or not (state in _NOT_GOOD or (state is None and self._loss is RequestGone)):
            owner = f"in state {state.name}" if state is not None else "missing"
            raise errors.AlreadyExists(
                "another file's replica has the same path at the destination"
                if shared
                else f"a file with other content stands at the destination, and Rucio's replica there is {owner}",
                operation="Delete",
                target=self.request_id,
            )

    # -- what the agent asks and tells ----------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        return self._loss is not None

    @property
    def begun_before(self) -> datetime.datetime | None:
        """A moment by which an earlier agent may have begun it; None where none has.

        Of one that had claimed it before its turn and was killed, nobody knows.
        """
        moment: datetime.datetime | None = self.row["started_at"] or self.row["estimated_transferred_at"]
        return moment

    def begin(self) -> None:
        """Its transfer starts now, unless it has; the row is to be told by :func:`keep`, within :data:`AHEAD_LEASE`."""
        self.started_at = self.started_at or utc_now()

    @property
    def is_due(self) -> bool:
        """Whether a third of the lease is gone, or the row does not show the start yet. Ask more often than that."""
        is_told = self._start_is_written or self.started_at is None
        return not is_told or utc_now() >= self._until - self._term * 2 / 3

    @property
    def _term(self) -> datetime.timedelta:
        return min(self._lease, AHEAD_LEASE) if self.started_at is None else self._lease

    def is_ours(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that was just read carries this claim."""
        return row["estimated_transferred_at"] in self._values

    def loss_by(self, row: Mapping[str, Any] | None) -> type[errors.Cancelled] | None:
        """What a row that was just read says about the claim; None where it still holds.

        A row in another state that carries another lease was finished by another agent: its file is not ours to touch.
        """
        if row is not None and not self.is_ours(row):
            return ClaimLost
        return None if row is not None and row["state"] == RequestState.SUBMITTED else RequestGone

    def lose(self, loss: type[errors.Cancelled] | None) -> None:
        """Let the transfer know, at its next look at the claim. What is lost stays lost."""
        self._loss = self._loss or loss

    def renewing(self, now: datetime.datetime) -> datetime.datetime:
        """The lease's next value, which is about to be written."""
        # Strictly later, so that two leases are never the same value.
        until = max(_whole(now + self._term), self._values[-1] + datetime.timedelta(seconds=1))
        self._values = (*self._values[-_VALUES_KEPT:], until)
        return until

    def renewed(self) -> None:
        """It was written."""
        self._until = self._values[-1]
        self._start_is_written = self.started_at is not None


def _whole(moment: datetime.datetime) -> datetime.datetime:
    # The value of a lease is compared with what the database gives back, and MySQL and Oracle keep whole seconds.
    return moment.replace(microsecond=0)
