"""Between which kinds of cloud, and in which modes, a transfer can go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from rucio_cs3.transfers.modes import Wish

#: Source, destination, and the modes that these two can do.
PAIRS: Mapping[tuple[str, str], tuple[Wish, ...]] = {
    ("v3", "v3"): ("pull", "push", "relay"),
    ("v3", "spaces"): ("push", "relay"),
    ("spaces", "v3"): ("pull", "relay"),
    ("spaces", "spaces"): ("relay",),
    ("reva", "reva"): ("pull", "push", "relay"),
}


def every_way() -> Iterator[tuple[tuple[str, str], Wish]]:
    """Each pair of kinds with each of its modes."""
    for kinds, modes in PAIRS.items():
        for mode in modes:
            yield kinds, mode


def label(kinds: tuple[str, str], mode: Wish) -> str:
    """For the name of a test."""
    return f"{kinds[0]}-{kinds[1]}-{mode}"


def marks_of(kinds: tuple[str, str]) -> list[pytest.MarkDecorator]:
    return [pytest.mark.reva] if "reva" in kinds else []


def in_every_way(
    fits: Callable[[tuple[str, str], Wish], bool] = lambda kinds, mode: True,
) -> pytest.MarkDecorator:
    """Run a test with ``kinds`` and ``mode`` for each way that fits."""
    ways = [(kinds, mode) for kinds, mode in every_way() if fits(kinds, mode)]
    return pytest.mark.parametrize(
        ("kinds", "mode"),
        [pytest.param(kinds, mode, marks=marks_of(kinds), id=label(kinds, mode)) for kinds, mode in ways],
    )
