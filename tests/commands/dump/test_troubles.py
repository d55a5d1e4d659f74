"""What happens while ``rucio-cs3 dump`` goes on: all files in the end, or no file under that name."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.inventory import dump as dumping
from tests.commands.clouds import CommandPlace
from tests.commands.dump.contents import TREE, names, paths_on_disk, text_of
from tests.commands.running import environment_of, wait_until


def test_a_gateway_that_dies_in_the_middle_and_is_gone_on_with(
    filled: CommandPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.retry.RetryPolicy.pause_s", lambda _self, _attempt: 0.01)
    out, before = filled.local / "dump.gz", b"a dump of yesterday"
    out.write_bytes(before)
    monkeypatch.setattr(dumping, "_KEEP_S", 0.0)
    listed, asked = type(filled.storage).list, []

    def dying(storage: Any, reference: Any, **options: Any) -> Any:
        asked.append(reference.name)
        if reference.name == "cd":
            filled.fault("gateway.ListContainer", "grpc:UNAVAILABLE", times=200)
        return listed(storage, reference, **options)

    monkeypatch.setattr(type(filled.storage), "list", dying)
    done = filled.run("dump", "TEST", "-o", out, "--parallel", "1")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("Error: ListContainer ")
    assert done.err.count("\n") == 1
    assert out.read_bytes() == before
    filled.cloud.faults.clear()
    monkeypatch.setattr(type(filled.storage), "list", listed)

    done = filled.run("dump", "TEST", "-o", out, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["runs"] == 2
    assert text_of(out).splitlines() == paths_on_disk(filled)
    assert names(filled.local) == ["dump.gz", "dump.gz.json"]


def test_a_token_that_dies_in_the_middle_is_replaced(filled: CommandPlace) -> None:
    filled.fault("gateway.ListContainer", "expire-token")
    done = filled.run("dump", "TEST", "-o", filled.local / "dump")
    assert (done.code, done.err) == (0, "")
    assert text_of(filled.local / "dump").splitlines() == paths_on_disk(filled)


def test_a_folder_that_goes_while_it_is_walked(filled: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = type(filled.storage).list
    removed: list[str] = []

    def removing(storage: Any, reference: Any, **options: Any) -> Any:
        found = listed(storage, reference, **options)
        if reference == filled.folder and not removed:
            removed.append("été")
            filled.storage.delete(filled.file("été"))
        return found

    monkeypatch.setattr(type(filled.storage), "list", removing)
    done = filled.run("dump", "TEST", "--json", "-o", filled.local / "dump")
    assert (done.code, done.err) == (0, "")
    assert text_of(filled.local / "dump").splitlines() == [
        path for path in sorted(TREE, key=str.encode) if "é" not in path
    ]
    assert json.loads(done.out)["counts"]["gone"] == 1


def test_a_folder_that_cannot_be_listed(filled: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = type(filled.storage).list

    def refusing(storage: Any, reference: Any, **options: Any) -> Any:
        if reference.name == "cd":
            raise errors.AccessDenied("it is not yours", operation="ListContainer", target=str(reference))
        return listed(storage, reference, **options)

    monkeypatch.setattr(type(filled.storage), "list", refusing)
    out = filled.local / "dump"
    done = filled.run("dump", "TEST", "-o", out)
    assert done.code == 1
    assert "scope/ab/cd: it cannot be listed" in done.err
    assert "--allow-incomplete" in done.err
    assert done.err.count("\n") == 1
    assert not out.exists()
    done = filled.run("dump", "TEST", "-o", out, "--allow-incomplete")
    assert done.code == 0
    assert "NOT COMPLETE: 1 entries or folders" in done.out
    assert "data-01.root" not in text_of(out)
    assert json.loads((filled.local / "dump.json").read_text())["complete"] is False


_KEPT_ALWAYS = """
from rucio_cs3.inventory import dump
dump._KEEP_S = 0
from rucio_cs3.cli.main import main
"""


#: It waits at one folder for ever, and says so.
_STUCK = """
import pathlib, sys, time
from rucio_cs3.cs3 import CS3Storage
stuck, listed = pathlib.Path(sys.argv.pop()), CS3Storage.list
def waiting(storage, reference, **options):
    if reference.name == "cd":
        stuck.touch()
        time.sleep(600)
    return listed(storage, reference, **options)
CS3Storage.list = waiting
"""


def test_a_killed_dump_goes_on(filled: CommandPlace) -> None:
    out, stuck = filled.local / "dump.gz", filled.local.parent / "stuck"
    state = filled.local / ".dump.gz.state"
    code = f"{_KEPT_ALWAYS}{_STUCK}main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "dump", "TEST", "-o", str(out), "--parallel", "1", str(stuck)],
        env=environment_of(filled.settings),
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            wait_until(lambda: stuck.exists() and "cd.d" in state.read_text(), "the folder that it waits at")
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    done = filled.run("dump", "TEST", "-o", out, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["runs"] == 2
    assert text_of(out).splitlines() == paths_on_disk(filled)
    assert not state.exists()


def test_a_full_disk(small: CommandPlace) -> None:
    process = subprocess.run(
        [sys.executable, "-c", f"{_KEPT_ALWAYS}main()", "dump", "TEST", "-o", str(small.local / "dump")],
        env=environment_of(small.settings),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)),
    )
    assert process.returncode == 1
    assert process.stderr.startswith("Error: local path")
    assert process.stderr.count("\n") == 1
    assert not (small.local / "dump").exists()
    assert small.run("dump", "TEST", "-o", small.local / "dump").code == 0


def test_ctrl_c_leaves_nothing_under_the_name(small: CommandPlace) -> None:
    small.fault("gateway.ListContainer", "stall")
    with small.started("dump", "TEST", "-o", small.local / "dump") as running:
        wait_until(lambda: small.cloud.faults.pending() == [], "the listing that is not answered")
        running.interrupt()
        done = running.end()
    assert done.code == 130
    assert "Traceback" not in done.err
    assert not (small.local / "dump").exists()
