"""Rucio's own submitter with the tools ``fts3`` and ``cs3``: who gets a hop, what switches it, and what FTS is told.

The commands are those of docs/fts.md, run as they stand there. FTS itself is a recorder.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse, hash_path
from tests.fts.recording_fts import RecordingFTS
from tests.rucio.recorded_rucio import RecordedRucio
from tests.unit.test_docs import DOCS, section

pytestmark = pytest.mark.rucio

SCOPE = "to-fts"
PREFIX = "/remote.php/webdav/rucio/"
#: Rucio's sandbox refuses ``&``.
NAMES = ("plain.root", "with space", "größe-数", "100%25 off", "a+b", "c#d", "q?r", "x,y;z")

_ADD = """
import json, sys
from rucio.client import Client
client = Client()
scope, source, destination, activity, names = json.load(sys.stdin)
files = [{"scope": scope, "name": name, "bytes": 1000, "adler32": "0a0b0c0d"} for name in names]
client.add_replicas(source, files)
for name in names:
    client.add_replication_rule([{"scope": scope, "name": name}], 1, destination, activity=activity)
"""

_SUBMIT = """
import json, sys
from rucio.common.logging import setup_logging
from rucio.daemons.conveyor import submitter
setup_logging(process_name="conveyor-submitter")
submitter.submitter(once=True, partition_wait_time=0, **json.load(sys.stdin))
"""


def front_end(host: str) -> Any:
    """A cloud that nobody asks: for FTS Rucio only makes URLs."""
    return SimpleNamespace(
        webdav_url=f"https://{host}:443/remote.php/webdav",
        gateway=f"{host}:9142",
        gateway_tls=True,
        root="/eos/project",
        ca_bundle=None,
        users={"rucio": SimpleNamespace(username="rucio", password="made-up-too")},
    )


def script(heading: str, rse: str, fts: str) -> list[list[str]]:
    """The commands below a heading of docs/fts.md, for another RSE and another server."""
    (code,) = re.findall(r"```bash\n(.*?)```", section(DOCS / "fts.md", heading), re.DOTALL)
    lines = code.replace("CERNBOX", rse).replace("https://fts.example.org:8446", fts).splitlines()
    commands = [shlex.split(line) for line in lines]
    assert commands
    assert all(words[0] == "rucio" for words in commands)
    return [words[1:] for words in commands]


@dataclass
class Desk:
    """Rucio with the RSEs of all cases; a case is a file's name, and is submitted when its time has come."""

    rucio: RecordedRucio
    fts: RecordingFTS
    output: dict[str, str] = field(default_factory=dict)

    def ask(self, *names: str, ends: tuple[str, str] = ("HERE", "THERE"), activity: str = "User Subscriptions") -> None:
        self.rucio._run(
            [sys.executable, "-c", _ADD],
            self.rucio.environment,
            timeout_s=60.0,
            given=json.dumps([SCOPE, *ends, activity, names]),
        )

    def submit(self, **options: Any) -> str:
        """One pass of Rucio's submitter, with ``rucio.cfg``'s own settings where none are given."""
        done = self.rucio._run(
            [sys.executable, "-c", _SUBMIT], self.rucio.daemon_environment, timeout_s=120.0, given=json.dumps(options)
        )
        return done.stdout + done.stderr

    def switch(self, heading: str, *rses: str) -> None:
        for rse in rses:
            for words in script(heading, rse, self.fts.url):
                self.rucio.rucio(*words)

    def again(self, name: str) -> None:
        """As after a failure: the finisher's new request keeps the old one's tool (41.5.1 core/request.py:390)."""
        with contextlib.closing(sqlite3.connect(self.rucio.database, timeout=30)) as connection, connection:
            connection.execute(
                "UPDATE requests SET state = 'Q', external_id = NULL, external_host = NULL WHERE name = ?", [name]
            )

    def row(self, name: str) -> tuple[str, str | None, str | None, str | None]:
        """State, transfertool, external_host and external_id; S is submitted, Q queued."""
        ((state, tool, host, external_id),) = self.rucio.query(
            "SELECT state, transfertool, external_host, external_id FROM requests WHERE name = ? AND scope = ?",
            name,
            SCOPE,
        )
        return state, tool, host, external_id

    def tool(self, name: str) -> str | None:
        """Who got a file."""
        state, tool, _, _ = self.row(name)
        assert state == "S"
        return tool


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    secrets = tmp_path_factory.mktemp("oidc") / "idpsecrets.json"
    with RecordingFTS() as fts:
        fts.write_idp_secrets(secrets)
        config = {
            "conveyor": _configuration()["conveyor"] | {"scheme": "davs,https,cs3s"},
            "oidc": {"idpsecrets": str(secrets), "admin_issuer": "sandbox"},
        }
        with RecordedRucio(policy_package=SANDBOX_POLICY, extra_config=config) as rucio:
            for scheme, suffix in (("davs", ""), ("https", "-HTTPS"), ("cs3s", "-CS3S")):
                here = Rse(f"HERE{suffix}", front_end("here.example.org"), scheme)
                rucio.add_rses(here)
                rucio.add_rses(Rse(f"THERE{suffix}", front_end("there.example.org"), scheme), sources=[here.name])
            rucio.add_scope(SCOPE)
            desk = Desk(rucio, fts)
            _go_through_all_cases(desk)
            yield desk


