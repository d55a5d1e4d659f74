"""Threads for one piece of work with many parts: what waits is queued, all outcomes come back, and the process may end
without them.

Not :class:`concurrent.futures.ThreadPoolExecutor`, whose threads keep a process that is told to end: a server may be
silent for a minute. Nor the crew (:mod:`rucio_cs3.cs3.crew`): what that cannot do at once its caller does without, so
it has no queue, and it outlives all work; a team belongs to one caller, in one process, and ends with its work.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


class Team:
    """So many threads, made when there is work; safe for several threads, not across a fork. Stop it at the end.

    Nobody here waits by Thread.join or is_alive: on Python 3.11 a join that Ctrl-C interrupts makes a running thread
    look ended.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._changed = threading.Condition()
        self._threads = 0
        self._todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        #: What somebody may wait for.
        self._open: set[Future[object]] = set()
        self._under_way = 0
        self._over = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have work done; what was submitted first is begun first.

        :returns: what becomes of it; CancelledError when :meth:`stop` was called before it was done.
        """
        future: Future[_T] = Future()
        with self._changed:
            if self._over:
                future.set_exception(CancelledError())
                return future
            self._open.add(future)  # type: ignore[arg-type]
            self._todo.put(lambda: self._do(work, future))
            if self._threads < min(self._most, len(self._open)):
                self._threads += 1
                # A daemon: a server that is silent does not keep the process.
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def check(self) -> None:
        """To be called by work, often, where it can end early.

        :raises KeyboardInterrupt: after :meth:`stop`. It is what the data path knows for "somebody has pressed Ctrl-C":
            it removes what it has begun, in a hurry, and keeps what the next run can go on with.
        """
        if self._over:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Begin nothing more; whoever waits for what is not done yet gets CancelledError. Idempotent."""
        with self._changed:
            self._over = True
            left, self._open = self._open, set()
            for _ in range(self._threads):
                self._todo.put(lambda: None)
        for future in left:
            future.set_exception(CancelledError())

    def wait(self, within_s: float) -> bool:
        """Wait until all that was submitted is done; after :meth:`stop`, until what was under way has ended.

        :param within_s: longest wait, in seconds.
        :returns: whether that is so.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._open and not self._under_way, within_s)

    def _run(self) -> None:
        while not self._over:
            self._todo.get()()

    def _do(self, work: Callable[[], _T], future: Future[_T]) -> None:
        with self._changed:
            if future not in self._open:
                return
            self._under_way += 1
        try:
            result = work()
        except BaseException as exc:  # raised in the thread that wants the result
            self._done(future, partial(future.set_exception, exc))
        else:
            self._done(future, partial(future.set_result, result))

    def _done(self, future: Future[_T], tell: Callable[[], None]) -> None:
        with self._changed:
            self._under_way -= 1
            # Not there after stop(), which has told it something else.
            if future in self._open:
                self._open.discard(future)
                tell()
            self._changed.notify_all()
