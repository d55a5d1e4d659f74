"""``rucio-cs3 register``: files that are in a cloud already become replicas; words of :mod:`rucio_cs3.registration`."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.status import Status as Spinner

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3.errors import CS3Error
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.registration.neighbours import Neighbours
    from rucio_cs3.registration.plan import Row
    from rucio_cs3.registration.registration import Registration
    from rucio_cs3.registration.report import Report

#: So many files of each kind are named to people; JSON has all.
_NAMED = 20


@click.command(name="register")
@click.argument("place", metavar="RSE:FOLDER")
@click.option(
    "--scope", required=True, metavar="TEMPLATE", help="Scope of the files, such as user.jdoe or '{path[0]}'."
)
@click.option("--name", default="{path:.}", show_default=True, metavar="TEMPLATE", help="Names of the files in Rucio.")
@click.option("--dataset", metavar="TEMPLATE", help="Put the files into datasets of these names (or scope:name).")
@click.option("--dataset-per-folder", is_flag=True, help="The same as --dataset '{folder:.}'.")
@click.option("--container", metavar="TEMPLATE", help="Put the datasets into containers of these names.")
@click.option("--rule", is_flag=True, help="Add a rule without an end for each dataset, so that it stays at the RSE.")
@click.option("--locked", is_flag=True, help="Nobody can remove these rules before they are unlocked.")
@click.option("--read-checksums", is_flag=True, help="Read the files whose checksums the server does not know.")
@click.option("--size-only", is_flag=True, help="Register those without a checksum.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out such paths below the folder ('*' takes slashes, too).",
)
@click.option("--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="Files read at a time.")
@click.option(
    "--batches",
    type=click.IntRange(1, 32),
    default=2,
    show_default=True,
    help="Batches of files with Rucio at a time; more where its server has many processes.",
)
@click.option("--account", metavar="ACCOUNT", help="Account at Rucio (default: that of its configuration).")
@click.option("--reaper-may-delete", is_flag=True, help="Also where Rucio's reaper would delete the files by itself.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each file, and one for the sum.")
def command(
    place: str,
    scope: str,
    name: str,
    dataset: str | None,
    dataset_per_folder: bool,
    container: str | None,
    rule: bool,
    locked: bool,
    read_checksums: bool,
    size_only: bool,
    exclude: tuple[str, ...],
    parallel: int,
    batches: int,
    account: str | None,
    reaper_may_delete: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make replicas of the files that are below a folder of an RSE already. Nothing there is moved or changed.

    A second run adds what is new and nothing else; so does one after a run that was broken off. What Rucio has already
    is never changed: where a file differs from it, that is said. Files are left out where Rucio allows no such name,
    where no checksum is known, and where a deterministic RSE would look elsewhere; the exit code is 1 then.

    Templates have the fields {path} (below the RSE's folder), {folder} (that of the file), {below} (path below FOLDER),
    {name}, {stem}, {suffix} and {top} (name of FOLDER). {path[0]} and {path[1:]} are parts, {folder:.} has dots for
    slashes; rucio download cannot store files whose names have slashes.

    \b
    Example:
      rucio-cs3 register CERNBOX:projects/x --scope user.jdoe --dry-run
      rucio-cs3 register CERNBOX:projects/x --scope user.jdoe --dataset-per-folder --rule
      rucio-cs3 register CERNBOX: --scope '{path[0]}' --name '{path[1:]:.}' --dataset '{folder:.}'
    """
    if dataset is not None and dataset_per_folder:
        raise click.UsageError("--dataset and --dataset-per-folder are two ways to say one thing; give one of them")
    dataset = "{folder:.}" if dataset_per_folder else dataset
    for option, given in (("--container", container), ("--rule", rule)):
        if given and dataset is None:
            raise click.UsageError(f"{option} needs datasets: --dataset-per-folder or --dataset")
    if locked and not rule:
        raise click.UsageError("--locked is about the rules of --rule")
    if read_checksums and size_only:
        raise click.UsageError("--read-checksums leaves no file without a checksum; leave out --size-only")
    from rucio_cs3 import places
    from rucio_cs3.registration.catalogue import CatalogueError
    from rucio_cs3.registration.naming import Naming
    from rucio_cs3.registration.opening import open_rucio
    from rucio_cs3.registration.reading import Reader
    from rucio_cs3.registration.registration import Options, Registration
    from rucio_cs3.registration.report import Report
    from rucio_cs3.registration.templates import TemplateError

    try:
        naming = Naming.parse(scope=scope, name=name, dataset=dataset, container=container)
    except TemplateError as error:
        raise click.UsageError(str(error)) from error
    found = places.find_rse(place)
    printer = _Printer(as_json=as_json, dry_run=dry_run)
    report = Report()
    try:
        rucio = open_rucio(found.cloud, account=account, reaper_may_delete=reaper_may_delete)
        printer.begin(found.shown, rucio.catalogue.described, knows_names=rucio.schema is not None)
        if rucio.neighbours is not None:
            printer.neighbours(rucio.neighbours)
        reader = None
        if read_checksums:
            reader = Reader(found.storage, parallel=parallel, progress=printer.read)
        registration = Registration(
            found,
            rucio.catalogue,
            Options(naming=naming, exclude=exclude, size_only=size_only, dry_run=dry_run, batches=batches),
            schema=rucio.schema,
            deterministic=rucio.deterministic,
            reader=reader,
            neighbours=rucio.neighbours,
        )
        with printer.watched(report), contextlib.closing(registration.rows()) as rows:
            for row in rows:
                report.add(row)
                printer.row(row)
        if rule and not dry_run:
            for dataset_did, outcome in registration.rules(locked=locked):
                report.rules["refused" if isinstance(outcome, str) else "added" if outcome else "there"] += 1
                if isinstance(outcome, str):
                    printer.trouble("rule refused", str(dataset_did), outcome)
    except CatalogueError as error:
        printer.end_early(report)
        raise click.ClickException(printable(str(error))) from error
    except (CS3Error, KeyboardInterrupt):
        printer.end_early(report)
        raise
    if rucio.catalogue.remark:
        click.echo(printable(rucio.catalogue.remark), err=True)
    printer.end(report, registration, rule=rule)
    if not report.all_well:
        click.get_current_context().exit(1)


