"""``rucio-cs3 usage``: how full clouds are; options and words of :mod:`rucio_cs3.inventory.usage`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.cs3 import errors
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.inventory.usage import Usage

#: From this width on, in characters, there is a table.
_TABLE_FROM = 60


@click.command(name="usage")
@click.argument("names", metavar="[RSE|NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All clouds of the clouds file, and all RSEs that are CS3 clouds.")
@click.option("--push", is_flag=True, help="Tell Rucio, as its reaper reads it.")
@click.option("--no-trash", is_flag=True, help="Do not look into the recycle bins, whose listings may be long.")
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
    as_json: bool,
    srr: bool,
    service: str,
    watch_s: float | None,
) -> None:
    """Show used, free and total space of clouds, and what is in their recycle bins.

    What the numbers mean differs from server to server; docs/usage.md has the table. With --push Rucio gets them, which
    its reaper needs to keep MinFreeSpace free: from cron, or with --watch.

    \b
    Example:
      rucio-cs3 usage CERNBOX
      rucio-cs3 usage --all --push
      rucio-cs3 usage --all --push --watch 600
      rucio-cs3 usage CERNBOX --srr > srr.json
    """
    if bool(names) == every:
        raise click.UsageError("name one or more clouds, or give --all")
    if srr and as_json:
        raise click.UsageError("--srr is JSON already")

    def look() -> bool:
        failures: list[str] = []
        wanted = names or tuple(_all(failures, only_rses=push))
        if not wanted and not failures:
            failures.append(
                "there is no RSE that is a CS3 cloud" if push else "no cloud is configured, and no RSE is one"
            )
        return _round(wanted, failures, push=push, trash=not no_trash, as_json=as_json, srr=srr, name=service)

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
    names: tuple[str, ...], failures: list[str], *, push: bool, trash: bool, as_json: bool, srr: bool, name: str
) -> bool:
    """Once; whether all went well.

    :param failures: what has failed before.
    """
    from rucio_cs3.inventory import usage

    found = []
    for one in names:
        try:
            found.append(_look(one, trash=trash, push=push))
        except _failures() as error:
            failures.append(f"{one}: {_words(error)}")
    if srr:
        click.echo(json.dumps(usage.report(found, name=name), indent=2))
    elif as_json:
        for each in found:
            click.echo(json.dumps(each.as_dict(), ensure_ascii=False))
    elif found:
        _show(found)
    for failure in failures:
        click.echo(f"Error: {printable(failure)}", err=True)
    return not failures


def _look(name: str, *, trash: bool, push: bool) -> Usage:
    from rucio_cs3 import places
    from rucio_cs3.inventory import usage

    seen = usage.look(places.find_cloud(name), trash=trash)
    if push:
        with _rucio():
            from rucio_cs3.inventory import pushing

            pushing.push(seen)
    return seen


def _all(failures: list[str], *, only_rses: bool) -> Iterator[str]:
    """Names of all clouds.

    :param failures: gets a sentence for what cannot be asked; the others come all the same.
    :param only_rses: without the sections of the clouds file.
    """
    from rucio_cs3 import clouds, places

    sections: list[str] = []
    names: list[str] = []
    try:
        sections += clouds.configured()
        # Nothing where there is no Rucio, which cannot even be imported then.
        names += (name for name in places.names_of_rses() if name not in sections)
    except _failures() as error:
        failures.append(_words(error))
    if not only_rses:
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
    if console.width < _TABLE_FROM:
        for usage in found:
            used, free, total, trash = _cells(usage)
            console.print(Text(f"{printable(usage.cloud.name)}: {used} used, {free} free of {total}, {trash} in trash"))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cloud", overflow="fold")
    for title in ("used", "free", "total", "trash"):
        table.add_column(title, justify="right", no_wrap=True)
    for usage in found:
        table.add_row(Text(printable(usage.cloud.name)), *_cells(usage))
    console.print(table)


def _cells(usage: Usage) -> tuple[str, str, str, str]:
    """Used, free, total, trash."""
    quota, trash = usage.quota, usage.trash
    unknown = "+" if trash is not None and trash["of_unknown_size"] else ""
    return (
        size(quota.used_bytes),
        "no limit" if quota.remaining_bytes is None else size(quota.remaining_bytes),
        "no limit" if quota.total_bytes is None else size(quota.total_bytes),
        "?" if trash is None else f"{size(trash['bytes'])}{unknown}",
    )
