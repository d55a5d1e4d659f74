"""Starts the tests in ``inside/``: each file in a process that is configured as a daemon of a real Rucio."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rucio_cs3.sandbox.rucio_site import RucioSite

pytestmark = pytest.mark.rucio

INSIDE = Path(__file__).parent / "inside"


@pytest.mark.parametrize("name", sorted(path.name for path in INSIDE.glob("inside_*.py")))
def test_inside(rucio_site: RucioSite, name: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUCIO_", "PYTEST_"))}
    finished = subprocess.run(
        # Warnings of Rucio's own modules (utcnow, SQLAlchemy) are none of this package's errors.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.rucio.inside.rucio_queue"),
            *("-W", "default", str(INSIDE / name)),
        ],
        env={**kept, **rucio_site.daemon_environment},
        cwd=INSIDE.parents[2],
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
