"""What Rucio's users, databases and configurations hold: PFNs, settings, attributes of requests, credentials."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from tests.unit.rucio_client import configure, protocol_of, rse_info  # isort: skip

from rucio.common.exception import RSEFileNameNotSupported

from rucio_cs3 import partners, rse_credentials, rse_logins, rses, settings
from rucio_cs3.cs3 import errors
from rucio_cs3.protocol import Default
from tests.unit.hostile import BEGINNINGS, BOMBS, JSON, TRICKS, TRICKY

PREFIX = "/remote.php/webdav/eos/project/rucio/"


@pytest.fixture(autouse=True, scope="module")
def _rucio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        configure(tmp_path_factory.mktemp("home"), patch)
        yield


@pytest.fixture(scope="module")
def protocol(_rucio: None) -> Default:
    return protocol_of(rse_info(prefix=PREFIX))


@given(TRICKY, TRICKY)
def test_a_name_of_rucios_makes_a_pfn_that_is_read_back_or_refused(protocol: Default, scope: str, name: str) -> None:
    """A file's name becomes part of its path; it must not become the way to another."""
    lfn = {"scope": "s", "name": "n", "path": f"{scope}/{name}"}
    try:
        pfn = protocol.lfns2pfns(lfn)["s:n"]
    except UnicodeEncodeError:
        return  # half a surrogate pair; Rucio's database has none
    assert pfn.startswith(f"davs://cloud.test:443{PREFIX}")
    try:
        parsed = protocol.parse_pfns(pfn)[pfn]
    except RSEFileNameNotSupported:
        return
    whole = f"{parsed['prefix']}{parsed['path'].lstrip('/')}{parsed['name']}"
    assert posixpath.normpath(whole) == whole.rstrip("/")
    assert whole.startswith(PREFIX)
    again = protocol.lfns2pfns({"scope": "s", "name": "n", "path": whole[len(PREFIX) :]})["s:n"]
    assert protocol.parse_pfns(again)[again] == parsed


@given(BEGINNINGS, TRICKY)
@example("davs://cloud.test:443", "/remote.php/webdav/eos/project/rucio/../../secret")
@example("davs://cloud.test:443", "/remote.php/webdav/eos/project/rucio")
@example("davs://cloud.test:443", "/remote.php/webdav/eos/project/ruciox/f")
@example("davs://cloud.test:443", "/remote.php/webdav/eos%2Fproject/rucio/f")
def test_a_pfn_outside_the_prefix_is_refused(protocol: Default, beginning: str, rest: str) -> None:
    for pfn in (beginning + rest, f"davs://cloud.test:443{PREFIX}{rest}"):
        try:
            parsed = protocol.parse_pfns(pfn)[pfn]
            url = protocol.http_url(pfn)
        except RSEFileNameNotSupported:
            continue
        path = unquote(urlsplit(url).path)
        assert path.startswith(PREFIX)
        assert posixpath.normpath(path) == path
        assert ".." not in (parsed["path"] + parsed["name"]).split("/")


@given(st.lists(st.sampled_from(TRICKS), max_size=4).map("/".join))
def test_any_prefix_is_encoded_once(prefix: str) -> None:
    try:
        path = settings.prefix_path({"prefix": prefix})
    except UnicodeEncodeError:
        return
    assert path.startswith("/")
    assert path.endswith("/")
    assert "//" not in path
    assert settings.prefix_path({"prefix": path}) == path


@given(BEGINNINGS, TRICKY)
@example("davs://cloud.test:99999", "/x")
@example("davs://[cloud.test", "/x")
def test_any_url_of_a_replica_has_a_protocol_or_an_error_of_ours(beginning: str, rest: str) -> None:
    """Rucio's users may register replicas by their URLs."""
    info = {"rse": "CLOUD", "protocols": []}
    with pytest.raises((errors.ConfigurationError, errors.InvalidReference)):
        partners.protocol_of(info, partners.READ, beginning + rest)


# -- settings and credentials ---------------------------------------------------------------------------------------

VALUES = JSON | TRICKY | st.sampled_from(["1" * 5000, "x" * 5000, "1e400", "nan", "-0", "1e9", "٣"])


@example({"cs3_webdav_base": "\ud800"}, False)
@given(st.dictionaries(st.sampled_from(sorted(settings.SETTINGS)), VALUES, max_size=4), st.booleans())
def test_any_settings_are_an_endpoint_or_a_mistake_that_names_the_rse(values: dict[str, Any], as_text: bool) -> None:
    extended: Any = {"cs3_gateway": "cloud.test:9142", **values}
    if as_text:
        extended = json.dumps(extended)
    info = rse_info(rse="HOSTILE", extended=extended)
    for read in (rses.endpoint, rses.webdav_site):
        try:
            made = read(info, info["protocols"][0], lambda _: {})
        except errors.ConfigurationError as error:
            assert "HOSTILE" in str(error)  # noqa: PT017
            continue
        assert all(0 < seconds < 2**31 / 1000 for seconds in vars(made.timeouts).values())


@pytest.mark.parametrize("extended", BOMBS)
def test_attributes_that_are_no_json(extended: str) -> None:
    info = rse_info(extended=extended)
    with pytest.raises(errors.ConfigurationError):
        rses.endpoint(info, info["protocols"][0], lambda _: {})


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-that-name/x", "/", "\ud800"])
@pytest.mark.parametrize("key", ["cs3_ca_bundle", "cs3_client_certificate"])
def test_paths_that_name_no_file(key: str, name: str) -> None:
    info = rse_info(extended={"cs3_gateway": "cloud.test:9142", key: name})
    with pytest.raises(errors.ConfigurationError, match="no file on this machine"):
        rses.endpoint(info, info["protocols"][0], lambda _: {})
    with pytest.raises(errors.ConfigurationError):
        rse_logins.provider({"type": "basic", "username": "me", "password_file": name}, lambda: "root").login()


@pytest.mark.parametrize(
    "name", ["169.254.169.254", "[fe80::1]:80", "2852039166", "0.0.0.0", "a/b", "a@b", "a:x", "a:0"]
)
def test_hosts_that_no_setting_allows(name: str) -> None:
    info = rse_info(extended={"cs3_gateway": "cloud.test:9142", "cs3_data_hosts": f"good.test,{name}"})
    with pytest.raises(errors.ConfigurationError, match="data_hosts"):
        rses.endpoint(info, info["protocols"][0], lambda _: {})


@pytest.mark.parametrize("text", BOMBS)
def test_credentials_that_are_no_json(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(text, "utf-8")
    file.chmod(0o600)
    monkeypatch.setenv(rse_credentials.CREDENTIALS_VARIABLE, str(file))
    with pytest.raises(errors.ConfigurationError) as caught:
        rse_credentials.credentials({"rse": "CLOUD", "id": "1"})
    assert text[:20] not in str(caught.value) or len(text) < 10


@given(st.dictionaries(st.sampled_from(rse_logins.KEYS), VALUES, max_size=5))
def test_any_entry_is_a_way_to_log_in_or_a_mistake(values: dict[str, Any]) -> None:
    try:
        provider = rse_logins.provider(values, lambda: "root")
    except errors.ConfigurationError:
        return
    assert isinstance(hash(provider), int)
