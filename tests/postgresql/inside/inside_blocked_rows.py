"""Two registrations that block each other: the one that PostgreSQL breaks off is left to Rucio's own functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from rucio_cs3.registration.bulk_rows import NotPlain
from tests.rucio.inside import inside_bulk_rows
from tests.rucio.inside.inside_bulk_rows import Place
from tests.rucio.inside.rucio_queue import writing

WAIT_S = 30.0

make_place = inside_bulk_rows.make_place

_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


def test_a_deadlock_does_not_end_a_run(make_place: Callable[..., Place]) -> None:
    place = make_place()

    def register() -> None:
        with writing() as session:
            place.bulk().add(session, [place.file("a"), place.file("b")], {})

    with ThreadPoolExecutor(1) as pool, writing() as rival:
        # It looks for deadlocks long after the other, which is broken off.
        rival.execute(text("SET LOCAL deadlock_timeout = '60s'"))
        place.bulk().add(rival, [place.file("b")], {})
        registering = pool.submit(register)
        deadline = time.monotonic() + WAIT_S
        while not rival.execute(_WAITING).scalar():
            assert time.monotonic() < deadline, "nobody waited for the row"
        place.bulk().add(rival, [place.file("a")], {})
        with pytest.raises(NotPlain, match="deadlock detected"):
            registering.result(WAIT_S)
