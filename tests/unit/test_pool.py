"""The storages of a process: shared within it, never across a fork."""

from __future__ import annotations

import os

import pytest

from rucio_cs3.cs3 import BasicProvider, Endpoint, Secret, WebDAVBase
from rucio_cs3.cs3.pool import StoragePool

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
