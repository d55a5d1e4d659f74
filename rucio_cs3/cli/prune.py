"""``rucio-cs3 prune``: empty folders below a place; options and words of :mod:`rucio_cs3.pruning`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.progress import ProgressColumn, SpinnerColumn, Task
from rich.text import Text

from rucio_cs3.cli.ending import TERMINATED
from rucio_cs3.cli.files.given import json_option, place, rse_option
from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.progress_line import ProgressLine
from rucio_cs3.cli.transfers_table import printable

if TYPE_CHECKING:
    from rucio_cs3.cs3.empty_folders import Deed, Outcome
    from rucio_cs3.pruning import Run


def _age(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from rucio_cs3.pruning import LEAST_AGE_S
    from rucio_cs3.undelete import duration_s

    age_s = duration_s(value)
    if age_s is None:
        raise click.BadParameter(f"{value!r} is no age; write 12h, 7d or 2w")
    if age_s < LEAST_AGE_S:
        raise click.BadParameter(
            f"{value} is too low; an upload may be under way into a folder that is younger than "
            f"{LEAST_AGE_S / 60:.0f} minutes"
        )
    return age_s


@click.command(name="prune")
@click.argument("text", metavar="PLACE")
@rse_option
@click.option(
    "--older-than",
    "older_than_s",
    default="7d",
    show_default=True,
    metavar="AGE",
    callback=_age,
    help="Leave folders that were changed since then: 12h, 7d, 2w. More than the longest upload takes.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show which folders would go.")
@click.option(
    "--unchecked",
    is_flag=True,
    help="Go on where the cloud does not show what is in a removed folder; otherwise nothing is removed there.",
)
@json_option
def command(text: str, rse: str | None, older_than_s: int, dry_run: bool, unchecked: bool, as_json: bool) -> None:
    """Remove empty folders of a cloud that nothing has changed in for a while.

    Rucio's deletions leave them. The named folder itself stays, and so do hidden ones. Each is looked at again directly
    before it goes, and afterwards in the recycle bin: should a file have come into it at that moment, the folder comes
    back with it. Whether that can be seen at this cloud is tried first. An upload that is under way into a folder may
    fail; docs/deletion.md has what is known of each server. From cron, once a week or so. Ctrl-C ends it between two
    folders.

    \b
    Example:
      rucio-cs3 prune CERNBOX --dry-run
      rucio-cs3 prune CERNBOX
      rucio-cs3 prune CERNBOX:user.jdoe --older-than 2w --json
    """
    from rucio_cs3 import pruning

    asked = _Asked()
    run = pruning.Run(place(text, rse), older_than_s, dry_run=dry_run, unchecked=unchecked, ends=asked.ends)
    telling = _Telling(run, as_json=as_json)
    with asked.listening(), contextlib.closing(run.outcomes()) as outcomes:
        try:
            with telling:
                for outcome in outcomes:
                    telling.take(outcome)
                telling.completed = asked.by is None
        finally:
            telling.end()
    if asked.by == signal.SIGINT:
        raise KeyboardInterrupt("the folders that were removed are told above; run it again for the rest")
    if asked.by is not None:
        sys.exit(TERMINATED)
    if telling.failed:
        raise click.exceptions.Exit(1)


class _Asked:
    """Whether somebody wants it to end: the first signal ends it between two folders, the second at once."""

    def __init__(self) -> None:
        self.by: int | None = None

    def ends(self) -> bool:
        return self.by is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def take(number: int, frame: FrameType | None) -> None:
            if self.by is None:
                self.by = number
            elif number == signal.SIGTERM:
                sys.exit(TERMINATED)
            else:
                raise KeyboardInterrupt

        for number in before:
            signal.signal(number, take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Telling:
    """A line that changes at a terminal, a line for each folder that needs one, and the sums."""

    def __init__(self, run: Run, *, as_json: bool) -> None:
        self._run = run
        self._as_json = as_json
        self._counts: Counter[Deed] = Counter()
        #: All folders were looked at.
        self.completed = False
        self._progress = ProgressLine(SpinnerColumn(), _LookedAt(run), lines_beside=as_json or run.dry_run)
        self._progress.add_task("", total=None)

    def __enter__(self) -> _Telling:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def failed(self) -> bool:
        from rucio_cs3.cs3.empty_folders import Deed

        return bool(self._counts[Deed.FAILED] or self._counts[Deed.NOT_RESTORED])

    def take(self, outcome: Outcome) -> None:
        from rucio_cs3.cs3.empty_folders import Deed

        self._counts[outcome.deed] += 1
        shown = self._run.place.cloud.shown(outcome.reference)
        if self._as_json:
            print_json({"place": shown, "outcome": outcome.deed.value, "reason": outcome.why or None})
        elif outcome.deed is Deed.WOULD_REMOVE:
            click.echo(f"would remove {printable(shown)}")
        if outcome.deed is Deed.RESTORED:
            self._progress.say(f"{shown}: something had come into it, so it was restored with that")
        elif outcome.deed is Deed.NOT_RESTORED:
            self._progress.say(
                f"Error: {shown}: something had come into it, and it is in the recycle bin with that, because it could "
                f"not be restored: {outcome.why}; rucio-cs3 undelete can try again"
            )
        elif outcome.deed is Deed.FAILED:
            self._progress.say(f"Error: {shown}: {outcome.why}")
        elif outcome.deed is Deed.UNCHECKED:
            self._progress.say(f"{shown}: removed, not checked: {outcome.why}")

    def end(self) -> None:
        from rucio_cs3.cs3.empty_folders import Deed

        if not self._run.looked_at:
            return
        if self._as_json:
            counts = {deed.value.replace(",", "").replace(" ", "_"): self._counts[deed] for deed in Deed}
            all_well = self.completed and not self.failed
            print_json({"summary": {"looked_at": self._run.looked_at, **counts, "all_well": all_well}})
            return
        sums = ", ".join(f"{self._counts[deed]} {deed.value}" for deed in Deed if self._counts[deed]) or "none is empty"
        click.echo(f"{self._run.looked_at} folders looked at: {sums}")


class _LookedAt(ProgressColumn):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def render(self, task: Task) -> Text:
        return Text(f"{self._run.looked_at} folders looked at")
