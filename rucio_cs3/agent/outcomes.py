"""Outcomes of transfers as Rucio keeps them: rows of ``requests`` and messages for hermes, many in one transaction.

:func:`record` does for many requests in eight statements what Rucio's receiver does for one in nine
(``rucio.core.transfer.update_transfer_state``, 41.5.1): state and times of the row, the fate of the hops behind a
failed one, a message ``transfer-done`` or ``transfer-failed``, and statistics. A test compares the two, row by row and
message by message; :mod:`rucio_cs3.agent.reporting` falls back to Rucio's own where this one fails.

What was put off (:attr:`~rucio_cs3.transfers.jobs.State.POSTPONED`) goes back to the queue here, too. How often that
happened to a request is in its ``attributes`` (:data:`rucio_cs3.progress.POSTPONED_KEY`), because the next agent has to
know.
"""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio.common.constants import DEFAULT_VO
from rucio.core import message as message_core
from rucio.core import request as request_core
from rucio.db.sqla import models
from rucio.db.sqla.constants import RequestState
from sqlalchemy import BindParameter, bindparam, select, update

from rucio_cs3 import progress, reasons
from rucio_cs3.agent.claims import RowClaim
from rucio_cs3.agent.database import lock_rows, utc_now
from rucio_cs3.progress import POSTPONED_KEY
from rucio_cs3.transfers.jobs import Outcome, State, Stopping

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: A request that a site has put off for so long fails; Rucio then tries again, from another source if there is one.
POSTPONED_FOR = datetime.timedelta(minutes=30)

#: But not before it was put off that often: one long ``Retry-After`` is no failure.
POSTPONED_TIMES = 3

