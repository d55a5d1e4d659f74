"""``rucio-cs3 run``: one of Rucio's own commands, in a process that knows this package.

For sites whose ``[policy] package`` cannot be changed, or not yet: the schemes davs, https and http need no
registration anywhere, but submitter, poller and preparer must know the transfertool.
"""

from __future__ import annotations

import runpy
import sys
import sysconfig
from pathlib import Path

import click
from rucio.common.exception import ConfigLoadingError, ConfigNotFound

from rucio_cs3.cli.rucio_here import server_is_missing, unusable
from rucio_cs3.policy import register


@click.command(name="run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("program", metavar="COMMAND")
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def command(program: str, arguments: tuple[str, ...]) -> None:
    """Run one of Rucio's own commands with this package registered.

    \b
    Example:
      rucio-cs3 run rucio-conveyor-submitter --run-once
      rucio-cs3 run rucio-conveyor-poller --run-once --older-than 0
    """
    # Rucio's wheels install their commands as scripts, not as entry points.
    script = Path(sysconfig.get_path("scripts")) / program
    if Path(program).name != program or not program.startswith("rucio") or not script.is_file():
        raise click.UsageError(f"{program} is no command of the Rucio that is installed with this package")
    sys.argv = [str(script), *arguments]
    register()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except ModuleNotFoundError as exc:
        # The wheel rucio-clients ships the daemons' scripts, too, but not what they need.
        raise server_is_missing(program, exc) from exc
    except (ConfigNotFound, ConfigLoadingError) as exc:
        raise unusable(exc) from exc
