"""The token of a user's session with Rucio: which one leaves the process, and for which RSE."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.unit.rucio_client import configure, rse_info  # first: it decides what Rucio takes this process for

# isort: split
from rucio.common import exception
from rucio.common.config import get_config
from rucio.rse import rsemanager

from rucio_cs3 import rse_credentials
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken
from rucio_cs3.cs3.login.providers import BearerProvider, Login
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.rse_credentials import RucioSession
from rucio_cs3.sandbox.cloud import EmbeddedCloud

AUDIENCE = "https://cloud.test"
INFO = rse_info(rse="CLOUD")


@pytest.fixture(autouse=True)
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return configure(tmp_path, monkeypatch)


def token(**claims: Any) -> str:
    """Of a session; ``exp=None`` leaves a claim out."""
    every = {"sub": "jdoe", "aud": ["rucio", AUDIENCE], "exp": int(time.time()) + 600, **claims}
    return jwt.encode({name: value for name, value in every.items() if value is not None}, "x" * 32)


UNFIT = {
    "other audience": (token(aud="rucio"), "is not for audience https://cloud.test"),
    "several others": (token(aud=["rucio", "https://cloud.test.evil"]), "is not for audience"),
    "part of one": (token(aud=f"{AUDIENCE}/x"), "is not for audience"),
    "no audience": (token(aud=None), "is not for audience"),
    "nonsense": (token(aud={"https://cloud.test": 1}), "is not for audience"),
    "ended": (token(exp=int(time.time()) - 1), "has ended"),
    "endless": (token(exp=None), "has ended"),
    "end is never": (token(exp=float("inf")), "has ended"),
    "end is no number": (token(exp="soon"), "has ended"),
    # What Rucio 41.5.1 calls a session's token where somebody's identity has two dots in it.
    "no JWT": ("jdoe-/CN=j.d.oe-unknown-0123456789abcdef", "is no JWT"),
    "no JSON": ("e30.e30e30.c2ln", "is no JWT"),
    "no object": ("e30.W10.c2ln", "is no JWT"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_token_that_does_not_fit(case: str) -> None:
    unfit, message = UNFIT[case]
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        rse_credentials.credentials(INFO, session=RucioSession(unfit, AUDIENCE))
    assert "RSE CLOUD: the token of the session with Rucio" in str(caught.value)
    assert unfit not in f"{caught.value!r} {caught.value}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("audience", [AUDIENCE, ["rucio", AUDIENCE]])
def test_a_token_that_fits(audience: object) -> None:
    fit = token(aud=audience)
    provider = rse_credentials.credentials(INFO, session=RucioSession(f"{fit}\n", AUDIENCE))
    assert provider.login() == Login("bearer", "", fit)
    assert provider.lasting_secret() is None
    assert fit not in repr(provider) + repr(RucioSession(fit, AUDIENCE))


def test_a_token_that_ends_is_sent_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = rse_credentials.credentials(INFO, session=RucioSession(token(), AUDIENCE))
    later = time.time() + 601
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens.time.time", lambda: later)
    with pytest.raises(errors.ConfigurationError, match="has ended; get a new one"):
        provider.login()


@pytest.mark.parametrize(
    ("section", "option", "value", "refused"),
    [
        ("oidc", "expected_audience", AUDIENCE, True),
        ("oidc", "expected_audience", "rucio", False),
        ("client", "oidc_audience", AUDIENCE, True),
        ("client", "oidc_audience", f"rucio {AUDIENCE}", False),
    ],
)
def test_rucios_own_audience_is_no_clouds(section: str, option: str, value: str, refused: bool) -> None:
    parser = get_config()
    if not parser.has_section(section):
        parser.add_section(section)
    parser.set(section, option, value)
    session = RucioSession(token(), AUDIENCE)
    if not refused:
        assert rse_credentials.credentials(INFO, session=session).login().client_secret == session.token
        return
    with pytest.raises(errors.ConfigurationError, match="which is Rucio's own") as caught:
        rse_credentials.credentials(INFO, session=session)
    assert str(session.token) not in str(caught.value)


def test_tokens_that_claim_the_same_are_two_identities() -> None:
    """A forged one must not find what the real one has opened."""
    real, forged = token(), token()[:-4] + "AAAA"
    assert BearerProvider(AudienceToken(real, AUDIENCE, "x")) != BearerProvider(AudienceToken(forged, AUDIENCE, "x"))


def test_what_is_configured_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUCIO_CS3_CLOUD_TOKEN", "configured")
    provider = rse_credentials.credentials(INFO, session=RucioSession(token(), AUDIENCE))
    assert provider.login().client_secret == "configured"


@pytest.mark.parametrize("session", [None, RucioSession(token(), None), RucioSession(None, AUDIENCE)])
def test_without_leave_or_token_there_are_no_credentials(session: RucioSession | None) -> None:
    with pytest.raises(errors.ConfigurationError, match="there are no credentials") as caught:
        rse_credentials.credentials(INFO, session=session)
    assert ("log in to Rucio for 'https://cloud.test'" in str(caught.value)) == (
        session is not None and session.audience is not None
    )


# -- through Rucio's own create_protocol, beside a gateway that writes down all that it gets -----------------------


class Listener:
    """Takes connections at 127.0.0.1, keeps what comes, and answers nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.connections += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def gateway() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def connect(address: str, extended: Mapping[str, str], auth_token: str | None) -> None:
    settings = rse_info(
        rse="CLOUD",
        extended={"cs3_gateway": address, "cs3_gateway_tls": "false", "cs3_call_timeout_s": "5", **extended},
    )
    rsemanager.create_protocol(settings, "write", auth_token=auth_token).connect()


@pytest.fixture(autouse=True)
def _no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_cs3.rses.rse_attributes", lambda _: {})


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_token_reaches_nobody(gateway: Listener, case: str) -> None:
    with pytest.raises(exception.ConfigurationError, match="the token of the session with Rucio") as caught:
        connect(gateway.address, {"cs3_rucio_token_audience": AUDIENCE}, UNFIT[case][0])
    assert UNFIT[case][0] not in str(caught.value)
    assert gateway.connections == 0


def test_without_leave_of_the_rse_a_token_reaches_nobody(gateway: Listener) -> None:
    with pytest.raises(exception.ConfigurationError, match="there are no credentials"):
        connect(gateway.address, {}, token())
    assert gateway.connections == 0


def test_the_leave_of_one_rse_is_none_of_another(gateway: Listener) -> None:
    with pytest.raises(exception.ConfigurationError, match=r"is not for audience https://another\.test"):
        connect(gateway.address, {"cs3_rucio_token_audience": "https://another.test"}, token())
    assert gateway.connections == 0


def test_a_fit_token_goes_out(gateway: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    monkeypatch.setattr("rucio_cs3.cs3.login.authentication._RETRY", RetryPolicy(attempts=1))
    with pytest.raises(exception.ServiceUnavailable):
        connect(gateway.address, {"cs3_rucio_token_audience": AUDIENCE}, token())
    assert gateway.connections > 0


def test_a_cloud_lets_its_bearer_in() -> None:
    with EmbeddedCloud(name="cloud", bearer_secret="x" * 32) as cloud:
        user = next(iter(cloud.users))
        connect(cloud.gateway, {"cs3_rucio_token_audience": AUDIENCE}, token(sub=user))
