"""Deletion by Rucio's reaper: a file that is gone, and clouds that cannot or will not delete."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk

pytestmark = pytest.mark.rucio

SCOPE = "reaped-cs3"
CASES = ("plain", "gone", "down", "refused", "expired", "locked")
SPACES_CASES = ("refused", "expired")
#: Those that delete nothing in the first round.
TROUBLED = ("down", "refused", "expired", "locked")


@dataclass
class Rounds:
    """Two rounds of the reaper: what is left, and what it said, after each."""

    rucio: RecordedRucio
    rses: dict[str, Rse]
    replicas: list[set[str]] = field(default_factory=list)
    files: list[set[str]] = field(default_factory=list)
    events: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def go(self) -> None:
        before = len(self.rucio.query("SELECT 1 FROM messages"))
        self.said.append(self.rucio.daemon("reaper", "--rses", *(rse.name for rse in self.rses.values())))
        self.replicas.append({name for _, name in self.rucio.replica_states(SCOPE)})
        self.files.append({case for case in CASES if files_below(self.rses[case])})
        messages = self.rucio.query("SELECT event_type, payload FROM messages ORDER BY created_at")[before:]
        told = {}
        for event, payload in messages:
            name = json.loads(payload).get("name")
            if event.startswith("deletion-") and name in CASES:
                told[name] = event
        self.events.append(told)


@pytest.fixture(scope="module")
def rounds(sandbox_rucio: RecordedRucio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    rucio, local = sandbox_rucio, tmp_path_factory.mktemp("reaped")
    with contextlib.ExitStack() as stack:
        clouds = {
            case: stack.enter_context(
                EmbeddedCloud(name=case, behaviour=Behaviour.SPACES if case in SPACES_CASES else Behaviour.V3)
            )
            for case in CASES
        }
        rses = {case: Rse(f"REAPED-{case.upper()}", cloud, "http") for case, cloud in clouds.items()}
        rucio.add_rses(*rses.values())
        rucio.add_scope(SCOPE)
        for case, rse in rses.items():
            (local / case).write_bytes(case.encode())
            rucio.rucio("upload", "--rse", rse.name, "--scope", SCOPE, local / case)
            assert on_disk(rse, SCOPE, case).read_bytes() == case.encode()
        rucio.expire_rules(SCOPE)
        rucio.daemon("judge-cleaner")

        on_disk(rses["gone"], SCOPE, "gone").unlink()
        clouds["down"].faults.add("gateway.Authenticate", "grpc:UNAVAILABLE", 100)
        right = rses["refused"].account()
        rucio.set_rse_accounts({rses["refused"].name: {**right, "password": "changed-meanwhile"}})
        # OpenCloud's answer to a dead token reads like one about a missing file; twice, because one is survived.
        clouds["expired"].faults.add("gateway.Delete", "expire-token", 2)
        clouds["locked"].faults.add("gateway.Delete", "code:LOCKED")
        found = Rounds(rucio, rses)
        found.go()
        assert clouds["expired"].faults.pending() == []
        assert clouds["locked"].faults.pending() == []

        clouds["down"].faults.clear()
        rucio.set_rse_accounts({rses["refused"].name: right})
        deadline = time.monotonic() + 60
        # Rucio leaves what it has just tried alone for a second.
        while len(found.replicas) == 1 or (found.replicas[-1] and time.monotonic() < deadline):
            found.go()
        yield found


def test_a_file_is_deleted(rounds: Rounds) -> None:
    assert "plain" not in rounds.replicas[0] | rounds.files[0]
    assert rounds.events[0]["plain"] == "deletion-done"


def test_a_file_that_is_gone_already_is_forgotten(rounds: Rounds) -> None:
    assert "gone" not in rounds.replicas[0]
    assert rounds.events[0]["gone"] == "deletion-not-found"


@pytest.mark.parametrize("case", TROUBLED)
def test_a_cloud_that_does_not_delete_keeps_replica_and_file(rounds: Rounds, case: str) -> None:
    assert case in rounds.replicas[0]
    assert case in rounds.files[0]
    assert rounds.events[0][case] == "deletion-failed"


@pytest.mark.parametrize("case", TROUBLED)
def test_it_is_deleted_later(rounds: Rounds, case: str) -> None:
    assert case not in rounds.replicas[-1]
    assert case not in rounds.files[-1]
    assert [told[case] for told in rounds.events[1:] if case in told][-1] == "deletion-done"


def test_only_faults_of_the_whole_rse_count_against_it(rounds: Rounds) -> None:
    said = rounds.said[0].splitlines()
    for case, word in (("locked", "CRITICAL"), ("expired", "NOACCESS"), ("down", "NOACCESS"), ("refused", "NOACCESS")):
        lines = [line for line in said if f"Deletion {word}" in line and f"{SCOPE}:{case} " in line]
        assert lines, case
    for case in ("down", "refused"):
        assert any(f"Cannot connect to {rounds.rses[case].name}" in line for line in said)


def test_the_reaper_says_no_secret(rounds: Rounds) -> None:
    text = "\n".join(rounds.said)
    assert "changed-meanwhile" not in text
    assert "eyJ" not in text
    for user in rounds.rses["plain"].cloud.users.values():
        assert user.password not in text


def test_nothing_else_was_touched(rounds: Rounds) -> None:
    assert Path(rounds.rucio.database).is_file()
    assert rounds.replicas[0] == set(TROUBLED)
    assert rounds.files[0] == set(TROUBLED)
