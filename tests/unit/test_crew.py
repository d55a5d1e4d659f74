"""The crew: work is done by other threads, so many at once, and a child of a fork has a crew of its own."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from rucio_cs3.cs3 import crew
from rucio_cs3.cs3.crew import Crew

WAIT_S = 20.0


def test_work_is_done_by_others() -> None:
    done = threading.Event()
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.append(threading.current_thread())
        done.set()

    assert Crew().help(work)
    assert done.wait(WAIT_S)
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon, "nobody waits for it at the end of the process"


def test_who_finds_all_busy_is_told() -> None:
    hands = Crew(2)
    go, busy = threading.Event(), threading.Barrier(3)

    def work() -> None:
        busy.wait(WAIT_S)
        go.wait(WAIT_S)

    assert hands.help(work)
    assert hands.help(work)
    busy.wait(WAIT_S)
    assert not hands.help(work)
    go.set()


class _Interrupted(Exception):
    """What a signal handler raises."""


@pytest.mark.parametrize("failure", [RuntimeError("can't start new thread"), _Interrupted(), MemoryError()])
def test_work_without_a_thread_is_nobodys(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """It is not done later, by a thread that somebody else has made."""
    hands = Crew(1)
    stale, fresh = threading.Event(), threading.Event()

    def fail(thread: threading.Thread) -> None:
        raise failure

    monkeypatch.setattr(threading.Thread, "start", fail)
    if isinstance(failure, RuntimeError):
        assert not hands.help(stale.set)
    else:
        with pytest.raises(type(failure)):
            hands.help(stale.set)
    monkeypatch.undo()
    assert hands.help(fresh.set)
    assert fresh.wait(WAIT_S)
    # And the one thread is free again.
    last = threading.Event()
    until(lambda: hands.help(last.set))
    assert last.wait(WAIT_S)
    assert not stale.is_set()


@pytest.mark.parametrize("begun", [True, False], ids=["after", "before"])
def test_a_signal_while_a_thread_begins(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """Either the work is done, or it never will be; in both cases the thread is one of the crew's again."""
    monkeypatch.setattr(crew, "_IDLE_S", 0.01)
    hands = Crew(1)
    worked, started = threading.Event(), threading.Event()
    real_start = threading.Thread.start
    late: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if begun:
            real_start(thread)
            assert worked.wait(WAIT_S)
        else:
            late.append(thread)
        raise _Interrupted

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(_Interrupted):
        hands.help(worked.set)
    monkeypatch.setattr(threading.Thread, "start", real_start)
    for thread in late:
        thread.start()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert worked.is_set() is begun
    until(lambda: hands.help(started.set))
    assert started.wait(WAIT_S)


def test_work_that_fails_costs_one_thread_and_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Crew(1)
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda arguments: told.set())

    def fail() -> None:
        raise ValueError

    assert hands.help(fail)
    assert told.wait(WAIT_S)
    done = threading.Event()
    until(lambda: hands.help(done.set))
    assert done.wait(WAIT_S)


def test_an_idle_thread_holds_nothing() -> None:
    class Buffer:
        pass

    hands = Crew(1)
    buffer = Buffer()
    kept = weakref.ref(buffer)
    done = threading.Event()

    def work(buffer: Buffer = buffer) -> None:
        done.set()

    assert hands.help(work)
    assert done.wait(WAIT_S)
    del work, buffer
    until(lambda: kept() is None)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_threads_are_used_again() -> None:
    hands = Crew(1)
    names: set[str] = set()
    for _ in range(20):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            names.add(str(threading.get_ident()))
            done.set()

        # The one thread may be just finishing.
        until(functools.partial(hands.help, work))
        assert done.wait(WAIT_S)
    assert len(names) == 1


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_IDLE_S", 0.01)
    threads: list[threading.Thread] = []
    done = threading.Event()
    hands = Crew()

    def work() -> None:
        threads.append(threading.current_thread())
        done.set()

    hands.help(work)
    assert done.wait(WAIT_S)
    threads[0].join(WAIT_S)
    assert not threads[0].is_alive()
    again = threading.Event()
    assert hands.help(again.set)
    assert again.wait(WAIT_S)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_a_crew_of_its_own() -> None:
    started = threading.Event()
    assert crew.CREW.help(started.set)
    assert started.wait(WAIT_S)
    child = os.fork()
    if not child:
        helped = threading.Event()
        os._exit(0 if crew.CREW.help(helped.set) and helped.wait(WAIT_S) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
