"""``rucio-cs3 transfers``: what moves, what waits and what went wrong, as a table or as JSON, once or again and again.

Reads only. Which transfers: :mod:`rucio_cs3.listing.database` where Rucio's configuration names a database,
:mod:`rucio_cs3.listing.rest` elsewhere. How they look: :mod:`rucio_cs3.cli.transfers_table`.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rucio.common.exception import RucioException

from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.rucio_here import unusable
from rucio_cs3.cli.transfers_table import printable, render
from rucio_cs3.listing.entries import Listing, Stage, UnknownName, Wanted

#: Width of what is written into a file or a pipe, in characters: nobody folds lines there.
_PIPE_WIDTH = 400

#: A rule's id, with or without the dashes of a UUID.
_RULE = re.compile(r"[0-9a-f]{32}")


def _rule_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    plain = value.replace("-", "").lower()
    if not _RULE.fullmatch(plain):
        raise click.BadParameter(f"{value} is no id of a rule, which has 32 hexadecimal digits")
    return plain


@click.command(name="transfers")
@click.option("--rse", metavar="NAME", help="Only from or to this RSE.")
@click.option("--source", metavar="NAME", help="Only from this RSE.")
@click.option("--destination", metavar="NAME", help="Only to this RSE.")
@click.option("--rule", "rule_id", metavar="ID", callback=_rule_id, help="Only for this rule.")
@click.option("--activity", metavar="NAME", help="Only of this activity.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([stage.value for stage in Stage]),
    help="Only these; may be given several times.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Most rows of each state.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60, show_default=True, help="How far back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in one line.")
@click.option(
    "--watch",
    "watch_s",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(0.1),
    metavar="[SECONDS]",
    help="Look again and again, every 2 seconds or as given, until Ctrl-C.",
)
def command(
    rse: str | None,
    source: str | None,
    destination: str | None,
    rule_id: str | None,
    activity: str | None,
    states: tuple[str, ...],
    limit: int,
    minutes: float,
    as_json: bool,
    watch_s: float | None,
) -> None:
    """Show the transfers of transfertool cs3: running, waiting, failed and done.

    Where Rucio's configuration names its database, all transfers are read from there. Elsewhere Rucio's server is
    asked for those of your own rules, or of the rule that --rule names.

    \b
    Example:
      rucio-cs3 transfers
      rucio-cs3 transfers --watch
      rucio-cs3 transfers --destination CERNBOX --state failed --minutes 1440
      rucio-cs3 transfers --json | jq '.transfers[] | select(.state == "running")'
    """
    wanted = Wanted(
        stages=[stage for stage in Stage if not states or stage.value in states],
        rse=rse,
        source=source,
        destination=destination,
        rule_id=rule_id,
        activity=activity,
        limit=limit,
        since=timedelta(minutes=minutes),
    )
    look = _one_sentence(_looker())
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    if watch_s is None:
        _show(console, look(wanted), as_json=as_json)
        return
    # A terminated watch gives the cursor back, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Ctrl-C is the one way to end it, and no failure.
    with contextlib.suppress(KeyboardInterrupt):
        _watch(console, lambda: look(wanted), watch_s, as_json=as_json)


def _looker() -> Callable[[Wanted], Listing]:
    """Where to look.

    :raises click.ClickException: when Rucio has no configuration here.
    """
    try:
        # Rucio reads its configuration when it is imported; the help must not need one.
        from rucio.common.config import get_config, is_client

        get_config()
        if is_client() or find_spec("rucio.db") is None:
            from rucio_cs3.listing import rest

            return rest.look
        from rucio_cs3.listing import database
    except RucioException as exc:
        raise unusable(exc) from exc
    return database.look


def _one_sentence(look: Callable[[Wanted], Listing]) -> Callable[[Wanted], Listing]:
    """The same, with failures that people can read."""
    failures: tuple[type[Exception], ...] = (RucioException,)
    if find_spec("sqlalchemy") is not None:
        from sqlalchemy.exc import SQLAlchemyError

        failures += (SQLAlchemyError,)

    def looked(wanted: Wanted) -> Listing:
        try:
            return look(wanted)
        except UnknownName as exc:
            raise click.ClickException(str(exc)) from exc
        except failures as exc:
            raise click.ClickException(f"Rucio cannot be asked: {_essence(exc)}") from exc

    return looked


def _essence(error: Exception) -> str:
    """Rucio and SQLAlchemy say first what kind of thing went wrong, then what, then the statement."""
    text = str(getattr(error, "orig", None) or error).partition("Details:")[2] or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[0]) if lines else type(error).__name__


def _show(console: Console, listing: Listing, *, as_json: bool) -> None:
    if as_json:
        print_json(listing.as_dict())
    else:
        console.print(render(listing, width=console.width))


def _watch(console: Console, look: Callable[[], Listing], every_s: float, *, as_json: bool) -> None:
    """Show, pause, and so on; only the first look may fail for good, because later ones may find Rucio again."""
    pause = threading.Event()
    listing = look()
    if as_json or not console.is_terminal:
        while True:
            _show(console, listing, as_json=as_json)
            listing = _next(look, pause, every_s, lambda text: click.echo(text, err=True))
    with Live(render(listing, width=console.width), console=console, auto_refresh=False) as live:
        while True:
            listing = _next(look, pause, every_s, lambda text: console.print(Text(text, style="red")))
            live.update(render(listing, width=console.width), refresh=True)


def _next(
    look: Callable[[], Listing], pause: threading.Event, every_s: float, tell: Callable[[str], object]
) -> Listing:
    while True:
        pause.wait(every_s)
        try:
            return look()
        except click.ClickException as error:
            tell(f"{error.format_message()}; trying again")
