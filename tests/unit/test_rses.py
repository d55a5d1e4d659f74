"""Settings and credentials of an RSE: every setting right, wrong and unknown, and every place of a secret."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from tests.unit.rucio_client import configure, rse_info  # isort: skip

from rucio_cs3 import rse_credentials, rses, settings
from rucio_cs3.cs3 import Endpoint, errors
from rucio_cs3.cs3.config import WebDAVSite
from rucio_cs3.cs3.login.providers import BasicProvider, BearerProvider, CredentialProvider
from rucio_cs3.cs3.reference import MountRoot, SpaceRoot

GATEWAY = {"cs3_gateway": "cloud.test:9142"}


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of Rucio's configuration."""
    return configure(tmp_path, monkeypatch)


def endpoint(attributes: Mapping[str, Any], extended: Any = None, **more: Any) -> Endpoint:
    info = rse_info(extended=extended, **more)
    return rses.endpoint(info, info["protocols"][0], lambda _: attributes)


# -- settings ----------------------------------------------------------------------------------------------------

# Setting, value, what to look at in the endpoint, what is there then.
RIGHT: list[tuple[str, Any, Callable[[Endpoint], Any], Any]] = [
    ("cs3_gateway", "other.test:19000", lambda e: e.gateway, "other.test:19000"),
    ("cs3_gateway", "[2001:db8::1]:9142", lambda e: e.gateway_host, "2001:db8::1"),
    ("cs3_gateway_tls", "true", lambda e: e.gateway_tls, True),
    ("cs3_gateway_tls", "True", lambda e: e.gateway_tls, True),
    ("cs3_webdav_base", "/remote.php", lambda e: e.webdav.path, "/remote.php"),
    ("cs3_root", "/eos/project", lambda e: e.root, MountRoot("/eos/project")),
    ("cs3_root", "st-1$sp-2", lambda e: e.root, SpaceRoot("st-1", "sp-2")),
    ("cs3_tls_name_for_tests", "cloud.internal", lambda e: e.tls_name_of("cloud.test"), "cloud.internal"),
    ("cs3_tls_name_for_tests", "cloud.internal", lambda e: e.tls_name_of("data.test"), "data.test"),
    ("cs3_insecure", "yes", lambda e: e.insecure, True),
    ("cs3_insecure", False, lambda e: e.insecure, False),
    ("cs3_allow_plaintext", 1, lambda e: e.allow_plaintext, True),
    ("cs3_allow_plaintext", "0", lambda e: e.allow_plaintext, False),
    ("cs3_data_hosts", "a.test, b.test", lambda e: e.data_hosts, {"a.test", "b.test"}),
    ("cs3_landing", "temporary", lambda e: e.upload_landing, "temporary"),
    ("cs3_landing", "temporary", lambda e: e.upload_landing, "temporary"),
    ("cs3_upload_protocol", "tus", lambda e: e.upload_protocol, "tus"),
    ("cs3_upload_protocol", "simple", lambda e: e.upload_protocol, "simple"),
    ("cs3_upload_protocol", "auto", lambda e: e.upload_protocol, "auto"),
    ("cs3_keep_checksums", "false", lambda e: e.keep_checksums, False),
    ("cs3_keep_checksums", "true", lambda e: e.keep_checksums, True),
    ("cs3_download_streams", "1", lambda e: e.download_streams, 1),
    ("cs3_download_streams", 8, lambda e: e.download_streams, 8),
    ("cs3_delete", "purge", lambda e: e.deletion, "purge"),
    ("cs3_delete", "", lambda e: e.deletion, "keep"),
    ("cs3_delete_look", "never", lambda e: e.deletion_look, "never"),
    ("cs3_delete_look", "", lambda e: e.deletion_look, "each"),
    ("cs3_proof", "size", lambda e: e.proof, "size"),
    ("cs3_proof", "server", lambda e: e.proof, "server"),
    ("cs3_proof", "", lambda e: e.proof, "read"),
    ("cs3_call_timeout_s", "2.5", lambda e: e.timeouts.call_s, 2.5),
    ("cs3_idle_timeout_s", 60, lambda e: e.timeouts.idle_s, 60.0),
    ("cs3_processing_timeout_s", "900", lambda e: e.timeouts.processing_s, 900.0),
]

# Right values of what is no part of an endpoint. (Of cs3_rucio_token_audience any word is one.)
WISHES = ("auto", "pull", "push", "relay")

