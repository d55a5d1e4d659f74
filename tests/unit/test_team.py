"""A team: so many threads, every outcome, and an end that answers whoever waits."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from functools import partial

import pytest

from rucio_cs3.cs3.team import Team

WAIT_S = 20.0


def test_no_more_threads_than_wanted_and_every_outcome() -> None:
    team = Team(3, "three")
    together, names = threading.Barrier(3), set()

    def work(number: int) -> int:
        names.add(threading.current_thread())
        if number < 3:
            together.wait(WAIT_S)
        if number == 50:
            raise ZeroDivisionError
        return number

    futures = [team.submit(partial(work, number)) for number in range(100)]
    assert [future.result(WAIT_S) for future in futures if future is not futures[50]] == [*range(50), *range(51, 100)]
    with pytest.raises(ZeroDivisionError):
        futures[50].result(WAIT_S)
    assert len(names) == 3
    assert team.wait(WAIT_S)
    team.stop()
    for thread in names:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_stop_answers_who_waits_and_begins_nothing_more() -> None:
    team = Team(1, "one")
    begun, go, checked = threading.Event(), threading.Event(), []

    def work() -> None:
        team.check()
        begun.set()
        assert go.wait(WAIT_S)
        try:
            team.check()
        except KeyboardInterrupt:
            checked.append(True)
            raise

    under_way = team.submit(work)
    waiting = team.submit(partial(checked.append, False))
    assert begun.wait(WAIT_S)
    team.stop()
    team.stop()
    for future in (under_way, waiting, team.submit(partial(checked.append, False))):
        with pytest.raises(CancelledError):
            future.result(WAIT_S)
    assert not team.wait(0.0)
    go.set()
    assert team.wait(WAIT_S)
    assert checked == [True]


def test_the_process_ends_without_it() -> None:
    """Whatever it is at: a server may be silent for a minute."""
    program = (
        "import threading\n"
        "from rucio_cs3.cs3.team import Team\n"
        "begun = threading.Event()\n"
        "def hang():\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "Team(1, 'silent').submit(hang)\n"
        "assert begun.wait(20)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
