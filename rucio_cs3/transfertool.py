"""The transfertool ``cs3``: what Rucio's submitter, poller and preparer ask, answered without any service.

A row of Rucio's ``requests`` table in state SUBMITTED with transfertool ``cs3`` *is* the job; nothing here touches
the network or keeps a store. Who executes the rows: :mod:`rucio_cs3.agent`. Who makes Rucio know this class:
:mod:`rucio_cs3.policy`.
"""

from __future__ import annotations

import datetime
import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio.common.exception import RSEProtocolNotSupported, TransferToolWrongAnswer
from rucio.core.request import get_transfer_error
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.rse import rsemanager
from rucio.transfertool.transfertool import TransferStatusReport, Transfertool, TransferToolBuilder

from rucio_cs3.cs3.reference import SCHEMES

if TYPE_CHECKING:
    from rucio.core.request import DirectTransfer
    from rucio.core.rse import RseData
    from sqlalchemy.orm import Session

LoggerFunction = Callable[..., Any]

#: ``requests.external_host`` of our rows. No host: there is no service to talk to, only agents.
EXTERNAL_HOST = "rucio-cs3-agent"

#: Width of ``requests.err_msg`` (Rucio 41.5.1 db/sqla/models.py:1425). Oracle counts bytes, and Rucio does not
#: cut: a longer text would make the whole report fail.
ERR_MSG_MAX_BYTES = 4000

#: A request that no agent took for this long is worth a warning: most likely no agent runs.
WAITING_WARNING = datetime.timedelta(minutes=30)


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
        self.err_msg = _bounded(get_transfer_error(state, reason)) if state == RequestState.FAILED else None
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
    """Hands transfers between two CS3 clouds to the agents, by leaving them in Rucio's table.

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
        for rse, operation in ((source_rse, "third_party_copy_read"), (dest_rse, "third_party_copy_write")):
            try:
                info = rse.info
            except ValueError:
                continue
            if _why_not_ours(info, operation, sorted(cls.supported_schemes)) is not None:
                return False
        return True

    @classmethod
    def submission_builder_for_path(
        cls, transfer_path: list[DirectTransfer], logger: LoggerFunction = logging.log
    ) -> tuple[list[DirectTransfer], TransferToolBuilder | None]:
        """Take the first hop where both ends are CS3 clouds; Rucio asks again for the rest of the path."""
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
        for end, operation in ((hop.src, "third_party_copy_read"), (hop.dst, "third_party_copy_write")):
            if end.scheme not in cls.supported_schemes:
                return f"scheme {end.scheme} of {end.rse.name} is none of {', '.join(sorted(cls.supported_schemes))}"
            reason = _why_not_ours(end.rse.info, operation, [end.scheme])
            if reason is not None:
                return f"{end.rse.name}: {reason}"
        return None

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
        """Say "not finished" for each: agents report by themselves, so what the poller still sees is not done.

        An answer is due all the same: the poller then moves the row's ``updated_at`` on, and gets to others.
        """
        limit = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - WAITING_WARNING
        waiting = [
            request_id
            for requests in requests_by_eid.values()
            for request_id, request in requests.items()
            if request.get("started_at") is None and (request.get("submitted_at") or limit) < limit
        ]
        if waiting:
            self.logger(
                logging.WARNING,
                "%d requests wait for more than %d minutes for an agent, %s among them; is rucio-cs3-agent running?",
                len(waiting),
                WAITING_WARNING.total_seconds() // 60,
                waiting[0],
            )
        return {external_id: {} for external_id in requests_by_eid}

    def bulk_update(self, resps: Any, request_ids: Any) -> None:
        """Nothing to do: there is no second place that would have to learn of an update."""

    def cancel(self, transfer_ids: Sequence[str], timeout: int | None = None) -> bool:
        """Nothing to do: Rucio has moved the row to the history already, and an agent looks for it while it copies
        and before it reports."""
        self.logger(logging.DEBUG, "cancelled cs3 transfers %s: their rows are gone", list(transfer_ids))
        return True

    def update_priority(self, transfer_id: str, priority: int, timeout: int | None = None) -> bool:
        """Nothing to do: Rucio has written the priority into the row, which is where agents read it."""
        self.logger(logging.DEBUG, "cs3 transfer %s has priority %s in its row", transfer_id, priority)
        return True

    @classmethod
    def on_cancel_transfers(cls, transfer_ids: Iterable[str]) -> None:
        """Our part of ``rucio.core.transfer.cancel_transfers``; see :mod:`rucio_cs3.policy`."""
        cls().cancel(sorted(transfer_ids))

    @classmethod
    def on_update_transfer_priority(cls, priority_by_transfer_id: Mapping[str, int]) -> None:
        """Our part of ``rucio.core.transfer.update_transfer_priority``; see :mod:`rucio_cs3.policy`."""
        tool = cls()
        for transfer_id, priority in priority_by_transfer_id.items():
            tool.update_priority(transfer_id, priority)


def _why_not_ours(rse_info: Mapping[str, Any], operation: str, schemes: Sequence[str]) -> str | None:
    """Why an RSE's protocol for an operation is none of :mod:`rucio_cs3.protocol`; None if it is.

    Looks at the class alone: no object is made, nothing is connected. Of protocols that Rucio ranks equal it takes
    a random one (rsemanager.select_protocol), so all of these have to be ours.
    """
    try:
        ranked = rsemanager.get_protocols_ordered(rse_info, operation, list(schemes), domain="wan")
    except RSEProtocolNotSupported:
        return f"no protocol with {operation} over wan for scheme {', '.join(schemes)}"
    best = ranked[0]["domains"]["wan"][operation]
    for protocol in ranked:
        if protocol["domains"]["wan"][operation] == best and not _is_ours(protocol["impl"]):
            return f"{operation} for scheme {protocol['scheme']} is done by {protocol['impl']}, no CS3 protocol"
    return None


def _is_ours(impl: str) -> bool:
    # Late, because the server imports this module through the policy package and needs no gRPC for that.
    from rucio_cs3.protocol import Default

    module, _, name = impl.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        # Such as Rucio's gfal protocol without gfal2: certainly not ours.
        return False
    return isinstance(found, type) and issubclass(found, Default)


def _bounded(text: str | None) -> str | None:
    """Cut to what ``requests.err_msg`` holds, never within a character."""
    if text is None:
        return None
    data = text.encode("utf-8", "replace")
    if len(data) <= ERR_MSG_MAX_BYTES:
        return data.decode("utf-8")
    return data[: ERR_MSG_MAX_BYTES - 3].decode("utf-8", "ignore") + "…"
