"""Everything that can be under way at two sites at once: transfers in each mode, an upload and a download.

Rucio and its daemons, and the agent, run on this machine all the while; the sites are containers. Whatever goes wrong
between begin and end, :meth:`Traffic.check` tells what must hold afterwards.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import (
    BasicProvider,
    CS3Storage,
    Endpoint,
    Reference,
    Secret,
    Timeouts,
    WebDAVBase,
    errors,
    parse_root,
)
from rucio_cs3.cs3.hidden_names import is_part
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse, hash_path
from rucio_cs3.transfers.modes import Wish
from tests.containers.containers import ContainerReva
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

SCOPE = "links"
MODES: Sequence[Wish] = ("pull", "push", "relay")

#: Silence after which clients and agent give up here, in seconds: so short that a case does not wait for minutes.
PATIENCE_S = 6.0

_WAIT_S = 150.0
_POLL_S = 0.1

# The agent's own command. What is minutes for real sites is seconds here.
_AGENT = """
import functools, sys
from rucio_cs3.agent import daemon
from rucio_cs3.cs3.webdav import tpc
daemon.run = functools.partial(daemon.run, partition_wait_s=0)
tpc.MARKER_TIMEOUT_S = tpc.STALL_S = float(sys.argv.pop(1))
from rucio_cs3.cli.main import agent as command
sys.exit(command())
"""

# Registers a file that is on the source's disk already, and wants it at every destination.
_WANT = """
import json, sys
from rucio.client import Client
client = Client()
scope, file, source, destinations = json.loads(sys.argv[1])
client.add_replicas(source, [{"scope": scope, **file}])
for destination in destinations:
    client.add_replication_rule([{"scope": scope, "name": file["name"]}], 1, destination)
