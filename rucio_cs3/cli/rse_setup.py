"""``rucio-cs3 rse``: RSEs of Rucio as a file describes them."""

from __future__ import annotations

from pathlib import Path

import click

from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.rucio_here import unusable
from rucio_cs3.cli.transfers_table import printable


@click.group(name="rse")
def command() -> None:
    """RSEs of Rucio as a file describes them.

    \b
    Example:
      rucio-cs3 rse apply rses.yaml --dry-run
      rucio-cs3 rse apply rses.yaml
    """


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--prune", is_flag=True, help="Also remove protocols and cs3_ attributes that the file does not have.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in each line.")
def apply(file: Path, dry_run: bool, prune: bool, as_json: bool) -> None:
    """Make Rucio's RSEs what FILE says; what is so already is left alone.

    FILE is YAML: a table of RSEs with protocols, attributes, distances and limits. All of it is checked before the
    first change. No RSE is ever removed, and credentials are not in it: those belong into rse-accounts.cfg.

    \b
    Example:
      rucio-cs3 rse apply rses.yaml --dry-run
      rucio-cs3 rse apply rses.yaml
    \b
    Exit codes: 0 all is as FILE says, 1 something could not be done, 2 wrong usage.
    """
    try:
        # Rucio reads its configuration when it is imported; the help must not need one.
        from rucio.client import Client
        from rucio.common.exception import RucioException
    except Exception as exc:
        raise unusable(exc) from exc
    from rucio_cs3.rse_setup import changes, wanted

    rses = wanted.read(file)
    for rse in rses:
        changes.check(rse)
    done = 0
    try:
        client = Client()
        for change in changes.changes(rses, client, prune=prune):
            if not dry_run:
                change.make()
            done += 1
            if as_json:
                print_json({"rse": change.rse, "change": change.text, "done": not dry_run})
            else:
                click.echo(printable(f"{change.rse}: {change.text}"))
    except RucioException as exc:
        words = printable(" ".join(str(exc).split()))
        raise click.ClickException(f"Rucio refuses after {done} changes: {words}") from exc
    if not done and not as_json:
        click.echo(f"all is as {file} says", err=True)
