"""What people see while files are copied: a bar at a terminal, a line for what needs one, and sums at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TextColumn, TransferSpeedColumn
from rich.text import Text

from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.progress_line import ProgressLine
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.files.outcomes import Deed, Outcome, Summary
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place

#: From this width on, in characters, there is a bar, and not only numbers.
_BAR_FROM = 60


class Telling:
    """Takes outcomes and moved bytes; a context manager.

    :param as_json: a JSON object in a line for each outcome, and one for the sums.
    :param folder: what the names of outcomes are below, in the cloud; None where they are places themselves.
    :param each: a line for what is copied and what is the same, too.
    :param total_bytes: what there is to move; None where nobody knows yet.
    :param goes_on: whether the same command goes on where it was interrupted, so that it can be said.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        each: bool,
        folder: Place | None = None,
        total_bytes: int | None = None,
        goes_on: bool = False,
    ) -> None:
        self._as_json = as_json
        self._folder = folder
        self._each = each
        self._goes_on = goes_on
        self.summary = Summary()
        columns = _columns(Console(stderr=True).width, known=total_bytes is not None)
        self._progress = ProgressLine(*columns, lines_beside=as_json or each)
        self._task = self._progress.add_task("0 files", total=total_bytes)

    def __enter__(self) -> Telling:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def moved(self, count: int) -> None:
        """Bytes have moved; from any thread."""
        if count:
            self._progress.advance(self._task, count)

    def take(self, outcomes: Generator[Outcome, None, None]) -> None:
        """Tell of each, and then the sums.

        :raises SystemExit: with exit code 1, when anything failed.
        :raises CS3Error: see :func:`rucio_cs3.files.workers.outcomes`; the sums are told before.
        :raises KeyboardInterrupt: with a sentence for people.
        """
        with contextlib.closing(outcomes):
            try:
                with self:
                    for outcome in outcomes:
                        self._tell(outcome)
            except KeyboardInterrupt:
                done = self.summary.files[Deed.COPIED]
                how = "; the same command goes on from there" if self._goes_on else ""
                raise KeyboardInterrupt(f"{done} {_files(done)} copied{how}") from None
            except errors.CS3Error:
                if self.summary.files:
                    self._end()
                raise
        self._end()
        if not self.summary.all_well:
            raise SystemExit(1)

    def _tell(self, outcome: Outcome) -> None:
        self.summary.add(outcome)
        done = self.summary.files[Deed.COPIED]
        self._progress.update(self._task, description=f"{done} {_files(done)}")
        if self._as_json:
            print_json(
                {
                    "name": outcome.name,
                    "place": self._place(outcome.name),
                    "outcome": outcome.deed.value,
                    "size": outcome.size,
                    "reason": outcome.reason or None,
                }
            )
        if outcome.deed is Deed.FAILED:
            self._progress.say(f"Error: {outcome.name}: {outcome.reason}")
        elif outcome.deed is Deed.SKIPPED:
            self._progress.say(f"skipped {outcome.name}: {outcome.reason}")
        elif self._each and not self._as_json:
            click.echo(f"{outcome.deed.value} {printable(outcome.name)} ({size(outcome.size)})")

    def _place(self, name: str) -> str | None:
        """Where in the cloud it is; None for a name that no cloud can have."""
        if self._folder is None:
            return name
        try:
            return self._folder.shown if name == "." else self._folder.child(name).shown
        except errors.CS3Error:
            return None

    def _end(self) -> None:
        if self._as_json:
            print_json({"summary": self.summary.as_dict()})
            return
        counts = self.summary.files
        parts = []
        for deed in Deed:
            if counts[deed] or deed is Deed.COPIED:
                much = f" ({size(self.summary.bytes[deed])})" if deed in (Deed.COPIED, Deed.WOULD_COPY) else ""
                parts.append(f"{counts[deed]} {deed.value}{much}")
        click.echo(", ".join(parts))


def _columns(width: int, *, known: bool) -> list[ProgressColumn]:
    columns: list[ProgressColumn] = [TextColumn("{task.description}")]
    if width >= _BAR_FROM:
        columns.append(BarColumn(max(10, min(40, width - 50))))
    if known:
        columns.append(TextColumn("{task.percentage:>3.0f} %"))
    return [*columns, DownloadColumn() if known else _Moved(), TransferSpeedColumn()]


class _Moved(ProgressColumn):
    """What has moved, where nobody knows of how much."""

    def render(self, task: Task) -> Text:
        return Text(size(task.completed), style="progress.download")


def _files(number: int) -> str:
    return "file" if number == 1 else "files"
