"""Many small files between two real Reva sites: the agent beside bare ``COPY`` requests sent by curl.

    python benchmarks/conveyor.py --files 400 --concurrency 4 --rtt-ms 0 20 --rounds 5 --json FILE --write

The agent works as it does at a site: rows in Rucio's database, claims, looks, proofs, reports; what is timed is from
the first claim to the last report, as the rows have them. curl does none of that: it only asks, for all files in one
process with ``--parallel``, and once more with a process for each request, as a script around curl would. What nobody
can do without who promises what the agent does, a read of each file at the destination, is a case of its own.

With ``--rtt-ms 0`` everything is side by side on this machine, whose processors then decide; with more the sites are
that far from it and from each other (:mod:`two_sites`), and waiting decides, as it does where sites are elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import readme
from rich.console import Console
from rounds import in_turn
from tables import Table
from two_sites import TwoSites

from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

SCOPE = "bench"

#: A program that gives Rucio files and a rule for each 200 of them; what it is told is in the file that it is given.
DATASET = """
import json, sys
from rucio.client import Client
client = Client()
source, destination, scope, dataset, files = json.load(open(sys.argv[1]))
for first in range(0, len(files), 200):  # more at once are too many terms of one statement for SQLite
    some, name = files[first : first + 200], f"{dataset}-{first}"
    client.add_replicas(source, some)
    client.add_dataset(scope, name)
    client.attach_dids(scope, name, [{"scope": scope, "name": f["name"]} for f in some])
    client.add_replication_rule([{"scope": scope, "name": name}], 1, destination)
"""

AGENT = "**agent**, first claim to last report"
COPIES = "curl, one process with `--parallel`, `COPY` alone"
COPIES_AND_READS = "curl, one process with `--parallel`, each file read back afterwards"
ONE_EACH = "curl, a process for each `COPY`"


@dataclass
class Figures:
    """
    :param seconds: round trip in ms (as text, because it is a key in JSON) -> case -> seconds for all files, of each
        round.
    :param edges: round trip -> of the agent's seconds those until the first file was done, and those after the last
        was, of each round.
    """

    files: int
    size_bytes: int
    concurrency: int
    proof: str
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    edges: dict[str, list[list[float]]] = field(default_factory=dict)

    def rate(self, round_trip_ms: str, case: str) -> float:
        """Files in a second; the median."""
        return self.files / statistics.median(self.seconds[round_trip_ms][case])


def main() -> None:
    options = _options()
    figures = Figures(**json.loads(options.from_json.read_text())) if options.from_json else measure(options)
    table = table_of(figures)
    Console(width=150).print(table.rich())
    print(words_of(figures) + "\n\n" + table.markdown())
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    if options.write:
        readme.put("conveyor", words_of(figures) + "\n\n" + table.markdown())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--size-kib", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=4, help="COPY requests at the same time")
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[0.0, 20.0], help="how far sites and agent are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--proof", choices=("read", "server", "size"), default="read", help="cs3_proof of the RSE")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where data are kept")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from-json", type=Path, help="measure nothing, take these figures")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Figures:
    figures = Figures(
        files=options.files,
        size_bytes=options.size_kib * 1024,
        concurrency=options.concurrency,
        proof=options.proof,
        machine={"cores": os.cpu_count(), "python": platform.python_version()},
    )
    for round_trip_ms in options.rtt_ms:
        with (
            tempfile.TemporaryDirectory(dir=options.directory) as folder,
            TwoSites(Path(folder), round_trip_ms / 1000) as sites,
            RucioSite(Path(folder, "rucio"), policy_package=SANDBOX_POLICY) as rucio,
        ):
            bench = _Bench(rucio, sites, options)
            cases: dict[str, Callable[[], float]] = {
                AGENT: bench.agent,
                ONE_EACH: bench.curl_each,
                COPIES_AND_READS: bench.curl_and_back,
                COPIES: bench.curl_parallel,
            }
            seconds: dict[str, list[float]] = {case: [] for case in cases}
            for number, case in in_turn(list(cases), options.rounds):
                taken = cases[case]()
                if number >= 0:  # the round before warms up
                    seconds[case].append(taken)
                    if case == AGENT:
                        figures.edges.setdefault(f"{round_trip_ms:g}", []).append(bench.edges)
                print(f"{round_trip_ms:g} ms, round {number}: {taken:6.2f} s  {case}", file=sys.stderr)
            figures.seconds[f"{round_trip_ms:g}"] = seconds
    return figures


def table_of(figures: Figures) -> Table:
    head = [f"files in a second (`cs3_proof = {figures.proof}`)"]
    for round_trip in figures.seconds:
        where = "side by side" if round_trip == "0" else f"{round_trip} ms apart"
        head += [where, "least to most", "the agent is"]
    table = Table("Many small files", head)
    for case in (AGENT, ONE_EACH, COPIES_AND_READS, COPIES):
        row = [case]
        for round_trip, seconds in figures.seconds.items():
            rates = sorted(figures.files / one for one in seconds[case])
            row += [f"{figures.rate(round_trip, case):.0f}", f"{rates[0]:.0f} to {rates[-1]:.0f}"]
            row.append(
                "" if case == AGENT else f"{figures.rate(round_trip, AGENT) / figures.rate(round_trip, case):.2f}"
            )
        table.rows.append(row)
    return table


def words_of(figures: Figures) -> str:
    rounds = len(next(iter(next(iter(figures.seconds.values())).values())))
    return (
        f"{figures.files} files of {figures.size_bytes // 1024} KiB, {figures.concurrency} at a time, {rounds} rounds, "
        f"on {figures.machine['cores']} cores that both sites, Rucio's SQLite, the agent and curl share."
        f"{_edges_of(figures)}"
    )


def _edges_of(figures: Figures) -> str:
    """How much of the agent's time the beginning and the end are, where fewer than all transfers are under way."""
    if not figures.edges:
        return ""
    parts = []
    for round_trip, edges in figures.edges.items():
        before, after = (statistics.median(one) for one in zip(*edges, strict=True))
        whole = statistics.median(figures.seconds[round_trip][AGENT])
        where = "side by side" if round_trip == "0" else f"{round_trip} ms apart"
        parts.append(f"{where} {before:.2f} s and {after:.2f} s of {whole:.2f} s")
    return f" Until the agent's first file was done, and from its last one to the last report: {'; '.join(parts)}."


