"""The storages and HTTP clients of this process, shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rucio_cs3.cs3.config import Endpoint, Site
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.bearer_tokens import AudienceToken
from rucio_cs3.cs3.login.providers import BearerProvider, CredentialProvider
from rucio_cs3.cs3.storage import CS3Storage

T = TypeVar("T")


class _Pool(Generic[T]):
    """One thing for each key, shared by all threads.

    A forked child gets things of its own: neither a gRPC channel nor a socket may be used on both sides of a fork.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Another thread may hold the lock at the moment of a fork, and does not exist in the child.
        os.register_at_fork(after_in_child=self._renew_lock)
        self._things: dict[tuple[int, Hashable], T] = {}

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def _get(self, key: Hashable, make: Callable[[], T]) -> T:
        own = (os.getpid(), key)
        with self._lock:
            if own not in self._things:
                self._things[own] = make()
            return self._things[own]


class StoragePool(_Pool[CS3Storage]):
    """The process's storages, one for each endpoint and identity, so that channel, token and connections
    are shared by all protocol objects and threads.
    """

    def get(self, endpoint: Endpoint, provider: CredentialProvider) -> CS3Storage:
        """The storage for an endpoint and an identity; do not close it."""
        return self._get((endpoint, provider), lambda: self._made(endpoint, provider))

    def _made(self, endpoint: Endpoint, provider: CredentialProvider) -> CS3Storage:
        # Under the lock. Nobody comes back with a session's token that has ended, and a server has many sessions. Not
        # closed: somebody may be at it, with the cloud's own token, which lives longer.
        for key in [key for key in self._things if _is_over(key)]:
            del self._things[key]
        return CS3Storage(endpoint, provider)


def _is_over(key: tuple[int, Hashable]) -> bool:
    _, identity = key
    provider = identity[1] if isinstance(identity, tuple) else None
    token = provider.token if isinstance(provider, BearerProvider) else None
    return isinstance(token, AudienceToken) and token.is_over()


class HTTPPool(_Pool[HTTPClient]):
    """The process's HTTP clients of plain sites. They know no identity: that comes with each request."""

    def get(self, site: Site) -> HTTPClient:
        """The client for a site; do not close it."""
        return self._get(site, lambda: HTTPClient(site))


#: The pools of this process.
POOL = StoragePool()
HTTP_POOL = HTTPPool()
