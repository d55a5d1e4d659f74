"""A file of Rucio's catalogue, opened in a program by its DID; and ``cs3://`` with the names of RSEs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

pytestmark = pytest.mark.rucio

SCOPE = "notebook"

#: What somebody types; the last word of each error is its class.
_NOTEBOOK = """
import json, sys
import fsspec
from rucio_cs3 import CloudStorage

rse, did, dataset, other = sys.argv[1:]
said = {}
with CloudStorage.open_replica(did) as file:
    file.seek(-3, 2)
    said["end"] = file.read().decode()
with CloudStorage.open_replica(did, "r", rse=rse) as text:
    said["text"] = text.read()
cloud = CloudStorage(rse)
said["listed"] = [entry.path for entry in cloud.list()]
cloud.write_text("beside.txt", "beside")
with fsspec.open(f"cs3://{rse}/beside.txt", "r") as beside:
    said["beside"] = beside.read()
for name, call in {
    "unknown": lambda: CloudStorage.open_replica("notebook:nothing"),
    "no_did": lambda: CloudStorage.open_replica("nothing"),
    "dataset": lambda: CloudStorage.open_replica(dataset),
    "elsewhere": lambda: CloudStorage.open_replica(did, rse="NOWHERE"),
    "changed": lambda: CloudStorage.open_replica(other),
    "to_write": lambda: CloudStorage.open_replica(did, "wb"),
    "no_rse": lambda: CloudStorage("NO-RSE"),
}.items():
    try:
        call()
    except Exception as error:
        said[name] = f"{error}: {type(error).__name__}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module", params=["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def rse(request: pytest.FixtureRequest, sandbox_rucio: RecordedRucio) -> Iterator[Rse]:
    name = f"NOTEBOOK-{request.param.upper()}"
    if request.param == "reva":
        sites: tuple[RevaSite, RevaSite] = request.getfixturevalue("reva_sites")
        rse = Rse(name, sites[0], "http", folder="notebook")
        sandbox_rucio.add_rses(rse)
        yield rse
    else:
        with EmbeddedCloud(name="notebook", behaviour=Behaviour(request.param)) as cloud:
            rse = Rse(name, cloud, "http", folder="notebook")
            sandbox_rucio.add_rses(rse)
            yield rse


def test_a_replica_by_its_did(sandbox_rucio: RecordedRucio, rse: Rse, tmp_path: Path) -> None:
    rucio, kind = sandbox_rucio, rse.name.rpartition("-")[2].lower()
    scope = f"{SCOPE}-{kind}"
    rucio.add_scope(scope)
    rucio.set_rse_accounts({rse.name: rse.account()})
    files = [tmp_path / name for name in ("file", "other")]
    for file in files:
        file.write_text(f"the {file.name} in the catalogue")
    rucio.rucio("upload", "--rse", rse.name, "--scope", scope, *files)
    both = [{"scope": scope, "name": file.name} for file in files]
    rucio.ask("add_dataset", scope, "both")
    rucio.ask("attach_dids", scope, "both", both)
    on_disk(rse, scope, "other").write_text("somebody has written to the disk")

    done = subprocess.run(
        [sys.executable, "-c", _NOTEBOOK, rse.name, f"{scope}:file", f"{scope}:both", f"{scope}:other"],
        env={**rucio.environment, "RUCIO_CS3_CLOUDS": str(_empty(tmp_path / "clouds.cfg"))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["end"], said["text"], said["beside"]) == ("gue", "the file in the catalogue", "beside")
    assert scope in said["listed"]
    assert rse.cloud.path_on_disk("notebook/beside.txt").read_text() == "beside"
    for name, words in {
        "unknown": ("notebook:nothing", "FileNotFoundError"),
        "no_did": ("'nothing' is no DID; write scope:name", "ValueError"),
        "dataset": (f"{scope}:both is a dataset or container of 2 files", "IsADirectoryError"),
        "elsewhere": (f"{scope}:file has no replica at RSE NOWHERE; there is one at {rse.name}", "FileNotFoundError"),
        "changed": ("the catalogue says", "OSError"),
        "to_write": ("a replica is never changed", "ValueError"),
        "no_rse": ("Rucio knows no RSE NO-RSE", "NoSuchRSE"),
    }.items():
        assert all(word in said[name] for word in words), (name, said[name])


def _empty(path: Path) -> Path:
    path.touch()
    return path