WRONG: list[tuple[str, Any]] = [
    ("cs3_gateway", "cloud.test"),
    ("cs3_gateway", "https://cloud.test:9142"),
    ("cs3_gateway", "cloud.test:99999"),
    ("cs3_gateway_tls", "maybe"),
    ("cs3_webdav_base", "/somewhere/else"),
    ("cs3_root", "eos"),
    ("cs3_root", "/eos/../etc"),
    ("cs3_ca_bundle", "/nowhere/ca.pem"),
    ("cs3_client_certificate", "/nowhere/me.pem"),
    ("cs3_client_key", "/nowhere/me.key"),
    ("cs3_insecure", "2"),
    ("cs3_tls_name_for_tests", "https://cloud.test"),
    ("cs3_tls_name_for_tests", "cloud.test:443"),
    ("cs3_allow_plaintext", "plain"),
    ("cs3_landing", "Direct"),
    ("cs3_upload_protocol", "TUS"),
    ("cs3_upload_protocol", "put"),
    ("cs3_keep_checksums", "maybe"),
    ("cs3_download_streams", "0"),
    ("cs3_download_streams", 9),
    ("cs3_download_streams", "2.0"),
    ("cs3_download_streams", "²"),
    ("cs3_delete", "empty"),
    ("cs3_delete_look", "always"),
    ("cs3_proof", "none"),
    ("cs3_call_timeout_s", "soon"),
    ("cs3_call_timeout_s", "0"),
    ("cs3_call_timeout_s", "nan"),
    ("cs3_call_timeout_s", "inf"),
    ("cs3_idle_timeout_s", "-1"),
    ("cs3_processing_timeout_s", "1 h"),
    ("cs3_transfer_mode", "Pull"),
    ("cs3_transfer_mode", "both"),
    ("cs3_rucio_token_audience", "rucio cloud"),
    ("cs3_rucio_token_audience", " "),
]


def test_defaults(etc: Path) -> None:
    found = endpoint(GATEWAY)
    assert (found.name, found.gateway, found.gateway_tls) == ("CLOUD", "cloud.test:9142", True)
    assert (found.webdav.host, found.webdav.port, found.webdav.path) == ("cloud.test", 443, "/remote.php/webdav")
    assert (found.root, found.upload_landing) == (MountRoot("/"), "temporary")
    assert (found.insecure, found.allow_plaintext, len(found.data_hosts), found.proof) == (False, False, 0, "read")
    assert (found.upload_protocol, found.keep_checksums, found.download_streams) == ("auto", True, 4)


def test_a_space_is_read_from_the_prefix(etc: Path) -> None:
    for prefix in ("/dav/spaces/st-1$sp-2/rucio/", "/dav/spaces/st-1%24sp-2/rucio/"):
        found = endpoint(GATEWAY, prefix=prefix)
        assert (found.root, found.upload_landing) == (SpaceRoot("st-1", "sp-2"), "direct")


@pytest.mark.parametrize(("key", "value", "look", "expected"), RIGHT)
@pytest.mark.parametrize("place", ["attributes", "extended"])
def test_a_right_setting(
    etc: Path, key: str, value: Any, look: Callable[[Endpoint], Any], expected: Any, place: str
) -> None:
    one = {key: value}
    found = endpoint({**GATEWAY, **one}) if place == "attributes" else endpoint(GATEWAY, one)
    assert look(found) == expected


