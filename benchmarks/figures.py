"""What was measured, as plain values that go into a JSON file and come back; medians and spread. Pure."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers import Operation


@dataclass
class Sample:
    """One peer's one run of one case.

    :param seconds: wall time of all files together.
    :param cpu_s: processor time of the peer's process, or of its commands.
    :param peak_mib: highest memory of the peer's process; of commands that ran at once the sum. 0 if not watched.
    :param above_mib: the same without what it had when it was ready, which for commands is nothing.
    """

    peer: str
    operation: Operation
    size: int
    at_once: int
    files: int
    seconds: float
    cpu_s: float
    peak_mib: float
    above_mib: float


@dataclass
class Failure:
    """A case that a peer did not do, or did wrong."""

    peer: str
    operation: Operation
    size: int
    at_once: int
    error: str


@dataclass
class FarRow:
    """A peer over the far link, in seconds.

    :param first_s: operation -> a new process from its login to the end of its first file.
    :param next_s: operation -> median of each further one; of a whole folder each file's part; empty for commands
        whose every file is a first.
    :param large_s: operation -> the large file.
    """

    peer: str
    first_s: dict[str, float] = field(default_factory=dict)
    next_s: dict[str, float] = field(default_factory=dict)
    large_s: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass
class Notice:
    """What a peer did about a damage on the way: ``noticed``, ``repaired``, or ``not noticed``; or an error's text."""

    peer: str
    damage: str
    result: str


@dataclass
class Profile:
    """
    :param places: name, wall seconds, processor seconds.
    """

    operation: Operation
    size: int
    places: list[tuple[str, float, float]]

    def __post_init__(self) -> None:
        # JSON, by which they come from a peer's process and from a file, makes lists of them.
        self.places = [(name, wall_s, processor_s) for name, wall_s, processor_s in self.places]


@dataclass
class Duel:
    """Two peers and one kind of file, again and again one right after the other: what was next to each other in time is
    compared, so that a machine which is slow for a while slows both.

    :param pairs: wall seconds for one file, of the yardstick and of ours.
    """

    operation: Operation
    size: int
    yardstick: str
    ours: str
    pairs: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pairs = [(yardstick_s, ours_s) for yardstick_s, ours_s in self.pairs]

    @property
    def ratios(self) -> list[float]:
        """Speed of ours in that of the yardstick."""
        return [yardstick_s / ours_s for yardstick_s, ours_s in self.pairs]


@dataclass
class ImportTime:
    """Of one module above others that are there, in milliseconds.

    :param milliseconds: one for each process.
    :param parts: package -> median of its own share.
    """

    module: str
    above: str
    milliseconds: list[float]
    parts: dict[str, float]


@dataclass
class Cell:
    """The samples of one case of one peer.

    :param per_file_s: wall seconds for one file, of each round.
    """

    per_file_s: list[float]
    cpu_per_file_s: float
    peak_mib: float
    above_mib: float
    size: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.per_file_s)

    @property
    def bytes_per_s(self) -> float:
        return self.size / self.median_s


@dataclass
class Figures:
    """All of one run."""

    machine: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    #: Peer -> seconds from its first import to being logged in.
    ready_s: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    duels: list[Duel] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    far: list[FarRow] = field(default_factory=list)
    far_link: dict[str, float] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    imports: list[ImportTime] = field(default_factory=list)

    def cell(self, peer: str, operation: Operation, size: int, at_once: int) -> Cell | None:
        """None where it was not measured, or failed even once: half of a case is no figure."""
        key = (peer, operation, size, at_once)
        samples = [one for one in self.samples if (one.peer, one.operation, one.size, one.at_once) == key]
        if not samples or self.failure(*key):
            return None
        return Cell(
            per_file_s=[one.seconds / one.files for one in samples],
            cpu_per_file_s=statistics.median(one.cpu_s / one.files for one in samples),
            peak_mib=max(one.peak_mib for one in samples),
            above_mib=max(one.above_mib for one in samples),
            size=size,
        )

    def failure(self, peer: str, operation: Operation, size: int, at_once: int) -> str | None:
        key = (peer, operation, size, at_once)
        return next(
            (one.error for one in self.failures if (one.peer, one.operation, one.size, one.at_once) == key), None
        )

    def duel(self, operation: Operation, size: int) -> Duel | None:
        return next((one for one in self.duels if (one.operation, one.size) == (operation, size) and one.pairs), None)

    def sizes(self, at_once: int) -> list[int]:
        return sorted({one.size for one in self.samples if one.at_once == at_once and one.operation in ("put", "get")})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Figures:
        found: dict[str, Any] = json.loads(path.read_text())
        kinds: dict[str, Any] = {
            "samples": Sample,
            "duels": Duel,
            "failures": Failure,
            "far": FarRow,
            "notices": Notice,
            "profiles": Profile,
            "imports": ImportTime,
        }
        for name, kind in kinds.items():
            found[name] = [kind(**one) for one in found[name]]
        return cls(**found)
