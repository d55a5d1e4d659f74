"""URLs that servers give us, in tickets, redirects and an issuer's metadata: nothing goes where no setting says."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rucio_cs3.cs3 import Endpoint, WebDAVBase, errors
from rucio_cs3.cs3.config import Site, WebDAVSite
from rucio_cs3.cs3.hosts import is_named, is_off_limits, is_this_machine, split_name
from rucio_cs3.cs3.http import client
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.oauth import IssuerSite
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from tests.recording_site import RecordingSite
from tests.unit.hostile import TRICKY


def endpoint(*data_hosts: str, allow_plaintext: bool = False) -> Endpoint:
    return Endpoint(
        name="CLOUD",
        gateway="cloud.test:9142",
        webdav=WebDAVBase.parse("davs://dav.test/remote.php/webdav"),
        data_hosts=frozenset(data_hosts),
        allow_plaintext=allow_plaintext,
    )


ENDPOINT = endpoint("data.test", "pool.test:8443", "[::1]:8443", "127.0.0.1", allow_plaintext=True)

#: Where nothing may be sent, in all the ways in which it can be written.
FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fd20:ce:0::254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b::169.254.169.254]/",
]

#: What looks like the cloud's own host, and is not.
ELSEWHERE = [
    "https://evil.test/",
    "https://cloud.test.evil.test/",
    "https://evilcloud.test/",
    "https://cloud.test./",
    "https://clоud.test/",  # noqa: RUF001
    "https://ｃloud.test/",  # noqa: RUF001
    "https://cloud。test/",
    "https://xn--cloud-test/",
    "https://cloud.test%00.evil.test/",
    "https://cloud.test%2eevil.test/",
    "https://pool.test/",
    "https://pool.test:8444/",
    "https://[::1]/",
    "https://127.0.0.2/",
    "https://10.0.0.1/",
    "https://localhost/",
]

#: What is no URL of an HTTP server, or one that two readers read in two ways.
NONE = [
    "file:///etc/passwd",
    "file://cloud.test/etc/passwd",
    "gopher://cloud.test:70/_x",
    "ftp://cloud.test/x",
    "data:text/plain,x",
    "javascript:alert(1)",
    "unix:///run/docker.sock",
    "//cloud.test/x",
    "cloud.test/x",
    "https:cloud.test/x",
    "https:///x",
    "https://user:secret@cloud.test/",
    "https://cloud.test@evil.test/",
    "https://cloud.test:secret@evil.test/",
    "https://evil.test\\@cloud.test/",
    "https://cloud.test\\.evil.test/",
    "https://cloud.test:99999/",
    "https://cloud.test:-1/",
    "https://cloud.test:x/",
    "https://[cloud.test/",
    "",
    " ",
]


@pytest.mark.parametrize("url", [*FORBIDDEN, *ELSEWHERE, *NONE])
def test_a_ticket_that_is_not_taken(url: str) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        ENDPOINT.check_data_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [*FORBIDDEN, *ELSEWHERE, *NONE])
def test_a_redirect_that_no_token_follows(url: str) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        ENDPOINT.check_redirect("https://cloud.test/f", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://cloud.test:1/d", "https://DAV.test/d", "https://pool.test:8443/d", "https://[::1]:8443/d"]
)
def test_a_ticket_that_is_taken(url: str) -> None:
    assert ENDPOINT.check_data_url(url) == url


def test_tls_is_not_left_without_leave() -> None:
    with pytest.raises(errors.ProtocolViolation, match="without TLS"):
        endpoint().check_data_url("http://cloud.test/d")
    assert ENDPOINT.check_data_url("http://cloud.test/d")
    with pytest.raises(errors.ProtocolViolation, match="leaves TLS"):
        ENDPOINT.check_redirect("https://cloud.test/d", "http://cloud.test/d")


@pytest.mark.parametrize("name", ["169.254.169.254", "[fe80::1]:80", "fe80::1", "2852039166", "0.0.0.0", "::"])
def test_what_is_off_limits_cannot_be_allowed(name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="no token goes there"):
        endpoint(name)


@pytest.mark.parametrize("host", ["64:ff9b::192.0.2.1", "fd00:ec3::254", "fd20:ce::253", "2001:db8::a9fe:a9fe"])
def test_what_only_looks_like_it_is_not_off_limits(host: str) -> None:
    assert not is_off_limits(host)


@given(TRICKY, st.sampled_from(["https://", "http://", "https:", "//", "", "HTTPS://cloud.test", "https://cloud.test"]))
@example("@evil.test/", "https://cloud.test")
@example("#@cloud.test/", "https://evil.test")
@example("\t/x", "https://cloud.test")
def test_whatever_is_taken_is_asked_of_an_allowed_host(rest: str, beginning: str) -> None:
    """The check and the client that sends the request read a URL alike."""
    url = beginning + rest
    try:
        taken = ENDPOINT.check_data_url(url)
    except errors.ProtocolViolation:
        return
    place = client._place(taken)
    if place is None:
        return  # nothing is asked at all
    assert place.origin.host in ("cloud.test", "dav.test", "data.test", "pool.test", "::1", "127.0.0.1")
    assert not is_off_limits(place.origin.host)
    assert re.fullmatch(r"[!-~]+", place.path), "more than one request could be made of it"


@given(TRICKY)
def test_any_name_of_a_host_is_read_or_refused(text: str) -> None:
    assert is_off_limits(text) in (True, False)
    assert is_this_machine(text) in (True, False)
    try:
        host, port = split_name(text)
    except ValueError:
        return
    assert host == host.lower()
    assert port is None or 0 < port < 65536
    assert is_named(host, port or 443, [text])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Data.test", ("data.test", None)),
        ("data.test:8443", ("data.test", 8443)),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_names_in_settings(name: str, parts: tuple[str, int | None]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize(
    "name", ["", ":1", "a:", "a:0", "a:65536", "a:٣", "a b", "a/b", "a@b", "[::1", "[::1]x", "a?b"]
)
def test_what_is_no_name_of_a_host(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no host|no port"):
        split_name(name)


# -- plain sites: they may send us on to their data nodes, without a token -------------------------------------------


def follow(location: str, url: str = "https://door.test/f", *, allow_plaintext: bool = True) -> tuple[str, bool]:
    site = WebDAVSite(
        name="PLAIN",
        server=WebDAVBase.parse("https://door.test/", MountRoot("/")),
        prefix=Reference(MountRoot("/"), "data"),
        allow_plaintext=allow_plaintext,
    )
    return WebDAVClient(site, HTTPClient(site), lambda _: "Bearer t")._follow(url, location, "f")


@pytest.mark.parametrize(
    "url", [*FORBIDDEN, *(url for url in NONE if ":" in url and not url.startswith(("https:cloud", "https:///")))]
)
@pytest.mark.parametrize("from_url", ["https://door.test/f", "http://door.test/f"])
def test_a_redirect_that_not_even_data_follow(url: str, from_url: str) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        follow(url, from_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost", "[::1]:2379", "127.1", "0x7f000001", "a.localhost", "localhost."]
)
def test_no_other_machine_sends_us_to_our_own(host: str) -> None:
    for url, location in (("http://door.test/f", f"http://{host}/f"), ("https://door.test/f", f"https://{host}/f")):
        with pytest.raises(errors.ProtocolViolation, match=r"this machine|without TLS"):
            follow(location, url)
    assert follow("http://127.0.0.1:1/f", "http://127.0.0.1:2/f") == ("http://127.0.0.1:1/f", False)


@given(TRICKY)
def test_any_location_is_followed_as_far_as_it_may(location: str) -> None:
    try:
        url, with_token = follow(location)
    except errors.ProtocolViolation:
        return
    parts = urlsplit(url)
    assert parts.scheme == "https"
    assert not is_off_limits(parts.hostname or "")
    assert not with_token or (parts.hostname, parts.port or 443) == ("door.test", 443)


# -- names are looked up late ----------------------------------------------------------------------------------------


def lead(name: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a resolver was made to say of a name."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        found = addresses if host == name else [host]
        return [entry for address in found for entry in look_up(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def status_of(port: int, **how: Any) -> int:
    """Of an answer that a name was asked for, which leads anywhere."""
    http = HTTPClient(Site(name="CLOUD", allow_plaintext=True))
    url = f"http://rebound.test:{port}/f"
    with (
        contextlib.closing(http),
        http.request("GET", url, headers={"X-Access-Token": "t"}, target="f", **how) as answer,
    ):
        return answer.status_code


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["fd00:ec2::254", "fe80::1"]])
def test_a_name_that_leads_to_a_link_local_address_is_not_dialled(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_connection(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("dialled")

    lead("rebound.test", addresses, monkeypatch)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(errors.Unavailable, match="link-local"):
        status_of(80)


def test_another_address_of_the_name_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the first is: one where nothing is sent, or one where nobody is."""
    dialled: list[str] = []
    create_connection = socket.create_connection

    def noted(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        dialled.append(address[0])
        return create_connection(address, *args, **kwargs)

    with RecordingSite() as server:
        lead("rebound.test", ["fe80::1", "169.254.169.254", "127.0.0.9", "127.0.0.1"], monkeypatch)
        monkeypatch.setattr(socket, "create_connection", noted)
        assert status_of(urlsplit(server.url).port or 0) == 404
    assert dialled == ["127.0.0.9", "127.0.0.1"]


def test_a_name_given_from_elsewhere_does_not_lead_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    lead("rebound.test", ["::1", "::ffff:127.0.0.1", "127.0.0.1"], monkeypatch)
    with RecordingSite() as server:
        port = urlsplit(server.url).port or 0
        assert status_of(port) == 404
        with pytest.raises(errors.Unavailable, match="leads to this machine"):
            status_of(port, never_here=True)
        assert len(server.asked) == 1


# -- what an issuer's metadata name ----------------------------------------------------------------------------------


ISSUER = IssuerSite(name="issuer", url="https://login.test/realm")


@pytest.mark.parametrize("url", ["https://login.test/token", "https://tokens.test:8443/token"])
def test_an_endpoint_of_an_issuer_may_be_anywhere_over_tls(url: str) -> None:
    assert ISSUER.check_endpoint(url) == url


@pytest.mark.parametrize("url", [*FORBIDDEN, *NONE, "http://login.test/token", "http://127.0.0.1/token"])
def test_an_endpoint_that_no_secret_is_sent_to(url: str) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        ISSUER.check_endpoint(url)
    assert "secret@" not in str(caught.value)


def test_an_issuer_of_this_machine_needs_no_tls() -> None:
    issuer = IssuerSite(name="issuer", url="http://127.0.0.1:8080/realm")
    assert issuer.check_endpoint("http://127.0.0.1:8080/token")
    with pytest.raises(errors.ProtocolViolation, match="without TLS"):
        issuer.check_endpoint("http://localhost:8080/token")
