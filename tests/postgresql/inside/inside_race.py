"""Two agents, two processes, one row: exactly one gets it, every time.

A third connection locks the whole table until PostgreSQL says that both wait for it, so that each round is a real
race: both have asked for the row, and both go on at the same instant.
"""

from __future__ import annotations

import datetime
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import pytest
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from sqlalchemy import text, update

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

ROUNDS = 60
LEASE = datetime.timedelta(seconds=60)
WAIT_S = 30.0

# Conflicts with every lock of a row and lets plain reading go on.
_LOCK = text(f"LOCK TABLE {models.Request.__table__.fullname} IN EXCLUSIVE MODE")

# Not pg_stat_activity, which is the same throughout a transaction.
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


def claimant(pipe: Connection) -> None:
    """One agent's side: tries to take the rows that it is shown, and says which it got."""
    from rucio_cs3.agent import claims

    pipe.send("ready")
    while (ids := pipe.recv()) is not None:
        pipe.send([claim.request_id for claim in claims.take(ids, LEASE)])


@pytest.fixture(scope="module")
def agents() -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=claimant, args=(theirs,), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    yield pipes
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()


def race(agents: Sequence[Connection], ids: list[str]) -> list[list[str]]:
    """Let both go for rows at the same instant; what each of them got."""
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(_LOCK)
        for pipe in agents:
            pipe.send(ids)
        deadline = time.monotonic() + WAIT_S
        while session.execute(_WAITING).scalar() != len(agents):
            assert time.monotonic() < deadline, "the two never waited together"
    return [pipe.recv() for pipe in agents]


def ask(agents: Sequence[Connection], ids: list[str]) -> list[list[str]]:
    """As :func:`race`, with nothing in the way."""
    for pipe in agents:
        pipe.send(ids)
    return [pipe.recv() for pipe in agents]


def expire() -> None:
    """As if the agents of all rows had died a lease ago."""
    lease = models.Request.estimated_transferred_at
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(update(models.Request).where(lease.is_not(None)).values({lease: lease - 2 * LEASE}))


def test_one_row_is_one_agents(queue: Queue, agents: list[Connection]) -> None:
    queue.ask("f")
    queue.submit()
    row = queue.row("f")["id"]
    winners = []
    for number in range(ROUNDS):
        # Who waits first for the lock of the table mostly wins.
        turn = agents if number % 2 else agents[::-1]
        got = race(turn, [row])
        assert sorted(got) == [[], [row]]
        winners.append(turn[got.index([row])])
        # A lease that runs is nobody's to take, whoever asks.
        assert ask(agents, [row]) == [[], []]
        expire()
    # Otherwise it would be no race.
    assert set(winners) == set(agents)


def test_many_rows_are_shared_out(queue: Queue, agents: list[Connection]) -> None:
    names = [f"f{number}" for number in range(60)]
    for name in names:
        queue.ask(name)
    queue.submit()
    ids = sorted(queue.row(name)["id"] for name in names)
    for one_by_one in (False, True):
        if one_by_one:
            for row in ids:
                for pipe in agents:
                    pipe.send([row])
            got = [[found for _ in ids for found in pipe.recv()] for pipe in agents]
        else:
            got = race(agents, ids)
        assert sorted(got[0] + got[1]) == ids
        expire()
