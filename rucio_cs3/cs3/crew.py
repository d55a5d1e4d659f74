"""The threads of this process that help its transfers: made when first needed, shared by all, and never waited for.

Streams of a download, and calls that need not wait for each other (:mod:`rucio_cs3.cs3.side_by_side`). They are daemon
threads, so that a process which is told to end does not wait for a server that is silent.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

#: Threads of one process, for all its downloads, uploads and moves together, besides those that call them.
MOST = 16

#: A thread without work ends after so long, in seconds.
_IDLE_S = 30.0

#: How a thread gets its work: from a box of its own, so that work never lies where no thread looks.
_Box = queue.SimpleQueue[Callable[[], None]]


class Crew:
    """Threads that take whatever is to be done; safe for many threads, and for errors out of signal handlers.

    :param most: threads at once; more work than that is not taken, and whoever has it must do without.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        #: Of all threads, and of those that wait for work.
        self._boxes: set[_Box] = set()
        self._idle: list[_Box] = []

    def help(self, work: Callable[[], None]) -> bool:
        """Have ``work`` done soon by another thread; it must raise nothing.

        :returns: False when all are busy, or the machine has no more threads: it is not done then.
        """
        with self._lock:
            if self._idle:
                self._idle.pop().put(work)
                return True
        box: _Box = queue.SimpleQueue()
        box.put(work)
        try:
            with self._lock:
                if len(self._boxes) >= self._most:
                    return False
                self._boxes.add(box)
            threading.Thread(target=self._run, args=(box,), name="cs3-aside", daemon=True).start()
        except BaseException as exc:
            # Whoever takes the work out of the box has it: this thread, which then gives it up, or the new one.
            with contextlib.suppress(queue.Empty):
                box.get_nowait()
                self._end(box)
                if isinstance(exc, RuntimeError):  # "can't start new thread"
                    return False
            raise
        return True

    def _run(self, box: _Box) -> None:
        try:
            while True:
                try:
                    work = box.get(timeout=_IDLE_S)
                except queue.Empty:
                    if self._end(box):
                        return
                    continue
                work()
                # It holds buffers, and files.
                del work
                with self._lock:
                    self._idle.append(box)
        finally:
            self._end(box)

    def _end(self, box: _Box) -> bool:
        """Nobody gives work to this box any more; False where somebody has just done so."""
        with self._lock:
            if box in self._idle:
                self._idle.remove(box)
            if not box.empty():
                return False
            self._boxes.discard(box)
            return True


def _forget() -> None:
    # A forked child has none of its parent's threads.
    global CREW
    CREW = Crew()


CREW = Crew()
os.register_at_fork(after_in_child=_forget)