class _Printer:
    """What is said, and where: results to the standard output, all else to the other."""

    def __init__(self, *, as_json: bool, dry_run: bool) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._named: Counter[str] = Counter()
        self._read_bytes = 0
        self._report: Report | None = None
        self._spinner: Spinner | None = None

    def begin(self, place: str, described: str, *, knows_names: bool) -> None:
        if not self._as_json:
            click.echo(
                f"{printable(place)} into {printable(described)}{', dry run' if self._dry_run else ''}", err=True
            )
        if not knows_names:
            click.echo(
                "Rucio's schema is not installed here, so Rucio's server alone will say which names it refuses.",
                err=True,
            )

    def neighbours(self, found: Neighbours) -> None:
        """Other RSEs that have the same files; to the standard error, in any case."""
        said = (
            (found.names, "have the same folder; files that lie where those keep theirs are left out"),
            (found.unclear, "have the same folder, and which files are their replicas cannot be asked"),
            (found.unread, "could not be asked for their folders, which may be the same"),
        )
        for names, what in said:
            if names:
                click.echo(f"WARNING: other RSEs {what}: {printable(', '.join(names))}", err=True)
        if any(names for names, _ in said):
            click.echo("A file that is a replica of two RSEs is lost for both when one of them deletes it.", err=True)

    @contextlib.contextmanager
    def watched(self, report: Report) -> Iterator[None]:
        """Shows at a terminal how far it is."""
        self._report = report
        console = Console(stderr=True)
        if not console.is_terminal:
            yield
            return
        with console.status("0 files") as self._spinner:
            yield
        self._spinner = None

    def read(self, count: int) -> None:
        """So many bytes were read; by any thread."""
        self._read_bytes += count
        self._tell()

    def row(self, row: Row) -> None:
        self._tell()
        if self._as_json:
            click.echo(json.dumps(row.as_dict()))
        elif row.status.is_trouble:
            self.trouble(row.status.value, row.place, row.reason)
        elif row.status.value == "would be registered":
            into = f" in {row.dataset}" if row.dataset else ""
            self._line(row.status.value, f"{row.place} as {row.did}{into}")

    def trouble(self, what: str, place: str, reason: str) -> None:
        if self._as_json:
            click.echo(json.dumps({"status": what, "place": place, "reason": reason}))
        else:
            self._line(what, f"{place}: {reason}")

    def _line(self, what: str, text: str) -> None:
        self._named[what] += 1
        if self._named[what] <= _NAMED:
            click.echo(f"{what}: {printable(text)}")
        elif self._named[what] == _NAMED + 1:
            click.echo(f"{what}: … and more; --json names all")

    def end_early(self, report: Report) -> None:
        if report.seen:
            click.echo(f"broken off after {report.seen:,} files; run it again to go on", err=True)

    def end(self, report: Report, registration: Registration, *, rule: bool) -> None:
        if self._as_json:
            made = {kind.lower() + "s": registration.made[kind] for kind in ("DATASET", "CONTAINER")}
            click.echo(json.dumps({**report.as_dict(), "made": made, "dry_run": self._dry_run}))
            return
        for sentence in sentences(report, registration, dry_run=self._dry_run, rule=rule):
            click.echo(sentence)

    def _tell(self) -> None:
        if self._spinner is not None and self._report is not None:
            read = f", {size(self._read_bytes)} read" if self._read_bytes else ""
            self._spinner.update(f"{self._report.seen:,} files{read}")


def sentences(report: Report, registration: Registration, *, dry_run: bool, rule: bool) -> Iterator[str]:
    """What people are told in the end."""
    from rucio_cs3.registration.plan import Status

    parts = [
        f"{report.files[status]:,} {status.value} ({size(report.bytes[status])})"
        for status in Status
        if report.files[status]
    ]
    yield f"{report.seen:,} files: {', '.join(parts) or 'none'}"
    would = "would be " if dry_run else ""
    if registration.datasets:
        made = f", {registration.made['DATASET']:,} of them {would}new" if registration.made["DATASET"] else ""
        yield f"datasets: {len(registration.datasets):,}{made}; files {would}put there: {report.attached:,}"
    if registration.made["CONTAINER"]:
        yield f"containers {would}made: {registration.made['CONTAINER']:,}"
    if rule and not dry_run:
        yield f"rules: {report.rules['added']:,} added, {report.rules['there']:,} there before"
    if report.changed_nothing:
        yield f"nothing {'would change' if dry_run else 'was to be added'}"
    if report.files[Status.NO_CHECKSUM]:
        yield "--read-checksums reads the files without a checksum; --size-only registers them as they are"
    if report.files[Status.MISPLACED]:
        yield _way_out(registration.suggestion)


def _way_out(suggestion: tuple[str, str] | None) -> str:
    other = "a second RSE that is not deterministic, with the same prefix, takes files wherever they are"
    if suggestion is None:
        return f"{other}; see docs/register.md"
    scope, name = suggestion
    return f"--scope '{scope}' --name '{name}' would fit, by the first of these files; {other}"
