"""``rucio-cs3 usage``: how full clouds are; options and words of :mod:`rucio_cs3.inventory.usage`."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.inventory.usage import Usage
    from rucio_cs3.inventory.versions import VersionCounts

#: From this width on, in characters, there is a table.
_TABLE_FROM = 60


@click.command(name="usage")
@click.argument("names", metavar="[RSE|NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All clouds of the clouds file, and all RSEs that are CS3 clouds.")
@click.option("--push", is_flag=True, help="Tell Rucio, as its reaper reads it.")
@click.option("--no-trash", is_flag=True, help="Do not look into the recycle bins, whose listings may be long.")
@click.option(
    "--versions", is_flag=True, help="Count old versions of files, too: one call for each file, so it takes long."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each cloud; sizes in bytes.")
@click.option("--srr", is_flag=True, help="Print a storage resource report (WLCG).")
@click.option("--name", "service", default="rucio-cs3", show_default=True, help="Of the service in that report.")
@click.option(
    "--watch",
    "watch_s",
    is_flag=False,
    flag_value=300.0,
    type=click.FloatRange(1),
    metavar="[SECONDS]",
    help="Again and again, every 300 seconds or as given, until Ctrl-C.",
)
def command(
    names: tuple[str, ...],
    every: bool,
    push: bool,
    no_trash: bool,
    versions: bool,
    as_json: bool,
    srr: bool,
    service: str,
    watch_s: float | None,
) -> None:
    """Show used, free and total space of clouds, what is in their recycle bins, and old versions of files.

    What the numbers mean differs from server to server; docs/usage.md has the table. With --push Rucio gets them, which
    its reaper needs to keep MinFreeSpace free: from cron, or with --watch.

    \b
    Example:
      rucio-cs3 usage CERNBOX
      rucio-cs3 usage CERNBOX --versions
      rucio-cs3 usage --all --push
      rucio-cs3 usage --all --push --watch 600
      rucio-cs3 usage CERNBOX --srr > srr.json
    """
    if bool(names) == every:
        raise click.UsageError("name one or more clouds, or give --all")
    if srr and as_json:
        raise click.UsageError("--srr is JSON already")
    if srr and versions:
        raise click.UsageError("--srr has no place for --versions")

    def look() -> bool:
        failures: list[str] = []
        wanted = names or tuple(_all(failures, only_rses=push))
        if not wanted and not failures:
            failures.append(
                "there is no RSE that is a CS3 cloud" if push else "no cloud is configured, and no RSE is one"
            )
        asked = functools.partial(_look, trash=not no_trash, push=push, versions=versions)
        return _round(wanted, failures, asked, as_json=as_json, srr=srr, name=service)

    if watch_s is None:
        if not look():
            raise click.exceptions.Exit(1)
        return
    # Ctrl-C is the one way to end it, and no failure.
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            look()
            time.sleep(watch_s)


def _round(
    names: tuple[str, ...],
    failures: list[str],
    look: Callable[[str], Usage],
    *,
    as_json: bool,
    srr: bool,
    name: str,
) -> bool:
    """Once; whether all went well.

    :param failures: what has failed before.
    """
    from rucio_cs3.inventory import usage

    found = []
    for one in names:
        try:
            found.append(look(one))
        except _failures() as error:
            failures.append(f"{one}: {_words(error)}")
    if srr:
        click.echo(json.dumps(usage.report(found, name=name), indent=2))
    elif as_json:
        for each in found:
            print_json(each.as_dict())
    elif found:
        _show(found)
    for failure in failures:
        click.echo(f"Error: {printable(failure)}", err=True)
    return not failures


def _look(name: str, *, trash: bool, push: bool, versions: bool) -> Usage:
    from rucio_cs3 import places
    from rucio_cs3.inventory import usage

    # Only of RSEs Rucio is told.
    seen = usage.look(places.cloud_of_rse(name) if push else places.find_cloud(name), trash=trash)
    if push:
        with _rucio():
            from rucio_cs3.inventory import pushing

            pushing.push(seen)
    # Last, for it may take hours, and end without a number.
    return _with_versions(seen) if versions else seen


def _with_versions(seen: Usage) -> Usage:
    from rucio_cs3.inventory import usage

    console = Console(stderr=True)
    if not console.is_terminal:
        return usage.with_versions(seen)
    with console.status("0 files") as status:
        return usage.with_versions(
            seen, watcher=lambda counts: status.update(f"{counts.files:,} files, {counts.items:,} old versions")
        )


def _all(failures: list[str], *, only_rses: bool) -> Iterator[str]:
    """Names of all clouds.

    :param failures: gets a sentence for what cannot be asked; the others come all the same.
    :param only_rses: without the sections of the clouds file.
    """
    from rucio_cs3 import clouds, places

    sections: list[str] = []
    names: list[str] = []
    try:
        # What the file says of them is nothing to RSEs, whose names may be the same.
        sections += () if only_rses else clouds.configured()
        # Nothing where there is no Rucio, which cannot even be imported then.
        names += (name for name in places.names_of_rses() if name not in sections)
    except _failures() as error:
        failures.append(_words(error))
    yield from sections
    for name in names:
        try:
            with _rucio():
                from rucio_cs3.inventory import pushing

                if pushing.is_ours(name):
                    yield name
        except _failures() as error:
            failures.append(f"{name}: {_words(error)}")


def _failures() -> tuple[type[Exception], ...]:
    """What says nothing of other clouds: errors of one, and those that Rucio passes on from its database and its
    server. Who raises one has imported it.
    """
    passed_on = [("sqlalchemy.exc", "SQLAlchemyError"), ("requests.exceptions", "RequestException")]
    theirs = [getattr(sys.modules[module], name) for module, name in passed_on if module in sys.modules]
    return (errors.CS3Error, click.ClickException, *theirs)


def _words(error: Exception) -> str:
    if isinstance(error, errors.CS3Error):
        return str(error)
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def _rucio() -> Iterator[None]:
    """Rucio's refusals in one sentence."""
    from rucio.common.exception import RucioException

    try:
        yield
    except RucioException as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise click.ClickException(f"Rucio: {lines[0]}") from exc


