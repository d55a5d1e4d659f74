"""The storages of a process: shared within it, never across a fork."""

from __future__ import annotations

import json
import os
import time

import pytest

from rucio_cs3.cs3 import BasicProvider, BearerProvider, Endpoint, Secret, WebDAVBase
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken
from rucio_cs3.cs3.pool import StoragePool
from tests.unit.test_auth import jwt

ENDPOINT = Endpoint(
    name="CLOUD",
    gateway="127.0.0.1:1",
    gateway_tls=False,
    webdav=WebDAVBase.parse("http://127.0.0.1:1/remote.php/webdav"),
)


def provider(user: str = "u", word: str = "w") -> BasicProvider:
    return BasicProvider(user, Secret(word))


def test_one_storage_for_one_identity_at_one_endpoint() -> None:
    pool = StoragePool()
    storage = pool.get(ENDPOINT, provider())
    assert pool.get(ENDPOINT, provider()) is storage
    others = [pool.get(ENDPOINT, provider("v")), pool.get(ENDPOINT, provider("u", "x"))]
    assert len({id(one) for one in [storage, *others]}) == 3


def test_storages_of_sessions_that_have_ended_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = StoragePool()

    def of_session(life_s: int) -> BearerProvider:
        claims = {"aud": "cloud", "exp": int(time.time()) + life_s}
        return BearerProvider(AudienceToken(jwt(json.dumps(claims)), "cloud", "the token"))

    short, long, other = of_session(600), of_session(6000), provider()
    kept = [pool.get(ENDPOINT, one) for one in (short, long, other)]
    later = time.time() + 1000
    monkeypatch.setattr("rucio_cs3.cs3.login.bearer_tokens.time.time", lambda: later)
    pool.get(ENDPOINT, provider("next"))
    assert [pool.get(ENDPOINT, long), pool.get(ENDPOINT, other)] == kept[1:]
    assert pool.get(ENDPOINT, short) is not kept[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads, which is the point
def test_a_fork_while_the_pool_is_locked_does_not_hang_the_child() -> None:
    pool = StoragePool()
    storage = pool.get(ENDPOINT, provider())
    read, write = os.pipe()
    with pool._lock:
        child = os.fork()
        if not child:
            # Nothing of pytest may run here. The alarm ends a child that hangs.
            import signal

            signal.alarm(20)
            fresh = pool.get(ENDPOINT, provider()) is not storage
            os.write(write, b"fresh" if fresh else b"shared")
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"fresh"
    assert os.waitpid(child, 0)[1] == 0
