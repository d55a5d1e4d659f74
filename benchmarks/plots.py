"""The picture of docs/benchmarks.md, as SVG that fits light and dark pages; blue and orange are told apart by all.

A row for each peer, a panel for each question; uploads are circles, downloads squares, and a line goes from the
fastest round to the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from figures import Figures
from peers import Operation
from registry import OURS, PEERS, peer_class
from tables import size_text

_SMALL = 4096
_LEFT, _WIDTH, _GAP, _RIGHT = 250, 196, 44, 26
_TOP, _ROW = 92, 34
_FOOT = 60

_STYLE = """
    .page { fill: #ffffff }
    .ours { fill: #ddf4ff }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .text { fill: #1f2328 }
    .head { fill: #1f2328; font-weight: 600; font-size: 15px }
    .note { fill: #57606a; font-size: 12px }
    .put { fill: #0550ae; stroke: #0550ae } .get { fill: #bc4c00; stroke: #bc4c00 }
    line.put, line.get { stroke-width: 3; stroke-linecap: round; opacity: 0.45 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .ours { fill: #0c2d4d }
      .grid { stroke: #30363d }
      .text, .head { fill: #e6edf3 }
      .note { fill: #9da7b3 }
      .put { fill: #58a6ff; stroke: #58a6ff } .get { fill: #f0883e; stroke: #f0883e }
    }
"""

#: Least, middle and most.
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class _Panel:
    """
    :param value: what it shows of a peer and an operation; None where there is nothing.
    """

    title: str
    axis: str
    logarithmic: bool
    value: Callable[[str, Operation], Spread | None]


def picture(figures: Figures) -> str:
    """The whole SVG; of peers with at least one figure in one of the panels."""
    panels = _panels(figures)
    operations: tuple[Operation, ...] = ("put", "get")
    shown = [
        name
        for name in PEERS
        if not peer_class(name).whole_folders
        and any(panel.value(name, operation) for panel in panels for operation in operations)
    ]
    width = _LEFT + len(panels) * (_WIDTH + _GAP) - _GAP + _RIGHT
    bottom = _TOP + _ROW * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + _FOOT}" role="img" '
        'aria-labelledby="title desc"\n'
        "     font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\" font-size=\"14\">",
        '  <title id="title">Uploads and downloads by rucio_cs3 and by others</title>',
        f'  <desc id="desc">{escape(_description(figures, shown))}</desc>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="page" width="{width}" height="{bottom + _FOOT}"/>',
        f'  <circle class="put" cx="{_LEFT + 6}" cy="24" r="6"/><text class="text" x="{_LEFT + 20}" y="29">put</text>',
        f'  <rect class="get" x="{_LEFT + 66}" y="18" width="11" height="11"/>'
        f'<text class="text" x="{_LEFT + 86}" y="29">get</text>',
        f'  <text class="note" x="{_LEFT + 130}" y="29">'
        "each at its median; the line goes from the least to the most</text>",
    ]
    for number, name in enumerate(shown):
        top = _TOP + _ROW * number
        if name in OURS:
            parts.append(f'  <rect class="ours" x="0" y="{top}" width="{width}" height="{_ROW}"/>')
        parts.append(
            f'  <text class="text" x="12" y="{top + _ROW / 2 + 5}">{escape(_short(figures.labels[name]))}</text>'
        )
    for number, panel in enumerate(panels):
        parts += _draw(panel, _LEFT + number * (_WIDTH + _GAP), shown, bottom)
    return "\n".join([*parts, "</svg>", ""])


def _short(label: str) -> str:
    return label.replace("rucio_cs3, Rucio protocol", "rucio_cs3, protocol")


def _panels(figures: Figures) -> list[_Panel]:
    largest = max(figures.sizes(1), default=0)

    def speed(name: str, operation: Operation) -> Spread | None:
        cell = figures.cell(name, operation, largest, 1)
        if cell is None:
            return None
        most, least = min(cell.per_file_s), max(cell.per_file_s)
        return largest / least / 1e6, cell.bytes_per_s / 1e6, largest / most / 1e6

    def small(name: str, operation: Operation) -> Spread | None:
        cell = figures.cell(name, operation, _SMALL, 1)
        if cell is None:
            return None
        return min(cell.per_file_s) * 1000, cell.median_s * 1000, max(cell.per_file_s) * 1000

    rows = {row.peer: row for row in figures.far}

    def far(name: str, operation: Operation) -> Spread | None:
        if name not in rows or not (found := rows[name].next_s.get(operation) or rows[name].first_s.get(operation)):
            return None
        return found * 1000, found * 1000, found * 1000

    panels = [
        _Panel(f"{size_text(largest)}: speed", "MB/s (more is better)", False, speed),
        _Panel("4 KiB: time for a file", "ms, logarithmic (less is better)", True, small),
    ]
    if figures.far:
        trip = figures.far_link["round_trip_ms"]
        panels.append(_Panel(f"4 KiB, {trip:.0f} ms away", "ms, logarithmic (less is better)", True, far))
    return panels


def _draw(panel: _Panel, left: float, shown: list[str], bottom: float) -> list[str]:
    operations: tuple[Operation, ...] = ("put", "get")
    spreads = [found for name in shown for operation in operations if (found := panel.value(name, operation))]
    if not spreads:
        return []
    low, high = min(one[0] for one in spreads), max(one[2] for one in spreads)
    ticks = _decades(low, high) if panel.logarithmic else _steps(high)
    start, end = (ticks[0], ticks[-1]) if panel.logarithmic else (0.0, ticks[-1])

    def place(value: float) -> float:
        if panel.logarithmic:
            return left + _WIDTH * math.log(value / start) / math.log(end / start)
        return left + _WIDTH * value / end

    parts = [f'  <text class="head" x="{left}" y="{_TOP - 34}">{escape(panel.title)}</text>']
    for tick in ticks:
        x = place(tick)
        parts.append(f'  <line class="grid" x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        for y in (_TOP - 14, bottom + 18):
            parts.append(f'  <text class="note" x="{x:.1f}" y="{y}" text-anchor="middle">{tick:g}</text>')
    middle_x = left + _WIDTH / 2
    parts.append(
        f'  <text class="note" x="{middle_x}" y="{bottom + 40}" text-anchor="middle">{escape(panel.axis)}</text>'
    )
    for number, name in enumerate(shown):
        for operation, offset in (("put", -6.0), ("get", 7.0)):
            spread = panel.value(name, "put" if operation == "put" else "get")
            if spread is None:
                continue
            least, middle, most = (place(value) for value in spread)
            y = _TOP + _ROW * (number + 0.5) + offset
            parts.append(f'  <line class="{operation}" x1="{least:.1f}" y1="{y:.1f}" x2="{most:.1f}" y2="{y:.1f}"/>')
            told = f"<title>{escape(name)} {operation}: {spread[1]:.3g}</title>"
            if operation == "put":
                parts.append(f'  <circle class="put" cx="{middle:.1f}" cy="{y:.1f}" r="5">{told}</circle>')
            else:
                parts.append(
                    f'  <rect class="get" x="{middle - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9">{told}</rect>'
                )
    return parts


def _decades(low: float, high: float) -> list[float]:
    """1, 3, 10, 30 … around all values."""
    ticks = [factor * 10.0**power for power in range(-3, 7) for factor in (1, 3)]
    first = max(number for number, tick in enumerate(ticks) if tick <= low or number == 0)
    last = min(number for number, tick in enumerate(ticks) if tick >= high or number == len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]


def _steps(high: float) -> list[float]:
    """From 0 in some four round steps to above the highest value."""
    rough = high / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.ceil(high / step) + 1)]


def _description(figures: Figures, shown: list[str]) -> str:
    largest = max(figures.sizes(1), default=0)
    told = []
    for name in shown:
        cells = [figures.cell(name, operation, largest, 1) for operation in ("put", "get")]
        if all(cells):
            speeds = " and ".join(f"{cell.bytes_per_s / 1e6:.0f}" for cell in cells if cell)
            told.append(f"{figures.labels[name]} {speeds}")
    return (
        "Put and get of the largest file in MB/s: " + "; ".join(told) + ". All figures are in the tables of the page."
    )
