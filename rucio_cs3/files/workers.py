"""Many pieces of work in a few threads, with all their outcomes, and an end within two seconds when that is wanted.

Nothing here grows with the number of pieces: they are taken from an iterator only as fast as they are done.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.team import Team
from rucio_cs3.files.outcomes import Outcome

#: Called with bytes that have just moved, from any thread; negative where they move again.
Watch = Callable[[int], None]

#: One piece of work; it calls what it is given with the bytes that moved, often.
Work = Callable[[Watch], Outcome]

#: Pieces that wait for each thread, so that none is idle while the next folder is listed.
_AHEAD = 8

#: How long work under way is waited for at an early end, in seconds, and how often it is woken meanwhile. It ends with
#: the next bytes that move, and removes what it has begun; where a gateway is silent it dies with the process.
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
    team = Team(threads, "cs3-files")
    done: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
    begun = 0

    def told(count: int) -> None:
        team.check()
        watch(count)

    try:
        for thing in things:
            if isinstance(thing, Outcome):
                yield thing
                continue
            team.submit(partial(thing, told)).add_done_callback(done.put)
            begun += 1
            while begun >= threads * _AHEAD or not done.empty():
                yield done.get().result()
                begun -= 1
        for _ in range(begun):
            yield done.get().result()
    except BaseException:
        team.stop()
        until = time.monotonic() + _GRACE_S
        while not team.wait(0.0) and time.monotonic() < until:
            # Again and again: what broke is tried once more by those who do not know why.
            break_off()
            team.wait(_STEP_S)
        raise
    team.stop()


def _nobody(_: int) -> None:
    pass


def _no_one() -> None:
    pass
