"""``rucio-cs3 put-tree``: a local folder with all that is in it into a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rucio_cs3.cli.files.given import place
from rucio_cs3.cli.files.tree_options import tree_options, wishes_of


@click.command(name="put-tree")
@click.argument("folder", metavar="LOCALFOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("destination", metavar="DESTINATION")
@tree_options
@click.option("--verify", is_flag=True, help="Where the server keeps no checksum, fetch what was sent and compare.")
def command(
    folder: Path, destination: str, rse: str | None, verbose: bool, as_json: bool, dry_run: bool, **options: Any
) -> None:
    """Copy what is in a local folder into a folder of a cloud, in the same layout.

    A second run leaves out what is there with the same content, so an interrupted one is gone on with. Nothing is
    deleted, and a file with another content is replaced only with --overwrite. Symbolic links and what is no file are
    named and left out. The exit code is 1 when anything failed.

    \b
    Example:
      rucio-cs3 put-tree --dry-run results CERNBOX:results
      rucio-cs3 put-tree --parallel 8 results CERNBOX:results
    """
    from rucio_cs3.cli.files.telling import Telling
    from rucio_cs3.files.trees import put_tree

    target = place(destination, rse)
    telling = Telling(as_json=as_json, each=verbose or dry_run, folder=target, goes_on=True)
    wishes = wishes_of(dry_run=dry_run, **options)
    break_off = target.storage.http.break_off
    telling.take(put_tree(target.storage, folder, target.reference, wishes, telling.moved, break_off))
