"""How ``rucio-cs3 transfers`` looks to people: a line of sums, and a table that fits the console."""

from __future__ import annotations

from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rucio_cs3.listing.amounts import size, span
from rucio_cs3.listing.entries import Count, Listing, Stage, Transfer

_COLOURS = {
    Stage.RUNNING: "bold cyan",
    Stage.WAITING: "yellow",
    Stage.THROTTLED: "magenta",
    Stage.QUEUED: "dim",
    Stage.FAILED: "bold red",
    Stage.DONE: "green",
}

#: From this width on, in characters, there is a bar; and from that on a transfer takes one line instead of two.
_BAR_FROM, _ONE_LINE_FROM = 90, 150

_BAR_WIDTH = 16


def render(listing: Listing, *, width: int) -> RenderableType:
    """All of it, for a console of so many characters."""
    # The sums first, because a terminal that is too low shows the beginning.
    parts: list[RenderableType] = [_sums(listing)]
    if listing.transfers:
        parts.append(_table(listing, width))
    for stage, count in listing.counts.items():
        shown = len(listing.of(stage))
        if shown and count.number > shown:
            more = Count(number=count.number - shown, at_least=count.at_least)
            parts.append(Text(f"  … and {more} more {stage.value}", style=_COLOURS[stage]))
    parts += [Text(f"  {printable(note)}", style="dim") for note in listing.notes]
    return Group(*parts)


def _table(listing: Listing, width: int) -> Table:
    one_line, with_bar = width >= _ONE_LINE_FROM, width >= _BAR_FROM
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("file", overflow="fold")
    if one_line:
        table.add_column("from → to", overflow="fold")
        table.add_column("", overflow="fold")
    if with_bar:
        table.add_column("", width=_BAR_WIDTH)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("rate", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    for transfer in listing.transfers:
        file = Text(printable(f"{transfer.scope}:{transfer.name}"))
        link = Text(printable(f"{transfer.source or '?'} → {transfer.destination}"))
        details = _details(transfer, listing.at)
        rate, left_s = transfer.rate(listing.at), transfer.left_s(listing.at)
        table.add_row(
            Text(transfer.stage.value, style=_COLOURS[transfer.stage]),
            *([file, link, details] if one_line else [Text("\n").join([file, Text(", ").join([link, details])])]),
            *([_bar(transfer)] if with_bar else []),
            _percent(transfer),
            "" if rate is None else f"{size(rate)}/s",
            "" if left_s is None else span(left_s),
        )
    return table


def _sums(listing: Listing) -> Text:
    """Such as ``2 running at 31.0 MB/s, 14 waiting (the oldest for 4 min), 3 failed and 8 done in the last 60 min``."""
    parts, over = [], []
    for stage, count in listing.counts.items():
        part = f"{count} {stage.value}"
        if stage.is_over:
            over.append(part)
            continue
        if stage is Stage.RUNNING and listing.rate:
            part += f" at {size(listing.rate)}/s"
        if stage is Stage.WAITING and listing.oldest_s is not None:
            part += f" (the oldest for {span(listing.oldest_s)})"
        # Most sites throttle nothing; what people look for is said even if there is none.
        if count.number or stage in (Stage.RUNNING, Stage.WAITING):
            parts.append(part)
    if over:
        parts.append(f"{' and '.join(over)} in the last {listing.since.total_seconds() / 60:g} min")
    return Text(f"{listing.at:%Y-%m-%d %H:%M:%S} UTC: {', '.join(parts)}", style="bold")


def _details(transfer: Transfer, now: datetime) -> Text:
    """Such as ``pull, 4.2 GB, for 31 s, lease 9 min`` or ``push, 4.2 GB in 60 s, 4 min ago: the quota is used up``."""
    seconds = transfer.seconds(now)
    parts = [transfer.mode.value] if transfer.mode else []
    if transfer.size_bytes is not None:
        took = f" in {span(seconds)}" if transfer.stage is Stage.DONE and seconds is not None else ""
        parts.append(size(transfer.size_bytes) + took)
    since = transfer.submitted_at or transfer.created_at
    if transfer.stage is Stage.RUNNING and seconds is not None:
        parts.append(f"for {span(seconds)}")
    elif not transfer.stage.is_over and since is not None:
        parts.append(f"for {span((now - since).total_seconds())}")
    if transfer.lease_until is not None:
        parts.append(f"lease {span((transfer.lease_until - now).total_seconds())}")
    if transfer.attempt:
        parts.append(f"attempt {transfer.attempt + 1}")
    if transfer.over_at is not None:
        parts.append(f"{span((now - transfer.over_at).total_seconds())} ago")
    text = Text(", ".join(parts), style="dim")
    if transfer.reason:
        # Long reasons begin with their essence, for Rucio's own short column; see rucio_cs3.reasons.
        reason = transfer.reason.partition(" | ")[0]
        text.append(f"{': ' if parts else ''}{printable(reason)}", style="not dim red")
    return text


def _bar(transfer: Transfer) -> RenderableType:
    if transfer.stage is not Stage.RUNNING or transfer.bytes_moved is None or not transfer.size_bytes:
        return ""
    return ProgressBar(total=transfer.size_bytes, completed=transfer.bytes_moved, width=_BAR_WIDTH)


def _percent(transfer: Transfer) -> str:
    if transfer.stage is not Stage.RUNNING or transfer.bytes_moved is None or not transfer.size_bytes:
        return ""
    # 100 % is what is proven.
    return f"{min(99, 100 * transfer.bytes_moved // transfer.size_bytes)} %"


def printable(text: str) -> str:
    """Without what a terminal would obey: names and reasons come from other people and from servers."""
    return "".join(character if character.isprintable() else "�" for character in text)
