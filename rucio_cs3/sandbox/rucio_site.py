"""A real Rucio on this machine: server (gunicorn), database, and Rucio's own commands and daemons.

The database is a SQLite file of its own, or one on a PostgreSQL server. Read next: ``rucio_commands.py`` for what
runs on a site, ``rucio_configuration.py`` for its files, and ``policy/`` for what a sandbox changes in Rucio.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.probing import http_status
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.rucio_commands import ConveyorStage, RucioCommandError, RucioCommands, clean_environment
from rucio_cs3.sandbox.rucio_configuration import RucioConfiguration, RucioUnavailable
from rucio_cs3.sandbox.rucio_database import PostgresDatabase, RucioDatabase, SQLiteFile

__all__ = [
    "SANDBOX_POLICY",
    "ConveyorStage",
    "RucioCommandError",
    "RucioSite",
    "RucioUnavailable",
    "rucio_is_installed",
]

SANDBOX_POLICY = "sandbox"
"""Short for the policy package of the sandbox, which allows every name that the storage allows."""

_SANDBOX_PACKAGE = "rucio_cs3.sandbox.policy"

_READY_TIMEOUT_S = 120.0

# Rucio's priorities: 0 means never, 1 is the best.
_ALL_DOMAINS = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}

_BOOTSTRAP = """
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database()
create_base_vo()
create_root_account()
"""


def rucio_is_installed() -> bool:
    """Whether this interpreter has what a :class:`RucioSite` needs (``pip install rucio-cs3[server,sandbox]``)."""
    return all(find_spec(name) is not None for name in ("rucio", "alembic", "sqlalchemy", "gunicorn"))


class RucioSite(RucioCommands, Startable):
    """One Rucio on 127.0.0.1.

    :param directory: RUCIO_HOME; kept on stop. A temporary one that is removed on stop if None.
    :param policy_package: what ``[policy] package`` says; :data:`SANDBOX_POLICY` for the sandbox's own, None for
        none: then Rucio knows no transfertool ``cs3`` and the conveyor is set to ``mock``.
    :param extra_config: sections and options laid over rucio.cfg; ``[client]`` and ``[policy]`` reach
        client.cfg as well.
    :param rse_accounts: content of rse-accounts.cfg, see :meth:`set_rse_accounts`.
    :param on_command: called with each command line, as a shell would take it, before it runs.
    :param database: ``postgresql+psycopg://…``, as :meth:`rucio_cs3.sandbox.postgres.PostgresSite.create_database`
        gives it; a SQLite file in the directory if None. Its tables stay on stop.
    :param schema: PostgreSQL schema for the tables, which Rucio makes; ``public`` if None.
    :raises RucioUnavailable: the server wheel is not installed.
    :raises ValueError: for another kind of database.
    """

    account = "root"

    def __init__(
        self,
        directory: Path | None = None,
        *,
        policy_package: str | None = "rucio_cs3.policy",
        extra_config: Mapping[str, Mapping[str, str]] | None = None,
        rse_accounts: Mapping[str, object] | None = None,
        on_command: Callable[[str], object] | None = None,
        database: str | None = None,
        schema: str | None = None,
    ) -> None:
        if not rucio_is_installed():
            raise RucioUnavailable("the Rucio server is not installed: pip install 'rucio-cs3[server,sandbox]'")
        self._temporary = directory is None
        super().__init__(directory or Path(tempfile.mkdtemp(prefix="rucio-cs3-rucio-")), on_command)
        self.policy_package = _SANDBOX_PACKAGE if policy_package == SANDBOX_POLICY else policy_package
        self._extra_config = extra_config or {}
        self._rse_accounts = rse_accounts or {}
        self._database: RucioDatabase = (
            SQLiteFile(self.directory / "rucio.db") if database is None else PostgresDatabase(database, schema)
        )
        self._password = secrets.token_urlsafe(16)
        self._port = free_port()
        self._server: ChildProcess | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The REST server, authentication included."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def database(self) -> Path:
        """The SQLite file.

        :raises AttributeError: with another kind of database.
        """
        if not isinstance(self._database, SQLiteFile):
            raise AttributeError("this Rucio's database is no file")
        return self._database.path

    @property
    def log(self) -> Path:
        """Log of the REST server."""
        return self.directory / "log" / "server.log"

    def start(self) -> None:
        """Make the tables where there are none yet, start the server, wait until it answers /ping.

        :raises RucioCommandError: the tables could not be made.
        :raises ProcessError: the server died or was not ready within a minute.
        """
        configuration = self._configuration()
        configuration.write()
        self.set_rse_accounts(self._rse_accounts)
        self.make_tables()
        sandboxed = self.policy_package == _SANDBOX_PACKAGE
        server = f"{_SANDBOX_PACKAGE}.wsgi" if sandboxed else "rucio.web.rest.main"
        self._server = ChildProcess(
            "Rucio server",
            [
                *(sys.executable, "-m", "gunicorn", "--bind", f"{LOOPBACK}:{self._port}"),
                # One process: SQLite serialises writers anyhow, and every process would import Rucio anew.
                *("--config", configuration.gunicorn, "--workers", "1", "--threads", "4", "--graceful-timeout", "2"),
                f"{server}:application",
            ],
            log=self.log,
            environment=clean_environment(self.daemon_environment),
            directory=self.directory,
        )
        self._server.start()
        self._server.wait_until(self._answers_ping, timeout_s=_READY_TIMEOUT_S)

    def make_tables(self) -> None:
        """Make Rucio's tables and its root account where there are none yet.

        :raises RucioCommandError: that failed.
        """
        if self._database.prepare():
            self._run([sys.executable, "-c", _BOOTSTRAP], self.daemon_environment, timeout_s=_READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop loops and server; also removes a temporary directory. Idempotent."""
        self.stop_loops()
        if self._server is not None:
            self._server.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Look into Rucio's database, whichever it is; a ``rucio`` command would take a second for each look.

        :param statement: one SELECT in SQL that both databases understand, with ``?`` for each parameter.
        :returns: rows; ids as 32 hex digits, states as Rucio's letters.
        """
        return self._database.query(statement, *parameters)

    # --- set-up, by the commands an administrator would type ----------------------------------------------------

    def add_scope(self, scope: str, *, account: str | None = None) -> None:
        self.rucio("scope", "add", scope, "--account", account or self.account)

    def add_rse(
        self,
        name: str,
        *protocols: Mapping[str, object],
        attributes: Mapping[str, str] | None = None,
        account_limit: str | None = "infinity",
    ) -> None:
        """Add an RSE with its protocols and attributes, and let the site's account write there.

        :param protocols: each with ``scheme``, ``hostname``, ``prefix`` and ``impl``; if wished ``port``,
            ``domains`` (all allowed if absent) and ``extended_attributes``.
        :param account_limit: as ``rucio account limit set --bytes`` reads it; None for no limit, that is no right
            to make rules.
        """
        self.rucio("rse", "add", name)
        for protocol in protocols:
            self.add_protocol(name, protocol)
        for key, value in (attributes or {}).items():
            self.rucio("rse", "attribute", "set", name, "--key", key, "--value", value)
        if account_limit is not None:
            self.set_account_limit(name, account_limit)

    def add_protocol(self, rse: str, protocol: Mapping[str, object]) -> None:
        arguments = [
            *("--scheme", str(protocol["scheme"]), "--hostname", str(protocol["hostname"])),
            *("--prefix", str(protocol["prefix"]), "--impl", str(protocol["impl"])),
            *("--domain-json", json.dumps(protocol.get("domains", _ALL_DOMAINS))),
        ]
        if "port" in protocol:
            arguments += ["--port", str(protocol["port"])]
        if protocol.get("extended_attributes"):
            arguments += ["--extended-attributes-json", json.dumps(protocol["extended_attributes"])]
        self.rucio("rse", "protocol", "add", rse, *arguments)

    def set_account_limit(self, rse: str, limit: str = "infinity") -> None:
        self.rucio("account", "limit", "set", self.account, "--rse", rse, "--bytes", limit)

    def set_distance(self, source: str, destination: str, distance: int = 1) -> None:
        """Let Rucio transfer between the two RSEs, in both directions."""
        self.rucio("rse", "distance", "set", source, destination, "--distance", str(distance), "--bidirectional")

    def set_rse_accounts(self, accounts: Mapping[str, object]) -> None:
        """Replace rse-accounts.cfg (readable by the owner only): credentials by RSE, in the form Rucio reads."""
        write_private(self.directory / "etc" / "rse-accounts.cfg", json.dumps(accounts, indent=2))

    # --- inside -------------------------------------------------------------------------------------------------

    def _configuration(self) -> RucioConfiguration:
        return RucioConfiguration(
            directory=self.directory,
            url=self.url,
            database=self._database,
            account=self.account,
            username="sandbox",
            password=self._password,
            policy_package=self.policy_package,
            extra=self._extra_config,
        )

    def _answers_ping(self) -> bool:
        return http_status(f"{self.url}/ping") == 200
