"""``rucio-cs3 du``: how much is in a folder, and in each below."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.given import Each, json_option, rse_option
from rucio_cs3.cli.files.shown import amount, print_json
from rucio_cs3.cli.transfers_table import printable


@click.command(name="du")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("--depth", type=click.IntRange(0), help="Show folders down to so many levels; 0 is the sum alone.")
@click.option("--bytes", "exact", is_flag=True, help="Amounts to the byte.")
@json_option
def command(places: tuple[str, ...], rse: str | None, depth: int | None, exact: bool, as_json: bool) -> None:
    """Show how many bytes and files are below a folder, and below each folder in it.

    A line has bytes, files and the folder; the last is that of the whole. Every folder is listed, so it takes a request
    or two for each; it counts what the listings say, not what the server's quota counts.

    \b
    Example:
      rucio-cs3 du --depth 1 CERNBOX:data
      rucio-cs3 du --json CERNBOX:data | jq -r 'select(.files > 10000) | .place'
    """
    from rucio_cs3.files import walk

    each = Each(places, rse)
    for place in each:
        with each.said():
            for total in walk.totals(place.storage, place.reference):
                if isinstance(total, walk.Trouble):
                    each.say(total.error)
                    continue
                if depth is not None and total.depth > depth:
                    continue
                name = place.child(total.relative).shown if total.relative else place.shown
                if as_json:
                    print_json({"place": name, "bytes": total.bytes, "files": total.files, "folders": total.folders})
                else:
                    much = amount(total.bytes, exact=exact)
                    click.echo(f"{much:>{14 if exact else 9}} {total.files:>8}  {printable(name)}")
    each.end()