"""


# Everything that Rucio runs has a file of its own as /etc/hosts, which names can be added to.
_WITH_HOSTS = """mount --bind "$1" /etc/hosts && shift && exec "$@" """


class RucioWithHosts(RecordedRucio):
    """A Rucio that knows names which this machine does not."""

    @property
    def hosts(self) -> Path:
        return self.directory / "hosts"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.hosts.write_bytes(Path("/etc/hosts").read_bytes())
        super().start()

    def add_host(self, address: str, name: str) -> None:
        with self.hosts.open("a") as file:
            file.write(f"{address} {name}\n")

    def __enter__(self) -> RucioWithHosts:
        super().__enter__()
        return self

    def _run(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command, *rest = arguments
        return super()._run(self._with_hosts(command), *rest, **options)

    def _start_loop(self, name: str, command: Sequence[str]) -> ChildProcess:
        return super()._start_loop(name, self._with_hosts(command))

    def _with_hosts(self, command: Sequence[str]) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _WITH_HOSTS, "sh", str(self.hosts), *command]


@contextmanager
def working_rucio() -> Iterator[RucioWithHosts]:
    """A Rucio whose conveyor and agent look for work every two seconds."""
    with RucioWithHosts(policy_package=SANDBOX_POLICY) as rucio:
        rucio.add_scope(SCOPE)
        for stage in ("submitter", "poller", "finisher"):
            rucio.conveyor_loop(stage)
        rucio._start_loop("cs3-agent", [sys.executable, "-c", _AGENT, str(PATIENCE_S), "--sleep-time", "2"])
        yield rucio


def storage_of(site: ContainerReva) -> CS3Storage:
    """A client as a user has it, only of less patience."""
    user = next(iter(site.users.values()))
    endpoint = Endpoint(
        name=site.name,
        gateway=site.gateway,
        gateway_tls=False,
        webdav=WebDAVBase.parse(site.webdav_url, parse_root(site.root)),
        allow_plaintext=True,
        timeouts=Timeouts(call_s=PATIENCE_S, operation_s=2 * PATIENCE_S, connect_s=PATIENCE_S, idle_s=PATIENCE_S),
    )
    return CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password)))


@dataclass
class Client:
    """An upload to a site or a download from it, in a thread of its own.

    :ivar error: how it failed; None where it did not, or is not over.
    """

    work: Callable[[], object]
    error: errors.CS3Error | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work()
        except errors.CS3Error as error:
            self.error = error

    def end(self) -> None:
        self.thread.join(_WAIT_S)
        assert not self.thread.is_alive(), "an upload or download never ends"


class Traffic:
    """Between two sites; the destination has an RSE for each mode.

    :param name: of the case; makes names unique.
    :param modes: each has an RSE at the destination.
    """

    def __init__(
        self,
        rucio: RecordedRucio,
        name: str,
        source: ContainerReva,
        destination: ContainerReva,
        *,
        modes: Sequence[Wish] = MODES,
    ) -> None:
        self.rucio = rucio
        self.name = name
        self.source = Rse(f"{name.upper()}-FROM", source, "http", folder=f"{name}-from")
        self.destinations = {
            mode: Rse(f"{name.upper()}-{mode.upper()}", destination, "http", folder=f"{name}-{mode}") for mode in modes
        }
        patience = {"cs3_call_timeout_s": str(PATIENCE_S), "cs3_idle_timeout_s": str(PATIENCE_S)}
        rucio.add_rses(self.source, attributes=patience)
        for mode, rse in self.destinations.items():
            rucio.add_rses(rse, attributes={**patience, "cs3_transfer_mode": mode}, sources=[self.source.name])
        self.data = b""

    @property
    def file(self) -> str:
        return f"{self.name}.dat"

    def begin(self, size_bytes: int) -> None:
        """Want a file at each destination."""
        self.data = random.Random(self.name).randbytes(size_bytes)
        path = on_disk(self.source, SCOPE, self.file)
        path.parent.mkdir(parents=True)
        path.write_bytes(self.data)
        adler32 = f"{zlib.adler32(self.data):08x}"
        file = {"name": self.file, "bytes": size_bytes, "adler32": adler32}
        told = json.dumps([SCOPE, file, self.source.name, [rse.name for rse in self.destinations.values()]])
        self.rucio._run([sys.executable, "-c", _WANT, told], self.rucio.environment, timeout_s=120.0)

    # -- looks -------------------------------------------------------------------------------------------------

    def wait(self, what: str, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not until():
            self.look_at_the_names()
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.report()}"
            time.sleep(_POLL_S)

    def moving(self) -> int:
        """Number of transfers that the agent has begun and nobody has finished."""
        rows = self.rucio.query(
            "SELECT count(*) FROM requests WHERE scope = ? AND name = ? AND state = 'S' AND started_at IS NOT NULL",
            SCOPE,
            self.file,
        )
        return int(rows[0][0])

    def failures(self) -> list[tuple[str, str]]:
        """RSE and reason of each attempt that Rucio was told the failure of."""
        rows = self.rucio.query(
            "SELECT rses.rse, err_msg FROM requests_history JOIN rses ON rses.id = requests_history.dest_rse_id "
            "WHERE requests_history.scope = ? AND requests_history.name = ? AND requests_history.state <> 'D'",
            SCOPE,
            self.file,
        )
        return [(str(rse), str(reason)) for rse, reason in rows]

    def rules(self) -> list[str]:
        """States of the rules: O is fulfilled, R replicating, S stuck."""
        rows = self.rucio.query("SELECT state FROM rules WHERE scope = ? AND name = ?", SCOPE, self.file)
        return [str(row[0]) for row in rows]

    def look_at_the_names(self) -> None:
        """At every moment nothing but the whole file is under its name, and it is there where Rucio believes it."""
        states = self.rucio.replica_states(SCOPE)
        for rse in self.destinations.values():
            path = on_disk(rse, SCOPE, self.file)
            if path.exists() or states.get((rse.name, self.file)) == "A":
                assert path.read_bytes() == self.data, f"{rse.name}: under its name, and not right"

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let everything end, by further attempts where some have failed; then check.

        What fails four times is stuck, and is then for Rucio's judge-repairer.
        """

        def done() -> bool:
            if "S" in self.rules():
                self.rucio.daemon("judge-repairer")
            return self.rules() == ["O"] * len(self.destinations)

        self.wait("the rules", done)
        self.check()

    def check(self) -> None:
        """Everything is where it belongs, once, and nothing else is; in Rucio's books and on the disks."""
        assert on_disk(self.source, SCOPE, self.file).read_bytes() == self.data, "the source was touched"
        states = self.rucio.replica_states(SCOPE)
        for rse in self.destinations.values():
            assert states[rse.name, self.file] == "A"
            assert on_disk(rse, SCOPE, self.file).read_bytes() == self.data
            self.check_strays(rse)
        assert self.rucio.query("SELECT id FROM requests WHERE scope = ? AND name = ?", SCOPE, self.file) == []
        finished = self.rucio.query(
            "SELECT rses.rse, transfertool FROM requests_history JOIN rses ON rses.id = requests_history.dest_rse_id "
            "WHERE requests_history.scope = ? AND requests_history.name = ? AND requests_history.state = 'D'",
            SCOPE,
            self.file,
        )
        # Once each: a report is never made twice.
        assert sorted(finished) == sorted((rse.name, "cs3") for rse in self.destinations.values())
        self.rucio.check_loops()

    def check_strays(self, rse: Rse) -> None:
        """Nothing is left but what has a hidden name, which a sweep for the file takes.

        Reva v3.12.1 goes on with a COPY when its link is back, though a later attempt has done the work by then.
        """
        with storage_of(rse.cloud) as storage:  # type: ignore[arg-type]
            file = Reference(storage.endpoint.root, f"{rse.folder}/{hash_path(SCOPE, self.file)}")

            def nothing_left() -> bool:
                strays = all_files(rse) - {on_disk(rse, SCOPE, self.file)}
                if strays and all(is_part(path.name) for path in strays):
                    for hidden in storage.hidden_files.left_of(file):
                        storage.hidden_files.discard(hidden, may_come=False)
                return not strays

            self.wait(f"strays at {rse.name} to go", nothing_left)

    def report(self) -> str:
        """For people."""
        rows = self.rucio.query(
            "SELECT rses.rse, requests.state, retry_count, started_at, err_msg FROM requests "
            "JOIN rses ON rses.id = requests.dest_rse_id WHERE requests.scope = ? AND requests.name = ?",
            SCOPE,
            self.file,
        )
        agent = (self.rucio.directory / "log" / "cs3-agent.log").read_text(errors="replace")[-4000:]
        logs = []
        for rse in (self.source, next(iter(self.destinations.values()))):
            assert rse.cloud.log is not None
            logs.append(f"{rse.cloud.name}:\n{rse.cloud.log.read_text(errors='replace')[-2000:]}")
        return "\n".join([*map(str, rows), *map(str, self.failures()), agent, *logs])


def all_files(rse: Rse) -> set[Path]:
    """All files at an RSE, hidden ones included."""
    return {path for path in rse.cloud.path_on_disk(rse.folder).rglob("*") if path.is_file()}
