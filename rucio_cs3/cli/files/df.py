"""``rucio-cs3 df``: how much room there is."""

from __future__ import annotations

import click

from rucio_cs3.cli.files.given import Each, json_option, rse_option
from rucio_cs3.cli.files.shown import amount, print_json
from rucio_cs3.cli.transfers_table import printable


@click.command(name="df")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@rse_option
@click.option("--bytes", "exact", is_flag=True, help="Amounts to the byte.")
@json_option
def command(places: tuple[str, ...], rse: str | None, exact: bool, as_json: bool) -> None:
    """Show the room of the quota or disk that holds a folder: used, total, remaining.

    What the numbers mean is the server's choice: of OpenCloud they are the space's, of Reva with plain disks the
    disk's.

    \b
    Example:
      rucio-cs3 df CERNBOX:
      rucio-cs3 df --json CERNBOX: | jq .remaining
    """
    each = Each(places, rse)
    for place in each:
        with each.said():
            quota = place.storage.quota(place.reference)
            if as_json:
                numbers = {"used": quota.used_bytes, "total": quota.total_bytes, "remaining": quota.remaining_bytes}
                print_json({"place": place.shown, **numbers, "unlimited": quota.remaining_bytes is None})
                continue
            click.echo(printable(place.shown))
            share = ""
            if quota.total_bytes:
                share = f" ({100 * quota.used_bytes / quota.total_bytes:.0f} %)"
            click.echo(f"  used       {amount(quota.used_bytes, exact=exact)}{share}")
            for name, number in (("total", quota.total_bytes), ("remaining", quota.remaining_bytes)):
                click.echo(f"  {name:9}  {'no limit' if number is None else amount(number, exact=exact)}")
    each.end()
