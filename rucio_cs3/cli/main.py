"""The group that all subcommands belong to, and what becomes of errors that reach the top.

Subcommands are imported when they are called, so that ``rucio-cs3 --help`` is quick and a machine without
the Rucio server still has the commands that need none.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping

import click

from rucio_cs3._version import __version__
from rucio_cs3.cs3 import errors

#: Command -> (module below rucio_cs3.cli, what it needs beside the core, first line of its help).
_COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "agent": ("agent", "server", "Move files between clouds for Rucio's conveyor."),
    "app-password": ("app_password", "client", "Make, list and revoke passwords for robots at a cloud."),
    "demo": ("demo", "server,sandbox", "Show the whole way: two clouds, one Rucio, upload to deletion."),
    "run": ("run", "server", "Run one of Rucio's own commands with this package registered."),
    "transfers": ("transfers", "client", "Show what moves, what waits and what went wrong."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, extras, _ = _COMMANDS[cmd_name]
        try:
            command = importlib.import_module(f"rucio_cs3.cli.{module}").command
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("rucio_cs3"):
                raise
            raise click.ClickException(
                f"{cmd_name} needs {exc.name}, which is not installed; run: pip install 'rucio-cs3[{extras}]'"
            ) from exc
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without importing them all, as the base class would.
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][2]) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rucio-cs3")
def cli() -> None:
    """CS3 clouds (CERNBox, ownCloud Infinite Scale, OpenCloud) as Rucio storage elements.

    \b
    Example:
      rucio-cs3 demo                see it work, on this machine alone
      rucio-cs3 transfers --watch   see what moves between your clouds
    """


def main() -> None:
    """Entry point ``rucio-cs3``. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    with _errors_in_one_sentence():
        cli.main()


def agent() -> None:
    """Entry point ``rucio-cs3-agent``: ``rucio-cs3 agent`` under the name that Rucio's heartbeats show."""
    with _errors_in_one_sentence():
        command = cli.get_command(click.Context(cli), "agent")
        assert command is not None
        command.main(prog_name="rucio-cs3-agent")


@contextlib.contextmanager
def _errors_in_one_sentence() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.CS3Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
