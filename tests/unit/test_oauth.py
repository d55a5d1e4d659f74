"""Tokens of an issuer: each grant, what it sees and refuses, and the refresh token that must not be lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from werkzeug.wrappers import Request, Response

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.oauth import Grant, IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import TokenGiver
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.sandbox.issuer import Issuer

AUDIENCE = "https://cloud.test"
SCOPE = "storage.read:/ storage.modify:/rucio"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def giver(
    issuer: Issuer,
    grant: Grant = "client_credentials",
    *,
    secret: str | None = None,
    refresh_token: Path | None = None,
    subject: TokenGiver | None = None,
    url: str | None = None,
) -> IssuedToken:
    return IssuedToken(
        issuer=IssuerSite(name="issuer", url=url or issuer.url),
        grant=grant,
        client_id=issuer.client_id,
        client_secret=Secret(issuer.client_secret if secret is None else secret),
        refresh_token=refresh_token,
        subject=subject,
        audience=AUDIENCE,
        scope=SCOPE,
    )


def test_client_credentials(issuer: Issuer) -> None:
    token = giver(issuer).get()
    claims = issuer.claims(token, AUDIENCE)
    assert (claims["sub"], claims["scope"]) == ("rucio", SCOPE)
    assert issuer.requests == [(AUDIENCE, SCOPE)]
    with pytest.raises(jwt.InvalidAudienceError):
        issuer.claims(token, "https://another.test")


def test_client_id_and_secret_are_encoded_as_the_standard_wants(issuer: Issuer) -> None:
    issuer.client_id, issuer.client_secret = "robot:1/é", "50% & more+"
    seen: list[tuple[str | None, str | None]] = []
    answer = issuer._token

    def noted(request: Request) -> Response:
        assert request.authorization is not None
        seen.append((request.authorization.username, request.authorization.password))
        return answer(request)

    issuer._token = noted  # type: ignore[method-assign]
    with pytest.raises(errors.Unauthenticated, match="invalid_client"):
        # The sandbox's issuer decodes no form, as several real ones do not.
        giver(issuer).get()
    assert seen == [("robot%3A1%2F%C3%A9", "50%25+%26+more%2B")]


def test_a_token_stands_in_for_another(issuer: Issuer) -> None:
    subject = Secret(issuer.access_token("jdoe", audience="rucio"))
    token = giver(issuer, "token_exchange", subject=subject).get()
    assert issuer.claims(token, AUDIENCE)["sub"] == "jdoe"
    ended = Secret(issuer.access_token("jdoe", audience="rucio", life_s=-10))
    with pytest.raises(errors.Unauthenticated, match="invalid_grant") as caught:
        giver(issuer, "token_exchange", subject=ended).get()
    assert ended.get() not in str(caught.value)


def test_a_refresh_token_is_kept_when_it_changes(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text(issuer.refresh_token("jdoe"))
    kept.chmod(0o600)
    refreshed = giver(issuer, "refresh_token", refresh_token=kept)
    for _ in range(3):
        before = kept.read_text()
        assert issuer.claims(refreshed.get(), AUDIENCE)["sub"] == "jdoe"
        assert kept.read_text() != before
        assert kept.stat().st_mode & 0o777 == 0o600
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


def test_two_that_refresh_at_once_lose_nothing(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text(issuer.refresh_token("jdoe"))
    kept.chmod(0o600)
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(5):
                giver(issuer, "refresh_token", refresh_token=kept).get()
        except errors.CS3Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


def test_a_refresh_token_that_is_refused_stays_as_it_is(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text("worth-nothing")
    kept.chmod(0o600)
    with pytest.raises(errors.Unauthenticated, match="invalid_grant") as caught:
        giver(issuer, "refresh_token", refresh_token=kept).get()
    assert kept.read_text() == "worth-nothing"
    assert "worth-nothing" not in str(caught.value)


def test_a_wrong_client_secret(issuer: Issuer) -> None:
    with pytest.raises(errors.Unauthenticated, match=r"invalid_client.*check client, grant") as caught:
        giver(issuer, secret="secret-word").get()
    assert "secret-word" not in f"{caught.value!r} {caught.value}"
    assert caught.value.code == "HTTP 401"


def test_metadata_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    with Issuer() as other:
        other._discovery = issuer._discovery  # type: ignore[method-assign]
        with pytest.raises(errors.ProtocolViolation, match="not the metadata of this issuer"):
            giver(other).get()
    assert issuer.requests == []


@pytest.mark.parametrize(
    "endpoint", ["http://another.test/token", "file:///etc/passwd", "http://169.254.169.254/token", 7, None]
)
def test_a_token_endpoint_elsewhere_gets_no_secret(issuer: Issuer, endpoint: object) -> None:
    from rucio_cs3.sandbox.issuer import _json

    issuer._discovery = lambda _: _json({"issuer": issuer.url, "token_endpoint": endpoint})  # type: ignore[method-assign]
    with pytest.raises(errors.ProtocolViolation):
        giver(issuer).get()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", errors.ProtocolViolation),
        (b"[]", errors.ProtocolViolation),
        (b"[" * 100_000, errors.ProtocolViolation),
        (b'{"access_token": 7}', errors.ProtocolViolation),
        (b'{"access_token": "t", "token_type": "mac"}', errors.ProtocolViolation),
        (b'{"access_token": "t\\nX-Injected: 1"}', errors.ConfigurationError),
        (b'{"access_token": "t", "padding": "' + b"x" * 1_000_000 + b'"}', errors.ProtocolViolation),
    ],
)
def test_nonsense_for_an_answer(issuer: Issuer, body: bytes, kind: type[errors.CS3Error]) -> None:
    issuer._token = lambda request: Response(body, content_type="application/json")  # type: ignore[method-assign]
    with pytest.raises(kind):
        giver(issuer).get()


def test_an_issuer_that_is_down(issuer: Issuer) -> None:
    token = giver(issuer)
    issuer.stop()
    with pytest.raises(errors.CS3Error) as caught:
        token.get()
    assert issuer.url.split("/")[2] in str(caught.value)
    assert issuer.client_secret not in str(caught.value)


def test_a_redirect_takes_no_secret_elsewhere(issuer: Issuer) -> None:
    with Issuer() as other:
        issuer._token = lambda request: Response(status=307, headers={"Location": f"{other.url}token"})  # type: ignore[method-assign]
        with pytest.raises(errors.CS3Error, match="307"):
            giver(issuer).get()
        assert other.requests == []
