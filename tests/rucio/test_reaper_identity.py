"""Rucio's reaper while an identity is revoked: no replica leaves the catalogue for want of a token."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.story import Rse
from tests.contract.faulty_reva import FaultyReva, behind_relays
from tests.contract.http_relay import Moment, Witness
from tests.contract.mortal import CHANGED
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk

pytestmark = pytest.mark.rucio

#: Seconds; Rucio leaves what it has just tried alone for a second.
PATIENCE_S = 60


_numbers = itertools.count(1)


class Revoking(Witness):
    """All tokens die with the first look at a file, and nobody is let in any more."""

    def __init__(self, cloud: FaultyReva) -> None:
        self._cloud = cloud
        self.happened = False

    def passes(self, point: str, moment: Moment) -> None:
        if point == "gateway.Stat" and not self.happened:
            self.happened = True
            self._cloud.tokens.expire_all(transfer=True)
            self._cloud.password = CHANGED


@pytest.fixture(params=["spaces", pytest.param("reva", marks=pytest.mark.reva)])
def cloud(request: pytest.FixtureRequest) -> Iterator[FaultyReva]:
    with behind_relays(request) as cloud:
        yield cloud


def test_a_replica_stays_while_nobody_knows_who_we_are(
    sandbox_rucio: RecordedRucio, cloud: FaultyReva, tmp_path: Path
) -> None:
    """Not even one whose file is gone: nobody may say so."""
    rucio = sandbox_rucio
    # One Rucio for all cases; its scopes have 25 characters.
    tag = f"revoked-{next(_numbers)}"
    scope, rse = tag, Rse(tag.upper(), cloud, "http", folder=tag)
    rucio.add_rses(rse)
    rucio.add_scope(scope)
    files = [tmp_path / name for name in ("there", "gone")]
    for file in files:
        file.write_bytes(file.name.encode())
    rucio.rucio("upload", "--rse", rse.name, "--scope", scope, *files)
    rucio.expire_rules(scope)
    rucio.daemon("judge-cleaner")
    on_disk(rse, scope, "gone").unlink()

    cloud.witness = revoking = Revoking(cloud)
    said = rucio.daemon("reaper", "--rses", rse.name)
    assert revoking.happened
    assert {name for _, name in rucio.replica_states(scope)} == {"there", "gone"}
    assert files_below(rse) == {"there"}
    assert "Deletion NOACCESS" in said
    assert CHANGED not in said
    assert "eyJ" not in said

    cloud.witness, cloud.password = Witness(), None
    deadline = time.monotonic() + PATIENCE_S
    while rucio.replica_states(scope):
        assert time.monotonic() < deadline
        rucio.daemon("reaper", "--rses", rse.name)
    assert files_below(rse) == set()
