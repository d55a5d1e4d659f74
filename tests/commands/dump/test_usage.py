"""``rucio-cs3 usage``: how full clouds are, one by one and all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import requests

from rucio_cs3 import places
from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.commands.clouds import CommandPlace, new_place
from tests.commands.dump.contents import TREE


def test_usage_of_clouds(filled: CommandPlace) -> None:
    done = filled.run("usage", "TEST", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    quota = filled.storage.quota(filled.folder)
    assert (told["name"], told["total"]) == ("TEST", quota.total_bytes)
    assert told["unlimited"] is (quota.remaining_bytes is None)
    if filled.kind == "spaces":
        # The space's own numbers, with what other tests have put there.
        assert told["used"] == quota.used_bytes >= sum(map(len, TREE.values()))
    else:
        # The disk's own numbers; others write to it meanwhile.
        disk = os.statvfs(filled.disk())
        assert told["total"] == disk.f_blocks * disk.f_frsize
        assert 0 < told["used"] < told["total"]
    table = filled.run("usage", "--all", "--no-trash", COLUMNS="40")
    assert table.code == 0
    assert "TEST" in table.out
    assert all(len(line) <= 40 for line in table.out.splitlines())


def test_usage_of_a_folder_that_is_not_there_yet(site: CommandPlace) -> None:
    site.add_entry("LATER", folder=f"{site.folder.path}/not/yet")
    site.storage.delete(site.put("another", b"deleted"))
    done = site.run("usage", "LATER", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["total"] == site.storage.quota(site.folder).total_bytes
    # What others have deleted is not this folder's.
    assert told["trash"] == {"items": 0, "bytes": 0, "of_unknown_size": 0}
    assert json.loads(site.run("usage", "TEST", "--json").out)["trash"]["items"] == 1


def test_one_cloud_that_fails_does_not_hide_the_others(one_site: CommandPlace) -> None:
    one_site.add_entry("WRONG", password="mistyped")
    done = one_site.run("usage", "--all", "--json")
    assert done.code == 1
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["TEST"]
    assert done.err.startswith("Error: WRONG: ")
    assert "mistyped" not in done.err


def test_a_storage_resource_report(one_site: CommandPlace) -> None:
    done = one_site.run("usage", "TEST", "--srr", "--name", "Example")
    service = json.loads(done.out)["storageservice"]
    share = service["storageshares"][0]
    assert service["name"] == "Example"
    assert (share["name"], share["assignedendpoints"]) == ("TEST", [service["storageendpoints"][0]["name"]])
    assert 0 < share["usedsize"] < share["totalsize"] == service["storagecapacity"]["online"]["totalsize"]
    assert one_site.url("x").startswith(service["storageendpoints"][0]["endpointurl"].partition("://")[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "--all"), (("TEST", "--all"), "--all"), (("TEST", "--srr", "--json"), "--srr")],
)
def test_wrong_usage_of_usage(one_site: CommandPlace, arguments: tuple[str, ...], words: str) -> None:
    done = one_site.run("usage", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_only_rses_are_pushed(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rucio's clients are imported for it, and want a configuration.
    (one_site.local.parent / "no-rucio" / "etc").mkdir(parents=True)
    (one_site.local.parent / "no-rucio" / "etc" / "rucio.cfg").write_text("[common]\n")

    def unknown(name: str, _url: str | None) -> Cloud:
        raise places.NoSuchRSE(f"Rucio knows no RSE {name}")

    with monkeypatch.context() as patch:
        patch.setattr(places, "_of_rse", unknown)
        done = one_site.run("usage", "TEST", "--push")
    assert (done.code, done.err) == (
        1,
        "Error: TEST: TEST is a section of the clouds file, and only an RSE will do here; Rucio knows no RSE TEST\n",
    )
    # And --all means all RSEs.
    monkeypatch.setattr(places, "names_of_rses", lambda: iter(()))
    done = one_site.run("usage", "--all", "--push")
    assert (done.code, done.err) == (1, "Error: there is no RSE that is a CS3 cloud\n")
    # Whatever a section is called.
    monkeypatch.setattr(places, "names_of_rses", lambda: iter(["TEST"]))
    done = one_site.run("usage", "--all", "--push")
    assert (done.code, done.err.partition(" ")[2].partition(" ")[0]) == (1, "TEST:")


def test_watching_outlives_an_outage_of_rucio(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    outages: list[Exception] = [
        errors.ConfigurationError("Rucio cannot be asked for its RSEs: away"),
        requests.exceptions.ConnectionError("nobody listens\nat all"),
    ]
    pauses: list[float] = []

    def names_of_rses() -> list[str]:
        if len(pauses) in (1, 2):
            raise outages[len(pauses) - 1]
        return []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(places, "names_of_rses", names_of_rses)
    monkeypatch.setattr("rucio_cs3.cli.usage.time.sleep", pause)
    done = one_site.run("usage", "--all", "--json", "--no-trash", "--watch", "7")
    assert done.code == 0
    assert pauses == [7.0] * 4
    # What can be asked is told each time.
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["TEST"] * 4
    said = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert said == ["Error: Rucio cannot be asked for its RSEs: away", "Error: nobody listens"]


def test_no_cloud_at_all_is_said(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "names_of_rses", lambda: iter(()))
    one_site.clouds_file.write_text("")
    done = one_site.run("usage", "--all")
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no cloud is configured, and no RSE is one\n"


def test_one_space_counts_once_in_a_report(tmp_path: Path) -> None:
    with EmbeddedCloud(name="shared", behaviour=Behaviour.SPACES, quota_bytes=10_000) as cloud:
        place = new_place("spaces", cloud, 1, tmp_path)
        place.put("mine", b"m" * 1000)
        place.add_entry("ALSO", folder=f"{place.folder.path}/also")
        service = json.loads(place.run("usage", "TEST", "ALSO", "--srr").out)["storageservice"]
        place.storage.close()
    assert [share["usedsize"] for share in service["storageshares"]] == [1000, 1000]
    assert service["storagecapacity"]["online"] == {"usedsize": 1000, "totalsize": 10_000}


def test_what_is_free_of_a_space_is_what_the_others_in_it_leave(tmp_path: Path) -> None:
    """OpenCloud's answer about a folder knows nothing of what else is in the space."""
    with EmbeddedCloud(name="full", behaviour=Behaviour.SPACES, quota_bytes=10_000) as cloud:
        place = new_place("spaces", cloud, 1, tmp_path)
        place.put("mine", b"m" * 1000)
        cloud.path_on_disk("others").write_bytes(b"o" * 6000)
        told = json.loads(place.run("usage", "TEST", "--json").out)
        place.storage.close()
    assert (told["total"], told["used"], told["remaining"]) == (10_000, 7000, 3000)
