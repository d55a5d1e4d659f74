"""One claimed row, from its ends to its outcome, in a thread of the agent; whatever happens, there is an outcome."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rucio.common.exception import RucioException

from rucio_cs3.agent import metrics, transfer_log
from rucio_cs3.agent.claims import RowClaim
from rucio_cs3.agent.database import FAILURES, first_line, utc_now
from rucio_cs3.agent.hops import Hop, open_hop
from rucio_cs3.agent.outcomes import Finished
from rucio_cs3.agent.scheduling import Link
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.agent.watching import ProgressWatch
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ladder import Outcome, State, transfer_one
from rucio_cs3.transfers.removal import remove_copied

LoggerFunction = Callable[..., Any]


@dataclass
class Running:
    """A transfer under way.

    :param proves: see :class:`~rucio_cs3.agent.watching.ProgressWatch`.
    :param hop: where :func:`prepare` has made it.
    :ivar watch: None until its ends are known.
    """

    claim: RowClaim
    link: Link
    proves: Callable[[bool], object] = lambda _proves: None
    hop: Hop | None = None
    since: float = field(default_factory=time.monotonic)
    watch: ProgressWatch | None = None

    @property
    def seconds(self) -> float:
        """Since it was handed to a thread."""
        return time.monotonic() - self.since


def perform(running: Running, topology: Callable[[], Any], logger: LoggerFunction = logging.log) -> Finished:
    """Do one transfer. Never raises.

    :param topology: gives Rucio's.
    """
    claim = running.claim
    try:
        hop, outcome = _performed(running, topology, logger)
        seconds = running.seconds
        transfer_log.ended(logger, _subject(claim.row, hop), outcome, seconds)
        metrics.finished(outcome, claim.row["bytes"] or 0, seconds)
    except Exception as exc:  # whosever fault it is: unreported, the row would be tried again for ever
        logger(logging.CRITICAL, "%s: unexpected failure", claim.request_id, exc_info=True)
        # The text of such an error may hold anything, so only its kind leaves this machine.
        told = f"unexpected {type(exc).__name__} in rucio-cs3-agent; see its log"
        hop, outcome = None, Outcome(state=State.FAILED, reason=told)
    return Finished(
        claim=claim,
        outcome=outcome,
        at=utc_now(),
        source_rse_id=hop.source_rse_id if hop else None,
        source_url=hop.source_url if hop else None,
        remove=_removal(claim, hop, outcome.file, logger) if hop and outcome.file else None,
    )


def _performed(running: Running, topology: Callable[[], Any], logger: LoggerFunction) -> tuple[Hop | None, Outcome]:
    claim, hop = running.claim, running.hop
    try:
        hop = hop or open_hop(claim.row, topology(), logger)
        claim.path = hop.path
        running.watch = ProgressWatch(_subject(claim.row, hop), logger, running.proves)
        return hop, transfer_one(hop.job, hop.source, hop.destination, claim, running.watch)
    except errors.CS3Error as exc:
        return hop, Outcome(state=State.FAILED, reason=str(exc), error=exc)
    except FAILURES as exc:
        # Nothing was begun: the ends are read from the database before anything else.
        return hop, Outcome(state=State.POSTPONED, reason=f"Rucio's database fails: {first_line(exc)}")
    except RucioException as exc:  # the protocol's words for the same errors, and those of its settings
        cause = exc.__cause__
        if isinstance(cause, errors.CS3Error):
            return hop, Outcome(state=State.FAILED, reason=str(cause), error=cause)
        return hop, Outcome(state=State.FAILED, reason=str(exc))


def prepare(
    claim: RowClaim, topology: Callable[[], Any], logger: LoggerFunction = logging.log
) -> tuple[Hop | None, float | None]:
    """Find a claimed row's ends, and have the folder ready that its file is to be in, while it waits for its turn.
    Never raises: what is wrong is found again by the transfer, which says so.

    :param topology: gives Rucio's.
    :returns: the hop, None where its ends cannot be had; and for how long a site asked to be left alone, in seconds,
        None where none did.
    """
    hop: Hop | None = None
    try:
        claim.check()
        hop = open_hop(claim.row, topology(), logger)
        # Only a CS3 cloud's folders are remembered.
        if isinstance(hop.destination, CS3End) and not (hop.job.attempt or hop.job.resumed):
            hop.destination.make_parents()
    except Exception as exc:
        logger(logging.DEBUG, "%s: no folder beforehand: %s", claim.request_id, type(exc).__name__)
        error = exc.__cause__ if isinstance(exc, RucioException) else exc
        return hop, error.retry_after_s if isinstance(error, errors.CS3Error) else None
    return hop, None


def _removal(claim: RowClaim, hop: Hop, file: FileInfo, logger: LoggerFunction) -> Callable[[], None]:
    """What removes a file that was copied for a request which was cancelled before it could be told of.

    :param file: as it was proven.
    """

    def remove() -> None:
        try:
            remove_copied(file, hop.destination, claim)
        except errors.NotFound:
            return
        except errors.CS3Error as exc:
            # Among them: a newer request wants the file, or Rucio takes it for good.
            logger(logging.INFO, "%s: the file at the destination stays: %s", claim.request_id, exc)
        else:
            logger(logging.WARNING, "%s: cancelled; removed %s", claim.request_id, hop.destination_url)

    return remove


def _subject(row: Mapping[str, Any], hop: Hop | None) -> Subject:
    return Subject(
        request_id=row["id"],
        scope=str(row["scope"]),
        name=str(row["name"]),
        size_bytes=row["bytes"] or 0,
        source=hop.source.name if hop else str(row["source_rse_id"]),
        destination=hop.destination.name if hop else str(row["dest_rse_id"]),
        source_url=hop.source_url if hop else "unknown",
        destination_url=str(row["dest_url"]),
        activity=row["activity"],
        rule_id=row["rule_id"],
        attempt=row["retry_count"] or 0,
    )


class Threads:
    """A fixed number of threads that do what they are given. They are daemons: who cannot wait for a transfer that
    hangs just ends the process.
    """

    def __init__(self, number: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {index}", daemon=True) for index in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], object]) -> None:
        """Do this in one of the threads; it must not raise."""
        self._tasks.put(task)

    def close(self, timeout_s: float) -> bool:
        """Let the threads end after what they do now and what was submitted before.

        :returns: whether all have ended within that time.
        """
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