def _show(found: list[Usage]) -> None:
    console = Console(highlight=False)
    with_versions = any(usage.versions is not None for usage in found)
    if console.width < _TABLE_FROM:
        for usage in found:
            used, free, total, trash, versions = _cells(usage)
            more = f", {versions} in old versions" if with_versions else ""
            told = f"{used} used, {free} free of {total}, {trash} in trash{more}"
            console.print(Text(f"{printable(usage.cloud.name)}: {told}"))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cloud", overflow="fold")
    titles = ["used", "free", "total", "trash", *(["versions"] if with_versions else [])]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for usage in found:
        table.add_row(Text(printable(usage.cloud.name)), *_cells(usage)[: len(titles)])
    console.print(table)


def _cells(usage: Usage) -> tuple[str, str, str, str, str]:
    """Used, free, total, trash, old versions."""
    quota, trash, versions = usage.quota, usage.trash, usage.versions
    unknown = "+" if trash is not None and trash["of_unknown_size"] else ""
    return (
        size(quota.used_bytes),
        "no limit" if quota.remaining_bytes is None else size(quota.remaining_bytes),
        "no limit" if quota.total_bytes is None else size(quota.total_bytes),
        "?" if trash is None else f"{size(trash['bytes'])}{unknown}",
        _of_versions(versions),
    )


def _of_versions(found: VersionCounts | None) -> str:
    if found is None:
        return "?"
    if not found.supported:
        return "not supported"
    if found.unknown_files and not found.files:
        return "?"
    return f"{size(found.bytes)}{'' if found.is_all else '+'}"
