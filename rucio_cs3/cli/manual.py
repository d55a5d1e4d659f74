"""What the help of every command ends with, as a manual page does: exit codes, environment variables, files.

In one place, so that all commands say the same of what they have in common. docs/commands.md shows it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

_EXIT_CODES: Mapping[str, str] = {
    "0": "done",
    "1": "failed; stderr says why in one sentence",
    "2": "wrong usage",
    "130": "ended by Ctrl-C",
    "141": "nobody reads the output any more",
    "143": "told to end (SIGTERM)",
}

#: Where a command's exit codes mean more than that.
_OWN_EXIT_CODES: Mapping[str, Mapping[str, str]] = {
    "agent": {"0": "ended as asked", "1": "failed, or left running transfers to their lease", "130": "", "143": ""},
    "doctor": {
        "0": "all is well",
        "1": "nothing could be examined",
        "3": "something is weak",
        "4": "something is broken",
    },
    "register": {"1": "failed, or files were left out; the output names them"},
    "sandbox": {"0": "ended by Ctrl-C", "130": ""},
    "transfers": {"0": "done; also when Ctrl-C has ended --watch", "1": "Rucio cannot be asked"},
}

#: What is used -> environment variables and files of it.
_USES: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "rucio": (
        {
            "RUCIO_HOME": "folder with etc/rucio.cfg",
            "RUCIO_CONFIG": "rucio.cfg itself",
            "RUCIO_ACCOUNT": "account at Rucio",
        },
        {"$RUCIO_HOME/etc/rucio.cfg": "configuration of Rucio"},
    ),
    "logins": (
        {
            "RUCIO_CS3_<RSE>_<KEY>": "a key of the login at the cloud of an RSE",
            "RUCIO_CS3_CREDENTIALS": "file with logins of RSEs",
        },
        {"$RUCIO_HOME/etc/rse-accounts.cfg": "logins of RSEs"},
    ),
    "clouds": (
        {"RUCIO_CS3_CLOUDS": "the clouds file"},
        {"~/.config/rucio-cs3/clouds.cfg": "clouds by name, with logins"},
    ),
    "state": (
        {"RUCIO_CS3_STATE_DIR": "where uploads keep what is needed to go on; empty: nowhere"},
        {"~/.local/state/rucio-cs3/": "the same, if it is not set"},
    ),
    "terminal": ({"NO_COLOR": "if set, no colours"}, {}),
    "reva": ({"RUCIO_CS3_REVAD": "the revad to run"}, {}),
}

_FILES = ("clouds", "rucio", "logins", "terminal")

#: Command -> what it uses; one that is not here works with places in clouds.
_OF_COMMANDS: Mapping[str, Sequence[str]] = {
    "agent": ("rucio", "logins"),
    "app-password": ("rucio", "logins"),
    "completion": (),
    "audit": ("rucio", "logins", "terminal"),
    "demo": ("reva", "terminal"),
    "register": ("rucio", "logins", "terminal"),
    "rse": ("rucio", "terminal"),
    "run": ("rucio",),
    "sandbox": ("reva",),
    "transfers": ("rucio", "terminal"),
    "put": (*_FILES, "state"),
    "put-tree": (*_FILES, "state"),
}


def complete(name: str, command: click.Command) -> click.Command:
    """Give a command, and those below it, the end of their help where they have none of their own."""
    if command.epilog is None:
        command.epilog = epilog(name)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            complete(name, below)
    return command


def epilog(name: str) -> str:
    """The end of the help of ``rucio-cs3 NAME``."""
    codes = {**_EXIT_CODES, **_OWN_EXIT_CODES.get(name, {})}
    uses = [_USES[one] for one in _OF_COMMANDS.get(name, _FILES)]
    variables = {key: text for one, _ in uses for key, text in one.items()}
    files = {key: text for _, one in uses for key, text in one.items()}
    parts = [
        _section("Exit codes", {code: codes[code] for code in sorted(codes, key=int) if codes[code]}),
        _section("Environment", variables),
        _section("Files", files),
    ]
    return "\n\n".join(filter(None, parts))


def _section(title: str, lines: Mapping[str, str]) -> str:
    if not lines:
        return ""
    width = max(map(len, lines)) + 2
    # \b: click leaves the lines of this paragraph as they are.
    return "\n".join(["\b", f"{title}:", *(f"  {key:<{width}}{text}" for key, text in lines.items())])
