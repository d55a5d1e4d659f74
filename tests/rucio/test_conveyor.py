"""Transfers that go wrong, through Rucio's submitter and finisher and our agent: what Rucio ends up believing.

All cases go through the same rounds, each with a destination of its own, because a round costs seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk, requests_to

pytestmark = pytest.mark.rucio

SCOPE = "conveyed-cs3"
SOURCE = "CONVEYED-FROM"
SIZE = 5000

#: Time of what stood at a destination before, in seconds since the epoch.
LONG_AGO_S = 1_000_000_000

_ADD_RULES = """
import json, sys
from rucio.client import Client
client = Client()
scope, names = json.load(sys.stdin)
rules = {}
for name in names:
    did = {"scope": scope, "name": name}
    rules[name] = client.add_replication_rule([did], 1, "TO-" + name.upper())[0]
print(json.dumps(rules))
"""

# Case (also the file's name) -> the destination's options.
DESTINATIONS: dict[str, dict[str, Any]] = {
    "fine": {},
    "relayed": {},
    "gone-at-source": {},
    "full": {},
    "over-quota": {},
    "lying": {},
    "leftover": {},
    "there-already": {},
    "no-tpc": {"http_tpc": False},
    "spaces": {"behaviour": Behaviour.SPACES},
    "no-tpc-but-pull": {"http_tpc": False},
    "spaces-but-pull": {"behaviour": Behaviour.SPACES},
}
#: What the RSEs ask for; ``auto`` where nothing is said.
WISHES: dict[str, str] = {
    "relayed": "relay",
    "full": "pull",
    "over-quota": "relay",
    "no-tpc-but-pull": "pull",
    "spaces-but-pull": "pull",
}
#: Those that cannot succeed however often they are tried.
HOPELESS = ("gone-at-source", "full", "over-quota", "no-tpc-but-pull", "spaces-but-pull")


@dataclass
class Outcome:
    """What is known after all rounds."""

    rucio: RecordedRucio
    source: Rse
    destinations: dict[str, Rse]
    rules: dict[str, str]
    contents: dict[str, bytes]
    copies_before_rerun: dict[str, int]

    def rule(self, case: str) -> tuple[str, str]:
        """State and error of a rule; O is ok, S stuck, R replicating."""
        ((state, error),) = self.rucio.query("SELECT state, error FROM rules WHERE id = ?", self.rules[case])
        return state, error or ""

    def reasons(self, case: str) -> list[str]:
        """Of each failed attempt."""
        rows = self.rucio.query(
            "SELECT err_msg FROM requests_history WHERE name = ? AND scope = ? AND state = 'F'", case, SCOPE
        )
        return [str(row[0]) for row in rows]

    def state(self, case: str) -> str | None:
        """State of the replica at the destination."""
        return self.rucio.replica_states(SCOPE).get((f"TO-{case.upper()}", case))

    def copies(self, case: str) -> int:
        """Requests by which the destination was to fetch a file; the agent's question whether it can is none."""
        folder = urlsplit(self.destinations[case].cloud.webdav_url).path
        cloud = self.destinations[case].cloud
        return requests_to(cloud, "HTTP COPY") - requests_to(cloud, f"HTTP COPY {folder}/ ")

    def uploads(self, case: str) -> int:
        """Files that came through the agent."""
        return requests_to(self.destinations[case].cloud, "HTTP PUT /data")

    def pushed(self, case: str) -> int:
        """Files that came from the source's front end."""
        folder = urlsplit(self.destinations[case].cloud.webdav_url).path
        return requests_to(self.destinations[case].cloud, f"HTTP PUT {folder}/")

    def assert_there(self, case: str) -> None:
        assert on_disk(self.destinations[case], SCOPE, case).read_bytes() == self.contents[case]
        assert files_below(self.destinations[case]) == {case}
        assert (self.rule(case)[0], self.state(case)) == ("O", "A")

    def assert_stuck(self, case: str, *words: str) -> None:
        assert files_below(self.destinations[case]) == set()
        assert self.state(case) != "A"
        state, error = self.rule(case)
        assert state == "S"
        (reason,) = self.reasons(case)
        for word in words:
            assert word in reason
            assert word in error


