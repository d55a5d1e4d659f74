"""An audit says nothing of what it cannot know: odd names, dumps that do not fit, files that came late."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rucio_cs3 import clouds, places
from rucio_cs3.cli import audit
from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.inventory import auditing, dump, manifest
from rucio_cs3.inventory.auditing import Audit, Report
from rucio_cs3.inventory.catalogue import Replica
from rucio_cs3.inventory.dump import Dump

LONG_AGO_S = 1_000_000.0


class Storage:
    """Files in memory: path below the RSE's folder -> size, seconds since the epoch."""

    def __init__(self, folder: Reference, files: dict[str, tuple[int, float]]) -> None:
        self.folder = folder
        self.files = files
        self.failures: dict[str, errors.CS3Error] = {}
        self.looked: list[str] = []
        self.recycle_bin = self

    def items(self, _reference: Reference) -> Any:
        raise errors.Unsupported("no recycle bin")

    def _below(self, reference: Reference) -> str:
        return reference.path[len(self.folder.path) + 1 :]

    def _info(self, path: str) -> FileInfo:
        size, mtime_s = self.files[path]
        return FileInfo(reference=self.folder.child(path), size=size, is_directory=False, mtime_s=mtime_s)

    def stat(self, reference: Reference) -> FileInfo:
        path = self._below(reference)
        if not path:
            return FileInfo(reference=reference, size=0, is_directory=True)
        self.looked.append(path)
        if path in self.failures:
            raise self.failures[path]
        if any(one.startswith(f"{path}/") for one in self.files):
            return FileInfo(reference=reference, size=0, is_directory=True)
        if path not in self.files:
            raise errors.NotFound("is not there")
        return self._info(path)

    def list(self, reference: Reference, *, is_folder: bool) -> Entries:
        assert is_folder
        path = self._below(reference)
        above = f"{path}/" if path else ""
        if above in self.failures:
            raise self.failures[above]
        below = [one[len(above) :] for one in self.files if one.startswith(above)]
        folders = {one.partition("/")[0] for one in below if "/" in one}
        found = Entries(self._info(above + one) for one in below if "/" not in one)
        found += (FileInfo(reference=reference.child(one), size=0, is_directory=True) for one in folders)
        return found


class Scene:
    """An RSE with files that are as Rucio has them, and what is made to differ."""

    def __init__(self, folder: Path, cloud: Cloud, storage: Storage) -> None:
        self.folder, self.cloud, self.storage = folder, cloud, storage
        self.replicas: list[Replica] = []

    def add(self, path: str, *, name: str = "n", there: bool = True, size: int = 3, **values: Any) -> None:
        if there:
            self.storage.files[path] = (3, LONG_AGO_S)
        values.setdefault("created_at", "2020-01-01 00:00:00")
        self.replicas.append(
            Replica(rse="T", scope="s", name=name, path=path, size=size, adler32=None, **values),
        )

    def audit(self, **given: Any) -> Report:
        given.setdefault("cloud", self.cloud)
        self.out = self.folder / f"out-{time.monotonic_ns()}"
        wanted = auditing.Wanted(rse="T", folder=self.out, **given)
        return Audit(wanted, lambda: self.replicas).run()

    def rows(self, name: str) -> list[list[str]]:
        return [line.split("\t") for line in (self.out / name).read_text().split("\n")[:-1]]

    def dumped(self, name: str, **changes: Any) -> Path:
        """A dump of the storage, with the manifest of one of this RSE, and other values in it."""
        path = self.folder / name
        wanted = dump.Wanted(
            cloud="T", gateway=self.cloud.endpoint.gateway, top=self.cloud.folder, **changes.pop("wanted", {})
        )
        made = Dump(wanted, lambda one: self.storage.list(one, is_folder=True)).run(path)
        manifest.path_of(path).write_text(manifest.written(replace(made, **changes)))
        return path

    def given(self, **changes: Any) -> dict[str, Path]:
        """All three, in their right order."""
        self.audit()
        before, after = self.out / "before.gz", self.out / "after.gz"
        storage = self.dumped("storage.gz", **changes)
        os.utime(before, (1, 1))
        os.utime(after, (time.time() + 10, time.time() + 10))
        return {"before": before, "storage": storage, "after": after}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    values = {
        "url": "https://cloud.example/remote.php/webdav/rse",
        "cs3_gateway": "cloud.example:19000",
        "cs3_root": "/home",
        "username": "u",
        "password": "p",
    }
    cloud = clouds.from_settings("T", values, where="here")
    storage = Storage(cloud.folder, {})
    monkeypatch.setattr(Cloud, "storage", property(lambda _self: storage))
    made = Scene(tmp_path, cloud, storage)
    for number in range(20):
        made.add(f"a/{number}", name=f"{number}")
    return made


