"""What runs inside the containers of ``docker/compose.yaml``: ``python -m rucio_cs3.sandbox.compose WHAT``.

``configure`` makes all secrets and writes all files, once, into the volumes of the services; no image holds any.
``serve`` is Rucio's server, ``set-up`` makes the RSEs, and ``story`` tells the whole way of
:mod:`rucio_cs3.sandbox.story`. The files are those of the other sandboxes: ``reva_configuration.py`` and
``rucio_configuration.py``.
"""

from __future__ import annotations

import configparser
import json
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from rucio_cs3.sandbox import reva_configuration
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.reva_configuration import LOGIN_MANAGERS, MOUNT, RevaSettings, User
from rucio_cs3.sandbox.rucio_site import RucioSite
from rucio_cs3.sandbox.story import Rse, Story

#: Where the volumes of the services are mounted, in the services that this module runs in.
RUCIO_HOME = Path("/opt/rucio")
SITES = Path("/sites")
DATABASE = Path("/database")

#: Where a site finds its own volume.
SITE_HOME = Path("/site")

GRPC_PORT = 9142
HTTP_PORT = 8080
RUCIO_PORT = 8000
# Nobody outside of a container sees them.
_FIRST_LOGIN_PORT = 9143

_DAY_S = 86_400
_LARGE_BYTES = 20_000_000


@dataclass(frozen=True)
class ComposedSite:
    """A Reva site of the compose file; fits :class:`rucio_cs3.sandbox.story.Cloud`.

    :param name: of its service, which is its name in the network.
    """

    name: str
    root: str = MOUNT
    gateway_tls: bool = False
    ca_bundle: Path | None = None
    log: Path | None = None

    @property
    def folder(self) -> Path:
        """Its volume, as it is mounted here."""
        return SITES / self.name

    @property
    def gateway(self) -> str:
        return f"{self.name}:{GRPC_PORT}"

    @property
    def webdav_url(self) -> str:
        return f"http://{self.name}:{HTTP_PORT}/remote.php/webdav"

    @property
    def users(self) -> Mapping[str, User]:
        told = json.loads((self.folder / "users.json").read_text("utf-8"))
        return {user["username"]: User(username=user["username"], password=user["secret"]) for user in told}

    def path_on_disk(self, relative: str) -> Path:
        return self.folder / "storage" / "data" / relative.lstrip("/")

    def start(self) -> None:
        """Not ours to start."""

    def stop(self) -> None:
        """Nor to stop."""

    def configure(self) -> None:
        """Make its secrets and files."""
        settings = RevaSettings(
            name=self.name,
            directory=SITE_HOME,
            gateway=self.gateway,
            http_url=f"http://{self.name}:{HTTP_PORT}",
            login_ports=range(_FIRST_LOGIN_PORT, _FIRST_LOGIN_PORT + len(LOGIN_MANAGERS)),
            users=(User(username="einstein", password=secrets.token_urlsafe(24), display_name="Albert Einstein"),),
            http_tpc=True,
            jwt_secret=secrets.token_hex(32),
            transfer_secret=secrets.token_hex(32),
            machine_key=secrets.token_hex(32),
            issuer="",
            access_token_lifetime_s=_DAY_S,
            transfer_token_lifetime_s=_DAY_S,
            data_gateway_url=f"http://{self.name}:{HTTP_PORT}/datagateway",
            listen="0.0.0.0",  # noqa: S104  # inside a container
        )
        (self.folder / "storage").mkdir(exist_ok=True)
        write_private(self.folder / "users.json", json.dumps(reva_configuration.users(settings)))
        write_private(self.folder / "groups.json", json.dumps(reva_configuration.groups(settings)))
        write_private(self.folder / "revad.toml", reva_configuration.revad_toml(settings))


SITE_A, SITE_B = ComposedSite("site-a"), ComposedSite("site-b")
RSE_A, RSE_B = Rse("SITE-A", SITE_A, "http"), Rse("SITE-B", SITE_B, "http")


class ComposedRucio(RucioSite):
    """The Rucio of the compose file, seen from one of its containers."""

    def __init__(self, database: str) -> None:
        super().__init__(RUCIO_HOME, database=database, on_command=lambda line: click.echo(f"$ {line}", err=True))

    @classmethod
    def configured(cls) -> ComposedRucio:
        parser = configparser.ConfigParser()
        parser.read(RUCIO_HOME / "etc" / "rucio.cfg")
        return cls(parser["database"]["default"])

    @property
    def url(self) -> str:
        return f"http://rucio:{RUCIO_PORT}"

    def configure(self) -> None:
        """Write its files."""
        (RUCIO_HOME / "etc").mkdir(exist_ok=True)
        self.set_rse_accounts({rse.name: rse.account() for rse in (RSE_A, RSE_B)})
        self._configuration().write()

    @property
    def is_configured(self) -> bool:
        """Whether the file is there that is written last."""
        return self._configuration().gunicorn.exists()

    def serve(self) -> None:
        """Make the tables where there are none, and become the server."""
        self.make_tables()
        words = ["gunicorn", "--bind", f"0.0.0.0:{RUCIO_PORT}", "--workers", "2", "--threads", "4"]
        words += ["--config", str(self._configuration().gunicorn), "rucio.web.rest.main:application"]
        os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606  # ourselves, without a shell


def configure() -> None:
    """All files of all services, unless they are there: secrets that are in use stay."""
    password = secrets.token_urlsafe(24)
    rucio = ComposedRucio(f"postgresql+psycopg://rucio:{password}@database/rucio")
    if rucio.is_configured:
        return
    for site in (SITE_A, SITE_B):
        site.configure()
    write_private(DATABASE / "password", password)
    # Last, because it says that all is there.
    rucio.configure()


def serve() -> None:
    ComposedRucio.configured().serve()


def set_up() -> None:
    """The RSEs and the scope, by the commands that an administrator would type; nothing where they are there."""
    rucio = ComposedRucio.configured()
    if not rucio.query("SELECT 1 FROM scopes WHERE scope = ?", Story.scope):
        Story(rucio, RSE_A, RSE_B).set_up()


def story() -> None:
    """Upload, rule, transfer, download, comparison and deletion; the daemons of the other services do their part."""
    name = f"run-{time.time_ns()}"
    rucio = ComposedRucio.configured()
    told = Story(rucio, RSE_A, RSE_B, dataset=name)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for size in (_LARGE_BYTES, 0, 4096):
            files.append(Path(folder, f"{name}-{size}.dat"))
            files[-1].write_bytes(random.randbytes(size))  # noqa: S311  # content, no secret
        back = Path(folder, "back")
        back.mkdir()
        told.upload(files)
        told.lock_new_files(_wait)
        told.add_rule()
        told.transfer(_wait)
        told.download(back)
        told.compare(files, back)
        told.delete(files, _wait)
    click.echo("uploaded, transferred, downloaded, compared and deleted")


def _wait() -> None:
    time.sleep(1)


_WORK: Mapping[str, Callable[[], None]] = {"configure": configure, "serve": serve, "set-up": set_up, "story": story}


@click.command()
@click.argument("what", type=click.Choice(list(_WORK)))
def main(what: str) -> None:
    """Run one service of docker/compose.yaml."""
    _WORK[what]()


if __name__ == "__main__":
    main()
