"""Names at a real XRootD: how a copy gets its own, what is in the way of that, and what a killed attempt leaves."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from rucio_cs3.sandbox.xrootd import ALL_ACTIVITIES, XRootDSite
from rucio_cs3.transfers.ends import Landing
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Wish
from tests.partners.ends import CONTENT, MODES, Partner, names_beside, plain_site, transfer
from tests.sweeping import sweep

pytestmark = pytest.mark.xrootd


def landed(xrootd: Partner, path: str, content: bytes = b"proven") -> Landing:
    """A copy that has come, beside the file's folder."""
    end = xrootd.end(quote(path), "auto")
    end.make_parents()
    landing = end.landing()
    landing.store(UploadBody(io.BytesIO(content), len(content), Digests(), name="f"))
    return landing


@pytest.mark.reva
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_copied_to_the_name_itself(
    reva: Partner, xrootd: Partner, path: str, mode: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which only a renaming gives."""
    asked: list[tuple[str, str, str | None]] = []
    request = HTTPClient.request

    @contextmanager
    def recording(self: HTTPClient, method: str, url: str, **options: Any) -> Iterator[Any]:
        asked.append((method, url, options["headers"].get("Destination")))
        with request(self, method, url, **options) as response:
            yield response

    monkeypatch.setattr(HTTPClient, "request", recording)
    reva.write(path, CONTENT)
    end = xrootd.end(path, mode)
    assert transfer(reva.end(path, "auto"), end).state is State.DONE
    assert {method for method, url, _ in asked if url == end.url} == {"PROPFIND"}
    assert [method for method, _, destination in asked if destination == end.url] == ["MOVE"]
    hidden = f"{end.url.rpartition('/')[0]}/.rucio-cs3."
    copies = [method for method, url, to in asked if (to or url).startswith(hidden) and method in ("COPY", "PUT")]
    assert copies == ["PUT" if mode == "relay" else "COPY"]


@pytest.mark.reva
@pytest.mark.parametrize("mode", MODES)
def test_what_a_killed_attempt_left_is_swept(reva: Partner, xrootd: Partner, path: str, mode: Wish) -> None:
    reva.write(path, CONTENT)
    landed(xrootd, path, CONTENT[:1000])
    others = landed(xrootd, f"{path}2").settled().reference.name
    assert len(names_beside(xrootd.on_disk(path))) == 2
    outcome = transfer(reva.end(path, "auto"), xrootd.end(path, mode), attempt=1)
    assert (outcome.state, outcome.copied) == (State.DONE, True), outcome.reason
    assert names_beside(xrootd.on_disk(path)) == sorted(["file", others])
    assert xrootd.read(path) == CONTENT


@pytest.mark.parametrize("name", ["plain", "two words", "100%25 é+#&='", "a;b,c@d:e"], ids=range(4))
def test_a_copy_takes_its_name(xrootd: Partner, path: str, name: str) -> None:
    """Whatever is in it: XRootD 5.5.3 takes percents in ``Destination`` for a part of the name."""
    path = f"{path}s of {name}/{name}"
    landing = landed(xrootd, path)
    landing.take_name(landing.settled())
    assert names_beside(xrootd.on_disk(path)) == [name]
    assert xrootd.end(quote(path), "auto").stat().size == len(b"proven")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_is_taken_stays(xrootd: Partner, path: str, kind: str) -> None:
    landing = landed(xrootd, path)
    file = landing.settled()
    standing = xrootd.write(path if kind == "file" else f"{path}/inside", b"somebody's")
    with pytest.raises(errors.AlreadyExists):
        landing.take_name(file)
    assert standing.read_bytes() == b"somebody's"
    assert landing.stat().size == len(b"proven")
    landing.discard(may_come=True)
    assert names_beside(xrootd.on_disk(path)) == ["file"]


def test_what_a_look_is_for(xrootd_site: XRootDSite, path: str) -> None:
    """XRootD 5.5.3 renames onto a file whatever ``Overwrite`` says, unless the token is for new files only."""
    site = plain_site("XRD", xrootd_site.url, xrootd_site.ca_bundle)
    written = [xrootd_site.write(f"{path}{number}", str(number).encode()) for number in range(2)]

    def renamed(activities: Sequence[str], to: int) -> int:
        token = xrootd_site.token(activities=activities)
        with contextlib.closing(HTTPClient(site)) as http:
            client = WebDAVClient(site, http, lambda _: f"Bearer {token}")
            headers = {"Overwrite": "F", "Destination": f"{xrootd_site.url}/{path}{to}"}
            source = site.server.reference(f"{xrootd_site.url}/{path}0")
            with client.request("MOVE", source, headers=headers) as answer:
                return answer.status_code

    assert renamed(["UPLOAD", "LIST"], 1) == 403
    assert [place.read_bytes() for place in written] == [b"0", b"1"]
    assert renamed(["UPLOAD", "LIST"], 2) == 201
    assert names_beside(written[0]) == ["file1", "file2"]
    xrootd_site.write(f"{path}0", b"another")
    assert renamed(ALL_ACTIVITIES, 1) == 201
    assert written[1].read_bytes() == b"another"


def test_a_folder_is_listed_and_only_its_files(xrootd: Partner, path: str) -> None:
    for name in ("a b", "%41", "<&>'\"", "ü"):
        xrootd.write(f"{path}s/{name}", b"x")
    xrootd.write(f"{path}s/folder/in", b"x")
    end = xrootd.end(f"{path}s/f", "auto")
    before = names_beside(xrootd.on_disk(f"{path}s/f"))
    hidden = landed(xrootd, f"{path}s/f").settled().reference.name
    assert [url.rpartition("/")[2] for url in sweep(end)] == [hidden]
    assert names_beside(xrootd.on_disk(f"{path}s/f")) == before
    assert sweep(xrootd.end(f"{path}nothing/f", "auto")) == []
