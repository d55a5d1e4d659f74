"""A conveyor at work: Rucio on PostgreSQL, its daemons and several agents as processes, and what must hold of it.

The tests put it into trouble; here is how work is given to it, and how one sees that none of it was lost.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.rucio_commands import ConveyorStage
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

SCOPE = "busy"

_REQUEST = re.compile(r"\b([0-9a-f]{32}): ")

# Registers files that are on the source's disk already, and wants each at every destination.
_GIVE_WORK = """
import json, sys
from rucio.client import Client
client = Client()
scope, source, destinations, files = json.load(sys.stdin)
client.add_replicas(source, [{"scope": scope, **file} for file in files])
for file in files:
    for destination in destinations:
        client.add_replication_rule([{"scope": scope, "name": file["name"]}], 1, destination)
"""


@dataclass
class BusyConveyor:
    """Transfers from one RSE to several, all in scope :data:`SCOPE`.

    :ivar digests: of all files that were given to it, by name.
    :ivar begun: request -> the beginnings of its transfers that were seen; each agent that takes it begins anew.
    :ivar proven: (RSE, name) that Rucio was seen to believe, and that was right on disk at that moment.
    """

    rucio: RecordedRucio
    postgres: PostgresSite
    database: str
    source: Rse
    destinations: dict[str, Rse]
    digests: dict[str, bytes] = field(default_factory=dict)
    proven: set[tuple[str, str]] = field(default_factory=set)
    agents: list[ChildProcess] = field(default_factory=list)
    stages: dict[ConveyorStage, ChildProcess] = field(default_factory=dict)
    _started: dict[str, datetime.datetime] = field(default_factory=dict)

    # --- work -----------------------------------------------------------------------------------------------------

    def give_work(self, contents: Mapping[str, bytes]) -> None:
        """Files to the source's disk and Rucio's catalogue, and a rule for each file and destination."""
        for name, content in contents.items():
            path = on_disk(self.source, SCOPE, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        files = [
            {"name": name, "bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}
            for name, content in contents.items()
        ]
        self.digests.update((name, hashlib.sha256(content).digest()) for name, content in contents.items())
        self.rucio._run(
            [sys.executable, "-c", _GIVE_WORK],
            self.rucio.environment,
            timeout_s=120.0,
            given=json.dumps([SCOPE, self.source.name, list(self.destinations), files]),
        )

    def start_agents(self, count: int, *, lease_s: int, threads: int = 1) -> None:
        """Agents with few threads take longer, which leaves time for trouble."""
        for _ in range(count):
            options = ("--lease", str(lease_s), "--threads", str(threads), "--sleep-time", "2")
            agent = self.rucio.agent_loop(*options)
            self.agents.append(agent)

    def start_stages(self, *stages: ConveyorStage) -> None:
        for stage in stages:
            self.stages[stage] = self.rucio.conveyor_loop(stage)
            self._started[stage] = _now()

    def restart(self, process: ChildProcess) -> None:
        """Start a process again that was killed."""
        process.start()
        for stage, running in self.stages.items():
            if running is process:
                self._started[stage] = _now()

    # --- looks ----------------------------------------------------------------------------------------------------

    def moving(self) -> int:
        """Number of transfers that some agent has begun and nobody has finished."""
        rows = self.rucio.query(
            "SELECT count(*) FROM requests WHERE scope = ? AND state = 'S' AND started_at IS NOT NULL", SCOPE
        )
        return int(rows[0][0])

    def heartbeats(self) -> int:
        """Number of agents that Rucio knows of."""
        rows = self.rucio.query("SELECT count(*) FROM heartbeats WHERE readable LIKE 'rucio-cs3-agent%'")
        return int(rows[0][0])

    def copies_begun_again(self) -> list[str]:
        """Requests whose copy was begun more than once, as the logs of the agents and their predecessors tell."""
        logs = [agent.log.read_text(errors="replace").splitlines() for agent in self.agents]
        begun = [line for log in logs for line in log if " begins: " in line]
        ids = Counter(found[1] for line in begun if (found := _REQUEST.search(line)) is not None)
        return sorted(one for one, times in ids.items() if times > 1)

    def busy_agents(self) -> list[ChildProcess]:
        """Agents that are at a copy, as their logs tell."""
        return [agent for agent in self.agents if agent.running and _is_busy(agent.output())]

    def left(self) -> int:
        """Number of rules that are not fulfilled yet."""
        rows = self.rucio.query("SELECT count(*) FROM rules WHERE scope = ? AND state <> 'O'", SCOPE)
        return int(rows[0][0])

    def look_at_what_rucio_believes(self) -> None:
        """Each file that Rucio now takes for transferred is at its destination, byte for byte."""
        done = self.rucio.query(
            "SELECT rses.rse, requests.name FROM requests JOIN rses ON rses.id = requests.dest_rse_id "
            "WHERE requests.scope = ? AND requests.state = 'D'",
            SCOPE,
        )
        available = self.rucio.query(
            "SELECT rses.rse, replicas.name FROM replicas JOIN rses ON rses.id = replicas.rse_id "
            "WHERE replicas.scope = ? AND replicas.state = 'A'",
            SCOPE,
        )
        for rse, name in {*done, *available} - self.proven:
            if rse in self.destinations:
                self._assert_right(self.destinations[rse], name)
                self.proven.add((rse, name))

    def skip_rucios_own_waits(self) -> None:
        """Do what only time does: end the waits that Rucio itself prescribes after a daemon of its own has died.

        Rucio 41.5.1: rows that a dead submitter or poller had marked stay hidden from the next one for 10 minutes
        (core/request.py, processed_at_delay), and those it was just submitting for two hours
        (daemons/conveyor/finisher.py, FAILED_DURING_SUBMISSION_DELAY).
        """
        with self.postgres.connect(self.database) as connection:
            for stage, state in (("submitter", "Q"), ("poller", "S")):
                if stage in self._started:
                    connection.execute(
                        "UPDATE requests SET last_processed_at = last_processed_at - interval '1 day' "
                        "WHERE state = %s AND last_processed_by LIKE %s AND last_processed_at < %s",
                        (state, f"conveyor-{stage}%", _local(self._started[stage])),
                    )
            if "submitter" in self._started:
                connection.execute(
                    "UPDATE requests SET updated_at = updated_at - interval '1 day' "
                    "WHERE state = 'G' AND submitted_at < %s AND updated_at > %s",
                    (self._started["submitter"], _now() - datetime.timedelta(hours=2)),
                )

    def drain(self, *, timeout_s: float, work: Callable[[], object] = lambda: None) -> None:
        """Wait until every rule is fulfilled; nothing is killed any more.

        :param work: called between two looks.
        """
        deadline = time.monotonic() + timeout_s
        while left := self.left():
            assert time.monotonic() < deadline, f"{left} rules are left:\n{self.report()}"
            self.skip_rucios_own_waits()
            self.look_at_what_rucio_believes()
            work()
            time.sleep(0.5)

    def report(self) -> str:
        """What is known of everything that is not done; for people."""
        rows = self.rucio.query(
            "SELECT rses.rse, requests.name, requests.state, retry_count, started_at, estimated_transferred_at, "
            "last_processed_by, last_processed_at, err_msg FROM requests "
            "JOIN rses ON rses.id = requests.dest_rse_id WHERE requests.scope = ?",
            SCOPE,
        )
        logs = [
            f"{agent.name}: {'runs' if agent.running else 'ended'}\n{agent.output()[-3000:]}" for agent in self.agents
        ]
        return "\n".join([*map(str, rows), *map(str, self.failures()), *logs])

    def failures(self) -> list[tuple[Any, ...]]:
        """RSE, name and reason of each attempt that was reported as failed."""
        return self.rucio.query(
            "SELECT rses.rse, requests_history.name, err_msg FROM requests_history "
            "JOIN rses ON rses.id = requests_history.dest_rse_id "
            "WHERE requests_history.scope = ? AND requests_history.state <> 'D'",
            SCOPE,
        )

    # --- what must hold -------------------------------------------------------------------------------------------

    def assert_all_done(self) -> None:
        """Everything is where it belongs, once, and nothing else is; in Rucio's books and on all disks."""
        wanted = {(rse, name) for rse in self.destinations for name in self.digests}
        self.look_at_what_rucio_believes()
        assert self.proven == wanted
        assert self.rucio.query("SELECT name, state FROM requests WHERE scope = ?", SCOPE) == []
        states = self.rucio.replica_states(SCOPE)
        assert {key: states.get(key) for key in wanted} == dict.fromkeys(wanted, "A")
        rules = self.rucio.query("SELECT state, locks_ok_cnt, locks_stuck_cnt FROM rules WHERE scope = ?", SCOPE)
        assert set(rules) == {("O", 1, 0)}
        assert len(rules) == len(wanted)
        finished = self.rucio.query(
            "SELECT rses.rse, requests_history.name, transfertool FROM requests_history "
            "JOIN rses ON rses.id = requests_history.dest_rse_id "
            "WHERE requests_history.scope = ? AND requests_history.state = 'D'",
            SCOPE,
        )
        # Once each: a report is never made twice.
        assert sorted(finished) == sorted((rse, name, "cs3") for rse, name in wanted)
        for rse in (self.source, *self.destinations.values()):
            for name in self.digests:
                self._assert_right(rse, name)
            assert _all_files(rse) == {on_disk(rse, SCOPE, name) for name in self.digests}

    def _assert_right(self, rse: Rse, name: str) -> None:
        path = on_disk(rse, SCOPE, name)
        assert path.is_file(), f"{name} is not at {rse.name}"
        digest = hashlib.sha256(path.read_bytes()).digest()
        assert digest == self.digests[name], f"{name} at {rse.name} is not what it was"


