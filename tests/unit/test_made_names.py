"""Which names a thread has made last."""

from __future__ import annotations

import threading

from rucio_cs3.made_names import MadeNames


def test_what_comes_after_a_name_is_what_was_made_after_it() -> None:
    names = MadeNames()
    for name in "abcd":
        names.add([name])
    assert list(names.after("a")) == ["b", "c", "d"]
    assert list(names.after("c")) == ["d"]
    assert list(names.after("d")) == []


def test_a_name_that_was_not_made_has_no_next() -> None:
    names = MadeNames()
    names.add("abc")
    assert list(names.after("x")) == []
    assert list(names.after("a")) == ["b", "c"]


def test_each_thread_has_its_own() -> None:
    names = MadeNames()
    names.add("abc")
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(list(names.after("a"))))
    thread.start()
    thread.join()
    assert seen == [[]]


def test_a_server_that_makes_names_for_ever_keeps_few() -> None:
    names = MadeNames(most=10)
    for number in range(1000):
        names.add([str(number)])
    assert list(names.after("5")) == []
    assert list(names.after("998")) == ["999"]
    names.add(str(number) for number in range(1000, 1100))
    assert list(names.after("1090")) == [str(number) for number in range(1091, 1100)]
