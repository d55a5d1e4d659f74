"""The agent, and who looks at transfers, with no more rights in Rucio's database than docs/security.md gives them.

The statements are those of the page itself, run as they stand there.
"""

from __future__ import annotations

import configparser
import json
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk
from tests.unit.test_docs import DOCS, blocks

psycopg = pytest.importorskip("psycopg")

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio]

#: As the page names them.
SCHEMA, AGENT, WATCHER = "rucio", "rucio_agent", "rucio_watcher"
DATABASE = "rights"
SCOPE = "rights-cs3"

SOURCE = "RIGHTS-FROM"
#: File -> the RSE that its rule names.
DESTINATIONS = {"fine": "RIGHTS-TO", "leftover": "RIGHTS-TO", "gone": "RIGHTS-TO", "far": "RIGHTS-FAR"}
#: The only way to RIGHTS-FAR.
BETWEEN = "RIGHTS-BETWEEN"

_ADD_RULES = """
import json, sys
from rucio.client import Client
client = Client()
scope, destinations = json.load(sys.stdin)
for name, rse in destinations.items():
    client.add_replication_rule([{"scope": scope, "name": name}], 1, rse)
"""


@dataclass
class Site:
    """A Rucio on PostgreSQL, and two roles that may do what the page says."""

    rucio: RecordedRucio
    postgres: PostgresSite
    rses: Mapping[str, Rse]
    passwords: Mapping[str, str]

    def configuration(self, role: str, **sections: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process that comes to the database as this role."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(self.rucio.directory / "etc" / "rucio.cfg")
        place = self.postgres.url(DATABASE).rpartition("@")[2]
        parser["database"]["default"] = f"postgresql+psycopg://{role}:{self.passwords[role]}@{place}"
        parser.read_dict(sections)
        path = self.rucio.directory / "etc" / f"{role}.cfg"
        with path.open("w") as file:
            path.chmod(0o600)
            parser.write(file)
        return {**self.rucio.daemon_environment, "RUCIO_CONFIG": str(path)}

    def connect(self, role: str) -> Any:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.postgres.port,
            user=role,
            password=self.passwords[role],
            dbname=DATABASE,
            autocommit=True,
        )

    def beats(self) -> bool:
        """Whether Rucio knows of an agent."""
        return bool(self.rucio.query("SELECT 1 FROM heartbeats WHERE readable LIKE 'rucio-cs3-agent%'"))

    def old_statistics(self) -> bool:
        return bool(self.rucio.query("SELECT 1 FROM transfer_stats WHERE activity = 'old'"))

    def given(self) -> set[tuple[str, str, str]]:
        """Role, table and right, by the server's own catalogue."""
        with self.postgres.connect(DATABASE) as connection:
            return set(
                connection.execute(
                    "SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants "
                    "WHERE grantee = ANY(%(roles)s) UNION SELECT grantee, table_name, privilege_type "
                    "FROM information_schema.column_privileges WHERE grantee = ANY(%(roles)s)",
                    {"roles": [AGENT, WATCHER]},
                ).fetchall()
            )

    def used(self) -> set[tuple[str, str, str]]:
        """The same, by what was asked so far."""
        found = set()
        for record in re.split(r"\n(?=\w+\| )", self.postgres.log.read_text("utf-8")):
            match = re.match(r"(\w+)\| LOG:  (?:statement|execute [^:]*): (.*)", record, re.DOTALL)
            if match is None or match[1] not in (AGENT, WATCHER):
                continue
            role, statement = match.groups()
            written = re.match(rf"(INSERT|UPDATE|DELETE)(?: INTO| FROM)? {SCHEMA}\.(\w+)", statement)
            if written:
                found.add((role, written[2], written[1]))
            for table in set(re.findall(rf"\b{SCHEMA}\.([a-z_]+)\b", statement)):
                if written is None or written[2] != table or written[1] != "INSERT":
                    found.add((role, table, "SELECT"))
                if "FOR UPDATE" in statement:
                    found.add((role, table, "UPDATE"))
        return found

    def refused(self) -> list[str]:
        """What the server has refused to anybody, in its own words."""
        lines = self.postgres.log.read_text("utf-8").splitlines()
        return [line for line in lines if "permission denied" in line]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # A server of its own: roles are those of a whole server. Its log says who asked for what.
    with (
        PostgresSite(settings={"log_line_prefix": "%u| "}) as postgres,
        EmbeddedCloud(name="from") as a,
        EmbeddedCloud(name="to") as b,
    ):
        url = postgres.create_database(DATABASE)
        with RecordedRucio(policy_package=SANDBOX_POLICY, database=url, schema=SCHEMA) as rucio:
            rses = {
                SOURCE: Rse(SOURCE, a, "http", folder="from"),
                BETWEEN: Rse(BETWEEN, a, "http", folder="between"),
                "RIGHTS-TO": Rse("RIGHTS-TO", b, "http", folder="to"),
                "RIGHTS-FAR": Rse("RIGHTS-FAR", b, "http", folder="far"),
            }
            rucio.add_rses(rses[SOURCE])
            rucio.add_rses(rses[BETWEEN], sources=[SOURCE], attributes={"available_for_multihop": "True"})
            rucio.add_rses(rses["RIGHTS-TO"], sources=[SOURCE])
            rucio.add_rses(rses["RIGHTS-FAR"], sources=[BETWEEN])
            rucio.add_scope(SCOPE)
            passwords = {role: secrets.token_urlsafe(16) for role in (AGENT, WATCHER)}
            with postgres.connect(DATABASE) as connection:
                for statements in blocks(DOCS / "security.md", "sql"):
                    connection.execute(statements.encode())
                for role, password in passwords.items():
                    connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'".encode())
                    connection.execute(f"ALTER ROLE {role} SET log_statement = 'all'".encode())
            yield Site(rucio, postgres, rses, passwords)