class _Bench:
    """The cases; each makes its own files first, names never repeat, and gives the seconds for all of them."""

    def __init__(self, rucio: RucioSite, sites: TwoSites, options: argparse.Namespace) -> None:
        self._rucio, self._sites, self._options = rucio, sites, options
        self._size = options.size_kib * 1024
        self._number = 0
        #: Of the agent's last round: see :class:`Figures`.
        self.edges: list[float] = []
        rses = Rse("SOURCE", sites.source, "http"), Rse("DESTINATION", sites.destination, "http")
        rucio.set_rse_accounts({rse.name: rse.account() for rse in rses})
        for rse in rses:
            rucio.add_rse(rse.name, rse.protocol(), attributes={"cs3_proof": options.proof})
        rucio.set_distance("SOURCE", "DESTINATION")
        rucio.add_scope(SCOPE)

    def agent(self) -> float:
        names, paths, sums = self._new()
        described = [
            {"scope": SCOPE, "name": name, "bytes": self._size, "adler32": adler32}
            for name, adler32 in zip(names, sums, strict=True)
        ]
        told = self._rucio.directory / "told.json"
        told.write_text(json.dumps(["SOURCE", "DESTINATION", SCOPE, f"set-{self._number}", described]))
        environment = {**os.environ, **self._rucio.environment}
        subprocess.run([sys.executable, "-c", DATASET, str(told)], env=environment, check=True)
        while self._rucio.query("SELECT COUNT(*) FROM requests WHERE state = 'Q'")[0][0]:
            self._rucio.conveyor("submitter")
        threads, files = str(self._options.concurrency), str(self._options.files)
        self._rucio.cs3("agent", "--run-once", "--threads", threads, "--per-host", threads, "--bulk", files)
        # A file is done when it is proven (transferred_at); a report is for many.
        ((seconds, before, after, done),) = self._rucio.query(
            "SELECT (julianday(MAX(updated_at)) - julianday(MIN(started_at))) * 86400.0, "
            "(julianday(MIN(transferred_at)) - julianday(MIN(started_at))) * 86400.0, "
            "(julianday(MAX(updated_at)) - julianday(MAX(transferred_at))) * 86400.0, COUNT(*) FROM requests "
            "WHERE scope = ? AND name LIKE ? AND state = 'D'",
            SCOPE,
            f"f{self._number}-%",
        )
        if done != self._options.files:
            left = self._rucio.query("SELECT state, err_msg, COUNT(*) FROM requests GROUP BY state, err_msg")
            raise RuntimeError(f"{done} of {self._options.files} requests are done; by state: {left}")
        self._sites.check(paths, self._size)
        self.edges = [float(before), float(after)]
        return float(seconds)

    def curl_parallel(self) -> float:
        _, paths, _ = self._new()
        return self._timed(paths, lambda copies: self._in_parallel(copies))

    def curl_and_back(self) -> float:
        _, paths, _ = self._new()
        reads = self._sites.reads(paths)

        def both(copies: list[str]) -> None:
            self._in_parallel(copies)
            self._in_parallel(reads)

        return self._timed(paths, both)

    def curl_each(self) -> float:
        _, paths, _ = self._new()

        def each(copies: list[str]) -> None:
            with ThreadPoolExecutor(self._options.concurrency) as pool:
                list(pool.map(_curl, copies))

        return self._timed(paths, each)

    def _new(self) -> tuple[list[str], list[str], list[str]]:
        """Names, paths and adler32 of new files."""
        self._number += 1
        names = [f"f{self._number}-{index}" for index in range(self._options.files)]
        paths = [f"rucio/{hash_path(SCOPE, name)}" for name in names]
        return names, paths, self._sites.make_files(paths, self._size)

    def _timed(self, paths: list[str], ask: Callable[[list[str]], None]) -> float:
        copies = self._sites.copies(paths)
        began = time.perf_counter()
        ask(copies)
        seconds = time.perf_counter() - began
        self._sites.check(paths, self._size)
        return seconds

    def _in_parallel(self, configs: list[str]) -> None:
        _curl("\nnext\n".join(configs), "--parallel", "--parallel-max", str(self._options.concurrency))


def _curl(config: str, *options: str) -> None:
    command = ["curl", "--silent", "--show-error", "--no-progress-meter", *options, "--config", "-"]
    subprocess.run(command, input=config, text=True, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
