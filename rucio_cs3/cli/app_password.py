"""``rucio-cs3 app-password``: make, list and revoke passwords for robots at the cloud behind an RSE."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rucio_cs3.cli import rse as rses_of_rucio
from rucio_cs3.cli.files.given import json_option
from rucio_cs3.cli.files.shown import print_json
from rucio_cs3.cli.transfers_table import printable

if TYPE_CHECKING:
    from rucio_cs3.cs3.login.app_passwords import AppPasswords

_DAY_S = 86_400

_login = click.option(
    "--login",
    metavar="USER",
    help="Log in as this user, with a password that is asked for; otherwise as the RSE's credentials say.",
)


@click.group(name="app-password")
def command() -> None:
    """Passwords for robots: make, list and revoke them at the cloud behind an RSE.

    A robot that logs in with one of its own can be shut out without changing anybody's password. It may do what its
    user may. In the credentials of an RSE it is of "type": "appauth".

    \b
    Example:
      rucio-cs3 app-password make CERNBOX --login jdoe --label conveyor --days 365 --file conveyor.password
      rucio-cs3 app-password list CERNBOX --login jdoe
      rucio-cs3 app-password revoke CERNBOX --login jdoe --label conveyor
    """


@command.command()
@click.argument("rse")
@_login
@click.option("--label", required=True, help="What it is for; listings show it.")
@click.option("--days", type=click.IntRange(1), help="Days until it ends (default: never).")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it there, for its owner alone, instead of to the screen.",
)
@json_option
def make(rse: str, login: str | None, label: str, days: int | None, path: Path | None, as_json: bool) -> None:
    """Make one, and show it this once.

    \b
    Example:
      rucio-cs3 app-password make CERNBOX --label conveyor --days 365 --file conveyor.password
    """
    with contextlib.ExitStack() as stack:
        # The file first: a password that is made and then cannot be written is lost, and good all the same.
        out = None if path is None else stack.enter_context(_new_file(path))
        with _of(rse, login) as passwords:
            ends_at = None if days is None else int(time.time()) + days * _DAY_S
            made = passwords.make(label, ends_at=ends_at)
        if path is not None or not as_json:
            click.echo(made, file=out)
    if as_json:
        where = {"password": made} if path is None else {"file": str(path)}
        print_json({"label": label, "ends_at": _iso(ends_at), **where})
    elif path is not None:
        click.echo(f"{path} has the password of {label!r}", err=True)


@command.command(name="list")
@click.argument("rse")
@_login
@json_option
def list_(rse: str, login: str | None, as_json: bool) -> None:
    """List them: what each is for, and when it was made, was last used, and ends; never the passwords.

    \b
    Example:
      rucio-cs3 app-password list CERNBOX --json | jq -r .label
    """
    with _of(rse, login) as passwords:
        found = passwords.list()
    if as_json:
        for one in found:
            times = {"made_at": one.made_at, "used_at": one.used_at, "ends_at": one.ends_at}
            print_json({"label": one.label, **{name: _iso(at) for name, at in times.items()}})
        return
    table = Table("label", "made", "last used", "ends", box=None, pad_edge=False)
    for one in found:
        # As text: a label is its maker's, and might be taken for markup or steer the terminal.
        table.add_row(Text(printable(one.label)), *(_iso(at) or "-" for at in (one.made_at, one.used_at, one.ends_at)))
    Console().print(table if found else f"no app passwords at {rse}")


@command.command()
@click.argument("rse")
@_login
@click.option("--label", required=True, help="Of the password; of several with this label all are revoked.")
@json_option
def revoke(rse: str, login: str | None, label: str, as_json: bool) -> None:
    """Let nobody log in with it any more. Who is logged in with it stays so until that token ends.

    \b
    Example:
      rucio-cs3 app-password revoke CERNBOX --label conveyor
    """
    with _of(rse, login) as passwords:
        found = [one for one in passwords.list() if one.label == label]
        if not found:
            raise click.ClickException(
                f"RSE {rse} has no app password {label!r}; rucio-cs3 app-password list shows all"
            )
        for one in found:
            passwords.revoke(one)
    if as_json:
        print_json({"label": label, "revoked": len(found)})
    else:
        click.echo(f"revoked: {len(found)}", err=True)


@contextlib.contextmanager
def _of(rse: str, login: str | None) -> Iterator[AppPasswords]:
    found = rses_of_rucio.find(rse)
    # Late, because they import Rucio, which wants its configuration.
    from rucio_cs3 import rse_credentials
    from rucio_cs3.cs3.gateway import Gateway
    from rucio_cs3.cs3.login.app_passwords import AppPasswords
    from rucio_cs3.cs3.login.providers import BasicProvider, CredentialProvider
    from rucio_cs3.cs3.login.secret import Secret

    provider: CredentialProvider
    if login is None:
        provider = rse_credentials.credentials(found.settings)
    else:
        password = click.prompt(f"Password of {login} at {found.endpoint.gateway}", hide_input=True, err=True)
        provider = BasicProvider(login, Secret(password))
    with contextlib.closing(Gateway(found.endpoint, provider)) as gateway:
        yield AppPasswords(gateway)


def _iso(at: int | None) -> str | None:
    if not at:
        return None
    try:
        return datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a server may say what is no time
        return str(at)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[str]]:
    """A file for its owner alone, which is gone again when nothing can be written to it.

    :raises click.ClickException: when it exists, or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; it stays as it is") from None
    except OSError as exc:
        raise click.ClickException(f"{path} cannot be written: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
