"""``rucio-cs3 register`` with a real Rucio: by its REST interface and by its database, at each kind of cloud."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.story import Cloud, Rse, hash_path
from tests.commands.running import Done, started, wait_until
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = pytest.mark.rucio

SCOPE = "registered-cs3"
OTHER_SCOPE = "user.registered"

#: What people have put into the cloud: names that Rucio takes, and some that it does not.
TREE = {
    "top.txt": b"top",
    "run1/first event.dat": b"first" * 1000,
    "run1/Übersicht 100%.csv": b"a,b\n",
    "run1/empty": b"",
    "run1/deep/er/c.root": b"c" * 70_000,
    "run2/b.dat": b"b",
}
SKIPPED = {"run1/.rucio-cs3.0123456789abcdef.part": b"half of", "run2/x.dat.rucio.upload": b"half of"}
REFUSED = {"run2/a<b.dat": b"<", 'run2/quo"ted': b"", "run2/colon:ed": b""}


#: Kinds of files that are not told to people one by one.
FINE = ("registered", "already registered", "unfinished upload", "excluded")


@dataclass
class Site:
    """A Rucio with RSEs of all kinds, none of which has a file that Rucio knows."""

    rucio: RecordedRucio
    rses: dict[str, Rse] = field(default_factory=dict)

    def disk(self, rse: str, path: str = "") -> Path:
        return self.rses[rse].cloud.path_on_disk(f"{self.rses[rse].folder}/{path}".rstrip("/"))

    def fill(self, rse: str, tree: dict[str, bytes], below: str = "", *, mtime_s: int = 1_700_000_000) -> None:
        """Files that come into the cloud by another way than this package's."""
        for path, content in tree.items():
            file = self.disk(rse, f"{below}/{path}".strip("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            os.utime(file, (mtime_s, mtime_s))

    def state(self, rse: str) -> dict[str, tuple[Any, ...]]:
        """All that is on the disk of an RSE, and what changes with any change of it."""
        return {
            str(path.relative_to(self.disk(rse))): (
                *((s := path.stat()).st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode),
                None if path.is_dir() else path.read_bytes(),
            )
            for path in sorted(self.disk(rse).rglob("*"))
        }

    def environment(self, *, server: bool, **more: str) -> dict[str, str]:
        own = self.rucio.daemon_environment if server else self.rucio.environment
        return {**clean_environment(own), **own, **more}

    def register(self, *arguments: str, server: bool = False, **more: str) -> Done:
        """Run it; ``server``: with the configuration of a server, which names the database."""
        with started(("register", *arguments), self.environment(server=server, **more)) as running:
            return running.end()

    def rows(self, *arguments: str, server: bool = False) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Rows by place, and the sum, of JSON; of the rows what was left out, or would be registered."""
        done = self.register(*arguments, "--json", server=server)
        *lines, last = map(json.loads, done.out.splitlines())
        assert done.code == (0 if last["all_well"] else 1), done.err
        assert Counter(line["status"] for line in lines) == Counter(last["files"])
        if "--dry-run" not in arguments:
            lines = [line for line in lines if line["status"] not in FINE]
        return {line["place"].partition(":")[2]: line for line in lines}, last

    def replicas(self, rse: str) -> dict[tuple[str, str], tuple[int, str | None, str | None, Any]]:
        """(scope, name) -> bytes, adler32, state, tombstone."""
        rows = self.rucio.query(
            "SELECT scope, name, bytes, adler32, state, tombstone FROM replicas WHERE rse_id = "
            "(SELECT id FROM rses WHERE rse = ?)",
            rse,
        )
        return {(scope, name): tuple(rest) for scope, name, *rest in rows}


@pytest.fixture(scope="module")
def site(sandbox_rucio: RecordedRucio) -> Iterator[Site]:
    with (
        EmbeddedCloud(name="register-v3") as v3,
        EmbeddedCloud(name="register-spaces", behaviour=Behaviour.SPACES) as spaces,
    ):
        found = Site(sandbox_rucio)
        made = {
            "free": [Rse("REG-V3", v3, "http", folder="v3"), Rse("REG-SPACES", spaces, "http", folder="spaces")],
            "fixed": [Rse("REG-FIXED", spaces, "http", folder="fixed")],
            "risky": [Rse("REG-RISKY", spaces, "http", folder="risky")],
        }
        made["free"].append(Rse("REG-ODD", spaces, "http", folder="odd"))
        sandbox_rucio.add_rses(*made["free"], deterministic=False)
        sandbox_rucio.add_rses(*made["fixed"])
        sandbox_rucio.add_rses(*made["risky"], deterministic=False, attributes={"tombstone_delay": "-1"})
        found.rses = {rse.name: rse for kind in made.values() for rse in kind}
        sandbox_rucio.add_scope(SCOPE)
        sandbox_rucio.add_scope(OTHER_SCOPE)
        yield found


@pytest.fixture(params=["REG-V3", "REG-SPACES", pytest.param("REG-REVA", marks=pytest.mark.reva)])
def rse(site: Site, request: pytest.FixtureRequest) -> str:
    """A non-deterministic RSE at each kind of cloud in turn."""
    name: str = request.param
    if name not in site.rses:
        cloud: Cloud = request.getfixturevalue("reva_sites")[0]
        site.rses[name] = Rse(name, cloud, "http", folder="registered")
        site.rucio.add_rses(site.rses[name], deterministic=False)
    return name


def adler32(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


def test_a_folder_becomes_replicas_and_nothing_in_the_cloud_changes(site: Site, rse: str, tmp_path: Path) -> None:
    below = "people/x"
    site.fill(rse, {**TREE, **SKIPPED, **REFUSED}, below)
    before = site.state(rse)
    names = {f"{below}/{path}": content for path, content in TREE.items()}
    mine = rse.lower()
    arguments = (
        *(f"{rse}:{below}", "--scope", SCOPE, "--name", f"{mine}.{{path:.}}", "--read-checksums"),
        *("--dataset", f"{mine}.{{below[:-1]:.}}", "--container", f"{mine}.all", "--rule"),
    )

    planned, summed = site.rows(*arguments, "--dry-run")
    assert {path for path, row in planned.items() if row["status"] == "would be registered"} == names.keys()
    assert {path for path, row in planned.items() if row["status"] == "name refused"} == {
        f"{below}/{path}" for path in REFUSED
    }
    assert summed["files"]["unfinished upload"] == 2
    assert site.replicas(rse) == {}

    left_out, summed = site.rows(*arguments)
    assert left_out.keys() == {f"{below}/{path}" for path in REFUSED}
    assert all("Rucio's schema refuses name" in row["reason"] for row in left_out.values())
    assert summed["files"]["registered"] == summed["attached"] == len(TREE)
    assert summed["made"] == {"datasets": 4, "containers": 1}
    assert summed["rules"] == {"added": 4, "there": 0, "refused": 0}
    assert site.replicas(rse) == {
        (SCOPE, f"{mine}.{path.replace('/', '.')}"): (len(content), adler32(content), "A", None)
        for path, content in names.items()
    }

    # By the other way to the catalogue.
    left_out, summed = site.rows(*arguments, server=True)
    assert left_out.keys() == {f"{below}/{path}" for path in REFUSED}
    assert summed["files"]["already registered"] == len(TREE)
    assert (summed["files"]["registered"], summed["attached"], summed["made"]["datasets"]) == (0, 0, 0)
    assert summed["rules"] == {"added": 0, "there": 4, "refused": 0}
    locks = site.rucio.query("SELECT state, count(*) FROM locks WHERE name LIKE ? GROUP BY state", f"{mine}.people%")
    assert locks == [("O", len(TREE))]
    assert site.state(rse) == before

    site.rucio.rucio("download", "--dir", tmp_path, f"{SCOPE}:{mine}.run1", f"{SCOPE}:{mine}.run1.deep.er")
    got = {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert got == {content for path, content in TREE.items() if path.startswith("run1/")}
    assert {path: row[:-1] for path, row in site.state(rse).items()} == {p: row[:-1] for p, row in before.items()}


def test_what_changed_in_the_cloud_is_a_conflict_and_rucio_keeps_what_it_has(site: Site) -> None:
    tree = {"grown.dat": b"old", "edited.dat": b"old", "same.dat": b"old"}
    site.fill("REG-SPACES", tree, "edits")
    arguments = ("REG-SPACES:edits", "--scope", SCOPE)
    _, summed = site.rows(*arguments)
    assert summed["files"]["registered"] == 3
    before = site.replicas("REG-SPACES")
    site.fill("REG-SPACES", {"grown.dat": b"older", "edited.dat": b"new"}, "edits", mtime_s=1_700_000_001)
    for server in (False, True):
        rows, summed = site.rows(*arguments, server=server)
        assert summed["files"]["conflict"] == 2
        assert summed["files"]["already registered"] == 1
        assert "has 3 bytes in Rucio, and the file 5" in rows["edits/grown.dat"]["reason"]
        assert f"has adler32 {adler32(b'old')} in Rucio" in rows["edits/edited.dat"]["reason"]
    assert site.replicas("REG-SPACES") == before
    # Rucio has no way to ask whose a path is but its database.
    rows, summed = site.rows(*arguments, "--name", "{path:_}", server=True)
    assert summed["files"]["conflict"] == 3
    assert rows["edits/same.dat"]["reason"] == f"it is registered as {SCOPE}:edits.same.dat at this RSE"
    assert site.replicas("REG-SPACES") == before


def test_files_without_a_checksum(site: Site, tmp_path: Path) -> None:
    site.fill("REG-V3", {"a.dat": b"some", "b.dat": b"more", "empty": b""}, "unsummed")
    arguments = ("REG-V3:unsummed", "--scope", SCOPE, "--dataset", "unsummed")
    rows, summed = site.rows(*arguments)
    assert {path: row["status"] for path, row in rows.items()} == {
        "unsummed/a.dat": "no checksum",
        "unsummed/b.dat": "no checksum",
    }
    assert summed["files"]["registered"] == 1
    done = site.register(*arguments)
    assert done.code == 1
    assert "no checksum: REG-V3:unsummed/a.dat: the server has no adler32 and no md5 of it" in done.out
    assert "--read-checksums reads the files without a checksum" in done.out
    done = site.register(*arguments, "--size-only", server=True)
    assert done.code == 0
    assert "2 registered (8 B), 1 already registered" in done.out
    assert site.replicas("REG-V3")[SCOPE, "unsummed.a.dat"] == (4, None, "A", None)
    # Rucio's client takes nothing that it cannot compare, unless it is told to (41.5.1 downloadclient.py).
    said = site.rucio.rucio("download", "--dir", tmp_path / "1", f"{SCOPE}:unsummed", check=False)
    assert "unsummed.b.dat" not in {path.name for path in (tmp_path / "1").rglob("*") if path.is_file()}, said
    site.rucio.rucio("download", "--ignore-checksum", "--dir", tmp_path / "2", f"{SCOPE}:unsummed")
    assert {path.name for path in (tmp_path / "2").rglob("*.dat")} == {"unsummed.a.dat", "unsummed.b.dat"}


def test_a_deterministic_rse_takes_what_is_where_it_looks(site: Site, tmp_path: Path) -> None:
    right = {hash_path(SCOPE, f"right{number}.dat"): b"%d" % number for number in range(3)}
    right[hash_path(OTHER_SCOPE, "mine.dat")] = b"mine"
    wrong = {"people/x/wrong.dat": b"wrong"}
    site.fill("REG-FIXED", {**right, **wrong})
    before = site.state("REG-FIXED")
    scope = ("--scope", SCOPE, "--name", "{name}")
    for server in (False, True):
        rows, summed = site.rows(f"REG-FIXED:{SCOPE}", *scope, server=server)
        assert rows == {}
        assert summed["files"]["already registered" if server else "registered"] == 3
    done = site.register("REG-FIXED:", "--scope", SCOPE)
    assert done.code == 1
    assert f"the RSE is deterministic and has {SCOPE}:people.x.wrong.dat at REG-FIXED:{SCOPE}/" in done.out
    # The first of them is one that has only been named wrongly.
    assert "--scope '{folder[:1]}' --name '{path[3:]}' would fit" in done.out
    assert "a second RSE that is not deterministic, with the same prefix" in done.out
    done = site.register(f"REG-FIXED:{OTHER_SCOPE.replace('.', '/')}", "--scope", OTHER_SCOPE)
    assert "--scope '{folder[:2]:.}' --name '{path[4:]}' would fit" in done.out
    rows, summed = site.rows("REG-FIXED:user", "--scope", "{folder[:2]:.}", "--name", "{path[4:]}")
    assert summed["files"]["registered"] == 1
    assert site.replicas("REG-FIXED").keys() == {
        *((SCOPE, f"right{number}.dat") for number in range(3)),
        (OTHER_SCOPE, "mine.dat"),
    }
    assert site.state("REG-FIXED") == before
    site.rucio.rucio("download", "--dir", tmp_path, f"{OTHER_SCOPE}:mine.dat")
    assert (tmp_path / OTHER_SCOPE / "mine.dat").read_bytes() == b"mine"


def test_the_reaper_deletes_no_file_by_surprise(site: Site) -> None:
    site.fill("REG-ODD", {"kept/a.dat": b"a", "ruled/b.dat": b"b"})
    site.fill("REG-RISKY", {"c.dat": b"c"})
    _, summed = site.rows("REG-ODD:", "--scope", SCOPE, "--dataset-per-folder")
    assert summed["files"]["registered"] == 2
    _, summed = site.rows("REG-ODD:ruled", "--scope", SCOPE, "--dataset-per-folder", "--rule", "--locked")
    assert summed["rules"]["added"] == 1
    ((rule,),) = site.rucio.query("SELECT id FROM rules WHERE scope = ? AND name = 'ruled'", SCOPE)
    assert {row[3] for row in site.replicas("REG-ODD").values()} == {None}

    done = site.register("REG-RISKY:", "--scope", SCOPE)
    assert done.code == 1
    assert "REG-RISKY has tombstone_delay -1: Rucio's reaper deletes what is registered there" in done.err
    assert site.replicas("REG-RISKY") == {}
    done = site.register("REG-RISKY:", "--scope", SCOPE, "--reaper-may-delete")
    assert done.code == 0

    def reaped() -> set[str]:
        site.rucio.daemon("reaper", "--rses", "REG-ODD", "REG-RISKY")
        return {name for rse in ("REG-ODD", "REG-RISKY") for name in site.state(rse) if name.endswith(".dat")}

    # What --reaper-may-delete is about, and proof that this reaper deletes.
    assert reaped() == {"kept/a.dat", "ruled/b.dat"}
    assert {name for _, name in site.replicas("REG-ODD")} == {"kept.a.dat", "ruled.b.dat"}

    # A rule that ends leaves a tombstone, as docs/register.md says; nobody ends a locked one by mistake.
    said = site.rucio.rucio("rule", "remove", rule, check=False)
    assert "locked" in said.stdout + said.stderr
    site.rucio.ask("update_replication_rule", rule, {"locked": False})
    site.rucio.ask("update_replication_rule", rule, {"lifetime": 0})
    site.rucio.daemon("judge-cleaner")
    assert site.replicas("REG-ODD")[SCOPE, "ruled.b.dat"][3] is not None
    # An RSE where nothing may be deleted is left alone all the same.
    site.rucio.ask("update_rse", "REG-ODD", {"availability_delete": False})
    assert reaped() == {"kept/a.dat", "ruled/b.dat"}


def test_what_another_rse_of_the_folder_keeps_is_no_replica(site: Site) -> None:
    cloud = site.rses["REG-SPACES"].cloud
    for name, deterministic in (("REG-TWIN", True), ("REG-BESIDE", False), ("REG-THIRD", False)):
        site.rses[name] = Rse(name, cloud, "http", folder="twin")
        site.rucio.add_rses(site.rses[name], deterministic=deterministic)
    kept = hash_path(SCOPE, "kept.dat")
    site.fill("REG-TWIN", {kept: b"kept", "people/free.dat": b"free"})
    site.rows(f"REG-TWIN:{kept.rpartition('/')[0]}", "--scope", SCOPE, "--name", "{name}")
    for server, options in ((True, ["--dry-run"]), (False, ["--dry-run"]), (False, [])):
        done = site.register("REG-BESIDE:", "--scope", SCOPE, "--name", "twin.{name}", *options, server=server)
        assert done.code == 1
        assert f"conflict: REG-BESIDE:{kept}: it lies where RSE REG-TWIN" in done.out
        assert "are left out: REG-TWIN\n" not in done.out
        assert "keep theirs are left out: REG-TWIN\n" in done.err
        assert "cannot be asked: REG-THIRD\n" in done.err
    assert site.replicas("REG-BESIDE").keys() == {(SCOPE, "twin.free.dat")}


def test_bad_input_is_one_sentence(site: Site, tmp_path: Path) -> None:
    cases = {
        ("REG-SPACES:nowhere", "--scope", SCOPE): "nowhere",
        ("REG-SPACES:y", "--scope", SCOPE, "--account", "nobody"): "Rucio has no account nobody",
        ("REG-NONE:x", "--scope", SCOPE): "Rucio knows no RSE REG-NONE",
        ("MINE:x", "--scope", SCOPE): "MINE is a section of the clouds file, and only an RSE will do here",
    }
    user = next(iter(site.rses["REG-V3"].cloud.users.values()))
    clouds = tmp_path / "clouds.cfg"
    clouds.touch(mode=0o600)
    cloud = site.rses["REG-V3"].cloud
    clouds.write_text(
        f"[MINE]\nurl = {cloud.webdav_url}/v3\ncs3_gateway = {cloud.gateway}\ncs3_gateway_tls = false\n"
        f"cs3_root = {cloud.root}\nusername = {user.username}\npassword = {user.password}\n"
    )
    # A section of the name of an RSE does not stand in its way.
    clouds.write_text(clouds.read_text() + clouds.read_text().replace("[MINE]", "[REG-SPACES]"))
    for number, (arguments, said) in enumerate(cases.items()):
        done = site.register(
            *arguments, server=number % 2 == 1, RUCIO_CS3_CLOUDS=str(clouds), COLUMNS="40", TERM="dumb"
        )
        assert done.code == 1, done
        assert said in done.err
        assert "Traceback" not in done.err
        assert user.password not in done.err + done.out
    assert not list(site.disk("REG-SPACES").rglob("nowhere"))


def test_ctrl_c_ends_it_and_the_next_run_completes(site: Site) -> None:
    tree = {f"many/{number // 100}/{number:04}": b"%d" % number for number in range(1500)}
    site.fill("REG-V3", tree)
    cloud = site.rses["REG-V3"].cloud
    assert isinstance(cloud, EmbeddedCloud)
    # Silent at one of the files, so that it is certainly under way.
    cloud.faults.add("data.get", "stall")
    arguments = ("REG-V3:many", "--scope", SCOPE, "--read-checksums", "--parallel", "2")
    with started(("register", *arguments), site.environment(server=False)) as running:
        wait_until(lambda: not cloud.faults.pending(), "the silent file")
        running.interrupt()
        done = running.end()
    assert done.code == 130, done
    assert "Traceback" not in done.err
    cloud.faults.clear()
    before = sum(name.startswith("many.") for _, name in site.replicas("REG-V3"))
    _, summed = site.rows(*arguments)
    assert summed["files"]["already registered"] == before
    assert summed["files"]["registered"] == 1500 - before
    with started(("register", *arguments, "--json", "--dry-run"), site.environment(server=False)) as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        running.process.stdout = None
        assert "Traceback" not in running.end().err
