"""Which mode is tried first: what the RSEs ask for, what the ends have proven, and how often it was tried before."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.transfers import modes
from rucio_cs3.transfers.modes import Mode, Wish, agree, in_order

PULL, PUSH, RELAY = Mode.PULL, Mode.PUSH, Mode.RELAY
WISHES: tuple[Wish, ...] = ("auto", "pull", "push", "relay")


def says(answer: bool) -> Callable[[], bool]:
    return lambda: answer


def fails(error: errors.CS3Error) -> Callable[[], bool]:
    def ask() -> bool:
        raise error

    return ask


def must_not_be_asked() -> bool:
    raise AssertionError("nobody was to be asked")


@pytest.mark.parametrize(("source", "destination"), list(itertools.product(WISHES, WISHES)))
def test_wishes_agree_or_the_conflict_is_named(source: Wish, destination: Wish) -> None:
    wishes = {source, destination} - {"auto"}
    if len(wishes) == 2:
        with pytest.raises(errors.ConfigurationError, match="cs3_transfer_mode") as caught:
            agree(source, destination)
        assert source in str(caught.value)
        assert destination in str(caught.value)
    else:
        assert agree(source, destination) == next(iter(wishes), "auto")


@pytest.mark.parametrize(("wish", "mode"), [("pull", PULL), ("relay", RELAY)])
@pytest.mark.parametrize("attempt", [0, 5])
def test_a_wish_is_the_only_mode_and_nobody_is_asked(wish: Wish, mode: Mode, attempt: int) -> None:
    order = in_order(
        wish, source_speaks_tpc=must_not_be_asked, destination_speaks_tpc=must_not_be_asked, attempt=attempt
    )
    assert order == [mode]


@pytest.mark.parametrize("attempt", [0, 5])
def test_a_wish_for_push_is_granted_to_a_source_that_has_proven_it(attempt: int) -> None:
    asked = in_order("push", source_speaks_tpc=says(True), destination_speaks_tpc=must_not_be_asked, attempt=attempt)
    assert asked == [PUSH]
    with pytest.raises(errors.Unsupported, match="cs3_transfer_mode"):
        in_order("push", source_speaks_tpc=says(False), destination_speaks_tpc=must_not_be_asked, attempt=attempt)


@pytest.mark.parametrize(
    ("source", "destination", "attempt", "order"),
    [
        (True, True, 0, [PULL, PUSH, RELAY]),
        (True, True, 1, [PUSH, RELAY, PULL]),
        (True, True, 2, [RELAY, PULL, PUSH]),
        (True, True, 9, [RELAY, PULL, PUSH]),
        (False, True, 0, [PULL, RELAY]),
        (False, True, 1, [RELAY, PULL]),
        (True, False, 0, [PUSH, RELAY]),
        (True, False, 7, [RELAY, PUSH]),
        (False, False, 0, [RELAY]),
        (False, False, 3, [RELAY]),
    ],
)
def test_the_order(source: bool, destination: bool, attempt: int, order: list[Mode]) -> None:
    asked = in_order("auto", source_speaks_tpc=says(source), destination_speaks_tpc=says(destination), attempt=attempt)
    assert asked == order


def test_a_push_is_never_tried_by_a_source_that_has_not_proven_it() -> None:
    for destination, attempt in itertools.product((True, False), range(4)):
        order = in_order(
            "auto", source_speaks_tpc=says(False), destination_speaks_tpc=says(destination), attempt=attempt
        )
        assert PUSH not in order


def test_an_end_that_cannot_be_asked_is_done_without() -> None:
    away = fails(errors.Unavailable("no route"))
    assert in_order("auto", source_speaks_tpc=says(True), destination_speaks_tpc=away) == [PUSH, RELAY]
    assert in_order("auto", source_speaks_tpc=away, destination_speaks_tpc=says(True)) == [PULL, RELAY]
    assert in_order("auto", source_speaks_tpc=away, destination_speaks_tpc=says(False)) == [RELAY]


def test_neither_end_can_be_asked() -> None:
    with pytest.raises(errors.Unavailable, match="the source is away"):
        in_order(
            "auto",
            source_speaks_tpc=fails(errors.Unavailable("the source is away")),
            destination_speaks_tpc=fails(errors.Unavailable("the destination is away")),
        )


@pytest.mark.parametrize("busy", ["source", "destination"])
def test_an_end_that_asks_to_be_left_alone_is_left_alone(busy: str) -> None:
    throttled = fails(errors.Throttled("slow down", retry_after_s=30.0))
    with pytest.raises(errors.Throttled, match="slow down"):
        in_order(
            "auto",
            source_speaks_tpc=throttled if busy == "source" else says(True),
            destination_speaks_tpc=throttled if busy == "destination" else says(True),
        )


def test_modes_are_named_as_in_settings() -> None:
    assert {mode.value for mode in modes.Mode} | {"auto"} == set(WISHES)


@pytest.mark.parametrize(
    ("order", "expected"),
    [([PUSH], [RELAY]), ([PULL, PUSH, RELAY], [PULL, RELAY]), ([PUSH, RELAY, PULL], [RELAY, PULL]), ([PULL], [PULL])],
)
def test_an_empty_file_is_never_pushed(order: list[Mode], expected: list[Mode]) -> None:
    assert modes.without_bytes(order) == expected
