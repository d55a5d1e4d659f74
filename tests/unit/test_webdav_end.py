"""A plain WebDAV site as an end: names, bytes, redirects, and which of its tokens goes where."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import BasicProvider, BearerProvider, Secret, Timeouts, WebDAVBase, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import WebDAVSite
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login import authentication, tokens
from rucio_cs3.cs3.login.bearer_tokens import CommandToken
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.cs3.webdav import webdav
from rucio_cs3.sandbox.issuer import LIFETIME_S, Issuer
from rucio_cs3.transfers.ends import NothingToLend
from rucio_cs3.transfers.ladder import ClaimLost, Job, State, transfer_one
from rucio_cs3.transfers.site_tokens import SiteTokens, _is_good_for
from rucio_cs3.transfers.webdav_end import WebDAVEnd
from tests.recording_site import MULTISTATUS, Answer, Asked, RecordingSite
from tests.unit.test_hostile_hosts import lead
from tests.unit.test_providers import NAMES, WAYS
from tests.unit.transfer_world import MemoryEnd, Notes, PaperClaim

TOKEN = "configured-token"
CONTENT = bytes(range(256)) * 8192  # two pieces


def end_of(
    site: RecordingSite, path: str = "/rucio/f", provider: CredentialProvider | None = None, **changes: Any
) -> WebDAVEnd:
    server = WebDAVBase.parse(f"{site.url}/", MountRoot("/"))
    settings = {"name": "PLAIN", "timeouts": Timeouts(connect_s=5, idle_s=5), **changes}
    described = WebDAVSite(server=server, prefix=server.reference(f"{site.url}/rucio/"), **settings)
    provider = provider or BearerProvider(Secret(TOKEN))
    return WebDAVEnd(described, SiteTokens(described, provider, provider), f"{site.url}{path}")


def body_of(content: bytes) -> UploadBody:
    return UploadBody(io.BytesIO(content), len(content), Digests(), name="f")


@pytest.fixture
def site() -> Iterator[RecordingSite]:
    with RecordingSite() as site:
        site.folders.add("/rucio")
        yield site


# -- names -------------------------------------------------------------------------------------------------------


def test_a_pfn_of_any_scheme_becomes_one_url(site: RecordingSite) -> None:
    end = end_of(site, "/rucio//a%20b/é")
    assert end.url == f"{site.url}/rucio/a%20b/%C3%A9"
    assert end.place == end.url
    with pytest.raises(errors.InvalidReference):
        end_of(site, "/rucio/../x")


def test_two_ends_are_the_same_place_by_url(site: RecordingSite) -> None:
    assert end_of(site).is_same_place(end_of(site, "//rucio/f"))
    assert not end_of(site).is_same_place(end_of(site, "/rucio/g"))


# -- looks -------------------------------------------------------------------------------------------------------


def test_stat_is_one_request_with_the_sites_token(site: RecordingSite) -> None:
    site.files["/rucio/f"] = CONTENT
    info = end_of(site).stat()
    assert (info.size, info.is_directory, info.etag) == (len(CONTENT), False, f'"{len(CONTENT)}"')
    (asked,) = site.asked
    assert (asked.method, asked.headers["Depth"]) == ("PROPFIND", "0")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


def test_settled_asks_for_the_checksum_of_a_file(site: RecordingSite) -> None:
    site.files["/rucio/f"] = CONTENT
    adler32 = f"{zlib.adler32(CONTENT):08x}"

    def script(asked: Asked) -> Answer | None:
        if asked.method != "HEAD":
            return None
        assert asked.headers["Want-Digest"] == "adler32"
        return Answer(200, {"Digest": f"adler32={adler32}", "Content-Length": str(len(CONTENT))})

    site.script = script
    assert end_of(site).settled().checksums == {"adler32": adler32}
    assert site.methods() == ["PROPFIND", "HEAD"]
    # Of a folder nobody asks: XRootD would never answer.
    assert end_of(site, "/rucio").settled().is_directory
    assert site.methods() == ["PROPFIND", "HEAD", "PROPFIND"]


@pytest.mark.parametrize("status", [400, 405, 500, 501])
def test_a_server_without_digests_is_believed_all_the_same(site: RecordingSite, status: int) -> None:
    site.files["/rucio/f"] = CONTENT
    site.script = lambda asked: Answer(status) if asked.method == "HEAD" else None
    assert end_of(site).settled().checksums == {}
    assert end_of(site).checksum("adler32") == f"{zlib.adler32(CONTENT):08x}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFound), (401, errors.Unauthenticated), (403, errors.AccessDenied), (503, errors.Unavailable)],
)
def test_errors_of_a_look(site: RecordingSite, status: int, kind: type[errors.CS3Error]) -> None:
    site.script = lambda _: Answer(status, body=b"in its own words")
    with pytest.raises(kind, match="in its own words") as caught:
        end_of(site).settled()
    assert TOKEN not in str(caught.value)


@pytest.fixture
def until_released() -> Iterator[threading.Event]:
    """Scripts that stall wait for this; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def sums_late(wait: Callable[[], object]) -> Any:
    """XRootD 5.5.3 reads the whole file before it answers."""

    def script(asked: Asked) -> Answer | None:
        if asked.method != "HEAD":
            return None
        wait()
        return Answer(200, {"Digest": f"adler32={zlib.adler32(CONTENT):08x}"})

    return script


