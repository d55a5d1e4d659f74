"""docs/benchmarks.md: the words around the tables. `data_path.py --write` makes the page; nobody edits it by hand."""

from __future__ import annotations

import textwrap
from pathlib import Path

import plots
import tables
from figures import Figures
from registry import OURS
from rich.console import Console
from tables import Table, size_text

_PICTURE = "benchmarks.svg"
_MIB = 1024**2
_COLUMNS = 120


def show(figures: Figures, console: Console) -> None:
    """All tables, for the terminal."""
    for table in _all(figures):
        if table.rows:
            console.print(table.rich())


def write(figures: Figures, path: Path) -> None:
    """The page at ``path``, its picture into ``images`` beside it."""
    (path.parent / "images" / _PICTURE).write_text(plots.picture(figures), "utf-8")
    path.write_text(_page(figures), "utf-8")


def _all(figures: Figures) -> list[Table]:
    found = [tables.large(figures, size, at_once) for size, at_once in _large_cases(figures)]
    found += [tables.small(figures)]
    found += [table for operation in ("put", "get") if (table := tables.profile(figures, operation))]
    if figures.far:
        found.append(tables.far(figures))
    found += [tables.noticed(figures), tables.imports(figures)]
    found += [tables.everything(figures, operation) for operation in ("put", "get")]
    return [*found, tables.failures(figures), tables.goals(figures)]


def _large_cases(figures: Figures) -> list[tuple[int, int]]:
    """The largest file, and several of the largest that is moved several at a time."""
    found = []
    for at_once in sorted({one.at_once for one in figures.samples}):
        sizes = [size for size in figures.sizes(at_once) if size >= _MIB]
        if sizes:
            found.append((sizes[-1], at_once))
    return found


def _page(figures: Figures) -> str:
    parts = [_head(figures), _section("Goals", tables.goals(figures), _GOALS if figures.duels else "")]
    for size, at_once in _large_cases(figures):
        heading = f"{size_text(size)}" + (f", {at_once} at a time" if at_once > 1 else "")
        words = _LARGE if at_once == 1 else ""
        parts.append(_section(heading, tables.large(figures, size, at_once), words))
    parts.append(_section("Small files", tables.small(figures), _SMALL_FILES))
    if figures.far:
        words = _FAR.format(ms=figures.far_link["round_trip_ms"], mbit=figures.far_link["mbit_per_s"])
        parts.append(_section("Far from the cloud", tables.far(figures), words))
    parts.append(_section("What is noticed", tables.noticed(figures), _NOTICED))
    profiles = [table for operation in ("put", "get") if (table := tables.profile(figures, operation))]
    if profiles:
        profiled = size_text(figures.profiles[0].size)
        parts.append(f"## Where the time goes\n\n{_PROFILE.format(size=profiled).rstrip()}\n")
        parts += [table.markdown() + "\n" for table in profiles]
    parts.append(_section("Import", tables.imports(figures), _IMPORT))
    everything = [tables.everything(figures, operation) for operation in ("put", "get")]
    parts.append("## All medians\n\nMilliseconds for each file.\n")
    parts += [table.markdown() + "\n" for table in everything if table.rows]
    parts.append(_section("What failed", tables.failures(figures)))
    parts.append(_how(figures))
    return "\n".join(part for part in parts if part)


def _section(heading: str, table: Table, words: str = "") -> str:
    """Nothing where nothing was measured."""
    if not table.rows:
        return ""
    return f"## {heading}\n\n{words}{table.markdown()}\n"


def _head(figures: Figures) -> str:
    return f"""# Benchmarks of the data path

Uploads and downloads of this package beside what people use today, on one {_cloud(figures)}.
The page is made by

<!-- not run: it takes a quarter of an hour -->
```bash
python benchmarks/data_path.py --json figures.json --write docs/benchmarks.md
```

which anybody can repeat; [how it was measured](#how-it-was-measured) says on what, and what the figures cannot say.
`benchmarks/README.md` has the benchmarks of transfers between clouds.

![Speed with large files, time for small ones here and far away, for each peer](images/{_PICTURE})
"""


_GOALS = """\
Runs of their own (`--parts duels`): two of them again and again, one right after the other, each the first as often as
the other. Of the large file the fastest of each are compared: what else a machine does only slows, and slows these two
by turns; of small ones medians. `middle half` is where half of the pairs, or of our times, lie. `the bare calls` are
the requests that ours sends for such a file, by the generated gRPC stub and Python's own HTTP client, without a look at
what comes back: that much is the server's and the network's.

"""

