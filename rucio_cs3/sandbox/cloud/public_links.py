"""Public links at an embedded cloud of the v3 line: made by its users, opened by whoever knows them.

What they allow was seen at Reva v3.12.1 with the ``local`` driver; OpenCloud's were not looked at. Read next:
``logins.py``, which lets somebody in by one, and ``gateway_v3.py``, which asks what a token reaches.
"""

from __future__ import annotations

import secrets
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cs3.sharing.link.v1beta1 import link_api_pb2, resources_pb2

from rucio_cs3.sandbox.cloud.rpc import OK, Call, Method, Refusal, status
from rucio_cs3.sandbox.cloud.state import V3_ID_PREFIX, V3_MOUNT, CloudState
from rucio_cs3.sandbox.reva import User

_LOOKING = frozenset({"Stat"})
_READING = _LOOKING | {"ListContainer", "InitiateFileDownload"}
_ADDING = _LOOKING | {"CreateContainer", "TouchFile", "InitiateFileUpload"}

#: Which methods a role may call, about places below the shared one. Reva v3.12.1: WhoAmI, GetQuota and everything
#: about links are for none of them.
_METHODS: Mapping[str, frozenset[str]] = {
    "viewer": _READING,
    "uploader": _ADDING,
    "editor": _READING | _ADDING | {"Delete", "Move", "SetArbitraryMetadata", "UnsetArbitraryMetadata"},
}


@dataclass(frozen=True, kw_only=True)
class _Link:
    owner: User
    relative: str
    role: str
    password: str = field(repr=False)
    ends_at: int

    def lives(self) -> bool:
        return not self.ends_at or time.time() <= self.ends_at


class PublicLinks:
    """The links of one cloud; thread-safe."""

    def __init__(self, state: CloudState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._links: dict[str, _Link] = {}

    def methods(self) -> dict[str, Method]:
        return {"CreatePublicShare": self.create, "RemovePublicShare": self.remove}

    def create(self, request: Any, call: Call) -> Any:
        allowed, token = request.grant.permissions.permissions, secrets.token_hex(8)
        role = "viewer"
        if allowed.initiate_file_upload:
            role = "editor" if allowed.initiate_file_download else "uploader"
        shared = urllib.parse.unquote_plus(request.resource_info.id.opaque_id.removeprefix(V3_ID_PREFIX))
        link = _Link(
            owner=call.user,
            relative=shared.strip("/"),
            role=role,
            password=request.grant.password,
            ends_at=request.grant.expiration.seconds,
        )
        with self._lock:
            self._links[token] = link
        share = resources_pb2.PublicShare(token=token, resource_id=request.resource_info.id, display_name=token)
        share.permissions.CopyFrom(request.grant.permissions)
        return link_api_pb2.CreatePublicShareResponse(status=status(OK), share=share)

    def remove(self, request: Any, call: Call) -> Any:
        with self._lock:
            link = self._links.get(request.ref.token)
            if link is None or link.owner != call.user:
                raise Refusal("INTERNAL", "error deleting public share")
            del self._links[request.ref.token]
        return link_api_pb2.RemovePublicShareResponse(status=status(OK))

    def opened(self, token: str, proof: str) -> tuple[User, dict[str, Any]]:
        """Who is acted for, and the scope of the token that is given.

        :raises Refusal: nobody is let in.
        """
        with self._lock:
            link = self._links.get(token)
        if link is None or not link.lives():
            # Reva v3.12.1: also one that has ended.
            raise Refusal("NOT_FOUND", "unknown client id: error: not found: unknown token")
        if link.password and proof != f"password|{link.password}":
            raise Refusal("PERMISSION_DENIED", "wrong password")
        # Reva v3.12.1: it lives until its own end, also where the link is removed meanwhile.
        return link.owner, {"publicshare": {"relative": link.relative, "role": link.role}}


def reaches(state: CloudState, scope: Mapping[str, Any], method: str, request: Any) -> bool:
    """Whether a token with this scope may make a call; True for everybody but the users of a link.

    :raises Refusal: for a move to a place that the link does not reach.
    """
    link = scope.get("publicshare")
    if link is None:
        return True
    if method not in _METHODS[link["role"]]:
        return False
    if not (state.trees[""].root / link["relative"]).exists():
        # Reva v3.12.1: of a shared folder that is gone or has another name nobody is told anything.
        return False
    if method != "Move":
        return _is_below(request.ref, link["relative"])
    if _is_below(request.source, link["relative"]) and not _is_below(request.destination, link["relative"]):
        raise Refusal("PERMISSION_DENIED", f"gateway: move dst={request.destination.path}: PermissionDenied")
    return _is_below(request.source, link["relative"])


def _is_below(reference: Any, relative: str) -> bool:
    # Reva v3.12.1 (internal/grpc/interceptors/auth/scope.go) compares beginnings: a link to "a" opens "ab", too.
    return bool(reference.path.partition(f"{V3_MOUNT}/")[2].startswith(relative))