def test_a_checksum_may_take_longer_the_larger_the_file_is(
    site: RecordingSite, until_released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdav, "_SUM_BYTES_PER_S", len(CONTENT) / 20)
    site.files["/rucio/f"] = CONTENT
    site.script = sums_late(lambda: until_released.wait(0.5))
    found = end_of(site, timeouts=Timeouts(connect_s=5, idle_s=0.2)).settled()
    assert found.checksums == {"adler32": f"{zlib.adler32(CONTENT):08x}"}


def test_the_patience_with_a_checksum_ends(site: RecordingSite, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    request = HTTPClient.request

    def recording(self: HTTPClient, method: str, url: str, **options: Any) -> Any:
        if method == "HEAD":
            given.append(options["patience_s"])
        else:
            assert not options["patience_s"]
        return request(self, method, url, **options)

    monkeypatch.setattr(HTTPClient, "request", recording)
    client = end_of(site)._client
    site.files["/rucio/f"] = CONTENT
    info = client.stat(client.site.server.reference(f"{site.url}/rucio/f"))
    for size in (0, 10 * 10**9, 10**15):
        client.checksums(replace(info, size=size))
    assert given == [0, 500, 3600]


@pytest.mark.parametrize("how", ["silent", "breaks", "proxy"])
def test_a_checksum_that_takes_too_long_leaves_the_file_to_be_read(
    site: RecordingSite, until_released: threading.Event, how: str
) -> None:
    site.files["/rucio/f"] = CONTENT
    site.script = sums_late(lambda: until_released.wait(30))
    if how == "proxy":
        site.script = lambda asked: Answer(504) if asked.method == "HEAD" else None
    elif how == "breaks":

        def breaks() -> None:
            raise ConnectionResetError

        site.script = sums_late(breaks)
    quick = Timeouts(connect_s=5, idle_s=0.2 if how == "silent" else 5)
    assert end_of(site, timeouts=quick).settled().checksums == {}
    # Of a file that is in the way only its size is asked.
    assert end_of(site, timeouts=quick).stat().size == len(CONTENT)
    # Here nothing but the size would be compared, although the server has a checksum.
    with pytest.raises((errors.DeadlineExceeded, errors.TransferInterrupted)):
        end_of(site, timeouts=quick, proof="server").settled()


def test_a_file_goes_without_its_checksum(site: RecordingSite) -> None:
    site.files["/rucio/f"] = CONTENT
    end_of(site).delete()
    assert site.methods() == ["PROPFIND", "DELETE"]


NOT_YET = MULTISTATUS.format(path="/rucio/f", kind="", size=len(CONTENT)).replace(
    "<d:getetag>", '<c:Checksums xmlns:c="http://www.dcache.org/2013/webdav">adler32=000000</c:Checksums><d:getetag>'
)


@pytest.mark.parametrize("head", ["f499b08b", "00000000", ""])
def test_a_checksum_that_is_not_there_yet_is_asked_for_and_kept(site: RecordingSite, head: str) -> None:
    """EOS (xrootd#1314); whoever proves a file waits for the real one."""

    def script(asked: Asked) -> Answer | None:
        if asked.method == "PROPFIND":
            return Answer(207, body=NOT_YET.encode())
        return Answer(200, {"Digest": f"adler32={head}"} if head else {})

    site.script = script
    assert end_of(site).settled().checksums == {"adler32": head or "00000000"}
    assert site.methods() == ["PROPFIND", "HEAD"]


def test_an_answer_without_an_end_is_not_read(site: RecordingSite) -> None:
    site.script = lambda _: Answer(207, body=b"<a>" * 100_000)
    with pytest.raises(errors.ProtocolViolation, match="over 65536 bytes"):
        end_of(site).stat()


# -- folders and deletion ------------------------------------------------------------------------------------------


def test_folders_are_made_from_the_first_that_is_missing(site: RecordingSite) -> None:
    end_of(site, "/rucio/a/b/c/f").make_parents()
    assert {"/rucio/a", "/rucio/a/b", "/rucio/a/b/c"} <= site.folders
    assert site.methods().count("MKCOL") == 3
    site.asked.clear()
    end_of(site, "/rucio/a/b/c/f").make_parents()
    assert site.methods() == ["PROPFIND"]


def test_a_file_where_a_folder_is_needed_is_an_error(site: RecordingSite) -> None:
    site.files["/rucio/a"] = b"x"
    with pytest.raises(errors.AlreadyExists):
        end_of(site, "/rucio/a/f").make_parents()


def test_a_folder_is_never_deleted(site: RecordingSite) -> None:
    site.folders.add("/rucio/f")
    with pytest.raises(errors.InvalidRequest, match="folder"):
        end_of(site).delete()
    assert site.methods() == ["PROPFIND"]


def test_a_file_is_deleted_and_a_missing_one_is_not_found(site: RecordingSite) -> None:
    site.files["/rucio/f"] = b"x"
    end_of(site).delete()
    assert site.files == {}
    with pytest.raises(errors.NotFound):
        end_of(site).delete()


# -- bytes -------------------------------------------------------------------------------------------------------


def test_open_reads_and_begins_again(site: RecordingSite) -> None:
    site.files["/rucio/f"] = CONTENT
    with end_of(site).open() as file:
        buffer = memoryview(bytearray(1000))
        assert file.readinto(buffer) == 1000
        file.seek(0)
        found = bytearray()
        while count := file.readinto(buffer):
            found += buffer[:count]
    assert found == CONTENT


def test_a_body_that_ends_early_is_found_out(site: RecordingSite) -> None:
    site.files["/rucio/f"] = CONTENT
    site.script = lambda asked: Answer(200, body=CONTENT[:5000], announced=9000) if asked.method == "GET" else None
    with pytest.raises(errors.TransferInterrupted, match="5000 of 9000"):
        end_of(site).checksum("adler32")


@pytest.mark.parametrize("continues", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b""])
def test_store(content: bytes, continues: bool) -> None:
    with RecordingSite(continues=continues) as site:
        site.folders.add("/rucio")
        end_of(site).store(body_of(content))
        assert site.files == {"/rucio/f": content}
        (put,) = (asked for asked in site.asked if asked.method == "PUT")
        assert put.headers["If-None-Match"] == "*"
        assert put.headers["Content-Length"] == str(len(content))
        assert "Transfer-Encoding" not in put.headers


