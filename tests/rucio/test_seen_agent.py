"""A real agent at work, as operators see it: ``/metrics`` over HTTP, its log as JSON, and ``rucio-cs3 transfers``."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.agent import transfer_log
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.ports import free_port
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = pytest.mark.rucio

PROGRAMS = Path(sys.executable).parent
SIZE = 500_000


class Site:
    """The Rucio of all tests, with a configuration for daemons that are watched."""

    def __init__(self, rucio: RecordedRucio, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        parser = configparser.ConfigParser()
        parser.read(rucio.daemon_environment["RUCIO_CONFIG"])
        parser["monitor"] = {"enable_metrics": "True", "metrics_port": str(self.port)}
        # The very lines that the documentation has.
        parser.read_string((transfer_log.__doc__ or "").split("::\n\n")[1].split("\n\n")[0].replace("    ", ""))
        config = folder / "rucio.cfg"
        with config.open("w") as file:
            parser.write(file)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RUCIO")}
        self.environment = {**kept, **rucio.daemon_environment, "RUCIO_CONFIG": str(config)}

    @contextlib.contextmanager
    def agent(self, log: Path) -> Iterator[ChildProcess]:
        options = ("--sleep-time", "2", "--threads", "2")
        with ChildProcess(
            "agent", [PROGRAMS / "rucio-cs3-agent", *options], log=log, environment=self.environment
        ) as process:
            yield process

    def metrics(self) -> dict[str, float]:
        """What Prometheus would read; empty while nobody listens."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        samples = (line.rpartition(" ") for line in lines if line.startswith("rucio_cs3_"))
        return {name: float(value) for name, _, value in samples}

    def transfers(self, *arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [str(PROGRAMS / "rucio-cs3"), "transfers", "--json", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["transfers"]
        return found


def lines_about(log: Path, name: str) -> list[dict[str, Any]]:
    """The records about one file; each line of the log has to be JSON."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record for record in records if record["transfer"] and record["transfer"]["name"] == name]


def seen(process: ChildProcess, condition: Callable[[], bool]) -> None:
    process.wait_until(condition, timeout_s=90)


def test_an_agent_is_seen(sandbox_rucio: RecordedRucio, tmp_path: Path) -> None:
    rucio, site, log = sandbox_rucio, Site(sandbox_rucio, tmp_path), tmp_path / "agent.log"

    def ask_for(name: str) -> None:
        (tmp_path / name).write_bytes(random.Random(4).randbytes(SIZE))
        rucio.rucio("upload", "--rse", "SEEN-A", "--scope", "seen", tmp_path / name)
        rucio.rucio("rule", "add", f"seen:{name}", "--copies", "1", "--rses", "SEEN-B")

    def states() -> dict[str, str]:
        return {transfer["name"]: transfer["state"] for transfer in site.transfers("--destination", "SEEN-B")}

    with EmbeddedCloud(name="seen-a") as a, EmbeddedCloud(name="seen-b") as b:
        rucio.add_rses(Rse("SEEN-A", a, "http"))
        rucio.add_rses(Rse("SEEN-B", b, "http"), sources=["SEEN-A"])
        rucio.add_scope("seen")
        ask_for("stalled.dat")
        assert states() == {"stalled.dat": "queued"}
        rucio.conveyor("submitter")
        assert states() == {"stalled.dat": "waiting"}
        # The bytes stop on the way, so there is a running transfer to look at.
        b.faults.add("tpc.inner-get", "stall")
        done = 'rucio_cs3_transfers_total{mode="pull",outcome="done"}'
        with site.agent(log) as agent:
            seen(agent, lambda: site.metrics().get("rucio_cs3_transfers_running") == 1)
            assert b.faults.pending() == []
            assert site.metrics()[done] == 0
            ask_for("quick.dat")
            rucio.conveyor("submitter")
            seen(agent, lambda: site.metrics().get(done) == 1)
            metrics = site.metrics()
            # Progress is written for what takes longer than ten seconds.
            seen(agent, lambda: site.transfers("--rse", "SEEN-B")[0]["mode"] is not None)
            running, over = site.transfers("--rse", "SEEN-B")
            # A transfer that hangs does not end by itself; this one's claim would run out.
            agent.kill()
    assert metrics['rucio_cs3_transferred_bytes_total{mode="pull"}'] == SIZE
    assert metrics['rucio_cs3_transfer_seconds_count{mode="pull",outcome="done"}'] == 1
    assert (running["name"], running["state"], running["mode"]) == ("stalled.dat", "running", "pull")
    assert (running["source"], running["bytes"], running["bytes_moved"]) == ("SEEN-A", SIZE, 0)
    assert running["lease_until"] > running["started_at"]
    assert (over["name"], over["state"], over["bytes_moved"]) == ("quick.dat", "done", SIZE)
    (began,) = lines_about(log, "stalled.dat")
    assert began["transfer"]["event"] == "began"
    assert began["transfer"]["request_id"] == running["request_id"]
    _, ended = lines_about(log, "quick.dat")
    assert ended["log"]["level"] == "INFO"
    assert re.search(r"copied and proven by pull: 500\.0 kB in [\d.]+ s", ended["message"])
    transfer = ended["transfer"]
    assert (transfer["event"], transfer["outcome"], transfer["copied"]) == ("ended", "done", True)
    assert (transfer["source"], transfer["destination"], transfer["bytes"]) == ("SEEN-A", "SEEN-B", SIZE)
    # The finisher moves what is over to the history, where it is still seen.
    rucio.conveyor("finisher")
    assert states() == {"stalled.dat": "running", "quick.dat": "done"}


@pytest.fixture(autouse=True)
def nothing_left(sandbox_rucio: RecordedRucio) -> Iterator[None]:
    """What hangs must not be taken up by another test's agent."""
    yield
    with contextlib.closing(sqlite3.connect(sandbox_rucio.database, timeout=60)) as connection, connection:
        connection.execute("DELETE FROM sources WHERE scope = 'seen'")
        connection.execute("DELETE FROM requests WHERE scope = 'seen'")


def test_a_port_that_is_taken_is_said(sandbox_rucio: RecordedRucio, tmp_path: Path) -> None:

    site = Site(sandbox_rucio, tmp_path)
    with socket.create_server(("0.0.0.0", site.port)):
        done = subprocess.run(
            [str(PROGRAMS / "rucio-cs3-agent"), "--run-once"],
            env=site.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "metrics_port" in done.stderr
    assert "Traceback" not in done.stderr
