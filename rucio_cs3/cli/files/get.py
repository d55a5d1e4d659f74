"""``rucio-cs3 get``: files of a cloud to the local disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from rucio_cs3.cli.files.given import json_option, overwrite_option, parallel_option, place, remote_name, rse_option
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors


@click.command(name="get")
@click.argument("source", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("local_text", metavar="LOCAL")
@rse_option
@overwrite_option
@parallel_option
@json_option
def command(
    source: tuple[str, ...], local_text: str, rse: str | None, overwrite: bool, threads: int, as_json: bool
) -> None:
    """Copy files of a cloud to the local disk.

    Several at once go into a local folder; one goes under the name LOCAL, or into it where it is a folder or ends with
    a slash. A file is there whole and compared, or not at all. An interrupted download of a large file is gone on with
    by the next, where the server has ranges.

    \b
    Example:
      rucio-cs3 get CERNBOX:data/run1.root .
      rucio-cs3 get CERNBOX:data/run1.root CERNBOX:data/run2.root /scratch/
    """
    from rucio_cs3.cli.files.telling import Telling
    from rucio_cs3.files import workers
    from rucio_cs3.files.copying import Download, Wishes
    from rucio_cs3.files.outcomes import Outcome, failed

    local = Path(local_text)
    into = local.is_dir() or local_text.endswith("/")
    if len(source) > 1 and not into:
        raise click.UsageError(f"{local} is no folder; end it with a slash to have it made")
    found = [place(text, rse) for text in source]
    names = [remote_name(one) for one in found]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if into and twice is not None:
        raise click.UsageError(f"two of the files are called {twice}, and would go to one place")
    wishes = Wishes(overwrite=overwrite, threads=min(threads, len(found)))
    things: list[Outcome | workers.Work] = []
    total = 0
    for one, name in zip(found, names, strict=True):
        try:
            info = one.storage.settled(one.reference)
        except errors.CS3Error as error:
            things.append(failed(one.shown, error))
            continue
        if into and not info.is_directory:
            # Only now: for a name that is misspelt nothing is made here.
            with local_errors(local):
                local.mkdir(parents=True, exist_ok=True)
        total += 0 if info.is_directory else info.size
        things.append(
            Download(
                storage=one.storage,
                wishes=wishes,
                name=one.shown,
                reference=one.reference,
                path=local / name if into else local,
                info=info,
            )
        )
    telling = Telling(as_json=as_json, each=False, total_bytes=total)

    def break_off() -> None:
        for one in found:
            one.storage.http.break_off()

    telling.take(workers.outcomes(things, threads=wishes.threads, watch=telling.moved, break_off=break_off))
