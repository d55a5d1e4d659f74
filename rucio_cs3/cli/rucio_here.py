"""What a command says where there is no Rucio, not enough of it, or one that cannot be used; imports nothing of it."""

from __future__ import annotations

from importlib import metadata

import click

from rucio_cs3.cli.transfers_table import printable


def unusable(exc: Exception) -> click.ClickException:
    """Rucio's own words, such as of a configuration that it does not find, in one line."""
    return click.ClickException(f"Rucio cannot be used here: {printable(' '.join(str(exc).split()))}")


def server_is_missing(program: str, exc: ModuleNotFoundError) -> Exception:
    """What to raise where only Rucio's clients are installed; the error itself for any other module."""
    if not (exc.name or "").startswith("rucio."):
        return exc
    return click.ClickException(
        f"{program} needs Rucio's server; run: pip install 'rucio-cs3[server]'{elsewhere('server')}"
    )


def elsewhere(extras: str) -> str:
    """Rucio's two wheels hold the same files; where one is, the other must not come.

    :param extras: of this package, with commas between.
    """
    if "server" in extras.split(",") and any(metadata.distributions(name="rucio-clients")):
        return " in another environment, because Rucio's clients are in this one"
    return ""
