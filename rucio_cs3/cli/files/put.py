"""``rucio-cs3 put``: local files into a cloud."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from rucio_cs3.cli.files.given import into_folder, json_option, overwrite_option, parallel_option, place, rse_option
from rucio_cs3.cs3.local_files import local_error


@click.command(name="put")
@click.argument("paths", metavar="LOCAL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("destination", metavar="DESTINATION")
@rse_option
@overwrite_option
@parallel_option
@click.option("--verify", is_flag=True, help="Where the server keeps no checksum, fetch what was sent and compare.")
@json_option
def command(
    paths: tuple[Path, ...],
    destination: str,
    rse: str | None,
    overwrite: bool,
    threads: int,
    verify: bool,
    as_json: bool,
) -> None:
    """Copy local files into a cloud.

    Several at once go into a folder; one goes under the name DESTINATION, or into it where it is a folder or ends with
    a slash. Missing folders are made. A file stands there whole and compared, or not at all; what stood there stays,
    unless --overwrite is given. An interrupted upload of a large file is gone on with by the next, where the server
    has TUS.

    \b
    Example:
      rucio-cs3 put run1.root CERNBOX:data/2024/
      rucio-cs3 put --parallel 8 *.root CERNBOX:data/2024/
      rucio-cs3 put --overwrite report.pdf CERNBOX:final.pdf
    """
    from rucio_cs3.cli.files.telling import Telling
    from rucio_cs3.files import workers
    from rucio_cs3.files.copying import Upload, Wishes
    from rucio_cs3.files.outcomes import Outcome, failed

    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise click.UsageError(f"{folders[0]} is a folder; rucio-cs3 put-tree copies folders")
    names = [path.name for path in paths]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise click.UsageError(f"two of the files are called {twice}, and would go to one place")
    target = place(destination, rse)
    into = into_folder(destination, target, several=len(paths) > 1)
    wishes = Wishes(overwrite=overwrite, read_back=verify, threads=min(threads, len(paths)))

    def things() -> Iterator[Outcome | workers.Work]:
        for path in paths:
            one = target.child(path.name) if into else target
            try:
                status = path.stat()
            except OSError as exc:
                yield failed(one.shown, local_error(exc, path))
                continue
            yield Upload(
                storage=one.storage,
                wishes=wishes,
                name=one.shown,
                path=path,
                status=status,
                reference=one.reference,
                looked=False,
            )

    telling = Telling(as_json=as_json, each=False, total_bytes=_bytes_of(paths))
    break_off = target.storage.http.break_off
    telling.take(workers.outcomes(things(), threads=wishes.threads, watch=telling.moved, break_off=break_off))


def _bytes_of(paths: tuple[Path, ...]) -> int:
    """Of those that can be looked at."""
    total = 0
    for path in paths:
        if os.access(path, os.R_OK):
            total += path.stat().st_size
    return total
