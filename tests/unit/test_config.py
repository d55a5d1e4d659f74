"""Endpoints: a wrong setting is one clear sentence, and tokens go nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import Endpoint, Timeouts, WebDAVBase, errors
from rucio_cs3.cs3.config import is_loopback, split_address

WEBDAV = WebDAVBase.parse("https://cloud.test/remote.php/webdav")
SPACE = WebDAVBase.parse("https://cloud.test/dav/spaces/a$b")


def endpoint(**changes: Any) -> Endpoint:
    return Endpoint(**{"name": "CLOUD", "gateway": "cloud.test:9142", "webdav": WEBDAV, **changes})


@pytest.mark.parametrize("name", ["call_s", "operation_s", "connect_s", "idle_s", "processing_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_timeout_is_above_zero(name: str, value: float) -> None:
    with pytest.raises(errors.ConfigurationError, match=name):
        Timeouts(**{name: value})


@pytest.mark.parametrize(
    "address", ["", "cloud", "cloud:", ":9142", "cloud:x", "cloud:70000", "u@cloud:1", "c:1/x", "[::1"]
)
def test_a_gateway_is_host_and_port(address: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="CLOUD: gateway must be host:port"):
        endpoint(gateway=address)


@pytest.mark.parametrize(
    ("address", "parts"), [("a.test:1", ("a.test", 1)), ("[::1]:2", ("::1", 2)), ("A:3", ("a", 3))]
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address, "x") == parts


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "127.0.0.1.evil.test", "127.evil.test", "localhost.evil.test", "10.0.0.1", "::2"])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "address", ["169.254.169.254:80", "2852039166:80", "[fe80::1]:1", "0.0.0.0:1", "[::]:1", "224.0.0.1:1"]
)
def test_a_gateway_where_nothing_is_ever_sent(address: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"CLOUD: gateway .*link-local"):
        endpoint(gateway=address)


def test_plaintext_to_other_machines_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"CLOUD: gateway cloud.test:9142 .* allow_plaintext"):
        endpoint(gateway_tls=False)
    with pytest.raises(errors.ConfigurationError, match=r"CLOUD: WebDAV cloud.test:80 .* allow_plaintext"):
        endpoint(webdav=WebDAVBase.parse("http://cloud.test/remote.php/webdav"))
    plain = WebDAVBase.parse("http://cloud.test/remote.php/webdav")
    assert endpoint(gateway_tls=False, webdav=plain, allow_plaintext=True).gateway_host == "cloud.test"
    local = WebDAVBase.parse("http://127.0.0.1:8080/remote.php/webdav")
    assert endpoint(gateway="localhost:1", gateway_tls=False, webdav=local).gateway_host == "localhost"


def test_a_missing_ca_bundle(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"CLOUD: ca_bundle .*missing\.pem is no file"):
        endpoint(ca_bundle=tmp_path / "missing.pem")


@pytest.mark.parametrize(
    ("webdav", "landing", "decided"),
    [
        (WEBDAV, None, "temporary"),
        (SPACE, None, "direct"),
        (SPACE, "temporary", "temporary"),
    ],
)
def test_where_uploads_land(webdav: WebDAVBase, landing: Any, decided: str) -> None:
    assert endpoint(webdav=webdav, landing=landing).upload_landing == decided


def test_an_endpoint_is_a_key() -> None:
    assert {endpoint(): 1}[endpoint()] == 1
    assert endpoint().stores_paths
    assert not endpoint(webdav=SPACE).stores_paths


@pytest.mark.parametrize(
    "url",
    ["https://cloud.test/data", "https://CLOUD.test:9999/data/x?y", "https://data.test/d", "http://127.0.0.1:1/d"],
)
def test_tickets_that_are_taken(url: str) -> None:
    assert endpoint(data_hosts=frozenset({"data.test", "127.0.0.1"})).check_data_url(url) == url


HEAD = "https://head.test:2880/f"


@pytest.mark.parametrize(
    "url",
    ["https://head.test:2880/g?ticket=1", "https://HEAD.test:2880/", "https://Data.test:1/g", "https://data.test/g"],
)
def test_redirects_that_a_token_follows(url: str) -> None:
    assert endpoint(data_hosts=frozenset({"data.TEST"})).check_redirect(HEAD, url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://head.test/f", "head.test:443"),
        ("https://head.test:2881/f", "data_hosts"),
        ("https://head.test:0/f", "head.test:0"),
        # A ticket may name the cloud's own hosts; a server elsewhere that sends us there is not the cloud.
        ("https://cloud.test/f", "data_hosts"),
        ("http://head.test:2880/f", "leaves TLS"),
        ("http://data.test/f", "leaves TLS"),
        ("https://head.test:2880\\@data.test/f", "backslash"),
        ("https://secret@data.test/f", "user"),
        ("https://data.test:secret/", "is none"),
        ("ftp://head.test:2880/f", "no HTTP server"),
    ],
)
def test_redirects_that_no_token_follows(url: str, words: str) -> None:
    site = endpoint(data_hosts=frozenset({"data.test"}), allow_plaintext=True)
    with pytest.raises(errors.ProtocolViolation, match=words) as caught:
        site.check_redirect(HEAD, url)
    assert "secret" not in str(caught.value)


def test_a_redirect_without_tls_needs_leave() -> None:
    url = "http://head.test:2880/f"
    assert endpoint(allow_plaintext=True).check_redirect(url, url) == url
    with pytest.raises(errors.ProtocolViolation, match="without TLS"):
        endpoint().check_redirect(url, url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://cloud.test/data", "without TLS"),
        ("https://evil.test/data", "data_hosts"),
        ("https://cloud.test.evil.test/data", "data_hosts"),
        ("https://evil.test\\@cloud.test/data", "backslash"),
        ("https://cloud.test@evil.test/data", "user"),
        ("https://evil.test#@cloud.test/", "data_hosts"),
        ("ftp://cloud.test/data", "no HTTP server"),
        ("file:///etc/passwd", "no HTTP server"),
        ("https:///data", "no HTTP server"),
        ("https://[cloud.test/", "is none"),
        ("", "no HTTP server"),
    ],
)
def test_tickets_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        endpoint().check_data_url(url)
    assert words in str(caught.value)
    assert "CLOUD" in str(caught.value)
