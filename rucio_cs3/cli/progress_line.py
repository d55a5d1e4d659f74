"""A line at the terminal that says how far something is, and goes at its end."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.text import Text

from rucio_cs3.cli.transfers_table import printable


class ProgressLine(Progress):
    """On standard error, where that is a terminal.

    :param lines_beside: whether lines go to standard output meanwhile; they and one that overwrites itself do not go
        together on one terminal.
    """

    def __init__(self, *columns: ProgressColumn, lines_beside: bool) -> None:
        console = Console(stderr=True, highlight=False)
        together = lines_beside and sys.stdout.isatty()
        super().__init__(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal or together,
        )

    def say(self, line: str) -> None:
        """A line on standard error, above this one. What would steer a terminal is replaced."""
        text = printable(line)
        if self.live.is_started:
            self.console.print(Text(text), soft_wrap=True)
        else:
            click.echo(text, err=True)
