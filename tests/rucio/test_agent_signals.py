"""Signals to a real agent process: one lets it finish, a second ends it at once."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = pytest.mark.rucio

SCOPE = "signalled-cs3"
LIMIT_S = 60.0

_ADD_RULE = """
import json, sys
from rucio.client import Client
scope, name, destination = json.load(sys.stdin)
Client().add_replication_rule([{"scope": scope, "name": name}], 1, destination)
"""


class Agent:
    """A ``rucio-cs3-agent`` and its log."""

    def __init__(self, rucio: RecordedRucio, log: Path, *options: str) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "rucio-cs3-agent", "--sleep-time", "2", *options],
                env=clean_environment(rucio.daemon_environment),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def says(self, words: str) -> bool:
        return words in self._log.read_text("utf-8", "replace")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, self._log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, f"{what} did not happen"
            time.sleep(0.1)


@contextlib.contextmanager
def agent(rucio: RecordedRucio, log: Path, *options: str) -> Iterator[Agent]:
    found = Agent(rucio, log, *options)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait(LIMIT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_cleanly(sandbox_rucio: RecordedRucio, tmp_path: Path, number: signal.Signals) -> None:
    with agent(sandbox_rucio, tmp_path / "agent.log") as found:
        found.wait_for(lambda: found.says("First heartbeat set") or bool(heartbeats(sandbox_rucio)), "a heartbeat")
        found.process.send_signal(number)
        assert found.process.wait(LIMIT_S) == 0
    assert heartbeats(sandbox_rucio) == 0


def test_a_second_signal_ends_it_at_once_and_leaves_the_row_to_others(
    sandbox_rucio: RecordedRucio, tmp_path: Path
) -> None:
    rucio, name = sandbox_rucio, "endless"
    with EmbeddedCloud(name="from") as origin, EmbeddedCloud(name="to") as target:
        source, destination = Rse("SIGNALLED-FROM", origin, "http"), Rse("SIGNALLED-TO", target, "http")
        rucio.add_rses(source)
        rucio.add_rses(destination, sources=[source.name], attributes={"cs3_transfer_mode": "pull"})
        rucio.add_scope(SCOPE)
        (tmp_path / name).write_bytes(b"x" * 1000)
        rucio.rucio("upload", "--rse", source.name, "--scope", SCOPE, tmp_path / name)
        told = json.dumps([SCOPE, name, destination.name])
        rucio._run([sys.executable, "-c", _ADD_RULE], rucio.environment, timeout_s=60.0, given=told)
        rucio.conveyor("submitter")
        # The destination says nothing any more once it has been asked for the copy.
        target.faults.add("tpc.inner-get", "stall")
        with agent(rucio, tmp_path / "agent.log", "--grace", "3600", "--lease", "3600") as found:
            found.wait_for(lambda: not target.faults.pending(), "the copy")
            found.process.send_signal(signal.SIGTERM)
            found.wait_for(lambda: found.says("Stop requested"), "the stop")
            found.process.send_signal(signal.SIGTERM)
            assert found.process.wait(LIMIT_S) == -signal.SIGTERM
    ((state, started, lease),) = rucio.query(
        "SELECT state, started_at, estimated_transferred_at FROM requests WHERE scope = ?", SCOPE
    )
    # As after a kill: the claim ends by itself, and the next agent knows that somebody was here.
    assert state == "S"
    assert started is not None
    assert lease is not None


def heartbeats(rucio: RecordedRucio) -> int:
    """Of agents."""
    ((number,),) = rucio.query("SELECT COUNT(*) FROM heartbeats WHERE readable LIKE 'rucio-cs3-agent%'")
    return int(number)
