"""A long queue for the agents: as many requests as wished, waiting in Rucio's tables, made by the database itself.

For benchmarks and for tests of query plans. Runs in a process that is configured as a daemon of a Rucio, because
Rucio's tables are known only there. The hosts of the URLs do not exist.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any

from rucio.common.exception import Duplicate
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import rse as rse_core
from rucio.core import scope as scope_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session, get_engine
from sqlalchemy import Connection, text

from rucio_cs3.policy import TRANSFERTOOL
from rucio_cs3.transfertool import EXTERNAL_HOST

SCOPE = "full-queue"
_ACCOUNT = "root"
_SOURCE = "FULL-QUEUE-FROM"
_DESTINATIONS = tuple(f"FULL-QUEUE-TO-{number}" for number in range(5))

#: Different hosts at the destinations.
_HOSTS = 40

_PATH = "remote.php/webdav/rucio/full-queue/"

_ATTRIBUTES = (
    '{"activity": "User Subscriptions", "source_replica_expression": null, "lifetime": null, "ds_scope": "full-queue", '
    '"ds_name": "set", "bytes": 1000000, "md5": null, "adler32": "0a1b2c3d", "priority": 3, "allow_tape_source": true}'
)


def fill(rows: int) -> None:
    """Make the queue ``rows`` long, and let the database count anew what it plans with.

    The oldest request is two days old, and there is one in each tenth of a second; every hundredth is urgent. Foreign
    keys hold, but are not checked while rows are made: that would take most of the time.

    :param rows: at most a million and a half, or the last ones would be of the future.
    """
    _make_places()
    engine = get_engine()
    with engine.connect() as connection:
        _prepare_loading(connection)
        requests = models.Request.__table__.fullname
        there = connection.execute(text(f"SELECT count(*) FROM {requests} WHERE scope = '{SCOPE}'")).scalar_one()  # noqa: S608
        if there < rows:
            for table, columns in _tables(connection).items():
                _insert(connection, table, columns, first=there, last=rows - 1)
        connection.commit()
        # The next one is a connection like any other.
        connection.invalidate()
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # What autovacuum does at a site, a minute after so many rows.
            connection.execute(text("VACUUM ANALYZE"))


def _make_places() -> None:
    try:
        with db_session(DatabaseOperationType.WRITE) as session:
            scope_core.add_scope(InternalScope(SCOPE), InternalAccount(_ACCOUNT), session=session)
            for name in (_SOURCE, *_DESTINATIONS):
                rse_core.add_rse(name, session=session)
    except Duplicate:
        # Made by an earlier call.
        return


def _prepare_loading(connection: Connection) -> None:
    """No checks of foreign keys, and no waiting for the disk, on this connection."""
    raw: Any = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("PRAGMA synchronous=OFF")
        # PostgreSQL has it.
        raw.create_function("md5", 1, _md5, deterministic=True)
    else:
        # Foreign keys are triggers there; only a superuser may do this.
        connection.execute(text("SET session_replication_role = replica"))


def _md5(value: str) -> str:
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()


def _tables(connection: Connection) -> dict[str, dict[str, str]]:
    """Columns and their SQL, of the row with number n, by table."""
    if connection.dialect.name == "sqlite":
        guid = "char(32)"
        moment = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-2 days', (n / 10.0) || ' seconds')"
    else:
        guid = "uuid"
        moment = "timezone('UTC', now()) - interval '2 days' + (n / 10.0) * interval '1 second'"
    request_id = f"CAST(md5('request-' || n) AS {guid})"
    name = "'file-' || n"
    with db_session(DatabaseOperationType.READ) as session:
        rse_ids = {rse: rse_core.get_rse_id(rse, session=session) for rse in (_SOURCE, *_DESTINATIONS)}
    source = f"CAST('{rse_ids[_SOURCE]}' AS {guid})"
    whens = " ".join(f"WHEN {number} THEN '{rse_ids[name]}'" for number, name in enumerate(_DESTINATIONS))
    destination = f"CAST(CASE n % {len(_DESTINATIONS)} {whens} END AS {guid})"
    content = {"bytes": "1000000", "adler32": "'0a1b2c3d'"}
    times = {"created_at": moment, "updated_at": moment}
    file = {"scope": f"'{SCOPE}'", "name": name, **content, **times}
    source_url = f"'davs://from.test:443/{_PATH}file-' || n"
    destination_url = f"'davs://to-' || (n % {_HOSTS}) || '.test:443/{_PATH}file-' || n"
    return {
        models.DataIdentifier.__table__.fullname: {
            **file,
            "account": f"'{_ACCOUNT}'",
            "did_type": "'F'",
            "availability": "'A'",
        },
        models.RSEFileAssociation.__table__.fullname: {**file, "rse_id": source, "state": "'A'", "lock_cnt": "1"},
        models.Request.__table__.fullname: {
            **file,
            "id": request_id,
            "request_type": "'T'",
            "did_type": "'F'",
            "state": "'S'",
            "transfertool": f"'{TRANSFERTOOL}'",
            "external_host": f"'{EXTERNAL_HOST}'",
            "external_id": "md5('request-' || n)",
            "source_rse_id": source,
            "dest_rse_id": destination,
            "dest_url": destination_url,
            "attributes": f"'{_ATTRIBUTES}'",
            "activity": "'User Subscriptions'",
            "account": f"'{_ACCOUNT}'",
            "rule_id": f"CAST(md5('rule-' || (n / 100)) AS {guid})",
            "priority": "CASE WHEN n % 100 = 0 THEN 5 ELSE 3 END",
            "retry_count": "0",
            "requested_at": moment,
            "submitted_at": moment,
            "last_processed_by": "'conveyor-submitter'",
            "last_processed_at": moment,
        },
        models.Source.__table__.fullname: {
            "request_id": request_id,
            "scope": f"'{SCOPE}'",
            "name": name,
            "bytes": "1000000",
            "rse_id": source,
            "dest_rse_id": destination,
            "url": source_url,
            "ranking": "0",
            "is_using": "true",
            **times,
        },
    }


def _insert(connection: Connection, table: str, columns: Mapping[str, str], *, first: int, last: int) -> None:
    # Nothing of it comes from outside, and no driver must look for parameters in it.
    statement = (
        f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608
        f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
        f"SELECT {', '.join(columns.values())} FROM numbers"
    )
    connection.connection.cursor().execute(statement)
