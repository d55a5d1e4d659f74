"""``rucio-cs3 get-tree``: a folder of a cloud with all that is in it to the local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rucio_cs3.cli.files.given import place
from rucio_cs3.cli.files.tree_options import tree_options, wishes_of


@click.command(name="get-tree")
@click.argument("source", metavar="SOURCE")
@click.argument("folder", metavar="LOCALFOLDER", type=click.Path(file_okay=False, path_type=Path))
@tree_options
def command(
    source: str, folder: Path, rse: str | None, verbose: bool, as_json: bool, dry_run: bool, **options: Any
) -> None:
    """Copy what is in a folder of a cloud into a local folder, in the same layout.

    A second run leaves out what is there with the same content, so an interrupted one is gone on with. Nothing is
    deleted, and a file with another content is replaced only with --overwrite. Nothing is written outside of
    LOCALFOLDER. The exit code is 1 when anything failed.

    \b
    Example:
      rucio-cs3 get-tree --dry-run CERNBOX:results results
      rucio-cs3 get-tree --parallel 8 CERNBOX:results results
    """
    from rucio_cs3.cli.files.telling import Telling
    from rucio_cs3.files.trees import get_tree

    found = place(source, rse)
    telling = Telling(as_json=as_json, each=verbose or dry_run, folder=found, goes_on=True)
    wishes = wishes_of(dry_run=dry_run, **options)
    break_off = found.storage.http.break_off
    telling.take(get_tree(found.storage, found.reference, folder, wishes, telling.moved, break_off))
