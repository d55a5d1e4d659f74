"""The database of a :class:`~rucio_cs3.sandbox.rucio_site.RucioSite`: a SQLite file of its own, or a PostgreSQL.

Only tests and the story look into it, and only to read; everything else goes through Rucio.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from pathlib import Path
from typing import Any, Protocol

# SQLite lets one write at a time; another one waits so long for its turn.
_SQLITE_BUSY_S = 60


class RucioDatabase(Protocol):
    """Where Rucio keeps its tables."""

    @property
    def url(self) -> str:
        """What ``[database] default`` says; may hold a password."""
        ...

    @property
    def schema(self) -> str | None:
        """What ``[database] schema`` says."""
        ...

    def prepare(self) -> bool:
        """Get it ready for Rucio's tables.

        :returns: whether they are still to be made.
        """
        ...

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one SELECT that cannot change anything.

        :param statement: in SQL that both databases understand, with ``?`` for each parameter and nowhere else.
        :returns: rows; ids as 32 hex digits.
        """
        ...


class SQLiteFile:
    """A file that the processes of one machine share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}?timeout={_SQLITE_BUSY_S}"

    @property
    def schema(self) -> str | None:
        return None

    def prepare(self) -> bool:
        if self.path.exists():
            return False
        # WAL: readers do not wait for the writer. The mode stays with the file.
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")
        return True

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return connection.execute(statement, parameters).fetchall()


class PostgresDatabase:
    """A database on a PostgreSQL server, through psycopg 3 as Rucio does.

    :param url: ``postgresql+psycopg://…``, as Rucio takes it.
    :param schema: PostgreSQL schema for the tables; ``public`` if None.
    :raises ValueError: for another URL.
    """

    def __init__(self, url: str, schema: str | None = None) -> None:
        if not url.startswith("postgresql+psycopg://"):
            # Without the text: it may hold a password.
            raise ValueError("a Rucio here uses SQLite or postgresql+psycopg://…, and nothing else")
        self.url = url
        self.schema = schema

    def __repr__(self) -> str:
        return f"PostgresDatabase({self.url.rpartition('@')[2]})"

    def prepare(self) -> bool:
        place = self.schema or "public"
        return not self.query(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = 'requests'", place
        )

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        import psycopg

        options = f"-c search_path={self.schema or 'public'} -c default_transaction_read_only=on"
        # libpq reads the same URL, but knows no driver in it.
        with psycopg.connect(self.url.replace("+psycopg", "", 1), options=options) as connection:
            translated = statement.replace("%", "%%").replace("?", "%s")
            rows = connection.execute(translated.encode(), parameters).fetchall()
        return [tuple(value.hex if isinstance(value, uuid.UUID) else value for value in row) for row in rows]
