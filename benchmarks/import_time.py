"""How long the plugin's import takes above what a ``rucio`` command imports anyway, by ``python -X importtime``."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping

from figures import ImportTime

MODULE = "rucio_cs3.protocol"

#: What is there already: Rucio's client, and what its upload and download load beside it.
ABOVE = ("rucio.client", "rucio.client.uploadclient, rucio.client.downloadclient")

# "import time: self [us] | cumulative | imported package", the last indented by depth.
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")


def import_times(rounds: int, variables: Mapping[str, str]) -> list[ImportTime]:
    """Import it ``rounds`` times, each time in a new process, once more to warm the disk's cache.

    :param variables: an environment in which Rucio is a client with a configuration.
    """
    measured = []
    for above in ABOVE:
        runs = [_import_once(above, variables) for _ in range(rounds + 1)][1:]
        parts = {part for run in runs for part in run}
        measured.append(
            ImportTime(
                module=MODULE,
                above=above,
                milliseconds=[sum(run.values()) for run in runs],
                parts={part: statistics.median(run.get(part, 0.0) for run in runs) for part in sorted(parts)},
            )
        )
    return measured


def _import_once(above: str, variables: Mapping[str, str]) -> dict[str, float]:
    """Package -> milliseconds, of all that the last import of the command loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {above}\nimport {MODULE}"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [(int(match[1]), len(match[3]), match[4]) for match in map(_LINE.match, done.stderr.splitlines()) if match]
    # A module's line comes after those of what it imports, which are indented more; of a dotted name the package's
    # own line comes first, at the same depth.
    last = max(number for number, (_, depth, name) in enumerate(lines) if name == MODULE and depth == 1)
    parts: dict[str, float] = {}
    for own_us, depth, name in reversed(lines[: last + 1]):
        package = name.partition(".")[0]
        if depth == 1 and package != MODULE.partition(".")[0]:
            break
        parts[package] = parts.get(package, 0.0) + own_us / 1000
    return parts
