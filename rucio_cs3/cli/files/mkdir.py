"""``rucio-cs3 mkdir``: make folders in a cloud."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.given import Each, rse_option
from rucio_cs3.cs3 import errors


@click.command(name="mkdir")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("-p", "--parents", is_flag=True, help="With the folders above; what is there is no error.")
def command(places: tuple[str, ...], rse: str | None, parents: bool) -> None:
    """Make folders in a cloud.

    A PLACE is NAME:path (below an RSE or a section of the clouds file), NAME:/cs3/path, or a PFN.

    \b
    Example:
      rucio-cs3 mkdir CERNBOX:new
      rucio-cs3 mkdir -p CERNBOX:data/2024/06
    """
    each = Each(places, rse)
    for place in each:
        with each.said():
            if not parents:
                if place.storage.exists(place.reference):
                    raise errors.AlreadyExists("is there already", target=place.shown)
                if not place.storage.exists(place.reference.parent):
                    raise errors.NotFound("the folder above is missing; -p makes it, too", target=place.shown)
            place.storage.make_directories(place.reference)
    each.end()
