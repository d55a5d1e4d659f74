"""The process of one peer: reads what to do as JSON lines from its input, and answers each by one line.

    python benchmarks/worker.py <peer>

The first line is the site. Nothing that a peer prints gets between the answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import measuring
import profiling
from peers import Peer, Site, Task
from registry import PEERS


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    site = Site(**json.loads(sys.stdin.readline()))
    module, _, name = PEERS[sys.argv[1]].partition(":")
    peer: Peer = getattr(importlib.import_module(module), name)(site)
    pools: dict[int, ThreadPoolExecutor] = {}
    for line in _requests():
        try:
            answer = _answer(peer, json.loads(line), pools)
        except Exception as error:
            # Whatever a peer raises is its result; secrets are taken out where it is kept.
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    peer.close()


def _requests() -> Iterator[str]:
    # To open the peer is the first thing to do, and answered as the others are.
    yield '{"operation": "open"}'
    yield from sys.stdin


def _answer(peer: Peer, request: dict[str, Any], pools: dict[int, ThreadPoolExecutor]) -> dict[str, Any]:
    operation = request["operation"]
    if operation == "open":
        started = time.perf_counter()
        peer.open()
        return {"seconds": time.perf_counter() - started, "start_kib": measuring.memory_kib("VmRSS")}
    tasks = [Task(**task) for task in request["tasks"]]
    if request["profile"]:
        act = getattr(peer, operation)
        first, second = tasks
        return {"places": profiling.places((lambda: act(first), lambda: act(second)))}
    at_once = request["concurrency"]
    if at_once > 1 and at_once not in pools:
        pools[at_once] = ThreadPoolExecutor(at_once)
        _wake_all(pools[at_once], at_once)
    return dataclasses.asdict(peer.run(operation, tasks, pools.get(at_once)))


def _wake_all(pool: ThreadPoolExecutor, count: int) -> None:
    """Start all threads now: an executor starts them one by one, as tasks come."""
    barrier = threading.Barrier(count)
    for future in [pool.submit(barrier.wait) for _ in range(count)]:
        future.result()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
