"""Rucio's catalogue in its database, for operators, where Rucio's configuration names one.

Rucio's own functions write; what they do not answer, or only slowly, is read from its tables.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rucio.common import exception
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import did as did_core
from rucio.core import replica as replica_core
from rucio.core import rule as rule_core
from rucio.core.account import account_exists
from rucio.core.scope import list_scopes
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType
from rucio.db.sqla.session import db_session
from sqlalchemy import and_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from rucio_cs3.clouds import Cloud
from rucio_cs3.registration.catalogue import CatalogueError, Known, NewFile, Refused, essence
from rucio_cs3.registration.plan import ALGORITHMS
from rucio_cs3.registration.templates import Did

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import ColumnElement


class DatabaseCatalogue:
    """See :class:`~rucio_cs3.registration.catalogue.Catalogue`.

    :param account: who the DIDs and rules belong to.
    :raises CatalogueError: when there is no such account.
    """

    def __init__(self, cloud: Cloud, account: str, vo: str = "def") -> None:
        assert cloud.rse is not None
        self.vo = vo
        self._rse = cloud.name
        self._rse_id = cloud.rse["id"]
        self._keeps_paths = not cloud.rse["deterministic"]
        self._account = InternalAccount(account, vo=vo)
        with self._reading() as session:
            if not account_exists(self._account, session=session):
                raise CatalogueError(f"Rucio has no account {account}; name one with --account")
            self.described = f"Rucio's database ({session.get_bind().dialect.name}) as account {account}"

    def scopes(self) -> Collection[str]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with self._reading() as session:
            return {scope.external for scope in list_scopes(session=session) if scope.vo == self.vo}

    def look(self, dids: Collection[Did], *, parents: Collection[Did] = ()) -> Mapping[Did, Known]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with self._reading() as session:
            rows = {
                self._did(row): row for row in session.execute(_rows_of(models.DataIdentifier, _DID, self._of(dids)))
            }
            files = [did for did, row in rows.items() if row.did_type is DIDType.FILE]
            replicas = self._replicas(session, files)
            above = self._parents(session, files, parents)
        return {did: _known(row, replicas.get(did), above.get(did, frozenset())) for did, row in rows.items()}

    def _replicas(self, session: Session, dids: Collection[Did]) -> dict[Did, Any]:
        if not dids:
            return {}
        table = models.RSEFileAssociation
        query = _rows_of(table, ("scope", "name", "state", "path"), self._of(dids)).where(table.rse_id == self._rse_id)
        return {self._did(row): row for row in session.execute(query)}

    def _parents(self, session: Session, dids: Collection[Did], parents: Collection[Did]) -> dict[Did, frozenset[Did]]:
        if not dids or not parents:
            return {}
        table = models.DataIdentifierAssociation
        query = select(table.scope, table.name, table.child_scope, table.child_name).where(
            _among(table.child_scope, table.child_name, self._of(dids)),
            _among(table.scope, table.name, self._of(parents)),
        )
        found: dict[Did, set[Did]] = defaultdict(set)
        for row in session.execute(query):
            found[Did(row.child_scope.external, row.child_name)].add(self._did(row))
        return {did: frozenset(above) for did, above in found.items()}

    def others(self, paths: Collection[str]) -> Mapping[str, Did]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. Rucio has an index on paths."""
        if not self._keeps_paths or not paths:
            return {}
        table = models.RSEFileAssociation
        # As parse_pfns() of rucio_cs3.protocol has them, and without the slash as other protocols do.
        wanted = [form for path in paths for form in (f"/{path}", path)]
        query = select(table.scope, table.name, table.path).where(table.path.in_(wanted), table.rse_id == self._rse_id)
        with self._reading() as session:
            return {str(row.path).strip("/"): self._did(row) for row in session.execute(query)}

    def make(self, collections: Collection[Did], kind: str) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        for did in collections:
            with contextlib.suppress(exception.DataIdentifierAlreadyExists), self._writing() as session:
                did_core.add_dids([{**self._internal(did), "type": kind}], account=self._account, session=session)

    def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. One transaction."""
        told = [{**file.as_rucio_has_it(), **self._internal(file.did)} for file in files]
        try:
            with self._writing() as session:
                if told:
                    replica_core.add_replicas(self._rse_id, told, self._account, session=session)
                self._attach(session, attachments)
        except exception.RucioException as exc:
            raise Refused(essence(exc)) from exc

    def attach(self, attachments: Mapping[Did, Collection[Did]]) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        try:
            with self._writing() as session:
                self._attach(session, attachments)
        except exception.RucioException as exc:
            raise CatalogueError(f"Rucio says: {essence(exc)}") from exc

    def _attach(self, session: Session, attachments: Mapping[Did, Collection[Did]]) -> None:
        told = [
            {**self._internal(parent), "dids": [self._internal(child) for child in children]}
            for parent, children in attachments.items()
            if children
        ]
        if told:
            did_core.attach_dids_to_dids(told, account=self._account, ignore_duplicate=True, session=session)

    def add_rule(self, dataset: Did, *, locked: bool) -> bool:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        try:
            with self._writing() as session:
                rule_core.add_rule(
                    dids=[self._internal(dataset)],
                    account=self._account,
                    copies=1,
                    rse_expression=self._rse,
                    grouping="DATASET",
                    weight=None,
                    lifetime=None,
                    locked=locked,
                    subscription_id=None,
                    session=session,
                )
        except exception.DuplicateRule:
            return False
        except exception.RucioException as exc:
            raise Refused(essence(exc)) from exc
        return True

    def _internal(self, did: Did) -> dict[str, Any]:
        return {"scope": InternalScope(did.scope, vo=self.vo), "name": did.name}

    def _of(self, dids: Collection[Did]) -> dict[InternalScope, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for did in dids:
            names[did.scope].append(did.name)
        return {InternalScope(scope, vo=self.vo): found for scope, found in names.items()}

    def _did(self, row: Any) -> Did:
        return Did(row.scope.external, row.name)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Session]:
        with _asking(), db_session(DatabaseOperationType.READ) as session:
            yield session

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Session]:
        with _asking(), db_session(DatabaseOperationType.WRITE) as session:
            if session.get_bind().dialect.name == "sqlite":
                # A transaction that looks first would fail at once where another process has written in between.
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session


_DID = ("scope", "name", "did_type", "bytes", "adler32", "md5", "is_open")


def _rows_of(table: Any, columns: Iterable[str], names: Mapping[InternalScope, Collection[str]]) -> Any:
    return select(*(getattr(table, column) for column in columns)).where(_among(table.scope, table.name, names))


def _among(scope: Any, name: Any, names: Mapping[InternalScope, Collection[str]]) -> ColumnElement[bool]:
    """By Rucio's primary keys, which begin with scope and name."""
    return or_(*(and_(scope == one, name.in_(list(found))) for one, found in names.items()))


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except (exception.DatabaseException, SQLAlchemyError) as exc:
        raise CatalogueError(f"Rucio's database cannot be used: {essence(exc)}") from exc


def _known(row: Any, replica: Any, parents: frozenset[Did]) -> Known:
    return Known(
        kind=row.did_type.name,
        size=row.bytes,
        checksums={name: str(getattr(row, name)).lower() for name in ALGORITHMS if getattr(row, name)},
        is_open=bool(row.is_open),
        state=replica.state.name if replica is not None else None,
        path=str(replica.path).strip("/") if replica is not None and replica.path else None,
        parents=parents,
    )
