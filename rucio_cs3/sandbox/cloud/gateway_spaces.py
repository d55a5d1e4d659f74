"""The CS3 gateway as OpenCloud (February 2025, decomposedfs) answers it.

The rules were measured on that server (docs/cs3apis.md); (code) marks those read in its gateway,
internal/grpc/services/gateway of Reva v2.27.7. Read next: ``data_gateway.py``, ``gateway_v3.py`` (the other line).
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2, spaces_api_pb2

from rucio_cs3.sandbox.cloud.gateway import Gateway, opaque, opaque_text
from rucio_cs3.sandbox.cloud.locks import Locks
from rucio_cs3.sandbox.cloud.recycling import SpacesRecycling
from rucio_cs3.sandbox.cloud.rpc import OK, Call, Login, Method, Refusal, status
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tree import Digests, Entry, OutsideTree, Tree

CHECKSUMS_KEY = "http://owncloud.org/ns/checksums"
_FAVORITE_KEY = "http://owncloud.org/ns/favorite"
_UNLIMITED = 2**64 - 1

# Methods whose gateway code turns every failure to find the space into NOT_FOUND, also a missing login.
_NOT_FOUND_WITHOUT_LOGIN = frozenset({"Stat", "ListContainer"})

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a reference points to."""

    tree: Tree
    relative: str
    # ResourceInfo.path is a base name for "./x" and absolute references, else a path in the space.
    by_name: bool
    # The reference was a bare file id, without any path.
    bare: bool


