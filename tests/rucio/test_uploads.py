"""``rucio upload`` and ``rucio download`` where something is unusual or wrong, on embedded clouds."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.ports import free_port
from rucio_cs3.sandbox.rucio_site import RucioCommandError
from rucio_cs3.sandbox.story import Rse
from tests.rucio.recorded_rucio import RecordedRucio, files_below, on_disk, requests_to

pytestmark = pytest.mark.rucio

SCOPE = "uploads-cs3"
CONTENT = b"physics" * 100


@dataclass(frozen=True)
class OddRse(Rse):
    """An RSE with something wrong in its settings; None takes a setting away."""

    extended: tuple[tuple[str, Any], ...] = ()

    def protocol(self) -> dict[str, object]:
        told = super().protocol()
        extended = told["extended_attributes"]
        assert isinstance(extended, dict)
        told["extended_attributes"] = {k: v for k, v in {**extended, **dict(self.extended)}.items() if v is not None}
        return told


@dataclass
class Site:
    rucio: RecordedRucio
    rses: dict[str, Rse]

    def upload(self, rse: str, *files: Path, more: tuple[str, ...] = ()) -> None:
        self.rucio.rucio("upload", "--rse", rse, "--scope", SCOPE, *more, *files)

    def refused_upload(self, rse: str, file: Path, *, more: tuple[str, ...] = ()) -> str:
        """:returns: what Rucio said."""
        with pytest.raises(RucioCommandError) as caught:
            self.upload(rse, file, more=more)
        return str(caught.value)

    def path(self, rse: str, name: str) -> Path:
        return on_disk(self.rses[rse], SCOPE, name)


@pytest.fixture(scope="module")
def site(sandbox_rucio: RecordedRucio) -> Iterator[Site]:
    with (
        EmbeddedCloud(name="v3") as v3,
        EmbeddedCloud(name="spaces", behaviour=Behaviour.SPACES, processing_delay_s=0.3) as spaces,
    ):
        rses = [
            Rse("UP-V3", v3, "http", folder="v3"),
            Rse("UP-SPACES", spaces, "http", folder="spaces"),
            OddRse("UP-PASSWORD", v3, "http", folder="password"),
            OddRse("UP-PORT", v3, "http", folder="port", extended=(("cs3_gateway", f"127.0.0.1:{free_port()}"),)),
            OddRse("UP-GATEWAY", v3, "http", folder="gateway", extended=(("cs3_gateway", None),)),
            OddRse("UP-ADVICE", v3, "http", folder="advice", extended=(("cs3_gateway", None),)),
        ]
        sandbox_rucio.add_rses(*rses)
        sandbox_rucio.add_rses(Rse("UP-SKIP", v3, "http", folder="skip"), attributes={"skip_upload_stat": "True"})
        rses.append(Rse("UP-SKIP", v3, "http", folder="skip"))
        wrong = {"username": v3.first_user.username, "password": "mistyped-word"}
        sandbox_rucio.set_rse_accounts({"UP-PASSWORD": wrong})
        sandbox_rucio.add_scope(SCOPE)
        yield Site(sandbox_rucio, {rse.name: rse for rse in rses})


def file_of(tmp_path: Path, name: str, content: bytes = CONTENT) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("rse", ["UP-V3", "UP-SPACES"])
def test_upload_and_download(site: Site, tmp_path: Path, rse: str) -> None:
    names = [f"{rse}-{part}" for part in ("plain", "empty", "100% Zürich #1?")]
    files = [file_of(tmp_path, name, b"" if "empty" in name else CONTENT) for name in names]
    site.upload(rse, *files)
    for file in files:
        assert site.path(rse, file.name).read_bytes() == file.read_bytes()
    site.rucio.rucio("download", "--rses", rse, "--dir", tmp_path / "out", *(f"{SCOPE}:{name}" for name in names))
    for file in files:
        assert (tmp_path / "out" / SCOPE / file.name).read_bytes() == file.read_bytes()
    states = site.rucio.replica_states(SCOPE)
    assert {states[rse, name] for name in names} == {"A"}


def test_an_empty_file_is_looked_at_as_often_as_any(site: Site, tmp_path: Path) -> None:
    cloud = site.rses["UP-V3"].cloud
    looks = []
    for name, content in (("one-byte", b"1"), ("no-byte", b"")):
        before = requests_to(cloud, "gRPC Stat")
        site.upload("UP-V3", file_of(tmp_path, name, content))
        looks.append(requests_to(cloud, "gRPC Stat") - before)
        assert site.path("UP-V3", name).read_bytes() == content
    assert looks[0] == looks[1] > 0


def test_skip_upload_stat_spares_an_empty_file_rucios_wait(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Rucio's own six repetitions, each would be a look, and 63 seconds."""
    patient = configparser.ConfigParser(interpolation=None)
    patient.read(site.rucio.environment["RUCIO_CONFIG"])
    patient.remove_option("client", "protocol_stat_retries")
    configuration = tmp_path / "patient.cfg"
    configuration.touch(mode=0o600)
    with configuration.open("w") as target:
        patient.write(target)
    environment = {**site.rucio.environment, "RUCIO_CONFIG": str(configuration)}
    monkeypatch.setattr(RecordedRucio, "environment", property(lambda _self: environment))
    cloud = site.rses["UP-SKIP"].cloud
    looks = []
    for name, content in (("skipped-full", CONTENT), ("skipped-empty", b"")):
        before = requests_to(cloud, "gRPC Stat")
        site.upload("UP-SKIP", file_of(tmp_path, name, content))
        looks.append(requests_to(cloud, "gRPC Stat") - before)
        assert site.path("UP-SKIP", name).read_bytes() == content
    assert 0 < looks[1] <= looks[0]


