"""Where a plain site sends its clients on, and with which token they go."""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from tests.recording_site import Answer, Asked, RecordingSite
from tests.unit.plain_site import CONTENT, TOKEN, body_of, end_of
from tests.unit.test_hostile_hosts import lead


@pytest.fixture
def site() -> Iterator[RecordingSite]:
    with RecordingSite() as site:
        site.folders.add("/rucio")
        yield site


def redirecting(target: str, methods: tuple[str, ...] = ("GET", "PUT")) -> Any:
    """Sends those methods to another server; the URL holds a ticket, as dCache's do."""

    def script(asked: Asked) -> Answer | None:
        if asked.method in methods:
            return Answer(307, {"Location": f"{target}{asked.path}?ticket=t1"})
        return None

    return script


@pytest.fixture
def node() -> Iterator[RecordingSite]:
    """A data node, which takes what stands in the URL for a token."""

    def script(asked: Asked) -> Answer | None:
        assert asked.path.endswith("?ticket=t1")
        if asked.method == "GET":
            return Answer(200, body=CONTENT)
        return Answer(201)

    with RecordingSite(script) as node:
        yield node


def elsewhere(node: RecordingSite) -> str:
    """Its URL under a name that is not the site's."""
    return node.url.replace("127.0.0.1", "localhost")


def test_a_redirect_to_another_host_carries_no_token(site: RecordingSite, node: RecordingSite) -> None:
    site.script = redirecting(elsewhere(node))
    assert end_of(site).checksum("adler32") == f"{zlib.adler32(CONTENT):08x}"
    (asked,) = node.asked
    assert "Authorization" not in asked.headers
    assert TOKEN not in str(asked)


def test_a_redirect_to_another_port_of_the_host_carries_no_token(site: RecordingSite, node: RecordingSite) -> None:
    """There may be anybody's server."""
    site.script = redirecting(node.url)
    assert end_of(site).checksum("adler32") == f"{zlib.adler32(CONTENT):08x}"
    (asked,) = node.asked
    assert TOKEN not in str(asked)


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST"])
def test_a_redirect_to_a_data_host_carries_it(site: RecordingSite, node: RecordingSite, host: str) -> None:
    site.script = redirecting(node.url if host == "127.0.0.1" else elsewhere(node))
    end_of(site, data_hosts=frozenset({host})).checksum("adler32")
    (asked,) = node.asked
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_redirect_by_name_leads_here_only_from_here(
    site: RecordingSite, node: RecordingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens on this machine alone trusts whoever runs here; a name tells nothing of that."""
    lead("node.test", ["127.0.0.1"], monkeypatch)
    site.script = redirecting(node.url.replace("127.0.0.1", "node.test"))
    end_of(site, allow_plaintext=True).checksum("adler32")
    assert len(node.asked) == 1
    monkeypatch.setattr("rucio_cs3.cs3.http.client.Answer.is_from_here", False)
    with pytest.raises(errors.Unavailable, match="leads to this machine"):
        end_of(site, allow_plaintext=True).checksum("adler32")
    assert len(node.asked) == 1
    # Whoever sets up the site has named it.
    end_of(site, allow_plaintext=True, data_hosts=frozenset({"node.test"})).checksum("adler32")
    assert len(node.asked) == 2


def test_a_redirect_to_the_same_host_and_port_carries_it(site: RecordingSite) -> None:
    site.files["/rucio/g"] = CONTENT
    site.script = lambda asked: Answer(307, {"Location": "/rucio/g"}) if asked.path == "/rucio/f" else None
    end_of(site).checksum("adler32")
    assert [asked.path for asked in site.asked] == ["/rucio/f", "/rucio/g"]
    assert {asked.headers["Authorization"] for asked in site.asked} == {f"Bearer {TOKEN}"}


def test_a_redirect_to_a_name_without_percents(site: RecordingSite, node: RecordingSite) -> None:
    """XRootD 5.5.3's."""
    location = f"{elsewhere(node)}/rucio/a b/é?ticket=t1".encode().decode("latin-1")
    site.script = lambda asked: Answer(307, {"Location": location}) if asked.method == "GET" else None
    end_of(site, "/rucio/a%20b/%C3%A9").checksum("adler32")
    (asked,) = node.asked
    assert asked.path == "/rucio/a%20b/%C3%A9?ticket=t1"


def test_a_redirected_body_is_sent_once_and_whole(site: RecordingSite, node: RecordingSite) -> None:
    site.script = redirecting(elsewhere(node))
    node.script = None
    node.folders.add("/rucio")
    landing = end_of(site).landing()
    landing.store(body_of(CONTENT))
    (asked,) = (asked for asked in site.asked if asked.method == "PUT")
    assert asked.body is None
    assert node.files == {f"{asked.path}?ticket=t1": CONTENT}
    assert landing.url == f"{site.url}{asked.path}"


def test_a_body_that_was_sent_to_the_wrong_place_is_sent_again(node: RecordingSite) -> None:
    node.script = None
    node.folders.add("/rucio")
    with RecordingSite(redirecting(elsewhere(node)), continues=False) as slow:

        def only_with_a_body(asked: Asked) -> Answer | None:
            return None if asked.body is None else redirecting(elsewhere(node))(asked)

        slow.script = only_with_a_body
        landing = end_of(slow).landing()
        landing.store(body_of(CONTENT))
        assert node.files == {f"{landing.url.removeprefix(slow.url)}?ticket=t1": CONTENT}


def test_a_redirected_renaming_names_the_new_name_at_the_data_node(site: RecordingSite, node: RecordingSite) -> None:
    """XRootD 5.5.3's redirectors put the token into the URL, and its data nodes look for it at both names."""
    site.script = redirecting(elsewhere(node), ("MOVE",))
    landing = end_of(site).landing()
    landing.store(body_of(CONTENT))
    landing.take_name(landing.stat())
    (asked,) = node.asked
    assert (asked.method, asked.headers["Overwrite"]) == ("MOVE", "F")
    assert asked.headers["Destination"] == f"{elsewhere(node)}/rucio/f?ticket=t1"
    assert TOKEN not in str(asked)
    (first,) = (asked for asked in site.asked if asked.method == "MOVE")
    assert first.headers["Destination"] == f"{site.url}/rucio/f"


def test_what_a_data_node_says_of_a_renaming_tells_no_ticket(site: RecordingSite, node: RecordingSite) -> None:
    """The ticket is in two places of the request that it repeats."""
    site.script = redirecting(elsewhere(node), ("MOVE",))
    node.script = lambda asked: Answer(403, body=f"{asked.path} to {asked.headers['Destination']}".encode())
    landing = end_of(site).landing()
    landing.store(body_of(CONTENT))
    with pytest.raises(errors.AccessDenied, match=r"/rucio/f\?\*\*\*") as caught:
        landing.take_name(landing.stat())
    assert "t1" not in str(caught.value)


def test_a_renaming_that_leads_to_another_path_is_not_followed(site: RecordingSite, node: RecordingSite) -> None:
    """What the new name would be there, nobody knows."""
    site.script = redirecting(f"{elsewhere(node)}/pool", ("MOVE",))
    landing = end_of(site).landing()
    landing.store(body_of(CONTENT))
    with pytest.raises(errors.ProtocolViolation, match="another name") as caught:
        landing.take_name(landing.stat())
    assert "ticket" not in str(caught.value)
    assert node.asked == []


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/f", "http://user@127.0.0.1/f", "http://127.0.0.1\\@evil.test/", "http://evil.test/f"]
)
def test_redirects_that_are_not_followed(site: RecordingSite, location: str) -> None:
    site.script = lambda asked: Answer(302, {"Location": location})
    with pytest.raises(errors.ProtocolViolation, match="redirects"):
        end_of(site).checksum("adler32")


