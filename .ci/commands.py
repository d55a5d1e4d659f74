"""Writes docs/commands.md: all commands with their arguments and options, as the program itself knows them.

    commands.py [FILE]

`make commands` runs this; a test compares the page with it.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from rucio_cs3.cli.main import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

_HEAD = """# Commands

All commands of `rucio-cs3`, as `--help` has them: this page is made from the program by `make commands`.
Names of places in clouds are explained in [files](files.md).

To complete commands, options and names of clouds in a shell, see [`completion`](#rucio-cs3-completion).
"""


def main(page: Path) -> None:
    page.write_text(written(), encoding="utf-8")


def written() -> str:
    """The page."""
    context = click.Context(cli, info_name="rucio-cs3")
    top = ["", "| Command | |", "|---|---|"]
    parts = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        top.append(f"| [`{name}`](#rucio-cs3-{name}) | {command.get_short_help_str(200)} |")
        parts += list(_command(command, click.Context(command, info_name=name, parent=context), level=2))
    return "\n".join([_HEAD, *top[1:], "", *parts]).rstrip() + "\n"


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}"
    yield ""
    yield "```text"
    yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    yield from _text(command.help or "")
    options = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    if options:
        yield "| Option | Meaning |"
        yield "|---|---|"
        for names, meaning in options:
            yield f"| {_code(names)} | {_cell(meaning)} |"
        yield ""
    yield from _text(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            # What stands at the group holds for all of it.
            below.epilog = None
            yield from _command(below, click.Context(below, info_name=name, parent=context), level + 1)


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those that click would not wrap as blocks."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if not lines:
            continue
        if lines[0].strip() != "\b":
            yield _cell(" ".join(line.strip() for line in lines))
        else:
            title, *rest = lines[1:]
            yield f"**{title.rstrip(':')}**"
            yield ""
            yield "```text"
            yield inspect.cleandoc("\n" + "\n".join(rest))
            yield "```"
        yield ""


def _code(names: str) -> str:
    return f"`{names}`".replace("|", "\\|")


def _cell(text: str) -> str:
    # Names in angle brackets and stars would be taken for markup.
    return re.sub(r"([<>*|])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
