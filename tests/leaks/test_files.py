"""Files that hold secrets: ours are their owner's alone whatever the umask, and those of others are refused where more
people can read them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Reference, Secret, errors
from rucio_cs3.cs3.login.bearer_tokens import DiscoveredToken
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.secret import read_secret_file
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.reva import User
from tests.contract.place import content, endpoint_of
from tests.leaks.known import Known
from tests.leaks.search import Place, search

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from rucio_cs3 import rse_credentials
from tests.unit.rucio_client import configure, rse_info

PASSWORD = "the-password-of-this-test"
RSE = "cloud-1.test"
UMASKS = (0o000, 0o022, 0o077, 0o027)


class Interrupted(Exception):
    """Ctrl-C, in a test."""


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def told(error: BaseException) -> Iterator[Place]:
    """All that a report of an error may show, and of those behind it, also where they are not shown by themselves."""
    yield Place("the traceback", "".join(traceback.format_exception(error)).encode())
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        yield Place(f"a {type(one).__name__}", f"{one} {one!r} {one.args!r} {vars(one)!r}".encode())
        if isinstance(one, UnicodeError):
            yield Place("what was no text", repr(getattr(one, "object", "")).encode())


@pytest.fixture
def known() -> Known:
    known = Known()
    known.add("the password", PASSWORD)
    return known


# -- ours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", UMASKS, ids=oct)
@pytest.mark.parametrize("behaviour", list(Behaviour), ids=lambda behaviour: behaviour.value)
def test_what_an_unfinished_upload_leaves_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known, mask: int, behaviour: Behaviour
) -> None:
    """State file, lock and folder; and neither password nor ticket can be read in them."""
    monkeypatch.delenv("RUCIO_CS3_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    monkeypatch.setattr("rucio_cs3.cs3.uploads.tus_uploads.KEEP_AFTER_S", 0.0)
    local = tmp_path / "local"
    local.write_bytes(content(2_000_000))
    modes: dict[str, int] = {}
    folder = tmp_path / "states" / "rucio-cs3" / "uploads"

    def interrupt(count: int) -> None:
        for path in (folder, *folder.iterdir()):
            modes[path.suffix or "folder"] = stat.S_IMODE(path.stat().st_mode)
        raise Interrupted

    with EmbeddedCloud(name="a", behaviour=behaviour, users=[User(username="einstein", password=PASSWORD)]) as cloud:
        provider = BasicProvider("einstein", Secret(PASSWORD))
        storage = CS3Storage(endpoint_of(cloud, upload_protocol="tus"), provider)
        with contextlib.closing(storage), umask(mask), pytest.raises(Interrupted):
            storage.upload(local, Reference(storage.endpoint.root, "f"), progress=interrupt)
        patches = cloud.traffic.of("data.patch")
    left = [*folder.iterdir()]
    for path in left:
        modes[path.suffix] = stat.S_IMODE(path.stat().st_mode)
    assert modes == {"folder": 0o700, ".json": 0o600, ".lock": 0o600}
    assert patches
    assert search(known, [Place(path.name, path.read_bytes()) for path in left]) == []


def refreshed(issuer: Issuer, path: Path) -> IssuedToken:
    """Tokens by a refresh token that is in a file."""
    return IssuedToken(
        issuer=IssuerSite(name="issuer", url=issuer.url),
        grant="refresh_token",
        client_id=issuer.client_id,
        client_secret=Secret(issuer.client_secret),
        refresh_token=path,
    )


@pytest.mark.parametrize("mask", UMASKS, ids=oct)
def test_a_refresh_token_that_is_renewed_stays_its_owners_alone(tmp_path: Path, mask: int) -> None:
    with Issuer("einstein") as issuer:
        path = write_private(tmp_path / "refresh", issuer.refresh_token("einstein"))
        before = path.read_text()
        token = refreshed(issuer, path)
        with umask(mask):
            token.get()
    assert path.read_text() != before
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}


def test_a_refresh_token_that_cannot_be_written_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Issuer("einstein") as issuer:
        path = write_private(tmp_path / "refresh", issuer.refresh_token("einstein"))
        token = refreshed(issuer, path)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(errors.ConfigurationError, match="cannot be written: No space left") as caught:
            token.get()
        for renewed in issuer.refresh_tokens:
            known.add("the new one", renewed)
        known.add("the client's secret", issuer.client_secret)
    assert {one.name for one in tmp_path.iterdir()} <= {"refresh", ".refresh.lock"}
    assert search(known, told(caught.value)) == []


# -- those of others ---------------------------------------------------------------------------------------------------

Ask = Callable[[], Any]


def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> tuple[Path, Ask]:
    """A file with a secret, and what reads it."""
    monkeypatch.delenv("BEARER_TOKEN", raising=False)
    section = f"[cs3:{RSE}]\nusername = me\npassword = {PASSWORD}\n"
    etc = configure(tmp_path, monkeypatch, more=section if place == "rucio.cfg" else "")
    info = rse_info(rse=RSE)
    entry = json.dumps({RSE: {"username": "me", "password": PASSWORD}})
    secret = tmp_path / "secret"

    def login(values: dict[str, Any] | None = None) -> Ask:
        return lambda: rse_credentials.credentials(info, values).login()

    if place == "rucio.cfg":
        return etc / "rucio.cfg", login()
    if place == "rse-accounts.cfg":
        return write_private(etc / "rse-accounts.cfg", entry), login()
    if place == "RUCIO_CS3_CREDENTIALS":
        monkeypatch.setenv(place, str(secret))
        return write_private(secret, entry), login()
    write_private(secret, PASSWORD)
    if place == "BEARER_TOKEN_FILE":
        monkeypatch.setenv(place, str(secret))
        return secret, DiscoveredToken().get
    others = {
        "password_file": {"username": "me"},
        "token_file": {},
        "api_key_file": {"type": "machine", "username": "me"},
        "secret_file": {"type": "serviceaccounts", "account_id": "me"},
        "link_file": {"type": "publicshares"},
        "link_password_file": {"type": "publicshares", "link": "0123456789"},
        "client_secret_file": {"issuer": "http://127.0.0.1:1", "client_id": "me"},
        "refresh_token_file": {"issuer": "http://127.0.0.1:1", "client_id": "me", "grant": "refresh_token"},
        "subject_token_file": {"issuer": "http://127.0.0.1:1", "client_id": "me", "grant": "token_exchange"},
    }
    return secret, login({**others[place], place: str(secret)})


PLACES = [
    "rucio.cfg",
    "rse-accounts.cfg",
    "RUCIO_CS3_CREDENTIALS",
    "BEARER_TOKEN_FILE",
    "password_file",
    "token_file",
    "api_key_file",
    "secret_file",
    "link_file",
    "link_password_file",
]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o666], ids=oct)
@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known, place: str, mode: int
) -> None:
    path, ask = _places(tmp_path, monkeypatch, place)
    path.chmod(0o600)
    ask()
    path.chmod(mode)
    with pytest.raises(
        errors.ConfigurationError, match=rf"{path} can be read by other users; run: chmod 600"
    ) as caught:
        ask()
    assert search(known, told(caught.value)) == []


@pytest.mark.parametrize("place", [*PLACES[1:]])
def test_a_secret_that_is_no_text_is_in_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known, place: str
) -> None:
    path, ask = _places(tmp_path, monkeypatch, place)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(errors.ConfigurationError) as caught:
        ask()
    assert search(known, told(caught.value)) == []


@pytest.mark.parametrize("text", ['{"x": "%s"', '["%s"]', '"%s"', "%s"])
@pytest.mark.parametrize("place", ["rse-accounts.cfg", "RUCIO_CS3_CREDENTIALS"])
def test_a_broken_file_of_secrets_is_in_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known, place: str, text: str
) -> None:
    path, ask = _places(tmp_path, monkeypatch, place)
    path.write_text(text % PASSWORD)
    with pytest.raises(errors.ConfigurationError) as caught:
        ask()
    assert search(known, told(caught.value)) == []


def test_a_secret_that_is_no_text_in_the_environment(known: Known) -> None:
    """As Python takes over bytes that are no UTF-8."""
    with pytest.raises(errors.ConfigurationError, match="not UTF-8") as caught:
        Secret(f"{PASSWORD}\udcff")
    assert search(known, told(caught.value)) == []


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_in_place_of_a_secret(tmp_path: Path, own: bool) -> None:
    with pytest.raises(errors.ConfigurationError, match="secret file"):
        read_secret_file(tmp_path, own=own)


def test_rse_accounts_without_a_secret_of_ours_may_be_read_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is Rucio's file: what others keep in it is theirs, and an entry that only names a file holds nothing."""
    path, _ = _places(tmp_path, monkeypatch, "rse-accounts.cfg")
    secret = write_private(tmp_path / "secret", PASSWORD)
    ours = {"username": "me", "password_file": str(secret), "access_key": "k"}
    path.write_text(json.dumps({"other": {"password": "x"}, RSE: ours}))
    path.chmod(0o644)
    assert rse_credentials.credentials(rse_info(rse=RSE)).login().client_secret == PASSWORD
