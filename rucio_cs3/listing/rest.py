"""Transfers as Rucio's REST interface shows them to any account: those of its own rules, or of one rule.

For people without Rucio's database. An account that is no administrator may not list requests (Rucio 41.5.1
core/permission/generic.py:758), but it may ask for its rules, for a rule's locks, and for the request of a file at
an RSE, whose answer has the attributes and with them the progress. What is over leaves that table at once, and its
history is for administrators: of these only stuck files are seen, with the error that the rule has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from rucio.client import Client
from rucio.common.exception import RequestNotFound, RuleNotFound

from rucio_cs3 import progress
from rucio_cs3.listing.entries import Count, Listing, Stage, Transfer, UnknownName, Wanted, reason_of

#: Most files whose requests are asked for; each is a call to the server.
MOST_FILES = 100

#: Most rules of an account that are looked into.
_MOST_RULES = 20

#: As the REST interface names the states of rules that have something to do.
_OPEN_STATES = ("REPLICATING", "STUCK")

# Rucio's client logs what it raises, too, with colours and to the same place.
_UNHEARD = logging.getLogger(f"{__name__}.client")
_UNHEARD.addHandler(logging.NullHandler())
_UNHEARD.propagate = False

_STAGES: Mapping[str, Stage] = {
    "WAITING": Stage.THROTTLED,
    "PREPARING": Stage.THROTTLED,
    "SUSPEND": Stage.THROTTLED,
    "QUEUED": Stage.QUEUED,
    "SUBMITTING": Stage.QUEUED,
    "DONE": Stage.DONE,
}


def look(wanted: Wanted) -> Listing:
    """Ask for what is wanted, as it is now.

    :raises UnknownName: for a rule that Rucio does not have.
    :raises RucioException: when the server cannot be asked.
    """
    client = Client(logger=_UNHEARD)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    files = _Files(client, wanted, now)
    found = [transfer for transfer in files.all() if _is_wanted(transfer, wanted)]
    counts = {stage: Count(number=sum(t.stage is stage for t in found)) for stage in Stage if stage in wanted.stages}
    waiting = [t.submitted_at for t in found if t.stage is Stage.WAITING and t.submitted_at is not None]
    return Listing(
        at=now,
        transfers=[t for stage in wanted.stages for t in _first(found, stage, wanted.limit)],
        counts={stage: Count(number=count.number, at_least=files.more) for stage, count in counts.items()},
        oldest_s=max(0.0, (now - min(waiting)).total_seconds()) if waiting else None,
        rate=sum(t.rate(now) or 0 for t in found),
        since=wanted.since,
        notes=files.notes,
    )


class _Files:
    """The files of rules that are not at their places yet."""

    def __init__(self, client: Any, wanted: Wanted, now: datetime) -> None:
        self._client = client
        self._wanted = wanted
        self._now = now
        self._asked = 0
        self.more = False
        self.notes: list[str] = []

    def all(self) -> Iterator[Transfer]:
        for rule in self._rules():
            for lock in self._client.list_replica_locks(rule["id"]):
                if lock["state"] == "OK":
                    continue
                if self._asked >= MOST_FILES:
                    self.more = True
                    self.notes.append(f"Only {MOST_FILES} files were looked at; there are more.")
                    return
                self._asked += 1
                transfer = self._transfer(rule, lock)
                if transfer is not None:
                    yield transfer

    def _rules(self) -> Iterator[Mapping[str, Any]]:
        if self._wanted.rule_id is not None:
            try:
                yield self._client.get_replication_rule(self._wanted.rule_id)
            except RuleNotFound as exc:
                raise UnknownName(f"Rucio has no rule {self._wanted.rule_id}") from exc
            return
        self.notes.append(f"These are the transfers of {self._client.account}'s own rules, asked for by REST.")
        filters = {"account": self._client.account}
        number = 0
        for state in _OPEN_STATES:
            for rule in self._client.list_replication_rules({**filters, "state": state[0]}):
                if number >= _MOST_RULES:
                    self.more = True
                    self.notes.append(f"Only {_MOST_RULES} rules were looked at; choose one with --rule.")
                    return
                number += 1
                yield rule

    def _transfer(self, rule: Mapping[str, Any], lock: Mapping[str, Any]) -> Transfer | None:
        """The request behind a lock; None where it is another transfertool's."""
        try:
            row = self._client.list_request_by_did(lock["name"], lock["rse"], scope=lock["scope"])
        except RequestNotFound:
            # Stuck, for the repairer to take up again; or between two attempts.
            stuck = lock["state"] == "STUCK"
            return Transfer(
                stage=Stage.FAILED if stuck else Stage.QUEUED,
                request_id="",
                scope=lock["scope"],
                name=lock["name"],
                source=None,
                destination=lock["rse"],
                size_bytes=lock.get("bytes"),
                activity=rule.get("activity"),
                rule_id=rule["id"],
                account=rule.get("account"),
                reason=reason_of(Stage.FAILED, rule.get("error")) if stuck else None,
            )
        return _from_row(row, self._now) if row.get("transfertool") in (None, "cs3") else None


def _from_row(row: Mapping[str, Any], now: datetime) -> Transfer:
    lease, started = row.get("estimated_transferred_at"), row.get("started_at")
    state = str(row["state"])
    if state == "SUBMITTED":
        # What is claimed before its turn has a lease, and has not started.
        stage = Stage.RUNNING if started is not None and lease is not None and lease >= now else Stage.WAITING
    else:
        stage = _STAGES.get(state, Stage.FAILED)
    return Transfer(
        stage=stage,
        request_id=row["id"],
        scope=row["scope"],
        name=row["name"],
        source=row.get("source_rse"),
        destination=row["dest_rse"],
        size_bytes=row.get("bytes"),
        progress=progress.read(row.get("attributes"), since=started) if started else None,
        activity=row.get("activity"),
        rule_id=row.get("rule_id"),
        account=row.get("account"),
        priority=row.get("priority"),
        attempt=row.get("retry_count") or 0,
        created_at=row.get("created_at"),
        submitted_at=row.get("submitted_at"),
        started_at=started,
        over_at=(row.get("transferred_at") or row.get("updated_at")) if stage.is_over else None,
        lease_until=lease if stage is Stage.RUNNING else None,
        reason=reason_of(stage, row.get("err_msg"), row.get("attributes"), row["id"]),
    )


def _is_wanted(transfer: Transfer, wanted: Wanted) -> bool:
    return (
        transfer.stage in wanted.stages
        and wanted.rse in (None, transfer.source, transfer.destination)
        and wanted.source in (None, transfer.source)
        and wanted.destination in (None, transfer.destination)
        and wanted.activity in (None, transfer.activity)
    )


def _first(found: list[Transfer], stage: Stage, limit: int) -> list[Transfer]:
    return [transfer for transfer in found if transfer.stage is stage][:limit]
