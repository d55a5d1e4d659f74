"""Secrets and tokens: hidden, renewed in time, and by one login."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import BasicProvider, BearerProvider, Secret, errors
from rucio_cs3.cs3.login.providers import Login
from rucio_cs3.cs3.login.tokens import LENT_LIFE_S, Credential, TokenSource, jwt_expiry, new_credential
from rucio_cs3.cs3.resources import Ticket


def jwt(payload: str | bytes) -> str:
    data = payload.encode() if isinstance(payload, str) else payload
    return f"e30.{base64.urlsafe_b64encode(data).decode().rstrip('=')}.c2ln"


def test_secrets_are_in_no_repr() -> None:
    things: list[object] = [
        Secret("4711"),
        BasicProvider("me", Secret("4711")),
        BearerProvider(Secret("4711")),
        Login("basic", "me", "4711"),
        Credential("4711", 1.0, 0.0),
        Ticket(protocol="simple", url="https://x/4711", token="4711"),
    ]
    for thing in things:
        assert "4711" not in repr(thing)
        assert "4711" not in str(thing)


def test_logins() -> None:
    assert BasicProvider("me", Secret("pw")).login() == Login("basic", "me", "pw")
    assert BearerProvider(Secret("token")).login() == Login("bearer", "", "token")
    assert hash(BasicProvider("me", Secret("pw"))) == hash(BasicProvider("me", Secret("pw")))


def test_lasting_secrets_are_those_that_somebody_else_has_not() -> None:
    told = {
        BasicProvider("me", Secret("pw")).lasting_secret(),
        BasicProvider("you", Secret("pw")).lasting_secret(),
        BasicProvider("me", Secret("other")).lasting_secret(),
        BearerProvider(Secret("pw")).lasting_secret(),
    }
    assert len(told) == 4
    assert None not in told
    # Anybody could guess these.
    assert BasicProvider("me", Secret("")).lasting_secret() is None
    assert BearerProvider(Secret("")).lasting_secret() is None


@pytest.mark.parametrize("arguments", [{}, {"value": "x", "file": Path("y")}])
def test_a_secret_has_one_origin(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match="either a value or a file"):
        Secret(**arguments)


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_file_is_read_at_each_use(tmp_path: Path) -> None:
    secret = Secret(file=write(tmp_path / "secret", b" first\n"))
    assert secret.get() == "first"
    write(tmp_path / "secret", b"second")
    assert secret.get() == "second"


def test_white_space_around_a_secret_is_none_of_it() -> None:
    assert Secret(" word\n").get() == "word"


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"x", 0o660, "chmod 600"),
        (b"x", 0o604, "chmod 600"),
        (b" \n", 0o600, "is empty"),
        (b"\xff\xfe", 0o600, "not UTF-8"),
        (b"x" * 65537, 0o600, "larger than"),
    ],
)
def test_a_secret_file_that_is_refused(tmp_path: Path, content: bytes, mode: int, words: str) -> None:
    path = write(tmp_path / "secret", content, mode)
    with pytest.raises(errors.ConfigurationError, match=words) as caught:
        Secret(file=path).get()
    assert str(path) in str(caught.value)


def test_a_missing_secret_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(errors.ConfigurationError, match="cannot be read") as caught:
            Secret(file=path).get()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("issued", "expires", "now", "renew"),
    [
        (0, None, 1e12, False),
        (0, 1000, 899, False),
        (0, 1000, 900, True),  # a tenth of its life
        (0, 1000, 2000, True),
        (0, 86400, 86099, False),
        (0, 86400, 86100, True),  # five minutes at most
        (0, 10, 8.9, False),
        (0, 10, 9.0, True),
        (100, 50, 100, True),  # dead on arrival
        (100, 50, 49, False),
    ],
)
def test_when_a_token_is_renewed(issued: float, expires: float | None, now: float, renew: bool) -> None:
    assert Credential("t", expires, issued).needs_renewal(now) is renew


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('{"exp": 1700000000}', 1.7e9),
        ('{"exp": 17.5}', 17.5),
        ('{"exp": true}', None),
        ('{"exp": "17"}', None),
        ('{"exp": null}', None),
        ("{}", None),
        ("[]", None),
        ('"exp"', None),
        ("7", None),
        ("", None),
        ("{", None),
        (b"\xff\xff", None),
        ('{"exp": 1' + "0" * 400 + "}", None),
        ('{"exp": 1' + "0" * 5000 + "}", None),
        ("[" * 100_000, None),
    ],
)
def test_expiry_of_a_jwt(payload: str | bytes, expected: float | None) -> None:
    assert jwt_expiry(jwt(payload)) == expected


@pytest.mark.parametrize("ahead_s", [-86400, 0, 86400])
def test_a_new_token_lives_by_the_clock_of_this_machine(ahead_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that is ahead of the issuer's would have it log in for each call."""
    monkeypatch.setattr("rucio_cs3.cs3.login.tokens.time.time", lambda: 1e9 + ahead_s)
    credential = new_credential(jwt('{"exp": 1000003600, "iat": 1000000000}'))
    assert (credential.issued_at, credential.expires_at) == (1e9 + ahead_s, 1e9 + ahead_s + 3600)


@pytest.mark.parametrize("issued", ["", ', "iat": "x"', ', "iat": true', ', "iat": 9e18', ', "iat": 1' + "0" * 400])
def test_a_new_token_that_does_not_say_how_long_it_lives(issued: str) -> None:
    ends_at = int(time.time()) + 2000
    assert new_credential(jwt(f'{{"exp": {ends_at}{issued}}}')).expires_at == ends_at
    # By a clock that far ahead, who knows.
    assert new_credential(jwt(f'{{"exp": 2000{issued}}}')).expires_at is None
    assert new_credential("opaque").expires_at is None


