"""Threads that nobody waits for: what they do may be broken off at any moment without harm, and ends with the process.

Not :class:`concurrent.futures.ThreadPoolExecutor`, whose threads keep a process that is told to end: a server may be
silent for a minute.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


class Pool:
    """So many threads, made when there is work; safe for several threads."""

    def __init__(self, threads: int, name: str) -> None:
        self._most = threads
        self._name = name
        self._lock = threading.Lock()
        self._threads = 0
        self._todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: set[Future[object]] = set()
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether :meth:`stop` was called; for work that looks now and then."""
        return self._over

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have work done.

        :returns: what becomes of it; CancelledError when :meth:`stop` was called before it was done.
        """
        future: Future[_T] = Future()
        with self._lock:
            if self._over:
                future.set_exception(CancelledError())
                return future
            self._open.add(future)  # type: ignore[arg-type]
            self._todo.put(lambda: self._do(work, future))
            if self._threads < min(self._most, len(self._open)):
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def stop(self) -> None:
        """Begin nothing more; whoever waits for what is not done yet gets CancelledError. Idempotent."""
        with self._lock:
            self._over = True
            left, self._open = self._open, set()
            for _ in range(self._threads):
                self._todo.put(lambda: None)
            for future in left:
                future.set_exception(CancelledError())

    def _run(self) -> None:
        while not self._over:
            self._todo.get()()

    def _do(self, work: Callable[[], _T], future: Future[_T]) -> None:
        try:
            result = work()
        except BaseException as exc:
            self._done(future, partial(future.set_exception, exc))
        else:
            self._done(future, partial(future.set_result, result))

    def _done(self, future: Future[_T], tell: Callable[[], None]) -> None:
        with self._lock:
            # Not there after stop(), which has told it something else.
            if future in self._open:
                self._open.discard(future)
                tell()
