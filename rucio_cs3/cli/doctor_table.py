"""How ``rucio-cs3 doctor`` looks to people: a table, or blocks of lines where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.doctor.findings import Finding, Status, Verdict
from rucio_cs3.doctor.report import Report

_COLOURS = {
    Status.OK: "green",
    Status.NOTE: "cyan",
    Status.NOT_TRIED: "dim",
    Status.WEAK: "yellow",
    Status.BROKEN: "bold red",
}
_VERDICTS = {Verdict.OK: "bold green", Verdict.DEGRADED: "bold yellow", Verdict.BROKEN: "bold red"}

#: From this width on, in characters, there are columns.
_COLUMNS_FROM = 72

#: Width of the status, in characters: that of the longest.
_STATUS_WIDTH = max(len(status.value) for status in Status)


def rows(names: Sequence[str], found: Mapping[str, Finding], *, width: int) -> RenderableType:
    """The table as far as it is known.

    :param names: of all checks, in order.
    :param width: of the console, in characters.
    """
    if width < _COLUMNS_FROM:
        return Group(*(_block(name, found.get(name)) for name in names))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, width=_STATUS_WIDTH)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in names:
        finding = found.get(name)
        table.add_row(_status(finding), Text(name), _words(finding))
    return table


def growing(names: Sequence[str], found: Mapping[str, Finding], *, width: int, height: int) -> RenderableType:
    """What is shown meanwhile: the table where the terminal has room for it, and else what is waited for."""
    if width >= _COLUMNS_FROM and height > len(names) + 1:
        return rows(names, found, width=width)
    waiting = [name for name in names if name not in found]
    line = Text(
        f"{len(found)} of {len(names)} done; {', '.join(waiting)}", style="dim", no_wrap=True, overflow="ellipsis"
    )
    line.truncate(width, overflow="ellipsis")
    return line


def plain(names: Sequence[str], found: Mapping[str, Finding]) -> str:
    """The same for a file or a pipe: a line for each row, and one more for advice."""
    widest = max(len(name) for name in names)
    lines = []
    for name in names:
        status, name = f"{found[name].status.value:{_STATUS_WIDTH}}", f"{name:{widest}}"
        words = _words(found[name.strip()]).plain.split("\n")
        lines += [
            f"{status}  {name}  {words[0]}",
            *(f"{'':{_STATUS_WIDTH}}  {'':{widest}}  {one}" for one in words[1:]),
        ]
    return "\n".join(lines)


def ending(report: Report) -> RenderableType:
    """The verdict, and what was left behind."""
    numbers = {status: sum(one.status is status for one in report.findings.values()) for status in Status}
    told = ", ".join(f"{number} {status.value}" for status, number in numbers.items() if number)
    parts = [
        Text(
            f"\n{printable(report.name)}: {report.verdict.value} ({told}; {report.seconds:.1f} s)",
            style=_VERDICTS[report.verdict],
        )
    ]
    parts += [Text(printable(f"could not be removed: {one}"), style=_COLOURS[Status.WEAK]) for one in report.left]
    return Group(*parts)


def _block(name: str, finding: Finding | None) -> RenderableType:
    head = Text.assemble(_status(finding), " ", name)
    return head if finding is None else Group(head, Padding(_words(finding), (0, 0, 0, 2)))


def _status(finding: Finding | None) -> Text:
    if finding is None:
        return Text("…", style="dim")
    return Text(finding.status.value, style=_COLOURS[finding.status])


def _words(finding: Finding | None) -> Text:
    if finding is None:
        return Text("")
    seen = finding.seen.removeprefix("not tried: ") if finding.status is Status.NOT_TRIED else finding.seen
    text = Text(printable(seen))
    if finding.advice:
        text.append(f"\n→ {printable(finding.advice)}", style="italic")
    return text
