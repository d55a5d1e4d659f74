"""The recycle bins of spaces, as OpenCloud (February 2025, decomposedfs) answers for them.

(code) marks what was read in Reva v2 (opencloud-eu/reva, August 2026: storageprovider.go, decomposedfs/recycle.go) and
not run. Read next: ``tree.py`` (what lies in the bin), ``gateway_spaces.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.sandbox.cloud.rpc import OK, Call, Method, Refusal, status
from rucio_cs3.sandbox.cloud.tree import RecycledItem, Tree


class SpacesRecycling:
    """ListRecycle, RestoreRecycleItem and PurgeRecycle.

    :param place: the tree and the path in it that a reference means; raises Refusal.
    :param looking: calls a function of a tree, and makes refusals of its errors.
    """

    def __init__(
        self, place: Callable[[Any, Call], tuple[Tree, str]], looking: Callable[[Callable[[], None]], None]
    ) -> None:
        self._place = place
        self._looking = looking

    def methods(self) -> dict[str, Method]:
        return {"ListRecycle": self.list, "RestoreRecycleItem": self.restore, "PurgeRecycle": self.purge}

    def list(self, request: Any, call: Call) -> Any:
        # OpenCloud: any reference in the space lists the space's whole bin; time windows are not looked at (code).
        tree, _ = self._place(request.ref, call)
        response = provider_api_pb2.ListRecycleResponse(status=status(OK))
        if request.key.endswith("/"):
            # What is in a folder of the bin; the same for decomposedfs and posix (code).
            return self._list_inside(tree, request.key.rstrip("/"), response)
        for item in tree.recycled():
            if request.key not in {"", item.key}:
                continue
            kind = "CONTAINER" if item.is_directory else "FILE"
            added = response.recycle_items.add(
                key=item.key,
                size=_size(tree, item, alone=bool(request.key)),
                type=resources_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}"),
                deletion_time=types_pb2.Timestamp(seconds=item.deleted_ms // 1000),
            )
            added.ref.path = f"/{item.relative}"
        if request.key and not response.recycle_items:
            # decomposedfs fails to read the link of such a node (code).
            raise Refusal("INTERNAL", "error listing recycle")
        return response

    @staticmethod
    def _list_inside(tree: Tree, key: str, response: Any) -> Any:
        try:
            found = tree.recycled_content(key)
        except (KeyError, OSError):
            raise Refusal("INTERNAL", "error listing recycle") from None
        for path in found:
            kind = "CONTAINER" if path.is_dir() else "FILE"
            response.recycle_items.add(
                key=f"{key}/{path.name}",
                size=path.stat().st_size,
                type=resources_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}"),
            )
        return response

    def restore(self, request: Any, call: Call) -> Any:
        tree, _ = self._place(request.ref, call)
        target = self._place(request.restore_ref, call)[1] if request.HasField("restore_ref") else None
        self._looking(lambda: tree.restore(request.key, target))
        return provider_api_pb2.RestoreRecycleItemResponse(status=status(OK))

    def purge(self, request: Any, call: Call) -> Any:
        tree, _ = self._place(request.ref, call)
        self._looking(lambda: tree.purge(request.key or None))
        return provider_api_pb2.PurgeRecycleResponse(status=status(OK))


def _size(tree: Tree, item: RecycledItem, *, alone: bool) -> int:
    if alone:
        # Of a file its bytes, of a folder all in it (code).
        return tree.recycled_bytes(item.key)
    # OpenCloud decomposedfs: 0 for files.
    return item.size if item.is_directory else 0
