"""One Rucio that says all it can, and everything about it that is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from tests.leaks.harvest import harvest, make_servers_repeat
from tests.leaks.known import Known
from tests.leaks.witnesses import Witnesses
from tests.rucio.recorded_rucio import RecordedRucio


@dataclass(frozen=True)
class Watched:
    """
    :param folder: what processes write to temporary and state folders is below it.
    :param kept: secrets that are given as files; not searched.
    """

    rucio: RecordedRucio
    known: Known
    witnesses: Witnesses
    folder: Path
    kept: Path


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A Rucio at DEBUG whose processes are watched, and servers whose secrets are known and that repeat what they are
    told.
    """
    known = Known()
    harvest(known, monkeypatch)
    make_servers_repeat(monkeypatch)
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o700)
    for name, variable in (("temporary", "TMPDIR"), ("states", "XDG_STATE_HOME"), ("home", "HOME")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    witnesses = Witnesses(tmp_path / "witness", monkeypatch)
    with (
        witnesses,
        RecordedRucio(
            directory=tmp_path / "rucio",
            policy_package=SANDBOX_POLICY,
            extra_config={"common": {"loglevel": "DEBUG"}, "conveyor": {"usercert": ""}},
        ) as rucio,
    ):
        known.add("Rucio's password", rucio._password)
        yield Watched(rucio, known, witnesses, tmp_path, kept)
