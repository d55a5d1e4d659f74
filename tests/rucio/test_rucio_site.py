"""The starter of a real Rucio: real commands and daemons on a plain directory as storage, odd names included."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rucio_cs3.sandbox.processes import ProcessError
from rucio_cs3.sandbox.rucio_site import RucioCommandError, RucioSite

pytestmark = pytest.mark.rucio

POSIX = "rucio.rse.protocols.posix.Default"

# What people's files are called; each breaks another careless piece of code. No # and ?, because Rucio's posix
# protocol takes them for parts of a URL: it would store a#b and a?b both as "a".
NAMES = (
    "plain.bin",
    "with space",
    "Müsli.txt",
    "日本語.txt",
    "nfd-e\u0301",
    "100%",
    "per%20cent",
    "a+b",
    "a;b",
    "it's",
    "empty",
)


def _add_directory_rse(site: RucioSite, name: str, directory: Path) -> None:
    site.add_rse(name, {"scheme": "file", "hostname": "localhost", "prefix": f"{directory}/", "impl": POSIX})


def _files_below(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


def _rules(site: RucioSite, did: str) -> list[str]:
    """Ids of the rules of ``did``."""
    lines = site.rucio("rule", "list", "--did", did, "--csv").stdout.splitlines()
    return [line.split(",")[0] for line in lines]


@pytest.fixture(scope="module")
def mock_site() -> Iterator[RucioSite]:
    """A Rucio without any policy package, whose transfers are pretended by Rucio's transfertool ``mock``."""
    with RucioSite(policy_package=None, extra_config={"conveyor": {"scheme": "file"}}) as site:
        yield site


def test_upload_list_download_delete(rucio_site: RucioSite, tmp_path: Path) -> None:
    scope, rse, storage = "story", "STORY", tmp_path / "storage"
    rucio_site.add_scope(scope)
    _add_directory_rse(rucio_site, rse, storage)
    sources = {name: tmp_path / "in" / name for name in NAMES}
    (tmp_path / "in").mkdir()
    for name, path in sources.items():
        path.write_bytes(b"" if name == "empty" else os.urandom(1000))

    rucio_site.rucio("upload", "--rse", rse, "--scope", scope, *sources.values())
    assert _files_below(storage) == set(NAMES)

    dids = [f"{scope}:{name}" for name in NAMES]
    for name, did in zip(NAMES, dids, strict=True):
        assert name in rucio_site.rucio("replica", "list", "file", did, "--pfns").stdout
    rucio_site.rucio("download", "--dir", tmp_path / "out", *dids)
    for name, path in sources.items():
        assert (tmp_path / "out" / scope / name).read_bytes() == path.read_bytes(), name

    for did in dids:
        (rule,) = _rules(rucio_site, did)
        rucio_site.rucio("rule", "update", rule, "--lifetime", "0")
    rucio_site.daemon("judge-cleaner")
    rucio_site.daemon("reaper", "--rses", rse)
    assert _files_below(storage) == set()


def test_a_rule_goes_through_the_conveyor(mock_site: RucioSite, tmp_path: Path) -> None:
    mock_site.add_scope("conveyed")
    for rse in ("FROM", "TO"):
        _add_directory_rse(mock_site, rse, tmp_path / rse)
    mock_site.set_distance("FROM", "TO")
    (tmp_path / "file").write_bytes(b"content")
    mock_site.rucio("upload", "--rse", "FROM", "--scope", "conveyed", tmp_path / "file")

    rule = mock_site.rucio("rule", "add", "conveyed:file", "--copies", "1", "--rses", "TO").stdout.strip()
    assert "REPLICATING" in mock_site.rucio("rule", "show", rule).stdout
    assert "Setting state(SUBMITTED), transfertool(mock)" in mock_site.conveyor("submitter")
    mock_site.conveyor("poller")
    mock_site.conveyor("finisher")
    assert "1/0/0" in mock_site.rucio("rule", "show", rule).stdout


