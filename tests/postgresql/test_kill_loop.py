"""Agents, submitter and poller are killed at random instants, again and again; nothing may be lost or doubled.

What is killed are clients of the database, never its server: it keeps what it has acknowledged.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from contextlib import ExitStack

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.processes import ChildProcess
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import Cloud, Rse
from tests.postgresql.busy_conveyor import BusyConveyor, busy_conveyor, make_contents

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio]

#: Repeats the choices of an earlier run, though not its timing.
SEED_VARIABLE = "RUCIO_CS3_KILL_SEED"

MODES = ("pull", "push", "relay")
FILES_AT_A_TIME = 8
LARGEST_BYTES = 40_000_000

#: Until another agent takes over from a dead one; the least but one that the agent allows.
LEASE_S = 7
DRAIN_S = 150.0

#: Seconds of killing, and how many copies have to have been begun again by it; a busy machine gets more time.
LEAST_KILLING_S = 40.0
MOST_KILLING_S = 240.0
LEAST_BEGUN_AGAIN = 2


@pytest.mark.parametrize("kind", [pytest.param("reva", marks=pytest.mark.reva), "embedded"])
def test_nothing_is_lost(kind: str, postgres: PostgresSite) -> None:
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(1_000_000))
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201  # pytest shows it when the test fails
    with ExitStack() as stack:
        clouds: list[Cloud] = []
        for name in ("a", "b"):
            if kind == "reva":
                clouds.append(stack.enter_context(RevaSite(name)))
            else:
                clouds.append(stack.enter_context(EmbeddedCloud(name=name)))
        source = Rse(f"{kind.upper()}-FROM", clouds[0], "http", folder="from")
        destinations = [(Rse(f"{kind.upper()}-{mode.upper()}", clouds[1], "http", folder=mode), mode) for mode in MODES]
        conveyor = stack.enter_context(busy_conveyor(postgres, f"kill_{kind}", source, destinations))
        conveyor.start_stages("submitter", "poller", "finisher")
        conveyor.start_agents(3, lease_s=LEASE_S)
        kills = kill_at_random(conveyor, random.Random(seed))
        conveyor.drain(timeout_s=DRAIN_S)
        conveyor.rucio.check_loops()
        conveyor.assert_all_done()
        begun_again = len(conveyor.copies_begun_again())
        print(  # noqa: T201
            f"{len(conveyor.digests) * len(MODES)} transfers, {kills} kills, {begun_again} copies begun again; "
            f"failed attempts: {conveyor.failures()}"
        )
        assert begun_again >= LEAST_BEGUN_AGAIN


def kill_at_random(conveyor: BusyConveyor, chance: random.Random) -> int:
    """Give work, kill and restart, until that was tried enough.

    :returns: how often.
    """
    batches = kills = 0
    begin = time.monotonic()
    while (seconds := time.monotonic() - begin) < MOST_KILLING_S:
        if seconds > LEAST_KILLING_S and len(conveyor.copies_begun_again()) >= LEAST_BEGUN_AGAIN:
            break
        if conveyor.left() < FILES_AT_A_TIME:
            batches += 1
            prefix = f"batch-{batches}"
            conveyor.give_work(make_contents(prefix, FILES_AT_A_TIME, largest_bytes=LARGEST_BYTES, chance=chance))
        time.sleep(chance.uniform(0.0, 1.5))
        victim = pick_victim(conveyor, chance)
        victim.kill()
        kills += 1
        conveyor.look_at_what_rucio_believes()
        conveyor.restart(victim)
    return kills


def pick_victim(conveyor: BusyConveyor, chance: random.Random) -> ChildProcess:
    """A daemon of Rucio's, at any time; or an agent, at some time while it copies, or at any time if it does not."""
    if chance.random() < 0.25:
        return conveyor.stages[chance.choice(("submitter", "poller"))]
    give_up = time.monotonic() + 4.0
    while time.monotonic() < give_up:
        busy = conveyor.busy_agents()
        if busy:
            time.sleep(chance.uniform(0.0, 0.3))
            return chance.choice(busy)
        time.sleep(0.02)
    return chance.choice(conveyor.agents)
