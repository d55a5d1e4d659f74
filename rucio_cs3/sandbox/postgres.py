"""A real PostgreSQL server on this machine, for Rucio with several agents; on 127.0.0.1, in a directory of its own.

PostgreSQL is not part of this package; its programs are looked for on PATH and where Debian keeps them. Read next:
``rucio_site.py``, whose parameter ``database`` takes what :meth:`PostgresSite.create_database` gives.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from rucio_cs3.sandbox.processes import ChildProcess

if TYPE_CHECKING:
    import psycopg

#: Database user of everybody; may do everything, because this server is only for tests.
USER = "rucio"

# One folder for each major version (Debian 12: 15).
_DEBIAN = Path("/usr/lib/postgresql")

# The server refuses to run as root. Debian's package makes the first user, the second is everywhere.
_SERVICE_USERS = ("postgres", "nobody")

_INITDB_TIMEOUT_S = 120.0
_READY_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 2

# What a test wants of a server. Without fsync a crash of the *machine* loses data; one of the server does not,
# because every commit is still given to the operating system before its client hears of it.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    # Debian's default, /var/run/postgresql, is not ours to write to; clients use TCP.
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    # Each of Rucio's daemons has a pool of up to 15 connections (SQLAlchemy's default), and tests start many.
    "max_connections": "200",
    # Otherwise a benchmark's loading waits for checkpoints.
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresUnavailable(RuntimeError):
    """PostgreSQL's server programs, or the driver ``psycopg``, are not installed; or they do not run here."""


def postgresql_is_installed() -> bool:
    """Whether a :class:`PostgresSite` can be started here, and Rucio can use it."""
    return _find_programs() is not None and find_spec("psycopg") is not None


class PostgresSite(Startable):
    """One PostgreSQL server with a random password, which is in no command line and no log.

    The server runs as another user where we are root; its data directory then belongs to that user.

    :param settings: laid over those of ``postgresql.conf``, by name.
    :raises PostgresUnavailable: it is not installed.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        programs = _find_programs()
        if programs is None or find_spec("psycopg") is None:
            raise PostgresUnavailable(
                "PostgreSQL is not installed: initdb and postgres (Debian: postgresql), and rucio-cs3[postgresql]"
            )
        self._programs = programs
        self._settings = {**_SETTINGS, **(settings or {})}
        self._user = _service_user()
        self._password = secrets.token_urlsafe(24)
        self._port = free_port()
        self._directory: Path | None = None
        self._process: ChildProcess | None = None

    def __repr__(self) -> str:
        return f"PostgresSite({LOOPBACK}:{self._port})"

    @property
    def port(self) -> int:
        return self._port

    @property
    def log(self) -> Path:
        """
        :raises RuntimeError: before the start.
        """
        return self._home / "postgres.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Make the data directory, start the server, wait until it answers; about two seconds.

        :raises PostgresUnavailable: the data directory could not be made; with what ``initdb`` wrote.
        :raises ProcessError: the server died or was not ready within a minute; with the end of its log.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="rucio-cs3-postgres-"))
        if self._user is not None:
            os.chown(self._directory, *self._user)
        self._make_cluster()
        self._process = ChildProcess(
            "PostgreSQL",
            [self._programs / "postgres", "-D", self._home / "data"],
            log=self.log,
            environment=_environment(),
            directory=self._home,
            user=self._user,
            # Fast shutdown: open connections are ended. With SIGTERM it would wait for its clients to go.
            stop_signal=signal.SIGINT,
        )
        self.start_server()

    def stop(self) -> None:
        """Stop the server and remove all its data. Idempotent."""
        self.stop_server()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # --- what is done to it ---------------------------------------------------------------------------------------

    def stop_server(self) -> None:
        """Stop the server and keep its data: connections break, new ones are refused. Idempotent."""
        if self._process is not None:
            self._process.stop(grace_s=30.0)

    def start_server(self) -> None:
        """Start the server anew on its data, at the same port, and wait until it answers.

        :raises ProcessError: see :meth:`start`.
        """
        if self._process is None:
            raise RuntimeError("the PostgreSQL site was never started")
        self._process.start()
        self._process.wait_until(self._answers, timeout_s=_READY_TIMEOUT_S)

    def pause(self, seconds: float) -> None:
        """Be gone for so long; returns when the server is there again."""
        self.stop_server()
        time.sleep(seconds)
        self.start_server()

    # --- databases ------------------------------------------------------------------------------------------------

    def create_database(self, name: str) -> str:
        """Make an empty database.

        :param name: lower-case letters, digits and underscores.
        :returns: its URL as Rucio's ``[database] default`` takes it; holds the password.
        """
        if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
            raise ValueError(f"not a plain name for a database: {name}")
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def url(self, database: str = "postgres") -> str:
        """URL of a database for SQLAlchemy with psycopg 3; holds the password."""
        return f"postgresql+psycopg://{USER}:{self._password}@{LOOPBACK}:{self._port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect, each statement being a transaction of its own; the caller closes.

        :raises psycopg.OperationalError: the server is not there.
        """
        import psycopg

        return psycopg.connect(
            host=LOOPBACK,
            port=self._port,
            user=USER,
            password=self._password,
            dbname=database,
            connect_timeout=_PROBE_TIMEOUT_S,
            autocommit=True,
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        if self._directory is None:
            raise RuntimeError("the PostgreSQL site was never started")
        return self._directory

    def _make_cluster(self) -> None:
        password_file = self._home / "password"
        password_file.touch(mode=0o600)
        if self._user is not None:
            os.chown(password_file, *self._user)
        password_file.write_text(self._password, encoding="utf-8")
        user, group = self._user or (None, None)
        try:
            made = subprocess.run(
                [
                    *(self._programs / "initdb", "--pgdata", self._home / "data", "--username", USER),
                    *("--auth", "scram-sha-256", "--pwfile", password_file, "--encoding", "UTF8"),
                    # Names sort by code point, as on SQLite; and no locale has to be installed.
                    *("--locale", "C", "--no-sync", "--no-instructions"),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INITDB_TIMEOUT_S,
                check=False,
                env=_environment(),
                cwd=self._home,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise PostgresUnavailable(f"initdb could not be run in {self._home}: {exc}") from exc
        finally:
            password_file.unlink()
        if made.returncode != 0:
            raise PostgresUnavailable(f"initdb failed in {self._home}: {made.stdout}{made.stderr}")
        settings = {**self._settings, "port": str(self._port)}
        with (self._home / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _answers(self) -> bool:
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _find_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: on PATH, else Debian's newest."""
    on_path = shutil.which("postgres")
    # Resolved, because a link in /usr/local/bin may have no initdb beside it.
    folders = [Path(on_path).resolve().parent] if on_path else []
    versions = [folder for folder in _DEBIAN.glob("*/bin") if folder.parent.name.isdecimal()]
    folders += sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    return None


def _service_user() -> tuple[int, int] | None:
    """User and group to run the server as; None where we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    for name in _SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PostgresUnavailable(f"PostgreSQL does not run as root, and there is no user {' or '.join(_SERVICE_USERS)}")


def _environment() -> dict[str, str]:
    """This process's environment without what leads the programs elsewhere (PGDATA, PGPORT, …)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}
