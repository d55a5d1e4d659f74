"""``--versions`` of ``dump`` and ``usage``: what the server keeps of overwritten files, as it is on its disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.file_versions import OldVersions
from rucio_cs3.inventory import versions
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.commands.clouds import CommandPlace, new_place

#: Path -> its contents, one after the other.
WRITTEN = {
    "scope/ab/often": [b"1", b"22", b"4444"],
    "scope/ab/twice \U0001f600": [b"old" * 1000, b"new"],
    "scope/once": [b"x"],
}


def overwrite(site: CommandPlace, path: str, content: bytes) -> None:
    """As another program does it, which writes to the name itself."""
    headers = {"Authorization": f"Bearer {site.storage.access_token()}"}
    with requests.Session() as session:
        session.trust_env = False
        assert session.put(site.url(path), data=content, headers=headers, timeout=20).status_code in (201, 204)


@pytest.fixture
def written(site: CommandPlace) -> CommandPlace:
    site.disk("scope/ab").mkdir(parents=True)
    for path, contents in WRITTEN.items():
        for content in contents:
            overwrite(site, path, content)
    return site


def on_disk(site: CommandPlace) -> list[bytes]:
    """Old versions of this place's files, as the server's disk has them."""
    cloud: Any = getattr(site.cloud, "site", site.cloud)
    if site.kind == "spaces":
        nodes = [site.storage.gateway.ask("Stat", request(site, path), path).info.id.opaque_id for path in WRITTEN]
        folders = [cloud.versions_directory / node for node in nodes]
    else:
        folders = [cloud.versions_directory / site.file(path).path for path in WRITTEN]
    found = [file.read_bytes() for folder in folders if folder.exists() for file in folder.iterdir()]
    return sorted(found, key=len)


def request(site: CommandPlace, path: str) -> Any:
    return provider_api_pb2.StatRequest(ref=resources.to_message(site.file(path)))


OLD = sorted((content for contents in WRITTEN.values() for content in contents[:-1]), key=len)
FOUND = {
    "supported": True,
    "stopped": False,
    "files": 3,
    "items": 3,
    "bytes": 3003,
    "unknown_files": 0,
    "unknown_folders": 0,
    "named": [],
    "refusals": {},
}


def manifest_of(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.with_name(f"{path.name}.json").read_text())
    return made


def test_what_was_overwritten_is_counted_apart(written: CommandPlace) -> None:
    assert on_disk(written) == OLD
    out = written.local / "dump"
    done = written.run("dump", "TEST", "-o", out, "--versions")
    assert (done.code, done.err) == (0, "")
    assert "old versions of files beside them: 3, 3.0 kB\n" in done.out
    made = manifest_of(out)
    assert (made["versions"], made["counts"]["files"], made["counts"]["bytes"]) == (FOUND, 3, 8)

    # Whoever did not ask is told nothing.
    done = written.run("dump", "TEST", "-o", out)
    assert "old versions" not in done.out
    assert manifest_of(out)["versions"] is None

    told = json.loads(written.run("usage", "TEST", "--versions", "--json").out)
    assert told["versions"] == FOUND
    assert json.loads(written.run("usage", "TEST", "--json").out)["versions"] is None
    for columns in ("40", "120"):
        done = written.run("usage", "TEST", "--versions", COLUMNS=columns)
        assert (done.code, done.err) == (0, "")
        assert "versions" in done.out
        assert "3.0 kB" in " ".join(done.out.split())
    assert "versions" not in written.run("usage", "TEST").out
    # Nothing of it was changed.
    assert on_disk(written) == OLD


def test_what_a_removed_file_leaves(written: CommandPlace) -> None:
    written.storage.delete(written.file("scope/ab/often"))
    told = json.loads(written.run("usage", "TEST", "--versions", "--json").out)["versions"]
    assert (told["files"], told["items"], told["bytes"]) == (2, 1, 3000)
    if written.kind == "spaces":
        return
    # Reva's local driver keeps them at their path, where the next file gets them.
    overwrite(written, "scope/ab/often", b"another")
    told = json.loads(written.run("usage", "TEST", "--versions", "--json").out)["versions"]
    assert (told["files"], told["items"], told["bytes"]) == (3, 3, 3003)


def test_passing_faults_are_survived_and_lasting_ones_are_said(written: CommandPlace) -> None:
    out = written.local / "dump"
    written.fault("gateway.ListFileVersions", "grpc:UNAVAILABLE")
    written.fault("gateway.ListFileVersions", "expire-token")
    done = written.run("dump", "TEST", "-o", out, "--versions")
    assert (done.code, done.err) == (0, "")
    assert manifest_of(out)["versions"] == FOUND

    written.fault("gateway.ListFileVersions", "code:CODE_PERMISSION_DENIED")
    done = written.run("dump", "TEST", "-o", out, "--versions", "--parallel", "1")
    assert (done.code, done.err) == (0, "")
    assert "; NOT KNOWN of 1 files\n" in done.out
    made = manifest_of(out)
    assert (made["complete"], made["versions"]["unknown_files"], made["versions"]["items"]) == (True, 1, 1)
    ((path, why),) = made["versions"]["named"]
    assert path == "scope/ab/often"
    assert "CODE_PERMISSION_DENIED" in why

    written.fault("gateway.ListFileVersions", "code:CODE_PERMISSION_DENIED")
    # Of which file is not sure: some are asked for at the same time.
    assert written.run("usage", "TEST", "--versions").out.split()[-1].endswith("B+")


def test_a_server_without_versions(written: CommandPlace) -> None:
    for script in ("code:CODE_UNIMPLEMENTED", "grpc:UNIMPLEMENTED"):
        written.fault("gateway.ListFileVersions", script, times=3)
        done = written.run("dump", "TEST", "-o", written.local / "dump", "--versions")
        assert (done.code, done.err) == (0, "")
        assert "old versions of files: not supported by the server\n" in done.out
        told = manifest_of(written.local / "dump")["versions"]
        assert (told["supported"], told["items"], told["bytes"]) == (False, None, None)
    # One that fails for each file, as Reva's cephfs does.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "IN_VAIN_MAX", 1)
        written.fault("gateway.ListFileVersions", "code:CODE_INTERNAL", times=4)
        done = written.run("dump", "TEST", "-o", written.local / "dump", "--versions", "--parallel", "1")
        assert "; NOT KNOWN of 3 files; nobody asked on after 1 answers of the same failure\n" in done.out
        told = manifest_of(written.local / "dump")["versions"]
        assert (told["stopped"], told["refusals"], told["supported"]) == (True, {"ServerFault": 1}, True)
        assert written.run("usage", "TEST", "--versions").out.split()[-1] == "?"
    # A server that answers, and has none, has none.
    written.cloud.faults.clear()
    empty = written.local.parent / "empty"
    written.disk("no-versions").mkdir()
    written.disk("no-versions/file").write_bytes(b"x")
    done = written.run("dump", "TEST:no-versions", "-o", empty, "--versions")
    assert "old versions of files beside them: 0, 0 B\n" in done.out


def test_a_gateway_that_dies_in_the_middle_and_is_gone_on_with(
    written: CommandPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.retry.RetryPolicy.pause_s", lambda _self, _attempt: 0.01)
    monkeypatch.setattr("rucio_cs3.inventory.dump._KEEP_S", 0.0)
    asked: list[str] = []
    old_versions = type(written.storage).old_versions

    def dying(storage: Any, file: Any) -> OldVersions:
        asked.append(file.name)
        if file.name == "once" and len(asked) == 3:
            raise errors.Unavailable("gone", operation="ListFileVersions")
        return old_versions(storage, file)

    monkeypatch.setattr(type(written.storage), "old_versions", dying)
    out = written.local / "dump.gz"
    words = ("dump", "TEST", "-o", out, "--versions", "--parallel", "1")
    done = written.run(*words)
    assert (done.code, done.out, out.exists()) == (1, "", False)
    assert done.err == "Error: ListFileVersions: gone\n"
    done = written.run(*words)
    assert (done.code, done.err) == (0, "")
    assert manifest_of(out)["runs"] == 2
    assert manifest_of(out)["versions"] == FOUND
    # Those that were counted were not asked for again.
    assert [name.split()[0] for name in asked] == ["often", "twice", "once", "once"]


# -- what has nothing to do with the kind of cloud -----------------------------------------------------------------


def test_a_cloud_whose_versions_cannot_be_counted_is_a_failure(one_site: CommandPlace) -> None:
    one_site.put("file", b"x")
    one_site.add_entry("LATER", folder=f"{one_site.folder.path}/not/yet")
    one_site.fault("gateway.ListContainer", "code:CODE_PERMISSION_DENIED")
    done = one_site.run("usage", "TEST", "LATER", "--versions", "--json")
    assert done.code == 1
    assert done.err.startswith("Error: TEST: ListContainer ")
    assert done.err.count("\n") == 1
    (told,) = map(json.loads, done.out.splitlines())
    # Before the first upload there is nothing.
    assert (told["name"], told["versions"]["items"], told["versions"]["supported"]) == ("LATER", 0, True)


def test_a_report_has_no_place_for_versions(one_site: CommandPlace) -> None:
    done = one_site.run("usage", "TEST", "--srr", "--versions")
    assert (done.code, done.out) == (2, "")
    assert "--versions" in done.err


def test_how_far_it_is_is_shown_at_a_terminal(tmp_path: Path) -> None:
    with EmbeddedCloud(name="versions") as cloud:
        place = new_place("v3", cloud, 1, tmp_path)
        place.put("file", b"x")
        done = place.terminal("usage", "TEST", "--versions", columns=80)
        place.storage.close()
    assert done.code == 0
    assert "0 files, 0 old versions" in done.out
