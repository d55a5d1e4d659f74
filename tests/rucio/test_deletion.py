"""Deletion by Rucio's reaper as RSEs want it: kept or purged, locked, and in chunks of several threads."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import CS3Storage, Reference
from rucio_cs3.cs3.resources import to_message
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import Cloud, Rse, hash_path
from tests.contract.place import endpoint_of, provider_of
from tests.rucio.recorded_rucio import RecordedRucio, files_below, requests_to

pytestmark = [pytest.mark.rucio, pytest.mark.reva]

SCOPE = "deleted-cs3"
#: RSE -> its setting cs3_delete.
WISHES = {"V3-KEEP": "keep", "V3-PURGE": "purge", "SPACES-PURGE": "purge", "REVA-KEEP": "keep", "REVA-PURGE": "purge"}
FILES = 12
#: RSEs where somebody else had a file at the place of one of the replicas, and the number of that.
STRANGERS = [name for name, wish in WISHES.items() if wish == "purge"]
SHARED = 1

_UPLOAD = """
import json, sys
from rucio.client.uploadclient import UploadClient
UploadClient().upload(json.load(sys.stdin))
"""


#: Rucio's reaper on a machine that may be busy: a look ahead is believed for as long as it takes.
_REAPER = """
import math, runpy, sys
from rucio_cs3.cs3.file_deletions import FileDeletions
FileDeletions.__init__.__kwdefaults__["look_s"] = math.inf
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Reaped:
    """What the reaper left, after its first round and in the end."""

    rucio: RecordedRucio
    rses: dict[str, Rse]
    storages: dict[str, CS3Storage]
    locked: str = ""
    said: list[str] = field(default_factory=list)
    first: set[tuple[str, str]] = field(default_factory=set)
    first_files: set[str] = field(default_factory=set)
    stats: int = 0

    def replicas(self) -> set[tuple[str, str]]:
        return set(self.rucio.replica_states(SCOPE))

    def reap(self) -> None:
        names = [rse.name for rse in self.rses.values()]
        program = str(Path(sys.executable).parent / "rucio-reaper")
        options = [
            "--run-once",
            "--greedy",
            "--delay-seconds",
            "1",
            "--threads",
            "3",
            "--chunk-size",
            "50",
            "--rses",
            *names,
        ]
        command = [sys.executable, "-c", _REAPER, program, *options]
        finished = self.rucio._run(command, self.rucio.daemon_environment, timeout_s=600.0)
        self.said.append(finished.stdout + finished.stderr)

    def place(self, rse: str, name: str) -> Reference:
        endpoint = self.storages[rse].endpoint
        return Reference(endpoint.root, f"{self.rses[rse].folder}/{hash_path(SCOPE, name)}")

    def in_bin(self, rse: str) -> Counter[str]:
        """Names of the files in the bin below the RSE's folder, and how often."""
        folder = Reference(self.storages[rse].endpoint.root, self.rses[rse].folder)
        items = self.storages[rse].recycle_bin.items(folder)
        return Counter(item.reference.name for item in items if not item.is_directory)


