"""What a run makes at the engine goes away with it, however it ends, and nothing else does; a missing one is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.engine import Engine

ROOT = Path(__file__).parents[2]
_WAIT_S = 120.0

# Makes one of each, says so, and waits for its end.
_RUN = """
import sys, time
from pathlib import Path
from tests.containers.engine import Engine
folder = Path(sys.argv[1])
with Engine() as engine:
    image = engine.image("nothing", folder, {"file": folder / "file"}, {})
    network = engine.network("net")
    labels = dict(engine.labels)
    engine.api.containers.create(image, ["/file"], labels=labels, network=network.name)
    engine.api.volumes.create(engine.run, labels=labels)
    assert len(engine.left()) == 4, engine.left()
    print(engine.run, flush=True)
    time.sleep(600)
"""


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(engine: Engine, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    # Not what another run builds at the same time, which would have the same image.
    (tmp_path / "file").write_bytes(os.urandom(8))
    network = engine.network(f"mine-{number.name.lower()}")
    words = [sys.executable, "-c", _RUN, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            run = child.stdout.readline().strip()
            # An engine of this run, made while the other one lived, has left all of it alone.
            engine.sweep()
            before = made_by(engine, run)
            child.send_signal(number)
            child.communicate(timeout=_WAIT_S)
        finally:
            child.kill()
    assert len(before) == 4, before
    assert made_by(engine, run) == (before if number is signal.SIGKILL else [])
    engine.sweep()
    assert made_by(engine, run) == []
    network.reload()
    network.remove()


def made_by(engine: Engine, run: str) -> list[str]:
    return [name for name, labels, _ in engine._objects() if run in labels.values()]


@pytest.mark.parametrize("required", ["", "docker"])
def test_a_missing_engine_is_named(tmp_path: Path, required: str) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock", "RUCIO_CS3_REQUIRE": required}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/containers/test_story.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if required else 0), done.stdout
    assert "no Docker Engine" in done.stdout
    assert ("and RUCIO_CS3_REQUIRE requires it" in done.stdout) == bool(required)
