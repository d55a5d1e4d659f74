"""docs/security.md and SECURITY.md claim nothing that cannot be looked up: tests, cases, programs, scopes and modes."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rucio_cs3.cs3 import BasicProvider, Secret
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login import oauth
from rucio_cs3.cs3.login.secret import read_secret_file
from rucio_cs3.cs3.reference import Reference, WebDAVBase, parse_root
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.uploads.upload_state import LocalSource, Unfinished, UploadStates
from tests.unit.test_docs import DOCS, ROOT, blocks, rows, section, text_of

PAGE = DOCS / "security.md"
POLICY = ROOT / "SECURITY.md"
needs_rucio = pytest.mark.skipif(find_spec("rucio") is None, reason="neither Rucio wheel is installed")


def test_files_that_are_named_are_there() -> None:
    for page in (PAGE, POLICY):
        named = re.findall(r"(?<![\w/])(?:tests|etc|docs|rucio_cs3)/[\w./*-]*\w", text_of(page))
        assert named
        for name in named:
            assert list(ROOT.glob(name)), f"{page.name}: {name}"


def test_modules_that_are_named_are_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", section(PAGE, "What comes from outside, and its limits")))
    assert len(named) > 10
    for name in named:
        assert (ROOT / "rucio_cs3" / name).is_file(), name


def test_cases_that_are_named_are_promised() -> None:
    promised = set(re.findall(r"^\| (C\d{3,4}) \|", text_of(DOCS / "contract.md"), re.MULTILINE))
    named = set(re.findall(r"\bC\d{3,4}\b", text_of(PAGE)))
    assert named
    assert named <= promised


def test_each_threat_has_a_test() -> None:
    table = rows(section(PAGE, "Threats"))
    assert len(table) > 20
    for threat, stopped_by, shown_by in table:
        assert stopped_by, threat
        assert re.search(r"\bC\d{3,4}\b|\btests/\w+/test_\w+\.py\b", shown_by), threat


def test_processes_exist() -> None:
    from rucio_cs3.cli.main import _COMMANDS

    scripts = Path(sys.executable).parent
    server = (scripts / "rucio-conveyor-submitter").exists()
    named = [name for row in rows(section(PAGE, "What each process needs")) for name in row[0].split(", ")]
    assert len(named) > 8
    for name in named:
        program, _, command = name.partition(" ")
        if program == "rucio-cs3":
            assert command in _COMMANDS
        elif name != "REST server" and server:
            assert (scripts / name).is_file(), name
    for name in re.findall(r"`(rucio-[a-z-]+)`", section(PAGE, "What each process needs")):
        assert not server or (scripts / name).is_file(), name


# -- scopes --------------------------------------------------------------------------------------------------------


@needs_rucio
@pytest.mark.parametrize(("operation", "write"), [("source of a transfer", False), ("destination of a transfer", True)])
def test_scopes_are_those_that_rucios_client_is_asked_for(
    operation: str, write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from rucio_cs3.cs3.errors import Unavailable
    from rucio_cs3.oidc import RucioTokenProvider

    asked: list[str] = []
    core_oidc, core_rse = types.ModuleType("rucio.core.oidc"), types.ModuleType("rucio.core.rse")
    # As Rucio's own puts them together.
    core_rse.__dict__["determine_scope_for_rse"] = lambda rse_id, scopes: " ".join(f"{one}:<prefix>" for one in scopes)
    core_rse.__dict__["determine_audience_for_rse"] = lambda rse_id: "audience"
    core_oidc.__dict__["request_token"] = lambda audience, scope: asked.append(scope)
    monkeypatch.setitem(sys.modules, "rucio.core.oidc", core_oidc)
    monkeypatch.setitem(sys.modules, "rucio.core.rse", core_rse)
    with pytest.raises(Unavailable):
        RucioTokenProvider(rse_id=operation, rse="SITE", write=write).login()
    needs = {row[0]: row[2] for row in rows(section(PAGE, "Scopes"))}
    assert [needs[operation]] == asked


@needs_rucio
def test_the_example_is_an_entry() -> None:
    from rucio_cs3 import rse_logins

    (code,) = blocks(PAGE, "json")
    for entry in json.loads(code).values():
        assert set(entry) <= set(rse_logins.KEYS)
        scopes = {scope.partition(":")[0] for scope in entry["scope"].split()}
        assert scopes <= set(re.findall(r"`(storage\.[a-z]+)`", section(PAGE, "Scopes")))
        assert rse_logins.provider(entry, lambda: "root")


# -- modes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def any_mode() -> Iterator[None]:
    """A process whose umask takes nothing away, so that a mode is what the code asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def kept(word: str) -> str:
    """What the page says of the mode of a place."""
    found = [row[2] for row in rows(section(PAGE, "What is kept where")) if word in row[0]]
    assert len(found) == 1, word
    return found[0]