def test_store_replaces_nothing(site: RecordingSite) -> None:
    site.files["/rucio/f"] = b"somebody's"
    with pytest.raises(errors.AlreadyExists):
        end_of(site).store(body_of(CONTENT))
    # One that came between the look and the PUT, where the server knows If-None-Match.
    site.files.clear()
    site.script = lambda asked: Answer(412) if asked.method == "PUT" else None
    with pytest.raises(errors.AlreadyExists):
        end_of(site).store(body_of(CONTENT))
    assert "DELETE" not in site.methods()


def test_a_refused_body_is_not_sent(site: RecordingSite) -> None:
    site.script = lambda asked: Answer(507, body=b"disk full") if asked.method == "PUT" else None
    with pytest.raises(errors.NoSpaceLeft, match="disk full"):
        end_of(site).store(body_of(CONTENT))
    (put,) = (asked for asked in site.asked if asked.method == "PUT")
    assert put.body is None


@pytest.mark.parametrize("whose", ["a-part", "somebody-elses", "whole"])
@pytest.mark.parametrize("status", [500, 502])
def test_what_a_failed_upload_leaves_is_not_removed_here(site: RecordingSite, status: int, whose: str) -> None:
    """It may be another agent's by now; rucio_cs3.transfers.ladder asks the claim first."""
    left = {"a-part": CONTENT[:1000], "somebody-elses": b"another file", "whole": CONTENT}[whose]

    def script(asked: Asked) -> Answer | None:
        if asked.method != "PUT" or asked.body is None:
            return None
        site.files["/rucio/f"] = left
        return Answer(status)

    site.script = script
    with pytest.raises(errors.CS3Error) as caught:
        end_of(site).store(body_of(CONTENT))
    assert caught.value.code == f"HTTP {status}"
    assert site.files == {"/rucio/f": left}
    assert "DELETE" not in site.methods()


