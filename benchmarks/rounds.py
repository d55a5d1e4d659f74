"""Takes cases in turn, several rounds, so that a noisy machine is noisy for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """
    :param run: what is timed.
    :param after: checks the result and tidies up; not timed.
    """

    name: str
    run: Callable[[], object]
    after: Callable[[], object] = lambda: None


def in_turn(things: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """All things once to warm up, as round -1, then ``rounds`` times from round 0, each round from another one on."""
    for number in range(-1, rounds):
        shift = number % len(things) if things else 0
        for thing in [*things[shift:], *things[:shift]]:
            yield number, thing
