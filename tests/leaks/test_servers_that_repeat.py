"""Servers that repeat what they were told, word for word: nothing of it is in an error, behind one, or in a log.

Seen in the wild: proxies whose error pages have the request's headers, Go servers that print a request as a map, and
XRootD, which names the URL with its token.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import BasicProvider, BearerProvider, CS3Storage, Endpoint, Reference, Secret, Timeouts, errors
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import (
    AppPasswordProvider,
    CredentialProvider,
    MachineProvider,
    PublicLinkProvider,
    ServiceAccountProvider,
)
from rucio_cs3.cs3.reference import MountRoot, WebDAVBase
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.transfers.site_tokens import SiteTokens
from rucio_cs3.transfers.webdav_end import WebDAVEnd
from tests.leaks.known import Known
from tests.leaks.search import Place, search
from tests.leaks.test_files import told
from tests.partners.ends import plain_site
from tests.recording_site import Answer, Asked, RecordingSite

AWKWARD = '/"wört% +&7'


def secret() -> str:
    return f"{secrets.token_hex(8)}{AWKWARD}"


@pytest.fixture
def known(caplog: pytest.LogCaptureFixture) -> Known:
    caplog.set_level(logging.DEBUG)
    return Known()


def assert_nothing_told(known: Known, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    assert len(known)
    assert search(known, [*told(error), Place("the log", caplog.text.encode())]) == []


# -- HTTP --------------------------------------------------------------------------------------------------------------

#: What a server makes of a request in its error message.
WAYS: dict[str, Callable[[Asked], str]] = {
    "headers": lambda asked: "; ".join(f"{name}: {value[:150]}" for name, value in asked.headers.items()),
    "Go": lambda asked: " ".join(f"map[{name}:[{value}]]" for name, value in reversed(list(asked.headers.items()))),
    "one": lambda asked: asked.headers.get("Authorization", ""),
    "the other one": lambda asked: asked.headers.get("TransferHeaderAuthorization", ""),
    "no scheme": lambda asked: asked.headers.get("Authorization", "").rpartition(" ")[2],
    "the path": lambda asked: f"cannot {asked.method} {asked.path}",
    "the body": lambda asked: (asked.body or b"").decode("utf-8", "replace"),
}


@pytest.fixture(params=WAYS)
def repeating(request: pytest.FixtureRequest) -> Iterator[RecordingSite]:
    """Answers 500 to all but looks, with the request in reason phrase, body and trace."""
    way = WAYS[request.param]

    def script(asked: Asked) -> Answer | None:
        if asked.method == "PROPFIND":
            return None
        words = way(asked)
        headers = {"X-Request-Id": " ".join(words[:200].split()).encode("latin-1", "replace").decode("latin-1")}
        return Answer(500, headers, words.encode())

    with RecordingSite(script) as site:
        site.folders.add("/rucio")
        site.files["/rucio/f"] = b"content"
        yield site


@pytest.fixture(params=["password", "token"])
def end(request: pytest.FixtureRequest, repeating: RecordingSite, known: Known) -> WebDAVEnd:
    provider: CredentialProvider
    if request.param == "password":
        password = secret()
        known.add("the password", password)
        provider = BasicProvider("einstein", Secret(password))
    else:
        token = secrets.token_urlsafe(40)
        known.add("the token", token)
        provider = BearerProvider(Secret(token))
    site = plain_site("site", f"{repeating.url}/rucio/", None)
    return WebDAVEnd(site, SiteTokens(site, provider, provider), f"{repeating.url}/rucio/f")


OPERATIONS: dict[str, Callable[[WebDAVEnd], object]] = {
    "read": lambda end: end.checksum("adler32"),
    "delete": lambda end: end.delete(),
    "lend": lambda end: end.authorization(write=False, lent=True),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_plain_site(end: WebDAVEnd, known: Known, caplog: pytest.LogCaptureFixture, operation: str) -> None:
    with pytest.raises(errors.ServerFault) as caught:
        OPERATIONS[operation](end)
    assert_nothing_told(known, caplog, caught.value)


@pytest.mark.parametrize("status", [202, 403, 500])
@pytest.mark.parametrize("way", WAYS)
def test_a_third_party_copy(known: Known, caplog: pytest.LogCaptureFixture, way: str, status: int) -> None:
    """Its report, too, and the token that was lent to it: a macaroon."""
    own, lent = secrets.token_urlsafe(40), f"MDAxMGxvY2F0aW9u{secrets.token_urlsafe(40)}"
    known.add("the token", own)
    known.add("the token that is lent", lent)

    def script(asked: Asked) -> Answer | None:
        words = WAYS[way](asked)
        return Answer(status, {}, f"failure: {words}\n".encode() if status == 202 else words.encode())

    with RecordingSite(script) as site:
        described = plain_site("site", f"{site.url}/rucio/", None)
        provider = BearerProvider(Secret(own))
        http = WebDAVEnd(described, SiteTokens(described, provider, provider), f"{site.url}/rucio/f").http
        with pytest.raises(errors.CS3Error) as caught:
            tpc.pull(
                http,
                source_url="https://source.example.org/f",
                destination_url=f"{site.url}/rucio/f",
                source_authorization=f"Bearer {lent}",
                destination_authorization=f"Bearer {own}",
            )
        assert site.asked[-1].headers["TransferHeaderAuthorization"] == f"Bearer {lent}"
    assert_nothing_told(known, caplog, caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token", "token_exchange"])
def test_an_issuer(tmp_path: Path, known: Known, caplog: pytest.LogCaptureFixture, grant: Any, status: int) -> None:
    ours, theirs = secrets.token_urlsafe(30), secrets.token_urlsafe(30)
    known.add("the client's secret", ours)
    known.add("the refresh token or subject", theirs)

    def script(asked: Asked) -> Answer:
        if asked.method == "GET":
            body = f'{{"issuer": "{site.url}", "token_endpoint": "{site.url}/token?x={theirs}"}}'
            return Answer(200, {}, body.encode())
        form = (asked.body or b"").decode()
        words = f"{form} {asked.headers['Authorization']} {ours}"
        return Answer(status, {}, f'{{"error": "{words}", "error_description": "{words}"}}'.encode())

    with RecordingSite(script) as site:
        token = IssuedToken(
            issuer=IssuerSite(name="issuer", url=site.url),
            grant=grant,
            client_id="me",
            client_secret=Secret(ours),
            refresh_token=write_private(tmp_path / "refresh", theirs),
            subject=Secret(theirs),
        )
        with pytest.raises(errors.CS3Error) as caught:
            token.get()
        assert site.methods() == ["GET", "POST"]
    assert_nothing_told(known, caplog, caught.value)


# -- gRPC --------------------------------------------------------------------------------------------------------------


class Repeating(gateway_api_pb2_grpc.GatewayAPIServicer):  # type: ignore[misc]
    """Repeats request and metadata, in a status of CS3 or one of gRPC.

    :param token: what a login gives; None where it repeats the login, too.
    """

    def __init__(self, token: str | None, *, of_grpc: bool) -> None:
        self._token = token
        self._of_grpc = of_grpc

    def Authenticate(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._token is not None:
            ok = status_pb2.Status(code=code_pb2.CODE_OK)
            return gateway_api_pb2.AuthenticateResponse(status=ok, token=self._token)
        return self._refuse(gateway_api_pb2.AuthenticateResponse, request, context)

    def Stat(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._refuse(provider_api_pb2.StatResponse, request, context)

    def _refuse(self, response: Any, request: Any, context: Any) -> Any:
        fields = " ".join(f"{field.name}={value}" for field, value in request.ListFields())
        metadata = " ".join(f"{key}: {value}" for key, value in context.invocation_metadata())
        words = f"cannot do {request} ({fields}) with {metadata}"
        if self._of_grpc:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        status = status_pb2.Status(code=code_pb2.CODE_UNIMPLEMENTED, message=words, trace=words)
        return response(status=status)


@contextlib.contextmanager
def gateway(token: str | None, *, of_grpc: bool) -> Iterator[Endpoint]:
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    gateway_api_pb2_grpc.add_GatewayAPIServicer_to_server(Repeating(token, of_grpc=of_grpc), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Endpoint(
            name="cloud",
            gateway=f"127.0.0.1:{port}",
            gateway_tls=False,
            webdav=WebDAVBase.parse("http://127.0.0.1:1/dav/", MountRoot("/")),
            timeouts=Timeouts(call_s=20.0, operation_s=20.0),
        )
    finally:
        server.stop(grace=None).wait()


LOGINS: dict[str, Callable[[Secret, Secret], CredentialProvider]] = {
    "basic": lambda one, _: BasicProvider("me", one),
    "appauth": lambda one, _: AppPasswordProvider("me", one),
    "machine": lambda one, _: MachineProvider("me", one),
    "serviceaccounts": lambda one, _: ServiceAccountProvider("me", one),
    "bearer": lambda one, _: BearerProvider(one),
    "publicshares": PublicLinkProvider,
}


@pytest.mark.parametrize("of_grpc", [True, False], ids=["gRPC", "CS3"])
@pytest.mark.parametrize("kind", LOGINS)
def test_a_gateway_at_the_login(known: Known, caplog: pytest.LogCaptureFixture, kind: str, of_grpc: bool) -> None:
    one, other = secret(), secret()
    known.add("the secret", one)
    known.add("the password of a link", other)
    with gateway(None, of_grpc=of_grpc) as endpoint:
        provider = LOGINS[kind](Secret(one), Secret(other))
        with contextlib.closing(CS3Storage(endpoint, provider)) as storage, pytest.raises(errors.CS3Error) as caught:
            storage.access_token()
    assert "cannot do" in "".join(str(place.content) for place in told(caught.value))
    assert_nothing_told(known, caplog, caught.value)


@pytest.mark.parametrize("of_grpc", [True, False], ids=["gRPC", "CS3"])
def test_a_gateway_later(known: Known, caplog: pytest.LogCaptureFixture, of_grpc: bool) -> None:
    token = secrets.token_urlsafe(60)
    known.add("the access token", token)
    with gateway(token, of_grpc=of_grpc) as endpoint:
        provider = BasicProvider("me", Secret("not looked at"))
        with contextlib.closing(CS3Storage(endpoint, provider)) as storage, pytest.raises(errors.CS3Error) as caught:
            storage.stat(Reference(endpoint.root, "f"))
    assert "cannot do" in str(caught.value)
    assert_nothing_told(known, caplog, caught.value)


@pytest.mark.parametrize("token", ["line\nbreak-0123456789", "umlaut-ü-0123456789", "nul-\0-0123456789"])
def test_a_token_that_no_header_may_carry(known: Known, caplog: pytest.LogCaptureFixture, token: str) -> None:
    """gRPC refuses it by itself, and does not say what it was."""
    known.add("the access token", token)
    with gateway(token, of_grpc=False) as endpoint:
        provider = BasicProvider("me", Secret("not looked at"))
        with contextlib.closing(CS3Storage(endpoint, provider)) as storage, pytest.raises(errors.CS3Error) as caught:
            storage.stat(Reference(endpoint.root, "f"))
    assert_nothing_told(known, caplog, caught.value)
