"""Transfers as Rucio's database has them; for operators, where Rucio's configuration names a database.

Every look is a handful of statements, each bounded, so that it costs the same with a thousand and with a million
requests: of a stage at most :data:`WINDOW` rows are read, by Rucio's own indices on ``requests``. Its history has no
index on any time or state (Rucio 41.5.1 db/sqla/models.py), so there only the end of the table is read.

Imports of Rucio only what needs no ``rucio.core``: that would open the port of the metrics a second time, where the
configuration asks for them and an agent runs on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, RequestState, RequestType
from rucio.db.sqla.session import db_session
from sqlalchemy import ColumnElement, Select, Subquery, and_, desc, func, inspect, literal_column, or_, select, text
from sqlalchemy.exc import NoSuchTableError

from rucio_cs3 import progress
from rucio_cs3.listing.entries import Count, Listing, Stage, Transfer, UnknownName, Wanted, reason_of

#: Most rows that are looked at for one stage.
WINDOW = 10_000

#: How much of the end of the history is read: rows in SQLite, pages of the table (8 KiB each) in PostgreSQL.
_TAIL_ROWS, _TAIL_PAGES = 20_000, 4096

#: A row that an agent works on was changed within the longest lease; see :mod:`rucio_cs3.agent.claims`.
_LONGEST_LEASE = timedelta(hours=1)

_STATES: Mapping[Stage, tuple[RequestState, ...]] = {
    Stage.RUNNING: (RequestState.SUBMITTED,),
    Stage.WAITING: (RequestState.SUBMITTED,),
    Stage.THROTTLED: (RequestState.WAITING, RequestState.PREPARING, RequestState.SUSPEND),
    Stage.QUEUED: (RequestState.QUEUED, RequestState.SUBMITTING),
    Stage.FAILED: (
        RequestState.FAILED,
        RequestState.LOST,
        RequestState.NO_SOURCES,
        RequestState.ONLY_TAPE_SOURCES,
        RequestState.SUBMISSION_FAILED,
        RequestState.MISMATCH_SCHEME,
    ),
    Stage.DONE: (RequestState.DONE,),
}

_COLUMNS = (
    "id",
    "scope",
    "name",
    "source_rse_id",
    "dest_rse_id",
    "attributes",
    "err_msg",
    "rule_id",
    "activity",
    "account",
    "bytes",
    "priority",
    "retry_count",
    "created_at",
    "updated_at",
    "submitted_at",
    "started_at",
    "transferred_at",
    "estimated_transferred_at",
)


def look(wanted: Wanted) -> Listing:
    """Read what is wanted, as it is now.

    :raises UnknownName: for an RSE that Rucio does not have.
    :raises SQLAlchemyError: when the database cannot be read.
    """
    with db_session(DatabaseOperationType.READ) as session:
        return _Look(session, wanted).listing()


class _Look:
    def __init__(self, session: Any, wanted: Wanted) -> None:
        self._session = session
        self._wanted = wanted
        self._now = datetime.now(timezone.utc).replace(tzinfo=None)
        self._cs3_rses = self._rses_of_this_package()
        self._ids = {name: self._rse_ids(name) for name in (wanted.rse, wanted.source, wanted.destination) if name}

    def listing(self) -> Listing:
        counts: dict[Stage, Count] = {}
        found: list[tuple[Stage, Mapping[str, Any]]] = []
        oldest: datetime | None = None
        rate = 0
        for stage in Stage:
            if stage not in self._wanted.stages:
                continue
            if stage is Stage.RUNNING:
                rows = self._running()
                counts[stage] = Count(number=len(rows), at_least=len(rows) >= WINDOW)
                rate = sum(_transfer(stage, row, {}).rate(self._now) or 0 for row in rows)
            elif stage.is_over:
                rows, counts[stage] = self._over(stage)
            else:
                rows, counts[stage], first = self._not_begun(stage)
                oldest = first if stage is Stage.WAITING else oldest
            found += [(stage, row) for row in rows[: self._wanted.limit]]
        names = self._names(row[key] for _, row in found for key in ("source_rse_id", "dest_rse_id"))
        return Listing(
            at=self._now,
            transfers=[_transfer(stage, row, names) for stage, row in found],
            counts=counts,
            oldest_s=None if oldest is None else max(0.0, (self._now - oldest).total_seconds()),
            rate=rate,
            since=self._wanted.since,
        )

    # -- statements ------------------------------------------------------------------------------------------

    def _running(self) -> list[Mapping[str, Any]]:
        """All of them, the oldest first: there are no more than a few for each of the agents' threads."""
        request = models.Request
        # By updated_at, because the index on it then has them at its end, however many wait.
        statement = self._select(request, Stage.RUNNING).where(
            request.estimated_transferred_at >= self._now,
            # What is claimed before its turn has none.
            request.started_at.is_not(None),
            request.updated_at >= self._now - _LONGEST_LEASE,
        )
        rows = self._session.execute(statement.order_by(desc(request.updated_at)).limit(WINDOW)).mappings().all()
        return sorted(rows, key=lambda row: (row["started_at"] or self._now, row["id"]))

    def _not_begun(self, stage: Stage) -> tuple[list[Mapping[str, Any]], Count, datetime | None]:
        """Rows that no agent works on, how many there are, and when the first of them was submitted."""
        statement = self._select(models.Request, stage)
        if stage is Stage.WAITING:
            request = models.Request
            lease = request.estimated_transferred_at
            statement = statement.where(or_(lease.is_(None), lease < self._now, request.started_at.is_(None)))
        window = statement.limit(WINDOW).subquery()
        # As the agents go: the urgent first, then the old; 3 is what Rucio takes for none (core/request.py:146).
        age = func.coalesce(window.c.submitted_at, window.c.created_at)
        order = (desc(func.coalesce(window.c.priority, 3)), age, window.c.id)
        rows, count = self._first(window, *order, more=(func.min(window.c.submitted_at).over().label("first"),))
        return rows, count, rows[0]["first"] if rows else None

    def _over(self, stage: Stage) -> tuple[list[Mapping[str, Any]], Count]:
        """Rows of a stage that is over, the latest first: of the finisher's table, and of the history."""
        since = self._now - self._wanted.since
        parts = [self._select(models.Request, stage), self._select(models.RequestHistory, stage)]
        tail = self._tail_of_history()
        if tail is not None:
            parts[1] = parts[1].where(tail)
        rows: list[Mapping[str, Any]] = []
        number = 0
        at_least = False
        for table, part in zip((models.Request, models.RequestHistory), parts, strict=True):
            window = part.where(table.updated_at >= since).order_by(desc(table.updated_at)).limit(WINDOW).subquery()
            newest, count = self._first(window, desc(window.c.updated_at))
            rows += newest
            number += count.number
            at_least = at_least or count.at_least
        rows.sort(key=lambda row: row["updated_at"], reverse=True)
        return rows[: self._wanted.limit], Count(number=number, at_least=at_least)

    def _first(
        self, window: Subquery, *order: ColumnElement[Any], more: Iterable[ColumnElement[Any]] = ()
    ) -> tuple[list[Mapping[str, Any]], Count]:
        """As many rows as are wanted, and how many there are; in one statement, so that they are read once."""
        statement = select(window, func.count().over().label("number"), *more).order_by(*order)
        rows = self._session.execute(statement.limit(self._wanted.limit)).mappings().all()
        number = rows[0]["number"] if rows else 0
        return list(rows), Count(number=number, at_least=number >= WINDOW)

    def _select(self, table: Any, stage: Stage) -> Select[Any]:
        wanted = self._wanted
        ours: ColumnElement[bool] = table.transfertool == "cs3"
        if stage not in (Stage.RUNNING, Stage.WAITING, Stage.DONE) and self._cs3_rses:
            # Before the submission most rows have no transfertool yet.
            ours = or_(ours, and_(table.transfertool.is_(None), table.dest_rse_id.in_(self._cs3_rses)))
        statement = select(*(getattr(table, name) for name in _COLUMNS)).where(
            table.request_type == RequestType.TRANSFER, table.state.in_(_STATES[stage]), ours
        )
        if wanted.rse:
            ids = self._ids[wanted.rse]
            statement = statement.where(or_(table.source_rse_id.in_(ids), table.dest_rse_id.in_(ids)))
        if wanted.source:
            statement = statement.where(table.source_rse_id.in_(self._ids[wanted.source]))
        if wanted.destination:
            statement = statement.where(table.dest_rse_id.in_(self._ids[wanted.destination]))
        if wanted.rule_id:
            statement = statement.where(table.rule_id == wanted.rule_id)
        if wanted.activity:
            statement = statement.where(table.activity == wanted.activity)
        return statement

    def _tail_of_history(self) -> ColumnElement[bool] | None:
        """A condition that keeps to the end of the history, to which Rucio only appends; None for all of it.

        Where somebody has made an index on its ``updated_at``, that is better; and in other databases than these
        two there is no cheap way to the end.
        """
        table = models.RequestHistory.__table__
        dialect = self._session.get_bind().dialect.name
        if dialect not in ("sqlite", "postgresql") or self._history_has_index():
            return None
        if dialect == "sqlite":
            last = select(func.max(literal_column("rowid"))).select_from(table).scalar_subquery()
            return literal_column(f"{table.name}.rowid") > last - _TAIL_ROWS
        size = text("SELECT pg_relation_size(CAST(:name AS regclass)) / current_setting('block_size')::bigint")
        pages = self._session.execute(size, {"name": table.fullname}).scalar_one()
        # A constant, because only then PostgreSQL (since 14) goes to the page instead of reading all before it.
        return literal_column(f"{table.name}.ctid") >= literal_column(f"'({max(0, pages - _TAIL_PAGES)},0)'::tid")

    def _history_has_index(self) -> bool:
        table = models.RequestHistory.__table__
        try:
            indices = inspect(self._session.connection()).get_indexes(table.name, schema=table.schema)
        except NoSuchTableError:
            return False
        return any(index["column_names"][:1] == ["updated_at"] for index in indices)

    # -- RSEs ------------------------------------------------------------------------------------------------

    def _rses_of_this_package(self) -> list[str]:
        protocol = models.RSEProtocol
        statement = select(protocol.rse_id).where(protocol.impl.like("rucio\\_cs3.%", escape="\\")).distinct()
        return [str(rse_id) for rse_id in self._session.execute(statement).scalars()]

    def _rse_ids(self, name: str) -> list[str]:
        statement = select(models.RSE.id).where(models.RSE.rse == name, models.RSE.deleted.is_(False))
        ids = list(self._session.execute(statement).scalars())
        if not ids:
            raise UnknownName(f"Rucio has no RSE {name}")
        return ids

    def _names(self, ids: Iterable[str | None]) -> dict[str, str]:
        known = sorted({rse_id for rse_id in ids if rse_id is not None})
        statement = select(models.RSE.id, models.RSE.rse).where(models.RSE.id.in_(known))
        return dict(self._session.execute(statement).tuples().all())


def _transfer(stage: Stage, row: Mapping[str, Any], names: Mapping[str, str]) -> Transfer:
    return Transfer(
        stage=stage,
        request_id=row["id"],
        scope=row["scope"].external,
        name=row["name"],
        source=names.get(row["source_rse_id"]),
        destination=names.get(row["dest_rse_id"], row["dest_rse_id"]),
        size_bytes=row["bytes"],
        progress=progress.read(row["attributes"], since=row["started_at"]) if row["started_at"] else None,
        activity=row["activity"],
        rule_id=row["rule_id"],
        account=row["account"].external if row["account"] else None,
        priority=row["priority"],
        attempt=row["retry_count"] or 0,
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        over_at=(row["transferred_at"] or row["updated_at"]) if stage.is_over else None,
        lease_until=row["estimated_transferred_at"] if stage is Stage.RUNNING else None,
        reason=reason_of(stage, row["err_msg"], row["attributes"], row["id"]),
    )
