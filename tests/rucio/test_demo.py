"""``rucio-cs3 demo`` as people run it: a folder of their own, and a change of mind in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.rucio

COMMAND = [str(Path(sys.executable).parent / "rucio-cs3"), "demo", "--clouds", "embedded"]

#: Starts a program as a terminal does: a shell lets what it starts in the background ignore SIGINT, and so on down.
_LISTENING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary files go to a folder of the test's, so that it can see what is left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return {**os.environ, "TMPDIR": str(scratch)}


def processes_in(folder: Path) -> list[str]:
    """Command lines of running processes that name a folder, in their arguments or as their working directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue  # ended meanwhile
        if str(folder) in line or place.startswith(str(folder)):
            found.append(line)
    return found


def test_a_folder_goes_all_the_way(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "files"
    (folder / "below").mkdir(parents=True)
    (folder / "plain.txt").write_text("hello")
    (folder / "below" / "mit Umlaut ä.txt").write_bytes(os.urandom(100_000))
    finished = subprocess.run(
        [*COMMAND, "--json", str(folder)], capture_output=True, text=True, check=False, env=environment, timeout=840
    )
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert told["proved"] is True
    assert told["failure"] is None
    assert all(told["steps"].values())
    assert "2 files" in told["steps"]["uploaded"]
    assert "rucio upload --rse CLOUD-A" in finished.stderr
    assert not list(Path(environment["TMPDIR"]).iterdir())
    assert processes_in(Path(environment["TMPDIR"])) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_change_of_mind_leaves_nothing(
    tmp_path: Path, environment: dict[str, str], sent: signal.Signals, code: int
) -> None:
    told = tmp_path / "told"
    with told.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-c", _LISTENING, *COMMAND], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + 120
        while b"rucio rse add CLOUD-A" not in told.read_bytes():
            assert demo.poll() is None, told.read_text()
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.1)
        demo.send_signal(sent)
        assert demo.wait(timeout=60) == code, told.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert "not reached" in told.read_text()
    assert processes_in(Path(environment["TMPDIR"])) == []
    assert not list(Path(environment["TMPDIR"]).iterdir())
