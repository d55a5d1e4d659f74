"""The whole way through real servers and daemons: upload, rule, transfer, download, comparison, deletion.

What a story asserts is in :mod:`rucio_cs3.sandbox.story`; here are the set-ups it has to hold in.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.story import Cloud, Rse, Story, content_of, make_files
from tests.rucio.recorded_rucio import RecordedRucio, files_below
from tests.rucio.story_clouds import StoryClouds

pytestmark = pytest.mark.rucio

LARGE_BYTES = 20_000_000
DEFAULT = "rucio_cs3.protocol.Default"
NO_RENAME = "rucio_cs3.protocol.NoRename"


class ScopedStory(Story):
    """A story in a scope of its own, so that several share a Rucio."""

    def __init__(self, rucio: RecordedRucio, source: Rse, destination: Rse, *, scope: str) -> None:
        self.scope = scope
        super().__init__(rucio, source, destination, dataset=f"{scope}-set")


def plain_files(folder: Path) -> list[Path]:
    """Files whose names Rucio's generic schema takes."""
    folder.mkdir()
    generator = random.Random(1)
    sizes = {"large.dat": LARGE_BYTES, "empty.dat": 0, "one-byte.dat": 1, "small_file-1.txt": 4096}
    for name, size in sizes.items():
        (folder / name).write_bytes(generator.randbytes(size))
    return [folder / name for name in sizes]


def tell(story: Story, files: list[Path], folder: Path, transfer: Callable[[], object]) -> None:
    """All of it; each step asserts."""
    story.set_up()
    story.upload(files)
    story.lock_new_files(lambda: story.rucio.daemon("judge-evaluator"))
    story.add_rule()
    # Nothing is there yet that the story could take for transferred.
    assert [file.name for file in files if story.on_disk(story.destination, file.name)] == []
    story.transfer(transfer)
    for file in files:
        arrived = story.on_disk(story.destination, file.name)
        assert arrived is not None, file.name
        assert arrived.read_bytes() == file.read_bytes(), file.name
    folder.mkdir()
    story.download(folder)
    story.compare(files, folder)
    story.delete(files, story.run_deletion_once)


def assert_transferred_by_us(rucio: RecordedRucio, files: list[Path], base: str) -> None:
    """Each file by one request, to a PFN below ``base``."""
    rows = rucio.query("SELECT name, transfertool, state, dest_url FROM requests_history")
    assert sorted(row[0] for row in rows) == sorted(file.name for file in files)
    assert {row[1:3] for row in rows} == {("cs3", "D")}
    assert [row[3] for row in rows if not row[3].startswith(f"{base}/")] == []


def assert_no_secret(rucio: RecordedRucio, *clouds: Cloud) -> None:
    """Neither a password nor the beginning of a JWT is in anything Rucio, its clients or the clouds wrote."""
    words = {user.password for cloud in clouds for user in cloud.users.values()}
    assert words
    # Access tokens and transfer tokens of both server lines are JWTs: base64 of '{"alg"' or '{"typ"'.
    words |= {"eyJhbGciOi", "eyJ0eXAiOi"}
    for cloud in clouds:
        if isinstance(cloud, EmbeddedCloud):
            assert cloud.access_token()[:10] in words
    logs = [cloud.log for cloud in clouds if cloud.log is not None]
    own = [path for path in rucio.directory.rglob("*") if path.is_file() and path.name != "rse-accounts.cfg"]
    # Rucio's own client keeps its own token there, which is no JWT.
    assert rucio.database in own
    assert any(path.name == "server.log" for path in own)
    assert len(rucio.outputs) > 10
    for place, content in [
        *((str(path), content_of(path)) for path in [*own, *logs]),
        *(("output of a command", text.encode()) for text in rucio.outputs),
    ]:
        for word in words:
            assert word.encode() not in content, f"a secret is in {place}"


@pytest.fixture(scope="module")
def tls_sites(story_clouds: StoryClouds) -> tuple[Cloud, Cloud]:
    return story_clouds.reva("a", tls=True), story_clouds.reva("b", tls=True)


