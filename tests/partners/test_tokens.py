"""Whose token is seen by whom: all requests of both sides are written down, and looked through."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from rucio_cs3.cs3 import BasicProvider, BearerProvider, Secret, errors
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.login.tokens import LENT_LIFE_S
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.xrootd import XRootDSite
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Mode, Wish
from tests.partners.ends import (
    CONTENT,
    MODES,
    Partner,
    of_cloud,
    of_xrootd,
    plain_site,
    transfer,
    webdav_end,
)
from tests.recording_site import Answer, Asked, RecordingSite

OWN = "the-plain-sites-own-token"
PASSWORD = "Basic dXNlcjp3b3Jk"


def macaroon(activities: str, path: str) -> str:
    caveats = f"0020cid activity:{activities}\n0020cid path:{path}\n"
    return base64.urlsafe_b64encode(f"0010location x\n{caveats}".encode()).decode().rstrip("=")


class TPCSite(RecordingSite):
    """A plain site that copies by itself, and gives macaroons where ``gives`` says so."""

    def __init__(self, *, gives: bool) -> None:
        super().__init__(self._act)
        self.gives = gives
        self.folders.add("/rucio")

    def _act(self, asked: Asked) -> Answer | None:
        authorization = asked.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ")
        activities = {"GET": "DOWNLOAD,LIST", "HEAD": "DOWNLOAD,LIST", "PUT": "UPLOAD,LIST"}.get(asked.method, "-")
        if authorization != PASSWORD and token not in (OWN, macaroon(activities, asked.path)):
            return Answer(401)
        if asked.method == "POST" and self.gives:
            (caveat,) = json.loads(asked.body or b"")["caveats"]
            given = macaroon(caveat.removeprefix("activity:"), asked.path)
            return Answer(200, body=json.dumps({"macaroon": given}).encode())
        if asked.method == "COPY":
            return self._copy(asked)
        return None

    def _copy(self, asked: Asked) -> Answer:
        lent = {"Authorization": asked.headers.get("TransferHeaderAuthorization", "")}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        if asked.path.rstrip("/") in self.folders or (asked.path in self.files and "Source" in asked.headers):
            return Answer(412)
        try:
            if "Source" in asked.headers:
                with opener.open(urllib.request.Request(asked.headers["Source"], headers=lent)) as answer:
                    self.files[asked.path] = answer.read()
            else:
                url, data = asked.headers["Destination"], self.files[asked.path]
                opener.open(urllib.request.Request(url, data, lent, method="PUT")).close()
        except urllib.error.HTTPError as error:
            with error:
                return Answer(202, body=f"failure: status {error.code}\n".encode())
        return Answer(202, body=b"success: Created\n")

    def end(self, path: str, wish: Wish = "auto", provider: CredentialProvider | None = None) -> End:
        described = plain_site("PLAIN", f"{self.url}/rucio/", None)
        provider = provider or BearerProvider(Secret(OWN))
        return webdav_end(described, provider, f"{self.url}/rucio/{path}", wish)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Mapping[str, str]]]:
    """Every HTTP request of this process: method, URL, headers."""
    found: list[tuple[str, str, Mapping[str, str]]] = []
    request = HTTPClient.request

    @contextlib.contextmanager
    def recording(self: HTTPClient, method: str, url: str, **options: Any) -> Iterator[Any]:
        found.append((method, url, dict(options["headers"])))
        with request(self, method, url, **options) as response:
            yield response

    monkeypatch.setattr(HTTPClient, "request", recording)
    return found


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[EmbeddedCloud, Partner]]:
    with EmbeddedCloud(name="cloud") as cloud, of_cloud(cloud) as partner:
        yield cloud, partner


@pytest.mark.parametrize("gives", [True, False], ids=["macaroons", "no-macaroons"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction", ["to-plain", "from-plain"])
def test_each_token_goes_where_it_is_meant_to(
    cloud: tuple[EmbeddedCloud, Partner],
    sent: list[tuple[str, str, Mapping[str, str]]],
    path: str,
    mode: Wish,
    direction: str,
    gives: bool,
) -> None:
    place, partner = cloud
    with TPCSite(gives=gives) as plain:
        there, here = partner.end(path, "auto"), plain.end("f", mode)
        if direction == "to-plain":
            partner.write(path, CONTENT)
            outcome = transfer(there, here)
            assert plain.files.get("/rucio/f") == CONTENT
        else:
            plain.files["/rucio/f"] = CONTENT
            outcome = transfer(here, there)
            assert partner.read(path) == CONTENT
        assert outcome.state is State.DONE, outcome.reason
        clouds = there.authorization(write=True).removeprefix("Bearer ")
        acts = {"pull": "destination", "push": "source"}.get(mode)
        plain_acts = acts == ("destination" if direction == "to-plain" else "source")

        # What left this process.
        for method, url, headers in sent:
            if url.startswith(plain.url):
                own, other = OWN, clouds
            else:
                assert url.startswith(place.http_url)
                own, other = clouds, OWN
            for name, value in headers.items():
                if name == "TransferHeaderAuthorization":
                    assert (method, own in value) == ("COPY", False)
                else:
                    assert other not in value, (method, name)
        lent = [
            headers["TransferHeaderAuthorization"] for _, _, headers in sent if "TransferHeaderAuthorization" in headers
        ]
        if acts is None:
            assert lent == []
            assert "COPY" not in plain.methods()
        elif plain_acts:
            assert lent == [f"Bearer {clouds}"]
        elif gives:
            (asked_for,) = (asked.path for asked in plain.asked if asked.method == "POST")
            # Of a file to come that is its hidden name, which only we change.
            assert (asked_for == "/rucio/f") == (direction == "from-plain")
            activities = "UPLOAD,LIST" if direction == "to-plain" else "DOWNLOAD,LIST"
            assert lent == [f"Bearer {macaroon(activities, asked_for)}"]
        else:
            assert lent == [f"Bearer {OWN}"]

        # What reached the plain site, from us and from the cloud.
        for asked in plain.asked:
            seen = str(asked.headers)
            assert (clouds in seen) == (asked.method == "COPY" and "TransferHeaderAuthorization" in asked.headers)
            if clouds in seen:
                assert asked.headers["Authorization"] == f"Bearer {OWN}"


def test_a_clouds_token_is_renewed_before_it_is_lent(cloud: tuple[EmbeddedCloud, Partner], path: str) -> None:
    """The other site looks at it when the copy begins, which may be after a while in its queue."""
    end = cloud[1].end(path, "auto")
    assert isinstance(end, CS3End)
    tokens = end._storage._gateway.tokens
    now = time.time()
    old = tokens._current = replace(tokens.get(), issued_at=now - 85_000, expires_at=now + LENT_LIFE_S - 60)
    assert end.authorization(write=True) == f"Bearer {old.token}"
    lent = end.authorization(write=True, lent=True)
    assert lent != f"Bearer {old.token}"
    assert end.authorization(write=True) == end.authorization(write=True, lent=True) == lent


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction", ["to-plain", "from-plain"])
def test_swapped_tokens_fail_cleanly(
    cloud: tuple[EmbeddedCloud, Partner], path: str, mode: Wish, direction: str
) -> None:
    _, partner = cloud
    there = partner.end(path, "auto")
    with TPCSite(gives=False) as plain:
        token = there.authorization(write=True).removeprefix("Bearer ")
        here = plain.end("f", mode, BearerProvider(Secret(token)))
        if direction == "to-plain":
            partner.write(path, CONTENT)
            outcome = transfer(there, here)
            assert plain.files == {}
            assert partner.read(path) == CONTENT
        else:
            plain.files["/rucio/f"] = CONTENT
            outcome = transfer(here, there)
            assert partner.read(path) is None
            assert plain.files == {"/rucio/f": CONTENT}
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.Unauthenticated), outcome.reason


@pytest.mark.parametrize(("direction", "mode"), [("to-plain", Mode.PULL), ("from-plain", Mode.PUSH)])
def test_a_site_with_a_password_acts_itself(
    cloud: tuple[EmbeddedCloud, Partner], path: str, direction: str, mode: Mode
) -> None:
    """The other way round it would have to show the password to the cloud."""
    _, partner = cloud
    there = partner.end(path, "auto")
    with TPCSite(gives=False) as plain:
        here = plain.end("f", provider=BasicProvider("user", Secret("word")))
        if direction == "to-plain":
            partner.write(path, CONTENT)
            outcome = transfer(there, here)
        else:
            plain.files["/rucio/f"] = CONTENT
            outcome = transfer(here, there)
            assert partner.read(path) == CONTENT
    assert (outcome.state, outcome.mode) == (State.DONE, mode), outcome.reason
    # Nothing was held against the cloud, which was never asked.
    assert there.speaks_tpc()


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_mode_that_needs_the_password_elsewhere_is_refused(
    cloud: tuple[EmbeddedCloud, Partner], path: str, mode: Wish
) -> None:
    _, partner = cloud
    there = partner.end(path, "auto")
    with TPCSite(gives=False) as plain:
        here = plain.end("f", mode, BasicProvider("user", Secret("word")))
        if mode == "push":
            partner.write(path, CONTENT)
            outcome = transfer(there, here)
            assert plain.files == {}
        else:
            plain.files["/rucio/f"] = CONTENT
            outcome = transfer(here, there)
            assert partner.read(path) is None
    assert outcome.state is State.FAILED
    assert "a password is not shown to another site" in str(outcome.reason)


# -- a real XRootD -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuer() -> Iterator[XRootDSite]:
    """Gives macaroons to everybody; XRootD 5.5.3 gives none to the bearer of a token."""
    with XRootDSite("twins", anonymous=True) as site:
        yield site


@pytest.fixture(scope="module")
def strict(issuer: XRootDSite) -> Iterator[XRootDSite]:
    """Takes the issuer's macaroons, and nobody without."""
    with XRootDSite("twins", secret=issuer.secret) as site:
        yield site