def test_a_story_with_the_agents_rights(site: Site, tmp_path: Path) -> None:
    """A transfer, what an earlier one left, a source that is gone, and a path whose first hop fails."""
    rucio, rses = site.rucio, site.rses
    for name in DESTINATIONS:
        (tmp_path / name).write_text(name)
    rucio.rucio("upload", "--rse", SOURCE, "--scope", SCOPE, *(tmp_path / name for name in DESTINATIONS))
    for name in ("gone", "far"):
        on_disk(rses[SOURCE], SCOPE, name).unlink()
    left = on_disk(rses["RIGHTS-TO"], SCOPE, "leftover")
    left.parent.mkdir(parents=True)
    left.write_text("half of an earlier attempt")
    rucio._run(
        [sys.executable, "-c", _ADD_RULES], rucio.environment, timeout_s=60.0, given=json.dumps([SCOPE, DESTINATIONS])
    )
    rucio.conveyor("submitter")
    hops = rucio.query("SELECT name, state FROM requests WHERE scope = ? AND name = 'far'", SCOPE)
    assert sorted(hops) == [("far", "Q"), ("far", "S")]
    said = rucio._run([str(program("rucio-cs3")), "agent", "--run-once"], site.configuration(AGENT), timeout_s=120.0)
    assert "Traceback" not in said.stdout + said.stderr
    assert site.refused() == []
    states = dict(rucio.query("SELECT name, state FROM requests WHERE scope = ? AND name <> 'far'", SCOPE))
    assert states == {"fine": "D", "leftover": "D", "gone": "F"}
    # The hop behind the one that failed is given up with it.
    assert [state for _, state in rucio.query("SELECT name, state FROM requests WHERE name = 'far'")] == ["F", "F"]
    rucio.conveyor("finisher")
    assert files_below(rses["RIGHTS-TO"]) == {"fine", "leftover"}
    assert left.read_text() == "leftover"
    replicas = rucio.replica_states(SCOPE)
    assert [replicas["RIGHTS-TO", name] for name in ("fine", "leftover")] == ["A", "A"]