_table = models.Request.__table__
_by_id = _table.c.id == bindparam("request_id")
_DONE = (
    update(_table)
    .where(_by_id)
    .values(
        state=RequestState.DONE,
        started_at=bindparam("started"),
        transferred_at=bindparam("transferred"),
        source_rse_id=bindparam("source"),
        updated_at=bindparam("now"),
    )
)
_FAILED = (
    update(_table)
    .where(_by_id)
    .values(
        state=RequestState.FAILED,
        started_at=bindparam("started"),
        source_rse_id=bindparam("source"),
        err_msg=bindparam("error"),
        updated_at=bindparam("now"),
    )
)
_RELEASED = (
    update(_table)
    .where(_by_id)
    .values(
        estimated_transferred_at=None,
        # Of a row that a killed agent had begun, the next one has to know.
        started_at=bindparam("started"),
        attributes=bindparam("attributes"),
        updated_at=bindparam("now"),
    )
)
_ids: BindParameter[Any] = bindparam("ids", expanding=True)
_RSES = select(models.RSE.id, models.RSE.rse, models.RSE.vo).where(models.RSE.id.in_(_ids))
_did = models.DataIdentifier.__table__
_DATATYPES = (
    select(_table.c.id, _did.c.datatype)
    .join_from(_table, _did, (_did.c.scope == _table.c.scope) & (_did.c.name == _table.c.name))
    .where(_table.c.id.in_(_ids))
)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A transfer that has ended, to be reported.

    :param at: when it ended; UTC without time zone.
    :param source_rse_id: of the source that was read, and ``source_url`` its PFN; None where none was found.
    :param remove: removes the file that this transfer made, if it may.
    """

    claim: RowClaim
    outcome: Outcome
    at: datetime.datetime
    source_rse_id: str | None = None
    source_url: str | None = None
    remove: Callable[[], None] | None = None

    @property
    def request_id(self) -> str:
        return self.claim.request_id

    @property
    def started_at(self) -> datetime.datetime:
        """UTC without time zone; of what never began, its end."""
        return self.claim.started_at or self.at


class Verdict(enum.Enum):
    """What became of a report."""

    TOLD = "told"
    """It is in the database, or was already."""
    BUSY = "busy"
    """Somebody else has the row locked; later."""
    GONE = "gone"
    """Rucio has no such request any more."""
    LOST = "lost"
    """Another agent has it."""


@dataclass
class Recorded:
    """
    :param verdicts: by id.
    :param statistics: arguments for ``TransferStatsManager.observe``, to be called after the commit.
    """

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    statistics: list[dict[str, Any]] = field(default_factory=list)


def record(session: Session, batch: Sequence[Finished]) -> Recorded:
    """Write outcomes into the rows that still carry their claims.

    :param session: of :func:`rucio_cs3.agent.database.writing`; all or nothing of it is to be committed.
    :param batch: none of them abandoned, at most :data:`~rucio_cs3.agent.database.CHUNK_ROWS`.
    """
    locked = lock_rows(session, [finished.request_id for finished in batch])
    return _Batch(session).record(batch, locked.rows, locked.busy)


class _Batch:
    """The changes of one transaction, by statement."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = utc_now()
        self._recorded = Recorded()
        self._done: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._released: list[dict[str, Any]] = []
        self._told: list[tuple[Finished, Outcome, Mapping[str, Any], dict[str, Any]]] = []

    def record(
        self, batch: Sequence[Finished], rows: Mapping[str, Mapping[str, Any]], busy: frozenset[str]
    ) -> Recorded:
        for finished in batch:
            row = rows.get(finished.request_id)
            verdict = Verdict.BUSY if finished.request_id in busy else _verdict(finished, row)
            self._recorded.verdicts[finished.request_id] = verdict
            if verdict is Verdict.TOLD and row is not None and row["state"] == RequestState.SUBMITTED:
                self._sort(finished, row)
        connection = self._session.connection()
        for statement, changes in ((_DONE, self._done), (_FAILED, self._failed), (_RELEASED, self._released)):
            if changes:
                connection.execute(statement, changes)
        if self._told:
            self._tell()
        return self._recorded

    def _sort(self, finished: Finished, row: Mapping[str, Any]) -> None:
        outcome, attributes = finished.outcome, _attributes(row)
        if outcome.state is State.POSTPONED:
            kept, outcome = put_off(outcome, finished.request_id, attributes, self._now)
            if outcome.state is State.POSTPONED:
                self._released.append(
                    {
                        "request_id": finished.request_id,
                        "started": finished.claim.begun_before,
                        "attributes": kept or row["attributes"],
                        "now": self._now,
                    }
                )
                return
        change = {
            "request_id": finished.request_id,
            "started": finished.started_at,
            "source": finished.source_rse_id or row["source_rse_id"],
            "now": self._now,
        }
        if outcome.state is State.DONE:
            self._done.append({**change, "transferred": finished.at})
        else:
            self._failed.append({**change, "error": err_msg(outcome)})
        self._told.append((finished, outcome, row, attributes))

    def _tell(self) -> None:
        rows = [row for _, _, row, _ in self._told]
        names, datatypes = _rse_names(self._session, rows), _datatypes(self._session, rows)
        messages = []
        for finished, outcome, row, attributes in self._told:
            state = RequestState.DONE if outcome.state is State.DONE else RequestState.FAILED
            if state is RequestState.FAILED and attributes.get("is_intermediate_hop"):
                request_core.handle_failed_intermediate_hop({**row, "attributes": attributes}, session=self._session)
            messages.append(
                {
                    "event_type": f"{row['request_type'].name}-{state.name}".lower(),
                    "payload": {
                        **_payload(finished, outcome, row, attributes, names),
                        "datatype": datatypes.get(row["id"]),
                    },
                }
            )
            self._recorded.statistics.append(
                {
                    "src_rse_id": row["source_rse_id"],
                    "dst_rse_id": row["dest_rse_id"],
                    "activity": row["activity"],
                    "state": state,
                    "file_size": row["bytes"],
                    "submitted_at": row["submitted_at"],
                    "started_at": finished.started_at,
                    "transferred_at": finished.at if state is RequestState.DONE else None,
                }
            )
        message_core.add_messages(messages, session=self._session)


def err_msg(outcome: Outcome) -> str:
    """What ``requests.err_msg`` gets for a failure."""
    prefix = str(request_core.get_transfer_error(RequestState.FAILED, ""))
    return reasons.bounded(prefix + reasons.reason(outcome, reasons.RULE_ERROR_CHARACTERS - len(prefix)))


