"""The files that configure a :class:`~rucio_cs3.sandbox.rucio_site.RucioSite`; all readable by the owner only.

The server and the daemons read ``etc/rucio.cfg``; people's commands read ``etc/client.cfg``, which knows of no
database, as on a laptop: Rucio takes a configuration with a ``[database]`` section for a server's and would open
the database from the client.
"""

from __future__ import annotations

import configparser
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.rucio_database import RucioDatabase

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


@dataclass(frozen=True, kw_only=True)
class RucioConfiguration:
    """What the files of one site say.

    :param directory: RUCIO_HOME.
    :param url: of the REST server.
    :param policy_package: None for none: then the conveyor is set to transfertool ``mock``.
    :param extra: sections and options laid over rucio.cfg; ``[client]`` and ``[policy]`` reach client.cfg as well.
    """

    directory: Path
    url: str
    database: RucioDatabase
    account: str
    username: str
    password: str = field(repr=False)
    policy_package: str | None
    extra: Mapping[str, Mapping[str, str]]

    @property
    def gunicorn(self) -> Path:
        return self.directory / "etc" / "gunicorn.conf.py"

    def write(self) -> None:
        """Write all files anew, and make the folders of the site."""
        for folder in ("etc", "log", "client"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        server = self._server()
        people = {section: server[section] for section in ("client", "policy")}
        _write_ini(self.directory / "etc" / "rucio.cfg", server)
        _write_ini(self.directory / "etc" / "client.cfg", people)
        scripts = {
            "script_location": str(Path(_rucio_package()) / "db" / "sqla" / "migrate_repo"),
            "sqlalchemy.url": self.database.url,
        }
        if self.database.schema is not None:
            scripts["version_table_schema"] = self.database.schema
        _write_ini(self._alembic, {**_ALEMBIC, "alembic": scripts}, raw_sections=("formatter_plain",))
        self.gunicorn.write_text(_GUNICORN, encoding="utf-8")

    @property
    def _alembic(self) -> Path:
        return self.directory / "etc" / "alembic.ini"

    def _server(self) -> dict[str, dict[str, str]]:
        client = {
            "rucio_host": self.url,
            "auth_host": self.url,
            "auth_type": "userpass",
            "username": self.username,
            "password": self.password,
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
        database = {"default": self.database.url}
        if self.database.schema is not None:
            database["schema"] = self.database.schema
        server: dict[str, dict[str, str]] = {
            "common": {"logdir": str(self.directory / "log"), "loglevel": "INFO"},
            "client": client,
            "policy": policy,
            "database": database,
            "bootstrap": {
                "userpass_identity": self.username,
                "userpass_pwd": self.password,
                "userpass_email": "sandbox@example.org",
            },
            "alembic": {"cfg": str(self._alembic)},
            "conveyor": {
                # Where this is set, transfers use these schemes and no others (rucio#8287).
                "scheme": "davs,https,http,dav,cs3s,cs3",
                "transfertool": "mock" if self.policy_package is None else "cs3",
            },
        }
        for section, options in self.extra.items():
            server.setdefault(section, {}).update(options)
        return server


def _write_ini(path: Path, sections: Mapping[str, Mapping[str, str]], *, raw_sections: Collection[str] = ()) -> None:
    """Write an INI file for a reader that interpolates ``%``, except in ``raw_sections``."""
    parser = configparser.ConfigParser(interpolation=None)
    for section, options in sections.items():
        raw = section in raw_sections
        parser[section] = {key: value if raw else value.replace("%", "%%") for key, value in options.items()}
    text = io.StringIO()
    parser.write(text)
    write_private(path, text.getvalue())


def _rucio_package() -> str:
    spec = find_spec("rucio")
    if spec is None or not spec.submodule_search_locations:
        raise RucioUnavailable("the Rucio server is not installed")
    return spec.submodule_search_locations[0]