def make_contents(prefix: str, count: int, *, largest_bytes: int, chance: random.Random) -> dict[str, bytes]:
    """Files of all sizes, an empty one among them.

    :param count: at least 3.
    """
    sizes = [largest_bytes, 0, *(chance.randrange(1, largest_bytes) for _ in range(count - 2))]
    return {f"{prefix}-{number:02d}.dat": chance.randbytes(size) for number, size in enumerate(sizes)}


@contextmanager
def busy_conveyor(
    postgres: PostgresSite,
    database: str,
    source: Rse,
    destinations: Sequence[tuple[Rse, str]],
) -> Iterator[BusyConveyor]:
    """A Rucio with its RSEs; no daemon runs yet, and there is no work.

    :param destinations: each with its ``cs3_transfer_mode``.
    """
    url = postgres.create_database(database)
    with RecordedRucio(policy_package=SANDBOX_POLICY, database=url) as rucio:
        rucio.add_rses(source)
        for rse, mode in destinations:
            rucio.add_rses(rse, attributes={"cs3_transfer_mode": mode}, sources=[source.name])
        rucio.add_scope(SCOPE)
        yield BusyConveyor(rucio, postgres, database, source, {rse.name: rse for rse, _ in destinations})


def _is_busy(log: str) -> bool:
    """Whether the last that is said of some request is that its copy begins."""
    last: dict[str, str] = {}
    for line in log.splitlines():
        found = _REQUEST.search(line)
        if found is not None:
            last[found[1]] = line
    return any(" begins: " in line for line in last.values())


def _all_files(rse: Rse) -> set[Path]:
    """All files at an RSE, hidden ones included."""
    return {path for path in rse.cloud.path_on_disk(rse.folder).rglob("*") if path.is_file()}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def _local(moment: datetime.datetime) -> datetime.datetime:
    """As Rucio writes ``last_processed_at``: in the machine's own time."""
    return moment.replace(tzinfo=datetime.timezone.utc).astimezone().replace(tzinfo=None)
