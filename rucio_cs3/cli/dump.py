"""``rucio-cs3 dump``: the files of a folder in a file; options and words of :mod:`rucio_cs3.inventory.dump`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rucio_cs3.cli.files.given import rse_option
from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.inventory.lines import Form
    from rucio_cs3.inventory.manifest import Counts, Manifest


def _hours(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    from rucio_cs3.undelete import duration_s

    age_s = duration_s(value)
    if age_s is not None:
        return age_s / 3600
    try:
        hours = float(value)
    except ValueError:
        hours = math.nan
    if not 0 <= hours < math.inf:
        raise click.BadParameter(f"{value!r} is no age; write 12h, 7d or 2w")
    return hours


@click.command(name="dump")
@click.argument("place", metavar="PLACE")
@rse_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; compressed where it ends with .gz. Its manifest has .json behind that.",
)
@click.option("--long", "form", flag_value="long", help="With size, time and adler32, in columns with tabs between.")
@click.option("--jsonl", "form", flag_value="jsonl", help="The same as JSON, one object in each line.")
@click.option(
    "--older-than",
    "older_than_h",
    default="0h",
    metavar="AGE",
    callback=_hours,
    help="Leave out files that were changed since then: 12h, 7d, 2w; a number alone is hours.",
)
@click.option(
    "--versions", is_flag=True, help="Count old versions of files, too: one more call for each file, so it takes long."
)
@click.option("--allow-incomplete", is_flag=True, help="Go on without what cannot be listed; the manifest says so.")
@click.option("--resume/--no-resume", default=True, help="Go on where a run was broken off (default), or begin anew.")
@click.option(
    "--parallel",
    "threads",
    type=click.IntRange(1, 16),
    default=8,
    show_default=True,
    help="Folders that are listed, and files asked for their versions, at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def command(
    place: str,
    rse: str | None,
    output: Path,
    form: Form | None,
    older_than_h: float,
    versions: bool,
    allow_incomplete: bool,
    resume: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Write the paths of all files of an RSE, or below a folder, into a file: all of them, or none.

    The file has its name only when it is complete. What is broken off (Ctrl-C, a gateway that is away, a full disk)
    goes on with the next run of the same command, for 24 hours. Lines are sorted as by LC_ALL=C sort, with paths below
    the prefix of the RSE: as rucio.common.dumper.consistency reads them.

    \b
    Example:
      rucio-cs3 dump CERNBOX -o dump_20261121.gz
      rucio-cs3 dump CERNBOX:user.jdoe --long -o mine.gz
      rucio-cs3 dump CERNBOX -o dump_20261121 --older-than 24h
      rucio-cs3 dump CERNBOX -o dump_20261121.gz --versions --json | jq .versions
    """
    from rucio_cs3 import places
    from rucio_cs3.inventory import dumping
    from rucio_cs3.inventory.dump import Incomplete

    found = places.find(place, rse=rse)
    options = dumping.Options(
        form=form or "paths",
        older_than_h=older_than_h,
        incomplete=allow_incomplete,
        resume=resume,
        threads=threads,
        versions=versions,
    )
    try:
        with watched() as watcher:
            made = dumping.dump(found, output, options, watcher=watcher)
    except Incomplete as exc:
        raise click.ClickException(
            f"{exc}. With --allow-incomplete the dump is made without, and its manifest says so"
        ) from exc
    if as_json:
        print_json(made.as_dict())
        return
    for sentence in sentences(made):
        click.echo(sentence)


@contextlib.contextmanager
def watched() -> Iterator[Callable[[Counts, str], None] | None]:
    """Shows at a terminal how far a dump is; the block is given what to tell it to."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("0 files") as status:
        yield lambda counts, _path: status.update(f"{counts.files:,} files, {size(counts.bytes)}")


def sentences(made: Manifest) -> Iterator[str]:
    """What people are told of a dump that is there."""
    counts = made.counts
    yield f"{printable(made.dump)}: {counts.files} files, {size(counts.bytes)}, in {counts.folders} folders"
    if counts.younger_files:
        yield f"left out as younger than {made.older_than_h:g} h: {counts.younger_files} files"
    if not made.complete:
        yield f"NOT COMPLETE: {counts.missing} entries or folders are missing; see {printable(made.dump)}.json"
    if counts.misread:
        yield (
            f"Rucio's own consistency tools take {counts.misread} of these paths for others, because they begin like "
            "the end of the prefix, or with rucio/; rucio-cs3 audit does not"
        )
    if made.trash and made.trash.get("items"):
        unknown = made.trash.get("of_unknown_size") or 0
        more = f" and {unknown} of unknown size" if unknown else ""
        yield f"in the recycle bin beside them: {made.trash['items']} items, {size(made.trash['bytes'])}{more}"
    if made.versions is not None:
        yield _of_versions(made.versions)


def _of_versions(found: Mapping[str, Any]) -> str:
    from rucio_cs3.inventory.versions import IN_VAIN_MAX

    if not found["supported"]:
        return "old versions of files: not supported by the server"
    told = f"old versions of files beside them: {found['items']}, {size(found['bytes'])}"
    numbers = {"files": found["unknown_files"], "folders": found["unknown_folders"]}
    unknown = [f"{number} {what}" for what, number in numbers.items() if number]
    why = f"; nobody asked on after {IN_VAIN_MAX} answers of the same failure" if found["stopped"] else ""
    return f"{told}; NOT KNOWN of {' and '.join(unknown)}{why}" if unknown else told
