"""``rucio-cs3 audit``: lost and dark files of an RSE; options and words of :mod:`rucio_cs3.inventory.auditing`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rucio_cs3.cli.dump import watched
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.clouds import Cloud
    from rucio_cs3.inventory.auditing import Report
    from rucio_cs3.inventory.catalogue import Replica

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(name="audit")
@click.argument("rse")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the lists, and for dumps that are taken (default: audit-RSE).",
)
@click.option("--before", type=_file, help="Dump of Rucio's replicas from before (default: taken now).")
@click.option("--storage", type=_file, help="Dump of the storage (default: taken after that).")
@click.option("--after", type=_file, help="Dump of Rucio's replicas from after (default: taken at the end).")
@click.option("--scope", "scopes", multiple=True, help="Without Rucio's database: only these scopes are asked for.")
@click.option(
    "--grace",
    "grace_h",
    type=click.FloatRange(0),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="Files that were changed in the last HOURS are not called dark; by the second look, or a dump with times.",
)
@click.option("--no-look", is_flag=True, help="Do not look at the storage once more for each finding.")
@click.option("--json", "as_json", is_flag=True, help="Print counts as JSON.")
def command(
    rse: str,
    output: Path | None,
    before: Path | None,
    storage: Path | None,
    after: Path | None,
    scopes: tuple[str, ...],
    grace_h: float,
    no_look: bool,
    as_json: bool,
) -> None:
    """Tell which files of an RSE are lost, and which are dark. Nothing is deleted or declared.

    A file is lost that Rucio has as available both before and after the storage was listed, and the storage has not.
    One is dark that the storage has, and Rucio has neither before nor after. What is found is looked for once more.

    In the folder of --output: lost.tsv, dark.tsv, different.tsv (another size or adler32), lost.pfns for Rucio's own
    command, RSE_YYYYMMDD in the form of rucio-auditor's results, and summary.json. Where more than a tenth is lost or
    dark, that is not plausible: lists are written, and the exit code is 1.

    \b
    Example:
      rucio-cs3 audit CERNBOX -o audit
      rucio-cs3 audit CERNBOX --before monday.gz --storage dump_20261121.gz --after friday.gz
      rucio-cs3 audit CERNBOX --json | jq .lost
    """
    if storage is not None and before is None:
        raise click.UsageError("--storage needs --before: replicas taken now are younger than that dump")
    if after is not None and storage is None:
        raise click.UsageError("--after needs --storage: a dump taken now would be younger than it")
    from rucio_cs3 import places
    from rucio_cs3.inventory import auditing
    from rucio_cs3.inventory.dump import Incomplete

    # Only an RSE has a catalogue.
    cloud = places.cloud_of_rse(rse)
    wanted = auditing.Wanted(
        rse=rse,
        folder=output or Path(f"audit-{rse}"),
        cloud=cloud,
        before=before,
        storage=storage,
        after=after,
        grace_h=grace_h,
        looks_max=0 if no_look else auditing.LOOKS_MAX,
    )
    try:
        with watched() as watcher:
            report = auditing.Audit(wanted, lambda: _in_words(_source(scopes), cloud), watcher=watcher).run()
    except Incomplete as exc:
        raise click.ClickException(
            f"{exc}. Without it files would be called lost that are there, so there is no audit"
        ) from exc
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        for sentence in sentences(report, wanted.folder):
            click.echo(sentence)
    if not report.plausible:
        raise click.exceptions.Exit(1)


def sentences(report: Report, folder: Path) -> Iterator[str]:
    """What people are told."""
    seen = report.seen
    yield f"{report.rse}: {seen.storage} files in the storage, {seen.before} replicas before and {seen.after} after"
    yield f"lost: {report.lost} files, {size(report.lost_bytes)}"
    yield f"dark: {report.dark} files, {size(report.dark_bytes)}"
    if report.different:
        yield f"there with another size or checksum: {report.different} files"
    if report.young:
        yield f"too young to say: {report.young} files"
    if report.gone:
        yield f"not confirmed by a second look: {report.gone} files"
    if not report.looked:
        yield f"not looked for once more: {report.not_looked_at} files"
    if report.untold or report.unlisted:
        yield f"with a tab or line break in their names, so nothing is said of them: {report.untold} files"
        if report.unlisted:
            yield f"  and {report.unlisted} replicas, which no dump of Rucio can hold"
    yield f"lists: {folder}"
    if not report.plausible:
        yield "NOT PLAUSIBLE: more than a tenth is lost or dark; check prefix, account and disk before you believe it"
    elif report.pfns:
        reason = shlex.quote(f"lost, audit of {report.ended_at}")
        yield "to have Rucio get the lost ones from elsewhere, or drop them:"
        yield f"  rucio replica state update bad --reason {reason} --as-file {shlex.quote(str(folder / 'lost.pfns'))}"


def _source(scopes: tuple[str, ...]) -> Callable[[Cloud], Iterable[Replica]]:
    """What gives all replicas of an RSE, from where they are to be had."""
    # Rucio reads its configuration when it is imported; the help must not need one.
    from rucio.common.config import is_client

    if is_client() or find_spec("rucio.db") is None:
        from rucio_cs3.inventory import catalogue_rest

        return lambda cloud: catalogue_rest.replicas(cloud, scopes)
    from rucio_cs3.inventory import catalogue_database

    return catalogue_database.replicas


def _in_words(source: Callable[[Cloud], Iterable[Replica]], cloud: Cloud) -> Iterator[Replica]:
    from rucio.common.exception import RucioException

    failures: tuple[type[Exception], ...] = (RucioException,)
    if find_spec("sqlalchemy") is not None:
        from sqlalchemy.exc import SQLAlchemyError

        failures += (SQLAlchemyError,)
    try:
        yield from source(cloud)
    except failures as exc:
        lines = str(getattr(exc, "orig", None) or exc).strip().splitlines() or [type(exc).__name__]
        raise click.ClickException(f"Rucio cannot be asked for the replicas: {lines[0]}") from exc