@given(st.one_of(st.text(), st.binary().map(jwt), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
def test_expiry_of_garbage(token: str) -> None:
    expiry = jwt_expiry(token)
    assert expiry is None or isinstance(expiry, float)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["exp", "iat", "sub"]), json_values))
def test_expiry_of_any_claims(claims: dict[str, Any]) -> None:
    expiry = jwt_expiry(jwt(json.dumps(claims)))
    exp = claims.get("exp")
    if isinstance(exp, float) or (isinstance(exp, int) and not isinstance(exp, bool)):
        assert expiry is not None
    else:
        assert expiry is None


class Logins:
    """Counts logins; each takes long enough for others to come meanwhile."""

    def __init__(self, life_s: float = 3600) -> None:
        self.count = 0
        self.life_s = life_s

    def __call__(self) -> Credential:
        self.count += 1
        time.sleep(0.02)
        return Credential(f"token-{self.count}", time.time() + self.life_s)


def in_threads(count: int, work: Any) -> list[Any]:
    results: list[Any] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_many_threads_make_one_login() -> None:
    logins = Logins()
    source = TokenSource(logins)
    got = in_threads(16, source.get)
    assert logins.count == 1
    assert len(got) == 16
    assert len({id(credential) for credential in got}) == 1


def test_threads_that_waited_for_a_failed_login_share_its_failure() -> None:
    """To try again one after another would let the last of many wait for the timeouts of all."""
    logins: list[int] = []
    source: TokenSource

    def authenticate() -> Credential:
        logins.append(1)
        # Long enough for the others to come and wait; how many do is not asserted to be all of them.
        deadline = time.monotonic() + 20
        while len(calling) < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        raise errors.Unavailable("gateway cannot be reached")

    source = TokenSource(authenticate)
    calling: list[int] = []

    def get() -> str:
        calling.append(1)
        with pytest.raises(errors.Unavailable) as caught:
            source.get()
        return str(caught.value)

    assert in_threads(8, get) == ["gateway cannot be reached"] * 8
    assert len(logins) < 8
    with pytest.raises(errors.Unavailable):
        source.get()  # a later call tries anew
    assert len(logins) >= 2


def test_many_threads_with_a_dead_token_make_one_more_login() -> None:
    logins = Logins()
    source = TokenSource(logins)
    used = source.get()

    def renew() -> Credential:
        source.invalidate(used)
        return source.get()

    assert {credential.token for credential in in_threads(16, renew)} == {"token-2"}
    assert logins.count == 2


def test_invalidate_drops_only_the_used_one() -> None:
    logins = Logins()
    source = TokenSource(logins)
    first = source.get()
    source.invalidate(first)
    second = source.get()
    source.invalidate(first)
    assert source.get() is second
    # Equal, but another one: the identity of the credential that was used counts.
    source.invalidate(Credential(second.token, second.expires_at, second.issued_at))
    assert source.get() is second


def test_a_token_near_its_end_is_renewed() -> None:
    logins = Logins(life_s=-1)
    source = TokenSource(logins)
    assert source.get().token == "token-1"
    assert source.get().token == "token-2"


@pytest.mark.parametrize(
    ("life", "age", "renew"),
    [
        (86400, 84000, False),  # 40 minutes left
        (86400, 84700, True),  # 28 minutes left; a request from here would still take it
        (3600, 1700, False),
        (3600, 1900, True),
        # Tokens that never live so long: not anew for each copy.
        (600, 290, False),
        (600, 310, True),
    ],
)
def test_when_a_token_is_renewed_before_it_is_lent(life: float, age: float, renew: bool) -> None:
    credential = Credential("t", 1000 + life, 1000)
    assert credential.needs_renewal(1000 + age, min_life_s=LENT_LIFE_S) is renew
    assert not credential.needs_renewal(1000 + age, min_life_s=0)


def test_a_token_that_does_not_say_when_it_ends_is_lent_as_it_is() -> None:
    assert not Credential("t").needs_renewal(1e12, min_life_s=LENT_LIFE_S)


def test_a_token_to_lend_is_had_by_one_login() -> None:
    logins = Logins()
    source = TokenSource(logins)
    source._current = Credential("old", time.time() + 600, time.time() - 3000)
    assert source.get().token == "old"
    lent = in_threads(16, lambda: source.get(min_life_s=LENT_LIFE_S))
    assert {credential.token for credential in lent} == {"token-1"}
    assert source.get().token == "token-1"
    assert logins.count == 1


def test_a_failed_login_is_tried_again_by_the_next() -> None:
    attempts: list[int] = []

    def authenticate() -> Credential:
        attempts.append(1)
        if len(attempts) == 1:
            raise errors.Unauthenticated("no")
        return Credential("good")

    source = TokenSource(authenticate)
    with pytest.raises(errors.Unauthenticated):
        source.get()
    assert source.get().token == "good"


def test_a_secret_file_of_root_may_be_read_by_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So Kubernetes mounts secrets, and PostgreSQL takes its key; of anybody else it is refused."""
    path = write(tmp_path / "secret", b"word", 0o440)
    real = os.fstat

    def owned_by(uid: int) -> None:
        def fstat(descriptor: int) -> os.stat_result:
            fields = list(real(descriptor))
            fields[4] = uid  # st_uid
            return os.stat_result(fields)

        monkeypatch.setattr("rucio_cs3.cs3.login.secret.os.fstat", fstat)

    owned_by(0)
    assert Secret(file=path).get() == "word"
    owned_by(1000)
    with pytest.raises(errors.ConfigurationError, match="chmod 600"):
        Secret(file=path).get()