@pytest.mark.parametrize(
    "location",
    [
        "http://bad host:1/x?authz=Bearer%20SECRET",
        "http://a..b/x?authz=SECRET",
        f"http://{'a' * 70}.test/x?authz=SECRET",
        "http://[::1]x/?authz=SECRET",
        "http://[x/?authz=SECRET",
        "http://host:SECRET/",
        "http://host:99999/?authz=SECRET",
        "http://user:SECRET@ho\u2100st/",
    ],
)
@pytest.mark.parametrize("plaintext", [True, False])
def test_a_redirect_to_no_url_tells_nothing_of_it(site: RecordingSite, location: str, plaintext: bool) -> None:
    site.files["/rucio/f"] = CONTENT
    raw = location.encode().decode("latin-1")  # as it goes over the line
    site.script = lambda asked: Answer(307, {"Location": raw}) if asked.method == "GET" else None
    with pytest.raises(errors.CS3Error) as caught:
        end_of(site, allow_plaintext=plaintext).checksum("adler32")
    told = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "SECRET" not in told


def test_a_redirect_never_leaves_tls(site: RecordingSite) -> None:
    end = end_of(site, allow_plaintext=True)
    with pytest.raises(errors.ProtocolViolation, match="from https to http"):
        end._client._follow("https://door.test/f", "http://127.0.0.1/f", "f")
    assert end._client._follow("https://door.test/f", "https://pool.test/f?secret=1", "f") == (
        "https://pool.test/f?secret=1",
        False,
    )


def test_redirects_in_a_circle_end(site: RecordingSite) -> None:
    site.script = lambda asked: Answer(307, {"Location": f"{site.url}/rucio/f?ticket=t1"})
    with pytest.raises(errors.ProtocolViolation, match="more than 5 times") as caught:
        end_of(site).stat()
    assert "ticket" not in str(caught.value)
    assert len(site.asked) == 6
