"""Clouds and a Rucio on this machine for people to try things, and for the examples of the documentation.

Two clouds of CERNBox's line, ``cernbox`` and ``other``, and one of spaces, ``space``; a Rucio that can have them as
RSEs. What people do with it is theirs: nothing is uploaded. ``rucio-cs3 sandbox`` starts one.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.reva import RevaSite, User, find_revad
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Cloud, Rse

#: Who can log in to the clouds; passwords are made anew for each playground.
USERS = ("jdoe", "rucio", "einstein", "marie")

#: Rucio's daemons and ours; they look for work every two seconds.
DAEMONS: Sequence[tuple[str, ...]] = (
    ("conveyor-submitter", "--sleep-time", "2"),
    ("cs3-agent", "--sleep-time", "2"),
    ("conveyor-poller", "--sleep-time", "2", "--older-than", "0"),
    ("conveyor-finisher", "--sleep-time", "2"),
    ("judge-evaluator", "--sleep-time", "2"),
    ("judge-cleaner", "--sleep-time", "2"),
    ("reaper", "--sleep-time", "2", "--greedy", "--delay-seconds", "1"),
)

# One process for all of it: each `rucio` command takes a second.
_ADD = """
import json, sys
from rucio.client import Client
client = Client()
with open(sys.argv[1]) as file:
    told = json.load(file)
for account in told["accounts"]:
    client.add_account(account, "USER", "")
for scope, account in told["scopes"].items():
    client.add_scope(account, scope)
names = [rse["name"] for rse in told["rses"]]
for number, rse in enumerate(told["rses"]):
    client.add_rse(rse["name"])
    client.add_protocol(rse["name"], rse["protocol"])
    for account in rse["limits"]:
        client.set_local_account_limit(account, rse["name"], -1)
    for other in names[:number]:
        client.add_distance(other, rse["name"], {"distance": 1})
        client.add_distance(rse["name"], other, {"distance": 1})
"""

_DOMAINS = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}


class Playground(Startable):
    """Three clouds and a Rucio, empty, on 127.0.0.1 with TLS (gRPC of a real Reva has none).

    :param directory: for everything; it exists, and is kept on stop.
    :param real: whether the clouds of CERNBox's line are real Reva sites; None: where a ``revad`` is found.
    :raises RevaUnavailable: real ones are asked for, and there is no ``revad``.
    :raises RucioUnavailable: Rucio's server is not installed.
    """

    def __init__(self, directory: Path, *, real: bool | None = None) -> None:
        self.directory = directory
        users = [User(username=name, password=secrets.token_urlsafe(12), display_name=name) for name in USERS]
        real = find_revad() is not None if real is None else real
        #: By the name of their section in the clouds file.
        self.clouds: Mapping[str, Cloud] = {
            "cernbox": _v3("cernbox", users, directory, real=real),
            "other": _v3("other", users, directory, real=real),
            "space": EmbeddedCloud(
                name="space", behaviour=Behaviour.SPACES, directory=directory / "space", users=users, tls=True
            ),
        }
        self.rucio = RucioSite(directory / "rucio", policy_package=SANDBOX_POLICY)
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        """Start all of it, with a Rucio account jdoe that has scope user.jdoe; no RSE is there yet."""
        for cloud in self.clouds.values():
            self._running.callback(cloud.stop)
            cloud.start()
        self._running.enter_context(self.rucio)
        self.add(accounts=("jdoe",), scopes={"user.jdoe": "jdoe"})

    def stop(self) -> None:
        """Stop all of it. Idempotent."""
        self._running.close()

    def start_daemons(self) -> None:
        """Start Rucio's daemons and an agent, which work until :meth:`stop`."""
        for daemon in DAEMONS:
            self.rucio.loop(*daemon)

    def rse(self, cloud: str, name: str, folder: str = "rucio") -> Rse:
        """A cloud as an RSE that Rucio need not know yet."""
        return Rse(name, self.clouds[cloud], "davs", "rucio_cs3.protocol.Default", folder)

    def add(
        self,
        *,
        rses: Iterable[Rse] = (),
        scopes: Mapping[str, str] | None = None,
        accounts: Iterable[str] = (),
        limits: Sequence[str] = ("root", "jdoe"),
    ) -> None:
        """Add to Rucio what is named.

        :param rses: distances are set between all that are added together.
        :param scopes: scope -> account that owns it.
        :param accounts: new ones.
        :param limits: accounts that may use the RSEs without limit.
        :raises RucioCommandError: some of it was not taken.
        """
        described = []
        for rse in rses:
            protocol = {**rse.protocol(), "domains": _DOMAINS}
            protocol["port"] = int(str(protocol["port"]))
            described.append({"name": rse.name, "protocol": protocol, "limits": list(limits)})
        told = {"accounts": list(accounts), "scopes": dict(scopes or {}), "rses": described}
        path = self.directory / "to-add.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        self.rucio.python(_ADD, str(path))

    def section(self, rse: Rse, password_file: Path, username: str = "jdoe") -> dict[str, str]:
        """The section of a clouds file for the folder of an RSE."""
        extended = rse.protocol()["extended_attributes"]
        assert isinstance(extended, dict)
        settings = {
            key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in extended.items()
        }
        return {
            "url": f"{rse.cloud.webdav_url}/{rse.folder}",
            **settings,
            "username": username,
            "password_file": str(password_file),
        }

    def write_passwords(self, folder: Path) -> None:
        """A file for each user of the clouds, such as ``jdoe.password``, which only its owner can read."""
        for name, user in self.clouds["cernbox"].users.items():
            write_private(folder / f"{name}.password", f"{user.password}\n")


def write_clouds_file(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    """A clouds file that only its owner can read."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, "")
    with path.open("w", encoding="utf-8") as file:
        parser.write(file)


def exports(variables: Mapping[str, str]) -> str:
    """What a shell reads to have these variables."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _v3(name: str, users: Sequence[User], directory: Path, *, real: bool) -> Cloud:
    if real:
        return RevaSite(name, directory=directory / name, users=users, tls=True)
    return EmbeddedCloud(name=name, behaviour=Behaviour.V3, directory=directory / name, users=users, tls=True)