def counts(report: Report) -> dict[str, int]:
    """Those that are not 0."""
    every = ("lost", "dark", "different", "young", "gone", "not_looked_at", "untold", "unlisted")
    return {name: getattr(report, name) for name in every if getattr(report, name)}


@pytest.mark.parametrize("path", ["b/ends in a space ", " begins so", "b/\u3000wide\u3000", "b/\x85", "b/ü\u2028"])
def test_spaces_belong_to_names(scene: Scene, path: str) -> None:
    scene.add(path, name=path)
    assert counts(scene.audit()) == {}
    assert counts(scene.audit(**scene.given())) == {}
    del scene.storage.files[path]
    assert counts(scene.audit()) == {"lost": 1}
    assert scene.rows("lost.tsv") == [[path, "s", path, "3"]]


@pytest.mark.parametrize("character", ["\t", "\n", "\r"])
def test_of_names_that_no_line_holds_nothing_is_said(scene: Scene, character: str) -> None:
    odd = f"b/x{character}DARK,a/1"
    scene.add(odd, name=odd)
    scene.add("b/plain", name=f"n{character}n", there=False)
    scene.storage.files[f"b/dark{character}LOST,a/2"] = (3, LONG_AGO_S)
    report = scene.audit()
    assert counts(report) == {"untold": 3, "unlisted": 1}
    for name in ("lost.tsv", "dark.tsv", "lost.pfns", "different.tsv"):
        assert scene.rows(name) == []
    assert [path.read_text() for path in scene.out.glob("T_*")] == [""]


def test_a_tab_in_a_given_dump(scene: Scene) -> None:
    given = scene.given()
    with gzip.open(given["before"], "rt") as file:
        text = file.read()
    row = "T\ts\tx\ty\t\t3\t2020-01-01 00:00:00\tb/x\ty\t\tA\n"
    for name in ("before", "after"):
        changed = given[name].stat().st_mtime
        with gzip.open(given[name], "wt") as file:
            file.write(text + row)
        os.utime(given[name], (changed, changed))
    assert counts(scene.audit(**given)) == {"untold": 1}


def test_a_young_file_is_told_by_the_second_look(scene: Scene) -> None:
    """Dumps of the usual form have no times."""
    scene.storage.files["b/fresh"] = (3, time.time())
    scene.storage.files["b/old"] = (3, LONG_AGO_S)
    given = scene.given()
    assert counts(scene.audit(**given)) == {"dark": 1, "young": 1}
    assert scene.rows("dark.tsv") == [["b/old", "3", "1000000"]]
    assert counts(scene.audit(**given, grace_h=0.0)) == {"dark": 2}
    assert counts(scene.audit(**given, looks_max=0)) == {"dark": 2, "not_looked_at": 2}


@pytest.mark.parametrize(
    ("created", "updated", "counted"),
    [
        ("2020-01-01 00:00:00", "2020-01-01 00:00:00", {"lost": 1}),
        ("2020-01-01 00:00:00", "2999-01-01 00:00:00", {"young": 1}),
        ("", "", {"young": 1}),
        ("", "2020-01-01 00:00:00", {"young": 1}),
    ],
)
def test_what_a_dump_of_old_files_may_have_left_out_is_not_lost(
    scene: Scene, created: str, updated: str, counted: dict[str, int]
) -> None:
    scene.add("b/new", there=False, created_at=created, updated_at=updated)
    given = scene.given(wanted={"older_than_h": 1.0})
    assert counts(scene.audit(**given)) == counted


def test_one_odd_replica_does_not_end_an_audit(scene: Scene) -> None:
    scene.add("b/refused", name="refused", there=False)
    scene.add("b/../odd", name="odd", there=False)
    scene.add("b/folder", name="folder", there=False)
    scene.storage.files["b/folder/in it"] = (3, LONG_AGO_S)
    scene.storage.failures["b/refused"] = errors.ServerFault("below a file")
    report = scene.audit()
    assert counts(report) == {"lost": 3, "dark": 1, "not_looked_at": 2}
    assert [row[2] for row in scene.rows("lost.tsv")] == ["odd", "folder", "refused"]
    # What nobody could look for is not offered to be declared.
    assert report.pfns == 1
    assert [row[0].rpartition("/")[2] for row in scene.rows("lost.pfns")] == ["folder"]


def test_a_server_that_is_away_is_asked_no_more(scene: Scene) -> None:
    for number in range(30):
        scene.add(f"b/{number}", there=False)
    scene.storage.failures.update({f"b/{number}": errors.Unavailable("away") for number in range(30)})
    report = scene.audit()
    assert counts(report) == {"lost": 30, "not_looked_at": 30}
    assert (len(scene.storage.looked), report.pfns) == (auditing._LOOKS, 0)


