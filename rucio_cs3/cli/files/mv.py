"""``rucio-cs3 mv``: give a file or folder of a cloud another name."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.changes import Changes
from rucio_cs3.cli.files.given import into_folder, json_option, place, remote_name, rse_option
from rucio_cs3.cs3 import errors


@click.command(name="mv")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@rse_option
@json_option
def command(source: str, destination: str, rse: str | None, as_json: bool) -> None:
    """Give a file or folder of a cloud another name, or put it into another folder of the same cloud.

    Nothing is replaced. DESTINATION is the new name, or a folder that is there or ends with a slash. The folder that
    NAME: stands for and those above it stay where they are. Of a replica of Rucio only Rucio may change the name.

    \b
    Example:
      rucio-cs3 mv CERNBOX:draft.txt CERNBOX:final.txt
      rucio-cs3 mv CERNBOX:final.txt CERNBOX:published/
    """
    changes = Changes(as_json=as_json, facts=("source",))
    with changes.of(destination) as change:
        old, new = place(source, rse), place(destination, rse)
        change.found = old
        name = remote_name(old)
        ends = [(one.cloud.endpoint, one.cloud.provider, one.reference.root) for one in (old, new)]
        if ends[0] != ends[1]:
            raise click.UsageError("both must be of one cloud; rucio-cs3 get and put copy between clouds")
        old.refuse_whole("moved")
        if into_folder(destination, new, several=False):
            new = new.child(name)
        change.place, change.facts["source"] = new.shown, old.shown
        if new.reference == old.reference:
            raise click.UsageError(f"{old.shown} has this name already")
        if new.reference.path.startswith(f"{old.reference.path}/"):
            raise errors.InvalidRequest("nothing can be moved into itself", target=old.shown)
        old.storage.move(old.reference, new.reference)
        change.became("moved")
    changes.end()
