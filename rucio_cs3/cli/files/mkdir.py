"""``rucio-cs3 mkdir``: make folders in a cloud."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.changes import Changes
from rucio_cs3.cli.files.given import json_option, rse_option
from rucio_cs3.cs3 import errors


@click.command(name="mkdir")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("-p", "--parents", is_flag=True, help="With the folders above; what is there is no error.")
@json_option
def command(places: tuple[str, ...], rse: str | None, parents: bool, as_json: bool) -> None:
    """Make folders in a cloud.

    A PLACE is NAME:path (below an RSE or a section of the clouds file), NAME:/cs3/path, or a PFN.

    \b
    Example:
      rucio-cs3 mkdir CERNBOX:new
      rucio-cs3 mkdir -p CERNBOX:data/2024/06
    """
    changes = Changes(as_json=as_json, facts=("type",))
    for text in places:
        with changes.of(text) as change:
            found = change.find(rse)
            if not parents:
                if found.storage.exists(found.reference):
                    raise errors.AlreadyExists("is there already", target=found.shown)
                if not found.storage.exists(found.reference.parent):
                    raise errors.NotFound("the folder above is missing; -p makes it, too", target=found.shown)
            missing = found.storage.make_directories(found.reference)
            change.became("made" if missing else "same", type="folder")
    changes.end()
