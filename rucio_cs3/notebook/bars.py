"""Progress bars for whoever looks: in a terminal, and in a notebook (with ipywidgets). Nowhere else, and on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rucio_cs3.cs3.streams import Progress

#: Less than this is there before anybody has read what the bar says, in bytes.
SHOWN_FROM_BYTES = 4 * 1024 * 1024


@contextlib.contextmanager
def bar(title: str, total: int, *, wanted: bool | None = None) -> Iterator[Progress | None]:
    """What is to be told of the bytes that move; None where there is no bar.

    :param title: what moves.
    :param total: bytes in all.
    :param wanted: None shows a bar of large files, where somebody can see it.
    """
    if wanted is False or (wanted is None and total < SHOWN_FROM_BYTES):
        yield None
        return
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_jupyter and (not console.is_terminal or console.is_dumb_terminal):
        yield None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(escape(title), total=total)
        yield lambda count: shown.update(task, advance=count)
