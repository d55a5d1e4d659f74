"""Makes several Rucio processes share one SQLite database without "database is locked".

A write of Rucio often begins with a temporary table, goes on reading and only then changes a real table. SQLite's
deferred transaction takes the write lock at that last step, and fails at once, without waiting, if anybody else
has written since the reading (SQLITE_BUSY_SNAPSHOT). An immediate transaction waits for its turn when it begins.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine


def take_turns() -> None:
    """Let every SQLite connection that SQLAlchemy makes in this process begin immediate transactions; idempotent.

    Plain reading still begins none. The option ``isolation_level`` of the database URL would be the place for it,
    but SQLAlchemy 2.0 drops it there (``coerce_kw_type`` passes on only what is not a string already).
    """
    if not event.contains(Engine, "connect", _begin_immediate):
        event.listen(Engine, "connect", _begin_immediate)


def _begin_immediate(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = "IMMEDIATE"
