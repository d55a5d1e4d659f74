"""The half of ``ticks.py`` that runs as a daemon of a Rucio; prints its figures as one line of JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rucio.core import request as request_core
from rucio.core.topology import Topology
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.db.sqla.session import get_engine
from sqlalchemy import event

from rucio_cs3.agent import daemon
from rucio_cs3.agent.database import reading
from rucio_cs3.agent.options import Options
from rucio_cs3.agent.queue import NARROW, Queue, Share, count
from rucio_cs3.policy import TRANSFERTOOL
from rucio_cs3.sandbox import full_queue

# One of three workers. SQLite has no hash, so there each sees all.
WORKER, WORKERS = 1, 3

#: As many rows as the agent asked for when it still did so.
LIMIT = 124


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("looks", "submitter", "agent", "poller", "finisher"))
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    if options.what == "looks":
        figures: Any = [figure for rows in sorted(options.rows) for figure in looks(rows, options.rounds)]
    else:
        figures = stage(options.what)
    print(json.dumps(figures))


def looks(rows: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Each case's figures with a queue so long; rounds are interleaved, each beginning with another case."""
    print(f"{rows} rows …", file=sys.stderr)
    full_queue.fill(rows)
    queue = Queue()
    topology = Topology()
    cases: dict[str, Callable[[], object]] = {
        "look": lambda: look(queue),
        "first look of an agent": lambda: look(Queue()),
        "count, once a minute": count_all,
        "Rucio's get_and_mark_next": lambda: rucios_own(topology),
    }
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    statements: dict[str, int] = {}
    for number in range(-1, rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            if name == "look":
                # As an agent looks that has work for its threads: some tenths of a second after the last time.
                look(queue)
            with counting() as counted:
                begin = time.perf_counter()
                cases[name]()
                elapsed = time.perf_counter() - begin
            # The first round warms up.
            if number >= 0:
                seconds[name].append(elapsed)
                statements[name] = max(statements.get(name, 0), counted["statements"])
    for name in names:
        milliseconds = [1000 * one for one in seconds[name]]
        yield {
            "rows": rows,
            "case": name,
            "median_ms": statistics.median(milliseconds),
            "min_ms": min(milliseconds),
            "max_ms": max(milliseconds),
            "statements": statements[name],
        }


def look(queue: Queue) -> object:
    with reading() as session:
        # As the agent does while what it sees fills its threads.
        return queue.look(session, Share(WORKER, WORKERS), window=NARROW)


def count_all() -> object:
    with reading() as session:
        return count(session)


def rucios_own(topology: Topology) -> object:
    return request_core.get_and_mark_next(
        rse_collection=topology,
        request_type=[RequestType.TRANSFER],
        state=[RequestState.SUBMITTED],
        transfertool=TRANSFERTOOL,
        limit=LIMIT,
        total_workers=WORKERS,
        worker_number=WORKER,
        mode_all=True,
        hash_variable="id",
        processed_by=None,
    )


def stage(name: str) -> dict[str, int]:
    """One round of a stage of the conveyor, and what it asked of the database."""
    with counting() as counted:
        if name == "agent":
            daemon.run(once=True, options=Options(threads=4))
        else:
            module = importlib.import_module(f"rucio.daemons.conveyor.{name}")
            options = {"older_than": 0} if name == "poller" else {"bulk": 1000} if name == "submitter" else {}
            getattr(module, name)(once=True, partition_wait_time=0, **options)
    return counted


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Statements and commits meanwhile, of all threads."""
    counted = {"statements": 0, "commits": 0}
    engine = get_engine()

    def statement(*_: object) -> None:
        counted["statements"] += 1

    def commit(*_: object) -> None:
        counted["commits"] += 1

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    try:
        yield counted
    finally:
        event.remove(engine, "before_cursor_execute", statement)
        event.remove(engine, "commit", commit)


if __name__ == "__main__":
    main()
