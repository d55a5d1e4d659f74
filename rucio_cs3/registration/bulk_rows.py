"""Rows of new files in Rucio's database, by one statement for each table.

Rucio's own functions (41.5.1 ``core/replica.py``: ``add_replicas``, ``core/did.py``: ``attach_dids_to_dids``) make an
object, and conditions of two queries, of each file. That takes several times what its rows take. So the rows of files
that Rucio knows nothing of yet are made here: those that these functions make of the same files, in the caller's
transaction. Where files that Rucio knows are put into the same dataset in that transaction, by its own functions, the
dataset has two rows in ``updated_dids`` and not one; Rucio's judge then looks at it twice.
Whatever is not as plain as that is left to Rucio; see :class:`NotPlain`.

Only for a Rucio that :mod:`rucio_cs3.registration.known_rucio` knows; a test compares all tables after both ways
(``tests/rucio/inside/inside_bulk_rows.py``). Read next: :mod:`rucio_cs3.registration.database`, which chooses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from rucio.common import exception
from rucio.common.types import InternalAccount, InternalScope
from rucio.common.utils import clean_pfns
from rucio.core import rse_counter
from rucio.core.replica import tombstone_from_delay
from rucio.core.rse import get_rse_attribute
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDAvailability, DIDReEvaluation, DIDType, ReplicaState
from rucio.rse import rsemanager
from sqlalchemy import false, insert, select
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from rucio_cs3.registration.catalogue import NewFile, essence
from rucio_cs3.registration.keeping import TOMBSTONE_DELAY
from rucio_cs3.registration.templates import Did

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: What was compared; elsewhere Rucio's functions do things of their own, such as hints and partitions for Oracle.
DIALECTS = ("postgresql", "sqlite")


class NotPlain(Exception):
    """Rucio's own functions are to do it, and to say what is wrong, if anything is: a DID is there already, or somebody
    makes it at this moment; two block each other; a scope, dataset or RSE is not there, or not open; a value does not
    fit into its column; a PFN is none of the RSE's. The text is the reason, in one line.
    """


class BulkRows:
    """Makes files replicas at one RSE, and puts them into datasets.

    :param account: who the DIDs belong to.
    :param keeps_paths: the RSE is non-deterministic.
    """

    def __init__(self, rse_id: str, account: InternalAccount, *, keeps_paths: bool) -> None:
        self._rse_id = rse_id
        self._account = account
        self._keeps_paths = keeps_paths
        self._scope = cache(lambda name: InternalScope(name, vo=account.vo))

    def add(self, session: Session, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        """
        :param files: at least one; Rucio is believed to have no DID of their names.
        :param attachments: open dataset -> those of the files that are put into it, at least one.
        :raises NotPlain: when it cannot be done; roll the transaction back.
        """
        try:
            self._add(session, files, attachments)
        except (IntegrityError, DataError, OperationalError, exception.RucioException) as exc:
            # A deadlock, or a lock that did not come in time, is an OperationalError, too.
            if getattr(exc, "connection_invalidated", False):
                raise
            raise NotPlain(essence(exc)) from exc

    def _add(self, session: Session, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        self._check_rse(session)
        paths = self._paths(session, files)
        tombstone = tombstone_from_delay(get_rse_attribute(self._rse_id, TOMBSTONE_DELAY, session=session))
        # Naive, and of UTC, as Rucio's own defaults of these columns.
        now = datetime.now(tz=timezone.utc).replace(tzinfo=None)
        connection = session.connection()

        def make(model: Any, rows: Iterable[Mapping[str, Any]], **same: Any) -> None:
            same |= {"created_at": now, "updated_at": now}
            connection.execute(insert(model.__table__), [{**row, **same} for row in rows])

        named = {file.did: self._named(file) for file in files}
        make(
            models.DataIdentifier,
            named.values(),
            account=self._account,
            did_type=DIDType.FILE,
            availability=DIDAvailability.AVAILABLE,
        )
        make(
            models.RSEFileAssociation,
            ({**row, "path": path} for row, path in zip(named.values(), paths, strict=True)),
            rse_id=self._rse_id,
            state=ReplicaState.AVAILABLE,
            lock_cnt=0,
            tombstone=tombstone,
        )
        size = sum(file.size for file in files)
        rse_counter.increase(rse_id=self._rse_id, files=len(files), bytes_=size, session=session)
        if attachments:
            make(
                models.DataIdentifierAssociation,
                self._contents(named, attachments),
                did_type=DIDType.DATASET,
                child_type=DIDType.FILE,
                rule_evaluation=True,
            )
            make(
                models.UpdatedDID,
                ({"scope": self._scope(dataset.scope), "name": dataset.name} for dataset in attachments),
                rule_evaluation_action=DIDReEvaluation.ATTACH,
            )

    def _named(self, file: NewFile) -> dict[str, Any]:
        """What the rows of a file in ``dids`` and in ``replicas`` have in common."""
        return {
            "scope": self._scope(file.did.scope),
            "name": file.did.name,
            "bytes": file.size,
            "md5": file.checksums.get("md5"),
            "adler32": file.checksums.get("adler32"),
        }

    def _contents(
        self, named: Mapping[Did, Mapping[str, Any]], attachments: Mapping[Did, Collection[Did]]
    ) -> Iterator[dict[str, Any]]:
        for dataset, children in attachments.items():
            scope = self._scope(dataset.scope)
            for row in (named[child] for child in children):
                own = {"scope": scope, "name": dataset.name, "child_scope": row["scope"], "child_name": row["name"]}
                yield {**row, **own}

    def _check_rse(self, session: Session) -> None:
        query = select(models.RSE.volatile, models.RSE.deterministic).where(
            models.RSE.id == self._rse_id, models.RSE.deleted == false()
        )
        row = session.execute(query).one_or_none()
        if row is None or row.volatile or bool(row.deterministic) is self._keeps_paths:
            raise NotPlain("the RSE is not what it was")

    def _paths(self, session: Session, files: Sequence[NewFile]) -> Iterator[str | None]:
        """What Rucio keeps of each PFN at a non-deterministic RSE; at others none, and they are those that it computes.

        By the protocols of the RSE for writing, as ``add_replicas`` does it.
        """
        settings = rsemanager.get_rse_info(rse_id=self._rse_id, session=session)
        by_scheme: dict[str, list[NewFile]] = defaultdict(list)
        for file in files:
            by_scheme[file.pfn.partition(":")[0]].append(file)
        found: dict[str, str] = {}
        for scheme, those in by_scheme.items():
            protocol = rsemanager.create_protocol(settings, "write", scheme=scheme)
            pfns = [file.pfn for file in those]
            if self._keeps_paths:
                found |= {pfn: f"{parts['path']}{parts['name']}" for pfn, parts in protocol.parse_pfns(pfns).items()}
            else:
                expected = protocol.lfns2pfns([{"scope": file.did.scope, "name": file.did.name} for file in those])
                if set(clean_pfns(pfns)) - set(clean_pfns(expected.values())):
                    raise NotPlain("the RSE has them elsewhere")
        return (found.get(file.pfn) for file in files)
