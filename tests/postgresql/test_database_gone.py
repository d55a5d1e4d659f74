"""Rucio's database is gone for ten seconds, in the middle of transfers: agents live on, and report what they did."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.postgres import PostgresSite
from rucio_cs3.sandbox.story import Rse
from tests.postgresql.busy_conveyor import BusyConveyor, busy_conveyor, make_contents

pytestmark = [pytest.mark.postgresql, pytest.mark.rucio]

MODES = ("pull", "push", "relay")
FILES = 6
LARGEST_BYTES = 40_000_000
GONE_S = 10.0
DRAIN_S = 120.0

# So long that no claim ends while the database is gone: whatever begins again does so for another reason.
LEASE_S = 120


def test_ten_seconds_without_a_database() -> None:
    with ExitStack() as stack:
        # A server of its own: others' would not like it.
        postgres = stack.enter_context(PostgresSite())
        a, b = (stack.enter_context(EmbeddedCloud(name=name)) for name in ("a", "b"))
        source = Rse("GONE-FROM", a, "http", folder="from")
        destinations = [(Rse(f"GONE-{mode.upper()}", b, "http", folder=mode), mode) for mode in MODES]
        conveyor = stack.enter_context(busy_conveyor(postgres, "gone", source, destinations))
        chance = random.Random(7)
        conveyor.give_work(make_contents("file", FILES, largest_bytes=LARGEST_BYTES, chance=chance))
        conveyor.start_stages("submitter", "poller", "finisher")
        conveyor.start_agents(2, lease_s=LEASE_S)
        pids = [agent.pid for agent in conveyor.agents]
        wait_until_busy(conveyor)
        done = len(conveyor.proven)
        postgres.pause(GONE_S)
        assert [agent.pid for agent in conveyor.agents] == pids
        conveyor.drain(timeout_s=DRAIN_S, work=lambda: restart_what_has_ended(conveyor))
        assert [agent.pid for agent in conveyor.agents] == pids
        conveyor.assert_all_done()
        assert done < FILES * len(MODES)
        # What was under way was neither given up nor done twice. (A request whose ends could not be read any more is
        # put off before its copy begins.)
        assert conveyor.copies_begun_again() == []
        assert conveyor.failures() == []
        for agent in conveyor.agents:
            assert "Rucio's database is back after" in agent.output()
            assert "Traceback" not in agent.output()


def wait_until_busy(conveyor: BusyConveyor) -> None:
    """Both agents have begun, some agent copies, and not everything is done.

    That both are at it at the same time may never be seen: a copy takes some tenths of a second. One that is still
    starting would end: it needs the database for that.
    """
    deadline = time.monotonic() + 60
    while not (conveyor.heartbeats() == len(conveyor.agents) and conveyor.busy_agents() and conveyor.moving()):
        assert time.monotonic() < deadline, conveyor.report()
        conveyor.look_at_what_rucio_believes()
        time.sleep(0.02)


def restart_what_has_ended(conveyor: BusyConveyor) -> None:
    """As a site's supervisor: submitter, poller and finisher of Rucio 41.5.1 end, with exit code 0, when a heartbeat
    finds no database (daemons/common.py: it is renewed outside of the ``try``)."""
    for stage in conveyor.stages.values():
        if not stage.running:
            conveyor.restart(stage)
