"""The agent's transactions on Rucio's database: never waiting for somebody else's lock, and ready for its absence.

The agent changes rows of ``requests`` only after :func:`lock_rows` has locked them in the same transaction, so what
it has read of them stays true until it commits.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio.common.exception import DatabaseException
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from sqlalchemy import BindParameter, bindparam, select, text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LoggerFunction = Callable[..., Any]

#: What a transaction raises when the database is away; also, when a statement is wrong. :func:`answers` tells.
FAILURES = (DatabaseException, SQLAlchemyError)

#: Pauses between two attempts to reach a database that is away, in seconds; the last is repeated.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)

#: Most rows for one statement with IN; Oracle takes 1000 values.
CHUNK_ROWS = 500

# Made once: SQLAlchemy's look at a new statement costs more than the statement.
_table = models.Request.__table__
_ids: BindParameter[Any] = bindparam("ids", expanding=True)
# A rule that is being deleted holds the rows of all its files until it is done, which may take minutes.
_LOCKED = select(_table).where(_table.c.id.in_(_ids)).with_for_update(skip_locked=True)
_THERE = select(_table.c.id).where(_table.c.id.in_(_ids))


def utc_now() -> datetime.datetime:
    """Now, as Rucio stores it: UTC without a time zone."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


@contextlib.contextmanager
def reading() -> Iterator[Session]:
    """A session that changes nothing."""
    with db_session(DatabaseOperationType.READ) as session:
        yield session


@contextlib.contextmanager
def writing() -> Iterator[Session]:
    """A session that is committed at the end, or rolled back as a whole."""
    with db_session(DatabaseOperationType.WRITE) as session:
        if session.get_bind().dialect.name == "sqlite":
            # It has no locks of rows, so the whole database is taken before the first look. A transaction that
            # looks first would also fail at once where another process has written in between.
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session


@dataclass(frozen=True)
class Locked:
    """Rows that nobody else can change before the transaction ends.

    :param rows: by id.
    :param gone: ids of which there is no row.
    :param busy: ids of rows that somebody else has locked.
    """

    rows: Mapping[str, Mapping[str, Any]]
    gone: frozenset[str]
    busy: frozenset[str]


def lock_rows(session: Session, ids: Iterable[str]) -> Locked:
    """Lock rows of ``requests``; what somebody else has locked is left alone, however long that takes.

    :param session: of :func:`writing`.
    :param ids: at most :data:`CHUNK_ROWS`.
    """
    connection = session.connection()
    wanted = frozenset(ids)
    found = connection.execute(_LOCKED, {"ids": list(wanted)}).mappings()
    rows: dict[str, Mapping[str, Any]] = {row["id"]: dict(row) for row in found}
    absent = wanted - rows.keys()
    if not absent:
        return Locked(rows, frozenset(), frozenset())
    busy = frozenset(connection.execute(_THERE, {"ids": list(absent)}).scalars())
    return Locked(rows, absent - busy, busy)


def answers() -> bool:
    """Whether the database is there now."""
    try:
        with reading() as session:
            # Oracle alone wants a table for it.
            oracle = session.get_bind().dialect.name == "oracle"
            session.execute(text("SELECT 1 FROM dual" if oracle else "SELECT 1"))
    except FAILURES:
        return False
    return True


class Absence:
    """Notes that the database is away and that it is back, and says each once. One thread tells it; all may ask."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None
        self._failures = 0
        self._again_at = 0.0

    @property
    def pause_s(self) -> float:
        """Seconds until the next attempt is due; 0 where nothing is known to be wrong."""
        return 0.0 if self._since is None else max(0.0, self._again_at - time.monotonic())

    def noticed(self, error: Exception, logger: LoggerFunction) -> None:
        """An attempt failed."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger(logging.ERROR, "%s: Rucio's database fails, and is asked again: %s", self._what, first_line(error))
        self._again_at = now + _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1

    def over(self, logger: LoggerFunction) -> None:
        """An attempt went well."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            logger(logging.WARNING, "%s: Rucio's database is back after %.0f s", self._what, seconds)
            self._since, self._failures = None, 0


def first_line(error: Exception) -> str:
    """What happened, without the statement and its parameters, which SQLAlchemy puts into the following lines."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Database exception", "[SQL"))]
    return lines[0] if lines else type(error).__name__
