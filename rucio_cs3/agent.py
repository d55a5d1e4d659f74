"""The daemon ``rucio-cs3-agent``: executes the requests that Rucio's submitter gave to transfertool ``cs3``.

It is stateless, built on the frame of Rucio's own daemons (heartbeats, hash partition), and any number of them on
any machines share Rucio's table of requests. A round is one ladder::

    _Agent.round                  rows in state SUBMITTED with transfertool cs3, by priority
      _Agent._work                in a thread of the pool
        claims.take               the row is ours for a while; started_at is set
        transfers.transfer_one    copy and proof; reads first, knows no Rucio
        transfer_core.update_transfer_state   as Rucio's receiver reports

Rows are claimed when their transfer starts, not when they are read: a stop loses none, and needs to give none back.
"""

from __future__ import annotations

import copy
import datetime
import logging
import posixpath
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

from rucio.common.exception import DatabaseException, RucioException
from rucio.common.logging import setup_logging
from rucio.core import request as request_core
from rucio.core import transfer as transfer_core
from rucio.core.rse import RseData
from rucio.core.topology import ExpiringObjectCache, Topology
from rucio.daemons.common import HeartbeatHandler, run_daemon
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.db.sqla.util import is_old_db
from rucio.rse import rsemanager
from sqlalchemy.exc import SQLAlchemyError

from rucio_cs3 import claims, policy
from rucio_cs3.cs3 import errors
from rucio_cs3.protocol import Default
from rucio_cs3.transfers import Job, Outcome, State, transfer_one
from rucio_cs3.transfertool import CS3TransferStatusReport

LoggerFunction = Callable[..., Any]

EXECUTABLE = "rucio-cs3-agent"
GRACEFUL_STOP = threading.Event()

#: Rucio's middle priority, for rows without one (core/request.py:146).
_DEFAULT_PRIORITY = 3

#: How often a report is tried while the database is away; after that the lease ends, and the next agent finds the
#: file, proves it and reports. Pauses are 1, 2, 4, 8 s, so ten seconds without a database cost no second proof.
_REPORT_ATTEMPTS = 5

# Where [conveyor] webdav_transfer_mode is set, Rucio appends this to source URLs of davs and https for FTS
# (Rucio 41.5.1 core/transfer.py:172); it is no part of the PFN.
_COPY_MODE = re.compile(r"\?copy_mode=\w+$")


def stop(signum: int | None = None, frame: Any = None) -> None:
    """End after the transfers that are running now; for ``signal.signal``."""
    GRACEFUL_STOP.set()


