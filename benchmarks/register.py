"""How fast an existing folder becomes replicas, and where the time goes.

    python benchmarks/register.py --files 20000 --folders 100 --database sqlite --json FILE

An embedded cloud that answers as OpenCloud does, with checksums in its listings; a real Rucio with its server, on
SQLite or PostgreSQL; and ``rucio-cs3 register`` with a dataset for each folder. Each run is of files that Rucio does
not know yet, or of the same again. ``walk`` lists the folders and nothing else; ``look`` asks Rucio of all files and
tells it nothing (``--dry-run``); ``own add_replicas`` is Rucio's own function with as many files, without names,
datasets and questions: what Rucio's server takes at least. All share the machine's processors, so each run has the
processor time of the command, of Rucio's server with the database, and of the cloud beside its wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from tables import Table

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse

SCOPE = "registered"
RSE = "REGISTERED"

_ADD_RSE = """
import json, sys
from rucio.client import Client
client = Client()
name, protocol = json.loads(sys.argv[1])
client.add_rse(name, deterministic=False)
client.add_protocol(name, protocol)
"""

_WALK = """
import sys
from rucio_cs3 import places
from rucio_cs3.files.walk import walk
place = places.find(sys.argv[1])
print(sum(1 for found in walk(place.storage, place.reference) if not found.info.is_directory))
"""

_OWN = """
import sys
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.replica import add_replicas
from rucio.core.rse import get_rse_id
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
rse, scope, base, files, batch = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
rse_id, scope, account = get_rse_id(rse), InternalScope(scope), InternalAccount("root")
for first in range(0, files, batch):
    with db_session(DatabaseOperationType.WRITE) as session:
        add_replicas(rse_id, [
            {"scope": scope, "name": f"own-{n}", "bytes": 5, "adler32": "01020304", "md5": "0" * 32,
             "pfn": f"{base}own/{n}"} for n in range(first, min(first + batch, files))
        ], account, session=session)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--folders", type=int, default=100)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = measure(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    table = table_of(figures)
    Console(width=150).print(table.rich())
    print(table.markdown())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each run, by its name."""
    seconds: dict[str, float] = {}
    processor: dict[str, list[float]] = {}
    with ExitStack() as stack:
        url = None
        if options.database == "postgresql":
            url = stack.enter_context(PostgresSite()).create_database("rucio")
        rucio = stack.enter_context(RucioSite(policy_package=SANDBOX_POLICY, database=url))
        cloud = stack.enter_context(EmbeddedCloud(name="register", behaviour=Behaviour.SPACES))
        rse = Rse(RSE, cloud, "http", folder="data")
        rucio.set_rse_accounts({RSE: rse.account()})
        rucio.add_scope(SCOPE)
        protocol = rse.protocol()
        protocol["port"] = int(str(protocol["port"]))
        protocol["domains"] = {"lan": {"read": 1, "write": 1, "delete": 1}, "wan": {"read": 1, "write": 1, "delete": 1}}
        run(rucio.environment, sys.executable, "-c", _ADD_RSE, json.dumps([RSE, protocol]))
        for tree in ("rest", "database"):
            fill(cloud.path_on_disk(f"data/{tree}"), options.files, options.folders)

        def register(tree: str, *more: str) -> Callable[[], object]:
            environment = rucio.environment if tree == "rest" else rucio.daemon_environment
            program = str(Path(sys.executable).parent / "rucio-cs3")
            words = (program, "register", f"{RSE}:{tree}", "--scope", SCOPE, "--dataset-per-folder", "--json", *more)
            return lambda: run(environment, *words)

        # The embedded cloud makes checksums when it is first asked for them, which a real one does while it stores.
        run(rucio.environment, sys.executable, "-c", _WALK, f"{RSE}:")
        base = f"{cloud.webdav_url}/data/"
        runs: dict[str, Callable[[], object]] = {
            "start of the command": register("rest", "--exclude", "*", "--dry-run"),
            "walk": lambda: run(rucio.environment, sys.executable, "-c", _WALK, f"{RSE}:rest"),
            "look, by REST": register("rest", "--dry-run"),
            "look, by the database": register("database", "--dry-run"),
            "register, by REST": register("rest"),
            "register, by the database": register("database"),
            "once more, by REST": register("rest"),
            "once more, by the database": register("database"),
            "own add_replicas, 250 at a time": lambda: run(
                rucio.daemon_environment, sys.executable, "-c", _OWN, RSE, SCOPE, base, str(options.files), "250"
            ),
        }
        for name, one in runs.items():
            began, before = time.monotonic(), cpu_s()
            one()
            seconds[name] = time.monotonic() - began
            processor[name] = [after - earlier for earlier, after in zip(before, cpu_s(), strict=True)]
            print(f"{name}: {seconds[name]:.1f} s, {processor[name]}", file=sys.stderr, flush=True)
    machine = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        "python": platform.python_version(),
        "rucio": metadata.version("rucio"),
    }
    return {
        "machine": machine,
        "files": options.files,
        "folders": options.folders,
        "database": options.database,
        "seconds": seconds,
        "processor": processor,
    }


def fill(folder: Path, files: int, folders: int) -> None:
    """Small files, spread evenly."""
    for number in range(folders):
        (folder / f"{number:04}").mkdir(parents=True)
    for number in range(files):
        (folder / f"{number % folders:04}" / f"file-{number:07}.dat").write_bytes(b"%d" % number)


def run(environment: dict[str, str], *words: str) -> None:
    """Run a command to its end.

    :raises subprocess.CalledProcessError: when it fails.
    """
    subprocess.run(words, env=clean_environment(environment), stdout=subprocess.DEVNULL, check=True)


def table_of(figures: dict[str, Any]) -> Table:
    """A row for each run."""
    title = f"{figures['files']:,} files in {figures['folders']} folders, {figures['database']}"
    table = Table(title, ["run", "s", "files/s", "command s", "Rucio's server and database s", "cloud s"])
    for name, seconds in figures["seconds"].items():
        shares = [f"{one:.1f}" for one in figures["processor"][name]]
        table.rows.append([name, f"{seconds:.1f}", f"{figures['files'] / seconds:,.0f}", *shares])
    return table


def cpu_s() -> tuple[float, float, float]:
    """Processor time, so far, of commands that have ended, of Rucio's server and the database (all living children, and
    what they have started), and of this process, in which the cloud is.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Fields after the name, which may hold anything: state, parent, ..., utime, stime, and both of children who
            # have ended (proc(5)): PostgreSQL has a process for each connection.
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
            ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))
    living, todo = 0, list(parents.get(os.getpid(), []))
    while todo:
        pid = todo.pop()
        living += ticks[pid]
        todo += parents.get(pid, [])
    return ended.ru_utime + ended.ru_stime, living / os.sysconf("SC_CLK_TCK"), time.process_time()


if __name__ == "__main__":
    main()
