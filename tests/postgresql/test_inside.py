"""What runs as a Rucio daemon, on PostgreSQL: all that runs on SQLite, too, and the races that only happen here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from tests.rucio import inside_runs
from tests.rucio.inside_runs import run_inside

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio]

INSIDE = Path(__file__).parent / "inside"

#: Fills the tables, so it gets some of its own.
FULL_QUEUE = INSIDE / "inside_full_queue.py"

FILES = sorted({*INSIDE.glob("inside_*.py"), *inside_runs.INSIDE.glob("inside_*.py")} - {FULL_QUEUE})


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
