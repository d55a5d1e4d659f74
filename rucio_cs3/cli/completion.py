"""``rucio-cs3 completion``: what a shell needs to complete commands, options and the names of clouds."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

_VARIABLE = "_RUCIO_CS3_COMPLETE"

#: Arguments and options that take a place in a cloud, or a cloud's name.
_PLACES = frozenset(
    {"place", "places", "text", "texts", "rse", "cloud", "name", "source_text", "destination_text", "folder"}
)


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what a shell reads to complete commands, options and the names of clouds.

    Clouds are completed by their names in the clouds file. RSEs are not: Rucio would have to be asked at each key.

    \b
    Example:
      eval "$(rucio-cs3 completion bash)"                          in ~/.bashrc
      eval "$(rucio-cs3 completion zsh)"                           in ~/.zshrc, behind compinit
      rucio-cs3 completion fish > ~/.config/fish/completions/rucio-cs3.fish
    """
    from rucio_cs3.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "rucio-cs3", _VARIABLE).source())


class Name(click.types.StringParamType):
    """Text that may begin with the name of a cloud."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from rucio_cs3 import clouds
        from rucio_cs3.cs3 import errors

        try:
            names = clouds.configured()
        except errors.CS3Error:
            return []  # nobody reads messages here
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def name_clouds(command: click.Command) -> click.Command:
    """Let all parameters of a command that take a place in a cloud be completed."""
    for param in command.params:
        if param.type is click.STRING and param.name in _PLACES:
            param.type = Name()
    if isinstance(command, click.Group):
        for below in command.commands.values():
            name_clouds(below)
    return command
