"""As whom a cloud's machine key acts: which Rucio account counts, and what is said where none does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.rucio_client import configure, rse_info  # first: it decides what Rucio takes this process for

# isort: split
from rucio.rse import rsemanager

from rucio_cs3 import rse_credentials
from rucio_cs3.cs3 import errors

INFO = rse_info(rse="CLOUD")
ENTRY = {"type": "machine", "api_key": "secret-word", "users": {"jdoe": "john", "marie": "curie", "root": "rucio"}}


def acts_as(**entry: object) -> str:
    return rse_credentials.credentials(INFO, {**ENTRY, **entry}).login().client_id


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return configure(tmp_path, monkeypatch)


def with_account(folder: Path, account: str) -> None:
    path = folder / "rucio.cfg"
    path.write_text(path.read_text().replace("[client]\n", f"[client]\naccount = {account}\n"))


def test_the_environment_comes_before_the_configuration(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_account(no_account, "jdoe")
    assert acts_as() == "john"
    monkeypatch.setenv("RUCIO_ACCOUNT", "marie")
    assert acts_as() == "curie"


def test_daemons_work_for_root(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_account(no_account, "jdoe")
    monkeypatch.setattr(rsemanager, "SERVER_MODE", True)
    assert acts_as() == "rucio"
    monkeypatch.setenv("RUCIO_ACCOUNT", "marie")
    assert acts_as() == "curie"


def test_nobody_says_which_account(no_account: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"RSE CLOUD: .*set RUCIO_ACCOUNT, or account in \[client\]"):
        acts_as()
    # It is asked only where it matters.
    assert acts_as(users={}, username="rucio") == "rucio"


def test_an_account_without_a_user(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUCIO_ACCOUNT", "stranger")
    with pytest.raises(errors.ConfigurationError, match="Rucio account stranger has no user of the cloud") as caught:
        acts_as()
    assert "secret-word" not in str(caught.value)
    assert acts_as(username="guest") == "guest"
    assert acts_as(username="{account}") == "stranger"


def test_the_environment_gives_users_as_json(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUCIO_ACCOUNT", "jdoe")
    for key, value in {**ENTRY, "users": json.dumps(ENTRY["users"])}.items():
        monkeypatch.setenv(f"RUCIO_CS3_CLOUD_{key.upper()}", str(value))
    assert rse_credentials.credentials(INFO).login().client_id == "john"
