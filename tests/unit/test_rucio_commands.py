"""Commands of the sandbox's Rucio that are broken off: none of them goes on running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.rucio_commands import RucioCommandError, RucioCommands

_SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the processes that are started."""
    pids = []

    class Popen(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            pids.append(self.pid)

    monkeypatch.setattr("rucio_cs3.sandbox.rucio_commands.subprocess.Popen", Popen)
    return pids


def assert_ended(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_starts(
    tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    popen = subprocess.Popen.__init__

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        popen(self, *arguments, **options)
        signal.raise_signal(number)

    def change_of_mind(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, change_of_mind)
    try:
        monkeypatch.setattr("subprocess.Popen.__init__", start)
        with pytest.raises(KeyboardInterrupt):
            RucioCommands(tmp_path)._run(_SLEEPS, {}, timeout_s=60.0)
        assert signal.getsignal(number) is change_of_mind
    finally:
        signal.signal(number, before)
    assert len(started) == 1
    assert_ended(started[0])


def test_a_command_that_takes_too_long(tmp_path: Path, started: list[int]) -> None:
    with pytest.raises(RucioCommandError, match=r"still ran after 0\.1 s"):
        RucioCommands(tmp_path)._run(_SLEEPS, {}, timeout_s=0.1)
    assert_ended(started[0])


def test_a_command_says_what_it_wrote(tmp_path: Path) -> None:
    wrote = RucioCommands(tmp_path)._run(
        [sys.executable, "-c", "import os, sys; print(os.environ['RUCIO_X'], os.getcwd()); sys.exit('ü')"],
        {"RUCIO_X": "own", "PYTHONIOENCODING": "utf-8"},
        timeout_s=60.0,
        check=False,
    )
    assert (wrote.returncode, wrote.stdout, wrote.stderr) == (1, f"own {tmp_path}\n", "ü\n")
