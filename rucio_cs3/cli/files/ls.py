"""``rucio-cs3 ls``: what is in a folder of a cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from rucio_cs3.cli.files.given import Each, json_option, rse_option
from rucio_cs3.cli.files.shown import as_dict, long_line, name_of, print_json
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    from rucio_cs3.clouds import Cloud, Place
    from rucio_cs3.cs3.resources import FileInfo


@click.command(name="ls")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("-l", "--long", "is_long", is_flag=True, help="With sizes and times.")
@click.option("-R", "--recursive", is_flag=True, help="With all that is below.")
@click.option("--bytes", "exact", is_flag=True, help="With -l: sizes to the byte.")
@json_option
def command(
    places: tuple[str, ...], rse: str | None, is_long: bool, recursive: bool, exact: bool, as_json: bool
) -> None:
    """List folders of a cloud, by name; names of folders end with a slash.

    A PLACE is NAME:path (below an RSE or a section of the clouds file), NAME:/cs3/path, or a PFN.

    \b
    Example:
      rucio-cs3 ls CERNBOX:
      rucio-cs3 ls -l CERNBOX:data/2024
      rucio-cs3 ls -R --json CERNBOX:data | jq -r 'select(.type == "file") | .pfn'
    """

    def show(cloud: Cloud, info: FileInfo, name: str) -> None:
        if as_json:
            print_json(as_dict(cloud, info))
        elif is_long:
            click.echo(long_line(info, name_of(info, name), exact=exact))
        else:
            click.echo(name_of(info, name))

    each = Each(places, rse)
    for place in each:
        if len(places) > 1 and not as_json:
            click.echo(f"{printable(place.shown)}:")
        with each.said():
            for info in _found(place, recursive=recursive):
                if isinstance(info, errors.CS3Error):
                    each.say(info)
                else:
                    show(place.cloud, info, _name(place, info))
    each.end()


def _found(place: Place, *, recursive: bool) -> Iterator[FileInfo | errors.CS3Error]:
    """One by one, so that a tree of any size takes no memory."""
    from rucio_cs3.files import walk

    try:
        if not recursive:
            yield from walk.entries(place.storage, place.reference)
            return
        for found in walk.walk(place.storage, place.reference):
            yield found.error if isinstance(found, walk.Trouble) else found.info
    except errors.InvalidRequest:
        # A file; all others of these errors come again.
        info = place.storage.stat(place.reference)
        if info.is_directory:
            raise
        yield info


def _name(place: Place, info: FileInfo) -> str:
    below = f"{place.reference.path}/" if place.reference.path else ""
    return info.reference.path.removeprefix(below) if info.reference != place.reference else info.reference.name