def _configuration() -> dict[str, dict[str, str]]:
    """What docs/fts.md says of rucio.cfg's section ``conveyor``."""
    parser = configparser.ConfigParser()
    parser.read_string(re.findall(r"```ini\n(.*?)```", section(DOCS / "fts.md", "What decides"), re.DOTALL)[0])
    return {name: dict(parser[name]) for name in parser.sections()}


def _go_through_all_cases(desk: Desk) -> None:
    desk.ask("before", "again")
    desk.submit()
    desk.again("again")
    desk.switch("To FTS", "HERE", "THERE")
    for suffix in ("-HTTPS", "-CS3S"):
        desk.switch("To FTS", f"HERE{suffix}", f"THERE{suffix}")
    desk.ask("by-activity", activity="Express")
    desk.ask("left-to-others", activity="Debug")
    desk.submit(activities=["Express"], transfertools=["cs3", "fts3"])
    desk.submit(activities=["Debug"], filter_transfertool="fts3")
    desk.ask(*NAMES)
    desk.ask("over-https", ends=("HERE-HTTPS", "THERE-HTTPS"))
    desk.ask("over-cs3s", ends=("HERE-CS3S", "THERE-CS3S"))
    desk.submit(activities=["User Subscriptions"])
    desk.again("again")
    desk.output["not in the list"] = desk.submit(activities=["User Subscriptions"], transfertools=["cs3"])
    desk.switch("Back to the agent", "THERE")
    desk.ask("back")
    desk.submit(activities=["User Subscriptions"])


def pfn(host: str, name: str, scheme: str = "davs") -> str:
    return f"{scheme}://{host}.example.org:443{PREFIX}{quote(hash_path(SCOPE, name), safe='/$!~')}"


def test_without_the_attribute_the_agent_gets_a_hop(desk: Desk) -> None:
    assert desk.tool("before") == "cs3"


@pytest.mark.parametrize("name", NAMES)
def test_with_the_attribute_fts_gets_it_and_is_told_the_pfns(desk: Desk, name: str) -> None:
    file = desk.fts.files()[name]
    assert desk.row(name) == ("S", "fts3", desk.fts.url, file["job_id"])
    assert file["sources"] == [pfn("here", name)]
    assert file["destinations"] == [pfn("there", name)]
    assert file["filesize"] == 1000


def test_fts_gets_a_token_for_each_end(desk: Desk) -> None:
    file = desk.fts.files()["plain.root"]
    read, modify = f"storage.read:{PREFIX}", f"storage.modify:{PREFIX}"
    assert file["source_tokens"] == [f"token of here.example.org for offline_access {read}"]
    assert file["destination_tokens"] == [f"token of there.example.org for offline_access {modify} {read}"]
    assert file["authorization"] == "Bearer token of 127.0.0.1 for fts"


def test_fts_is_told_to_compare_no_checksums_and_to_overwrite(desk: Desk) -> None:
    file = desk.fts.files()["plain.root"]
    assert (file["checksum"], file["params"]["verify_checksum"]) == (None, "none")
    assert file["params"]["overwrite"] is True


def test_tokens_are_for_davs_alone(desk: Desk) -> None:
    file = desk.fts.files()["over-https"]
    assert file["sources"] == [pfn("here", "over-https", "https")]
    assert "source_tokens" not in file
    assert file["authorization"] is None


def test_fts_never_gets_a_scheme_of_ours(desk: Desk) -> None:
    assert "over-cs3s" not in desk.fts.files()
    assert desk.tool("over-cs3s") == "cs3"


def test_one_end_without_the_attribute_is_enough_to_go_back(desk: Desk) -> None:
    assert desk.tool("back") == "cs3"
    assert "back" not in desk.fts.files()


def test_the_order_of_the_list_decides_where_both_can(desk: Desk) -> None:
    assert desk.tool("by-activity") == "cs3"


def test_the_tool_of_an_earlier_attempt_does_not_bind(desk: Desk) -> None:
    assert "again" in desk.fts.files()


def test_a_request_whose_tool_is_not_in_the_list_is_passed_over(desk: Desk) -> None:
    # "again" had come from fts3 by then; after the switch back both tools were in the list, and the agent got it.
    assert "unsupported transfertool. Skipping." in desk.output["not in the list"]
    assert desk.tool("again") == "cs3"


def test_a_filter_for_the_submitter_finds_no_new_request(desk: Desk) -> None:
    assert desk.row("left-to-others")[:2] == ("Q", None)


def test_no_token_is_in_what_rucio_keeps(desk: Desk) -> None:
    tables = ("requests", "sources", "messages", "rse_attr_map")
    kept = repr([desk.rucio.query(f"SELECT * FROM {table}") for table in tables])
    assert "here.example.org" in kept
    assert "token of" not in kept
