"""``rucio-cs3 rm``: delete files and folders of a cloud."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rucio_cs3.cli.files.changes import SKIPPED, Change, Changes
from rucio_cs3.cli.files.given import json_option, rse_option
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place
    from rucio_cs3.files import walk


@click.command(name="rm")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("-r", "--recursive", is_flag=True, help="Folders, too, with all that is in them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def command(places: tuple[str, ...], rse: str | None, recursive: bool, yes: bool, as_json: bool) -> None:
    """Delete files of a cloud, and with --recursive folders.

    At a terminal it asks first, and says how much is in a folder. Elsewhere folders need --yes. The folder that NAME:
    stands for, those above it, and the root are never deleted. Most servers keep what is deleted in a recycle bin for a
    while. Replicas of Rucio are for Rucio to delete.

    \b
    Example:
      rucio-cs3 rm CERNBOX:draft.txt
      rucio-cs3 rm --recursive --yes CERNBOX:data/old
    """
    changes = Changes(as_json=as_json, facts=("type", "size", "files", "folders"))
    for text in places:
        with changes.of(text) as change:
            _delete(change.find(rse), change, recursive=recursive, yes=yes, tells=not as_json)
    changes.end()


def _delete(place: Place, change: Change, *, recursive: bool, yes: bool, tells: bool) -> None:
    """
    :param tells: whether people are told how much was in a folder.
    """
    place.refuse_whole("deleted")
    info = place.storage.stat(place.reference)
    asks = not yes and sys.stdin.isatty()
    if info.is_directory:
        if not recursive:
            raise errors.InvalidRequest("is a folder; --recursive deletes it with all in it", target=place.shown)
        if not (yes or asks):
            raise errors.InvalidRequest(
                "is a folder, and nobody can be asked here; --yes deletes it", target=place.shown
            )
        total = _content(place)
        files, folders = _counted(total.files, "file"), _counted(total.folders, "folder")
        what = f"{place.shown} with {files} and {folders} in it ({size(total.bytes)})"
        change.facts.update(type="folder", size=total.bytes, files=total.files, folders=total.folders)
    else:
        what = f"{place.shown} ({size(info.size)})"
        change.facts.update(type="file", size=info.size)
    if asks and not click.confirm(f"Delete {printable(what)}?", err=True):
        change.became(SKIPPED, "whoever was asked said no")
        return
    if not info.is_directory:
        place.storage.delete_file(place.reference)
    else:
        place.storage.delete(place.reference)
        if tells:
            click.echo(f"deleted {printable(what)}", err=True)
    change.became("deleted")


def _content(place: Place) -> walk.Total:
    """How much a deletion of a folder would delete.

    :raises CS3Error: when not all of it can be counted.
    """
    from rucio_cs3.files import walk

    total = walk.Total("", 0)
    for found in walk.totals(place.storage, place.reference):
        if isinstance(found, walk.Trouble):
            raise found.error
        total = found
    return total


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
