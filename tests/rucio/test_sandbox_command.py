"""``rucio-cs3 sandbox`` as people use it: one terminal for it, another for all else; then Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.rucio.test_demo import _LISTENING, processes_in

pytestmark = pytest.mark.rucio

COMMAND = Path(sys.executable).parent / "rucio-cs3"

#: For it to start, and to stop; a busy machine needs minutes.
_DEADLINE_S = 300.0

_OTHER_TERMINAL = """
set -e
. rucio-sandbox/env
rucio whoami
rucio rse list
rucio-cs3 ls cernbox:
rucio-cs3 ls OTHER:
rucio upload --rse SPACE --scope user.jdoe hello.txt
"""


def test_a_sandbox_from_start_to_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("hello")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUCIO_")}
    with subprocess.Popen(
        [sys.executable, "-c", _LISTENING, COMMAND, "sandbox", "--clouds", "embedded", "--no-daemons"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sandbox:
        # One that never is ready is ended.
        watch = threading.Timer(_DEADLINE_S, sandbox.kill)
        watch.start()
        try:
            assert sandbox.stdout
            assert "Ready" in sandbox.stdout.readline()
            # It has everything of its own in the folder, which others cannot enter.
            folder = tmp_path / "rucio-sandbox"
            assert folder.stat().st_mode & 0o777 == 0o700
            done = subprocess.run(
                ["bash", "-c", _OTHER_TERMINAL],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_DEADLINE_S,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert {"OTHER", "SPACE"} <= set(done.stdout.split())
            assert "CERNBOX" not in done.stdout
            (uploaded,) = folder.glob("space/**/hello.txt")
            assert uploaded.read_text() == "hello"
            assert processes_in(folder)
            sandbox.send_signal(signal.SIGINT)
            _, errors = sandbox.communicate(timeout=_DEADLINE_S)
        finally:
            watch.cancel()
            sandbox.kill()
    assert sandbox.returncode == 0, errors
    assert "Traceback" not in errors
    assert not folder.exists()
    assert processes_in(folder) == []


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "rucio-sandbox").mkdir()
    done = subprocess.run(
        [COMMAND, "sandbox"], cwd=tmp_path, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    assert done.returncode == 2
    assert f"{tmp_path / 'rucio-sandbox'} exists; it stays as it is" in done.stderr
    assert list((tmp_path / "rucio-sandbox").iterdir()) == []
