"""Rucio's catalogue in its database, for operators, where Rucio's configuration names one.

What Rucio's functions do not answer, or only slowly, is read from its tables. They also write; but the rows of files
that Rucio knows nothing of are made by :mod:`rucio_cs3.registration.bulk_rows`, where that knows this Rucio.
"""

from __future__ import annotations

import contextlib
import logging
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
from sqlalchemy import String, and_, any_, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError

from rucio_cs3.clouds import Cloud
from rucio_cs3.registration import known_rucio
from rucio_cs3.registration.bulk_rows import DIALECTS, BulkRows, NotPlain
from rucio_cs3.registration.catalogue import MOST, CatalogueError, Known, NewFile, Overtaken, Refused, essence
from rucio_cs3.registration.plan import ALGORITHMS
from rucio_cs3.registration.templates import Did

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.elements import ColumnElement

_log = logging.getLogger(__name__)

#: Most DIDs of one call with :data:`DIALECTS`: a tenth of what a statement of theirs takes, and some 0.3 s of work.
#: Elsewhere it is :data:`MOST`: Oracle takes lists of 1000 (ORA-01795), and each path is asked for in two forms.
_MOST = 1000


class DatabaseCatalogue:
    """See :class:`~rucio_cs3.registration.catalogue.Catalogue`.

    :param account: who the DIDs and rules belong to.
    :param bulk: whether the rows of new files may be made by :mod:`~rucio_cs3.registration.bulk_rows`.
    :raises CatalogueError: when there is no such account.
    """

    def __init__(self, cloud: Cloud, account: str, vo: str = "def", *, bulk: bool = True) -> None:
        assert cloud.rse is not None
        self.vo = vo
        self._rse = cloud.name
        self._rse_id = cloud.rse["id"]
        self._keeps_paths = not cloud.rse["deterministic"]
        self._account = InternalAccount(account, vo=vo)
        with self._reading() as session:
            if not account_exists(self._account, session=session):
                raise CatalogueError(f"Rucio has no account {account}; name one with --account")
            dialect = session.get_bind().dialect.name
        self.most = _MOST if dialect in DIALECTS else MOST
        self._has_arrays = dialect == "postgresql"
        self.described = f"Rucio's database ({dialect}) as account {account}"
        self._bulk: BulkRows | None = None
        if bulk and dialect in DIALECTS and known_rucio.is_known():
            self._bulk = BulkRows(self._rse_id, self._account, keeps_paths=self._keeps_paths)
        else:
            self.described += ", slowly, by Rucio's own functions"
        self._not_plain = ""
        self._was_plain = False

    @property
    def remark(self) -> str:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        if self._was_plain or not self._not_plain:
            return ""
        return (
            f"every batch of new files was left to Rucio's own functions, which are slow; the first: {self._not_plain}"
        )

    def scopes(self) -> Collection[str]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with self._reading() as session:
            return {scope.external for scope in list_scopes(session=session) if scope.vo == self.vo}

    def look(self, dids: Collection[Did], *, parents: Collection[Did] = ()) -> Mapping[Did, Known]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        with self._reading() as session:
            rows = {self._did(row): row for row in session.execute(self._rows_of(models.DataIdentifier, _DID, dids))}
            files = [did for did, row in rows.items() if row.did_type is DIDType.FILE]
            replicas = self._replicas(session, files)
            above = self._parents(session, files, parents)
        return {did: _known(row, replicas.get(did), above.get(did, frozenset())) for did, row in rows.items()}

    def _replicas(self, session: Session, dids: Collection[Did]) -> dict[Did, Any]:
        if not dids:
            return {}
        table = models.RSEFileAssociation
        query = self._rows_of(table, ("scope", "name", "state", "path"), dids).where(table.rse_id == self._rse_id)
        return {self._did(row): row for row in session.execute(query)}

    def _parents(self, session: Session, dids: Collection[Did], parents: Collection[Did]) -> dict[Did, frozenset[Did]]:
        if not dids or not parents:
            return {}
        table = models.DataIdentifierAssociation
        # Of all parents: PostgreSQL before 17 looks into the index once for each pair of a child and a parent.
        query = select(table.scope, table.name, table.child_scope, table.child_name).where(
            self._among(table.child_scope, table.child_name, dids)
        )
        wanted = set(parents)
        found: dict[Did, set[Did]] = defaultdict(set)
        for row in session.execute(query):
            parent = self._did(row)
            if parent in wanted:
                found[Did(row.child_scope.external, row.child_name)].add(parent)
        return {did: frozenset(above) for did, above in found.items()}

    def others(self, paths: Collection[str]) -> Mapping[str, Did]:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. Rucio has an index on paths."""
        if not self._keeps_paths or not paths:
            return {}
        table = models.RSEFileAssociation
        # As parse_pfns() of rucio_cs3.protocol has them, and without the slash as other protocols do.
        wanted = [form for path in paths for form in (f"/{path}", path)]
        query = select(table.scope, table.name, table.path).where(
            self._one_of(table.path, wanted), table.rse_id == self._rse_id
        )
        with self._reading() as session:
            return {str(row.path).strip("/"): self._did(row) for row in session.execute(query)}

    def make(self, collections: Collection[Did], kind: str) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`."""
        try:
            self._make(collections, kind)
        except exception.DataIdentifierAlreadyExists:
            for did in collections:
                with contextlib.suppress(exception.DataIdentifierAlreadyExists):
                    self._make([did], kind)

    def _make(self, collections: Collection[Did], kind: str) -> None:
        told = [{**self._internal(did), "type": kind} for did in collections]
        with self._writing() as session:
            did_core.add_dids(told, account=self._account, session=session)

    def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        """See :class:`~rucio_cs3.registration.catalogue.Catalogue`. One transaction."""
        # In one order everywhere, so that two who do the same wait for each other, and do not block each other.
        files = sorted(files, key=lambda file: file.did)
        attachments = {dataset: sorted(attachments[dataset]) for dataset in sorted(attachments)}
        try:
            if self._bulk is None or not self._added_in_bulk(self._bulk, files, attachments):
                with self._writing() as session:
                    self._add(session, files, attachments)
        except exception.RucioException as exc:
            raise Refused(essence(exc)) from exc

    def _added_in_bulk(
        self, bulk: BulkRows, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]
    ) -> bool:
        unknown = {file.did: file for file in files if file.is_unknown}
        if not unknown:
            return False
        plain: dict[Did, list[Did]] = defaultdict(list)
        others: dict[Did, list[Did]] = defaultdict(list)
        for dataset, children in attachments.items():
            for child in children:
                (plain if child in unknown else others)[dataset].append(child)
        try:
            with self._writing() as session:
                self._check_datasets(session, plain)
                bulk.add(session, list(unknown.values()), plain)
                self._add(session, [file for file in files if not file.is_unknown], others)
        except NotPlain as reason:
            if not self._not_plain:
                self._not_plain = str(reason)
                _log.info("a batch of %d files is left to Rucio's own functions: %s", len(files), reason)
            return False
        self._was_plain = True
        return True

    def _check_datasets(self, session: Session, datasets: Collection[Did]) -> None:
        rows = session.execute(self._rows_of(models.DataIdentifier, _DID, datasets)).all() if datasets else []
        if sum(row.did_type is DIDType.DATASET and bool(row.is_open) for row in rows) != len(datasets):
            raise NotPlain("a dataset is not there, or not open")

    def _add(self, session: Session, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        for first in range(0, len(files), MOST):
            told = [{**file.as_rucio_has_it(), **self._internal(file.did)} for file in files[first : first + MOST]]
            replica_core.add_replicas(self._rse_id, told, self._account, session=session)
        self._check_unknown(session, [file for file in files if file.is_unknown])
        self._attach(session, attachments)

    def _check_unknown(self, session: Session, files: Sequence[NewFile]) -> None:
        """``add_replicas`` compares nothing: of a DID that somebody else has made, it makes a replica. In the same
        transaction, nobody can make one after this."""
        told = {file.did: (file.size, {name: file.checksums.get(name) for name in ALGORITHMS}) for file in files}
        if not told:
            return
        for row in session.execute(self._rows_of(models.DataIdentifier, _DID, told)):
            did = self._did(row)
            if (row.bytes, {name: getattr(row, name) for name in ALGORITHMS}) != told[did]:
                raise Overtaken(f"somebody else has registered {did} meanwhile, with another size or checksum")

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

    def _rows_of(self, table: Any, columns: Iterable[str], dids: Collection[Did]) -> Any:
        return select(*(getattr(table, column) for column in columns)).where(self._among(table.scope, table.name, dids))

    def _among(self, scope: Any, name: Any, dids: Collection[Did]) -> ColumnElement[bool]:
        """By Rucio's primary keys, which begin with scope and name."""
        names: dict[str, list[str]] = defaultdict(list)
        for did in dids:
            names[did.scope].append(did.name)
        each = (
            and_(scope == InternalScope(one, vo=self.vo), self._one_of(name, found)) for one, found in names.items()
        )
        return or_(*each)

    def _one_of(self, column: Any, values: Sequence[str]) -> ColumnElement[bool]:
        if self._has_arrays:
            # psycopg 3 takes the text of a long statement apart each time: 15 us for each parameter.
            array: ColumnElement[bool] = column == any_(literal(values, ARRAY(String)))
            return array
        found: ColumnElement[bool] = column.in_(values)
        return found

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
