"""``rucio-cs3 sandbox``: clouds and a Rucio on this machine, to try things in; they stop with the command."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import click

from rucio_cs3.sandbox.playground import Playground, exports, write_clouds_file
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.processes import ProcessError
from rucio_cs3.sandbox.reva import RevaUnavailable
from rucio_cs3.sandbox.rucio_site import RucioCommandError, RucioUnavailable

#: Written last, so that whoever waits for it finds everything ready.
_ENV = "env"

#: Between two looks at the daemons, in seconds.
_LOOK_S = 1.0


clouds_option = click.option(
    "--clouds",
    type=click.Choice(["auto", "reva", "embedded"]),
    default="auto",
    show_default=True,
    help="Real Reva sites or embedded clouds; auto takes Reva where a revad is found.",
)


@click.command(name="sandbox")
@click.argument("directory", type=click.Path(path_type=Path), default=Path("rucio-sandbox"))
@clouds_option
@click.option("--daemons/--no-daemons", default=True, show_default=True, help="Rucio's daemons and an agent, too.")
def command(directory: Path, clouds: str, daemons: bool) -> None:
    """Start clouds and a Rucio on this machine, to try things in, until Ctrl-C.

    DIRECTORY (rucio-sandbox, if not given) must not exist; all files are in it, and it is removed in the end. There are
    three clouds with TLS: cernbox and other answer as CERNBox does, space as OpenCloud. They are sections of a clouds
    file. Rucio has OTHER and SPACE as RSEs already; CERNBOX is yours to add.

    What a shell needs to use it all is in DIRECTORY/env.

    \b
    Example:
      rucio-cs3 sandbox       # and then, in another terminal:
      . rucio-sandbox/env
      rucio-cs3 ls cernbox:
      rucio whoami
    """
    # A terminated sandbox cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise click.UsageError(f"{directory} exists; it stays as it is") from None
    except OSError as exc:
        raise click.ClickException(f"{directory} cannot be made: {exc.strerror}") from exc
    try:
        click.echo("Starting clouds, Rucio and its daemons; this takes half a minute.", err=True)
        with Playground(directory, real={"auto": None, "reva": True, "embedded": False}[clouds]) as playground:
            _furnish(playground)
            if daemons:
                playground.start_daemons()
            write_private(directory / _ENV, exports(_variables(playground)))
            click.echo(f"Ready. In another terminal: . {directory / _ENV}\nCtrl-C ends it all.")
            while True:
                time.sleep(_LOOK_S)
                playground.rucio.check_loops()
    except (RucioCommandError, RucioUnavailable, RevaUnavailable, ProcessError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        pass  # the one way to end it, and no failure
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _furnish(playground: Playground) -> None:
    """Folders in the clouds, a clouds file, and RSEs but for CERNBOX, whose login Rucio has."""
    from rucio_cs3 import clouds

    directory = playground.directory
    playground.write_passwords(directory)
    rses = {name: playground.rse(name, name.upper()) for name in playground.clouds}
    sections = {name: playground.section(rse, directory / "jdoe.password") for name, rse in rses.items()}
    write_clouds_file(directory / "clouds.cfg", sections)
    for name, section in sections.items():
        cloud = clouds.from_settings(name, section, where=name)
        cloud.storage.make_directories(cloud.folder)
    playground.rucio.set_rse_accounts({rse.name: rse.account() for rse in rses.values()})
    playground.add(rses=[rse for name, rse in rses.items() if name != "cernbox"])


def _variables(playground: Playground) -> dict[str, str]:
    return {
        **playground.rucio.environment,
        "RUCIO_CS3_CLOUDS": str(playground.directory / "clouds.cfg"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