def test_an_upload_whose_reading_fails_removes_nothing(site: RecordingSite) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            if self.tell():
                site.files["/rucio/f"] = b"another agent's"
                raise errors.TransferInterrupted("the source broke off")
            return super().readinto(buffer)

    body = UploadBody(Broken(CONTENT), len(CONTENT), Digests(), name="f")
    with pytest.raises(errors.TransferInterrupted, match="the source broke off"):
        end_of(site).store(body)
    assert "DELETE" not in site.methods()
    assert "/rucio/f" in site.files


class Cut(io.BytesIO):
    """A source that breaks off after its first piece."""

    def __init__(self, error: errors.CS3Error) -> None:
        super().__init__(CONTENT)
        self._error = error

    def readinto(self, buffer: Any, /) -> int:
        if self.tell():
            raise self._error
        return super().readinto(buffer)


@contextlib.contextmanager
def cut_source() -> Iterator[Reader]:
    yield Cut(errors.TransferInterrupted("cut"))


def late(site: RecordingSite, look: int, status: int = 500) -> list[str]:
    """Make the site show a part of what was sent at a later look only; gives the looks after the upload."""
    looks: list[str] = []

    def script(asked: Asked) -> Answer | None:
        if asked.method == "PUT" and asked.body is not None:
            return Answer(status)
        if asked.method == "PROPFIND" and any(asked.method == "PUT" for asked in site.asked):
            looks.append(asked.path)
            if len(looks) == look:
                site.files["/rucio/f"] = CONTENT[:1000]
        return None

    site.script = script
    return looks


@pytest.mark.parametrize("code", [None, "HTTP 502"])
def test_a_part_that_comes_late_is_there_when_the_upload_has_failed(site: RecordingSite, code: str | None) -> None:
    looks = late(site, 3)
    # What the other server said is no answer of this one.
    error = errors.Unavailable("the source is gone", code=code)
    body = UploadBody(Cut(error), len(CONTENT), Digests(), name="f")
    with pytest.raises(errors.Unavailable) as caught:
        end_of(site).store(body)
    assert caught.value is error
    assert len(looks) == 3
    assert "DELETE" not in site.methods()


@pytest.mark.parametrize("status", [502, 504])
def test_an_answer_of_a_proxy_is_none_of_the_site(site: RecordingSite, status: int) -> None:
    looks = late(site, 3, status)
    with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
        end_of(site).store(body_of(CONTENT))
    assert len(looks) == 3


def test_where_the_site_has_answered_nobody_waits_for_a_part(site: RecordingSite) -> None:
    looks = late(site, 1)
    with pytest.raises(errors.ServerFault):
        end_of(site).store(body_of(CONTENT))
    assert looks == []


@pytest.mark.parametrize("whose", ["ours", "another-agents"])
def test_what_a_cut_relay_leaves_goes_by_leave_of_the_claim(site: RecordingSite, whose: str) -> None:
    late(site, 2)
    source, destination, claim = MemoryEnd("source", CONTENT), end_of(site), PaperClaim()
    source.wish = "relay"
    source.open = cut_source  # type: ignore[method-assign]
    if whose == "another-agents":
        claim.removal = ClaimLost("another agent has it")
    job = Job(request_id="f" * 32, size_bytes=len(CONTENT), adler32=f"{zlib.adler32(CONTENT):08x}")
    outcome = transfer_one(job, source, destination, claim, Notes())
    assert claim.asked == ["removal"]
    if whose == "ours":
        assert (outcome.state, site.files) == (State.FAILED, {})
    else:
        assert (outcome.state, site.files) == (State.ABANDONED, {"/rucio/f": CONTENT[:1000]})


# -- redirects ---------------------------------------------------------------------------------------------------


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


