"""The group that all subcommands belong to, and what becomes of errors that reach the top.

Subcommands are imported when they are called, so that ``rucio-cs3 --help`` is quick and a machine without
the Rucio server still has the commands that need none.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from rucio_cs3._version import __version__
from rucio_cs3.cli import manual
from rucio_cs3.cli.completion import name_clouds
from rucio_cs3.cli.ending import end_on_sigterm, ending_well, past_click
from rucio_cs3.cli.rucio_here import elsewhere

#: Command -> (module below rucio_cs3.cli, what it needs beside the core, first line of its help).
_COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "agent": ("agent", "server", "Move files between clouds for Rucio's conveyor."),
    "app-password": ("app_password", "client", "Make, list and revoke passwords for robots at a cloud."),
    "audit": ("audit", "client", "Compare Rucio's catalogue with what is in a cloud."),
    "cat": ("files.cat", "", "Write the content of files to the standard output."),
    "completion": ("completion", "", "Let your shell complete commands and the names of clouds."),
    "demo": ("demo", "server,sandbox", "Show the whole way: two clouds, one Rucio, upload to deletion."),
    "df": ("files.df", "", "Show how much room there is."),
    "doctor": ("doctor", "", "Try what an endpoint can do, and say what is to be done."),
    "du": ("files.du", "", "Show how much is in a folder, and in each below."),
    "dump": ("dump", "", "Write the paths of all files below a folder into a file."),
    "get": ("files.get", "", "Copy files of a cloud to the local disk."),
    "get-tree": ("files.get_tree", "", "Copy a folder of a cloud to the local disk."),
    "ls": ("files.ls", "", "List folders of a cloud."),
    "mkdir": ("files.mkdir", "", "Make folders in a cloud."),
    "mv": ("files.mv", "", "Give a file or folder of a cloud another name."),
    "prune": ("prune", "", "Remove empty folders of a cloud."),
    "put": ("files.put", "", "Copy local files into a cloud."),
    "put-tree": ("files.put_tree", "", "Copy a local folder into a cloud."),
    "rm": ("files.rm", "", "Delete files and folders of a cloud."),
    "register": ("register", "client", "Make replicas of files that are in a cloud already."),
    "rse": ("rse_setup", "client", "Make Rucio's RSEs what a file says."),
    "run": ("run", "server", "Run one of Rucio's own commands with this package registered."),
    "sandbox": ("sandbox", "server,sandbox", "Start clouds and a Rucio here, to try things in."),
    "stat": ("files.stat", "", "Show all that a cloud says of a file or folder."),
    "transfers": ("transfers", "client", "Show what moves, what waits and what went wrong."),
    "undelete": ("undelete", "", "Put back what was deleted, from a cloud's recycle bin."),
    "usage": ("usage", "", "Show how full clouds are, and tell Rucio."),
}


class _LazyGroup(click.Group):
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        with ending_well() if standalone_mode else contextlib.nullcontext():
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        with past_click():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with past_click():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not ctx.resilient_parsing and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=3)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {' or '.join(near)}?" if near else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, extras, _ = _COMMANDS[cmd_name]
        try:
            command = importlib.import_module(f"rucio_cs3.cli.{module}").command
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("rucio_cs3"):
                raise
            if ctx.resilient_parsing:
                return None  # a shell asks what could come next
            raise click.ClickException(
                f"{cmd_name} needs {exc.name}, which is not installed; run: pip install 'rucio-cs3[{extras}]'"
                f"{elsewhere(extras)}"
            ) from exc
        assert isinstance(command, click.Command)
        return manual.complete(cmd_name, name_clouds(command))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # Without importing them all, as the base class would.
        commands = [
            CompletionItem(name, help=_COMMANDS[name][2])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

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
    """Entry point ``rucio-cs3``. Exit codes: 0 done, 1 failed, 2 wrong usage; 128 and its number where a signal ended
    it: 130 for Ctrl-C, 141 where nobody reads the output any more, 143 where it was told to end.
    """
    # gRPC's own remarks on connections that fail; what they mean is in the errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    end_on_sigterm()
    cli.main()


def agent() -> None:
    """Entry point ``rucio-cs3-agent``: ``rucio-cs3 agent`` under the name that Rucio's heartbeats show."""
    with ending_well():
        command = cli.get_command(click.Context(cli), "agent")
        assert command is not None
        command.main(prog_name="rucio-cs3-agent")