@pytest.mark.parametrize(
    ("rse", "words"),
    [
        ("UP-PASSWORD", ("refuses to log in einstein", "check user name and secret")),
        ("UP-PORT", ("gateway 127.0.0.1:", "cannot be reached")),
        ("UP-GATEWAY", ("RSE UP-GATEWAY: setting cs3_gateway is missing",)),
    ],
)
def test_a_wrong_setting_is_said_and_nothing_is_left(
    site: Site, tmp_path: Path, rse: str, words: tuple[str, ...]
) -> None:
    before = files_below(site.rses["UP-V3"])
    file = file_of(tmp_path, f"refused-{rse}")
    said = site.refused_upload(rse, file, more=("--register-after-upload",))
    lines = [line for line in said.splitlines() if all(word in line for word in words)]
    assert lines, said
    assert "mistyped-word" not in said
    assert files_below(site.rses[rse]) == set()
    assert files_below(site.rses["UP-V3"]) == before
    assert site.rucio.query("SELECT 1 FROM dids WHERE name = ?", file.name) == []
    # By default Rucio registers before it uploads; what it then has is no replica that anybody would read.
    site.refused_upload(rse, file)
    assert site.rucio.replica_states(SCOPE).get((rse, file.name)) != "A"
    assert files_below(site.rses[rse]) == set()


def test_the_advice_on_a_missing_gateway_is_right(site: Site, tmp_path: Path) -> None:
    file = file_of(tmp_path, "advised")
    said = site.refused_upload("UP-ADVICE", file, more=("--register-after-upload",))
    (advice,) = [
        line.partition("for example: rucio ")[2] for line in said.splitlines() if "for example: rucio " in line
    ]
    *command, _example = advice.split()
    site.rucio.rucio(*command, site.rses["UP-ADVICE"].cloud.gateway)
    site.upload("UP-ADVICE", file, more=("--register-after-upload",))
    assert site.path("UP-ADVICE", file.name).read_bytes() == CONTENT
    assert site.rucio.replica_states(SCOPE)["UP-ADVICE", file.name] == "A"


@pytest.mark.parametrize("rse", ["UP-V3", "UP-SPACES"])
def test_a_name_that_is_taken_is_not_overwritten(site: Site, tmp_path: Path, rse: str) -> None:
    name = f"{rse}-taken"
    site.upload(rse, file_of(tmp_path, name))
    said = site.refused_upload(rse, file_of(tmp_path, name, b"something else"))
    assert "already" in said or "checksum" in said
    assert site.path(rse, name).read_bytes() == CONTENT
    assert site.rucio.replica_states(SCOPE)[rse, name] == "A"


def test_a_file_that_rucio_does_not_know_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    path = site.path("UP-V3", "unknown")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody's file")
    said = site.refused_upload("UP-V3", file_of(tmp_path, "unknown"))
    assert "File already exists on RSE" in said
    assert path.read_bytes() == b"somebody's file"


@pytest.mark.parametrize("rse", ["UP-V3", "UP-SPACES"])
def test_what_a_killed_upload_left_is_cleaned_by_the_next(site: Site, tmp_path: Path, rse: str) -> None:
    name = f"{rse}-killed"
    leftover = site.path(rse, name).parent / f"{name}.rucio.upload"
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_bytes(b"half of")
    site.upload(rse, file_of(tmp_path, name))
    assert site.path(rse, name).read_bytes() == CONTENT
    assert not leftover.exists()


@pytest.mark.parametrize("damage", [b"Physics" * 100, b"physics" * 99])
def test_a_file_that_changed_in_the_cloud_is_not_downloaded(site: Site, tmp_path: Path, damage: bytes) -> None:
    name = f"changed-{len(damage)}"
    site.upload("UP-V3", file_of(tmp_path, name))
    site.path("UP-V3", name).write_bytes(damage)
    with pytest.raises(RucioCommandError):
        site.rucio.rucio("download", "--dir", tmp_path / "out", f"{SCOPE}:{name}")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_byte_that_flips_on_the_way_up_is_found(site: Site, tmp_path: Path) -> None:
    cloud = site.rses["UP-V3"].cloud
    assert isinstance(cloud, EmbeddedCloud)
    # Rucio tries twice; the second time it works.
    cloud.faults.add("data.put", "flip-byte")
    site.upload("UP-V3", file_of(tmp_path, "flipped"))
    assert cloud.faults.pending() == []
    assert site.path("UP-V3", "flipped").read_bytes() == CONTENT
    cloud.faults.add("data.put", "flip-byte", 2)
    said = site.refused_upload("UP-V3", file_of(tmp_path, "flipped-twice"))
    assert cloud.faults.pending() == []
    assert "adler32" in said
    assert not [name for name in files_below(site.rses["UP-V3"]) if "flipped-twice" in name or "part" in name]
    assert site.rucio.replica_states(SCOPE).get(("UP-V3", "flipped-twice")) != "A"


def test_no_output_holds_a_secret(site: Site) -> None:
    words = {user.password for rse in site.rses.values() for user in rse.cloud.users.values()} | {
        "mistyped-word",
        "eyJ",
    }
    assert len(site.rucio.outputs) > 10
    for text in site.rucio.outputs:
        for word in words:
            assert word not in text