def test_a_daemon_with_the_agents_rights(site: Site) -> None:
    """Heartbeats, statistics and the removal of old ones: what only an agent does that stays."""
    with site.postgres.connect(DATABASE) as connection:
        connection.execute(
            f"INSERT INTO {SCHEMA}.transfer_stats (id, resolution, timestamp, dest_rse_id, src_rse_id, activity, "
            "files_done, bytes_done, files_failed, created_at, updated_at) "
            "SELECT gen_random_uuid(), 300, now() - interval '90 days', a.id, b.id, 'old', 1, 1, 0, now(), now() "
            f"FROM {SCHEMA}.rses a, {SCHEMA}.rses b LIMIT 3".encode()
        )
    # Otherwise the first removal comes after an hour. With much less, Rucio's timer may be started anew while it is
    # being cancelled (41.5.1 core/request.py:1645), and then the process never ends.
    environment = site.configuration(AGENT, transfers={"stats_downsample_period": "4"})
    agent = ChildProcess(
        "agent",
        [program("rucio-cs3-agent"), "--sleep-time", "2"],
        log=site.rucio.directory / "log" / "agent.log",
        environment=clean_environment(environment),
    )
    agent.start()
    try:
        agent.wait_until(lambda: site.beats() and not site.old_statistics(), timeout_s=60)
        agent.terminate()
        assert agent.wait(timeout_s=60) == 0
    finally:
        agent.stop()
    assert "Traceback" not in agent.output()
    assert not site.beats()
    assert site.refused() == []


def test_a_look_with_the_watchers_rights(site: Site) -> None:
    environment = site.configuration(WATCHER)
    seen = site.rucio._run([str(program("rucio-cs3")), "transfers", "--json"], environment, timeout_s=60.0)
    found = {transfer["name"] for transfer in json.loads(seen.stdout)["transfers"]}
    assert found == set(DESTINATIONS)
    assert site.refused() == []


def test_nothing_is_given_that_is_not_used(site: Site) -> None:
    """By the story, the daemon and the look above."""
    assert site.given() == site.used()


#: What nobody gets who only moves files, or only looks.
FORBIDDEN = (
    "SELECT * FROM {schema}.identities",
    "SELECT * FROM {schema}.tokens",
    "SELECT * FROM {schema}.account_map",
    "SELECT * FROM {schema}.rules",
    "DELETE FROM {schema}.requests",
    # Where a file goes, and where it comes from.
    "UPDATE {schema}.requests SET dest_url = 'https://elsewhere.example.org/f'",
    "UPDATE {schema}.sources SET url = 'https://elsewhere.example.org/f'",
    "INSERT INTO {schema}.requests (id) VALUES (gen_random_uuid())",
    "UPDATE {schema}.replicas SET state = 'A'",
    "DELETE FROM {schema}.replicas",
    "UPDATE {schema}.rse_protocols SET hostname = 'elsewhere.example.org'",
    "UPDATE {schema}.rse_attr_map SET value = 'elsewhere.example.org'",
    "UPDATE {schema}.configs SET value = ''",
    "SELECT * FROM {schema}.messages",
    "CREATE TABLE {schema}.own (n int)",
)


@pytest.mark.parametrize("role", [AGENT, WATCHER])
@pytest.mark.parametrize("statement", FORBIDDEN)
def test_what_neither_may(site: Site, role: str, statement: str) -> None:
    with site.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.format(schema=SCHEMA).encode())


@pytest.mark.parametrize("table", ["requests", "heartbeats", "transfer_stats", "messages"])
def test_who_looks_changes_nothing(site: Site, table: str) -> None:
    with site.connect(WATCHER) as connection:
        for statement in (f"DELETE FROM {SCHEMA}.{table}", f"UPDATE {SCHEMA}.{table} SET updated_at = now()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def program(name: str) -> Path:
    return Path(sys.executable).parent / name
