"""The gate that all gRPC calls pass, so that the process can fork at a moment without any.

gRPC 1.85 brings a forked child to life only where no other thread is within gRPC at that moment; otherwise it says
"skipping fork() handlers", and about every tenth child waits for ever in its first call, also on a channel of its own.
So a fork waits here until the calls under way have ended, and new ones wait until it is done. HTTP needs nothing of the
kind. What is shared by threads and not by forks: :mod:`rucio_cs3.cs3.pool`.
"""

from __future__ import annotations

import logging
import os
import threading
import time

_log = logging.getLogger(__name__)

#: Longest wait for calls under way, in seconds; a fork is not held up for ever by a server that hangs.
QUIET_WITHIN_S = 5.0

#: The gate opens by itself so long after a fork began, in seconds. Python drops what a signal handler raises within the
#: hooks of a fork, Ctrl-C included, and the hook is not gone on with.
SHUT_MAX_S = 15.0


class CallGate:
    """A context manager around each call; safe for many threads. A call never begins within a call."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._renew)

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            # A thread that makes a call has no fork under way.
            self._forks.pop(thread, None)
            while (left_s := max(self._forks.values(), default=0.0) - time.monotonic()) > 0:
                self._changed.wait(left_s)
            self._calls.add(thread)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._calls.discard(threading.get_ident())
            if self._forks and not self._calls:
                self._changed.notify_all()

    def _close(self) -> None:
        with self._changed:
            now = time.monotonic()
            self._forks[threading.get_ident()] = now + SHUT_MAX_S
            end = now + QUIET_WITHIN_S
            while self._calls and (left_s := end - time.monotonic()) > 0:
                self._changed.wait(left_s)
            if self._calls:
                _log.warning("forking during %d gRPC calls, so the child may be unable to make any", len(self._calls))

    def _open(self) -> None:
        with self._changed:
            self._forks.pop(threading.get_ident(), None)
            self._changed.notify_all()

    def _renew(self) -> None:
        # In a child, the threads that were within a call, or held the lock, are not there any more.
        self._changed = threading.Condition(threading.Lock())
        # By thread, not counted: whatever an error out of a signal handler left undone is put right by the next time.
        self._calls: set[int] = set()
        #: Thread -> when its fork is over in any case, by time.monotonic.
        self._forks: dict[int, float] = {}


#: The gate of this process.
CALLS = CallGate()
