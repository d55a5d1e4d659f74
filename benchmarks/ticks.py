"""What the agent's look at Rucio's queue costs, from a thousand waiting requests to a million, beside Rucio's own.

    python benchmarks/ticks.py --rows 1000 10000 100000 1000000 --rounds 9 --json FILE --write

On SQLite and on PostgreSQL. ``look`` is all that an agent asks the database for what it may start next while it has
work, its first one reads more of the young end;
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
from importlib import metadata
from pathlib import Path
from typing import Any

import readme
from rich.console import Console
from tables import NONE, Table

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

INSIDE = Path(__file__).with_name("ticks_inside.py")
SCOPE = "counted"

_NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}

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
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from-json", type=Path, help="measure nothing, take these figures")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    options = parser.parse_args()
    figures = json.loads(options.from_json.read_text()) if options.from_json else measure(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    tables = looks_table(figures), transfers_table(figures)
    console = Console(width=170)
    for name, table, words in zip(("looks", "transfers"), tables, words_of(figures), strict=True):
        console.print(table.rich())
        shown = f"{words}\n\n{table.markdown()}"
        print(shown)
        if options.write:
            readme.put(name, shown)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rucio": metadata.version("rucio"),
        "rounds": options.rounds,
        "files": options.files,
    }
    figures: dict[str, Any] = {"machine": machine}
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
    return figures


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


def looks_table(figures: dict[str, Any]) -> Table:
    databases = _databases(figures)
    cases = ["look", "first look of an agent", "Rucio's get_and_mark_next"]
    head = ["waiting", *(f"{_NAMES[database]}: {case}" for database in databases for case in cases)]
    table = Table("One look at the queue, ms", head)
    lengths = sorted({look["rows"] for database in databases for look in figures[database]["looks"]})
    for rows in lengths:
        cells = [f"{rows:,}"]
        for database in databases:
            found = {look["case"]: look for look in figures[database]["looks"] if look["rows"] == rows}
            cells += [
                "{median_ms:.0f} ({min_ms:.0f} to {max_ms:.0f})".format(**found[case]) if case in found else NONE
                for case in cases
            ]
        table.rows.append(cells)
    return table


def transfers_table(figures: dict[str, Any]) -> Table:
    databases = _databases(figures)
    table = Table("Statements and commits for each further file", ["", *(_NAMES[database] for database in databases)])
    for stage in ("submitter", "agent", "poller", "finisher"):
        name = "**agent**" if stage == "agent" else f"Rucio's {stage}"
        counts = [figures[database]["transfers"][stage] for database in databases]
        table.rows.append([name, *("{statements:.1f} and {commits:.1f}".format(**count) for count in counts)])
    return table


def words_of(figures: dict[str, Any]) -> tuple[str, str]:
    machine = figures["machine"]
    return (
        f"{machine['cores']} cores, Rucio {machine['rucio']}, {machine['rounds']} rounds; median (least to most), in "
        "milliseconds:",
        f"In statements and commits, from the difference between batches of {machine['files'][0]} and "
        f"{machine['files'][1]} files:",
    )


def _databases(figures: dict[str, Any]) -> list[str]:
    return [name for name in _NAMES if name in figures]


if __name__ == "__main__":
    main()
