"""Which of a plain site's tokens goes where: to the site itself, and to the other side of a copy."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import BasicProvider, BearerProvider, Secret, WebDAVBase, errors
from rucio_cs3.cs3.config import WebDAVSite
from rucio_cs3.cs3.login import authentication, tokens
from rucio_cs3.cs3.login.bearer_tokens import CommandToken
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.sandbox.issuer import LIFETIME_S, Issuer
from rucio_cs3.transfers.ends import NothingToLend
from rucio_cs3.transfers.site_tokens import SiteTokens, _is_good_for
from tests.recording_site import Answer, Asked, RecordingSite
from tests.unit.plain_site import CONTENT, TOKEN, body_of, end_of
from tests.unit.test_providers import NAMES, WAYS


@pytest.fixture
def site() -> Iterator[RecordingSite]:
    with RecordingSite() as site:
        site.folders.add("/rucio")
        yield site


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


def test_for_a_copy_it_names_where_that_lands(site: RecordingSite) -> None:
    """And not the file's name, which only we give."""
    given = macaroon("UPLOAD,LIST")
    site.script = giving(given)
    landing = end_of(site).landing()
    assert landing.authorization(write=True, lent=True) == f"Bearer {given}"
    (asked,) = site.asked
    assert f"{site.url}{asked.path}" == landing.url


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
        end.landing().store(body_of(CONTENT))
    assert site.methods().count("PUT") == 1
