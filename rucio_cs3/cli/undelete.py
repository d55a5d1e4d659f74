"""``rucio-cs3 undelete``: what was deleted, back from a cloud's recycle bin."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from rucio_cs3.cli.files.changes import IN_PARTS, Changes
from rucio_cs3.cli.files.given import json_option, rse_option
from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.listing.amounts import size as readable

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place
    from rucio_cs3.cs3.recycle import RecycledItem


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        from rucio_cs3.undelete import moment

        try:
            moment(value, now_s=time.time())
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return value


@click.command()
@click.argument("place", metavar="PLACE")
@rse_option
@click.option("--list", "only_list", is_flag=True, help="Only show what was deleted at or below PLACE.")
@click.option("--all-below", is_flag=True, help="Restore all that was deleted below the folder PLACE.")
@click.option(
    "--since",
    default="30d",
    show_default=True,
    metavar="TIME",
    callback=_moment,
    help="Deleted after that: 2h, 3d, or a date such as 2026-11-21.",
)
@click.option(
    "--deleted-at",
    metavar="TIME",
    callback=_moment,
    help="Of several versions that of this time, as --list shows it (default: the newest).",
)
@json_option
def command(
    place: str,
    rse: str | None,
    only_list: bool,
    all_below: bool,
    since: str,
    deleted_at: str | None,
    as_json: bool,
) -> None:
    """Put back what was deleted, from a cloud's recycle bin to where it was.

    PLACE is NAME:path (NAME: an RSE, or a cloud of your clouds file) or a URL at the cloud. What stands there by now
    stays, and the deleted file then stays in the bin. Rucio does not learn of it: rucio-cs3 register tells it.

    \b
    Example:
      rucio-cs3 undelete --list CERNBOX:user.jdoe --since 2d
      rucio-cs3 undelete CERNBOX:user.jdoe/f7/36/data.root
      rucio-cs3 undelete --all-below CERNBOX:user.jdoe --since 2h
    """
    if deleted_at is not None and (only_list or all_below):
        raise click.UsageError("--deleted-at is for one file; use --since with --list and --all-below")
    if only_list and all_below:
        raise click.UsageError("--list shows what --all-below would restore; use one of them")
    # Late: help needs none of this.
    from rucio_cs3 import places, undelete

    since_s = undelete.moment(since, now_s=time.time())
    if only_list:
        found = places.find(place, rse=rse)
        _show(found, undelete.items(found, since_s=since_s), as_json)
        return
    changes = Changes(as_json=as_json, facts=("type", "size", "pfn", "deleted_at"))
    with changes.of(place) as change:
        found = change.find(rse)
        change.facts["pfn"] = found.url
        if all_below:
            listed = undelete.items(found, since_s=since_s)
            items = undelete.newest_of_each(one for one in listed if not undelete.is_unfinished_upload(one))
            if not items:
                raise errors.NotFound(f"nothing was deleted below {found.shown} since {undelete.shown_moment(since_s)}")
        else:
            items = [undelete.newest_of(found, since_s=since_s, deleted_at=deleted_at)]
        _restore(found, items, changes, tells=not as_json)
        change.became(IN_PARTS)
    changes.end()
    if found.cloud.rse is not None:
        click.echo("Rucio does not know of it; rucio-cs3 register makes it known", err=True)


def _restore(found: Place, items: list[RecycledItem], changes: Changes, *, tells: bool) -> None:
    """
    :param tells: whether people are told of what is there again.
    """
    from rucio_cs3 import undelete

    outcomes: Iterable[tuple[RecycledItem, errors.CS3Error | None]] = undelete.restored(found, items)
    console = Console(stderr=True)
    # Lines and a bar that overwrites itself do not go together on one terminal.
    if len(items) > 1 and console.is_terminal and not console.is_dumb_terminal and not sys.stdout.isatty():
        outcomes = track(outcomes, "restoring", total=len(items), console=console, transient=True)
    for item, error in outcomes:
        with changes.of(found.cloud.shown(item.reference)) as change:
            facts = _facts(found, item)
            change.became("restored", **facts)
            if error is not None:
                raise error
            if tells:
                click.echo(f"restored {printable(change.place)}, deleted {facts['deleted_at']}")


def _show(found: Place, listed: Iterable[RecycledItem], as_json: bool) -> None:
    from rucio_cs3 import undelete

    if as_json:
        for item in listed:  # as they come, for there may be many
            print_json({"place": found.cloud.shown(item.reference), **_facts(found, item)})
        return
    items = undelete.oldest_first(listed)
    if not items:
        click.echo(f"nothing deleted at or below {printable(found.shown)}", err=True)
        return
    table = Table("deleted", "size", "path", box=None, pad_edge=False)
    for item in items:
        name = printable(found.cloud.shown(item.reference)) + ("/" if item.is_directory else "")
        size = "-" if item.size is None else readable(item.size)
        # As text: a name is somebody's, and might be taken for markup.
        table.add_row(undelete.shown_moment(item.deleted_at_s), size, Text(name, overflow="fold"))
    console = Console(highlight=False)
    if console.is_terminal:
        # Of one that is called dumb rich believes that it has 80 columns.
        console.size = shutil.get_terminal_size()
    console.print(table)


def _facts(found: Place, item: RecycledItem) -> dict[str, Any]:
    from rucio_cs3 import undelete

    return {
        "type": "folder" if item.is_directory else "file",
        "size": item.size,
        "pfn": found.cloud.url(item.reference),
        "deleted_at": undelete.shown_moment(item.deleted_at_s),
    }