class GatewaySpaces(Gateway):
    """Storage methods over one personal space for each user."""

    def __init__(self, state: CloudState) -> None:
        super().__init__(state)
        self._locks = Locks(self._node_id)

    def methods(self) -> dict[str, Method]:
        return {
            **super().methods(),
            "ListStorageSpaces": self.list_storage_spaces,
            "Stat": self.stat,
            "ListContainer": self.list_container,
            "CreateContainer": self.create_container,
            "TouchFile": self.touch_file,
            "Delete": self.delete,
            "Move": self.move,
            "InitiateFileUpload": self.initiate_file_upload,
            "InitiateFileDownload": self.initiate_file_download,
            "ListFileVersions": self.list_file_versions,
            "GetQuota": self.get_quota,
            "GetHome": self.get_home,
            "SetArbitraryMetadata": self.set_arbitrary_metadata,
            "UnsetArbitraryMetadata": self.unset_arbitrary_metadata,
            **self._locks.methods(),
            **SpacesRecycling(self._spot, self._looking).methods(),
        }

    def check_login(self, call: Call) -> None:
        # OpenCloud: WhoAmI looks at the token in its request only.
        if self.anonymous(call) or call.method == "WhoAmI":
            return
        if call.method in _NOT_FOUND_WITHOUT_LOGIN:
            # OpenCloud: a missing login looks like a missing file (ListContainer: code).
            raise Refusal("NOT_FOUND", "gateway could not find space for ref=")
        if call.method == "ListStorageSpaces":
            raise Refusal("INTERNAL", "gateway could not call ListStorageSpaces")
        # OpenCloud: InitiateFileUpload and Delete were run; the others go the same way (code).
        if call.login is Login.NONE:
            raise Refusal("UNAUTHENTICATED", "gateway could not find space for ref=")
        raise Refusal("PERMISSION_DENIED", "gateway could not find space for ref=")

    def refuse_password(self, username: str) -> Refusal:
        if username in self.state.users:
            return Refusal("PERMISSION_DENIED", "wrong password")
        return Refusal("NOT_FOUND", f"unknown client id: {username}")

    def place(self, reference: Any, call: Call, *, foreign: str = "NOT_FOUND") -> _Place:
        """Resolve a reference.

        :param foreign: code for a space of another user.
        :raises Refusal: NOT_FOUND for what leads nowhere, INTERNAL for a path out of the space.
        """
        nowhere = Refusal("NOT_FOUND", "gateway could not find space for ref=")
        own = self.state.id_of(call.user)
        identifier, path = reference.resource_id, reference.path
        by_name, bare = path == "" or path.startswith("."), False
        if reference.HasField("resource_id"):
            space_id = identifier.space_id
            if identifier.storage_id not in {"", self.state.storage_id} or not space_id:
                raise nowhere
            start = ""
        else:
            # OpenCloud: an absolute path begins with the user's id; "/", "/users", "/home/d", "/d" lead nowhere.
            parts = path.split("/", 3)
            if len(parts) < 3 or parts[:2] != ["", "users"]:
                raise nowhere
            space_id, start, by_name = parts[2], "/".join(parts[3:]), True
            path = ""
        if space_id != own:
            raise Refusal(foreign, "gateway could not find space for ref=") if space_id in self.state.trees else nowhere
        tree = self.state.trees[space_id]
        if identifier.opaque_id not in {"", space_id}:
            found = tree.find_node(identifier.opaque_id)
            if found is None:
                raise Refusal("NOT_FOUND", "stat: error: not found: " + identifier.opaque_id)
            start, bare = found, path == ""
        try:
            relative = tree.clean(f"{start}/{path}")
        except OutsideTree:
            raise Refusal("INTERNAL", "stat: error: path leaves the space") from None
        return _Place(tree=tree, relative=relative, by_name=by_name, bare=bare)

    def info(self, entry: Entry, place: _Place, call: Call, keys: list[str]) -> Any:
        space_id = self.state.id_of(call.user)
        is_root = entry.relative == ""
        info = resources_pb2.ResourceInfo(
            name=entry.name,
            path=(entry.name or ".") if place.by_name else f"/{entry.relative}",
            id=self._node(space_id, space_id if is_root else entry.node_id),
            owner=self.user_id_message(call.user),
            arbitrary_metadata=resources_pb2.ArbitraryMetadata(metadata={**entry.metadata, _FAVORITE_KEY: ""}),
        )
        self.fill(info, entry)
        values: dict[str, str] = {}
        # OpenCloud: with arbitrary_metadata_keys set, checksums come only if their key is among them.
        if not entry.is_directory and not entry.without_checksums and (not keys or CHECKSUMS_KEY in keys):
            sums = self._sums(entry, place.tree, call)
            info.checksum.type = resources_pb2.ResourceChecksumType.Value("RESOURCE_CHECKSUM_TYPE_SHA1")
            info.checksum.sum = sums["sha1"]
            values = {"md5": sums["md5"], "adler32": sums["adler32"]}
        if entry.busy:
            values["status"] = "processing"
        if values:
            info.opaque.CopyFrom(opaque(values))
        return info

    def _sums(self, entry: Entry, tree: Tree, call: Call) -> dict[str, str]:
        if call.fault is not None and call.fault.kind == "wrong-checksum":
            wrong = Digests()
            wrong.update(b"other bytes than those of the file")
            return wrong.results()
        return tree.digests(entry)

    def _node(self, space_id: str, node_id: str) -> Any:
        return resources_pb2.ResourceId(storage_id=self.state.storage_id, space_id=space_id, opaque_id=node_id)

    def list_storage_spaces(self, _request: Any, call: Call) -> Any:
        response = spaces_api_pb2.ListStorageSpacesResponse(status=status(OK))
        user = call.user
        space_id = self.state.id_of(user)
        space = response.storage_spaces.add(name=user.display_name or user.username, space_type="personal")
        space.id.opaque_id = f"{self.state.storage_id}${space_id}!{space_id}"
        space.root.CopyFrom(self._node(space_id, space_id))
        space.owner.CopyFrom(self.user_message(user))
        space.quota.quota_max_bytes = self.state.quota_bytes or 0
        space.opaque.CopyFrom(opaque({"path": f"/users/{space_id}"}))
        # OpenCloud: the virtual space of received shares is listed too.
        shares = response.storage_spaces.add(name="Shares", space_type="virtual")
        shares_id = str(uuid.uuid5(uuid.NAMESPACE_OID, "shares"))
        shares.id.opaque_id = f"{shares_id}${shares_id}!{shares_id}"
        shares.root.storage_id = shares.root.space_id = shares.root.opaque_id = shares_id
        return response

    def stat(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        entry = self._entry(place)
        info = self.info(entry, place, call, list(request.arbitrary_metadata_keys))
        return provider_api_pb2.StatResponse(status=status(OK), info=info)

    def list_container(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        if not self._entry(place).is_directory:
            raise Refusal("INTERNAL", "list container: not a folder")
        keys = list(request.arbitrary_metadata_keys)
        children = place.tree.children(place.relative)
        return provider_api_pb2.ListContainerResponse(
            status=status(OK), infos=[self.info(child, place, call, keys) for child in children]
        )

    def create_container(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        self._create(place, place.tree.make_directory)
        return self.plain("CreateContainerResponse")

    def touch_file(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        self._create(place, place.tree.touch)
        return self.plain("TouchFileResponse")

    def delete(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        entry = self._entry(place)
        if entry.busy:
            # OpenCloud: while post-processing holds the file.
            raise Refusal("TOO_EARLY", "resource is processing")
        self._locks.check(entry.node_id, request.lock_id)
        self._looking(
            lambda: place.tree.delete(place.relative, key=entry.node_id, deleted_ms=time.time_ns() // 1_000_000)
        )
        self._locks.forget(entry.node_id)
        # The deleted node's id, which is its key in the bin, too (code: storageprovider.go, decomposedfs/tree.go).
        return provider_api_pb2.DeleteResponse(status=status(OK), opaque=opaque({"opaque_id": entry.node_id}))

    def move(self, request: Any, call: Call) -> Any:
        source, destination = self.place(request.source, call), self.place(request.destination, call)
        self._entry(source)
        if destination.tree.exists(destination.relative):
            raise Refusal("ALREADY_EXISTS", "move: destination exists")
        # A missing folder at the destination is NOT_FOUND too; metadata is kept.
        self._looking(lambda: source.tree.move(source.relative, destination.relative))
        return self.plain("MoveResponse")

    def initiate_file_upload(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call, foreign="PERMISSION_DENIED")
        tree, relative = place.tree, place.relative
        existing = self._entry(place) if tree.exists(relative) else None
        if existing is not None:
            self._locks.check(existing.node_id, request.lock_id)
        if existing is not None and existing.is_directory:
            raise Refusal("FAILED_PRECONDITION", "resource is not a file")
        if existing is not None and request.WhichOneof("options") == "if_not_exist" and request.if_not_exist:
            raise Refusal("ALREADY_EXISTS", "the file exists")
        if request.WhichOneof("options") == "if_match" and (existing is None or request.if_match != existing.etag):
            raise Refusal("FAILED_PRECONDITION", "etag mismatch")
        parent = relative.rpartition("/")[0]
        if not tree.exists(parent) or not tree.entry(parent).is_directory:
            raise Refusal("FAILED_PRECONDITION", "the parent does not exist")
        declared = self._declared_size(request)
        if self.state.quota_bytes is not None and tree.used_bytes() + declared > self.state.quota_bytes:
            raise Refusal("INSUFFICIENT_STORAGE", "quota exceeded")
        mtime = opaque_text(request, "X-OC-Mtime")
        session = self.state.uploads.open(
            tree,
            relative,
            declared_size=declared,
            checksum=self._declared_checksum(request),
            mtime_s=None if mtime is None else float(mtime),
            made_empty_file=declared == 0,
        )
        if declared == 0:
            # OpenCloud: without Upload-Length, or with 0, the target is at once an empty file, whatever it was.
            empty = self.state.uploads.open(tree, relative)
            self._looking(lambda: self.state.uploads.finish(empty))
        response = gateway_api_pb2.InitiateFileUploadResponse(
            status=status(OK),
            protocols=[
                {
                    "protocol": protocol,
                    "upload_endpoint": self.state.data_url,
                    "available_checksums": [
                        {"type": "RESOURCE_CHECKSUM_TYPE_MD5", "priority": 100},
                        {"type": "RESOURCE_CHECKSUM_TYPE_UNSET", "priority": 1000},
                    ],
                    "token": self.ticket(f"{protocol}/{session.session_id}"),
                }
                for protocol in ("simple", "tus")
            ],
        )
        if existing is None:
            response.opaque.CopyFrom(opaque({"created": "true"}))
        return response

    def initiate_file_download(self, request: Any, call: Call) -> Any:
        # OK for missing files and for folders: the GET decides.
        place = self.place(request.ref, call)
        # OpenCloud: a bare file id gives the protocol `simple` and a GET that is 500.
        protocol, kind = ("simple", "broken") if place.bare else ("spaces", "file")
        return gateway_api_pb2.InitiateFileDownloadResponse(
            status=status(OK),
            protocols=[
                {
                    "protocol": protocol,
                    "download_endpoint": self.state.data_url,
                    "token": self.ticket(f"{kind}/{self.state.id_of(call.user)}/{place.relative}"),
                }
            ],
        )

    def list_file_versions(self, request: Any, call: Call) -> Any:
        # Nothing there is NOT_FOUND, and a folder has none (code: opencloud-eu/reva ffb022b, tree/revisions.go).
        tree, relative = self._spot(request.ref, call)
        return self.versions(self._looking(lambda: tree.old_versions(relative)))

    def get_quota(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        # OpenCloud: the size of the named folder's tree; total 0 and remaining 2^64-1 mean "no limit". What remains is
        # the space's limit without that tree (opencloud-eu/reva ffb022b, decomposedfs.go, calculateTotalUsedRemaining).
        used = self._looking(lambda: place.tree.used_bytes(place.relative))
        limit = self.state.quota_bytes
        remaining = _UNLIMITED if limit is None else max(limit - used, 0)
        return provider_api_pb2.GetQuotaResponse(
            status=status(OK),
            total_bytes=limit or 0,
            used_bytes=used,
            opaque=opaque({"remaining": str(remaining)}),
        )

    def get_home(self, _request: Any, call: Call) -> Any:
        return provider_api_pb2.GetHomeResponse(status=status(OK), path=f"/users/{self.state.id_of(call.user)}")

    def set_arbitrary_metadata(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        entry = self._entry(place)
        metadata = dict(request.arbitrary_metadata.metadata)
        mtime = metadata.pop("mtime", None)
        if mtime is not None:
            os.utime(entry.path, (float(mtime), float(mtime)))
        place.tree.set_metadata(place.relative, metadata)
        return self.plain("SetArbitraryMetadataResponse")

    def unset_arbitrary_metadata(self, request: Any, call: Call) -> Any:
        place = self.place(request.ref, call)
        self._entry(place)
        place.tree.unset_metadata(place.relative, request.arbitrary_metadata_keys)
        return self.plain("UnsetArbitraryMetadataResponse")

    @staticmethod
    def _declared_size(request: Any) -> int:
        text = opaque_text(request, "Upload-Length")
        if text is None:
            return 0
        if not text.isdigit():
            raise Refusal("INVALID_ARGUMENT", "wrong Upload-Length")
        return int(text)

    @staticmethod
    def _declared_checksum(request: Any) -> tuple[str, str] | None:
        text = opaque_text(request, "Upload-Checksum")
        if text is None:
            return None
        # OpenCloud: lower-case name, one space; the digits are compared as they are at the end of the PUT.
        algorithm, _, digits = text.partition(" ")
        if algorithm not in {"sha1", "md5", "adler32"} or not digits or " " in digits:
            raise Refusal("INVALID_ARGUMENT", f"unsupported checksum {algorithm!r}")
        return algorithm, digits

    def _spot(self, reference: Any, call: Call) -> tuple[Tree, str]:
        place = self.place(reference, call)
        return place.tree, place.relative

    def _node_id(self, reference: Any, call: Call) -> str:
        return self._entry(self.place(reference, call)).node_id

    def _entry(self, place: _Place) -> Entry:
        return self._looking(lambda: place.tree.entry(place.relative))

    def _create(self, place: _Place, create: Callable[[str], None]) -> None:
        try:
            self._looking(lambda: create(place.relative))
        except Refusal as refusal:
            # OpenCloud: a missing parent; Reva v3 says NOT_FOUND.
            if refusal.code == "NOT_FOUND":
                raise Refusal("FAILED_PRECONDITION", "the parent does not exist") from None
            raise

    @staticmethod
    def _looking(look: Callable[[], _Found]) -> _Found:
        try:
            return look()
        except (FileNotFoundError, NotADirectoryError, KeyError) as error:
            raise Refusal("NOT_FOUND", f"stat: error: not found: {error}") from None
        except FileExistsError:
            raise Refusal("ALREADY_EXISTS", "already exists") from None
        except OSError as error:
            # OpenCloud: a name of 256 bytes.
            raise Refusal("INTERNAL", errno.errorcode.get(error.errno or 0, "")) from None
