"""Runs a file of tests in a process that is configured as a daemon of a real Rucio."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rucio_cs3.sandbox.rucio_site import RucioSite

ROOT = Path(__file__).parents[2]

#: Files of tests that succeed with any Rucio of the sandbox, whatever its database.
INSIDE = Path(__file__).parent / "inside"


def run_inside(rucio: RucioSite, path: Path, **environment: str) -> str:
    """Have all tests of a file succeed there.

    :param environment: variables beside those of the daemon.
    :returns: all that they said.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUCIO_", "PYTEST_"))}
    finished = subprocess.run(
        # Warnings of Rucio's own modules (utcnow, SQLAlchemy) are none of this package's errors.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.rucio.inside.rucio_queue"),
            *("-W", "default", str(path)),
        ],
        env={**kept, **rucio.daemon_environment, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, said
    return said