@pytest.fixture(scope="module")
def reaped(
    sandbox_rucio: RecordedRucio,
    reva_sites: tuple[RevaSite, RevaSite],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Reaped]:
    rucio, local = sandbox_rucio, tmp_path_factory.mktemp("deleted")
    with contextlib.ExitStack() as stack:
        v3, spaces = (
            stack.enter_context(EmbeddedCloud(name=f"deleted-{kind}", behaviour=Behaviour(kind)))
            for kind in ("v3", "spaces")
        )
        clouds: dict[str, Cloud] = {"V3": v3, "SPACES": spaces, "REVA": reva_sites[0]}
        rses = {
            name: Rse(f"DELETED-{name}", clouds[name.partition("-")[0]], "http", folder=f"deleted-{name.lower()}")
            for name in WISHES
        }
        for name, wish in WISHES.items():
            rucio.add_rses(rses[name], attributes={"cs3_delete": wish})
        rucio.add_scope(SCOPE)
        storages = {
            name: stack.enter_context(CS3Storage(endpoint_of(rse.cloud), provider_of(rse.cloud)))  # type: ignore[arg-type]
            for name, rse in rses.items()
        }
        found = Reaped(rucio, rses, storages, locked="SPACES-PURGE-0")
        # A file of the same place and size as a replica went into the bin before.
        for name in STRANGERS:
            path = local / "stranger"
            path.write_bytes(_stranger(name))
            place = found.place(name, f"{name}-{SHARED}")
            storages[name].upload(path, place)
            storages[name].delete(place)
        items = []
        for name, rse in rses.items():
            for number in range(FILES):
                path = local / f"{name}-{number}"
                path.write_bytes(path.name.encode())
                items.append({"path": str(path), "rse": rse.name, "did_scope": SCOPE, "no_register": False})
        rucio._run([sys.executable, "-c", _UPLOAD], rucio.environment, timeout_s=120.0, given=json.dumps(items))
        place = found.place("SPACES-PURGE", found.locked)
        lock = resources_pb2.Lock(lock_id="office", type=resources_pb2.LOCK_TYPE_EXCL)
        gateway = storages["SPACES-PURGE"]._gateway
        gateway.ask("SetLock", provider_api_pb2.SetLockRequest(ref=to_message(place), lock=lock), str(place))
        rucio.expire_rules(SCOPE)
        rucio.daemon("judge-cleaner")
        before = requests_to(v3, "gRPC Stat")
        found.reap()
        found.stats = requests_to(v3, "gRPC Stat") - before
        found.first = found.replicas()
        found.first_files = {name for rse in rses.values() for name in files_below(rse)}
        gateway.ask("Unlock", provider_api_pb2.UnlockRequest(ref=to_message(place), lock=lock), str(place))
        deadline = time.monotonic() + 60
        # Rucio leaves what it has just tried alone for a second.
        while found.replicas() and time.monotonic() < deadline:
            found.reap()
        yield found


def _stranger(rse: str) -> bytes:
    """As many bytes as the replica of its place has, and others."""
    return f"{rse}-{SHARED}".lower().encode()


def test_all_but_the_locked_file_is_deleted_at_once(reaped: Reaped) -> None:
    assert {name for _, name in reaped.first} == {reaped.locked}
    assert reaped.first_files == {reaped.locked}


def test_a_lock_excludes_no_rse(reaped: Reaped) -> None:
    said = reaped.said[0].splitlines()
    lines = [line for line in said if f"{SCOPE}:{reaped.locked} " in line and "Deletion CRITICAL" in line]
    assert lines
    assert all(reaped.rses["SPACES-PURGE"].name in line for line in lines)
    assert not [line for line in said if "temporarily excluded" in line or "NOACCESS" in line]


def test_it_is_deleted_when_the_lock_is_gone(reaped: Reaped) -> None:
    assert reaped.replicas() == set()
    assert {name for rse in reaped.rses.values() for name in files_below(rse)} == set()


@pytest.mark.parametrize("rse", WISHES)
def test_the_bin_has_what_the_rse_wants(reaped: Reaped, rse: str) -> None:
    strangers = Counter({f"{rse}-{SHARED}": 1}) if rse in STRANGERS else Counter()
    kept = Counter(f"{rse}-{number}" for number in range(FILES)) if WISHES[rse] == "keep" else Counter()
    # What the upload itself has left there is no replica.
    found = Counter({name: count for name, count in reaped.in_bin(rse).items() if not name.startswith(".")})
    assert found == kept + strangers


@pytest.mark.parametrize("rse", STRANGERS)
def test_what_is_left_in_the_bin_is_not_rucios(reaped: Reaped, rse: str, tmp_path: Path) -> None:
    storage, place = reaped.storages[rse], reaped.place(rse, f"{rse}-{SHARED}")
    (item,) = [item for item in storage.recycle_bin.items(place.parent) if item.reference == place]
    storage.recycle_bin.restore(item)
    try:
        storage.download(place, tmp_path / "restored")
    finally:
        storage.delete(place)
    assert (tmp_path / "restored").read_bytes() == _stranger(rse)


def test_what_was_purged_is_off_the_disk(reaped: Reaped, reva_sites: tuple[RevaSite, RevaSite]) -> None:
    below = reva_sites[0].data_directory.parent
    contents = [path.read_bytes() for path in below.rglob("REVA-*") if path.is_file()]
    assert not [content for content in contents if content.startswith(b"REVA-PURGE")]
    assert len([content for content in contents if content.startswith(b"REVA-KEEP")]) == FILES


def test_each_file_is_looked_at_once(reaped: Reaped) -> None:
    """Of a chunk as of a single file; two RSEs are at this cloud. For how long a look is believed is C1525's matter."""
    assert reaped.stats <= 2 * FILES + 2


def test_the_reaper_warns_of_nothing_that_is_well(reaped: Reaped) -> None:
    assert not [line for said in reaped.said for line in said.splitlines() if "not purged" in line]
