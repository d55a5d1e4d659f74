"""``rucio-cs3 dump``: all files below a folder, as they are on the server's disk, or no file under that name."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import requests

from rucio_cs3 import places
from rucio_cs3.cs3 import errors
from rucio_cs3.inventory import dump as dumping
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from tests.commands.clouds import CommandPlace, new_place
from tests.commands.running import environment_of, wait_until

TREE = {
    "one": b"1",
    "scope/ab/cd/data-01.root": b"abc" * 1000,
    "scope/ab/cd-more/with space": b"",
    "scope/ab/cd.d/pct%23#?": b"x",
    "été/\U0001f600": b"smile",
    ".hidden/file": b"seen",
}


@pytest.fixture
def filled(site: CommandPlace) -> CommandPlace:
    """The tree, on the server's disk."""
    for path, content in TREE.items():
        on_disk = site.disk(path)
        on_disk.parent.mkdir(parents=True, exist_ok=True)
        on_disk.write_bytes(content)
    site.disk("empty").mkdir()
    return site


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()


def paths_on_disk(site: CommandPlace) -> list[str]:
    """As the server's disk has them, in the order of a dump."""
    top = site.disk()
    found = [str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]
    return sorted(found, key=str.encode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_that_is_on_the_disk_is_in_the_dump(filled: CommandPlace) -> None:
    out = filled.local / "dump.gz"
    done = filled.run("dump", "TEST", "-o", out)
    assert (done.code, done.err) == (0, "")
    assert text_of(out).splitlines() == paths_on_disk(filled) == sorted(TREE, key=str.encode)
    assert done.out.startswith(f"dump.gz: {len(TREE)} files, 3.0 kB, in 8 folders\n")
    assert names(filled.local) == ["dump.gz", "dump.gz.json"]
    made = json.loads((filled.local / "dump.gz.json").read_text())
    assert (made["complete"], made["counts"]["files"], made["runs"]) == (True, len(TREE), 1)
    assert made["gateway"] == filled.cloud.gateway
    user = next(iter(filled.cloud.users.values()))
    assert user.password not in (filled.local / "dump.gz.json").read_text() + done.out


def test_columns_and_json_tell_more(filled: CommandPlace) -> None:
    sums = filled.kind == "spaces"  # Reva's local driver keeps none
    filled.run("dump", "TEST", "--long", "-o", filled.local / "long")
    rows = [line.rsplit("\t", 3) for line in text_of(filled.local / "long").splitlines()]
    assert [row[0] for row in rows] == sorted(TREE, key=str.encode)
    for path, size, mtime, adler32 in rows:
        on_disk = filled.disk(path)
        assert (int(size), int(mtime)) == (len(TREE[path]), int(on_disk.stat().st_mtime))
        assert adler32 == (f"{zlib.adler32(TREE[path]):08x}" if sums or not TREE[path] else "-")

    done = filled.run("dump", "TEST", "--jsonl", "--json", "-o", filled.local / "lines.gz")
    objects = [json.loads(line) for line in text_of(filled.local / "lines.gz").splitlines()]
    assert [(one["path"], one["bytes"]) for one in objects] == [(row[0], int(row[1])) for row in rows]
    assert json.loads(done.out)["form"] == "jsonl"


def test_of_a_folder_the_paths_are_still_below_the_prefix(filled: CommandPlace) -> None:
    for place in ("TEST:scope/ab", filled.url("scope/ab")):
        assert filled.run("dump", place, "-o", filled.local / "dump").code == 0
        assert text_of(filled.local / "dump").splitlines() == [
            "scope/ab/cd-more/with space",
            "scope/ab/cd.d/pct%23#?",
            "scope/ab/cd/data-01.root",
        ]


def test_what_was_deleted_is_counted_apart(filled: CommandPlace) -> None:
    filled.storage.delete(filled.file("scope/ab/cd/data-01.root"))
    done = filled.run("dump", "TEST", "--json", "-o", filled.local / "dump")
    assert done.code == 0
    made = json.loads(done.out)
    assert made["counts"]["files"] == len(TREE) - 1
    assert made["trash"]["items"] == 1
    # OpenCloud lists no sizes of what is in its bins.
    unknown = filled.kind == "spaces"
    assert (made["trash"]["bytes"], made["trash"]["of_unknown_size"]) == ((0, 1) if unknown else (3000, 0))


#: Entries of one folder; a gRPC message of 4 MiB takes some 6,000.
LARGE = 30_000


def test_a_folder_of_thirty_thousand_files(site: CommandPlace) -> None:
    folder = site.disk("large")
    folder.mkdir()
    for number in range(LARGE):
        os.close(os.open(folder / f"n{number:05}", os.O_CREAT | os.O_WRONLY, 0o644))
    done = site.run("dump", "TEST", "-o", site.local / "dump.gz", cs3_call_timeout_s="60")
    assert (done.code, done.err) == (0, "")
    assert text_of(site.local / "dump.gz").splitlines() == [f"large/n{number:05}" for number in range(LARGE)]


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
    done = filled.run("dump", "TEST", "-o", out, "--threads", "1")
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
        [sys.executable, "-c", code, "dump", "TEST", "-o", str(out), "--threads", "1", str(stuck)],
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


# -- what has nothing to do with the kind of cloud ------------------------------------------------------------------


@pytest.fixture
def small(one_site: CommandPlace) -> CommandPlace:
    for number in range(4):
        folder = one_site.disk(f"d{number}")
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    one_site.add_entry("WRONG", password="mistyped")
    return one_site


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("NOWHERE", "-o", "x"), 1, "NOWHERE"),
        (("WRONG", "-o", "x"), 1, "refuses to log in einstein"),
        (("TEST:nothing", "-o", "x"), 1, "nothing"),
        (("TEST:d0/file", "-o", "x"), 1, "is a file, not a folder"),
        (("TEST",), 2, "--output"),
        (("TEST", "-o", "missing/folder/x"), 1, "local path missing/folder/x or its folder does not exist"),
        (("TEST", "-o", "."), 2, "is a directory"),
        (("TEST", "-o", "x", "--older-than", "-1"), 2, "older-than"),
    ],
)
def test_bad_input_is_one_sentence(
    small: CommandPlace, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(small.local)
    done = small.run("dump", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    if code == 1:
        assert done.err.startswith("Error: ")
        assert done.err.count("\n") == 1
    assert names(small.local) == []


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


@pytest.mark.parametrize("settings", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_at_a_narrow_terminal(small: CommandPlace, settings: dict[str, str]) -> None:
    done = small.terminal("dump", "TEST", "-o", small.local / "dump", columns=40, **settings)
    assert done.code == 0
    shown = done.out.replace("\r\n", "\n")
    assert "dump: 4 files, 4 B, in 4 folders\n" in shown
    # How far it is, in one line that comes and goes; without colours, or not at all, where those are not wanted.
    coloured = re.search(r"\x1b\[(?:\d+;)*3\d", shown)
    assert ("0 files" in shown, coloured is not None) == {
        "": (True, True),
        "NO_COLOR": (True, False),
        "TERM": (False, False),
    }["".join(settings)]
    if "TERM" in settings:
        assert "\x1b" not in shown


def test_the_help_shows_how(small: CommandPlace) -> None:
    done = small.run("dump", "--help")
    assert done.code == 0
    assert "rucio-cs3 dump CERNBOX -o dump_20261121.gz" in done.out


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
    done = site.run("usage", "LATER", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["total"] == site.storage.quota(site.folder).total_bytes


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
    done = one_site.run("usage", "TEST", "--push")
    assert (done.code, done.err) == (
        1,
        "Error: TEST: TEST is a section of the clouds file; only of RSEs Rucio is told\n",
    )
    # And --all means all RSEs.
    monkeypatch.setattr(places, "names_of_rses", lambda: iter(()))
    done = one_site.run("usage", "--all", "--push")
    assert (done.code, done.err) == (1, "Error: there is no RSE that is a CS3 cloud\n")


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