def test_another_size_is_looked_at_once_more(scene: Scene) -> None:
    scene.add("b/grown", size=5)
    scene.add("b/still other", size=7)
    given = scene.given()
    scene.dumped("storage.gz", wanted={"form": "long"})
    os.utime(given["after"], (time.time() + 20, time.time() + 20))
    scene.storage.files["b/grown"] = (5, LONG_AGO_S)
    assert counts(scene.audit(**given)) == {"different": 1, "gone": 1}
    assert [row[0] for row in scene.rows("different.tsv")] == ["b/still other"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda scene, given: scene.given(gateway="other.example:19000"), "is a dump of /home/rse at other.example"),
        (lambda scene, given: scene.given(folder="/home/other"), "is a dump of /home/other at cloud.example"),
        (lambda scene, given: scene.given(below="a"), "not of T: /home/rse/a at"),
        (lambda scene, given: scene.given(complete=False), "is not complete"),
        (lambda scene, given: os.utime(given["before"], (time.time() + 10, time.time() + 10)), "must be older than"),
        (lambda scene, given: os.utime(given["after"], (1, 1)), "must be younger than"),
        (lambda scene, given: scene.given(began_at="yesterday"), "is no time"),
    ],
)
def test_dumps_that_do_not_fit_are_refused(
    scene: Scene, spoil: Callable[[Scene, dict[str, Path]], Any], words: str
) -> None:
    given = scene.given()
    assert counts(scene.audit(**given)) == {}
    given = spoil(scene, given) or given
    with pytest.raises(errors.LocalError, match=words):
        scene.audit(**given)
    assert list(scene.out.iterdir()) == []


def test_urls_are_understood_also_where_nobody_looks(scene: Scene) -> None:
    given = scene.given()
    given["storage"] = scene.folder / "urls"
    given["storage"].write_text("".join(f"{scene.cloud.url(scene.cloud.reference(f'a/{n}'))}\r\n" for n in range(20)))
    assert counts(scene.audit(**given, looks_max=0)) == {}


def test_the_report_says_what_was_not_looked_for(scene: Scene) -> None:
    scene.add("b/lost", there=False)
    report = scene.audit(looks_max=0)
    assert (report.looked, report.pfns) == (False, 1)
    assert json.loads((scene.out / "summary.json").read_text()) == report.as_dict()
    assert report.as_dict()["looked"] is False


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``rucio-cs3 audit T`` at a Rucio that is the scene's."""
    monkeypatch.setattr(places, "cloud_of_rse", lambda _name: replace(scene.cloud, rse={"rse": "T"}))
    monkeypatch.setattr(audit, "_source", lambda _scopes: lambda _cloud: scene.replicas)

    def run(*arguments: object) -> Result:
        scene.out = scene.folder / "lists"
        words = [str(argument) for argument in ("T", "-o", scene.out, *arguments)]
        return CliRunner().invoke(audit.command, words)

    return run


def test_what_the_command_says_of_lost_files(scene: Scene, command: Callable[..., Result]) -> None:
    done = command()
    assert (done.exit_code, "rucio replica" in done.output) == (0, False)
    scene.add("b/lost", there=False)
    for given in ((), ("--no-look", *(word for name, path in scene.given().items() for word in (f"--{name}", path)))):
        done = command(*given)
        assert (done.exit_code, "rucio replica state update bad" in done.output) == (0, True)
        assert ("not looked for once more: 1 files" in done.output) is bool(given)
        assert (scene.out / "lost.pfns").read_text().endswith("/rse/b/lost\n")
    scene.storage.failures["b/lost"] = errors.ServerFault("nobody knows")
    done = command()
    assert (done.exit_code, "lost: 1 files" in done.output, "rucio replica" in done.output) == (0, True, False)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_is_not_plausible_is_a_failure_with_lists(
    scene: Scene, command: Callable[..., Result], form: tuple[str, ...]
) -> None:
    scene.storage.files.clear()
    done = command(*form)
    assert done.exit_code == 1
    assert "rucio replica" not in done.output
    if form:
        assert json.loads(done.stdout)["plausible"] is False
    else:
        assert "NOT PLAUSIBLE" in done.output
    assert len(scene.rows("lost.tsv")) == 20


def test_a_folder_that_cannot_be_listed_ends_an_audit(scene: Scene, command: Callable[..., Result]) -> None:
    scene.storage.failures["a/"] = errors.AccessDenied("it is not yours")
    done = command()
    assert done.exit_code == 1
    assert "it is not yours" in done.output
    assert "there is no audit" in done.output
    assert "--" not in done.output
