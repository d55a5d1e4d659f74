"""The replicas of an RSE as Rucio's database has them: one statement, read row by row, so memory does not grow.

For operators, where Rucio's configuration names a database. Elsewhere: :mod:`rucio_cs3.inventory.catalogue_rest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rucio.core.rse import get_rse_vo
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio.rse.translation import RSEDeterministicTranslation
from sqlalchemy import select

from rucio_cs3.clouds import Cloud
from rucio_cs3.inventory.catalogue import Replica

#: Rows that come at a time.
_ROWS = 5000


def replicas(cloud: Cloud) -> Iterator[Replica]:
    """All replicas of an RSE, in no order; those without a path (not yet made at a non-deterministic RSE) are left out.

    :raises SQLAlchemyError: when the database cannot be read.
    """
    assert cloud.rse is not None
    rse, rse_id = cloud.rse["rse"], cloud.rse["id"]
    translator = None
    if cloud.rse["deterministic"]:
        translator = RSEDeterministicTranslation(rse, cloud.rse, cloud.protocol, get_rse_vo(rse_id))
    table = models.RSEFileAssociation
    columns = ("scope", "name", "path", "bytes", "adler32", "created_at", "updated_at", "state")
    statement = select(*(getattr(table, column) for column in columns)).where(table.rse_id == rse_id)
    with db_session(DatabaseOperationType.READ) as session:
        for row in session.execute(statement.execution_options(yield_per=_ROWS)):
            scope = row.scope.external
            path = row.path or (translator.path(scope, row.name) if translator is not None else None)
            if not path:
                continue
            yield Replica(
                rse=rse,
                scope=scope,
                name=row.name,
                path=path.strip("/"),
                size=row.bytes,
                adler32=row.adler32,
                created_at=_text(row.created_at),
                updated_at=_text(row.updated_at),
                state=row.state.value,
            )


def _text(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")