def test_a_redirected_body_is_sent_once_and_whole(site: RecordingSite, node: RecordingSite) -> None:
    site.script = redirecting(elsewhere(node))
    node.script = None
    node.folders.add("/rucio")
    end_of(site).store(body_of(CONTENT))
    (asked,) = (asked for asked in site.asked if asked.method == "PUT")
    assert asked.body is None
    assert node.files == {"/rucio/f?ticket=t1": CONTENT}


def test_a_body_that_was_sent_to_the_wrong_place_is_sent_again(node: RecordingSite) -> None:
    node.script = None
    node.folders.add("/rucio")
    with RecordingSite(redirecting(elsewhere(node)), continues=False) as slow:

        def only_with_a_body(asked: Asked) -> Answer | None:
            return None if asked.body is None else redirecting(elsewhere(node))(asked)

        slow.script = only_with_a_body
        end_of(slow).store(body_of(CONTENT))
    assert node.files == {"/rucio/f?ticket=t1": CONTENT}


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


# -- tokens ------------------------------------------------------------------------------------------------------


def macaroon(*activities: str) -> str:
    packets = b"".join(b"0020cid activity:" + each.encode() + b"\n" for each in activities)
    return base64.urlsafe_b64encode(b"0010location x1\n" + packets + b"002fsignature \x00\xff\n").decode().rstrip("=")


def giving(token: str) -> Any:
    def script(asked: Asked) -> Answer | None:
        return Answer(200, body=json.dumps({"macaroon": token}).encode()) if asked.method == "POST" else None

    return script


@pytest.mark.parametrize(("write", "wanted"), [(False, "DOWNLOAD,LIST"), (True, "UPLOAD,LIST")])
def test_the_other_side_gets_a_macaroon_for_one_file(site: RecordingSite, write: bool, wanted: str) -> None:
    given = macaroon("READ_METADATA,UPLOAD,DOWNLOAD,LIST", wanted)
    site.script = giving(given)
    end = end_of(site)
    assert end.authorization(write=write, lent=True) == f"Bearer {given}"
    assert end.authorization(write=write) == f"Bearer {TOKEN}"
    (asked,) = site.asked
    assert (asked.method, asked.path) == ("POST", "/rucio/f")
    assert asked.headers["Content-Type"] == "application/macaroon-request"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert json.loads(asked.body or b"") == {"caveats": [f"activity:{wanted}"], "validity": "PT3H"}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(405),
        Answer(501),
        Answer(400),
        Answer(415),
        # XRootD 5.5.3 to the bearer of a token.
        Answer(200, body=json.dumps({"macaroon": macaroon("READ_METADATA", "DOWNLOAD,LIST")}).encode()),
    ],
)
def test_where_there_is_none_the_configured_token_is_lent_and_nobody_asks_again(
    site: RecordingSite, answer: Answer
) -> None:
    site.script = lambda asked: answer if asked.method == "POST" else None
    for _ in range(2):
        assert end_of(site).authorization(write=False, lent=True) == f"Bearer {TOKEN}"
    assert site.methods() == ["POST"]
    # Of another identity nothing is known.
    end_of(site, provider=BearerProvider(Secret("other"))).authorization(write=False, lent=True)
    assert site.methods() == ["POST", "POST"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403),
        Answer(404),
        Answer(409),
        Answer(200, body=b"<html>"),
        Answer(200, body=b"[]"),
        Answer(200, body=b'{"macaroon": 5}'),
    ],
)
def test_a_file_without_a_macaroon_says_nothing_about_others(site: RecordingSite, answer: Answer) -> None:
    given = macaroon("DOWNLOAD,LIST")

    def script(asked: Asked) -> Answer | None:
        return answer if asked.path == "/rucio/private" else giving(given)(asked)

    site.script = script
    assert end_of(site, "/rucio/private").authorization(write=False, lent=True) == f"Bearer {TOKEN}"
    assert end_of(site).authorization(write=False, lent=True) == f"Bearer {given}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (429, errors.Throttled),
        (500, errors.ServerFault),
        (502, errors.Unavailable),
        (504, errors.DeadlineExceeded),
    ],
)
def test_after_a_failure_no_broader_token_is_lent(
    site: RecordingSite, status: int, kind: type[errors.CS3Error]
) -> None:
    given = macaroon("DOWNLOAD,LIST")
    failures = [Answer(status)]
    site.script = lambda asked: failures.pop() if failures else giving(given)(asked)
    with pytest.raises(kind):
        end_of(site).authorization(write=False, lent=True)
    assert end_of(site).authorization(write=False, lent=True) == f"Bearer {given}"