_LARGE = """\
One after the other; median (slowest to fastest round). Memory is the peak above what the process had when it was ready
to begin; for commands, which begin with nothing, it is all of it. What is verified is what
[a damaging link](#what-is-noticed) has shown.

"""

_SMALL_FILES = """\
4 KiB. Commands start a process for each file, which is part of each figure; `one process` is the same program given
many files. The others are ready and logged in, as a daemon is; `ready after` is what that takes, imports included.
`upload` is all that `rucio upload` asks a storage for one file: connect, two looks whether the name is free, put under
a temporary name, a look at what arrived (not with `skip_upload_stat`, which our set-up has), rename.

"""

_FAR = """\
A relay with {ms:.0f} ms there and back and {mbit:.0f} Mbit/s between peer and server; a new connection costs one round
trip, no packet is lost. Milliseconds for 4 KiB, in brackets how many round trips that is. `first` is a new process from
its imports and login to the end of its first file, `next` each further one; a command's every file is a first. curl has
its tickets already.

"""

_NOTICED = """\
Between peer and server a relay changes the bytes on the way, and the length in the head with them, so that TCP and
HTTP are content. **Not noticed** means reported as done; `left there` that the wrong file stands under its final name
after the failure. Reva's local driver keeps no checksum of its own, so of flipped bits only those can know who read
the file back, or have a checksum kept beside it. The file that is fetched was brought there by this package's protocol
without settings, which keeps the checksum of what it has read back.

"""

_PROFILE = """\
One {size} file by `CS3Storage`, by Python's profiler with the wall's clock and, in a second run, the processor's. Where
a row has less of the second than of the first, the process slept there, and the rest is the server's and the kernel's:
in `send` and where it waits for a socket, the server takes or gives the bytes no faster.

"""

_IMPORT = """\
`python -X importtime`, median (least to most). Every `rucio` command that moves a file to or from such an RSE imports
the plugin, and Rucio's client before it. `most of it` has the packages' own shares in ms.

"""


def _how(figures: Figures) -> str:
    machine = figures.machine
    where = "in memory (`/dev/shm`), so that no disk hides what is compared" if machine["in_memory"] else "on a disk"
    versions = ", ".join(
        f"{name} {machine[key]}"
        for key, name in (
            ("curl", "curl"),
            ("rucio", "Rucio"),
            ("gfal2", "gfal2"),
            ("davix", "davix"),
            ("rclone", "rclone"),
            ("cs3client", "cs3client"),
            ("grpcio", "grpcio"),
            ("python", "Python"),
        )
        if machine.get(key)
    )
    rounds = max(
        (
            sum((one.peer, one.operation, one.size, one.at_once) == (name, "put", size, 1) for one in figures.samples)
            for name in OURS
            for size in figures.sizes(1)
        ),
        default=0,
    )
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory, "
        f"{machine['kernel']}. {versions}.",
        f"Server and peers share this one machine, over loopback and without TLS; all files are {where}. What a peer "
        "uses of the processor the server lacks: with few cores a thrifty client is fast here beyond what it would be "
        "alone.",
        f"Every peer is a process of its own. The rounds, up to {rounds}, are interleaved, each beginning with another "
        "peer; small files have a round before that does not count, large ones fewer rounds. Differences below the "
        "spread within a row are noise.",
        "What arrived is compared with what was sent after each run, size and adler32, by the benchmark itself and "
        "not timed. Where a peer failed even once, it has no figure.",
        "curl gets its tickets before its time begins, so its figures are those of the request that moves the bytes "
        "alone. Ours ask for the ticket, look what is there, and give the file its name within theirs.",
        "`rucio_cs3, Rucio protocol` is the RSE protocol with `cs3_proof` = `server`; `reads back` is the one without "
        "settings, which reads what the server keeps no checksum of.",
        "rclone is told to fetch in one stream: by itself it fetches large files by ranges, which Reva's local driver "
        "refuses (416), and fails. davix has no other way to take a token than its command line.",
        "Processor seconds are those of the peer's process, user and system, not the server's.",
    ]
    if figures.missing:
        missing = "; ".join(f"{figures.labels[name]} ({reason})" for name, reason in figures.missing.items())
        lines.append(f"Not found, and so not measured: {missing}.")
    text = "\n".join(textwrap.fill(f"- {line}", _COLUMNS, subsequent_indent="  ") for line in lines)
    return f"## How it was measured\n\n{text}\n"


def _cloud(figures: Figures) -> str:
    if figures.machine["cloud"] == "reva":
        return f"real Reva ({figures.machine['reva']}, local driver)"
    return "embedded cloud of the sandbox"
