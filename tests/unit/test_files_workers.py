"""Many pieces of work in a few threads: all outcomes, an early end, and memory that does not grow."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.files import workers
from rucio_cs3.files.outcomes import Deed, Outcome, Summary, failed
from rucio_cs3.files.workers import Watch, Work, outcomes


def work(name: str, error: errors.CS3Error | None = None) -> Work:
    def done(watch: Watch) -> Outcome:
        watch(1)
        return failed(name, error) if error else Outcome(deed=Deed.COPIED, name=name, size=1)

    return done


@pytest.mark.parametrize("threads", [1, 4])
def test_all_outcomes_come_once(threads: int) -> None:
    known = Outcome(deed=Deed.SKIPPED, name="known")
    moved: list[int] = []
    things: list[Outcome | Work] = [known, *(work(str(number)) for number in range(200))]
    found = list(outcomes(things, threads=threads, watch=moved.append))
    assert sorted(one.name for one in found) == sorted(["known", *map(str, range(200))])
    assert sum(moved) == 200
    summary = Summary()
    for one in found:
        summary.add(one)
    assert summary.as_dict() == {
        "copied": 200, "would_copy": 0, "same": 0, "skipped": 1, "failed": 0, "bytes": 200, "all_well": True,
    }  # fmt: skip


def test_work_is_taken_only_as_fast_as_it_is_done() -> None:
    taken = 0

    def things() -> Iterator[Work]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield work(str(number))

    for number, _ in enumerate(outcomes(things(), threads=3), 1):
        assert taken <= number + 3 * workers._AHEAD + 1
    assert taken == 10_000


def test_an_early_end_ends_what_is_under_way() -> None:
    begun, ended, woken = threading.Semaphore(0), [], threading.Event()

    def silent(watch: Watch) -> Outcome:
        begun.release()
        # A network that is silent until its connection is broken; then bytes seem to move again.
        assert woken.wait(20)
        try:
            watch(1)
        except KeyboardInterrupt:
            ended.append(1)
            raise
        raise AssertionError("not told")

    def first(watch: Watch) -> Outcome:
        for _ in range(3):
            assert begun.acquire(timeout=20)
        return Outcome(deed=Deed.COPIED, name="first")

    found = outcomes([first, *[silent] * 1000], threads=4, break_off=woken.set)
    assert next(found).name == "first"
    found.close()
    # The thread that was first may have begun one more.
    assert len(ended) == 3 + begun.acquire(blocking=False)
    assert not begun.acquire(blocking=False)


def test_at_a_normal_end_nothing_is_broken_off() -> None:
    """The storage that would be broken off is that of the whole process, and others use it."""
    broken: list[int] = []
    things = [work(str(number)) for number in range(50)]
    assert len(list(outcomes(things, threads=4, break_off=lambda: broken.append(1)))) == 50
    assert broken == []


def test_what_is_wrong_in_a_thread_is_raised() -> None:
    def broken(watch: Watch) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(outcomes([work("x"), broken, work("y")], threads=2))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("error", "most"),
    [
        (errors.Unauthenticated("no"), 3 * workers._AHEAD + 1),
        (errors.NoSpaceLeft("full"), 3 * workers._AHEAD + 1),
        (errors.Unavailable("away"), workers._PATIENCE + 3 * workers._AHEAD + 1),
    ],
)
def test_a_failure_that_all_would_share_ends_it(error: errors.CS3Error, most: int, threads: int) -> None:
    found = outcomes((work(str(number), error) for number in range(500)), threads=threads)
    done: list[Outcome] = []
    with pytest.raises(errors.Cancelled, match="given up"):
        done.extend(found)
    assert 1 <= len(done) <= most
    # The last of all is its own explanation.
    assert [one.error for one in outcomes([work("only", error)], threads=threads)] == [error]
    # And others do not end anything.
    denied = errors.AccessDenied("not this one")
    assert len(list(outcomes([work(str(number), denied) for number in range(100)], threads=threads))) == 100
