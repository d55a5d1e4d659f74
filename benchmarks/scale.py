"""What one transfer costs, part by part, and what 1, 2, 4 and 8 agents on one database make of it.

    python benchmarks/scale.py --agents 1 2 4 8 --files 800 --rtt-ms 20 --json FILE --write

Two real Reva sites, Rucio on PostgreSQL, agents as processes of their own. All requests are submitted before the agents
start. Every half second the processor time of each part and the number of finished transfers are read; what is counted
is the time in which the middle of the transfers was finished, so that neither the start of the processes nor the end of
the queue is in it. Rucio's own part (rule, submitter, poller, finisher) is measured as a whole, processors and all.

A last part moves a few large files, once by the destination's own pull and once through the agent: what a gigabyte
costs. docs/scale.md makes a model of these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import readme
from conveyor import DATASET
from rich.console import Console
from tables import NONE, Table
from two_sites import TwoSites

from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

SCOPE = DATABASE = "scale"
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"

#: The parts whose processors are watched, as the table has them.
PARTS = ("agents", "database", "source", "destination")

_SAMPLE_S = 0.25
_FIRST, _LAST = 0.2, 0.9
_PATIENCE_S = 900.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """One number of agents.

    :param rate: transfers in a second, of the middle of them.
    :param cpu_s: part -> processor seconds in that time.
    :param transfers: in that time.
    """

    agents: int
    rate: float
    cpu_s: dict[str, float]
    transfers: int
    seconds: float

    def cost_ms(self, part: str) -> float:
        """Processor milliseconds of a transfer."""
        return self.cpu_s[part] / self.transfers * 1000


@dataclass
class Large:
    """A few large files by one mode; seconds of processors for a gigabyte."""

    mode: str
    cpu_s_per_gb: dict[str, float]


@dataclass
class Figures:
    """
    :param rucio_ms: processor milliseconds of a transfer in Rucio's own daemons: stage -> ms.
    """

    files: int
    threads: int
    rtt_ms: float
    proof: str
    machine: dict[str, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    rucio_ms: dict[str, float] = field(default_factory=dict)
    large: list[Large] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs = [one if isinstance(one, Run) else Run(**one) for one in self.runs]
        self.large = [one if isinstance(one, Large) else Large(**one) for one in self.large]


def main() -> None:
    options = _options()
    figures = Figures(**json.loads(options.from_json.read_text())) if options.from_json else measure(options)
    text = page_of(figures)
    Console(width=130).print(agents_table(figures).rich(), large_table(figures).rich())
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    if options.write:
        readme.put("scale", text, PAGE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--files", type=int, default=800, help="of 4 KiB, for each number of agents")
    parser.add_argument("--threads", type=int, default=4, help="of each agent")
    parser.add_argument("--rtt-ms", type=float, default=20.0, help="how far sites and agents are")
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--proof", choices=("read", "server", "size"), default="read", help="cs3_proof of the RSEs")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where data are kept")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from-json", type=Path, help="measure nothing, take these figures")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Figures:
    figures = Figures(
        files=options.files,
        threads=options.threads,
        rtt_ms=options.rtt_ms,
        proof=options.proof,
        machine={"cores": os.cpu_count(), "python": platform.python_version()},
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        postgres = stack.enter_context(PostgresSite())
        sites = stack.enter_context(TwoSites(folder, options.rtt_ms / 1000))
        rucio = stack.enter_context(
            RucioSite(folder / "rucio", policy_package=SANDBOX_POLICY, database=postgres.create_database(DATABASE))
        )
        bench = _Bench(rucio, postgres, sites, options)
        spent: dict[str, float] = {}
        for agents in options.agents:
            bench.submit(options.files, 4096, "PULL", spent)
            run = bench.run(agents)
            bench.finish(options.files, spent)
            figures.runs.append(run)
            print(f"{agents} agents: {run.rate:.1f} transfers a second", file=sys.stderr)
        moved = options.files * len(options.agents)
        figures.rucio_ms = {stage: seconds / moved * 1000 for stage, seconds in spent.items()}
        for mode in ("pull", "relay"):
            bench.submit(8, options.large_mib * 1024**2, mode.upper(), {})
            figures.large.append(bench.run_large(mode, 8 * options.large_mib * 1024**2))
            bench.finish(8, {})
    return figures


class _Bench:
    def __init__(self, rucio: RucioSite, postgres: PostgresSite, sites: TwoSites, options: argparse.Namespace) -> None:
        self._rucio, self._postgres, self._sites, self._options = rucio, postgres, sites, options
        self._number = 0
        self._connection: Any = postgres.connect(DATABASE)
        self._connection.autocommit = True
        rses = {
            "SOURCE": (Rse("SOURCE", sites.source, "http"), "auto"),
            "PULL": (Rse("PULL", sites.destination, "http", folder="pull"), "pull"),
            "RELAY": (Rse("RELAY", sites.destination, "http", folder="relay"), "relay"),
        }
        rucio.set_rse_accounts({name: rse.account() for name, (rse, _) in rses.items()})
        for name, (rse, mode) in rses.items():
            attributes = {"cs3_proof": options.proof, "cs3_transfer_mode": mode}
            rucio.add_rse(name, rse.protocol(), attributes=attributes)
        for name in ("PULL", "RELAY"):
            rucio.set_distance("SOURCE", name)
        rucio.add_scope(SCOPE)

    def submit(self, files: int, size: int, destination: str, spent: dict[str, float]) -> None:
        """New files, a rule for each 200 of them, and Rucio's submitter until it has submitted all."""
        self._number += 1
        names = [f"f{self._number}-{number}" for number in range(files)]
        sums = self._sites.make_files([f"rucio/{hash_path(SCOPE, name)}" for name in names], size)
        described = [
            {"scope": SCOPE, "name": name, "bytes": size, "adler32": adler32}
            for name, adler32 in zip(names, sums, strict=True)
        ]
        told = json.dumps(["SOURCE", destination, SCOPE, f"set-{self._number}", described])
        path = self._rucio.directory / "told.json"
        path.write_text(told)
        self._rucio.python(DATASET, str(path))
        with _Children("submitter", spent):
            while self._count("Q"):
                self._rucio.conveyor("submitter")

    def run(self, agents: int) -> Run:
        threads = str(self._options.threads)
        options = ("--threads", threads, "--per-host", str(agents * self._options.threads), "--sleep-time", "2")
        processes = [self._rucio.agent_loop(*options) for _ in range(agents)]
        samples = self._samples(lambda: [process.pid for process in processes if process.pid])
        self._rucio.stop_loops()
        total = self._options.files
        first = next(one for one in samples if one[1] >= total * _FIRST)
        last = next(one for one in samples if one[1] >= total * _LAST)
        seconds, transfers = last[0] - first[0], last[1] - first[1]
        cpu = {part: last[2][part] - first[2][part] for part in PARTS}
        return Run(agents=agents, rate=transfers / seconds, cpu_s=cpu, transfers=transfers, seconds=seconds)

    def run_large(self, mode: str, size: int) -> Large:
        process = self._rucio.agent_loop("--threads", "2", "--sleep-time", "2")
        samples = self._samples(lambda: [process.pid] if process.pid else [])
        self._rucio.stop_loops()
        # The last look before anything was begun: what starting takes is no transfer's.
        first = [one for one in samples if not one[3]][-1]
        cpu = {part: (samples[-1][2][part] - first[2][part]) / size * 1e9 for part in PARTS}
        return Large(mode=mode, cpu_s_per_gb=cpu)

    def finish(self, files: int, spent: dict[str, float]) -> None:
        """Rucio's poller and finisher for what is done.

        :raises RuntimeError: when not every transfer is.
        """
        done = self._count("D")
        if done != files:
            left = self._rucio.query("SELECT state, err_msg, COUNT(*) FROM requests GROUP BY state, err_msg")
            raise RuntimeError(f"{done} of {files} requests are done; by state: {left}")
        with _Children("finisher", spent):
            while self._count("D"):
                self._rucio.conveyor("finisher")

    def _samples(self, agents: Any) -> list[tuple[float, int, dict[str, float], bool]]:
        """Time, finished transfers, processor seconds of each part, and whether any has begun, until all are over."""
        samples: list[tuple[float, int, dict[str, float], bool]] = []
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            self._rucio.check_loops()
            begun = self._one("SELECT COUNT(*) FROM requests WHERE started_at IS NOT NULL") > 0
            samples.append((time.monotonic(), self._count("D"), self._cpu(agents()), begun))
            if not self._count("S"):
                return samples
            time.sleep(_SAMPLE_S)
        raise RuntimeError(f"{self._count('S')} transfers are still under way after {_PATIENCE_S:g} s")

    def _cpu(self, agents: list[int]) -> dict[str, float]:
        processes = _processes()
        postmaster = self._postgres._process
        assert postmaster is not None
        assert postmaster.pid is not None
        return {
            "agents": sum(_seconds_below(processes, pid) for pid in agents),
            "database": _seconds_below(processes, postmaster.pid),
            "source": _seconds_below(processes, _pid_of(self._sites.source)),
            "destination": _seconds_below(processes, _pid_of(self._sites.destination)),
        }

    def _count(self, state: str) -> int:
        return self._one("SELECT COUNT(*) FROM requests WHERE state = %s", state)

    def _one(self, statement: str, *parameters: object) -> int:
        # By one connection for all looks: a new one for each would be most of what the database does.
        return int(self._connection.execute(statement, parameters).fetchone()[0])