def status(site: XRootDSite, method: str, path: str, authorization: str, data: bytes | None = None) -> int:
    context = ssl.create_default_context(cafile=site.ca_bundle)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    url = f"{site.url}/{path}"
    try:
        with opener.open(urllib.request.Request(url, data, {"Authorization": authorization}, method=method)) as answer:
            answer.read()  # a file that is still being read is locked
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.xrootd
def test_a_macaroon_of_xrootd_is_for_one_file_and_one_use(issuer: XRootDSite, strict: XRootDSite, path: str) -> None:
    issuer.write(path, CONTENT)
    strict.write(path, CONTENT)
    # XRootD 5.5.3 compares the beginning of the path only (XrdMacaroonsAuthz.cc, verify_path): "file2" would do.
    other = path.replace("file", "another")
    strict.write(other, CONTENT)
    end = of_xrootd(issuer, token="nobody").end(path, "auto")
    reading = end.authorization(write=False, lent=True)
    assert "nobody" not in reading
    assert status(strict, "GET", path, reading) == 200
    assert status(strict, "GET", other, reading) == 403
    assert status(strict, "PUT", path, reading, b"x") == 403
    assert status(strict, "DELETE", path, reading) == 403
    new = path.replace("file", "new")
    writing = of_xrootd(issuer, token="nobody").end(new, "auto").authorization(write=True, lent=True)
    assert status(strict, "GET", path, writing) == 403
    assert status(strict, "PUT", path, writing, b"x") == 403
    assert status(strict, "PUT", new, writing, b"x") == 200
    assert strict.path_on_disk(new).read_bytes() == b"x"
    assert strict.path_on_disk(path).read_bytes() == CONTENT


@pytest.mark.xrootd
@pytest.mark.reva
@pytest.mark.parametrize("direction", ["to-xrootd", "from-xrootd"])
def test_reva_uses_a_macaroon_of_xrootd(reva: Partner, issuer: XRootDSite, path: str, direction: str) -> None:
    xrootd = of_xrootd(issuer, token="nobody")
    source, destination = (reva, xrootd) if direction == "to-xrootd" else (xrootd, reva)
    source.write(path, CONTENT)
    # Reva acts in both.
    wish: Wish = "push" if direction == "to-xrootd" else "pull"
    outcome = transfer(source.end(path, wish), destination.end(path, "auto"))
    assert outcome.state is State.DONE, outcome.reason
    assert destination.read(path) == CONTENT


@pytest.mark.xrootd
def test_a_macaroon_that_is_good_for_nothing_is_not_used(strict: XRootDSite, path: str) -> None:
    strict.write(path, CONTENT)
    token = strict.token()
    lent = of_xrootd(strict, token).end(path, "auto").authorization(write=False, lent=True)
    assert lent == f"Bearer {token}"
