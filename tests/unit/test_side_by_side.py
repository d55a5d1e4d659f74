"""Two calls at the same time: answers, errors, and what happens when no thread is free."""

from __future__ import annotations

import threading

import pytest

from rucio_cs3.cs3 import crew, errors
from rucio_cs3.cs3.crew import Crew
from rucio_cs3.cs3.side_by_side import Aside


def test_both_are_under_way_at_once() -> None:
    both = threading.Barrier(2)
    aside = Aside(lambda: both.wait(10) >= 0)
    both.wait(10)  # passes only while the other is waiting, too
    assert aside.result()


def test_its_error_is_raised_where_the_answer_is_wanted() -> None:
    def fail() -> None:
        raise errors.NotFound("nothing is there")

    aside = Aside(fail)
    aside.wait()
    with pytest.raises(errors.NotFound, match="nothing is there"):
        aside.result()


def test_without_a_free_thread_it_is_made_by_the_one_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "CREW", Crew(most=0))
    begun: list[int] = []
    aside = Aside(lambda: begun.append(threading.get_ident()))
    aside.wait()
    assert begun == []
    aside.result()
    assert begun == [threading.get_ident()]


def test_a_machine_without_threads_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "CREW", Crew())

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    # More than one: nothing that the first has left may make the second wait for a thread that is not there.
    assert [Aside(threading.get_ident).result() for _ in range(3)] == [threading.get_ident()] * 3
