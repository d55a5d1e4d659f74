"""Starts the tests in ``inside/``: each file in a process that is configured as a daemon of a real Rucio."""

from __future__ import annotations

import pytest

from rucio_cs3.sandbox.rucio_site import RucioSite
from tests.rucio.inside_runs import INSIDE, run_inside

pytestmark = pytest.mark.rucio


@pytest.mark.parametrize("name", sorted(path.name for path in INSIDE.glob("inside_*.py")))
def test_inside(rucio_site: RucioSite, name: str) -> None:
    run_inside(rucio_site, INSIDE / name)
