"""``rucio-cs3 rm``: delete files and folders of a cloud."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rucio_cs3.cli.files.given import Each, rse_option
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place


@click.command(name="rm")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("-r", "--recursive", is_flag=True, help="Folders, too, with all that is in them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(places: tuple[str, ...], rse: str | None, recursive: bool, yes: bool) -> None:
    """Delete files of a cloud, and with --recursive folders.

    At a terminal it asks first, and says how much is in a folder. Elsewhere folders need --yes. The folder that NAME:
    stands for, those above it, and the root are never deleted. Most servers keep what is deleted in a recycle bin for a
    while. Replicas of Rucio are for Rucio to delete.

    \b
    Example:
      rucio-cs3 rm CERNBOX:draft.txt
      rucio-cs3 rm --recursive --yes CERNBOX:data/old
    """
    each = Each(places, rse)
    for place in each:
        with each.said():
            place.refuse_whole("deleted")
            info = place.storage.stat(place.reference)
            if info.is_directory and not recursive:
                raise errors.InvalidRequest("is a folder; --recursive deletes it with all in it", target=place.shown)
            asks = not yes and sys.stdin.isatty()
            if info.is_directory and not (yes or asks):
                raise errors.InvalidRequest(
                    "is a folder, and nobody can be asked here; --yes deletes it", target=place.shown
                )
            what = _content(place) if info.is_directory else f"{place.shown} ({size(info.size)})"
            if asks and not click.confirm(f"Delete {printable(what)}?", err=True):
                continue
            if info.is_directory:
                place.storage.delete(place.reference)
                click.echo(f"deleted {printable(what)}", err=True)
            else:
                place.storage.delete_file(place.reference)
    each.end()


def _content(place: Place) -> str:
    """How much a deletion of a folder would delete.

    :raises CS3Error: when not all of it can be counted.
    """
    from rucio_cs3.files import walk

    total = walk.Total("", 0)
    for found in walk.totals(place.storage, place.reference):
        if isinstance(found, walk.Trouble):
            raise found.error
        total = found
    return f"{place.shown} with {total.files} files and {total.folders} folders in it ({size(total.bytes)})"