def _pid_of(site: Any) -> int:
    return int((site.directory / "revad.pid").read_text())


def _processes() -> Mapping[int, tuple[int, float]]:
    """Parent and processor seconds, those of ended children included, of every process of this machine."""
    found: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name is in parentheses, and may hold any of these.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        found[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / _TICKS
    return found


def _seconds_below(processes: Mapping[int, tuple[int, float]], pid: int) -> float:
    """Of a process and all below it."""
    own = processes.get(pid, (0, 0.0))[1]
    return own + sum(_seconds_below(processes, child) for child, (parent, _) in processes.items() if parent == pid)


class _Children:
    """Adds what child processes take within it."""

    def __init__(self, name: str, spent: dict[str, float]) -> None:
        self._name, self._spent = name, spent

    def __enter__(self) -> None:
        self._before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def __exit__(self, *_: object) -> None:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = after.ru_utime + after.ru_stime - self._before.ru_utime - self._before.ru_stime
        self._spent[self._name] = self._spent.get(self._name, 0.0) + taken


def agents_table(figures: Figures) -> Table:
    head = ["agents", "transfers a second", *(f"{part}, ms" for part in PARTS), "processors busy"]
    table = Table("Small files", head)
    for run in figures.runs:
        busy = sum(run.cpu_s.values()) / run.seconds / figures.machine["cores"]
        costs = [f"{run.cost_ms(part):.1f}" for part in PARTS]
        table.rows.append([str(run.agents), f"{run.rate:.0f}", *costs, f"{busy:.0%}"])
    return table


def large_table(figures: Figures) -> Table:
    table = Table("Large files", ["mode", *(f"{part}, s for 1 GB" for part in PARTS)])
    for large in figures.large:
        table.rows.append([large.mode, *(f"{large.cpu_s_per_gb.get(part, 0.0):.2f}" or NONE for part in PARTS)])
    return table


def page_of(figures: Figures) -> str:
    stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in figures.rucio_ms.items())
    return "\n\n".join(
        (
            f"{figures.files} files of 4 KiB for each row, {figures.threads} threads in each agent, sites and agents "
            f"{figures.rtt_ms:g} ms apart, `cs3_proof = {figures.proof}`; all of it on {figures.machine['cores']} "
            "cores. Milliseconds and seconds are those of a processor, for one transfer and for one gigabyte.",
            agents_table(figures).markdown(),
            f"Rucio's own daemons take beside that, for each transfer: {stages}.",
            large_table(figures).markdown(),
        )
    )


if __name__ == "__main__":
    main()
