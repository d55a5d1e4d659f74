"""The storages of this process, shared."""

from __future__ import annotations

import os
import threading

from rucio_cs3.cs3.auth import CredentialProvider
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.storage import CS3Storage


class StoragePool:
    """The process's storages, one for each endpoint and identity, so that channel, token and connections
    are shared by all protocol objects and threads.

    A forked child gets storages of its own: a gRPC channel must not be used on both sides of a fork.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Another thread may hold the lock at the moment of a fork, and does not exist in the child.
        os.register_at_fork(after_in_child=self._renew_lock)
        self._storages: dict[tuple[int, Endpoint, CredentialProvider], CS3Storage] = {}

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, endpoint: Endpoint, provider: CredentialProvider) -> CS3Storage:
        """The storage for an endpoint and an identity; do not close it."""
        key = (os.getpid(), endpoint, provider)
        with self._lock:
            if key not in self._storages:
                self._storages[key] = CS3Storage(endpoint, provider)
            return self._storages[key]


#: The pool of this process.
POOL = StoragePool()