def test_a_site_that_is_away_is_no_site_without_macaroons(site: RecordingSite) -> None:
    site.script = lambda asked: Answer(503, {"Retry-After": "7"})
    with pytest.raises(errors.Unavailable) as caught:
        end_of(site).authorization(write=False, lent=True)
    assert caught.value.retry_after_s == 7
    site.script = giving(macaroon("DOWNLOAD,LIST"))
    assert end_of(site).authorization(write=False, lent=True) != f"Bearer {TOKEN}"


def test_a_password_is_never_lent(site: RecordingSite) -> None:
    provider = BasicProvider("user", Secret("word"))
    end = end_of(site, provider=provider)
    assert end.authorization(write=True) == "Basic dXNlcjp3b3Jk"
    site.script = lambda asked: Answer(405) if asked.method == "POST" else None
    with pytest.raises(NothingToLend, match="password"):
        end.authorization(write=True, lent=True)
    site.script = giving(macaroon("UPLOAD,LIST"))
    with pytest.raises(NothingToLend):  # asked an hour later only
        end.authorization(write=True, lent=True)
    other = end_of(site, provider=BasicProvider("other", Secret("word")))
    assert other.authorization(write=True, lent=True).startswith("Bearer ")


def test_a_password_needs_tls_or_this_machine() -> None:
    server = WebDAVBase.parse("http://elsewhere.test/", MountRoot("/"))
    site = WebDAVSite(
        name="PLAIN", server=server, prefix=server.reference("http://elsewhere.test/"), allow_plaintext=True
    )
    provider = BasicProvider("user", Secret("word"))
    with pytest.raises(errors.ConfigurationError, match="TLS"):
        SiteTokens(site, provider, provider).own(write=False)


def test_plaintext_to_other_machines_is_refused() -> None:
    server = WebDAVBase.parse("http://elsewhere.test/", MountRoot("/"))
    with pytest.raises(errors.ConfigurationError, match="cs3_allow_plaintext"):
        WebDAVSite(name="PLAIN", server=server, prefix=server.reference("http://elsewhere.test/"))


@pytest.mark.parametrize(
    ("activities", "good"),
    [
        (("DOWNLOAD,LIST",), True),
        (("DOWNLOAD,UPLOAD,LIST", "DOWNLOAD,LIST"), True),
        (("READ_METADATA", "DOWNLOAD,LIST"), False),
        (("UPLOAD,LIST",), False),
        ((), False),
    ],
)
def test_what_a_macaroon_is_good_for(activities: tuple[str, ...], good: bool) -> None:
    assert _is_good_for(macaroon(*activities), ("DOWNLOAD", "LIST")) is good
    assert not _is_good_for("§§", ("DOWNLOAD",))


def test_a_token_file_is_read_anew(site: RecordingSite, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)
    end = end_of(site, provider=BearerProvider(Secret(file=file)))
    assert end.authorization(write=False) == "Bearer first"
    file.write_text("second")
    assert end.authorization(write=False) == "Bearer second"


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_a_login_that_only_a_gateway_understands_is_not_shown(
    site: RecordingSite, way: Callable[[Secret], CredentialProvider]
) -> None:
    """A cloud's machine key lets its holder be anybody there."""
    provider = way(Secret("secret-word"))
    end = end_of(site, provider=provider)
    kind = provider.login().type
    if kind in ("basic", "appauth", "bearer"):
        assert end.authorization(write=True).startswith("Bearer " if kind == "bearer" else "Basic ")
        return
    for lent in (False, True):
        with pytest.raises(errors.ConfigurationError, match=f"PLAIN: a login of type {kind} is for") as caught:
            end.authorization(write=True, lent=lent)
        assert "secret-word" not in str(caught.value)
    with pytest.raises(errors.ConfigurationError):
        end.stat()
    assert site.asked == []


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def issued(issuer: Issuer) -> BearerProvider:
    return BearerProvider(
        IssuedToken(
            issuer=IssuerSite(name="issuer", url=issuer.url),
            grant="client_credentials",
            client_id=issuer.client_id,
            client_secret=Secret(issuer.client_secret),
        )
    )


