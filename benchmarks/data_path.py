"""Uploads, downloads and looks: ours beside what people use today, on one cloud of this machine.

    python benchmarks/data_path.py
    python benchmarks/data_path.py --sizes 0 4096 --rounds 2 --peers curl storage --parts files
    python benchmarks/data_path.py --json figures.json --write docs/benchmarks.md
    python benchmarks/data_path.py --from-json figures.json --write docs/benchmarks.md

Every peer that is found runs in a process of its own. Rounds are interleaved, so that a noisy machine is noisy for
all. What arrived is compared with what was sent, size and adler32, after each run and not timed; a peer that fails is
a line in a table, and the others go on. Nothing stays behind but the environment of cs3client, ``.venv-cs3client``.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import page
import surroundings
from clouds import Cloud, LinkedReva, Sources
from far_view import DAMAGED, FILES, LARGE, SMALL, damages, far_user
from figures import Duel, Failure, Figures, Profile, Sample
from import_time import import_times
from peer_process import PeerFailed, PeerProcess
from peers import Operation, Site, Task
from registry import PEERS, peer_class, why_not
from rich.console import Console
from rounds import in_turn

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3

SIZES = (0, 4 * _KIB, _MIB, 64 * _MIB, _GIB)
AT_ONCE = (1, 8)
PARTS = ("duels", "files", "profile", "imports", "far", "damages")

#: Everything is in memory where there is so much of it: the largest file three times, and room for others.
_IN_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 8 * _GIB

_TIMEOUT_S = 120.0

_CONSOLE_COLUMNS = 150


@dataclass(frozen=True)
class Case:
    """
    :param folder_files: files in a run of a peer that moves whole folders; none where that would say nothing new.
    :param files: in a run of others, all of one process.
    :param starts: in a run of those that start a process for each.
    """

    operation: Operation
    size: int
    at_once: int

    @property
    def files(self) -> int:
        if self.operation == "stat":
            return 32
        if self.size >= 16 * _MIB:
            return self.at_once if self.at_once > 1 or self.size > 256 * _MIB else 2
        return 16 if self.size >= _MIB else 32

    @property
    def starts(self) -> int:
        return min(self.files, 2 if self.at_once == 1 else self.at_once)

    @property
    def folder_files(self) -> int:
        return files_of(self.size) if self.size < 16 * _MIB or self.at_once > 1 else 0

    def rounds(self, wanted: int) -> int:
        """Large files take long, and differ less."""
        return wanted if self.size < 256 * _MIB else max(1, (wanted + 1) // 2)

    @property
    def duels(self) -> int:
        """An even number, so that each is the first of a pair as often as the other."""
        return 10 if self.size >= 16 * _MIB else 30

    def warms_up(self) -> bool:
        return self.size < 16 * _MIB


def files_of(size: int) -> int:
    """How many files of a size there are."""
    return max(Case("put", size, at_once).files for at_once in AT_ONCE)


def cases(sizes: Sequence[int], at_once: Sequence[int]) -> list[Case]:
    """In the order in which they run: those first that matter most, lest time runs out, and several at a time last,
    as the memory that this takes stays with some processes.
    """
    made: list[Case] = []
    for many in sorted(at_once):
        for size in sorted(sizes, key=lambda one: (one not in (SMALL, max(sizes)), one)):
            # Eight of the largest would take minutes and tell what eight of the second largest tell.
            if many == 1 or size <= 256 * _MIB:
                made += [Case("put", size, many), Case("get", size, many)]
            if size == SMALL:
                made += [Case("stat", size, many), Case("upload", size, many)]
    return made


def main() -> None:
    options = _options()
    # Asked to end, it ends as after Ctrl-C, and tidies up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    # Into a file or a pipe the tables need not be folded.
    console.width = max(console.width, _CONSOLE_COLUMNS)
    if options.from_json:
        figures = Figures.read(options.from_json)
    else:
        figures = measure(options, lambda text: console.print(text, style="dim", highlight=False))
    page.show(figures, console)
    if options.write:
        page.write(figures, options.write)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", choices=("reva", "embedded"), default="reva", help="what is measured")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes of a file")
    parser.add_argument("--at-once", type=int, nargs="+", default=AT_ONCE, help="files that are under way together")
    parser.add_argument("--rounds", type=int, default=5, help="of small files; half as many of the largest")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--budget-s", type=float, default=420.0, help="after so long, further rounds are left out")
    parser.add_argument("--directory", type=Path, help="for all files; memory if there is enough, else the system's")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--from-json", type=Path, help="measure nothing, take these figures")
    parser.add_argument("--write", type=Path, help="write the page here, and its picture into images/ beside it")
    return parser.parse_args()


def measure(options: argparse.Namespace, tell: Callable[[str], None]) -> Figures:
    figures = Figures(labels={name: peer_class(name).label for name in PEERS})
    with tempfile.TemporaryDirectory(prefix="rucio-cs3-benchmark-", dir=_directory(options)) as name:
        run = _Run(options, figures, Path(name), tell)
        figures.machine = surroundings.describe(Path(name), options.cloud, run.cs3client)
        try:
            if {"duels", "files", "profile"} & {*options.parts}:
                run.near()
            if "imports" in options.parts and run.has_rucio:
                tell("imports")
                figures.imports = import_times(options.rounds, run.variables)
            if {"far", "damages"} & {*options.parts}:
                run.linked()
        finally:
            # What is measured is kept, whatever stops the rest.
            if options.json:
                figures.write(options.json)
    return figures


def _directory(options: argparse.Namespace) -> Path:
    if options.directory is not None:
        return Path(options.directory)
    if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free >= _ROOM_BYTES:
        return _IN_MEMORY
    return Path(tempfile.gettempdir())


def _touch_memory(path: Path, size: int) -> None:
    """Write and remove as much as will be there at once. What a virtual machine uses for the first time, or a disk's
    cache, comes slowly, and would be taken for the slowness of the peer whose turn it is.
    """
    block = bytes(_MIB)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // _MIB):
            file.write(block)
    path.unlink()


@dataclass
class _Run:
    """One run of the benchmark.

    :param folder: for everything that is written.
    """

    options: argparse.Namespace
    figures: Figures
    folder: Path
    tell: Callable[[str], None]
    peers: list[str] = field(default_factory=list)
    cs3client: Path | None = None

    def __post_init__(self) -> None:
        self.variables = surroundings.rucio_client(self.folder / "rucio")
        self.has_rucio = why_not("protocol") is None
        for name in (one for one in PEERS if one in self.options.peers):
            reason = why_not(name)
            if reason is None and peer_class(name).environment == "cs3client":
                try:
                    self.cs3client = surroundings.cs3client_python(self.tell)
                except surroundings.NoEnvironment as error:
                    reason = str(error)
            if reason is None:
                self.peers.append(name)
            else:
                self.figures.missing[name] = reason
                self.tell(f"without {peer_class(name).label}: {reason}")

    def near(self) -> None:
        """All files, and the profile, on one cloud without anything between."""
        running: RevaSite | EmbeddedCloud
        if self.options.cloud == "reva":
            running = RevaSite("near", directory=self.folder / "near")
        else:
            running = EmbeddedCloud(name="near", directory=self.folder / "near")
        sizes = sorted(self.options.sizes)
        _touch_memory(self.folder / "touched", 3 * sizes[-1])
        with running, Cloud(running) as cloud:
            sources = Sources(self.folder / "sources", {size: files_of(size) for size in sizes})
            cloud.add_sources(sources, sizes)
            near = _Near(self, cloud, sources)
            with contextlib.closing(near):
                if "duels" in self.options.parts:
                    near.all_duels(sizes)
                if "files" in self.options.parts:
                    near.all_cases(cases(sizes, self.options.at_once))
                if "profile" in self.options.parts and "storage" in self.peers:
                    near.profile(sizes[-1])
        shutil.rmtree(self.folder / "sources")

    def linked(self) -> None:
        """The far user, and damages."""
        if self.options.cloud != "reva":
            self.tell("no far user, no damages: only Reva's tickets can be led over a link")
            return
        sources = Sources(self.folder / "linked-sources", {SMALL: FILES, DAMAGED: 1, LARGE: 1})
        with LinkedReva(self.folder) as linked:
            linked.add_sources(sources, [SMALL, DAMAGED, LARGE])
            for part, view in (("far", far_user), ("damages", damages)):
                if part in self.options.parts:
                    self.tell(part)
                    view(self.figures, linked, sources, self.empty_folder(part), self.peers, self.open)

    def open(self, name: str, site: Site) -> PeerProcess:
        python = surroundings.OURS
        if peer_class(name).environment == "cs3client":
            if self.cs3client is None:
                raise PeerFailed("no environment")
            python = str(self.cs3client)
        return PeerProcess(name, site, python=python, variables=self.variables)

    def empty_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


class _Near:
    """The peers' processes, and what they do in turn."""

    def __init__(self, run: _Run, cloud: Cloud, sources: Sources) -> None:
        self._run = run
        self._cloud = cloud
        self._sources = sources
        self._processes: dict[str, PeerProcess] = {}
        self._started = time.monotonic()
        self._number = 0

    def close(self) -> None:
        for process in self._processes.values():
            process.close()

    def all_cases(self, wanted: Sequence[Case]) -> None:
        for case in wanted:
            self._run.tell(
                f"{time.monotonic() - self._started:4.0f} s  {case.operation} {case.size} bytes, {case.at_once} at once"
            )
            peers = [name for name in self._run.peers if self._files(name, case)]
            failed: set[str] = set()
            for number, name in in_turn(peers, case.rounds(self._run.options.rounds)):
                late = time.monotonic() - self._started > self._run.options.budget_s
                if name in failed or (number < 0 and not case.warms_up()) or (late and number != 0):
                    continue
                # A process that starts anew each time is never warm, and takes long.
                if peer_class(name).starts and (number < 0 or number > 2):
                    continue
                try:
                    sample = self._one(name, case)
                except PeerFailed as error:
                    failed.add(name)
                    failure = Failure(name, case.operation, case.size, case.at_once, str(error))
                    self._run.figures.failures.append(failure)
                    self._run.tell(f"{peer_class(name).label}: {error}")
                    continue
                if number >= 0:
                    self._run.figures.samples.append(sample)

    def all_duels(self, sizes: Sequence[int]) -> None:
        """What the goals are about, in pairs."""
        largest = sizes[-1]
        self._duel("put", largest, "curl", "storage")
        self._duel("get", largest, "curl", "storage")
        if SMALL in sizes:
            self._duel("put", SMALL, "bare", "protocol")
            self._duel("get", SMALL, "bare", "protocol")
            self._duel("stat", SMALL, "bare", "storage")

    def _duel(self, operation: Operation, size: int, yardstick: str, ours: str) -> None:
        if not {yardstick, ours} <= {*self._run.peers}:
            return
        case = Case(operation, size, 1)
        self._run.tell(f"{time.monotonic() - self._started:4.0f} s  {operation} {size} bytes, {yardstick} and {ours}")
        duel = Duel(operation, size, yardstick, ours)
        taken: dict[str, float] = {}
        try:
            for number, name in in_turn((yardstick, ours), case.duels):
                if size >= 16 * _MIB:
                    _touch_memory(self._run.folder / "touched", size)
                sample = self._one(name, case)
                taken[name] = sample.seconds / sample.files
                if len(taken) == 2:
                    if number >= 0:
                        duel.pairs.append((taken[yardstick], taken[ours]))
                    taken.clear()
        except PeerFailed as error:
            self._run.figures.failures.append(Failure(name, operation, size, 1, str(error)))
            return
        self._run.figures.duels.append(duel)

    def profile(self, size: int) -> None:
        self._run.tell("profile")
        operations: tuple[Operation, ...] = ("put", "get")
        for operation in operations:
            # One for each clock; both fetch the same file, or send it to names of their own.
            tasks = [self._tasks("storage", operation, size, 1) for _ in range(2)]
            try:
                answer = self._process("storage").ask(
                    operation, [task for (task,) in tasks], profile=True, timeout_s=_TIMEOUT_S
                )
                self._run.figures.profiles.append(Profile(operation, size, answer["places"]))
            except PeerFailed as error:
                self._run.tell(f"no profile of {operation}: {error}")
            finally:
                for one in tasks:
                    self._cloud.discard(operation, one)

    def _files(self, name: str, case: Case) -> int:
        """How many files a peer moves in a case; 0 where it takes no part."""
        kind = peer_class(name)
        if case.operation not in kind.operations or case.size > kind.largest:
            return 0
        if kind.whole_folders:
            return case.folder_files
        return case.starts if kind.starts else case.files

    def _one(self, name: str, case: Case) -> Sample:
        process = self._process(name)
        tasks = self._tasks(name, case.operation, case.size, self._files(name, case))
        try:
            answer = process.ask(case.operation, tasks, at_once=case.at_once, timeout_s=_TIMEOUT_S)
            if wrong := self._cloud.check(case.operation, tasks, self._sources):
                raise PeerFailed(wrong)
        finally:
            self._cloud.discard(case.operation, tasks)
        usage = answer["usage"]
        return Sample(
            peer=name,
            operation=case.operation,
            size=case.size,
            at_once=case.at_once,
            files=len(tasks),
            seconds=answer["seconds"],
            cpu_s=usage["cpu_s"],
            peak_mib=usage["peak_kib"] / 1024,
            above_mib=max(0.0, (usage["peak_kib"] - process.start_kib) / 1024),
        )

    def _process(self, name: str) -> PeerProcess:
        """The peer's process; a new one where the last has ended."""
        if name not in self._processes or not self._processes[name].running:
            self._processes[name] = self._run.open(name, self._cloud.site)
            if not self._processes[name].kind.starts:
                self._run.figures.ready_s[name] = self._processes[name].open_s
        return self._processes[name]

    def _tasks(self, name: str, operation: Operation, size: int, count: int) -> list[Task]:
        self._number += 1
        folder = self._run.folder / "arrived"
        folder.mkdir(exist_ok=True)
        case = f"{name}-{self._number}"
        return self._cloud.tasks(peer_class(name), operation, self._sources, size, count, folder, case)


if __name__ == "__main__":
    main()