@pytest.mark.reva
def test_two_reva_sites_with_davs_and_an_unregistered_rucio(
    story_clouds: StoryClouds, tls_sites: tuple[Cloud, Cloud], tmp_path: Path
) -> None:
    a, b = tls_sites
    conveyor = {"transfertool": "cs3", "scheme": "davs"}
    with RecordedRucio(policy_package=None, extra_config={"conveyor": conveyor}) as rucio:
        story = ScopedStory(
            rucio, Rse("DAVS-A", a, "davs", folder="d"), Rse("DAVS-B", b, "davs", folder="d"), scope="davs"
        )

        def transfer() -> None:
            rucio.cs3("run", "rucio-conveyor-submitter", "--run-once")
            rucio.cs3("agent", "--run-once")
            rucio.cs3("run", "rucio-conveyor-poller", "--run-once", "--older-than", "0")
            rucio.conveyor("finisher")

        files = plain_files(tmp_path / "in")
        tell(story, files, tmp_path / "out", transfer)
        assert_transferred_by_us(rucio, files, b.webdav_url.replace("https", "davs"))
        assert "rucio_cs3.policy" not in (rucio.directory / "etc" / "rucio.cfg").read_text()
        plaintext_without_registration(rucio, story_clouds.embedded("plain"), tmp_path)
        assert_no_secret(rucio, a, b)


def plaintext_without_registration(rucio: RecordedRucio, cloud: Cloud, tmp_path: Path) -> None:
    """Scheme http in the same Rucio: upload, download, deletion by the reaper."""
    rse = Rse("HTTP-PLAIN", cloud, "http")
    rucio.add_rses(rse)
    rucio.add_scope("http")
    (tmp_path / "plain.txt").write_bytes(b"plain")
    rucio.rucio("upload", "--rse", rse.name, "--scope", "http", tmp_path / "plain.txt")
    assert files_below(rse) == {"plain.txt"}
    rucio.rucio("download", "--dir", tmp_path / "plain", "http:plain.txt")
    assert (tmp_path / "plain" / "http" / "plain.txt").read_bytes() == b"plain"
    (rule,) = rucio.query("SELECT id FROM rules WHERE scope = 'http'")
    rucio.rucio("rule", "update", rule[0], "--lifetime", "0")
    rucio.daemon("judge-cleaner")
    rucio.daemon("reaper", "--rses", rse.name)
    assert files_below(rse) == set()
    assert rucio.replica_states("http") == {}


@pytest.mark.reva
def test_two_reva_sites_with_cs3s_and_the_policy_package(tls_sites: tuple[Cloud, Cloud], tmp_path: Path) -> None:
    a, b = tls_sites
    with RecordedRucio(policy_package="rucio_cs3.policy") as rucio:
        story = ScopedStory(
            rucio,
            Rse("CS3S-A", a, "cs3s", folder="c"),
            Rse("CS3S-B", b, "cs3s", NO_RENAME, folder="c"),
            scope="cs3s",
        )
        files = plain_files(tmp_path / "in")
        tell(story, files, tmp_path / "out", story.run_conveyor_once)
        assert_transferred_by_us(rucio, files, b.webdav_url.replace("https", "cs3s"))
        assert_no_secret(rucio, a, b)


@pytest.mark.parametrize(("scheme", "impl"), [("http", DEFAULT), ("cs3", NO_RENAME)])
def test_embedded_clouds_with_any_name(
    sandbox_rucio: RecordedRucio, story_clouds: StoryClouds, tmp_path: Path, scheme: str, impl: str
) -> None:
    one, two = (story_clouds.embedded(f"{scheme}-{number}") for number in ("one", "two"))
    source = Rse(f"{scheme.upper()}-ONE", one, scheme, impl, folder="my files ü")
    destination = Rse(f"{scheme.upper()}-TWO", two, scheme, impl)
    story = ScopedStory(sandbox_rucio, source, destination, scope=f"{scheme}-any")
    tell(story, make_files(tmp_path / "in", large_bytes=2_000_000), tmp_path / "out", story.run_conveyor_once)
    assert_no_secret(sandbox_rucio, one, two)


@pytest.mark.reva
def test_reva_to_an_embedded_cloud(sandbox_rucio: RecordedRucio, story_clouds: StoryClouds, tmp_path: Path) -> None:
    a, b = story_clouds.reva("mixed-a"), story_clouds.embedded("mixed-b")
    source, destination = Rse("MIXED-REVA", a, "http", folder="mixed"), Rse("MIXED-EMBEDDED", b, "cs3")
    story = ScopedStory(sandbox_rucio, source, destination, scope="mixed")
    tell(story, plain_files(tmp_path / "in"), tmp_path / "out", story.run_conveyor_once)
    assert_no_secret(sandbox_rucio, a, b)
