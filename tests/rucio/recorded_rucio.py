"""A real Rucio that remembers what was said, and RSEs that are made without a command for each step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rucio_cs3.sandbox.rucio_site import RucioCommandError, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

# What RucioSite.add_rse does by commands, for many RSEs in one process.
_ADD_RSES = """
import json, sys
from rucio.client import Client
client = Client()
for rse in json.load(sys.stdin):
    client.add_rse(rse["name"], deterministic=rse["deterministic"])
    client.add_protocol(rse["name"], rse["protocol"])
    for key, value in rse["attributes"].items():
        client.add_rse_attribute(rse["name"], key, value)
    client.set_local_account_limit("root", rse["name"], -1)
    for other in rse["from"]:
        client.add_distance(other, rse["name"], {"distance": 1})
"""

_ASK = """
import json, sys
from rucio.client import Client
method, *arguments = json.load(sys.stdin)
getattr(Client(), method)(*arguments)
"""

_EXPIRE_RULES = """
import json, sys
from rucio.client import Client
client = Client()
for rule in client.list_replication_rules({"scope": json.load(sys.stdin)}):
    client.update_replication_rule(rule["id"], {"lifetime": 0})
"""

_DOMAINS = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}


class RecordedRucio(RucioSite):
    """A :class:`RucioSite` that keeps all output of commands and all accounts that it was ever given."""

    def __init__(self, **options: Any) -> None:
        self.outputs: list[str] = []
        self.accounts: dict[str, object] = {}
        super().__init__(**options)

    def __enter__(self) -> RecordedRucio:
        super().__enter__()
        return self

    def set_rse_accounts(self, accounts: Mapping[str, object]) -> None:
        """Add to rse-accounts.cfg, so that several stories share a Rucio."""
        self.accounts.update(accounts)
        super().set_rse_accounts(self.accounts)

    def expire_rules(self, scope: str) -> None:
        """All rules of a scope end now."""
        self._run([sys.executable, "-c", _EXPIRE_RULES], self.environment, timeout_s=60.0, given=json.dumps(scope))

    def add_rses(
        self,
        *rses: Rse,
        attributes: Mapping[str, str] | None = None,
        sources: Sequence[str] = (),
        deterministic: bool = True,
    ) -> None:
        """Add RSEs with their first users' passwords.

        :param attributes: of each.
        :param sources: RSEs that transfers to these may come from.
        :param deterministic: whether Rucio computes the places of files there, or keeps a path for each.
        """
        self.set_rse_accounts({rse.name: rse.account() for rse in rses})
        told = [
            {
                "name": rse.name,
                "protocol": {**rse.protocol(), "domains": _DOMAINS},
                "attributes": dict(attributes or {}),
                "from": list(sources),
                "deterministic": deterministic,
            }
            for rse in rses
        ]
        for one in told:
            one["protocol"]["port"] = int(one["protocol"]["port"])  # type: ignore[index]
        self._run([sys.executable, "-c", _ADD_RSES], self.environment, timeout_s=120.0, given=json.dumps(told))

    def ask(self, method: str, *arguments: object) -> None:
        """Call a method of Rucio's client as root."""
        told = json.dumps([method, *arguments])
        self._run([sys.executable, "-c", _ASK], self.environment, timeout_s=120.0, given=told)

    def replica_states(self, scope: str) -> dict[tuple[str, str], str]:
        """(RSE, name) -> state of the replica: A available, C copying, U unavailable, B being deleted, D bad."""
        rows = self.query(
            "SELECT rses.rse, replicas.name, replicas.state FROM replicas JOIN rses ON rses.id = replicas.rse_id "
            "WHERE replicas.scope = ?",
            scope,
        )
        return {(rse, name): state for rse, name, state in rows}

    def _run(self, *arguments: Any, given: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        if given is not None:
            # Through a file, because commands of a RucioSite get no input.
            path = self.directory / "given.json"
            path.write_text(given)
            command, *rest = arguments
            arguments = ([*command[:-1], f"import sys; sys.stdin = open({str(path)!r})\n{command[-1]}"], *rest)
        try:
            finished = super()._run(*arguments, **options)
        except RucioCommandError as error:
            self.outputs.append(str(error))
            raise
        self.outputs.append(finished.stdout + finished.stderr)
        return finished


def on_disk(rse: Rse, scope: str, name: str) -> Path:
    """Where a file is on the disk of an RSE's cloud, whether it is there or not."""
    return rse.cloud.path_on_disk(f"{rse.folder}/{hash_path(scope, name)}")


def files_below(rse: Rse) -> set[str]:
    """Names of all files at an RSE, hidden ones included."""
    folder = rse.cloud.path_on_disk(rse.folder)
    return {path.name for path in folder.rglob("*") if path.is_file()}


def requests_to(cloud: Any, what: str) -> int:
    """Lines of an embedded cloud's log that begin with ``what`` after the time."""
    lines = Path(cloud.log).read_text("utf-8").splitlines()
    return sum(line.partition(" ")[2].startswith(what) for line in lines)