def put_off(
    outcome: Outcome, request_id: str, attributes: Mapping[str, Any], now: datetime.datetime
) -> tuple[str | None, Outcome]:
    """Count one more time that a site put a request off.

    :returns: the text for the column ``attributes``, None where it stays as it is; and the outcome: a failure where it
        was put off for :data:`POSTPONED_FOR` in all.
    """
    if outcome.retry_after_s is None or isinstance(outcome.error, Stopping):
        return None, outcome
    before = attributes.get(POSTPONED_KEY)
    # Rucio copies the attributes into the request that it makes after a failure (41.5.1 core/request.py:379).
    if not isinstance(before, Mapping) or before.get("request") != request_id:
        before = {"since": now.isoformat(timespec="seconds"), "times": 0}
    times = int(before["times"]) + 1
    since = datetime.datetime.fromisoformat(before["since"])
    if times > POSTPONED_TIMES and now - since >= POSTPONED_FOR:
        minutes = int((now - since).total_seconds() // 60)
        told = f"{outcome.reason}; put off {times} times in {minutes} minutes"
        return None, Outcome(state=State.FAILED, reason=told, error=outcome.error, mode=outcome.mode)
    mark = {"request": request_id, "since": before["since"], "times": times}
    for kept in (attributes, {key: value for key, value in attributes.items() if key != progress.KEY}):
        text = json.dumps({**kept, POSTPONED_KEY: mark})
        if len(text) <= progress.MAX_CHARACTERS:
            return text, outcome
    # What cannot be counted must not go on for ever.
    told = f"{outcome.reason}; the request's attributes leave no room to count how often it was put off"
    return None, Outcome(state=State.FAILED, reason=told, error=outcome.error, mode=outcome.mode)


def _verdict(finished: Finished, row: Mapping[str, Any] | None) -> Verdict:
    if row is None:
        return Verdict.GONE
    if not finished.claim.is_ours(row):
        return Verdict.LOST
    # In another state it was reported already, by a commit whose answer was lost, or cancelled by somebody who left
    # the lease as it was.
    return Verdict.TOLD


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    return progress.parsed(row["attributes"]) or {}


def _payload(
    finished: Finished,
    outcome: Outcome,
    row: Mapping[str, Any],
    attributes: Mapping[str, Any],
    names: Mapping[str, tuple[str, str]],
) -> dict[str, Any]:
    """A message as ``rucio.core.request.add_monitor_message`` makes it (41.5.1), with our part of it filled in."""
    source, vo = names.get(row["source_rse_id"], (None, None))
    destination, _ = names.get(row["dest_rse_id"], (None, None))
    started_at, transferred_at = finished.started_at, finished.at if outcome.state is State.DONE else None
    payload = {
        "activity": row["activity"],
        "request-id": row["id"],
        "duration": (transferred_at - started_at).seconds if transferred_at else -1,
        "checksum-adler": row["adler32"],
        "checksum-md5": row["md5"],
        "file-size": row["bytes"],
        "bytes": row["bytes"],
        "guid": None,
        "previous-request-id": row["previous_attempt_id"],
        "protocol": urlsplit(row["dest_url"] or "").scheme or None,
        "scope": row["scope"],
        "name": row["name"],
        "dataset": attributes.get("ds_name"),
        "datasetScope": attributes.get("ds_scope"),
        "src-type": "DISK",
        "src-rse": source,
        "src-url": finished.source_url,
        "dst-type": "DISK",
        "dst-rse": destination,
        "dst-url": row["dest_url"],
        "reason": outcome.reason,
        "transfer-endpoint": row["external_host"],
        "transfer-id": row["external_id"],
        "transfer-link": None,
        # Written like that by Rucio itself for FTS, beside the other.
        "transfer_link": None,
        "created_at": str(row["created_at"]) if row["created_at"] else None,
        "submitted_at": str(row["submitted_at"]) if row["submitted_at"] else None,
        "started_at": str(started_at),
        "transferred_at": str(transferred_at) if transferred_at else None,
        "tool-id": "rucio-conveyor",
        "account": row["account"],
    }
    if vo is not None and vo != DEFAULT_VO:
        payload["vo"] = vo
    return payload


def _rse_names(session: Session, rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Name and VO of all RSEs of some rows, by id."""
    ids = {row[key] for row in rows for key in ("source_rse_id", "dest_rse_id") if row[key]}
    return {row.id: (row.rse, row.vo) for row in session.connection().execute(_RSES, {"ids": list(ids)})}


def _datatypes(session: Session, rows: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """What Rucio knows of the kind of data in the files of some rows, by the rows' ids."""
    found = session.connection().execute(_DATATYPES, {"ids": [row["id"] for row in rows]})
    return {row.id: row.datatype for row in found}
