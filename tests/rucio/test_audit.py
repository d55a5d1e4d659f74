"""``rucio-cs3 audit`` and ``usage --push`` at a real Rucio: what is lost and dark is found, and nothing changes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk

pytestmark = [pytest.mark.rucio, pytest.mark.reva]

PROGRAM = Path(sys.executable).parent / "rucio-cs3"
KINDS = ("v3", "spaces", "reva")

#: Uploaded by Rucio to each RSE.
FILES = ("kept", "lost", "grown")

#: Files that are on the disk, and Rucio knows nothing of; one of them has just been written.
DARK, YOUNG = "dark/ab/cd/never heard of", "dark/just written"

_TWO_DAYS_S = 2 * 86400


@dataclass
class Scene:
    """A Rucio, an RSE of each kind of cloud with something wrong at each, and what an audit said of it."""

    rucio: RecordedRucio
    rses: dict[str, Rse]
    folder: Path
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def scope(kind: str) -> str:
        return f"audited-{kind}"

    def path(self, kind: str, name: str) -> str:
        """Of a replica, below the prefix."""
        rse = self.rses[kind]
        return str(on_disk(rse, self.scope(kind), name).relative_to(rse.cloud.path_on_disk(rse.folder)))

    def out(self, kind: str) -> Path:
        return self.folder / f"audit-{kind}"

    def audit(self, kind: str) -> dict[str, Any]:
        if kind not in self.reports:
            self.reports[kind] = self.audited(self.rses[kind].name, "-o", self.out(kind))
        return self.reports[kind]

    def audited(self, *arguments: object, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What an audit says that is not plausible: of so few files each is more than a tenth."""
        done = self.rucio._run(
            [PROGRAM, "audit", *map(str, arguments), "--json"],
            environment or self.rucio.daemon_environment,
            timeout_s=60,
            check=False,
        )
        report: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode, report["plausible"]) == (1, False)
        return report