def test_commands_and_daemons_at_the_same_time_share_the_database(rucio_site: RucioSite, tmp_path: Path) -> None:
    rucio_site.add_scope("busy")
    _add_directory_rse(rucio_site, "BUSY", tmp_path / "storage")
    files = [tmp_path / f"file-{number}" for number in range(8)]
    for path in files:
        path.write_bytes(b"content")
    loop = rucio_site.loop("judge-cleaner", "--sleep-time", "2")
    with ThreadPoolExecutor(4) as pool:
        # rucio() raises if Rucio says "Database exception", which is how a locked database shows.
        list(pool.map(lambda path: rucio_site.rucio("upload", "--rse", "BUSY", "--scope", "busy", path), files))
    assert _files_below(tmp_path / "storage") == {path.name for path in files}
    assert loop.running
    assert "locked" not in loop.output()


def test_a_failed_upload_raises_although_rucio_ends_with_zero(rucio_site: RucioSite, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    command = ("upload", "--rse", "NOWHERE", "--scope", "story", tmp_path / "file")
    with pytest.raises(RucioCommandError, match="ended with exit code 0 and wrote"):
        rucio_site.rucio(*command)


def test_a_name_that_rucio_cannot_serve_is_refused_at_once(rucio_site: RucioSite, tmp_path: Path) -> None:
    rucio_site.add_scope("refused")
    _add_directory_rse(rucio_site, "REFUSED", tmp_path / "storage")
    (tmp_path / "a&b").write_bytes(b"content")
    with pytest.raises(RucioCommandError, match="a&b"):
        rucio_site.rucio("upload", "--rse", "REFUSED", "--scope", "refused", tmp_path / "a&b")
    assert _files_below(tmp_path / "storage") == set()


def test_protocol_attributes_arrive_in_rucio(rucio_site: RucioSite) -> None:
    attributes = {"gateway": "127.0.0.1:1", "nested": {"a": [1, "ü"]}}
    protocol = {"scheme": "davs", "hostname": "cloud.test", "port": 443, "prefix": "/dav/", "impl": POSIX}
    rucio_site.add_rse("ATTRIBUTES", {**protocol, "extended_attributes": attributes}, attributes={"site": "one"})
    shown = rucio_site.rucio("rse", "show", "ATTRIBUTES").stdout
    assert str(attributes) in shown
    assert "site: one" in shown
    assert "port: 443" in shown


def test_secrets_are_readable_by_the_owner_only(rucio_site: RucioSite) -> None:
    rucio_site.set_rse_accounts({"STORY": {"username": "einstein"}})
    for name in ("rse-accounts.cfg", "rucio.cfg", "client.cfg"):
        mode = stat.S_IMODE((rucio_site.directory / "etc" / name).stat().st_mode)
        assert mode == 0o600, name


def test_loops_of_one_name_have_logs_of_their_own(rucio_site: RucioSite) -> None:
    one, two = (rucio_site.loop("judge-cleaner", "--sleep-time", "2") for _ in range(2))
    assert one.log != two.log
    two.kill()
    assert two.pid is None
    assert one.running
    with pytest.raises(ProcessError, match="exit code -9"):
        rucio_site.check_loops()
    two.start()
    rucio_site.check_loops()
    rucio_site.stop_loops()
    assert not one.running
    assert not two.running


def test_a_look_into_the_database_changes_nothing(rucio_site: RucioSite) -> None:
    assert rucio_site.query("SELECT account_type FROM accounts WHERE account = ?", "root") == [("SERVICE",)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        rucio_site.query("DELETE FROM heartbeats")


def test_people_get_no_database(rucio_site: RucioSite) -> None:
    configuration = Path(rucio_site.environment["RUCIO_CONFIG"]).read_text()
    assert "[database]" not in configuration
    assert "root" in rucio_site.rucio("whoami").stdout
