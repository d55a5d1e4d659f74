"""Runs cases in turn, several rounds, and shows medians and spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """
    :param run: what is timed.
    :param before: makes what ``run`` needs; not timed, nor is ``after``, which checks the result and tidies up.
    """

    name: str
    run: Callable[[], object]
    after: Callable[[], object] = lambda: None
    before: Callable[[], object] = lambda: None


@dataclass
class Measured:
    """Wall times of one case, and this process's CPU time in it, in seconds."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def in_turn(things: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """All things once to warm up, as round -1, then ``rounds`` times from round 0, each round from another one on."""
    for number in range(-1, rounds):
        shift = number % len(things) if things else 0
        for thing in [*things[shift:], *things[:shift]]:
            yield number, thing


def interleaved(cases: Sequence[Case], rounds: int) -> dict[str, Measured]:
    """Run all cases once to warm up, then ``rounds`` times in turn, each round from another one on."""
    measured = {case.name: Measured() for case in cases}
    for number, case in in_turn(cases, rounds):
        case.before()
        started, cpu = time.perf_counter(), time.process_time()
        case.run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        case.after()
        if number >= 0:
            measured[case.name].seconds.append(seconds)
            measured[case.name].cpu_seconds.append(cpu_seconds)
    return measured


def show(measured: dict[str, Measured], *, size_bytes: int, json_path: Path | None = None) -> None:
    """Print a table; write all figures to ``json_path`` where given.

    :param size_bytes: moved by each case, for the column MB/s (1 MB = 10^6 bytes).
    """
    table = Table("case", "median s", "min s", "max s", "MB/s", "our CPU s")
    for name, one in measured.items():
        table.add_row(
            name,
            f"{one.median_s:.3f}",
            f"{min(one.seconds):.3f}",
            f"{max(one.seconds):.3f}",
            f"{size_bytes / one.median_s / 1e6:.0f}",
            f"{statistics.median(one.cpu_seconds):.3f}",
        )
    Console().print(table)
    if json_path is not None:
        figures = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "size_bytes": size_bytes,
            "cases": {name: vars(one) for name, one in measured.items()},
        }
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