@pytest.fixture(scope="module")
def scene(
    sandbox_rucio: RecordedRucio, reva_sites: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("audited")
    with contextlib.ExitStack() as stack:
        clouds: dict[str, Any] = {
            "v3": stack.enter_context(EmbeddedCloud(name="audited-v3")),
            "spaces": stack.enter_context(EmbeddedCloud(name="audited-spaces", behaviour=Behaviour.SPACES)),
            "reva": reva_sites[0],
        }
        rses = {kind: Rse(f"AUDITED-{kind.upper()}", cloud, "http", folder="audited") for kind, cloud in clouds.items()}
        sandbox_rucio.add_rses(*rses.values())
        made = Scene(sandbox_rucio, rses, folder)
        for kind, rse in rses.items():
            scope = made.scope(kind)
            sandbox_rucio.add_scope(scope)
            local = folder / kind
            local.mkdir()
            for name in FILES:
                (local / name).write_bytes(name.encode())
            files = [str(local / name) for name in FILES]
            sandbox_rucio.rucio("upload", "--rse", rse.name, "--scope", scope, *files)
            on_disk(rse, scope, "lost").unlink()
            on_disk(rse, scope, "grown").write_bytes(b"grown by somebody else")
            for path in (DARK, YOUNG):
                place = rse.cloud.path_on_disk(f"{rse.folder}/{path}")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(b"dark")
            long_ago = time.time() - _TWO_DAYS_S
            os.utime(rse.cloud.path_on_disk(f"{rse.folder}/{DARK}"), (long_ago, long_ago))
        yield made


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_lost_and_dark_files_are_found(scene: Scene, kind: str) -> None:
    before = files_below(scene.rses[kind]), scene.rucio.replica_states(scene.scope(kind))
    report = scene.audit(kind)
    assert {name: report[name] for name in ("lost", "dark", "different", "young", "gone")} == {
        "lost": 1,
        "dark": 1,
        "different": 1,
        "young": 1,
        "gone": 0,
    }
    assert report["seen"] == {"before": 3, "storage": 4, "after": 3}
    assert (report["lost_bytes"], report["dark_bytes"], report["looked"]) == (len("lost"), len("dark"), True)
    out = scene.out(kind)
    scope = scene.scope(kind)
    assert rows(out / "lost.tsv") == [[scene.path(kind, "lost"), scope, "lost", "4"]]
    assert [row[:2] for row in rows(out / "dark.tsv")] == [[DARK, "4"]]
    assert [row[:3] for row in rows(out / "different.tsv")] == [[scene.path(kind, "grown"), scope, "grown"]]
    assert (out / "lost.pfns").read_text().endswith(f"/audited/{scene.path(kind, 'lost')}\n")
    assert json.loads((out / "summary.json").read_text()) == report
    # Nothing was changed anywhere.
    assert (files_below(scene.rses[kind]), scene.rucio.replica_states(scope)) == before


@pytest.mark.parametrize("kind", ["spaces"])
def test_the_same_by_rest_and_from_files(scene: Scene, kind: str, tmp_path: Path) -> None:
    scene.audit(kind)
    rse, out = scene.rses[kind].name, scene.out(kind)
    client = scene.rucio.environment
    by_rest = scene.audited(rse, "-o", tmp_path / "rest", "--scope", scene.scope(kind), environment=client)
    given = ("--before", out / "before.gz", "--storage", out / "storage.gz", "--after", out / "after.gz", "--no-look")
    from_files = scene.audited(rse, "-o", tmp_path / "files", *given, environment=client)
    for counts, folder in ((by_rest, "rest"), (from_files, "files")):
        assert (counts["lost"], counts["dark"], counts["different"], counts["young"]) == (1, 1, 1, 1)
        for name in ("lost.tsv", "lost.pfns", "dark.tsv", "different.tsv"):
            assert (tmp_path / folder / name).read_text() == (out / name).read_text()


_CONSISTENCY = """
import sys
from rucio.common.dumper.consistency import Consistency
rse, before, storage, after, cache = sys.argv[1:]
for one in Consistency.dump("consistency-manual", rse, storage, before, after, cache_dir=cache):
    print("FOUND", one.csv())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_rucios_own_tool_reads_our_dumps(scene: Scene, kind: str, tmp_path: Path) -> None:
    scene.audit(kind)
    rse, out = scene.rses[kind], scene.out(kind)
    for name in ("dump.gz", "dump_20261121") if kind == "reva" else ("dump.gz",):
        scene.rucio.cs3("dump", rse.name, "-o", str(tmp_path / name))
        cache = tmp_path / f"cache-{name}"
        cache.mkdir()
        said = scene.rucio._run(
            [sys.executable, "-c", _CONSISTENCY, rse.name, out / "before.gz", tmp_path / name, out / "after.gz", cache],
            scene.rucio.daemon_environment,
            timeout_s=60,
        )
        found = sorted(line.removeprefix("FOUND ") for line in said.stdout.splitlines() if line.startswith("FOUND "))
        assert found == sorted([f"DARK,{DARK}", f"DARK,{YOUNG}", f"LOST,{scene.path(kind, 'lost')}"])
    # And ours is in the form of its results, without those too young to say.
    results = next(out.glob(f"{rse.name}_*")).read_text().splitlines()
    assert sorted(results) == sorted([f"DARK,{DARK}", f"LOST,{scene.path(kind, 'lost')}"])


def test_what_is_there_after_all_is_not_called_lost(scene: Scene, tmp_path: Path) -> None:
    """A dump that is older than the file: a second look shows it."""
    kind = "v3"
    scene.audit(kind)
    out, rse = scene.out(kind), scene.rses[kind]
    with gzip.open(out / "storage.gz", "rt") as file:
        paths = [json.loads(line)["path"] for line in file]
    # Somebody else's dump, in no order, and without a manifest: full paths.
    (tmp_path / "foreign").write_text(
        "".join(f"{rse.protocol()['prefix']}{path}\n" for path in reversed(paths) if path != scene.path(kind, "kept"))
    )
    report = scene.audited(
        *(rse.name, "-o", tmp_path / "out", "--before", out / "before.gz"),
        *("--storage", tmp_path / "foreign", "--after", out / "after.gz"),
    )
    assert (report["lost"], report["gone"]) == (1, 1)
    assert [row[2] for row in rows(tmp_path / "out" / "lost.tsv")] == ["lost"]
    # It has no times, and the second look has.
    assert (report["dark"], report["young"]) == (1, 1)


def test_a_dump_that_is_not_complete_says_nothing_of_lost_files(scene: Scene, tmp_path: Path) -> None:
    kind = "v3"
    scene.audit(kind)
    out = scene.out(kind)
    (tmp_path / "storage.gz").write_bytes((out / "storage.gz").read_bytes())
    manifest = json.loads((out / "storage.gz.json").read_text())
    (tmp_path / "storage.gz.json").write_text(json.dumps({**manifest, "complete": False}))
    done = _failing(
        scene,
        *("audit", scene.rses[kind].name, "-o", tmp_path / "out", "--before", out / "before.gz"),
        *("--storage", tmp_path / "storage.gz", "--after", out / "after.gz", "--no-look"),
    )
    assert (
        done
        == f"Error: {tmp_path}/storage.gz is not complete, as its manifest says, so nothing can be said to be lost\n"
    )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "NO-SUCH-RSE"), "NO-SUCH-RSE"),
        (("audit", "AUDITED-V3", "--storage", __file__), "--before"),
        (("audit", "AUDITED-V3", "--after", __file__), "--storage"),
        (("usage", "NO-SUCH-RSE", "--push"), "NO-SUCH-RSE"),
    ],
)
def test_wrong_input_is_one_sentence(scene: Scene, arguments: tuple[str, ...], words: str) -> None:
    said = _failing(scene, *arguments)
    assert words in said
    assert "Traceback" not in said


def test_a_section_of_the_name_of_an_rse_is_passed_over(scene: Scene, tmp_path: Path) -> None:
    scene.audit("v3")
    rse = scene.rses["v3"]
    cloud: Any = rse.cloud
    user = next(iter(cloud.users.values()))
    section = (
        f"url = {cloud.webdav_url}/nothing-there\ncs3_gateway = {cloud.gateway}\ncs3_gateway_tls = false\n"
        f"cs3_root = {cloud.root}\nusername = {user.username}\npassword = {user.password}\n"
    )
    clouds = tmp_path / "clouds.cfg"
    clouds.touch(mode=0o600)
    clouds.write_text(f"[{rse.name}]\n{section}[MINE]\n{section}")
    named = {"RUCIO_CS3_CLOUDS": str(clouds)}
    report = scene.audited(rse.name, "-o", tmp_path / "out", environment={**scene.rucio.daemon_environment, **named})
    assert (report["lost"], report["dark"]) == (scene.reports["v3"]["lost"], scene.reports["v3"]["dark"]) != (0, 0)
    said = scene.rucio._run(
        [PROGRAM, "usage", rse.name, "--push", "--json"], {**scene.rucio.environment, **named}, timeout_s=60
    ).stdout
    assert json.loads(said)["folder"].endswith("/audited")
    for command in (("audit", "MINE"), ("usage", "MINE", "--push")):
        said = _failing(scene, *command, **named)
        assert "MINE is a section of the clouds file, and only an RSE will do here; Rucio knows no RSE MINE" in said
        assert said.count("\n") == 1
    assert user.password not in said


def _failing(scene: Scene, *arguments: object, **more: str) -> str:
    """What a command says that fails."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], **scene.rucio.daemon_environment, **more},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=scene.folder,
    )
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    return done.stderr


