"""Work with a deadline, in a thread of its own that nobody waits for at the end of the process.

No thread is used twice and none is ended early (as those of :mod:`rucio_cs3.cs3.team` are): a check that is given up
may hang for as long as it likes, and where it writes, its end matters all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from rucio_cs3.cs3 import errors

_T = TypeVar("_T")


def begin(name: str, function: Callable[[], _T], future: Future[_T] | None = None) -> Future[_T]:
    """Run a function in a thread from now on.

    :param name: of the thread.
    :param future: for whoever has to know it before the thread runs; where it was cancelled by then, nothing is run.
    """
    future = Future() if future is None else future

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:  # whatever it is, it belongs to who asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def within(deadline_s: float, what: str, function: Callable[[], _T]) -> _T:
    """What a function returns.

    :param what: who is silent then, for people.
    :raises DeadlineExceeded: when it has not ended after so many seconds.
    """
    future = begin("doctor-within", function)
    # By wait(): a TimeoutError of result() might be the function's own.
    if wait([future], deadline_s).not_done:
        raise errors.DeadlineExceeded(f"{what} has not answered within {deadline_s:.0f} s")
    return future.result()
