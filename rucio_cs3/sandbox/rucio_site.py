"""A real Rucio on this machine: server (gunicorn), SQLite database, and Rucio's own commands and daemons.

The server and the daemons read ``etc/rucio.cfg``; people's commands read ``etc/client.cfg``, which knows of no
database, as on a laptop: Rucio takes a configuration with a ``[database]`` section for a server's and would open
the database from the client. Read next: ``processes.py``, and ``policy/`` for what a sandbox changes in Rucio.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from rucio_cs3.sandbox.processes import ChildProcess

SANDBOX_POLICY = "sandbox"
"""Short for the policy package of the sandbox, which allows every name that the storage allows."""

_SANDBOX_PACKAGE = "rucio_cs3.sandbox.policy"

ConveyorStage = Literal["preparer", "submitter", "poller", "finisher"]

_READY_TIMEOUT_S = 60.0
_PROBE_TIMEOUT_S = 2.0

# SQLite lets one write at a time; another one waits so long for its turn.
_SQLITE_BUSY_S = 60

# Rucio's priorities: 0 means never, 1 is the best.
_ALL_DOMAINS = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}

# A line of Rucio's client log, which begins with a colour and the time.
_ERROR_LINE = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\tERROR\t", re.MULTILINE)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# What makes one pass of a daemon do all that can be done now. The poller leaves requests alone that it saw less
# than 60 s ago, the reaper replicas that it marked less than 600 s ago and, if not greedy, all while space is left.
_ONCE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "conveyor-poller": ("--older-than", "0"),
    "reaper": ("--greedy", "--delay-seconds", "1"),
}

_BOOTSTRAP = """
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database()
create_base_vo()
create_root_account()
"""

# Rucio's own function of each stage, without its ten seconds for other workers to notice this one.
_CONVEYOR = """
import importlib, sys
from rucio.common.logging import setup_logging
stage = sys.argv[1]
setup_logging(process_name=f"conveyor-{stage}")
options = {"older_than": 0} if stage == "poller" else {}
module = importlib.import_module(f"rucio.daemons.conveyor.{stage}")
getattr(module, stage)(once=True, partition_wait_time=0, **options)
"""

# In a file, because gunicorn ignores there what its version does not know; control sockets came with version 25,
# at one place for all servers of a user.
_GUNICORN = """
from rucio_cs3.sandbox.sqlite import take_turns
take_turns()
control_socket_disable = True
"""

_ALEMBIC = {
    "alembic": {},
    "loggers": {"keys": "root"},
    "logger_root": {"level": "WARNING", "handlers": "console"},
    "handlers": {"keys": "console"},
    "handler_console": {"class": "StreamHandler", "args": "(sys.stderr,)", "formatter": "plain"},
    "formatters": {"keys": "plain"},
    "formatter_plain": {"format": "%(levelname)s %(name)s %(message)s"},
}


class RucioUnavailable(RuntimeError):
    """The Rucio server wheel (``pip install rucio``) or gunicorn is not installed for this interpreter."""


class RucioCommandError(RuntimeError):
    """A Rucio command or daemon ended with an error; the text has the command and all that it wrote."""


def rucio_is_installed() -> bool:
    """Whether this interpreter has what a :class:`RucioSite` needs (``pip install rucio-cs3[server,sandbox]``)."""
    return all(find_spec(name) is not None for name in ("rucio", "alembic", "sqlalchemy", "gunicorn"))


class RucioSite(Startable):
    """One Rucio with a database of its own, on 127.0.0.1.

    :param directory: RUCIO_HOME; kept on stop. A temporary one that is removed on stop if None.
    :param policy_package: what ``[policy] package`` says; :data:`SANDBOX_POLICY` for the sandbox's own, None for
        none: then Rucio knows no transfertool ``cs3`` and the conveyor is set to ``mock``.
    :param extra_config: sections and options laid over rucio.cfg; ``[client]`` and ``[policy]`` reach
        client.cfg as well.
    :param rse_accounts: content of rse-accounts.cfg, see :meth:`set_rse_accounts`.
    :param on_command: called with each command line, as a shell would take it, before it runs.
    :raises RucioUnavailable: the server wheel is not installed.
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
    ) -> None:
        if not rucio_is_installed():
            raise RucioUnavailable("the Rucio server is not installed: pip install 'rucio-cs3[server,sandbox]'")
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="rucio-cs3-rucio-"))
        self.policy_package = _SANDBOX_PACKAGE if policy_package == SANDBOX_POLICY else policy_package
        self._extra_config = extra_config or {}
        self._rse_accounts = rse_accounts or {}
        self._on_command = on_command
        self._username = "sandbox"
        self._password = secrets.token_urlsafe(16)
        self._port = free_port()
        self._server: ChildProcess | None = None
        self._loops: list[ChildProcess] = []

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The REST server, authentication included."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def database(self) -> Path:
        return self.directory / "rucio.db"

    @property
    def log(self) -> Path:
        """Log of the REST server."""
        return self.directory / "log" / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        """What a shell needs so that ``rucio`` speaks to this site."""
        return {"RUCIO_HOME": str(self.directory), "RUCIO_CONFIG": str(self.directory / "etc" / "client.cfg")}

    @property
    def daemon_environment(self) -> dict[str, str]:
        """What a shell needs so that ``rucio-conveyor-…``, ``rucio-reaper`` and so on work on this site."""
        return {"RUCIO_HOME": str(self.directory), "RUCIO_CONFIG": str(self.directory / "etc" / "rucio.cfg")}

    def start(self) -> None:
        """Make the database where there is none yet, start the server, wait until it answers /ping.

        :raises RucioCommandError: the database could not be made.
        :raises ProcessError: the server died or was not ready within a minute.
        """
        for folder in ("etc", "log", "client"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self.set_rse_accounts(self._rse_accounts)
        if not self.database.exists():
            # WAL: readers do not wait for the writer. The mode stays with the file.
            with sqlite3.connect(self.database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            self._run([sys.executable, "-c", _BOOTSTRAP], self.daemon_environment, timeout_s=_READY_TIMEOUT_S)
        gunicorn = self.directory / "etc" / "gunicorn.conf.py"
        gunicorn.write_text(_GUNICORN, encoding="utf-8")
        sandboxed = self.policy_package == _SANDBOX_PACKAGE
        server = f"{_SANDBOX_PACKAGE}.wsgi" if sandboxed else "rucio.web.rest.main"
        self._server = ChildProcess(
            "Rucio server",
            [
                *(sys.executable, "-m", "gunicorn", "--bind", f"{LOOPBACK}:{self._port}"),
                # One process: SQLite serialises writers anyhow, and every process would import Rucio anew.
                *("--config", str(gunicorn), "--workers", "1", "--threads", "4", "--graceful-timeout", "2"),
                f"{server}:application",
            ],
            log=self.log,
            environment=_environment(self.daemon_environment),
            directory=self.directory,
        )
        self._server.start()
        self._server.wait_until(self._answers_ping, timeout_s=_READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop loops and server; also removes a temporary directory. Idempotent."""
        for loop in self._loops:
            loop.terminate()
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        if self._server is not None:
            self._server.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- commands and daemons -----------------------------------------------------------------------------------

    def rucio(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the real ``rucio`` command as the site's root account.

        :param check: whether a failure raises: an exit code other than 0, or an ERROR line, because
            ``rucio upload`` and ``rucio download`` end with 0 whatever happened (41.5.1, cli/upload.py drops the
            result of the function it calls).
        :raises RucioCommandError: the command failed, or took longer than ``timeout_s``.
        """
        command = [_program("rucio"), *(str(argument) for argument in arguments)]
        finished = self._run(command, self.environment, check=check, timeout_s=timeout_s)
        if check and _ERROR_LINE.search(finished.stderr + finished.stdout):
            raise RucioCommandError(_report(command, finished))
        return finished

    def daemon(self, name: str, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run one pass of a daemon by its own command, for example ``conveyor-submitter`` or ``reaper``.

        Options that make one pass complete are given where Rucio's defaults would leave work for later;
        ``arguments`` come after them and win.

        The conveyor's daemons and the necromancer wait 10 s before they begin, which no option shortens;
        :meth:`loop` pays that once, :meth:`conveyor` not at all.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        command = [_program(f"rucio-{name}"), "--run-once", *_ONCE_OPTIONS.get(name, ()), *arguments]
        finished = self._run(command, self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def conveyor(self, stage: ConveyorStage, *, timeout_s: float = 600.0) -> str:
        """Run one pass of a stage of the conveyor at once, in a process of its own.

        It is the function that ``rucio-conveyor-<stage>`` runs, called with ``partition_wait_time=0``, which the
        command does not offer: those 10 s are for several workers to share the work out.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        command = [sys.executable, "-c", _CONVEYOR, stage]
        finished = self._run(command, self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def cs3(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Run ``rucio-cs3`` with the configuration of the daemons, for example ``agent --run-once``.

        :returns: all that it wrote.
        :raises RucioCommandError: it failed or took longer than ``timeout_s``.
        """
        finished = self._run([_program("rucio-cs3"), *arguments], self.daemon_environment, timeout_s=timeout_s)
        return finished.stdout + finished.stderr

    def loop(self, name: str, *arguments: str) -> ChildProcess:
        """Start a daemon that works until the site stops; its log is ``log/<name>.log``.

        :param name: as for :meth:`daemon`; ``cs3-agent`` is ours.
        """
        process = ChildProcess(
            f"rucio-{name}",
            [_program(f"rucio-{name}"), *arguments],
            log=self.directory / "log" / f"{name}.log",
            environment=_environment(self.daemon_environment),
            directory=self.directory,
        )
        self._tell([_program(f"rucio-{name}"), *arguments])
        process.start()
        self._loops.append(process)
        return process

    def check_loops(self) -> None:
        """
        :raises ProcessError: when one of the daemons started by :meth:`loop` has ended; with the end of its log.
        """
        for process in self._loops:
            process.check()

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
        _write_private(self.directory / "etc" / "rse-accounts.cfg", json.dumps(accounts, indent=2))

    # --- inside -------------------------------------------------------------------------------------------------

    def _answers_ping(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/ping", timeout=_PROBE_TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        timeout_s: float,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        self._tell(command)
        try:
            finished = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                env=_environment(environment),
                cwd=self.directory,
            )
        except subprocess.TimeoutExpired as exc:
            raise RucioCommandError(f"{_shown(command)}\nstill ran after {timeout_s:g} s") from exc
        if check and finished.returncode != 0:
            raise RucioCommandError(_report(command, finished))
        return finished

    def _tell(self, command: Sequence[object]) -> None:
        """Tell the listener, if any, of a command that people run, too; set-up by ``python -c`` is none."""
        line = _shown([str(word) for word in command])
        if self._on_command is not None and line.startswith("rucio"):
            self._on_command(line)

    def _write_configuration(self) -> None:
        database_url = f"sqlite:///{self.database}"
        alembic = self.directory / "etc" / "alembic.ini"
        migrations = Path(_rucio_package()) / "db" / "sqla" / "migrate_repo"
        client = {
            "rucio_host": self.url,
            "auth_host": self.url,
            "auth_type": "userpass",
            "username": self._username,
            "password": self._password,
            "account": self.account,
            # Rucio's default is one file in /tmp for all servers of the machine.
            "auth_token_file_path": str(self.directory / "client" / "auth_token"),
            "request_retries": "3",
            # With the default of 6 an upload of an empty file waits 63 s, because Rucio takes size 0 for a race
            # (uploadclient._retry_protocol_stat); the protocol of this package verifies what it uploads itself.
            "protocol_stat_retries": "0",
        }
        policy = {"permission": "generic", "schema": "generic", "lfn2pfn_algorithm_default": "hash"}
        if self.policy_package is not None:
            policy["package"] = self.policy_package
        server: dict[str, dict[str, str]] = {
            "common": {"logdir": str(self.directory / "log"), "loglevel": "INFO"},
            "client": client,
            "policy": policy,
            "database": {"default": f"{database_url}?timeout={_SQLITE_BUSY_S}"},
            "bootstrap": {
                "userpass_identity": self._username,
                "userpass_pwd": self._password,
                "userpass_email": "sandbox@example.org",
            },
            "alembic": {"cfg": str(alembic)},
            "conveyor": {
                # Where this is set, transfers use these schemes and no others (rucio#8287).
                "scheme": "davs,https,http,dav,cs3s,cs3",
                "transfertool": "mock" if self.policy_package is None else "cs3",
            },
        }
        for section, options in self._extra_config.items():
            server.setdefault(section, {}).update(options)
        people = {section: server[section] for section in ("client", "policy")}
        _write_ini(self.directory / "etc" / "rucio.cfg", server)
        _write_ini(self.directory / "etc" / "client.cfg", people)
        scripts = {"script_location": str(migrations), "sqlalchemy.url": database_url}
        _write_ini(alembic, {**_ALEMBIC, "alembic": scripts}, raw_sections=("formatter_plain",))


def _shown(command: Sequence[str]) -> str:
    return shlex.join([Path(command[0]).name, *command[1:]])


def _report(command: Sequence[str], finished: subprocess.CompletedProcess[str]) -> str:
    output = _COLOUR.sub("", f"{finished.stdout}{finished.stderr}").strip()
    return f"{_shown(command)}\nended with exit code {finished.returncode} and wrote:\n{output}"


def _rucio_package() -> str:
    spec = find_spec("rucio")
    if spec is None or not spec.submodule_search_locations:
        raise RucioUnavailable("the Rucio server is not installed")
    return spec.submodule_search_locations[0]


def _program(name: str) -> str:
    """The console script of the distribution that this interpreter imports, wherever PATH points."""
    return str(Path(sys.executable).parent / name)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would lead Rucio to another configuration, and with ``own``."""
    # The last rse-accounts.cfg found wins in Rucio, also one in $VIRTUAL_ENV/etc or $CONDA_PREFIX/etc.
    foreign = ("RUCIO_", "VIRTUAL_ENV", "CONDA_PREFIX")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    proxied = ",".join(filter(None, (kept.get("NO_PROXY"), LOOPBACK, "localhost")))
    return {**kept, "NO_PROXY": proxied, "no_proxy": proxied, **own}


def _write_ini(path: Path, sections: Mapping[str, Mapping[str, str]], *, raw_sections: Collection[str] = ()) -> None:
    """Write an INI file for a reader that interpolates ``%``, except in ``raw_sections``."""
    parser = configparser.ConfigParser(interpolation=None)
    for section, options in sections.items():
        raw = section in raw_sections
        parser[section] = {key: value if raw else value.replace("%", "%%") for key, value in options.items()}
    text = io.StringIO()
    parser.write(text)
    _write_private(path, text.getvalue())


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