# -- usage ---------------------------------------------------------------------------------------------------------

_USAGE = """
import json, sys
from rucio.client import Client
print(json.dumps({u["source"]: [u["used"], u["free"], u["total"]] for u in Client().get_rse_usage(sys.argv[1])}))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_rucio_is_told_how_full_it_is(scene: Scene, kind: str) -> None:
    rse = scene.rses[kind].name
    said = scene.rucio.cs3("usage", rse, "--push", "--json")
    if kind == "spaces":  # not root, not even with the database
        said = scene.rucio._run(
            [PROGRAM, "usage", rse, "--push", "--json"], scene.rucio.environment, timeout_s=60
        ).stdout
    told = json.loads(said)
    kept = json.loads(scene.rucio.python(_USAGE, rse))
    used, free, total = kept["storage"]
    assert (used, total) == (told["used"], used + free)
    assert free == (2**62 if told["unlimited"] else told["remaining"])
    assert told["unlimited"] is (kind == "spaces")
    assert kept["trash"][0] == told["trash"]["bytes"]


_EXPIRE = """
import sys
from rucio.client import Client
client = Client()
client.set_rse_limits(sys.argv[1], "MinFreeSpace", 2**61)
for rule in client.list_replication_rules({"scope": sys.argv[2]}):
    client.update_replication_rule(rule["id"], {"lifetime": 0})
"""


def test_the_reaper_reads_what_it_is_told(sandbox_rucio: RecordedRucio, tmp_path: Path) -> None:
    """Without a usage it deletes nothing but what is marked obsolete; with one it makes room."""
    scope = "crowded"
    with EmbeddedCloud(name=scope) as cloud:
        rse = Rse("CROWDED", cloud, "http")
        sandbox_rucio.add_rses(rse)
        sandbox_rucio.add_scope(scope)
        (tmp_path / "file").write_bytes(b"in the way")
        sandbox_rucio.rucio("upload", "--rse", rse.name, "--scope", scope, str(tmp_path / "file"))
        sandbox_rucio.python(_EXPIRE, rse.name, scope)
        sandbox_rucio.daemon("judge-cleaner")

        def reap() -> set[str]:
            sandbox_rucio._run(
                [PROGRAM.with_name("rucio-reaper"), "--run-once", "--delay-seconds", "0", "--rses", rse.name],
                sandbox_rucio.daemon_environment,
                timeout_s=60,
            )
            return files_below(rse)

        assert reap() == {"file"}
        sandbox_rucio.cs3("usage", rse.name, "--push")
        assert reap() == set()
