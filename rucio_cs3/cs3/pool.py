"""The storages and HTTP clients of this process, shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rucio_cs3.cs3.config import Endpoint, Site
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.providers import CredentialProvider
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
        return self._get((endpoint, provider), lambda: CS3Storage(endpoint, provider))


class HTTPPool(_Pool[HTTPClient]):
    """The process's HTTP clients of plain sites. They know no identity: that comes with each request."""

    def get(self, site: Site) -> HTTPClient:
        """The client for a site; do not close it."""
        return self._get(site, lambda: HTTPClient(site))


#: The pools of this process.
POOL = StoragePool()
HTTP_POOL = HTTPPool()
