"""A file at a plain WebDAV site: its name, what looks tell, folders, deletion, and its bytes."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from rucio_cs3.cs3 import Timeouts, errors
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.webdav import webdav
from tests.recording_site import MULTISTATUS, Answer, Asked, RecordingSite
from tests.unit.plain_site import CONTENT, TOKEN, end_of


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
