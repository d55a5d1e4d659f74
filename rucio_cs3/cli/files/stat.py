"""``rucio-cs3 stat``: all that a cloud says of a file or folder."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.given import Each, json_option, rse_option
from rucio_cs3.cli.files.shown import as_dict, details, print_json


@click.command(name="stat")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@json_option
def command(places: tuple[str, ...], rse: str | None, as_json: bool) -> None:
    """Show all that a cloud says of a file or folder: size, time, etag, checksums, CS3 path, PFN.

    A PLACE is NAME:path (below an RSE or a section of the clouds file), NAME:/cs3/path, or a PFN.

    \b
    Example:
      rucio-cs3 stat CERNBOX:data/2024/run1.root
      rucio-cs3 stat --json davs://cernbox.cern.ch:443/remote.php/webdav/eos/user/j/jdoe/x | jq .checksums
    """
    each = Each(places, rse)
    for number, place in enumerate(each):
        with each.said():
            info = place.storage.stat(place.reference)
            if as_json:
                print_json(as_dict(place.cloud, info))
                continue
            if number:
                click.echo()
            for name, value in details(place.cloud, info):
                click.echo(f"{name:>9}: {value}")
    each.end()
