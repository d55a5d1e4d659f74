"""Checks that need each other's success, side by side, each with a deadline. **Read this module first.**

::

    cli.doctor              options, table, exit code
      subjects.find         what is examined: an RSE, a cloud of the clouds file, or what options say
      checks.all_checks     the rows of the table, in its order
      Examination.run       here: who may begin, who takes too long
        Check.look          network, identity, folders, uploading, copies, naming, rucio_side
      Scratch.remove        scratch: nothing of it stays

Whoever is given up at its deadline goes on in a thread of its own, which nobody waits for at the end of the process.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Generic

from rucio_cs3.cs3 import errors
from rucio_cs3.doctor.deadlines import begin
from rucio_cs3.doctor.findings import Check, Examined, Finding, Status, not_tried

#: Where a check has none of its own; and for what is no error of the cloud.
_ADVICE = "Try again; if it stays so, show this line to the cloud's operator."
_STRANGE_ADVICE = "Try again; if it stays so, show this line to whoever looks after this machine and its Rucio."

#: Those on which others may build.
_SUCCEEDED = frozenset({Status.OK, Status.NOTE, Status.WEAK})


class Examination(Generic[Examined]):
    """One run of all checks.

    :param checks: in the order of the table; each comes after those that it needs.
    :param read_only: leave out what writes.
    :param changed: called in the caller's thread with what has been found so far.
    """

    def __init__(
        self,
        subject: Examined,
        checks: Sequence[Check[Examined]],
        *,
        read_only: bool = False,
        changed: Callable[[Mapping[str, Finding]], object] = lambda _: None,
    ) -> None:
        self._subject = subject
        self._checks = checks
        self._read_only = read_only
        self._changed = changed
        self._ended: queue.SimpleQueue[tuple[str, Future[Finding]]] = queue.SimpleQueue()
        self._running: dict[str, tuple[Check[Examined], float, Future[Finding]]] = {}
        #: What has been found, by the names of the checks.
        self.found: dict[str, Finding] = {}

    def run(self) -> Mapping[str, Finding]:
        """Make all checks; returns when each has its finding, at the latest when all deadlines are over."""
        while len(self.found) < len(self._checks):
            self._begin_what_may()
            self._changed(self.found)
            if self._running:
                self._wait()
        self._changed(self.found)
        return {check.name: self.found[check.name] for check in self._checks}

    def settle(self, within_s: float) -> bool:
        """Wait for those that write and were given up, or are under way at an interruption.

        :param within_s: longest wait, in seconds.
        :returns: whether all of them have ended.
        """
        # Ctrl-C may have come before the thread of one began; that does nothing any more.
        writers = [work for check, _, work in list(self._running.values()) if check.writes and not work.cancel()]
        return not wait(writers, within_s).not_done

    def _begin_what_may(self) -> None:
        for check in self._checks:
            if check.name in self.found or check.name in self._running:
                continue
            if check.writes and self._read_only:
                self.found[check.name] = not_tried("it would write (--read-only)")
                continue
            missing = [need for need in check.needs if need in self.found and not self._succeeded(need)]
            if missing:
                self.found[check.name] = not_tried(f"{missing[0]!r} has to succeed before")
            elif all(need in self.found for need in check.needs):
                self._begin(check)

    def _succeeded(self, name: str) -> bool:
        return self.found[name].status in _SUCCEEDED

    def _begin(self, check: Check[Examined]) -> None:
        work: Future[Finding] = Future()
        work.add_done_callback(lambda work: self._ended.put((check.name, work)))
        # Known before it begins: Ctrl-C may come at any time, and whoever writes is waited for.
        self._running[check.name] = check, time.monotonic() + check.deadline_s, work
        begin(f"doctor-{check.name}", partial(self._look, check), work)

    def _look(self, check: Check[Examined]) -> Finding:
        try:
            return check.look(self._subject)
        except errors.CS3Error as error:
            return Finding(
                status=check.severity,
                seen=str(error),
                advice=check.advice or _ADVICE,
                facts={"error": type(error).__name__},
            )
        except (Exception, SystemExit) as error:
            # Of requests, of a policy package, or a fault of ours: the other rows are worth something all the same.
            kind = type(error).__name__
            return Finding(
                status=check.severity,
                seen=f"{kind}: {' '.join(str(error).split()) or 'it says no more'}",
                advice=check.advice or _STRANGE_ADVICE,
                facts={"error": kind},
            )

    def _wait(self) -> None:
        """For the next end, or the next deadline."""
        pending = {name: until for name, (_, until, _) in self._running.items() if name not in self.found}
        if not pending:
            return
        try:
            name, work = self._ended.get(timeout=max(min(pending.values()) - time.monotonic(), 0.0))
        except queue.Empty:
            name = min(pending, key=pending.__getitem__)
            check = self._running[name][0]
            self.found[name] = Finding(
                status=check.severity,
                seen=f"there was no end of it within {check.deadline_s:.0f} s",
                advice=check.advice or _ADVICE,
                facts={"error": "DeadlineExceeded"},
            )
            return
        # One that was given up is not believed any more: others have been decided by it.
        self.found.setdefault(name, work.result())
        del self._running[name]
