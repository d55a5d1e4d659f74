"""``rucio-cs3 rse apply`` on a real Rucio: an RSE that works comes of it, and then there is nothing more to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, on_disk

pytestmark = pytest.mark.rucio

PROGRAM = Path(sys.executable).parent / "rucio-cs3"
NAME, OTHER, SCOPE = "APPLIED", "APPLIED-OTHER", "applied"


@pytest.fixture(scope="module")
def rse() -> Iterator[Rse]:
    with EmbeddedCloud(name="applied") as cloud:
        yield Rse(NAME, cloud, "http", folder="applied")


@pytest.fixture
def wanted(rse: Rse) -> dict[str, Any]:
    """What the file says; tests change it."""
    protocol = rse.protocol()
    return {
        NAME: {
            "protocols": [
                {
                    "scheme": "http",
                    "hostname": protocol["hostname"],
                    "port": int(str(protocol["port"])),
                    "prefix": protocol["prefix"],
                    "settings": protocol["extended_attributes"],
                }
            ],
            "attributes": {"skip_upload_stat": True, "cs3_idle_timeout_s": 60},
            "distances": {OTHER: 2},
            "limits": {"root": "infinity"},
        },
        # After the one that has a distance to it.
        OTHER: {"deterministic": False},
    }


def apply(
    rucio: RecordedRucio, tmp_path: Path, wanted: dict[str, Any], *options: str, code: int = 0
) -> tuple[list[str], str]:
    """The changes, as they are written, and what else is said."""
    path = tmp_path / "rses.yaml"
    path.write_text(yaml.safe_dump(wanted, sort_keys=False))
    done = subprocess.run(
        [PROGRAM, "rse", "apply", str(path), *options],
        env=rucio.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr


def test_an_rse_from_nothing(sandbox_rucio: RecordedRucio, rse: Rse, wanted: dict[str, Any], tmp_path: Path) -> None:
    rucio = sandbox_rucio
    planned, _ = apply(rucio, tmp_path, wanted, "--dry-run")
    assert rucio.query("SELECT rse FROM rses WHERE rse = ?", NAME) == []
    made, _ = apply(rucio, tmp_path, wanted)
    server = f"http://{wanted[NAME]['protocols'][0]['hostname']}:{wanted[NAME]['protocols'][0]['port']}"
    assert (
        made
        == planned
        == [
            f"{NAME}: add it",
            f"{NAME}: add protocol {server}",
            f"{NAME}: set skip_upload_stat = True",
            f"{NAME}: set cs3_idle_timeout_s = 60",
            f"{OTHER}: add it, not deterministic",
            f"{NAME}: distance 2 to {OTHER}",
            f"{NAME}: limit of root: infinity",
        ]
    )
    again, said = apply(rucio, tmp_path, wanted)
    assert again == []
    assert "all is as" in said

    rucio.set_rse_accounts({NAME: rse.account()})
    rucio.add_scope(SCOPE)
    (tmp_path / "file").write_bytes(b"applied")
    rucio.rucio("upload", "--rse", NAME, "--scope", SCOPE, tmp_path / "file")
    assert on_disk(rse, SCOPE, "file").read_bytes() == b"applied"

    _what_differs_is_changed_and_nothing_else(rucio, wanted, tmp_path, server)


def _what_differs_is_changed_and_nothing_else(
    rucio: RecordedRucio, wanted: dict[str, Any], tmp_path: Path, server: str
) -> None:
    changed = json.loads(json.dumps(wanted))
    protocol = changed[NAME]["protocols"][0]
    protocol["prefix"] = protocol["prefix"] + "deeper/"
    protocol["domains"] = {"wan": {"read": 2}}
    del changed[NAME]["attributes"]["cs3_idle_timeout_s"]
    changed[NAME]["distances"][OTHER] = 3
    changed[NAME]["limits"]["root"] = "5 TB"
    made, _ = apply(rucio, tmp_path, changed)
    assert made == [
        f"{NAME}: change protocol {server}: prefix, domains",
        f"{NAME}: distance 3 to {OTHER}, not 2",
        f"{NAME}: limit of root: 5000000000000 bytes",
    ]
    assert apply(rucio, tmp_path, changed)[0] == []
    assert apply(rucio, tmp_path, changed, "--prune")[0] == [f"{NAME}: remove cs3_idle_timeout_s"]
    lines, _ = apply(rucio, tmp_path, wanted, "--json")
    assert [json.loads(line)["done"] for line in lines] == [True] * 4
    # Nobody's files move; and it is said before anything else is done.
    changed[OTHER]["deterministic"] = True
    made, said = apply(rucio, tmp_path, changed, code=1)
    assert made == []
    assert f"RSE {OTHER} is not deterministic" in said
    # What the file does not speak of stays.
    assert apply(rucio, tmp_path, {NAME: {}}, "--prune")[0] == [f"{NAME}: remove cs3_idle_timeout_s"]
    assert rucio.query("SELECT COUNT(*) FROM rse_protocols JOIN rses ON rses.id = rse_id WHERE rse = ?", NAME) == [(1,)]


def test_a_wrong_setting_is_said_before_anything_is_done(
    sandbox_rucio: RecordedRucio, wanted: dict[str, Any], tmp_path: Path
) -> None:
    new = {"APPLIED-NOT": json.loads(json.dumps(wanted[NAME]))}
    new["APPLIED-NOT"]["attributes"]["cs3_proof"] = "maybe"
    made, said = apply(sandbox_rucio, tmp_path, new, code=1)
    assert made == []
    assert "RSE APPLIED-NOT: setting cs3_proof is 'maybe'" in said
    assert sandbox_rucio.query("SELECT rse FROM rses WHERE rse = 'APPLIED-NOT'") == []
