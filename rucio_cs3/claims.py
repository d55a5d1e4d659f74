"""A row of Rucio's ``requests`` as the right to work on it: taken, renewed, checked and lost in the database.

A claim is a lease in the row's column ``estimated_transferred_at``: until then its agent expects to be done or to
have renewed it. Nothing else in Rucio (38 to 41) writes that column, and it means what it says. A row whose lease
is over had an agent that died, and anybody may take it; leases only grow, so the value itself tells whose it is.

Rucio's own mark (``last_processed_by`` and ``last_processed_at`` of ``get_and_mark_next``) cannot serve as one: the
poller writes it to the same rows, it is made with local time and compared with UTC (Rucio 41.5.1
core/request.py:821 and 912), and it cannot be renewed.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from typing import Any

from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, ReplicaState, RequestState
from rucio.db.sqla.session import db_session
from sqlalchemy import or_, select, update

from rucio_cs3.cs3 import errors
from rucio_cs3.transfers import ClaimLost, RequestGone

#: How long a row stays with an agent that has died. Long against a database that is away for a moment, short
#: against the patience of people.
LEASE = datetime.timedelta(minutes=10)

#: A replica in one of these states is in the making or known to be no good: a wrong file under its name is what an
#: attempt left. In all others Rucio takes the file for good, or is about to delete it itself.
_NOT_GOOD = frozenset({ReplicaState.COPYING, ReplicaState.UNAVAILABLE, ReplicaState.BAD})


def utc_now() -> datetime.datetime:
    """Now, as Rucio stores it: UTC without a time zone."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def _whole(moment: datetime.datetime) -> datetime.datetime:
    # The value of a lease is compared with what the database gives back, and MySQL and Oracle keep whole seconds.
    return moment.replace(microsecond=0)


def is_claimed(row: Mapping[str, Any]) -> bool:
    """Whether some agent, this one included, is at work on a row that was just read."""
    until = row["estimated_transferred_at"]
    return until is not None and until >= utc_now()


def take(row: Mapping[str, Any], lease: datetime.timedelta = LEASE) -> RowClaim | None:
    """Claim a row and note that its transfer starts now, in one statement.

    :param row: as ``get_and_mark_next`` gives it.
    :param lease: at least two seconds.
    :returns: None where another agent was faster, or the request is gone.
    """
    now = utc_now()
    until = _whole(now + lease)
    statement = (
        update(models.Request)
        .where(
            models.Request.id == row["id"],
            models.Request.state == RequestState.SUBMITTED,
            models.Request.external_id == row["external_id"],
            or_(
                models.Request.estimated_transferred_at.is_(None),
                models.Request.estimated_transferred_at < now,
            ),
        )
        .values(estimated_transferred_at=until, started_at=now)
        .execution_options(synchronize_session=False)
    )
    with db_session(DatabaseOperationType.WRITE) as session:
        taken = session.execute(statement).rowcount
    return RowClaim(row, lease=lease, until=until, started_at=now) if taken else None


class RowClaim:
    """One agent's claim of one row; :class:`rucio_cs3.transfers.Claim` for a transfer. Made by :func:`take`.

    :ivar started_at: UTC, of this attempt.
    :ivar path: of the file at a non-deterministic RSE, where two files might be given the same; None elsewhere.
    :ivar lock: hold it while reporting, so that the lease does not change under the report.
    """

    def __init__(
        self,
        row: Mapping[str, Any],
        *,
        lease: datetime.timedelta,
        until: datetime.datetime,
        started_at: datetime.datetime,
    ) -> None:
        self.request_id: str = row["id"]
        self.started_at = started_at
        self.path: str | None = None
        self.lock = threading.Lock()
        self._scope = row["scope"]
        self._name = row["name"]
        self._rse_id = row["dest_rse_id"]
        self._lease = lease
        self._until = until
        self._loss: type[RequestGone] | type[ClaimLost] | None = None

    def check(self) -> None:
        """As of the last renewal; see :class:`rucio_cs3.transfers.Claim`."""
        if self._loss is RequestGone:
            raise RequestGone("the request was cancelled in Rucio", operation="Transfer", target=self.request_id)
        if self._loss is ClaimLost:
            raise ClaimLost("another agent has taken the request over", operation="Transfer", target=self.request_id)

    def is_ours(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that was just read still carries this claim."""
        return bool(row["estimated_transferred_at"] == self._until)

    def renew(self) -> None:
        """Prolong the lease when a third of it is gone, and find out whether the claim was lost.

        Call it more often than every third of the lease. Does nothing while a report is under way.
        """
        if self._loss is not None or utc_now() < self._until - self._lease * 2 / 3:
            return
        if not self.lock.acquire(blocking=False):
            return
        try:
            # Strictly later, so that two leases are never the same value.
            until = max(_whole(utc_now() + self._lease), self._until + datetime.timedelta(seconds=1))
            statement = (
                update(models.Request)
                .where(
                    models.Request.id == self.request_id,
                    models.Request.state == RequestState.SUBMITTED,
                    models.Request.estimated_transferred_at == self._until,
                )
                .values(estimated_transferred_at=until)
                .execution_options(synchronize_session=False)
            )
            with db_session(DatabaseOperationType.WRITE) as session:
                if session.execute(statement).rowcount:
                    self._until = until
                else:
                    self._loss = self._look(session)
        finally:
            self.lock.release()

    def confirm(self) -> None:
        """See :class:`rucio_cs3.transfers.Claim`."""
        with self.lock, db_session(DatabaseOperationType.READ) as session:
            self._loss = self._loss or self._look(session)
        self.check()

    def allow_removal(self) -> None:
        """See :class:`rucio_cs3.transfers.Claim`."""
        request, replica = models.Request, models.RSEFileAssociation
        same_file = (replica.rse_id == self._rse_id, replica.scope == self._scope, replica.name == self._name)
        with self.lock, db_session(DatabaseOperationType.READ) as session:
            self._loss = self._loss or self._look(session)
            if self._loss is ClaimLost:
                self.check()
            newer = session.execute(
                select(request.id).where(
                    request.scope == self._scope,
                    request.name == self._name,
                    request.dest_rse_id == self._rse_id,
                    request.id != self.request_id,
                )
            ).first()
            state = session.execute(select(replica.state).where(*same_file)).scalar()
            others = select(replica.name).where(
                replica.rse_id == self._rse_id,
                replica.path == self.path,
                or_(replica.scope != self._scope, replica.name != self._name),
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

    def _look(self, session: Any) -> type[RequestGone] | type[ClaimLost] | None:
        row = session.execute(
            select(models.Request.state, models.Request.estimated_transferred_at).where(
                models.Request.id == self.request_id
            )
        ).one_or_none()
        if row is None or row.state != RequestState.SUBMITTED:
            return RequestGone
        return None if row.estimated_transferred_at == self._until else ClaimLost
