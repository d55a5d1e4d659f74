"""Many pieces of work in a few threads, with all their outcomes, and an end within two seconds when that is wanted.

Nothing here grows with the number of pieces: they are taken from an iterator only as fast as they are done.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from rucio_cs3.cs3 import errors
from rucio_cs3.files.outcomes import Outcome

#: Called with bytes that have just moved, from any thread; negative where they move again.
Watch = Callable[[int], None]

#: One piece of work; it calls what it is given with the bytes that moved, often.
Work = Callable[[Watch], Outcome]

#: Pieces that wait for each thread, so that none is idle while the next folder is listed.
_AHEAD = 8

#: How long threads are waited for once all is over, in seconds, and how often they are woken meanwhile. They end with
#: the next bytes that move, and remove what they have begun; one whose gateway is silent dies with the process.
_GRACE_S = 2.0
_STEP_S = 0.1

#: So many failures one after the other say that the cloud is away, and that the rest would fail, too.
_PATIENCE = 20

#: After one of these no other file has a chance.
_HOPELESS = (errors.Unauthenticated, errors.ConfigurationError, errors.NoSpaceLeft, errors.LocalNoSpaceLeft)

#: What a cloud that is away shows as.
_AWAY = (errors.Unavailable, errors.DeadlineExceeded)


def outcomes(
    things: Iterable[Outcome | Work],
    *,
    threads: int,
    watch: Watch | None = None,
    break_off: Callable[[], object] | None = None,
) -> Generator[Outcome, None, None]:
    """Do all the work, and hand out each outcome when it is known; those that are known already come through.

    Close the iterator, or leave it by an error (KeyboardInterrupt), to end early: nothing more is begun, and what is
    under way ends with the next bytes that it moves, as if Ctrl-C had been pressed there.

    :param threads: most pieces at a time; with 1 the caller's own thread does them.
    :param watch: called with the bytes that move.
    :param break_off: called at an early end, to wake the threads that wait for a network which is slow or silent. What
        breaks off a storage breaks it off for the whole process, so only a program that ends then gives one.
    :raises Cancelled: after a failure that all others would share: no login, no room, a cloud that is away.
    """
    rest = iter(things)
    taken = handed_out = failures = 0

    def counted() -> Iterator[Outcome | Work]:
        nonlocal taken
        for thing in rest:
            taken += 1
            yield thing

    with contextlib.closing(_all(counted(), threads, watch or _nobody, break_off or _no_one)) as done:
        for outcome in done:
            handed_out += 1
            yield outcome
            failures = failures + 1 if isinstance(outcome.error, _AWAY) else 0
            if isinstance(outcome.error, _HOPELESS) or failures >= _PATIENCE:
                break
        else:
            return
    if taken > handed_out or next(rest, None) is not None:
        raise errors.Cancelled("given up, because the other files would fail as well")


def _all(
    things: Iterable[Outcome | Work], threads: int, watch: Watch, break_off: Callable[[], object]
) -> Generator[Outcome, None, None]:
    if threads == 1:
        for thing in things:
            yield thing if isinstance(thing, Outcome) else thing(watch)
        return
    team = _Team(threads, watch)
    is_early = True
    try:
        for thing in things:
            if isinstance(thing, Outcome):
                yield thing
                continue
            team.take(thing)
            yield from team.ready()
            while team.is_full:
                yield team.next()
        while team.is_busy:
            yield team.next()
        is_early = False
    finally:
        team.end(break_off if is_early else _no_one)


class _Team:
    """Threads that begin when there is work, and what they have done."""

    def __init__(self, most: int, watch: Watch) -> None:
        self._most = most
        self._watch = watch
        self._todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        #: Pieces that were taken, and whose outcome was not handed out.
        self._open = 0
        self._over = threading.Event()

    @property
    def is_full(self) -> bool:
        return self._open >= self._most * _AHEAD

    @property
    def is_busy(self) -> bool:
        return self._open > 0

    def take(self, work: Work) -> None:
        self._open += 1
        self._todo.put(work)
        if len(self._threads) < min(self._most, self._open):
            # Daemons: a server that is silent does not keep the process.
            thread = threading.Thread(target=self._run, name="cs3-files", daemon=True)
            thread.start()
            self._threads.append(thread)

    def ready(self) -> Iterator[Outcome]:
        """What is done by now."""
        while not self._done.empty():
            yield self.next()

    def next(self) -> Outcome:
        """The next outcome, as soon as there is one."""
        outcome = self._done.get()
        self._open -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def end(self, break_off: Callable[[], object]) -> None:
        """All is over; wait a little for the threads, and call ``break_off`` while one is at work."""
        self._over.set()
        for _ in self._threads:
            self._todo.put(None)
        until = time.monotonic() + _GRACE_S
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < until:
                # Again and again: what broke is tried once more by those who do not know why.
                break_off()
                thread.join(_STEP_S)

    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            if self._over.is_set():
                return
            try:
                self._done.put(work(self._told))
            except BaseException as exc:  # raised by next(), in the thread that wants the outcomes
                self._done.put(exc)

    def _told(self, count: int) -> None:
        if self._over.is_set():
            # What the data path knows for "somebody has pressed Ctrl-C": it removes what it has begun, in a hurry, and
            # keeps what the next run can go on with.
            raise KeyboardInterrupt
        self._watch(count)


def _nobody(_: int) -> None:
    pass


def _no_one() -> None:
    pass
