"""Locks on files, as OpenCloud (February 2025) keeps them: SetLock, GetLock, Unlock, and what they stop.

Run on that server: the three calls, and CODE_LOCKED to Delete and InitiateFileUpload without the lock. (code) marks
what was read in Reva v2 (decomposedfs/node/locks.go). Reva v3.12.1 with the ``local`` driver has no locks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.sandbox.cloud.rpc import OK, Call, Method, Refusal, status


class Locks:
    """The locks of one cloud; they end with it.

    :param node: which file a reference means: something that stays the same where it is moved; raises Refusal.
    """

    def __init__(self, node: Callable[[Any, Call], str]) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._held: dict[str, Any] = {}

    def methods(self) -> dict[str, Method]:
        return {"SetLock": self.set, "GetLock": self.get, "Unlock": self.unlock}

    def check(self, node: str, lock_id: str) -> None:
        """Stop what is done to a file by whoever does not hold its lock.

        :raises Refusal: LOCKED.
        """
        with self._lock:
            held = self._held.get(node)
        if held is not None and held.lock_id != lock_id:
            raise Refusal("LOCKED", "file is locked")

    def forget(self, node: str) -> None:
        """A file is gone, and its lock with it."""
        with self._lock:
            self._held.pop(node, None)

    def set(self, request: Any, call: Call) -> Any:
        node = self._node(request.ref, call)
        with self._lock:
            if node in self._held:
                raise Refusal("FAILED_PRECONDITION", "already locked")  # (code)
            self._held[node] = request.lock
        return provider_api_pb2.SetLockResponse(status=status(OK))

    def get(self, request: Any, call: Call) -> Any:
        node = self._node(request.ref, call)
        with self._lock:
            held = self._held.get(node)
        if held is None:
            raise Refusal("NOT_FOUND", "no lock found")  # (code)
        return provider_api_pb2.GetLockResponse(status=status(OK), lock=held)

    def unlock(self, request: Any, call: Call) -> Any:
        node = self._node(request.ref, call)
        self.check(node, request.lock.lock_id)
        self.forget(node)
        return provider_api_pb2.UnlockResponse(status=status(OK))
