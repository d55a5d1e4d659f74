"""Figures as tables, for the terminal and for the page. Pure; each table says what it is in its title."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from figures import Cell, Duel, Figures
from peers import Operation, Peer
from registry import OURS, PEERS, peer_class
from rich.table import Table as RichTable

_SMALL = 4096
_MIB = 1024**2

#: What stands where nothing was measured.
NONE = "\N{EN DASH}"

_BOTH: tuple[Operation, ...] = ("put", "get")
_ALL: tuple[Operation, ...] = ("put", "get", "stat", "upload")


@dataclass
class Table:
    """
    :param rows: cells as text; the first of each row is a name, the others are figures.
    """

    title: str
    head: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    names: int = 1

    def markdown(self) -> str:
        lines = [list(self.head), ["---"] * self.names + ["---:"] * (len(self.head) - self.names), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left")
        for number, name in enumerate(self.head):
            table.add_column(name, justify="left" if number < self.names else "right", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*row)
        return table


def size_text(size: int) -> str:
    for unit, name in ((1024**3, "GiB"), (_MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def goals(figures: Figures) -> Table:
    """What was wanted of our own, and whether it is so: by duels, where two are compared.

    Of a gigabyte the fastest of each are compared: what disturbs it only makes it slower, and with memory that its host
    gives late a virtual machine takes twice as long, now for the one and now for the other.
    """
    table = Table("Goals", ["goal", "measured", "reached", "middle half", "beside it"], names=5)

    def add(
        goal: str,
        measured: float | None,
        form: str,
        *,
        least: float = 0.0,
        most: float = math.inf,
        all_of_it: Sequence[float] = (),
        beside: str = "",
    ) -> None:
        if measured is not None:
            # Judged as it is shown.
            shown = form.format(measured)
            reached = least <= float(shown.split()[0]) <= most
            low, _, high = statistics.quantiles(all_of_it, n=4) if len(all_of_it) > 1 else (0.0, 0.0, 0.0)
            half = f"{form.split()[0].format(low)} to {form.format(high)}" if high else NONE
            table.rows.append([goal, shown, "yes" if reached else "no", half, beside])

    # Of smaller ones curl's start is more than what is compared.
    for largest in sorted({one.size for one in figures.duels if one.size >= _MIB}):
        for operation, least in zip(_BOTH, (1.0, 0.95), strict=True):
            if one := figures.duel(operation, largest):
                goal = f"{operation} of {size_text(largest)} at {least:.2f} of curl's speed or more"
                curl_s, ours_s = (min(taken) for taken in zip(*one.pairs, strict=True))
                beside = f"curl {largest / curl_s / 1e6:.0f} MB/s, ours {largest / ours_s / 1e6:.0f}"
                add(goal, curl_s / ours_s, "{:.2f}", least=least, all_of_it=one.ratios, beside=beside)
    add("64 MiB of memory above start or less, for any size", _most_memory(figures), "{:.0f} MiB", most=64)
    for operation, most in zip(_BOTH, (2.5, 2.2), strict=True):
        if one := figures.duel(operation, _SMALL):
            goal = f"{operation} of 4 KiB by the Rucio protocol in {most} ms or less"
            bare_s, _ = _medians(one)
            taken = [ours_s * 1000 for _, ours_s in one.pairs]
            beside = f"the bare calls alone take {bare_s * 1000:.1f} ms"
            add(goal, statistics.median(taken), "{:.1f} ms", most=most, all_of_it=taken, beside=beside)
    if one := figures.duel("stat", _SMALL):
        ratios = [1 / ratio for ratio in one.ratios]
        beside = "{:.2f} ms bare, ours {:.2f}".format(*(taken * 1000 for taken in _medians(one)))
        goal = "stat in 1.1 times a bare stub's call or less"
        add(goal, statistics.median(ratios), "{:.2f}", most=1.1, all_of_it=ratios, beside=beside)
    for module in figures.imports[:1]:
        above_ms = statistics.median(module.milliseconds)
        add(f"import in 150 ms or less above `{module.above}`", above_ms, "{:.0f} ms", most=150)
    return table


def large(figures: Figures, size: int, at_once: int) -> Table:
    table = Table(
        f"{size_text(size)}, {at_once} at a time",
        [
            "",
            "put MB/s",
            "of curl",
            "get MB/s",
            "of curl",
            "CPU s put",
            "CPU s get",
            "MiB put",
            "MiB get",
            "put verifies",
            "get verifies",
        ],
    )
    for name in _measured(figures, size, at_once):
        put, get = (figures.cell(name, operation, size, at_once) for operation in _BOTH)
        row = [figures.labels[name]]
        for operation, cell in zip(_BOTH, (put, get), strict=True):
            row += [_speed(cell) or _failed(figures, name, operation, size, at_once)]
            row += [_text(_ratio(figures, operation, size, name, at_once), "{:.2f}")]
        row += [_text(None if cell is None else cell.cpu_per_file_s, "{:.2f}") for cell in (put, get)]
        row += [_memory(cell, peer_class(name)) for cell in (put, get)]
        row += [_verified(figures, name, way) for way in ("upload", "download")]
        table.rows.append(row)
    return table


def small(figures: Figures) -> Table:
    """4 KiB: one after the other, in ms for each, and several at a time, in files in a second."""
    at_once = max((one.at_once for one in figures.samples), default=1)
    table = Table(
        f"{size_text(_SMALL)}",
        [
            "",
            *(f"{operation} ms" for operation in _ALL),
            *(f"{operation}/s, {at_once} at a time" for operation in _BOTH),
            "CPU ms put",
            "CPU ms get",
            "ready after ms",
        ],
    )
    for name in PEERS:
        if not any(one.peer == name and one.size == _SMALL for one in figures.samples):
            continue
        single = [figures.cell(name, operation, _SMALL, 1) for operation in _ALL]
        many = [figures.cell(name, operation, _SMALL, at_once) for operation in _BOTH]
        table.rows.append(
            [
                figures.labels[name],
                *(_spread(cell) for cell in single),
                *(_text(None if cell is None else 1 / cell.median_s, "{:.0f}") for cell in many),
                *(_text(None if cell is None else cell.cpu_per_file_s * 1000, "{:.1f}") for cell in single[:2]),
                _text(figures.ready_s[name] * 1000 if name in figures.ready_s else None, "{:.0f}"),
            ]
        )
    return table


def far(figures: Figures) -> Table:
    round_trip_ms = figures.far_link.get("round_trip_ms", 0.0)
    table = Table(
        f"Over a link of {round_trip_ms:.0f} ms there and back",
        [
            "",
            *(f"{operation}, first, ms" for operation in _ALL),
            *(f"{operation}, next, ms" for operation in _ALL),
            "put 64 MiB, MB/s",
            "get 64 MiB, MB/s",
        ],
    )
    for row in figures.far:
        table.rows.append(
            [
                figures.labels[row.peer],
                *(_trips(row.first_s.get(operation), round_trip_ms) for operation in _ALL),
                *(_trips(row.next_s.get(operation), round_trip_ms) for operation in _ALL),
                *(
                    _text(64 * _MIB / row.large_s[operation] / 1e6 if operation in row.large_s else None, "{:.0f}")
                    for operation in _BOTH
                ),
            ]
        )
    return table


def noticed(figures: Figures) -> Table:
    damages = list(dict.fromkeys(one.damage for one in figures.notices))
    table = Table("What is noticed", ["", *damages], names=1 + len(damages))
    for name in PEERS:
        results = {one.damage: one.result for one in figures.notices if one.peer == name}
        if results:
            table.rows.append([figures.labels[name], *(_marked(results.get(damage, NONE)) for damage in damages)])
    return table


def profile(figures: Figures, operation: Operation) -> Table | None:
    for one in figures.profiles:
        if one.operation == operation:
            whole = sum(wall for _, wall, _ in one.places) or 1.0
            rows = [
                [place, f"{wall / whole:.0%}", f"{wall * 1000:.0f}", f"{processor * 1000:.0f}"]
                for place, wall, processor in one.places
                if wall / whole >= 0.005
            ]
            title = f"{operation} of {size_text(one.size)} by CS3Storage"
            return Table(title, [operation, "of the time", "ms", "of these the processor works, ms"], rows)
    return None


def imports(figures: Figures) -> Table:
    table = Table("Import of the plugin", ["above", "ms", "most of it"], names=1)
    for one in figures.imports:
        most = sorted(one.parts.items(), key=lambda part: -part[1])[:5]
        spread = _with_range(statistics.median(one.milliseconds), one.milliseconds, "{:.0f}")
        table.rows.append([f"`{one.above}`", spread, ", ".join(f"{name} {ms:.0f}" for name, ms in most)])
    return table


def everything(figures: Figures, operation: Operation) -> Table:
    """Medians of all sizes, in ms for each file."""
    columns = [
        (size, at_once)
        for at_once in sorted({one.at_once for one in figures.samples})
        for size in figures.sizes(at_once)
    ]
    head = [f"{size_text(size)}" + (f", {at_once} at a time" if at_once > 1 else "") for size, at_once in columns]
    table = Table(f"{operation}, ms for each file", [operation, *head])
    for name in PEERS:
        cells = [figures.cell(name, operation, size, at_once) for size, at_once in columns]
        if any(cells):
            table.rows.append([figures.labels[name], *(_milliseconds(cell) for cell in cells)])
    return table


def failures(figures: Figures) -> Table:
    table = Table("What failed", ["", "case", "what it said"], names=3)
    for one in figures.failures:
        case = f"{one.operation} {size_text(one.size)}, {one.at_once} at a time"
        table.rows.append([figures.labels[one.peer], case, one.error])
    for row in figures.far:
        table.rows += [[figures.labels[row.peer], "far from the cloud", error] for error in row.errors]
    return table


def _most_memory(figures: Figures) -> float | None:
    cells = [
        figures.cell(name, operation, size, 1) for name in OURS for operation in _BOTH for size in figures.sizes(1)
    ]
    return max((cell.above_mib for cell in cells if cell is not None), default=None)


def _measured(figures: Figures, size: int, at_once: int) -> list[str]:
    tried = [
        *((one.peer, one.size, one.at_once) for one in figures.samples if one.operation in _BOTH),
        *((one.peer, one.size, one.at_once) for one in figures.failures if one.operation in _BOTH),
    ]
    return [name for name in PEERS if (name, size, at_once) in tried]


def _medians(duel: Duel) -> tuple[float, float]:
    """Seconds of the yardstick and of ours."""
    yardstick_s, ours_s = zip(*duel.pairs, strict=True)
    return statistics.median(yardstick_s), statistics.median(ours_s)


def _ratio(figures: Figures, operation: Operation, size: int, name: str = "storage", at_once: int = 1) -> float | None:
    ours, curl = (figures.cell(one, operation, size, at_once) for one in (name, "curl"))
    return curl.median_s / ours.median_s if ours and curl else None


def _verified(figures: Figures, name: str, way: str) -> str:
    """What a peer proves of what arrived, as it has shown on the damaging link."""
    results = {one.damage: one.result for one in figures.notices if one.peer == name}
    fewer, flipped = (results.get(f"{way}, {damage}") for damage in ("fewer bytes", "a flipped bit"))
    if fewer is None or flipped is None:
        return NONE
    if fewer == "not noticed":
        return "nothing"
    return "size" if flipped == "not noticed" else "size, content"


def _text(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _speed(cell: Cell | None) -> str | None:
    if cell is None:
        return None
    return _with_range(cell.bytes_per_s / 1e6, [cell.size / seconds / 1e6 for seconds in cell.per_file_s], "{:.0f}")


def _failed(figures: Figures, name: str, operation: Operation, size: int, at_once: int) -> str:
    return "failed" if figures.failure(name, operation, size, at_once) else NONE


def _spread(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    return _with_range(cell.median_s * 1000, [seconds * 1000 for seconds in cell.per_file_s], "{:.1f}")


def _with_range(median: float, values: Sequence[float], form: str) -> str:
    return f"{form} ({form}\N{EN DASH}{form})".format(median, min(values), max(values))


def _milliseconds(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    value = cell.median_s * 1000
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _memory(cell: Cell | None, kind: type[Peer]) -> str:
    if cell is None or not cell.peak_mib:
        return NONE
    return f"{cell.peak_mib:.0f}" if kind.starts else f"{cell.above_mib:.0f}"


def _trips(seconds: float | None, round_trip_ms: float) -> str:
    return NONE if seconds is None else f"{seconds * 1000:.0f} ({seconds * 1000 / round_trip_ms:.1f})"


def _marked(result: str) -> str:
    return f"**{result}**" if result == "not noticed" else result