def test_what_is_purged_is_looked_at(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        endpoint({**GATEWAY, "cs3_delete": "purge", "cs3_delete_look": "never"})
    assert "CLOUD" in str(caught.value)
    assert {"cs3_delete", "cs3_delete_look"} <= set(str(caught.value).replace(")", " ").split())


def test_every_setting_is_tried_here(etc: Path, tmp_path: Path) -> None:
    assert {key for key, *_ in RIGHT} | {
        "cs3_ca_bundle",
        "cs3_client_certificate",
        "cs3_client_key",
        "cs3_transfer_mode",
        "cs3_rucio_token_audience",
    } == set(settings.SETTINGS)
    assert set(settings.SETTINGS) >= settings.PLAIN_SETTINGS
    # Any text is a list of hosts.
    assert {key for key, _ in WRONG} | {"cs3_data_hosts"} == set(settings.SETTINGS)


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_setting(etc: Path, key: str, value: Any) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        endpoint({**GATEWAY, key: value})
    message = str(caught.value)
    assert message.startswith("RSE CLOUD: ")
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize("place", ["attributes", "extended"])
def test_an_unknown_setting(etc: Path, place: str) -> None:
    one = {"cs3_gatway": "cloud.test:9142"}
    with pytest.raises(errors.ConfigurationError, match="RSE CLOUD: there is no setting cs3_gatway; there are cs3_"):
        endpoint({**GATEWAY, **one}) if place == "attributes" else endpoint(GATEWAY, one)


def test_settings_of_others_are_left_alone(etc: Path) -> None:
    assert endpoint({**GATEWAY, "site": "X", "fts": "y"}, {"davs_timeout": 5, "web_service_path": "z"}).proof == "read"


def test_the_protocol_wins_over_the_rse(etc: Path) -> None:
    both = endpoint({"cs3_gateway": "rse.test:1", "cs3_proof": "size"}, {"cs3_gateway": "protocol.test:2"})
    assert (both.gateway, both.proof) == ("protocol.test:2", "size")


def test_extended_attributes_as_text(etc: Path) -> None:
    assert endpoint({}, json.dumps(GATEWAY)).gateway == "cloud.test:9142"
    for broken in ("{", "[]", '"text"', 5):
        with pytest.raises(errors.ConfigurationError, match="RSE CLOUD: extended_attributes of scheme davs"):
            endpoint(GATEWAY, broken)


def test_no_gateway(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="RSE CLOUD: setting cs3_gateway is missing") as caught:
        endpoint({})
    # tests/rucio/test_uploads.py follows this advice.
    assert "rucio rse attribute set CLOUD --key cs3_gateway --value " in str(caught.value)


def test_no_webdav_base(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"RSE CLOUD: path /files/rucio/ .* say in cs3_webdav_base"):
        endpoint(GATEWAY, prefix="/files/rucio/")
    assert endpoint({**GATEWAY, "cs3_webdav_base": "/files"}, prefix="/files/rucio/").webdav.path == "/files"


def test_a_scheme_of_somebody_else(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="RSE CLOUD: scheme root is none of davs"):
        endpoint(GATEWAY, scheme="root")


def test_plaintext_to_other_machines_is_refused(etc: Path) -> None:
    for plain, more in (({"cs3_gateway_tls": "false"}, {}), ({}, {"scheme": "http", "port": 80})):
        with pytest.raises(errors.ConfigurationError, match=r"CLOUD: .*without TLS.*allow_plaintext"):
            endpoint({**GATEWAY, **plain}, **more)
        assert endpoint({**GATEWAY, **plain, "cs3_allow_plaintext": "true"}, **more).allow_plaintext
    assert not endpoint({"cs3_gateway": "127.0.0.1:1", "cs3_gateway_tls": "false"}).gateway_tls


def test_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, local = tmp_path / "ours.pem", tmp_path / "local.pem"
    for path in (ours, local):
        path.write_text("")
    configure(tmp_path, monkeypatch)
    assert endpoint({**GATEWAY, "cs3_ca_bundle": str(ours)}).ca_bundle == ours
    # Where a file is differs from machine to machine.
    configure(tmp_path, monkeypatch, more=f"[cs3]\nca_bundle = {local}\n")
    assert endpoint({**GATEWAY, "cs3_ca_bundle": str(ours)}).ca_bundle == local
    local.unlink()
    with pytest.raises(errors.ConfigurationError, match=r"RSE CLOUD: ca_bundle in section \[cs3\] of rucio.cfg"):
        endpoint({**GATEWAY, "cs3_ca_bundle": str(ours)})


def test_client_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, key, local = tmp_path / "ours.pem", tmp_path / "ours.key", tmp_path / "local.pem"
    for path in (ours, key, local):
        path.write_text("")
    asking = {**GATEWAY, "cs3_client_certificate": str(ours), "cs3_client_key": str(key)}
    configure(tmp_path, monkeypatch)
    found = endpoint(asking)
    assert (found.client_certificate, found.client_key) == (ours, key)
    with pytest.raises(errors.ConfigurationError, match="client_key needs a client_certificate"):
        endpoint({**GATEWAY, "cs3_client_key": str(key)})
    # A machine's own certificate comes with its own key, and only to RSEs that ask for one.
    configure(tmp_path, monkeypatch, more=f"[cs3]\nclient_certificate = {local}\n")
    found = endpoint(asking)
    assert (found.client_certificate, found.client_key) == (local, None)
    assert endpoint(GATEWAY).client_certificate is None
    local.unlink()
    with pytest.raises(errors.ConfigurationError, match=r"RSE CLOUD: client_certificate in section \[cs3\] of rucio"):
        endpoint(asking)


def test_attributes_are_asked_for_once(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Client:
        def list_rse_attributes(self, rse: str) -> dict[str, Any]:
            asked.append(rse)
            return dict(GATEWAY)

    monkeypatch.setattr("rucio.client.rseclient.RSEClient", Client)
    monkeypatch.setattr(rses, "_attributes", {})
    for rse in ("ONE", "TWO", "ONE"):
        info = rse_info(rse=rse, id=f"id-of-{rse}")
        assert rses.endpoint(info, info["protocols"][0]).name == rse
    assert asked == ["ONE", "TWO"]


# -- sites that are no CS3 clouds --------------------------------------------------------------------------------


def plain(attributes: Mapping[str, Any], extended: Any = None, **more: Any) -> WebDAVSite:
    info = rse_info(extended=extended, **more)
    return rses.webdav_site(info, info["protocols"][0], lambda _: attributes)


def test_a_plain_site_needs_no_setting(etc: Path) -> None:
    found = plain({}, prefix="/data//rucio%20x/")
    assert (found.name, found.server.host, found.server.port, found.server.secure) == ("CLOUD", "cloud.test", 443, True)
    assert str(found.prefix) == "/data/rucio x"
    assert found.own_hosts == {"cloud.test"}
    assert (found.ca_bundle, found.insecure, found.data_hosts, found.proof) == (None, False, frozenset(), "read")
    assert found.timeouts.idle_s == 300.0


def test_settings_of_a_plain_site(etc: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    found = plain(
        {"cs3_insecure": "yes", "cs3_data_hosts": "pool.test", "cs3_proof": "size", "cs3_idle_timeout_s": "60"},
        {"cs3_ca_bundle": str(bundle), "cs3_proof": "server", "web_service_path": "/srm"},
    )
    assert found.insecure
    assert found.data_hosts == {"pool.test"}
    assert found.proof == "server"
    assert (found.ca_bundle, found.timeouts.idle_s) == (bundle, 60.0)
    # Those of the RSE's CS3 protocol mean nothing here, but a word that nobody knows is a mistake.
    assert plain({"cs3_gateway": "cloud.test:9142"}) == plain({})
    with pytest.raises(errors.ConfigurationError, match="cs3_mode"):
        plain({"cs3_mode": "pull"})


@pytest.mark.parametrize("key", sorted(settings.PLAIN_SETTINGS - {"cs3_data_hosts", "cs3_transfer_mode"}))
def test_a_wrong_setting_of_a_plain_site(etc: Path, key: str) -> None:
    value = next(value for name, value in WRONG if name == key)
    with pytest.raises(errors.ConfigurationError, match=key):
        plain({key: value})


def test_plaintext_of_a_plain_site(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="cs3_allow_plaintext"):
        plain({}, scheme="http")
    assert plain({"cs3_allow_plaintext": "true"}, scheme="http").allow_plaintext
    assert not plain({}, scheme="http", hostname="127.0.0.1").server.secure


@pytest.mark.parametrize("wish", WISHES)
def test_transfer_mode(etc: Path, wish: str) -> None:
    info = rse_info(extended={"cs3_transfer_mode": wish})
    assert rses.transfer_mode(info, info["protocols"][0], lambda _: {"cs3_transfer_mode": "pull"}) == wish
    assert rses.transfer_mode(rse_info(), info["protocols"][0] | {"extended_attributes": None}, lambda _: {}) == "auto"


# -- credentials -------------------------------------------------------------------------------------------------

INFO = rse_info(rse="cloud-1.test", id="abc123")
SECRET = "s3cr3t-w0rd"


def private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def who(provider: CredentialProvider) -> tuple[str, str]:
    login = provider.login()
    return login.client_id, login.client_secret


class Places:
    """Puts one user into each of the five places."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._monkeypatch = monkeypatch

    def fill(self, names: set[str]) -> Mapping[str, str] | None:
        """:returns: what ``connect`` is given."""
        section = "[cs3:cloud-1.test]\nusername = cfg\npassword = 5%%5\n" if "rucio.cfg" in names else ""
        etc = configure(self._home, self._monkeypatch, more=section)
        if "environment" in names:
            self._monkeypatch.setenv("RUCIO_CS3_CLOUD_1_TEST_USERNAME", "environment")
            self._monkeypatch.setenv("RUCIO_CS3_CLOUD_1_TEST_PASSWORD", "2")
        if "own file" in names:
            content = {"cloud-1.test": {"username": "own", "password": "3"}}
            own = private(self._home / "own.json", json.dumps(content))
            self._monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(own))
        if "rse-accounts.cfg" in names:
            content = {"cloud-1.test": {"username": "accounts", "password": "4"}}
            private(etc / "rse-accounts.cfg", json.dumps(content))
        return {"username": "given", "password": "1"} if "given" in names else None


ORDER = {
    "given": ("given", "1"),
    "environment": ("environment", "2"),
    "own file": ("own", "3"),
    "rse-accounts.cfg": ("accounts", "4"),
    "rucio.cfg": ("cfg", "5%%5"),
}


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_place_that_says_something_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    names = list(ORDER)[first:]
    given = Places(tmp_path, monkeypatch).fill(set(names))
    assert who(rse_credentials.credentials(INFO, given)) == ORDER[names[0]]
    given = Places(tmp_path, monkeypatch).fill({names[0]})
    assert who(rse_credentials.credentials(INFO, given)) == ORDER[names[0]]


def test_nothing_anywhere(etc: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"RSE cloud-1\.test: there are no credentials; put"):
        rse_credentials.credentials(INFO)


def test_credentials_of_other_rses_are_not_taken(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"cloud-2.test": {"username": "x", "password": SECRET}, "username": "y", "password": SECRET}
    private(etc / "rse-accounts.cfg", json.dumps(other))
    monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(private(tmp_path / "own", json.dumps(other))))
    monkeypatch.setenv("RUCIO_CS3_CLOUD_2_TEST_USERNAME", "z")
    with pytest.raises(errors.ConfigurationError, match="there are no credentials"):
        rse_credentials.credentials(INFO)


def test_rse_accounts_by_id_and_beside_other_keys(etc: Path) -> None:
    content = {
        "abc123": {"username": "by-id", "password": "1", "is_secure": True, "access_key": "k"},
        "cloud-1.test": {"username": "by-name", "password": "2"},
    }
    private(etc / "rse-accounts.cfg", json.dumps(content))
    assert who(rse_credentials.credentials(INFO)) == ("by-id", "1")


def test_a_second_rse_accounts_file(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private(etc / "rse-accounts.cfg", json.dumps({"other": {"username": "x", "password": "1"}}))
    second = tmp_path / "venv" / "etc"
    second.mkdir(parents=True)
    private(second / "rse-accounts.cfg", json.dumps({"cloud-1.test": {"username": "second", "password": "2"}}))
    monkeypatch.setenv("VIRTUAL_ENV", str(second.parent))
    assert who(rse_credentials.credentials(INFO)) == ("second", "2")


def test_entries_of_other_protocols_hide_none_of_ours(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = json.dumps({"cloud-1.test": {"access_key": "k", "secret_key": SECRET}})
    private(etc / "rse-accounts.cfg", theirs)
    monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(private(tmp_path / "own", theirs)))
    with pytest.raises(errors.ConfigurationError, match="there are no credentials"):
        rse_credentials.credentials(INFO, {"access_key": "k"})
    second = tmp_path / "venv" / "etc"
    second.mkdir(parents=True)
    private(second / "rse-accounts.cfg", json.dumps({"cloud-1.test": {"username": "second", "password": "2"}}))
    monkeypatch.setenv("VIRTUAL_ENV", str(second.parent))
    assert who(rse_credentials.credentials(INFO, {"access_key": "k"})) == ("second", "2")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_an_entry_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """It names the file that is read, and the issuer that gets to see it."""
    file = private(tmp_path / "secret", SECRET)
    etc = configure(tmp_path, monkeypatch, more=f"[cs3:cloud-1.test]\nusername = u\npassword_file = {file}\n")
    accounts = private(
        etc / "rse-accounts.cfg", json.dumps({"cloud-1.test": {"username": "u", "password_file": str(file)}})
    )
    for path in (accounts, etc / "rucio.cfg"):
        path.chmod(mode)
        with pytest.raises(errors.ConfigurationError, match=f"{path} can be changed by other users; run: chmod go-w"):
            rse_credentials.credentials(INFO)
        path.chmod(0o644)
        assert who(rse_credentials.credentials(INFO)) == ("u", SECRET)
        path.unlink() if path is accounts else None


def test_kinds_of_credentials(etc: Path, tmp_path: Path) -> None:
    file = private(tmp_path / "secret", f"{SECRET}\n")
    basic = rse_credentials.credentials(INFO, {"username": "u", "password_file": str(file)})
    assert isinstance(basic, BasicProvider)
    assert who(basic) == ("u", SECRET)
    for entry in ({"token": SECRET}, {"token_file": str(file)}, {"token": SECRET, "username": "u"}):
        bearer = rse_credentials.credentials(INFO, entry)
        assert isinstance(bearer, BearerProvider)
        assert who(bearer) == ("", SECRET)
        assert SECRET not in repr(bearer)
    file.write_text("rotated")
    assert who(basic) == ("u", "rotated")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"username": "u"}, "give either password or password_file"),
        ({"password": SECRET}, "username is missing"),
        ({"username": "", "password": SECRET}, "username is missing"),
        ({"username": "u", "password": SECRET, "password_file": "/x"}, "give either password or password_file"),
        ({"token": SECRET, "token_file": "/x"}, "give exactly one of token, token_file"),
        ({"token": SECRET, "username": "u", "password": "p"}, "a password and a token"),
        ({"token_file": "/x", "username": "u", "password_file": "/y"}, "a password and a token"),
    ],
)
@pytest.mark.parametrize("place", ["given", "rse-accounts.cfg"])
def test_incomplete_credentials(etc: Path, entry: dict[str, str], reason: str, place: str) -> None:
    if place == "rse-accounts.cfg":
        private(etc / "rse-accounts.cfg", json.dumps({"cloud-1.test": entry}))
    with pytest.raises(errors.ConfigurationError, match=reason) as caught:
        rse_credentials.credentials(INFO, entry if place == "given" else None)
    message = str(caught.value)
    assert message.startswith("RSE cloud-1.test: ")
    assert (place if place != "given" else "passed to connect()") in message
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", [f'{{"cloud-1.test": {{"password": "{SECRET}"', f'["{SECRET}"]', f'"{SECRET}"', "", f"{SECRET}\n"]
)
@pytest.mark.parametrize("place", ["rse-accounts.cfg", "own file"])
def test_a_broken_file(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str) -> None:
    path = private((etc if place == "rse-accounts.cfg" else tmp_path) / "rse-accounts.cfg", text)
    if place == "own file":
        monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(path))
    with pytest.raises(errors.ConfigurationError) as caught:
        rse_credentials.credentials(INFO)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_bytes_that_are_no_text(etc: Path) -> None:
    path = etc / "rse-accounts.cfg"
    path.write_bytes(b'{"cloud-1.test": "' + SECRET.encode() + b'\xff"}')
    with pytest.raises(errors.ConfigurationError, match="is no valid JSON") as caught:
        rse_credentials.credentials(INFO)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_refused(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = private(tmp_path / "secret", json.dumps({"cloud-1.test": {"username": "u", "password": SECRET}}))
    path.chmod(mode)
    refused = r"can be read by other users; run: chmod 600"
    with pytest.raises(errors.ConfigurationError, match=refused):
        rse_credentials.credentials(INFO, {"username": "u", "password_file": str(path)}).login()
    monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(path))
    with pytest.raises(errors.ConfigurationError, match=refused):
        rse_credentials.credentials(INFO)
    path.chmod(0o600)
    assert who(rse_credentials.credentials(INFO)) == ("u", SECRET)


def test_a_file_that_is_named_but_missing(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(errors.ConfigurationError, match="missing cannot be read"):
        rse_credentials.credentials(INFO)


def test_no_secret_comes_from_rucios_public_tables(etc: Path) -> None:
    for place in ({"cs3_password": SECRET}, {"cs3_token": SECRET}):
        with pytest.raises(errors.ConfigurationError, match="there is no setting") as caught:
            endpoint({**GATEWAY, **place})
        assert SECRET not in str(caught.value)


def test_the_environment_is_not_touched(etc: Path) -> None:
    before = dict(os.environ)
    rse_credentials.credentials(INFO, {"username": "u", "password": "p"})
    assert dict(os.environ) == before