@pytest.fixture(scope="module")
def outcome(sandbox_rucio: RecordedRucio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    rucio, local = sandbox_rucio, tmp_path_factory.mktemp("conveyed")
    with contextlib.ExitStack() as stack:
        source = Rse(SOURCE, stack.enter_context(EmbeddedCloud(name="from")), "http")
        clouds = {
            case: stack.enter_context(EmbeddedCloud(name=case, **options)) for case, options in DESTINATIONS.items()
        }
        destinations = {case: Rse(f"TO-{case.upper()}", cloud, "http") for case, cloud in clouds.items()}
        rucio.add_rses(source)
        for wish in {None, *WISHES.values()}:
            rses = [rse for case, rse in destinations.items() if WISHES.get(case) == wish]
            rucio.add_rses(*rses, sources=[SOURCE], attributes={"cs3_transfer_mode": wish} if wish else None)
        rucio.add_scope(SCOPE)
        generator = random.Random(3)
        contents = {case: generator.randbytes(SIZE) for case in DESTINATIONS}
        for case, content in contents.items():
            (local / case).write_bytes(content)
        rucio.rucio("upload", "--rse", SOURCE, "--scope", SCOPE, *(local / case for case in contents))
        added = rucio._run(
            [sys.executable, "-c", _ADD_RULES],
            rucio.environment,
            timeout_s=60.0,
            given=json.dumps([SCOPE, list(DESTINATIONS)]),
        )
        rules = json.loads(added.stdout)

        on_disk(source, SCOPE, "gone-at-source").unlink()
        clouds["over-quota"].faults.add("gateway.InitiateFileUpload", "code:INSUFFICIENT_STORAGE")
        # Reva v3.12.1 claims success after either.
        clouds["full"].faults.add("tpc.inner-put", "return-507")
        clouds["lying"].faults.add("tpc.inner-put", "return-500")
        for case, content in (
            ("leftover", b"half of an earlier attempt"),
            ("there-already", contents["there-already"]),
        ):
            path = on_disk(destinations[case], SCOPE, case)
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
        with contextlib.closing(sqlite3.connect(rucio.database, timeout=30)) as connection, connection:
            # Past Rucio's own three more attempts (core/request.py:239), which would each fail alike.
            connection.executemany(
                "UPDATE requests SET retry_count = 3 WHERE scope = ? AND name = ?",
                [(SCOPE, case) for case in HOPELESS],
            )
        for _ in range(2):
            rucio.conveyor("submitter")
            rucio.cs3("agent", "--run-once")
            rucio.conveyor("finisher")
        found = Outcome(rucio, source, destinations, rules, contents, {})
        found.copies_before_rerun = {case: found.copies(case) for case in DESTINATIONS}
        rucio.cs3("agent", "--run-once")
        rucio.conveyor("finisher")
        yield found


def test_a_transfer_that_works(outcome: Outcome) -> None:
    outcome.assert_there("fine")
    assert outcome.copies("fine") == 1
    assert outcome.reasons("fine") == []


def test_a_transfer_through_the_agent(outcome: Outcome) -> None:
    outcome.assert_there("relayed")
    assert (outcome.copies("relayed"), outcome.pushed("relayed"), outcome.uploads("relayed")) == (0, 0, 1)


def test_the_source_file_is_missing(outcome: Outcome) -> None:
    outcome.assert_stuck("gone-at-source", "the source CONVEYED-FROM has no such file")


def test_the_destination_is_full(outcome: Outcome) -> None:
    assert outcome.destinations["full"].cloud.faults.pending() == []  # type: ignore[attr-defined]
    outcome.assert_stuck("full", "claimed success, but there is no file")


def test_the_rule_shows_the_servers_own_words(outcome: Outcome) -> None:
    assert outcome.destinations["over-quota"].cloud.faults.pending() == []  # type: ignore[attr-defined]
    (reason,) = outcome.reasons("over-quota")
    found = re.search(r"trace [0-9a-f-]{36}", reason)
    assert found
    # Message, code, and what the operator of the cloud can look for in its log.
    outcome.assert_stuck("over-quota", "a scripted fault", "CODE_INSUFFICIENT_STORAGE", found[0])
    shown = outcome.rucio.rucio("rule", "show", outcome.rules["over-quota"]).stdout
    assert "CODE_INSUFFICIENT_STORAGE" in shown
    assert found[0] in shown


def test_success_that_is_only_claimed_is_found_out_and_tried_in_another_way(outcome: Outcome) -> None:
    (reason,) = outcome.reasons("lying")
    assert "claimed success" in reason
    assert (outcome.copies("lying"), outcome.pushed("lying")) == (1, 1)
    assert outcome.destinations["lying"].cloud.faults.pending() == []  # type: ignore[attr-defined]
    outcome.assert_there("lying")


def test_what_an_earlier_attempt_left_is_replaced(outcome: Outcome) -> None:
    outcome.assert_there("leftover")
    assert outcome.reasons("leftover") == []


def test_a_right_file_at_the_destination_is_not_replaced(outcome: Outcome) -> None:
    outcome.assert_there("there-already")
    assert outcome.reasons("there-already") == []
    assert _is_old(outcome, "there-already")
    assert not _is_old(outcome, "leftover")
    # A small file is brought before anybody has looked; what nobody needed is gone.
    assert (outcome.copies("there-already"), outcome.uploads("there-already")) == (1, 0)


def _is_old(outcome: Outcome, case: str) -> bool:
    """Whether the file stands at the destination that stood there before."""
    return on_disk(outcome.destinations[case], SCOPE, case).stat().st_mtime == LONG_AGO_S


@pytest.mark.parametrize("case", ["no-tpc", "spaces"])
def test_a_destination_without_third_party_copy_is_pushed_to(outcome: Outcome, case: str) -> None:
    outcome.assert_there(case)
    assert (outcome.copies(case), outcome.pushed(case)) == (0, 1)
    assert outcome.reasons(case) == []


@pytest.mark.parametrize("case", ["no-tpc-but-pull", "spaces-but-pull"])
def test_a_destination_that_is_to_pull_and_cannot_is_named(outcome: Outcome, case: str) -> None:
    outcome.assert_stuck(case, "COPY", "third-party")
    shown = outcome.rucio.rucio("rule", "show", outcome.rules[case]).stdout
    assert "STUCK" in shown
    assert "third-party" in shown


def test_the_source_is_only_read(outcome: Outcome) -> None:
    assert files_below(outcome.source) == set(outcome.contents) - {"gone-at-source"}
    for case in set(outcome.contents) - {"gone-at-source"}:
        assert on_disk(outcome.source, SCOPE, case).read_bytes() == outcome.contents[case]


def test_another_round_changes_nothing(outcome: Outcome) -> None:
    assert {case: outcome.copies(case) for case in DESTINATIONS} == outcome.copies_before_rerun
    assert sum(outcome.copies_before_rerun.values()) > 0
    waiting = outcome.rucio.query("SELECT name FROM requests WHERE scope = ?", SCOPE)
    assert waiting == []


def test_no_secret_is_in_what_rucio_keeps_of_a_transfer(outcome: Outcome) -> None:
    rows = outcome.rucio.query("SELECT err_msg, dest_url, attributes FROM requests_history WHERE scope = ?", SCOPE)
    messages = outcome.rucio.query("SELECT payload FROM messages")
    assert len(rows) > len(DESTINATIONS)
    assert messages
    text = repr([*rows, *messages])
    assert "eyJ" not in text
    for user in outcome.source.cloud.users.values():
        assert user.password not in text
