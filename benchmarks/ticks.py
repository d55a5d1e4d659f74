"""What the agent's look at Rucio's queue costs, from a thousand waiting requests to a million, beside Rucio's own.

    python benchmarks/ticks.py --rows 1000 10000 100000 1000000 --rounds 9

On SQLite and on PostgreSQL. ``look`` is all that an agent asks the database for what it may start next;
``get_and_mark_next`` is how Rucio's own daemons ask, and how an agent would without a queue of its own. Both see a
third of the queue, as one of three workers. Rounds are interleaved. A last part moves real files and counts what that
costs the database for each: statements and commits, by Rucio's submitter, the agent, and Rucio's poller and finisher.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

INSIDE = Path(__file__).with_name("ticks_inside.py")
SCOPE = "counted"

_DATASET = """
import json, sys
from rucio.client import Client
client = Client()
source, destination, scope, dataset, files = json.load(open(sys.argv[1]))
client.add_replicas(source, files)
client.add_dataset(scope, dataset)
client.attach_dids(scope, dataset, [{"scope": scope, "name": file["name"]} for file in files])
client.add_replication_rule([{"scope": scope, "name": dataset}], 1, destination)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, nargs=2, default=[20, 120], help="of two batches that are moved")
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": {"cores": os.cpu_count(), "python": platform.python_version()}}
    for database in options.databases:
        with ExitStack() as stack:
            url = None
            if database == "postgresql":
                url = stack.enter_context(PostgresSite()).create_database("rucio")
            rucio = stack.enter_context(RucioSite(policy_package=SANDBOX_POLICY, database=url))
            # First, while no other request waits.
            transfers = count_transfers(rucio, options.files)
            looks = run_inside(rucio, "looks", "--rounds", str(options.rounds), "--rows", *map(str, options.rows))
        figures[database] = {"looks": looks, "transfers": transfers}
        show(database, looks, transfers)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def run_inside(rucio: RucioSite, *arguments: str) -> Any:
    """Run the other half of this benchmark as a daemon of a Rucio."""
    finished = subprocess.run(
        [sys.executable, str(INSIDE), *arguments],
        env={**os.environ, **rucio.daemon_environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def count_transfers(rucio: RucioSite, batches: Sequence[int]) -> dict[str, dict[str, float]]:
    """Statements and commits for one more transfer: the difference of two batches, so that no start is counted."""
    with ExitStack() as stack:
        rses = [Rse(f"COUNTED-{name}", stack.enter_context(EmbeddedCloud(name=name.lower())), "http") for name in "AB"]
        rucio.set_rse_accounts({rse.name: rse.account() for rse in rses})
        for rse in rses:
            rucio.add_rse(rse.name, rse.protocol())
        rucio.set_distance(rses[0].name, rses[1].name)
        rucio.add_scope(SCOPE)
        counts = []
        for number, files in enumerate(batches):
            _give(rucio, rses, number, files)
            counts.append({stage: run_inside(rucio, stage) for stage in ("submitter", "agent", "poller", "finisher")})
            done = rucio.query("SELECT count(*) FROM requests_history WHERE scope = ? AND state = 'D'", SCOPE)
            if done != [(sum(batches[: number + 1]),)]:
                raise RuntimeError(f"not all files were transferred: {done}")
    few, many = counts
    more = batches[1] - batches[0]
    return {
        stage: {what: (many[stage][what] - few[stage][what]) / more for what in ("statements", "commits")}
        for stage in few
    }


def _give(rucio: RucioSite, rses: Sequence[Rse], number: int, files: int) -> None:
    described = []
    for index in range(files):
        name, content = f"file-{number}-{index}", os.urandom(1000)
        path = rses[0].cloud.path_on_disk(f"{rses[0].folder}/{hash_path(SCOPE, name)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        described.append({"scope": SCOPE, "name": name, "bytes": 1000, "adler32": f"{zlib.adler32(content):08x}"})
    with tempfile.NamedTemporaryFile("w", suffix=".json") as told:
        json.dump([rses[0].name, rses[1].name, SCOPE, f"set-{number}", described], told)
        told.flush()
        environment = {**os.environ, **rucio.environment}
        subprocess.run([sys.executable, "-c", _DATASET, told.name], env=environment, check=True)


def show(database: str, looks: Sequence[dict[str, Any]], transfers: dict[str, dict[str, float]]) -> None:
    console = Console()
    table = Table("waiting", "case", "median ms", "min ms", "max ms", "statements", title=f"{database}: one look")
    for look in looks:
        table.add_row(
            f"{look['rows']:,}",
            look["case"],
            *(f"{look[key]:.1f}" for key in ("median_ms", "min_ms", "max_ms")),
            str(look["statements"]),
        )
    console.print(table)
    table = Table("stage", "statements", "commits", title=f"{database}: each transfer")
    for stage, counts in transfers.items():
        table.add_row(stage, f"{counts['statements']:.1f}", f"{counts['commits']:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