@pytest.mark.usefixtures("any_mode")
def test_modes_of_refresh_tokens(tmp_path: Path) -> None:
    path = tmp_path / "refresh"
    path.touch(mode=0o600)
    path.write_text("old")
    with oauth._kept(path), oauth._replacement(path) as file:
        oauth._replace(path, file, "new")
    assert read_secret_file(path) == "new"
    assert {mode_of(file) for file in tmp_path.iterdir()} == {kept("refresh_token_file")}


@needs_rucio
@pytest.mark.usefixtures("any_mode")
def test_mode_of_an_app_password(tmp_path: Path) -> None:
    from rucio_cs3.cli.app_password import _new_file

    with _new_file(tmp_path / "robot") as file:
        file.write("secret")
    assert mode_of(tmp_path / "robot") == kept("app-password make --file")


@pytest.mark.usefixtures("any_mode")
def test_modes_of_unfinished_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    monkeypatch.setenv("RUCIO_CS3_STATE_DIR", str(folder))
    local = tmp_path / "local"
    local.touch()
    webdav = WebDAVBase.parse("https://cloud.test/remote.php/webdav", parse_root("/"))
    endpoint = Endpoint(name="CLOUD", gateway="cloud.test:9142", webdav=webdav)
    states = UploadStates(endpoint, BasicProvider("jdoe", Secret("word")))
    source, target = LocalSource.of(local, local.stat()), Reference(endpoint.root, "f")
    with states.claim(source, target, overwrite=False) as claim:
        claim.keep(Unfinished(landing="f", ticket=Ticket(protocol="tus", url="https://cloud.test/data", token="x")))
        files = list(folder.iterdir())
        assert len(files) > 1
        told = kept("RUCIO_CS3_STATE_DIR")
        assert told == f"folder {mode_of(folder)}, files {mode_of(files[0])}"
        assert {mode_of(file) for file in files} == {mode_of(files[0])}


# -- the rest ------------------------------------------------------------------------------------------------------


def test_the_policy_invents_nobody() -> None:
    assert "@" not in text_of(POLICY)
    assert "http" not in text_of(POLICY)


def test_the_unit_does_as_the_page_says() -> None:
    unit = text_of(ROOT / "etc" / "systemd" / "rucio-cs3-agent.service").splitlines()
    (setting,) = re.findall(r"\(`(\w+=\w+)`, as the unit does\)", text_of(PAGE))
    assert setting in unit


def test_targets_that_are_named_are_there_and_run_by_ci() -> None:
    targets = set(re.findall(r"`make ([a-z]+)`", text_of(PAGE)))
    assert targets == {"audit", "package"}
    ci = [line.split() for line in text_of(ROOT / ".ci" / "run").splitlines()]
    for target in targets:
        assert re.search(rf"^{target}:", text_of(ROOT / "Makefile"), re.MULTILINE)
        assert [words for words in ci if words[-2:] == ["make", target]], target
