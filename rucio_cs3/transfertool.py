"""The transfertool ``cs3``: what Rucio's submitter, poller and preparer ask, answered without any service.

A row of Rucio's ``requests`` table in state SUBMITTED with transfertool ``cs3`` *is* the job; nothing here touches
the network or keeps a store. Who executes the rows: :mod:`rucio_cs3.agent.daemon`. Who makes Rucio know this class:
:mod:`rucio_cs3.policy`.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio.common.exception import TransferToolWrongAnswer
from rucio.core.request import get_transfer_error, update_request
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.transfertool.transfertool import TransferStatusReport, Transfertool, TransferToolBuilder

from rucio_cs3 import partners
from rucio_cs3.cs3.reference import SCHEMES
from rucio_cs3.partners import Kind
from rucio_cs3.reasons import bounded

if TYPE_CHECKING:
    from rucio.core.request import DirectTransfer
    from rucio.core.rse import RseData
    from sqlalchemy.orm import Session

LoggerFunction = Callable[..., Any]

#: ``requests.external_host`` of our rows. No host: there is no service to talk to, only agents.
EXTERNAL_HOST = "rucio-cs3-agent"

#: A request that no agent took for this long is worth a warning: most likely no agent runs.
WAITING_WARNING = datetime.timedelta(minutes=30)

#: And so is one whose lease has been over for so long. An idle agent takes it within a minute.
LEFT_WARNING = datetime.timedelta(minutes=5)


class CS3TransferStatusReport(TransferStatusReport):  # type: ignore[misc]  # Rucio carries no types
    """The outcome of one request, as ``rucio.core.transfer.update_transfer_state`` wants it.

    :param state: DONE or FAILED.
    :param external_id: of the row; Rucio refuses a final state without it.
    :param reason: why it failed, free of secrets; the essence first, because Rucio keeps 245 characters of it in
        the rule.
    :param started_at: UTC without time zone, as all of Rucio's times; so is ``transferred_at``.
    :param still_ours: is shown the row within the transaction that would change it, and says whether this report
        may. None: whenever it is still SUBMITTED.
    """

    supported_db_fields = [  # noqa: RUF012  # Rucio's base declares it like this
        "state",
        "external_id",
        "started_at",
        "transferred_at",
        "source_rse_id",
        "err_msg",
    ]

    def __init__(
        self,
        request_id: str,
        *,
        state: RequestState,
        external_id: str,
        reason: str | None = None,
        started_at: datetime.datetime | None = None,
        transferred_at: datetime.datetime | None = None,
        source_rse_id: str | None = None,
        source_url: str | None = None,
        destination_url: str | None = None,
        still_ours: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        super().__init__(request_id)
        self.state = state
        self.external_id = external_id
        self.started_at = started_at
        self.transferred_at = transferred_at
        self.source_rse_id = source_rse_id
        self.err_msg = bounded(str(get_transfer_error(state, reason))) if state == RequestState.FAILED else None
        self._reason = reason
        self._source_url = source_url
        self._destination_url = destination_url
        self._still_ours = still_ours

    def __str__(self) -> str:
        return f"cs3 transfer {self.request_id} to {self._destination_url or 'unknown'}"

    def initialize(self, session: Session, logger: LoggerFunction = logging.log) -> None:
        """Become empty where the request is gone, done, or another agent's by now."""
        request = self.request(session)
        if request is not None and request["state"] == RequestState.SUBMITTED:
            if self._still_ours is None or self._still_ours(request):
                return
            logger(logging.WARNING, "%s belongs to another agent by now; nothing is reported", self)
        else:
            logger(logging.WARNING, "%s is not waiting for a report any more; nothing is reported", self)
        for field in self.supported_db_fields:
            setattr(self, field, None)

    def get_monitor_msg_fields(self, session: Session, logger: LoggerFunction = logging.log) -> dict[str, Any]:
        """The fields of hermes' transfer-done and transfer-failed messages that the tool knows best.

        The keys are those of ``Fts3TransferStatusReport``; ``src-rse`` and ``dst-rse`` are left to Rucio, which
        fills them from the row. ``transfer_link`` is written like that by Rucio itself, beside ``transfer-link``.
        """
        self.ensure_initialized(session, logger)
        url = self._destination_url or ""
        return {
            "transfer_link": None,
            "reason": self._reason,
            "src-type": "DISK",
            "src-url": self._source_url,
            "dst-type": "DISK",
            "dst-url": self._destination_url,
            "protocol": urlsplit(url).scheme or None,
            "started_at": self.started_at,
            "transferred_at": self.transferred_at,
        }


