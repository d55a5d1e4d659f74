"""The thread that tells Rucio how transfers ended: many in one transaction, and patiently.

What cannot be told because the database is away stays in memory and is told when it is back. A process that ends
before that loses nothing either: the claims run out, and the next agent finds each file, proves it and reports.

What is written is in :mod:`rucio_cs3.agent.outcomes`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rucio.core import transfer as transfer_core
from rucio.db.sqla.constants import RequestState

from rucio_cs3 import reasons
from rucio_cs3.agent.database import CHUNK_ROWS, FAILURES, Absence, answers, first_line, writing
from rucio_cs3.agent.outcomes import Finished, Recorded, Verdict, record
from rucio_cs3.transfers.jobs import State
from rucio_cs3.transfertool import CS3TransferStatusReport

LoggerFunction = Callable[..., Any]

#: For how long reports are gathered before they are written, in seconds: a transaction costs much more than a report,
#: and nobody waits for it.
_GATHER_S = 0.1

#: How often a report is tried that fails although the database is there; such a thing is a bug, or a broken row.
_ATTEMPTS = 5

#: Pause before a report is tried again that failed so, or whose row somebody else had locked, in seconds.
_AGAIN_S = 2.0


@dataclass
class _Report:
    finished: Finished
    failures: int = 0
    not_before: float = 0.0


class Reporter:
    """A context manager; its end stops the thread, which :meth:`drain` should have let finish.

    :param stats_manager: Rucio's ``TransferStatsManager``.
    :param on_gone: called from the reporting thread with a finished transfer whose request was cancelled meanwhile,
        so that what it wrote can be removed.
    """

    def __init__(
        self, stats_manager: Any, on_gone: Callable[[Finished], None], logger: LoggerFunction = logging.log
    ) -> None:
        self._stats_manager = stats_manager
        self._on_gone = on_gone
        self._logger = logger
        self._handed_in: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        self._absence = Absence("reports")
        self._settled = threading.Condition()
        self._outstanding = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rucio-cs3-agent reports", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._handed_in.put(None)
        self._thread.join(timeout=_AGAIN_S)

    @property
    def outstanding(self) -> int:
        """Reports that are not told yet."""
        return self._outstanding

    def report(self, finished: Finished) -> None:
        """Hand in a report; returns at once."""
        with self._settled:
            self._outstanding += 1
        self._handed_in.put(finished)

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is told.

        :returns: whether it is.
        """
        with self._settled:
            return self._settled.wait_for(lambda: not self._outstanding, timeout_s)

    # -- in its thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        kept: list[_Report] = []
        while not self._closing:
            kept += self._collected(kept)
            now = time.monotonic()
            due = [report for report in kept if report.not_before <= now][:CHUNK_ROWS]
            if not due:
                continue
            try:
                settled = self._told(due)
            except Exception:  # without this thread nothing would ever be reported again
                self._logger(logging.CRITICAL, "%d reports failed unexpectedly; they are kept", len(due), exc_info=True)
                for report in due:
                    report.not_before = time.monotonic() + _AGAIN_S
                continue
            kept = [report for report in kept if report.finished not in settled]
            with self._settled:
                self._outstanding -= len(settled)
                self._settled.notify_all()

    def _collected(self, kept: Sequence[_Report]) -> list[_Report]:
        """What has been handed in; waits for something to be due."""
        timeout_s: float | None = None
        if kept:
            due_at = min(report.not_before for report in kept)
            timeout_s = max(0.0, due_at - time.monotonic(), self._absence.pause_s)
        collected = []
        try:
            finished = self._handed_in.get(timeout=timeout_s)
            if not self._closing:
                time.sleep(_GATHER_S)
            while finished is not None:
                collected.append(_Report(finished))
                finished = self._handed_in.get_nowait()
        except queue.Empty:
            pass
        # New ones do not shorten the pause while the database is away.
        pause_s = self._absence.pause_s
        if pause_s and not self._closing:
            time.sleep(pause_s)
        return collected

    def _told(self, due: Sequence[_Report]) -> list[Finished]:
        """Tell them, all at once or one by one; gives those that are settled."""
        try:
            recorded = self._recorded(due)
        except Exception as exc:  # whosever fault: a report that cannot be written must not keep back the others
            if isinstance(exc, FAILURES) and not answers():
                self._absence.noticed(exc, self._logger)
                return []
            if isinstance(exc, FAILURES) and not any(report.failures for report in due):
                # A database that answers again, as after a restart, deserves a second try of the same.
                for report in due:
                    report.failures = 1
                    report.not_before = time.monotonic() + _AGAIN_S
                return []
            if len(due) > 1:
                self._logger(logging.WARNING, "%d reports at once failed: %s", len(due), first_line(exc))
                return [finished for report in due for finished in self._told([report])]
            return self._told_by_rucio(due[0], exc)
        self._absence.over(self._logger)
        settled = []
        for report in due:
            verdict = recorded.verdicts[report.finished.request_id]
            if verdict is Verdict.BUSY:
                report.not_before = time.monotonic() + _AGAIN_S
            else:
                self._settle(report, verdict)
                settled.append(report.finished)
        return settled

    def _recorded(self, due: Sequence[_Report]) -> Recorded:
        with writing() as session:
            recorded = record(session, [report.finished for report in due])
        # Only now that they are in the database; a transaction that is rolled back must not count.
        for arguments in recorded.statistics:
            self._stats_manager.observe(**arguments)
        return recorded

    def _settle(self, report: _Report, verdict: Verdict) -> None:
        finished = report.finished
        if verdict is Verdict.LOST:
            self._logger(logging.WARNING, "%s: another agent has it; nothing is reported", finished.request_id)
        elif verdict is Verdict.GONE:
            # Cancelled; or told already, where only the answer was lost and Rucio's finisher has archived it since.
            # The replica's state tells the two apart, and whoever removes the file asks for it.
            self._logger(logging.WARNING, "%s: Rucio has no such request any more", finished.request_id)
            self._on_gone(finished)

    def _told_by_rucio(self, report: _Report, error: Exception) -> list[Finished]:
        """Let Rucio's own receiver write what our statements could not; give up where it cannot either."""
        finished, outcome = report.finished, report.finished.outcome
        report.failures += 1
        try:
            if outcome.state in (State.DONE, State.FAILED) and transfer_core.update_transfer_state(
                _status_report(finished), self._stats_manager, logger=self._logger
            ):
                self._logger(logging.WARNING, "%s: reported by Rucio's own means: %s", finished.request_id, error)
                return [finished]
        except FAILURES as exc:
            # It logs and swallows what goes wrong within it, but not a COMMIT that fails (Rucio 41.5.1).
            error = exc
        if report.failures < _ATTEMPTS:
            report.not_before = time.monotonic() + _AGAIN_S * report.failures
            self._logger(logging.ERROR, "%s: could not report: %s", finished.request_id, error)
            return []
        self._logger(
            logging.CRITICAL,
            "%s: not reported; it is taken up again when its claim ends: %s",
            finished.request_id,
            error,
        )
        return [finished]


def _status_report(finished: Finished) -> CS3TransferStatusReport:
    row, outcome = finished.claim.row, finished.outcome
    done = outcome.state is State.DONE
    return CS3TransferStatusReport(
        finished.request_id,
        state=RequestState.DONE if done else RequestState.FAILED,
        external_id=row["external_id"],
        reason=None if done else reasons.reason(outcome),
        started_at=finished.started_at,
        transferred_at=finished.at if done else None,
        source_rse_id=finished.source_rse_id,
        source_url=finished.source_url,
        destination_url=row["dest_url"],
        still_ours=finished.claim.is_ours,
    )
