"""Two blocking calls at the same time, from one thread that waits for both.

Calls that do not need each other's answers share one round trip. By threads rather than by gRPC's futures: those
(grpcio 1.85) hand all events through one more thread and cost twice the processor time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from rucio_cs3.cs3 import crew

T = TypeVar("T")


class Aside(Generic[T]):
    """A call that another thread makes meanwhile; where none is to be had, the one that asks for its result.

    Whoever does not ask leaves it to itself; where it changes something, :meth:`wait` for it.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._future: Future[T] = Future()
        self._begun = crew.CREW.help(self._run)

    def result(self) -> T:
        """Its answer, or its error; to be asked for once."""
        return self._future.result() if self._begun else self._function()

    def wait(self) -> None:
        """Until it is over, or known never to begin."""
        if self._begun:
            self._future.exception()

    def _run(self) -> None:
        try:
            self._future.set_result(self._function())
        except BaseException as error:  # raised by result(), in the thread that wanted the answer
            self._future.set_exception(error)
