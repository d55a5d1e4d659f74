"""What runs as a Rucio daemon, on PostgreSQL: all that runs on SQLite, too, and the races that only happen here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio]

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"

#: Fills the tables, so it gets some of its own.
FULL_QUEUE = INSIDE / "inside_full_queue.py"

FILES = sorted({*INSIDE.glob("inside_*.py"), *(ROOT / "tests" / "rucio" / "inside").glob("inside_*.py")} - {FULL_QUEUE})


@pytest.fixture(scope="module")
def rucio(postgres: PostgresSite) -> Iterator[RucioSite]:
    url = postgres.create_database("inside")
    with RucioSite(policy_package=SANDBOX_POLICY, database=url, schema="rucio_tables") as site:
        yield site


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_inside(rucio: RucioSite, path: Path) -> None:
    run_inside(rucio, path)


def test_a_full_queue(postgres: PostgresSite) -> None:
    url = postgres.create_database("full_queue")
    with RucioSite(policy_package=SANDBOX_POLICY, database=url, schema="rucio_tables") as site:
        run_inside(site, FULL_QUEUE)


def run_inside(rucio: RucioSite, path: Path) -> None:
    """The tests of a file, in a process that is configured as a daemon."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RUCIO_", "PYTEST_"))}
    finished = subprocess.run(
        # Warnings of Rucio's own modules (utcnow, SQLAlchemy) are none of this package's errors.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.rucio.inside.rucio_queue"),
            *("-W", "default", str(path)),
        ],
        env={**kept, **rucio.daemon_environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