def test_an_issuer_is_not_asked_for_each_request(site: RecordingSite, issuer: Issuer) -> None:
    site.files["/rucio/f"] = CONTENT
    for _ in range(5):
        # Each transfer has an end of its own.
        end_of(site, provider=issued(issuer)).stat()
    assert len(issuer.requests) == 1
    assert len({asked.headers["Authorization"] for asked in site.asked}) == 1


def test_nor_is_a_command_run(site: RecordingSite, tmp_path: Path, issuer: Issuer) -> None:
    token, runs = issuer.access_token("me", audience="plain"), tmp_path / "runs"
    command = CommandToken(("sh", "-c", f"echo >> {runs}; echo {token}"))
    for _ in range(5):
        assert end_of(site, provider=BearerProvider(command)).authorization(write=False) == f"Bearer {token}"
    assert runs.read_text() == "\n"


class LaterClock:
    """The clocks of this machine, ``ahead_s`` later."""

    ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> LaterClock:
    clock = LaterClock()
    monkeypatch.setattr(tokens, "time", clock)
    return clock


def test_a_token_that_does_not_say_when_it_ends_is_kept_for_some_seconds(
    site: RecordingSite, tmp_path: Path, later: LaterClock
) -> None:
    runs = tmp_path / "runs"
    end = end_of(site, provider=BearerProvider(CommandToken(("sh", "-c", f"echo >> {runs}; echo opaque"))))
    for _ in range(3):
        assert end.authorization(write=False) == "Bearer opaque"
    assert runs.read_text() == "\n"
    later.ahead_s = tokens.UNKNOWN_LIFE_S
    assert end.authorization(write=False) == "Bearer opaque"
    assert runs.read_text() == "\n\n"
    # Only what it says itself is believed of its end.
    assert not end.token_has_died


def test_a_token_that_is_lent_has_half_its_life_before_it(
    site: RecordingSite, issuer: Issuer, later: LaterClock
) -> None:
    site.script = lambda asked: Answer(405) if asked.method == "POST" else None
    end = end_of(site, provider=issued(issuer))
    first = end.authorization(write=True)
    later.ahead_s = 0.7 * LIFETIME_S
    assert end.authorization(write=True) == first
    assert end.authorization(write=True, lent=True) != first


def test_an_issuer_that_refuses_is_not_asked_for_each_request(
    site: RecordingSite, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.refuses = True
    told = []
    for _ in range(5):
        with pytest.raises(errors.Unauthenticated) as caught:
            end_of(site, provider=issued(issuer)).stat()
        told.append(caught.value)
    assert len(issuer.requests) == 1
    assert len({id(error) for error in told}) == 5
    issuer.refuses = False
    clock = LaterClock()
    clock.ahead_s = authentication.REFUSED_S
    monkeypatch.setattr(authentication, "time", clock)
    assert end_of(site, provider=issued(issuer)).authorization(write=False).startswith("Bearer ")


def test_a_token_that_the_site_refuses_is_asked_for_anew(site: RecordingSite, issuer: Issuer) -> None:
    end = end_of(site, provider=issued(issuer))
    first = end.authorization(write=False)
    site.script = lambda asked: Answer(401) if asked.headers["Authorization"] == first else None
    site.files["/rucio/f"] = CONTENT
    assert not end.token_has_died
    assert end.stat().size == len(CONTENT)
    assert len(issuer.requests) == 2
    assert end.token_has_died
    assert end.authorization(write=False) != first
    assert not end.token_has_died


def test_nothing_is_repeated_with_the_same_token_nor_twice(site: RecordingSite, issuer: Issuer) -> None:
    site.script = lambda asked: Answer(401)
    for provider, requests in ((None, 1), (issued(issuer), 2)):
        site.asked.clear()
        with pytest.raises(errors.Unauthenticated):
            end_of(site, provider=provider).stat()
        assert len(site.asked) == requests


def test_a_files_bytes_are_sent_once_however_dead_the_token_is(site: RecordingSite, issuer: Issuer) -> None:
    end = end_of(site, provider=issued(issuer))
    site.script = lambda asked: Answer(401) if asked.method == "PUT" else None
    with pytest.raises(errors.Unauthenticated):
        end.store(body_of(CONTENT))
    assert site.methods().count("PUT") == 1
