"""Redirects: who gets to see a token by one. Both sides are recorded, and everything that they were sent is searched.

Which are followed is a table in docs/rse-setup.md; the details are in the tests of each client.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import BearerProvider, Secret, errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.tokens import Credential, TokenSource
from rucio_cs3.cs3.reference import MountRoot, WebDAVBase
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.tus_uploads import Errand, TUSUploads
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.transfers.site_tokens import SiteTokens
from rucio_cs3.transfers.webdav_end import WebDAVEnd
from tests.leaks.known import Known
from tests.leaks.search import Place, search
from tests.leaks.test_files import told
from tests.partners.ends import plain_site
from tests.recording_site import Answer, Asked, RecordingSite

CONTENT = b"content" * 1000


@pytest.fixture
def known(caplog: pytest.LogCaptureFixture) -> Known:
    caplog.set_level(logging.DEBUG)
    return Known()


@pytest.fixture
def elsewhere() -> Iterator[RecordingSite]:
    """Somebody else, who takes everything."""
    with RecordingSite(lambda asked: Answer(204 if asked.method in ("PUT", "DELETE") else 200, {}, b"x")) as site:
        yield site


class Client:
    """Every request of this package that carries a secret, to one server."""

    def __init__(self, url: str, known: Known, tmp_path: Path) -> None:
        names = ("token", "transfer_token", "lent", "in_url", "client_secret")
        self._secrets = {name: secrets.token_urlsafe(30) for name in names}
        for name, secret in self._secrets.items():
            known.add(name, secret)
        self._url, self._tmp_path = url, tmp_path
        token = self._secrets["token"]
        self._site = plain_site("site", f"{url}/rucio/", None)
        provider = BearerProvider(Secret(token))
        self._end = WebDAVEnd(self._site, SiteTokens(self._site, provider, provider), f"{url}/rucio/f")
        endpoint = Endpoint(
            name="cloud",
            gateway="127.0.0.1:1",
            gateway_tls=False,
            webdav=WebDAVBase.parse(f"{url}/dav/", MountRoot("/")),
        )
        self._http = HTTPClient(endpoint)
        self._data = DataGateway(endpoint, self._http, lambda: Credential(token))
        self._tus = TUSUploads(endpoint, self._http, TokenSource(lambda: Credential(token)))

    def close(self) -> None:
        self._http.close()

    def look(self) -> None:
        self._end.stat()

    def read(self) -> None:
        self._end.checksum("adler32")

    def delete(self) -> None:
        self._end.delete()

    def ask_for_a_macaroon(self) -> None:
        self._end.authorization(write=True, lent=True)

    def copy(self) -> None:
        tpc.pull(
            self._end.http,
            source_url="http://127.0.0.1:1/f",
            destination_url=f"{self._url}/rucio/f",
            source_authorization=f"Bearer {self._secrets['lent']}",
            destination_authorization=f"Bearer {self._secrets['token']}",
        )

    def _ticket(self, protocol: str) -> Ticket:
        url = f"{self._url}/data?ticket={self._secrets['in_url']}"
        return Ticket(protocol=protocol, url=url, token=self._secrets["transfer_token"])

    def put_by_ticket(self) -> None:
        (self._tmp_path / "local").write_bytes(CONTENT)
        with (self._tmp_path / "local").open("rb") as file:
            body = UploadBody(file, len(CONTENT), Digests(["adler32"]), name="local")
            self._data.put(self._ticket("simple"), body, target="/f")

    def get_by_ticket(self) -> None:
        with self._data.open(self._ticket("simple"), target="/f") as answer:
            if answer.status_code != 200:
                raise errors.ProtocolViolation("no file", target="/f")

    def patch(self) -> None:
        (self._tmp_path / "local").write_bytes(CONTENT)
        with (self._tmp_path / "local").open("rb") as file:
            body = UploadBody(file, len(CONTENT), Digests(["adler32"]), name="local")
            ticket = self._ticket("tus")
            self._tus.send(
                Errand(body=body, ticket=ticket, target="/f", initiate=lambda: ticket, arrived=lambda: False)
            )

    def ask_an_issuer(self) -> None:
        IssuedToken(
            issuer=IssuerSite(name="issuer", url=self._url),
            grant="client_credentials",
            client_id="me",
            client_secret=Secret(self._secrets["client_secret"]),
        ).get()


REQUESTS: dict[str, Callable[[Client], None]] = {
    "PROPFIND": Client.look,
    "GET": Client.read,
    "DELETE": Client.delete,
    "macaroon": Client.ask_for_a_macaroon,
    "COPY": Client.copy,
    "PUT by ticket": Client.put_by_ticket,
    "GET by ticket": Client.get_by_ticket,
    "PATCH": Client.patch,
    "issuer": Client.ask_an_issuer,
}

#: Of a plain site these may be followed without the token; nothing else may.
FOLLOWED = {"PROPFIND", "GET", "DELETE", "macaroon"}


def locations(there: str) -> dict[str, str]:
    port = there.rpartition(":")[2]
    return {
        "another port": f"{there}/x",
        "another host": f"http://localhost:{port}/x",
        "with a user": f"http://me:password@127.0.0.1:{port}/x",
        "with the host as a user": f"http://HERE@127.0.0.1:{port}/x",
        "no scheme": f"//127.0.0.1:{port}/x",
        "a backslash": f"http://127.0.0.1:{port}\\@HERE/x",
        "a file": "file:///etc/passwd",
        "another scheme": "gopher://127.0.0.1/x",
        "nothing": "",
    }


PLACES = list(locations("http://127.0.0.1:1"))


@pytest.mark.parametrize("status", [303, 307])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("what", REQUESTS)
def test_no_secret_goes_along(
    known: Known,
    caplog: pytest.LogCaptureFixture,
    elsewhere: RecordingSite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    where: str,
    status: int,
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.uploads.tus_uploads._PAUSES", RetryPolicy(base_s=0.001, cap_s=0.001))
    in_location = secrets.token_urlsafe(30)
    known.add("a token of the location", in_location)

    def script(asked: Asked) -> Answer | None:
        if asked.path.startswith("/.well-known/"):
            text = f'{{"issuer": "{site.url}", "token_endpoint": "{site.url}/token"}}'
            return Answer(200, {}, text.encode())
        if what in ("GET", "DELETE") and asked.method == "PROPFIND":
            return None  # the look before it
        location = locations(elsewhere.url)[where].replace("HERE", site.url.removeprefix("http://"))
        return Answer(status, {"Location": f"{location}?authz={in_location}" if location else ""})

    with RecordingSite(script) as site:
        site.files["/rucio/f"] = CONTENT
        with contextlib.closing(Client(site.url, known, tmp_path)) as client:
            error: Exception | None = None
            try:
                REQUESTS[what](client)
            except errors.CS3Error as exc:
                error = exc
        assert any(asked.headers for asked in site.asked)
    seen = [Place(f"{asked.method} elsewhere", f"{asked.headers} {asked.body!r}".encode()) for asked in elsewhere.asked]
    assert search(known, seen) == []
    if what not in FOLLOWED or where not in ("another port", "another host", "no scheme") or status == 303:
        assert not elsewhere.asked
        # A site that gives no macaroon is lent its own token.
        assert error is not None or what == "macaroon"
    if error is not None:
        assert search(known, told(error)) == []
    assert search(known, [Place("the log", caplog.text.encode())]) == []


def test_the_servers_do_see_what_is_theirs(known: Known, tmp_path: Path) -> None:
    """Otherwise nothing of the above would say anything."""
    seen: dict[str, Any] = {}
    for what, request in REQUESTS.items():
        with RecordingSite(lambda asked: None) as site:
            site.files["/rucio/f"] = CONTENT
            with contextlib.closing(Client(site.url, known, tmp_path)) as client, contextlib.suppress(errors.CS3Error):
                request(client)
            text = " ".join(f"{asked.path} {asked.headers}" for asked in site.asked)
            seen[what] = search(known, [Place("site", text.encode())])
    assert all(seen[what] for what in REQUESTS if what != "issuer")