def run(
    once: bool = False,
    *,
    sleep_time_s: int = 10,
    bulk: int = 100,
    threads: int = 8,
    lease_s: int = int(claims.LEASE.total_seconds()),
    partition_wait_s: int = 10,
) -> None:
    """Run the agent until :func:`stop`, or for one round of at most ``bulk`` requests.

    :param sleep_time_s: pause between rounds where nothing new was found, in seconds, at least 2; also the
        rhythm of heartbeats and of renewing claims.
    :param bulk: most requests to have in hand, waiting or running.
    :param threads: most transfers at the same time.
    :param lease_s: seconds until another agent takes over from one that died, at least 6.
    :param partition_wait_s: seconds to wait at the start for other agents' heartbeats; none with ``once``.
    :raises ConfigurationError: when Rucio does not know this package, see :func:`rucio_cs3.policy.check`.
    :raises DatabaseException: when the database's schema is older than Rucio.
    :raises ValueError: for a number below its least value.
    """
    for name, value, least in (
        ("sleep_time_s", sleep_time_s, 2),
        ("bulk", bulk, 1),
        ("threads", threads, 1),
        ("lease_s", lease_s, 6),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    setup_logging(process_name=EXECUTABLE)
    if is_old_db():
        raise DatabaseException("the database was not updated; the agent will not start")
    policy.register()
    policy.check()
    lease = datetime.timedelta(seconds=lease_s)
    with (
        request_core.TransferStatsManager() as stats_manager,
        _Agent(stats_manager, bulk=bulk, threads=threads, lease=lease) as agent,
    ):
        run_daemon(
            once=once,
            graceful_stop=GRACEFUL_STOP,
            executable=EXECUTABLE,
            partition_wait_time=0 if once else partition_wait_s,
            # Claims are renewed once a round, so a round must not be longer than a third of a lease.
            sleep_time=max(2, min(sleep_time_s, lease_s // 3)),
            run_once_fnc=agent.round,
        )


class _Agent:
    """The rows in hand and the threads at work on them. A context manager: its end waits for what is running."""

    def __init__(self, stats_manager: Any, *, bulk: int, threads: int, lease: datetime.timedelta) -> None:
        self._stats_manager = stats_manager
        self._bulk = bulk
        self._threads = threads
        self._lease = lease
        self._topology = ExpiringObjectCache(ttl=300, new_obj_fnc=Topology)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=EXECUTABLE)
        self._lock = threading.Lock()
        self._in_hand: dict[str, Future[None]] = {}
        self._claims: dict[str, claims.RowClaim] = {}
        self._logger: LoggerFunction = logging.log

    def __enter__(self) -> _Agent:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Who stops drops what has not begun: those rows are claimed by nobody. With once, though, all in hand
        # belongs to the one round.
        self._pool.shutdown(wait=False)
        while True:
            with self._lock:
                left = list(self._in_hand.values())
            if not left:
                return
            if GRACEFUL_STOP.is_set() or kind is not None:
                for future in left:
                    future.cancel()
            wait(left, timeout=min(1.0, self._lease.total_seconds() / 4))
            self._renew()

    def round(self, *, heartbeat_handler: HeartbeatHandler, activity: str | None = None) -> bool:
        """Fetch what is new and hand it to the threads; does not wait for them.

        :returns: whether there is time to sleep.
        """
        worker_number, total_workers, logger = heartbeat_handler.live()
        self._logger = logger
        self._renew()
        with self._lock:
            room = self._bulk - len(self._in_hand)
        if room <= 0:
            return False
        rows = request_core.get_and_mark_next(
            rse_collection=self._topology.get(logger),
            request_type=[RequestType.TRANSFER],
            state=[RequestState.SUBMITTED],
            transfertool=policy.TRANSFERTOOL,
            # Rows that somebody is at work on are found again each time; they must not crowd out the others.
            limit=self._bulk + self._threads * max(1, total_workers),
            total_workers=total_workers,
            worker_number=worker_number,
            mode_all=True,
            hash_variable="id",
            # No mark: it would hide rows for ten minutes and protect nothing, see rucio_cs3.claims.
            processed_by=None,
            activity=activity,
        )
        with self._lock:
            fresh = [row for row in rows if row["id"] not in self._in_hand and not claims.is_claimed(row)]
        # FTS' order, too: 5 goes before 1, and among equals the oldest.
        fresh.sort(key=lambda row: (-(row["priority"] or _DEFAULT_PRIORITY), row["submitted_at"] or row["created_at"]))
        for row in fresh[:room]:
            self._begin(row)
        if fresh:
            logger(logging.INFO, "%d requests found, %d taken in hand", len(fresh), min(room, len(fresh)))
        return len(fresh) < room

    def _begin(self, row: Mapping[str, Any]) -> None:
        with self._lock:
            future = self._pool.submit(self._work, row)
            self._in_hand[row["id"]] = future
        # Also called for a future that was cancelled before it began, and at once for one that is over.
        future.add_done_callback(lambda _future: self._over(row["id"]))

    def _over(self, request_id: str) -> None:
        with self._lock:
            self._in_hand.pop(request_id, None)
            self._claims.pop(request_id, None)

    def _renew(self) -> None:
        with self._lock:
            held = list(self._claims.values())
        for claim in held:
            try:
                claim.renew()
            except (RucioException, SQLAlchemyError) as exc:
                # The database is away: the lease outlives a short absence, and the next round tries again.
                self._logger(logging.ERROR, "%s: could not renew the claim: %s", claim.request_id, exc)

    # -- in a thread of the pool --------------------------------------------------------------------------

    def _work(self, row: Mapping[str, Any]) -> None:
        request_id = row["id"]
        try:
            claim = claims.take(row, self._lease)
            if claim is None:
                self._logger(logging.DEBUG, "%s: gone, or another agent was faster", request_id)
                return
            with self._lock:
                self._claims[request_id] = claim
            source: Mapping[str, Any] = {}
            try:
                source = _pick_source(row)
                outcome = self._transfer(row, source, claim)
            except errors.CS3Error as exc:
                outcome = Outcome(state=State.FAILED, reason=str(exc))
            except (DatabaseException, SQLAlchemyError):
                raise
            except RucioException as exc:  # the protocol's words for the same errors, and those of its settings
                cause = exc.__cause__
                outcome = Outcome(state=State.FAILED, reason=str(cause if isinstance(cause, errors.CS3Error) else exc))
            except Exception as exc:  # whoever's fault it is: unreported, the row would stay SUBMITTED for ever
                self._logger(logging.ERROR, "%s: unexpected failure", request_id, exc_info=True)
                # The text of such an error may hold anything, so only its kind leaves this machine.
                outcome = Outcome(
                    state=State.FAILED, reason=f"unexpected {type(exc).__name__} in {EXECUTABLE}; see its log"
                )
            self._report(row, source, claim, outcome)
        except (RucioException, SQLAlchemyError):
            # The database is away. Without a claim the row is fetched again; with one, when its lease is over.
            self._logger(logging.ERROR, "%s: no access to Rucio's database", request_id, exc_info=True)
        except Exception:  # the pool would keep it to itself
            self._logger(logging.CRITICAL, "%s: left unreported", request_id, exc_info=True)

    def _transfer(self, row: Mapping[str, Any], source: Mapping[str, Any], claim: claims.RowClaim) -> Outcome:
        topology = self._topology.get(self._logger)
        source_url = _COPY_MODE.sub("", source["url"])
        source_end = _connected(topology[source["rse_id"]], "third_party_copy_read", source_url)
        destination = _connected(topology[row["dest_rse_id"]], "third_party_copy_write", row["dest_url"])
        job = Job(
            request_id=row["id"],
            source_url=source_url,
            destination_url=row["dest_url"],
            size_bytes=row["bytes"],
            adler32=row["adler32"],
            md5=row["md5"],
            # Rucio's own setting of an RSE; a checksum that the server has is compared all the same.
            read_back=destination.rse.get("verify_checksum", True) is not False,
        )
        claim.path = _nondeterministic_path(destination, job.destination_url)
        self._logger(logging.INFO, "%s: %s -> %s", job.request_id, job.source_url, job.destination_url)
        return transfer_one(job, source_end, destination, claim)

    def _report(
        self, row: Mapping[str, Any], source: Mapping[str, Any], claim: claims.RowClaim, outcome: Outcome
    ) -> None:
        request_id = row["id"]
        if outcome.state is State.ABANDONED:
            self._logger(logging.WARNING, "%s: abandoned: %s", request_id, outcome.reason)
            return
        if outcome.state is State.DONE:
            self._logger(logging.INFO, "%s: %s", request_id, "copied and proven" if outcome.copied else "was there")
        else:
            self._logger(logging.ERROR, "%s: failed: %s", request_id, outcome.reason)
        transferred_at = claims.utc_now()
        for attempt in range(_REPORT_ATTEMPTS):
            if attempt:
                time.sleep(2 ** (attempt - 1))
            report = CS3TransferStatusReport(
                request_id,
                state=RequestState.DONE if outcome.state is State.DONE else RequestState.FAILED,
                external_id=row["external_id"],
                reason=outcome.reason,
                started_at=claim.started_at,
                transferred_at=transferred_at if outcome.state is State.DONE else None,
                source_rse_id=source.get("rse_id"),
                source_url=source.get("url"),
                destination_url=row["dest_url"],
                still_ours=claim.is_ours,
            )
            try:
                with claim.lock:
                    updated = transfer_core.update_transfer_state(report, self._stats_manager, logger=self._logger)
            except (RucioException, SQLAlchemyError) as exc:
                self._logger(logging.ERROR, "%s: could not report: %s", request_id, exc)
                continue
            # update_transfer_state logs what goes wrong and returns None (core/transfer.py:573).
            if updated is not None:
                return
        self._logger(logging.ERROR, "%s: not reported; it is taken up again when its claim ends", request_id)


def _pick_source(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The source that the submitter chose for a request; another of its sources where that one is gone.

    :raises InvalidRequest: when there is none.
    """
    sources = [s for s in request_core.get_sources(row["id"]) or [] if s["is_using"] and s["url"]]
    for source in sources:
        if source["rse_id"] == row["source_rse_id"]:
            return dict(source)
    if sources:
        return dict(max(sources, key=lambda source: source["ranking"] or 0))
    raise errors.InvalidRequest("Rucio's table of sources has no URL for the request", target=row["id"])


def _connected(rse: RseData, operation: str, pfn: str) -> Default:
    """An RSE's protocol object for one transfer; cheap, because connections and tokens are the process's.

    :raises ConfigurationError: when it is none of ours, as after a change of the RSE since the submission.
    """
    # A copy, because create_protocol passes the token by way of this very dictionary (rsemanager.py:243,
    # protocol.py:64): two threads at it would fail with NoAuthInformation.
    info = copy.deepcopy(rse.ensure_loaded(load_info=True).info)
    protocol = rsemanager.create_protocol(info, operation, scheme=urlsplit(pfn).scheme)
    if not isinstance(protocol, Default):
        raise errors.ConfigurationError(f"{rse.name}: {operation} is by {type(protocol).__module__}, no CS3 protocol")
    protocol.connect()
    return protocol


def _nondeterministic_path(destination: Default, pfn: str) -> str | None:
    """The path by which Rucio's finisher registers a file at a non-deterministic RSE (finisher.py:292)."""
    if destination.rse["deterministic"]:
        return None
    parsed = destination.parse_pfns([pfn])[pfn]
    return posixpath.join(parsed["path"], posixpath.basename(pfn))
