"""The options that ``put-tree`` and ``get-tree`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rucio_cs3.cli.files.given import json_option, parallel_option, rse_option

if TYPE_CHECKING:
    from rucio_cs3.files.copying import Wishes

_OPTIONS = (
    rse_option,
    click.option("--overwrite", is_flag=True, help="Replace files whose content differs."),
    click.option(
        "--compare",
        type=click.Choice(["content", "time"]),
        default="content",
        show_default=True,
        help="What is left out because it is there: files of the same content, or of the same size and time.",
    ),
    click.option("-n", "--dry-run", is_flag=True, help="Say what would be copied, and change nothing."),
    parallel_option,
    click.option("-v", "--verbose", is_flag=True, help="A line for each file."),
    json_option,
)


def tree_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def wishes_of(*, overwrite: bool, compare: str, dry_run: bool, threads: int, verify: bool = False) -> Wishes:
    """What the options ask for."""
    from rucio_cs3.files.copying import Wishes
    from rucio_cs3.files.sameness import Rule

    return Wishes(
        overwrite=overwrite,
        skip_same=True,
        rule=Rule(compare),
        dry_run=dry_run,
        read_back=verify,
        threads=threads,
    )
