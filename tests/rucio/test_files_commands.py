"""The commands on files by the names of RSEs and by PFNs, beside a real Rucio that has the same files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import Cloud, Rse, hash_path
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

pytestmark = pytest.mark.rucio

PROGRAM = Path(sys.executable).parent / "rucio-cs3"
CONTENT = b"physics" * 1000


@pytest.fixture(scope="module", params=["spaces", pytest.param("reva", marks=pytest.mark.reva)])
def rse(request: pytest.FixtureRequest, sandbox_rucio: RecordedRucio) -> Iterator[Rse]:
    cloud: Cloud
    with RevaSite("files") if request.param == "reva" else EmbeddedCloud(behaviour=Behaviour.SPACES) as cloud:
        rse = Rse(f"FILES-{request.param.upper()}", cloud, "http", folder="files")
        sandbox_rucio.add_rses(rse)
        sandbox_rucio.add_scope(f"files-{request.param}")
        yield rse


def run(rucio: RecordedRucio, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *(str(argument) for argument in arguments)],
        env=rucio.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_replicas_by_rse_and_by_pfn(sandbox_rucio: RecordedRucio, rse: Rse, tmp_path: Path) -> None:
    rucio, scope, name = sandbox_rucio, rse.name.lower(), "replica"
    (tmp_path / name).write_bytes(CONTENT)
    rucio.rucio("upload", "--rse", rse.name, "--scope", scope, tmp_path / name)
    path = hash_path(scope, name)
    listed = run(rucio, "ls", "-R", "--json", f"{rse.name}:")
    assert (listed.returncode, listed.stderr) == (0, "")
    (found,) = [one for one in map(json.loads, listed.stdout.splitlines()) if one["type"] == "file"]
    assert (found["place"], found["size"]) == (f"{rse.name}:{path}", len(CONTENT))
    assert found["pfn"].startswith("http://127.0.0.1:")
    for number, arguments in enumerate(
        (("get", f"{rse.name}:{path}"), ("get", found["pfn"]), ("get", "--rse", rse.name, path))
    ):
        target = tmp_path / str(number)
        assert run(rucio, *arguments, target).stdout == "1 copied (7.0 kB)\n"
        assert target.read_bytes() == CONTENT
    # A tree beside it, which Rucio knows nothing of.
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"1")
    assert run(rucio, "put-tree", tmp_path / "tree", f"{rse.name}:by-hand").stdout == "1 copied (1 B)\n"
    assert rse.cloud.path_on_disk(f"{rse.folder}/by-hand/sub/file").read_bytes() == b"1"
    assert on_disk(rse, scope, name).read_bytes() == CONTENT
    refused = run(rucio, "rm", "-r", "--yes", f"{rse.name}:")
    assert (refused.returncode, "never deleted here" in refused.stderr) == (1, True)
    assert on_disk(rse, scope, name).exists()


def test_what_is_wrong_is_said_in_one_sentence(sandbox_rucio: RecordedRucio, rse: Rse) -> None:
    for arguments, words in (
        (("ls", "NO-SUCH-RSE:"), "Rucio knows no RSE NO-SUCH-RSE"),
        (("stat", f"{rse.name}:nothing"), "nothing"),
        (("ls", "http://127.0.0.1:9/remote.php/webdav/x"), "no RSE of Rucio has a URL"),
    ):
        done = run(sandbox_rucio, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr
