"""The token source under hard conditions: clocks that differ, logins that fail or hang, threads, and forks."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2

from rucio_cs3.cs3 import BasicProvider, Endpoint, Secret, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.login import authentication, tokens
from rucio_cs3.cs3.login.authentication import Authentication
from rucio_cs3.cs3.login.providers import BearerProvider, CredentialProvider, Login
from rucio_cs3.cs3.login.tokens import (
    LENT_LIFE_S,
    Credential,
    TokenSource,
    credential_of_unknown_age,
    new_credential,
)
from tests.unit.test_auth import jwt

HOUR_S = 3600.0
ENDPOINT = Endpoint(
    name="CLOUD",
    gateway="127.0.0.1:1",
    gateway_tls=False,
    webdav=WebDAVBase.parse("http://127.0.0.1:1/remote.php/webdav", parse_root("/localfs")),
)


class Clock:
    """Both clocks of this machine, as the modules see them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1.7e9, 1000.0
        for module in (tokens, authentication):
            monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Server:
    """Issues tokens by a clock of its own; ``error`` is what it says instead.

    :param ahead_s: how much its clock is ahead of ours.
    """

    def __init__(self, clock: Clock, *, ahead_s: float = 0.0, life_s: float = HOUR_S, says_when: bool = True) -> None:
        self._clock = clock
        self._ahead_s = ahead_s
        self._life_s = life_s
        self._says_when = says_when
        self.logins = 0
        self.error: errors.CS3Error | None = None

    def __call__(self) -> Credential:
        self.logins += 1
        if self.error is not None:
            raise self.error
        now = self._clock.wall + self._ahead_s
        claims = {"exp": now + self._life_s, "jti": str(self.logins), **({"iat": now} if self._says_when else {})}
        return new_credential(jwt(json.dumps(claims)))


@pytest.mark.parametrize("says_when", [True, False], ids=["iat", "no-iat"])
@pytest.mark.parametrize("ahead_s", [0.0, 300.0, -300.0, 7 * HOUR_S, -7 * HOUR_S, 1e6, -1e6])
def test_a_server_with_another_clock_is_not_asked_for_each_call(clock: Clock, ahead_s: float, says_when: bool) -> None:
    server = Server(clock, ahead_s=ahead_s, says_when=says_when)
    source = TokenSource(server)
    first = source.get()
    for _ in range(5):
        clock.go(60)
        assert source.get() is first
    assert server.logins == 1


@pytest.mark.parametrize("ahead_s", [0.0, 300.0, -300.0, 7 * HOUR_S, -7 * HOUR_S])
def test_a_token_ends_when_its_life_is_over_by_any_clock(clock: Clock, ahead_s: float) -> None:
    server = Server(clock, ahead_s=ahead_s)
    source = TokenSource(server)
    first = source.get()
    clock.go(HOUR_S - 301)
    assert source.get() is first
    clock.go(2)
    assert source.get() is not first
    assert server.logins == 2


@pytest.mark.parametrize(("jump_s", "logins"), [(2 * HOUR_S, 2), (-2 * HOUR_S, 1)])
def test_our_own_clock_is_put_right(clock: Clock, jump_s: float, logins: int) -> None:
    server = Server(clock)
    source = TokenSource(server)
    source.get()
    clock.wall += jump_s
    for _ in range(5):
        source.get()
    assert server.logins == logins


def test_a_token_that_lives_serves_on_where_nobody_renews_it(clock: Clock) -> None:
    server = Server(clock)
    source = TokenSource(server)
    first = source.get()
    server.error = errors.Unavailable("gateway cannot be reached")
    clock.go(HOUR_S - 100)
    for _ in range(5):
        assert source.get() is first
    assert source.get(min_life_s=LENT_LIFE_S) is first
    assert server.logins == 2, "a gateway that is away is asked once in a while"
    clock.go(tokens._EARLY_AGAIN_S)
    assert source.get() is first
    assert server.logins == 3
    server.error = None
    clock.go(tokens._EARLY_AGAIN_S)
    assert source.get() is not first


def test_a_token_that_is_over_serves_no_more(clock: Clock) -> None:
    server = Server(clock)
    source = TokenSource(server)
    source.get()
    server.error = errors.Unavailable("gateway cannot be reached")
    clock.go(HOUR_S)
    with pytest.raises(errors.Unavailable):
        source.get()


@pytest.mark.parametrize("kind", [errors.ConfigurationError, errors.ServerFault, errors.ProtocolViolation])
def test_a_token_that_lives_serves_on_after_a_hiccup(clock: Clock, kind: type[errors.CS3Error]) -> None:
    """Such as a file that is being written at this moment."""
    server = Server(clock)
    source = TokenSource(server)
    first = source.get()
    server.error = kind("secret file is empty")
    clock.go(HOUR_S - 100)
    assert source.get() is first
    server.error = None
    clock.go(tokens._EARLY_AGAIN_S)
    assert source.get() is not first


@pytest.mark.parametrize("kind", [errors.Unauthenticated, errors.AccessDenied])
def test_who_is_refused_is_told_before_the_last_token_has_ended(clock: Clock, kind: type[errors.CS3Error]) -> None:
    server = Server(clock)
    source = TokenSource(server)
    source.get()
    server.error = kind("revoked")
    clock.go(HOUR_S - 100)
    with pytest.raises(kind, match="revoked"):
        source.get()


class Slow:
    """A login that takes until it is told to end."""

    def __init__(self, clock: Clock) -> None:
        self._server = Server(clock)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> Credential:
        self.begun.set()
        assert self.go_on.wait(20)
        return self._server()


def _about_to_renew(clock: Clock) -> tuple[Slow, TokenSource, Credential]:
    """A token that the next caller renews, which takes until :attr:`Slow.go_on` is set."""
    slow = Slow(clock)
    slow.go_on.set()
    source = TokenSource(slow)
    old = source.get()
    clock.go(HOUR_S - 100)
    slow.begun.clear()
    slow.go_on.clear()
    return slow, source, old


def test_others_go_on_with_the_old_token_while_it_is_renewed(clock: Clock) -> None:
    slow, source, old = _about_to_renew(clock)
    with ThreadPoolExecutor(2) as threads:
        renewing = threads.submit(source.get)
        assert slow.begun.wait(20)
        # Here, so that a test that waits for it fails rather than hangs.
        other = threads.submit(source.get)
        assert other.result(20) is old
        slow.go_on.set()
        assert renewing.result(20) is not old
    assert source.get() is renewing.result()


def test_a_token_to_lend_is_waited_for(clock: Clock) -> None:
    slow, source, old = _about_to_renew(clock)
    with ThreadPoolExecutor(2) as threads:
        renewing = threads.submit(source.get)
        assert slow.begun.wait(20)
        lent = threads.submit(source.get, min_life_s=LENT_LIFE_S)
        slow.go_on.set()
        assert lent.result(20) is renewing.result(20) is not old


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads, which is the point
def test_a_child_of_a_fork_during_a_login_logs_in_by_itself(clock: Clock) -> None:
    slow = Slow(clock)
    source = TokenSource(slow)
    with ThreadPoolExecutor(1) as threads:
        parents = threads.submit(source.get)
        assert slow.begun.wait(20)
        child = os.fork()
        if not child:
            signal.alarm(20)
            slow.go_on.set()
            os._exit(0 if source.get().token else 1)
        slow.go_on.set()
        assert os.waitpid(child, 0)[1] == 0
        assert parents.result(20) is source.get()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: other tests' threads may be there
def test_a_child_goes_on_with_its_parents_token(clock: Clock) -> None:
    server = Server(clock)
    source = TokenSource(server)
    first = source.get()
    child = os.fork()
    if not child:
        signal.alarm(20)
        same = source.get() is first
        source.invalidate(first)
        os._exit(0 if same and source.get() is not first and server.logins == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source.get() is first


def test_a_renewal_alone_says_nothing_of_the_old_token(clock: Clock) -> None:
    server = Server(clock)
    source = TokenSource(server)
    lent = source.get()
    clock.go(HOUR_S * 0.95)
    assert source.get() is not lent
    assert not source.has_died(lent)
    clock.go(HOUR_S)
    assert source.has_died(lent)


def test_a_token_that_was_refused_has_died_and_its_successor_has_not(clock: Clock) -> None:
    source = TokenSource(Server(clock))
    refused = source.get()
    source.invalidate(refused)
    current = source.get()
    assert source.has_died(refused)
    assert not source.has_died(current)
    for _ in range(20):
        source.invalidate(source.get())
    assert len(source._refused) == tokens._REFUSED_KEPT


def test_of_a_token_of_unknown_life_nobody_says_that_it_has_ended(clock: Clock) -> None:
    source = TokenSource(lambda: credential_of_unknown_age("opaque"))
    given = source.get()
    assert source.get() is given
    clock.go(tokens.UNKNOWN_LIFE_S)
    assert source.get() is not given
    assert not source.has_died(given)


# -- logins ------------------------------------------------------------------------------------------------


class Gateway:
    """Answers Authenticate; counts."""

    def __init__(self) -> None:
        self.error: errors.CS3Error | None = None
        self.asked: list[str] = []

    def __call__(self, request: Any, who: str, timeout_s: float) -> gateway_api_pb2.AuthenticateResponse:
        self.asked.append(request.client_secret)
        if self.error is not None:
            raise self.error
        return gateway_api_pb2.AuthenticateResponse(token="token")


class Changing:
    """A provider whose secret is rotated."""

    def __init__(self) -> None:
        self.secret = "old"

    def login(self) -> Login:
        return Login("basic", "me", self.secret)

    def lasting_secret(self) -> None:
        return None


def refused(authentication: Authentication) -> errors.Unauthenticated:
    with pytest.raises(errors.Unauthenticated) as caught:
        authentication.log_in()
    return caught.value


def test_a_refused_login_is_not_sent_again_at_once(clock: Clock) -> None:
    gateway = Gateway()
    gateway.error = errors.AccessDenied("wrong password", code="CODE_PERMISSION_DENIED")
    logins = Authentication(ENDPOINT, BasicProvider("me", Secret("0815")), gateway)
    told = [refused(logins) for _ in range(5)]
    assert len(gateway.asked) == 1
    assert {str(error) for error in told} == {
        "CLOUD: gateway 127.0.0.1:1 refuses to log in me (basic); check user name and secret (CODE_PERMISSION_DENIED)"
    }
    assert len({id(error) for error in told}) == 5, "one exception in many threads collects all their tracebacks"
    clock.go(authentication.REFUSED_S)
    refused(logins)
    assert len(gateway.asked) == 2
    gateway.error = None
    clock.go(authentication.REFUSED_S)
    assert logins.log_in().token == "token"
    assert logins.log_in().token == "token"


@pytest.mark.parametrize("refusal", [errors.AccessDenied("no"), errors.ServerFault("no"), errors.InvalidRequest("no")])
def test_a_bearer_token_that_has_ended_is_said_so(
    clock: Clock, refusal: errors.CS3Error, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.retry.RetryPolicy.pause_s", lambda _self, _attempt: 0.0)
    gateway = Gateway()
    gateway.error = refusal
    ended = "it ended at 2023-11-14 21:13:20 UTC, so get a new one"
    for ahead_s, said in ((-HOUR_S, True), (HOUR_S, False)):
        token = jwt(json.dumps({"exp": clock.wall + ahead_s}))
        logins = Authentication(ENDPOINT, BearerProvider(Secret(token)), gateway)
        with pytest.raises(errors.CS3Error) as caught:
            logins.log_in()
        assert (ended in str(caught.value)) == said, str(caught.value)
        assert token not in str(caught.value)


def test_another_secret_is_tried_at_once(clock: Clock) -> None:
    gateway, provider = Gateway(), Changing()
    gateway.error = errors.Unauthenticated("no")
    logins = Authentication(ENDPOINT, provider, gateway)
    refused(logins)
    provider.secret = "new"
    refused(logins)
    refused(logins)
    assert gateway.asked == ["old", "new"]
    provider.secret, gateway.error = "newer", None
    assert logins.log_in().token == "token"


def test_many_threads_with_a_wrong_password_send_it_once(clock: Clock) -> None:
    gateway = Gateway()
    gateway.error = errors.Unauthenticated("no")
    source = TokenSource(Authentication(ENDPOINT, BasicProvider("me", Secret("0815")), gateway).log_in)

    def get() -> None:
        for _ in range(5):
            with pytest.raises(errors.Unauthenticated):
                source.get()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(get) for _ in range(8)]:
            done.result()
    assert gateway.asked == ["0815"]


class Asking:
    """A provider that has to ask somebody, who says this."""

    def __init__(self, error: errors.CS3Error) -> None:
        self.error = error
        self.asked = 0

    def login(self) -> Login:
        self.asked += 1
        raise self.error

    def lasting_secret(self) -> None:
        return None


def test_who_gives_no_token_is_not_asked_again_at_once(clock: Clock) -> None:
    provider = Asking(errors.Unauthenticated("the issuer gives no token (invalid_client)"))
    logins = Authentication(ENDPOINT, provider, Gateway())
    for _ in range(5):
        assert "invalid_client" in str(refused(logins))
    assert provider.asked == 1
    clock.go(authentication.REFUSED_S)
    refused(logins)
    assert provider.asked == 2


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.ConfigurationError, errors.DeadlineExceeded])
def test_other_failures_are_not_remembered(clock: Clock, kind: type[errors.CS3Error]) -> None:
    provider = Asking(kind("not now"))
    logins = Authentication(ENDPOINT, provider, Gateway())
    for _ in range(2):
        with pytest.raises(kind, match="not now"):
            logins.log_in()
    assert provider.asked == 2


@pytest.mark.parametrize("make", [lambda error: Asking(error), lambda _: BasicProvider("me", Secret("0815"))])
def test_no_login_says_not_found(
    clock: Clock, make: Callable[[errors.CS3Error], CredentialProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wanted to look at a file would take it for the file's loss."""
    gateway = Gateway()
    gateway.error = errors.NotFound("404", code="HTTP 404")
    with pytest.raises((errors.Unavailable, errors.Unauthenticated)):
        Authentication(ENDPOINT, make(gateway.error), gateway).log_in()


def test_a_login_that_gives_no_token(clock: Clock) -> None:
    class Empty(Gateway):
        def __call__(self, request: Any, who: str, timeout_s: float) -> gateway_api_pb2.AuthenticateResponse:
            return gateway_api_pb2.AuthenticateResponse()

    with pytest.raises(errors.ProtocolViolation, match=r"login of me \(basic\) gave no token"):
        Authentication(ENDPOINT, BasicProvider("me", Secret("0815")), Empty()).log_in()


def test_a_login_is_tried_for_a_while_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lines say INTERNAL in the first seconds after their start."""
    monkeypatch.setattr("rucio_cs3.cs3.retry.RetryPolicy.pause_s", lambda _self, _attempt: 0.0)
    gateway = Gateway()
    gateway.error = errors.ServerFault("error getting auth provider client", code="CODE_INTERNAL")
    with pytest.raises(errors.ServerFault, match="auth provider"):
        Authentication(ENDPOINT, BasicProvider("me", Secret("0815")), gateway).log_in()
    assert 1 < len(gateway.asked) < 10


# -- Rucio's own tokens ------------------------------------------------------------------------------------


def give(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """Have Rucio's client get this token."""
    core_oidc, core_rse = types.ModuleType("rucio.core.oidc"), types.ModuleType("rucio.core.rse")
    core_rse.__dict__["determine_scope_for_rse"] = lambda rse_id, scopes: "storage.read"
    core_rse.__dict__["determine_audience_for_rse"] = lambda rse_id: "audience"
    core_oidc.__dict__["request_token"] = lambda audience, scope: token
    monkeypatch.setitem(sys.modules, "rucio.core.oidc", core_oidc)
    monkeypatch.setitem(sys.modules, "rucio.core.rse", core_rse)


def test_that_rucio_gets_no_token_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing else of a network that is away."""
    pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from rucio_cs3 import oidc

    give(monkeypatch, None)
    with pytest.raises(errors.Unavailable, match="Rucio got no token for audience") as caught:
        oidc.RucioTokenProvider(rse_id="0123", rse="SITE", write=False).login()
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("ahead_s", "age_s", "lives_s"),
    [
        (0.0, 0.0, HOUR_S),
        (0.0, 1800.0, 1800.0),  # Rucio had it in its cache
        (7 * HOUR_S, 0.0, HOUR_S),  # by the issuer's clock it ends in eight hours
        (-7 * HOUR_S, 0.0, -6 * HOUR_S),  # asked for each time
    ],
)
def test_a_token_of_rucios_client_is_not_believed_for_longer_than_it_lives(
    clock: Clock, ahead_s: float, age_s: float, lives_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from rucio_cs3 import oidc

    issued = clock.wall + ahead_s - age_s
    give(monkeypatch, jwt(json.dumps({"iat": issued, "exp": issued + 3600})))
    credential = oidc.RucioTokenProvider(rse_id="0123", rse="SITE", write=False)._ask()
    assert credential.expires_at == clock.wall + lives_s
