"""The CS3 gateway as Reva v3.12.1 with the ``local`` driver answers it.

Every rule here was run against a real ``revad`` of that version unless it says (code).
Read next: ``data_gateway.py`` (the bytes), ``gateway_spaces.py`` (the other line).
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.sandbox.cloud import public_links
from rucio_cs3.sandbox.cloud.gateway import Gateway, opaque_text
from rucio_cs3.sandbox.cloud.rpc import OK, Call, Login, Method, Refusal, status
from rucio_cs3.sandbox.cloud.state import V3_ID_PREFIX, V3_MOUNT, V3_SPACE_ID, V3_STORAGE_ID, CloudState
from rucio_cs3.sandbox.cloud.tree import Entry
from rucio_cs3.sandbox.reva import User

_Found = TypeVar("_Found")


class GatewayV3(Gateway):
    """Storage methods over one tree that all users share, mounted at ``/localfs``."""

    def __init__(self, state: CloudState) -> None:
        super().__init__(state)
        self._tree = state.trees[""]

    def methods(self) -> dict[str, Method]:
        return {
            **super().methods(),
            "Stat": self.stat,
            "ListContainer": self.list_container,
            "CreateContainer": self.create_container,
            "TouchFile": self.touch_file,
            "Delete": self.delete,
            "Move": self.move,
            "InitiateFileUpload": self.initiate_file_upload,
            "InitiateFileDownload": self.initiate_file_download,
            "GetQuota": self.get_quota,
            "GetHome": self.get_home,
            "SetArbitraryMetadata": self.set_arbitrary_metadata,
            "UnsetArbitraryMetadata": self.unset_arbitrary_metadata,
            "ListFileVersions": self.list_file_versions,
            "ListRecycle": self.list_recycle,
            "RestoreRecycleItem": self.restore_recycle_item,
            "PurgeRecycle": self.purge_recycle,
            "SetLock": self.no_locks,
            "GetLock": self.no_locks,
            "Unlock": self.no_locks,
        }

    def check_login(self, call: Call) -> None:
        if self.anonymous(call):
            return
        # Reva v3.12.1: an interceptor refuses these for every method, as gRPC errors.
        if call.login is Login.NONE:
            call.context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth: core access token not found")
        call.context.abort(grpc.StatusCode.PERMISSION_DENIED, "auth: core access token is invalid")

    def check_scope(self, scope: Mapping[str, Any], method: str, request: Any) -> bool:
        return public_links.reaches(self.state, scope, method, request)

    def refuse_password(self, username: str) -> Refusal:
        # Reva v3.12.1 with JSON users: the same for an unknown user.
        return Refusal("PERMISSION_DENIED", "wrong password")

    def relative(self, reference: Any) -> str:
        """Path below the mount.

        :raises Refusal: NOT_FOUND for a path outside the mount, or with ``..``.
        """
        identifier = reference.resource_id
        if identifier.storage_id == V3_STORAGE_ID and identifier.opaque_id.startswith(V3_ID_PREFIX):
            start = urllib.parse.unquote_plus(identifier.opaque_id.removeprefix(V3_ID_PREFIX))
            path = f"{V3_MOUNT}/{start.strip('/')}/{reference.path.removeprefix('./')}"
        else:
            path = reference.path
        if path and not path.startswith("/"):
            raise Refusal("INTERNAL", "error unwrapping path")
        inside = path == V3_MOUNT or path.startswith(f"{V3_MOUNT}/")
        # Reva v3.12.1: "/localfs/../localfs" is NOT_FOUND, and so is everything that leaves the mount.
        if not inside or ".." in path.split("/"):
            raise Refusal("NOT_FOUND", f'error: not found: storage provider not found for reference:path:"{path}"')
        return self._tree.clean(path.removeprefix(V3_MOUNT))

    def info(self, entry: Entry, owner: User, keys: Collection[str] = ()) -> Any:
        info = resources_pb2.ResourceInfo(
            # Reva v3.12.1: the full path, and no name; no checksum at all with the `local` driver.
            path=f"{V3_MOUNT}/{entry.relative}".rstrip("/"),
            id=resources_pb2.ResourceId(
                storage_id=V3_STORAGE_ID,
                opaque_id=self.state.node_id(entry),
                space_id=V3_SPACE_ID,
            ),
            owner=self.user_id_message(owner),
            # Reva v3.12.1 local: those that are asked for by name, and all where none is or "*".
            arbitrary_metadata=resources_pb2.ArbitraryMetadata(metadata=_asked(entry.metadata, keys)),
        )
        self.fill(info, entry)
        return info

    def stat(self, request: Any, call: Call) -> Any:
        if request.ref.path == "/" and not request.ref.HasField("resource_id"):
            # The name space above the mounts: a folder with nothing known of it.
            info = resources_pb2.ResourceInfo(
                path="/",
                type=resources_pb2.ResourceType.Value("RESOURCE_TYPE_CONTAINER"),
                mime_type="httpd/unix-directory",
            )
            return provider_api_pb2.StatResponse(status=status(OK), info=info)
        relative = self.relative(request.ref)
        entry = self._found(lambda: self._tree.entry(relative), "statting")
        return provider_api_pb2.StatResponse(
            status=status(OK), info=self.info(entry, call.user, request.arbitrary_metadata_keys)
        )

    def list_container(self, request: Any, call: Call) -> Any:
        if request.ref.path == "/" and not request.ref.HasField("resource_id"):
            mount = self.info(self._tree.entry(""), call.user)
            return provider_api_pb2.ListContainerResponse(status=status(OK), infos=[mount])
        relative = self.relative(request.ref)
        # Reva v3.12.1: a file is INTERNAL.
        entries = self._found(lambda: self._tree.children(relative), "listing container")
        return provider_api_pb2.ListContainerResponse(
            status=status(OK),
            infos=[self.info(entry, call.user, request.arbitrary_metadata_keys) for entry in entries],
        )

    def create_container(self, request: Any, _call: Call) -> Any:
        relative = self.relative(request.ref)
        if relative == "":
            raise Refusal("ALREADY_EXISTS", "container already exists")
        try:
            self._found(lambda: self._tree.make_directory(relative), "creating container")
        except FileExistsError:
            # Also where a file has the name.
            raise Refusal("ALREADY_EXISTS", "container already exists") from None
        return self.plain("CreateContainerResponse")

    def touch_file(self, request: Any, _call: Call) -> Any:
        relative = self.relative(request.ref)
        try:
            self._found(lambda: self._tree.touch(relative), "touching the file")
        except FileExistsError:
            raise Refusal("ALREADY_EXISTS", "file already exists") from None
        return self.plain("TouchFileResponse")

    def delete(self, request: Any, _call: Call) -> Any:
        relative = self.relative(request.ref)
        if relative == "":
            raise Refusal("INTERNAL", "can't delete mount path")
        deleted_ms = time.time_ns() // 1_000_000
        # A name of 255 bytes has no room for this suffix: it cannot be deleted (INTERNAL).
        key = f"{relative.rpartition('/')[2]}.d{deleted_ms}"
        try:
            self._found(lambda: self._tree.delete(relative, key=key, deleted_ms=deleted_ms), "deleting container")
        except FileExistsError:
            # It is deleted all the same.
            raise Refusal("INTERNAL", "error deleting file") from None
        return self.plain("DeleteResponse")

    def move(self, request: Any, _call: Call) -> Any:
        source, destination = self.relative(request.source), self.relative(request.destination)
        try:
            # A file at the destination is replaced without a word.
            self._tree.move(source, destination)
        except OSError as error:
            # Also for a missing source, a missing folder, a folder at the destination, and after the move where
            # metadata of the same key were left at the destination.
            raise Refusal("INTERNAL", f'error moving: path:"/{source}"') from error
        return self.plain("MoveResponse")

    def initiate_file_upload(self, request: Any, _call: Call) -> Any:
        # Nothing is looked at: missing parents, if_not_exist, if_match, Upload-Checksum; the PUT decides.
        length = opaque_text(request, "Upload-Length")
        if length is not None and not length.isdigit():
            raise Refusal("INTERNAL", "error parsing upload length")
        relative = self.relative(request.ref)
        if relative == "":
            raise Refusal("INTERNAL", "can't upload to mount path")
        session = self.state.uploads.open(self._tree, relative)
        session.tus_length = int(length or 0)
        return gateway_api_pb2.InitiateFileUploadResponse(
            status=status(OK),
            protocols=[
                {
                    "protocol": protocol,
                    "upload_endpoint": self.state.data_url,
                    "available_checksums": [
                        {"type": "RESOURCE_CHECKSUM_TYPE_ADLER32", "priority": 100},
                        {"type": "RESOURCE_CHECKSUM_TYPE_MD5", "priority": 50},
                    ],
                    "token": self.ticket(f"{protocol}/{session.session_id}"),
                }
                for protocol in ("simple", "tus")
            ],
        )

    def initiate_file_download(self, request: Any, _call: Call) -> Any:
        # OK for missing files and for folders: the GET decides.
        relative = self.relative(request.ref)
        return gateway_api_pb2.InitiateFileDownloadResponse(
            status=status(OK),
            protocols=[
                {
                    "protocol": "simple",
                    "download_endpoint": self.state.data_url,
                    "token": self.ticket(f"file//{relative}"),
                }
            ],
        )

    def get_quota(self, _request: Any, _call: Call) -> Any:
        # The numbers of the disk, for any path, also one that is missing; no opaque.
        if self.state.quota_bytes is None:
            disk = shutil.disk_usage(self._tree.root)
            total, used = disk.total, disk.used
        else:
            total, used = self.state.quota_bytes, self._tree.used_bytes()
        return provider_api_pb2.GetQuotaResponse(status=status(OK), total_bytes=total, used_bytes=used)

    def get_home(self, _request: Any, _call: Call) -> Any:
        # `home_provider` of the example site.
        return provider_api_pb2.GetHomeResponse(status=status(OK), path="/home")

    def set_arbitrary_metadata(self, request: Any, _call: Call) -> Any:
        relative = self.relative(request.ref)
        entry = self._found(lambda: self._tree.entry(relative), "setting arbitrary metadata")
        metadata = dict(request.arbitrary_metadata.metadata)
        mtime = metadata.pop("mtime", None)
        if mtime is not None:
            os.utime(entry.path, (float(mtime), float(mtime)))
        self._tree.set_metadata(relative, metadata)
        return self.plain("SetArbitraryMetadataResponse")

    def unset_arbitrary_metadata(self, request: Any, _call: Call) -> Any:
        relative = self.relative(request.ref)
        self._found(lambda: self._tree.entry(relative), "unsetting arbitrary metadata")
        self._tree.unset_metadata(relative, request.arbitrary_metadata_keys)
        return self.plain("UnsetArbitraryMetadataResponse")

    def list_file_versions(self, request: Any, _call: Call) -> Any:
        # What is at the path, or nothing, makes no difference. A name of 256 bytes is INTERNAL.
        relative = self.relative(request.ref)
        return self.versions(self._found(lambda: self._tree.old_versions(relative), "listing file versions"))

    def list_recycle(self, request: Any, _call: Call) -> Any:
        self.relative(request.ref)
        response = provider_api_pb2.ListRecycleResponse(status=status(OK))
        for item in sorted(self._tree.recycled(), key=lambda one: one.key):
            kind = "CONTAINER" if item.is_directory else "FILE"
            added = response.recycle_items.add(
                key=item.key, size=item.size, type=resources_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}")
            )
            added.ref.path = f"{V3_MOUNT}/{item.relative}"
            # Reva v3.12.1: milliseconds where the field means seconds.
            added.deletion_time.seconds = item.deleted_ms
        return response

    def restore_recycle_item(self, request: Any, _call: Call) -> Any:
        # A restore_ref is INTERNAL.
        try:
            if request.restore_ref.path:
                raise Refusal("INTERNAL", "error restoring recycle bin item")
            self._tree.restore(request.key)
        except (KeyError, OSError):
            raise Refusal("INTERNAL", "error restoring recycle bin item") from None
        return self.plain("RestoreRecycleItemResponse")

    def purge_recycle(self, request: Any, _call: Call) -> Any:
        try:
            self._tree.purge(request.key or None)
        except (KeyError, OSError):
            # Also for a folder that is not empty.
            raise Refusal("INTERNAL", "error purging recycle item") from None
        return self.plain("PurgeRecycleResponse")

    def no_locks(self, request: Any, _call: Call) -> Any:
        # Reva v3.12.1: the `local` driver has none (Unlock: code).
        self.relative(request.ref)
        raise Refusal("INTERNAL", "error setting lock")

    @staticmethod
    def _found(look: Callable[[], _Found], doing: str) -> _Found:
        try:
            return look()
        except FileExistsError:
            raise
        except FileNotFoundError:
            raise Refusal("NOT_FOUND", f"path not found when {doing}") from None
        except OSError as error:
            # Reva v3.12.1: below a file, a name of 256 bytes, listing a file.
            reason = errno.errorcode.get(error.errno or 0, "")
            raise Refusal("INTERNAL", f"error {doing}: {reason}") from None


def _asked(metadata: Mapping[str, str], keys: Collection[str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if not keys or "*" in keys or key in keys}