class CS3Transfertool(Transfertool):  # type: ignore[misc]  # Rucio carries no types
    """Hands transfers from, to and between CS3 clouds to the agents, by leaving them in Rucio's table.

    :param external_host: the poller passes the row's; always :data:`EXTERNAL_HOST`.
    """

    external_name = "cs3"
    required_rse_attrs = ()
    supported_schemes = set(SCHEMES)  # noqa: RUF012  # Rucio's base declares it like this

    def __init__(self, external_host: str = EXTERNAL_HOST, logger: LoggerFunction = logging.log) -> None:
        super().__init__(external_host, logger)

    @classmethod
    def can_perform_transfer(cls, source_rse: RseData, dest_rse: RseData) -> bool:
        """What the preparer asks, before it knows the schemes.

        It has loaded the RSEs' protocols, but need not have; this method has no session to do so (a second one in
        the same thread breaks the caller's). Unknown counts as yes: :meth:`submission_builder_for_path` decides.
        """
        found = []
        for rse, operation in ((source_rse, partners.READ), (dest_rse, partners.WRITE)):
            try:
                info = rse.info
            except ValueError:
                return True
            found.append(partners.kinds(info, operation, sorted(cls.supported_schemes)))
        return _why_not_between(*found) is None

    @classmethod
    def submission_builder_for_path(
        cls, transfer_path: list[DirectTransfer], logger: LoggerFunction = logging.log
    ) -> tuple[list[DirectTransfer], TransferToolBuilder | None]:
        """Take the first hop where one end is a CS3 cloud and the other a CS3 cloud or a WebDAV site; Rucio asks again
        for the rest of the path."""
        if not transfer_path:
            return [], None
        hop = transfer_path[0]
        reason = cls._why_not(hop)
        if reason is not None:
            logger(logging.INFO, "%s: not for transfertool cs3: %s", hop.rws.request_id, reason)
            return [], None
        return [hop], TransferToolBuilder(cls, external_host=EXTERNAL_HOST)

    @classmethod
    def _why_not(cls, hop: DirectTransfer) -> str | None:
        if hop.rws.request_type != RequestType.TRANSFER:
            return f"it is a {hop.rws.request_type.name} request, and CS3 clouds have no tape"
        found = []
        for end, operation in ((hop.src, partners.READ), (hop.dst, partners.WRITE)):
            if end.scheme not in cls.supported_schemes:
                return f"scheme {end.scheme} of {end.rse.name} is none of {', '.join(sorted(cls.supported_schemes))}"
            kinds = partners.kinds(end.rse.info, operation, [end.scheme])
            if not kinds:
                return f"{end.rse.name} has no protocol with {operation} over wan for scheme {end.scheme}"
            found.append(kinds)
        reason = _why_not_between(*found)
        return f"{hop.src.rse.name} to {hop.dst.rse.name}: {reason}" if reason else None

    def group_into_submit_jobs(self, transfer_paths: Iterable[list[DirectTransfer]]) -> list[dict[str, Any]]:
        """One job per request: an external id then names one row, and retries touch nothing else."""
        return [{"transfers": [hop], "job_params": {}} for path in transfer_paths for hop in path]

    def submit(
        self, transfers: Iterable[DirectTransfer], job_params: dict[str, str], timeout: int | None = None
    ) -> str:
        """Name the job; the caller then writes SUBMITTED into the row, which is all that is needed.

        :returns: the request's id (32 hex digits), so that submitting again names the same job.
        :raises TransferToolWrongAnswer: for more than one transfer.
        """
        hops = list(transfers)
        if len(hops) != 1:
            raise TransferToolWrongAnswer(f"transfertool cs3 takes one transfer per job, not {len(hops)}")
        return str(hops[0].rws.request_id)

    def bulk_query(
        self, requests_by_eid: Mapping[str, Mapping[str, Any]], timeout: int | None = None
    ) -> dict[str, dict[str, TransferStatusReport]]:
        """Say "not finished" for each, and warn of those that nobody works on.

        Agents report by themselves, so what the poller still sees is not done; and what an agent that died has left is
        taken up by the next one, for which no report is needed.

        An answer is due all the same: the poller then moves the row's ``updated_at`` on, and gets to others.
        """
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        rows = [(key, row) for requests in requests_by_eid.values() for key, row in requests.items()]
        waiting = [
            key
            for key, row in rows
            if row.get("started_at") is None and (row.get("submitted_at") or now) < now - WAITING_WARNING
        ]
        left = [
            key
            for key, row in rows
            if row.get("started_at") is not None and (row.get("estimated_transferred_at") or now) < now - LEFT_WARNING
        ]
        for found, what, after in (
            (waiting, "wait for an agent", WAITING_WARNING),
            (left, "were begun by an agent that died, and wait for another one", LEFT_WARNING),
        ):
            if found:
                self.logger(
                    logging.WARNING,
                    "%d requests %s for more than %d minutes, %s among them; is rucio-cs3-agent running?",
                    len(found),
                    what,
                    after.total_seconds() // 60,
                    found[0],
                )
        return {external_id: {} for external_id in requests_by_eid}

    def bulk_update(self, resps: Any, request_ids: Any) -> None:
        """Nothing to do: there is no second place that would have to learn of an update."""

    def cancel(self, transfer_ids: Sequence[str], timeout: int | None = None) -> bool:
        """Let requests fail that are submitted and not over; an agent at work on one stops, and removes what it wrote.

        Not within a transaction that has changed their rows: see :meth:`on_cancel_transfers`. Rucio tries again what
        fails, unless its rule is gone.

        :returns: whether none of them is waiting or running any more.
        """
        # Late: this module is imported in the middle of theirs.
        from rucio.core.request import TransferStatsManager
        from rucio.core.transfer import update_transfer_state

        answers = []
        for transfer_id in transfer_ids:
            report = CS3TransferStatusReport(
                transfer_id, state=RequestState.FAILED, external_id=transfer_id, reason="cancelled"
            )
            answers.append(update_transfer_state(report, TransferStatsManager(), logger=self.logger))
        # Rucio logs an error of the database, and gives None.
        return None not in answers

    def update_priority(self, transfer_id: str, priority: int, timeout: int | None = None) -> bool:
        """Write a priority into the row, which is where agents read it at their next look.

        Not within a transaction that has changed the row: see :meth:`on_update_transfer_priority`.

        :param priority: 1 to 5; 5 goes first.
        :returns: whether there is such a request; one that runs already runs as before.
        """
        return bool(update_request(transfer_id, priority=priority))

    @classmethod
    def on_cancel_transfers(cls, transfer_ids: Iterable[str]) -> None:
        """Our part of ``rucio.core.transfer.cancel_transfers``; see :mod:`rucio_cs3.policy`.

        There is nothing to do: the caller's transaction moves the rows to the history. An agent sees that when it
        renews its claim or notes its progress, and before it reports.
        """
        logging.log(logging.DEBUG, "cancelled cs3 transfers %s with their rows", sorted(transfer_ids))

    @classmethod
    def on_update_transfer_priority(cls, priority_by_transfer_id: Mapping[str, int]) -> None:
        """Our part of ``rucio.core.transfer.update_transfer_priority``; see :mod:`rucio_cs3.policy`.

        There is nothing to do: the caller's transaction writes the priorities into the rows.
        """
        logging.log(logging.DEBUG, "priorities of cs3 transfers are in their rows: %s", dict(priority_by_transfer_id))


def _why_not_between(source: set[Kind | None], destination: set[Kind | None]) -> str | None:
    """Why a hop between two RSEs is not ours, by what each may turn out to be; None if it is.

    One end has to be a CS3 cloud for sure; between two plain sites FTS is at home.
    """
    if not (source and destination) or None in source | destination:
        return "one of them has no protocol over HTTP for it"
    if {Kind.CS3} not in (source, destination):
        return "neither is a CS3 cloud by the protocol that Rucio takes for it"
    return None
