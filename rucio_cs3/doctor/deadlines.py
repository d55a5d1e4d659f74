"""Work with a deadline, in a thread that nobody waits for at the end of the process.

**Nobody here waits by Thread.join or is_alive**: on Python 3.11 a join that Ctrl-C interrupts makes a running thread
look ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from rucio_cs3.cs3 import errors

Result = TypeVar("Result")


class Work(Generic[Result]):
    """A function that runs in a thread of its own, from now on.

    :param name: of the thread.
    """

    def __init__(self, name: str, function: Callable[[], Result]) -> None:
        self._function = function
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # whatever it is, it belongs to who asks for the result
            self._error = error
        finally:
            self._ended.set()

    def wait(self, within_s: float) -> bool:
        """
        :param within_s: longest wait, in seconds.
        :returns: whether it has ended.
        """
        return self._ended.wait(max(within_s, 0.0))

    def result(self) -> Result:
        """What the ended function returned, or the error that it raised."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


def within(deadline_s: float, what: str, function: Callable[[], Result]) -> Result:
    """What a function returns.

    :param what: who is silent then, for people.
    :raises DeadlineExceeded: when it has not ended after so many seconds.
    """
    work = Work("doctor-within", function)
    work.start()
    if not work.wait(deadline_s):
        raise errors.DeadlineExceeded(f"{what} has not answered within {deadline_s:.0f} s")
    return work.result()
