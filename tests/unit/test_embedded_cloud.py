"""The embedded cloud by itself: the SPACES line, tokens that expire, and every fault script.

That its V3 line answers like Reva is tests/reva/test_embedded_matches_reva.py's matter.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import requests
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2, spaces_api_pb2

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud, Faults

_TIMEOUT_S = 20


class Raw:
    """Bare calls to a cloud."""

    def __init__(self, cloud: EmbeddedCloud, stub: Any, http_session: requests.Session) -> None:
        self.cloud = cloud
        self.stub = stub
        self.http = http_session
        self.token = cloud.access_token()

    def call(self, method: str, request: Any, *, token: str | None = None) -> tuple[str, Any]:
        used = self.token if token is None else token
        metadata = (("x-access-token", used),) if used else ()
        try:
            response = getattr(self.stub, method)(request, metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"gRPC {error.code().name}", None
        return code_pb2.Code.Name(response.status.code), response

    def ref(self, path: str) -> Any:
        """``path`` is relative to the WebDAV base."""
        if self.cloud.behaviour is Behaviour.V3:
            return resources_pb2.Reference(path=f"/localfs/{path}")
        space_id = self.cloud.space_id("einstein")
        root = resources_pb2.ResourceId(storage_id=self.cloud.storage_id, space_id=space_id, opaque_id=space_id)
        return resources_pb2.Reference(resource_id=root, path=f"./{path}")

    def stat(self, path: str, *, token: str | None = None) -> tuple[str, Any]:
        code, response = self.call("Stat", provider_api_pb2.StatRequest(ref=self.ref(path)), token=token)
        return code, response.info if response is not None else None

    def initiate(self, path: str, *, options: dict[str, Any] | None = None, **values: str) -> tuple[str, Any]:
        request = provider_api_pb2.InitiateFileUploadRequest(ref=self.ref(path), **(options or {}))
        for name, value in values.items():
            entry = request.opaque.map[name.replace("_", "-")]
            entry.decoder, entry.value = "plain", value.encode()
        return self.call("InitiateFileUpload", request)

    def ticket(self, path: str, size: int, **values: str) -> Any:
        code, response = self.initiate(path, options=None, **({"Upload_Length": str(size)} | values))
        assert code == "CODE_OK"
        return next(one for one in response.protocols if one.protocol == "simple")

    def headers(self, ticket: Any) -> dict[str, str]:
        return {"X-Reva-Transfer": ticket.token, "X-Access-Token": self.token}

    def send(self, ticket: Any, data: Any) -> requests.Response:
        return self.http.put(ticket.upload_endpoint, data=data, headers=self.headers(ticket), timeout=_TIMEOUT_S)

    def put(self, path: str, data: bytes, **values: str) -> int:
        return self.send(self.ticket(path, len(data), **values), data).status_code

    def download(self, path: str) -> Any:
        request = provider_api_pb2.InitiateFileDownloadRequest(ref=self.ref(path))
        code, response = self.call("InitiateFileDownload", request)
        assert code == "CODE_OK"
        return response.protocols[0]

    def get(self, path: str, **headers: str) -> requests.Response:
        ticket = self.download(path)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = ticket.download_endpoint
        return self.http.get(url, headers={**self.headers(ticket), **named}, timeout=_TIMEOUT_S)

    def received(self, path: str) -> tuple[int, bytes]:
        """Stated length and the bytes that really came, without a client that hides the difference."""
        ticket = self.download(path)
        host = ticket.download_endpoint.split("/")[2]
        connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/" + ticket.download_endpoint.split("/", 3)[3], headers=self.headers(ticket))
            response = connection.getresponse()
            stated = int(response.headers["Content-Length"])
            try:
                return stated, response.read()
            except http.client.IncompleteRead as error:
                return stated, error.partial
        finally:
            connection.close()

    def dav(self, method: str, path: str, data: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.cloud.webdav_url}/{path}"
        authorized = {"Authorization": f"Bearer {self.token}", **named}
        return self.http.request(method, url, data=data, headers=authorized, timeout=_TIMEOUT_S)

    def create(self, path: str) -> str:
        return self.call("CreateContainer", provider_api_pb2.CreateContainerRequest(ref=self.ref(path)))[0]

    def delete(self, path: str) -> str:
        return self.call("Delete", provider_api_pb2.DeleteRequest(ref=self.ref(path)))[0]

    def move(self, source: str, destination: str) -> str:
        request = provider_api_pb2.MoveRequest(source=self.ref(source), destination=self.ref(destination))
        return self.call("Move", request)[0]


@contextmanager
def running(**settings: Any) -> Iterator[Raw]:
    with EmbeddedCloud(**settings) as cloud:
        if cloud.ca_bundle is not None:
            credentials = grpc.ssl_channel_credentials(cloud.ca_bundle.read_bytes())
            channel = grpc.secure_channel(cloud.gateway, credentials)
        else:
            channel = grpc.insecure_channel(cloud.gateway, options=[("grpc.enable_http_proxy", 0)])
        with channel, requests.Session() as session:
            session.trust_env = False
            session.verify = str(cloud.ca_bundle) if cloud.ca_bundle is not None else True
            yield Raw(cloud, gateway_api_pb2_grpc.GatewayAPIStub(channel), session)


@pytest.fixture
def v3() -> Iterator[Raw]:
    with running(behaviour=Behaviour.V3) as raw:
        yield raw
        assert raw.cloud.faults.pending() == []


@pytest.fixture
def spaces() -> Iterator[Raw]:
    with running(behaviour=Behaviour.SPACES) as raw:
        yield raw
        assert raw.cloud.faults.pending() == []


@pytest.fixture(params=list(Behaviour))
def either(request: pytest.FixtureRequest) -> Iterator[Raw]:
    with running(behaviour=request.param) as raw:
        yield raw
        assert raw.cloud.faults.pending() == []


def opaque(info: Any, key: str) -> str | None:
    return info.opaque.map[key].value.decode() if key in info.opaque.map else None


def test_round_trip_and_place_on_disk(either: Raw) -> None:
    data = bytes(range(256)) * 20_000
    assert either.put("file", data) == 200
    assert either.cloud.path_on_disk("file").read_bytes() == data
    assert either.get("file").content == data
    assert either.dav("GET", "file").content == data
    assert list(either.cloud.uploads_directory.iterdir()) == []


def test_one_connection_serves_many_requests(either: Raw) -> None:
    assert either.put("file", b"abc") == 200
    ticket = either.download("file")
    connection = http.client.HTTPConnection(ticket.download_endpoint.split("/")[2], timeout=_TIMEOUT_S)
    try:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            path = "/" + ticket.download_endpoint.split("/", 3)[3]
            connection.request("GET", path, headers=either.headers(ticket))
            assert connection.getresponse().read() == b"abc"
            assert connection.sock is first
    finally:
        connection.close()


def test_a_file_put_on_disk_is_there(spaces: Raw) -> None:
    spaces.cloud.path_on_disk("old").write_bytes(b"was here before")
    code, info = spaces.stat("old")
    assert (code, info.size) == ("CODE_OK", 15)
    assert opaque(info, "adler32") == f"{zlib.adler32(b'was here before'):08x}"


def test_directory_is_kept_and_temporary_is_removed(tmp_path: Path) -> None:
    with running(directory=tmp_path / "kept") as raw:
        assert raw.put("file", b"x") == 200
        place = raw.cloud.path_on_disk("file")
    assert place.exists()
    with running() as raw:
        temporary = raw.cloud.directory
        assert temporary.is_dir()
    assert not temporary.exists()


def test_tls_on_both_servers() -> None:
    with running(tls=True) as raw:
        assert raw.cloud.webdav_url.startswith("https://")
        assert raw.put("file", b"hello") == 200
        assert raw.get("file").content == b"hello"


def test_tpc_between_two_clouds(tmp_path: Path) -> None:
    with running(tls=True) as source, running(tls=True, marker_interval_s=0) as destination:
        assert source.put("file", b"hello world") == 200
        answer = destination.dav(
            "COPY",
            "copy",
            Source=f"{source.cloud.webdav_url}/file",
            TransferHeaderAuthorization=f"Bearer {source.token}",
        )
        assert answer.status_code == 202
        assert answer.text.splitlines()[0] == "Perf Marker"
        assert "Stripe Bytes Transferred: 11\nStrip Index: 0\nTotal Stripe Count: 1\nEnd\n\n" in answer.text
        assert answer.text.endswith("success: Created")
        assert destination.cloud.path_on_disk("copy").read_bytes() == b"hello world"


def test_the_log_has_no_tokens(either: Raw) -> None:
    ticket = either.ticket("file", 1)
    url = f"{ticket.upload_endpoint}/{ticket.token}"
    assert either.http.put(url, data=b"x", headers={"X-Access-Token": either.token}).status_code == 200
    assert either.cloud.log is not None
    logged = either.cloud.log.read_text()
    assert "InitiateFileUpload CODE_OK" in logged
    assert "PUT /data" in logged
    assert ticket.token not in logged
    assert either.token not in logged


def test_stop_ends_a_stalled_exchange(v3: Raw) -> None:
    v3.cloud.faults.add("data.put", "stall")
    ticket = v3.ticket("file", 1)
    failed: list[Exception] = []

    def put() -> None:
        try:
            v3.send(ticket, b"x")
        except requests.RequestException as error:
            failed.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    deadline = time.monotonic() + _TIMEOUT_S
    while v3.cloud.faults.pending() and time.monotonic() < deadline:
        time.sleep(0.01)
    v3.cloud.stop()
    thread.join(_TIMEOUT_S)
    assert not thread.is_alive()
    assert isinstance(failed[0], requests.ConnectionError)


# Tokens


def test_short_lived_tokens_expire() -> None:
    with running(access_token_lifetime_s=-1) as raw:
        assert jwt.decode(raw.token, options={"verify_signature": False})["exp"] < time.time()
        assert raw.stat("")[0] == "gRPC PERMISSION_DENIED"
        assert raw.dav("GET", "x").status_code == 401
    with running(transfer_token_lifetime_s=-1) as raw:
        assert raw.put("file", b"x") == 403


def test_bearer_logins() -> None:
    secret = "s" * 32
    with running(bearer_secret=secret) as raw:
        good = jwt.encode({"preferred_username": "marie", "exp": time.time() + 60}, secret)
        request = gateway_api_pb2.AuthenticateRequest(type="bearer", client_secret=good)
        code, response = raw.call("Authenticate", request, token="")
        assert (code, response.user.username) == ("CODE_OK", "marie")
        for bad in (good + "x", jwt.encode({"sub": "nobody"}, secret), jwt.encode({"sub": "marie"}, "t" * 32)):
            request = gateway_api_pb2.AuthenticateRequest(type="bearer", client_secret=bad)
            assert raw.call("Authenticate", request, token="")[0] == "CODE_UNAUTHENTICATED"


@pytest.mark.parametrize(("token", "code"), [("", "CODE_UNAUTHENTICATED"), ("x.y.z", "CODE_PERMISSION_DENIED")])
def test_spaces_refuse_tokens_as_cs3_status(spaces: Raw, token: str, code: str) -> None:
    assert spaces.stat("", token=token)[0] == "CODE_NOT_FOUND"
    delete = provider_api_pb2.DeleteRequest(ref=spaces.ref("x"))
    assert spaces.call("Delete", delete, token=token)[0] == code
    upload = provider_api_pb2.InitiateFileUploadRequest(ref=spaces.ref("x"))
    assert spaces.call("InitiateFileUpload", upload, token=token)[0] == code
    listing = spaces_api_pb2.ListStorageSpacesRequest()
    assert spaces.call("ListStorageSpaces", listing, token=token)[0] == "CODE_INTERNAL"
    who = gateway_api_pb2.WhoAmIRequest(token=token)
    assert spaces.call("WhoAmI", who, token=token)[0] == "CODE_UNAUTHENTICATED"


def test_spaces_logins(spaces: Raw) -> None:
    for username, password, code in (
        ("einstein", "relativity", "CODE_OK"),
        ("einstein", "wrong", "CODE_PERMISSION_DENIED"),
        ("nobody", "wrong", "CODE_NOT_FOUND"),
    ):
        request = gateway_api_pb2.AuthenticateRequest(type="basic", client_id=username, client_secret=password)
        assert spaces.call("Authenticate", request, token="")[0] == code


# The SPACES line: references, stat, name space


def test_spaces_references(spaces: Raw) -> None:
    assert spaces.create("d") == "CODE_OK"
    assert spaces.put("d/f", b"hello") == 200
    space, storage = spaces.cloud.space_id("einstein"), spaces.cloud.storage_id
    root = {"storage_id": storage, "space_id": space, "opaque_id": space}
    forms: list[tuple[dict[str, str] | None, str, str]] = [
        (root, "./d/f", "f"),
        (root, "d/f", "/d/f"),
        (root, "/d/f", "/d/f"),
        ({"space_id": space, "opaque_id": space}, "./d/f", "f"),
        ({"storage_id": storage, "space_id": space}, "./d/f", "f"),
        (None, f"/users/{space}/d/f", "f"),
        (root, ".", "."),
    ]
    for identifier, path, shown in forms:
        resource_id = None if identifier is None else resources_pb2.ResourceId(**identifier)
        reference = resources_pb2.Reference(resource_id=resource_id, path=path)
        code, response = spaces.call("Stat", provider_api_pb2.StatRequest(ref=reference))
        assert (code, response.info.path) == ("CODE_OK", shown)
    nowhere: list[tuple[dict[str, str] | None, str, str]] = [
        (None, "/", "NOT_FOUND"),
        (None, "/users", "NOT_FOUND"),
        (None, "/d/f", "NOT_FOUND"),
        ({"storage_id": storage, "opaque_id": space}, "./d/f", "NOT_FOUND"),
        ({"storage_id": f"{storage}${space}", "space_id": space}, "./d/f", "NOT_FOUND"),
        ({"space_id": spaces.cloud.space_id("marie")}, ".", "NOT_FOUND"),
        (root, "./../x", "INTERNAL"),
        (root, "./" + "n" * 256, "INTERNAL"),
    ]
    for identifier, path, code in nowhere:
        resource_id = None if identifier is None else resources_pb2.ResourceId(**identifier)
        reference = resources_pb2.Reference(resource_id=resource_id, path=path)
        assert spaces.call("Stat", provider_api_pb2.StatRequest(ref=reference))[0] == f"CODE_{code}", path


def test_spaces_of_others(spaces: Raw) -> None:
    other = resources_pb2.Reference(
        resource_id=resources_pb2.ResourceId(space_id=spaces.cloud.space_id("marie")), path="./x"
    )
    upload = provider_api_pb2.InitiateFileUploadRequest(ref=other)
    assert spaces.call("InitiateFileUpload", upload)[0] == "CODE_PERMISSION_DENIED"
    assert spaces.call("Delete", provider_api_pb2.DeleteRequest(ref=other))[0] == "CODE_NOT_FOUND"
    own = spaces.cloud.access_token("marie")
    assert spaces.call("Stat", provider_api_pb2.StatRequest(ref=other), token=own)[0] == "CODE_NOT_FOUND"


def test_spaces_listed(spaces: Raw) -> None:
    _, response = spaces.call("ListStorageSpaces", spaces_api_pb2.ListStorageSpacesRequest())
    space = next(one for one in response.storage_spaces if one.space_type == "personal")
    assert f"{space.root.storage_id}${space.root.space_id}" == spaces.cloud.root
    assert space.root.opaque_id == space.root.space_id
    assert space.id.opaque_id == f"{spaces.cloud.root}!{space.root.space_id}"
    assert space.opaque.map["path"].value.decode() == f"/users/{space.root.space_id}"
    assert [one.name for one in response.storage_spaces if one.space_type == "virtual"] == ["Shares"]


def test_spaces_checksums(spaces: Raw) -> None:
    data = b"hello"
    assert spaces.put("f", data, Upload_Checksum=f"adler32 {zlib.adler32(data):08x}") == 200
    _, info = spaces.stat("f")
    assert info.checksum.type == resources_pb2.ResourceChecksumType.Value("RESOURCE_CHECKSUM_TYPE_SHA1")
    assert info.checksum.sum == hashlib.sha1(data).hexdigest()
    assert opaque(info, "md5") == hashlib.md5(data).hexdigest()
    assert opaque(info, "adler32") == f"{zlib.adler32(data):08x}"
    listing = provider_api_pb2.ListContainerRequest(ref=spaces.ref(""))
    listed = spaces.call("ListContainer", listing)[1].infos
    assert [(one.name, opaque(one, "adler32")) for one in listed] == [("f", opaque(info, "adler32"))]
    keyed = provider_api_pb2.StatRequest(ref=spaces.ref("f"), arbitrary_metadata_keys=["colour"])
    assert not spaces.call("Stat", keyed)[1].info.HasField("checksum")
    with_sums = provider_api_pb2.StatRequest(
        ref=spaces.ref("f"), arbitrary_metadata_keys=["http://owncloud.org/ns/checksums"]
    )
    assert spaces.call("Stat", with_sums)[1].info.checksum.sum == info.checksum.sum
    assert spaces.get("f").headers["OC-Checksum"] == f"SHA1:{info.checksum.sum}"
    assert f"ADLER32:{zlib.adler32(data):08x}" in spaces.dav("PROPFIND", "f", Depth="0").text


def test_spaces_wrong_checksums(spaces: Raw) -> None:
    assert spaces.put("f", b"hello", Upload_Checksum="adler32 00000000") == 419
    assert spaces.stat("f")[0] == "CODE_NOT_FOUND"
    code, _ = spaces.initiate("f", Upload_Length="5", Upload_Checksum="crc32 00000000")
    assert code == "CODE_INVALID_ARGUMENT"
    assert spaces.dav("PUT", "f", b"hello", OC_Checksum="MD5:0").status_code == 400


def test_spaces_without_a_length_the_file_is_emptied_at_once(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    code, response = spaces.initiate("f")
    assert code == "CODE_OK"
    assert spaces.stat("f")[1].size == 0
    ticket = response.protocols[0]
    assert spaces.send(ticket, b"hello").status_code == 500
    assert spaces.send(ticket, b"").status_code == 400


def test_spaces_preconditions(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    etag = spaces.stat("f")[1].etag
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("f", {"if_not_exist": True}, "CODE_ALREADY_EXISTS"),
        ("f", {"if_match": '"other"'}, "CODE_FAILED_PRECONDITION"),
        ("f", {"if_match": etag}, "CODE_OK"),
        ("new", {"if_not_exist": True}, "CODE_OK"),
        ("no/parent", {}, "CODE_FAILED_PRECONDITION"),
        ("", {}, "CODE_FAILED_PRECONDITION"),
    ]
    for path, options, code in refused:
        assert spaces.initiate(path, options=options, Upload_Length="1")[0] == code


def test_spaces_mtime_is_kept(spaces: Raw) -> None:
    assert spaces.put("f", b"x", X_OC_Mtime="1000000") == 200
    assert spaces.stat("f")[1].mtime.seconds == 1000000


def test_spaces_believe_the_declared_size(spaces: Raw) -> None:
    assert spaces.send(spaces.ticket("f", 3000), b"x" * 1000).status_code == 200
    _, info = spaces.stat("f")
    assert info.size == 3000
    assert opaque(info, "adler32") == f"{zlib.adler32(b'x' * 1000):08x}"
    assert spaces.received("f") == (3000, b"x" * 1000)


def test_spaces_chunked_put_makes_no_file(spaces: Raw) -> None:
    assert spaces.send(spaces.ticket("f", 6), iter([b"abc", b"def"])).status_code == 206
    assert spaces.stat("f")[0] == "CODE_NOT_FOUND"


def test_spaces_repeated_put_appends(spaces: Raw) -> None:
    spaces.cloud.faults.add("data.put", "cut-after:400")
    ticket = spaces.ticket("f", 1000)
    with pytest.raises(requests.ConnectionError):
        spaces.send(ticket, b"a" * 5_000_000)
    assert spaces.stat("f")[0] == "CODE_NOT_FOUND"
    assert spaces.send(ticket, b"b" * 1000).status_code == 200
    assert spaces.stat("f")[1].size == 1000
    assert spaces.cloud.path_on_disk("f").read_bytes() == b"a" * 400 + b"b" * 1000
    assert spaces.get("f").content == b"a" * 400 + b"b" * 600
    assert spaces.send(ticket, b"b" * 1000).status_code == 500, "the session is over"


def test_spaces_download(spaces: Raw) -> None:
    assert spaces.put("f", b"hello world") == 200
    assert spaces.download("f").protocol == "spaces"
    part = spaces.get("f", Range="bytes=6-")
    assert (part.status_code, part.content) == (206, b"world")
    assert part.headers["Content-Range"] == "bytes 6-10/11"
    assert spaces.get("f", Range="bytes=-3").content == b"rld"
    assert spaces.get("f", Range="bytes=100-").status_code == 416
    several = spaces.get("f", Range="bytes=0-1,4-5")
    assert several.headers["Content-Type"].startswith("multipart/byteranges")
    assert spaces.get("f", If_None_Match=spaces.stat("f")[1].etag).status_code == 304
    assert spaces.get("nothing").status_code == 404


def test_spaces_download_of_a_bare_id(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    reference = resources_pb2.Reference(resource_id=spaces.stat("f")[1].id)
    assert spaces.call("Stat", provider_api_pb2.StatRequest(ref=reference))[0] == "CODE_OK"
    for path, protocol, status in (("", "simple", 500), (".", "spaces", 200)):
        reference.path = path
        request = provider_api_pb2.InitiateFileDownloadRequest(ref=reference)
        ticket = spaces.call("InitiateFileDownload", request)[1].protocols[0]
        assert ticket.protocol == protocol
        answer = spaces.http.get(ticket.download_endpoint, headers=spaces.headers(ticket))
        assert answer.status_code == status


def test_spaces_name_space(spaces: Raw) -> None:
    assert spaces.create("d") == "CODE_OK"
    assert spaces.create("d") == "CODE_ALREADY_EXISTS"
    assert spaces.create("no/parent") == "CODE_FAILED_PRECONDITION"
    assert spaces.put("one", b"1") == 200
    assert spaces.put("two", b"22") == 200
    assert spaces.move("one", "two") == "CODE_ALREADY_EXISTS"
    assert spaces.move("missing", "x") == "CODE_NOT_FOUND"
    assert spaces.move("one", "no/parent") == "CODE_NOT_FOUND"
    node = spaces.stat("one")[1].id.opaque_id
    assert spaces.move("one", "d/one") == "CODE_OK"
    assert spaces.stat("d/one")[1].id.opaque_id == node
    assert spaces.delete("d") == "CODE_OK"
    assert spaces.delete("d") == "CODE_NOT_FOUND"
    items = spaces.call("ListRecycle", provider_api_pb2.ListRecycleRequest(ref=spaces.ref("")))[1].recycle_items
    assert [item.ref.path for item in items] == ["/d"]
    restore = provider_api_pb2.RestoreRecycleItemRequest(
        ref=spaces.ref(""), key=items[0].key, restore_ref=spaces.ref("back")
    )
    assert spaces.call("RestoreRecycleItem", restore)[0] == "CODE_OK"
    assert spaces.stat("back/one")[1].size == 1
    listing = provider_api_pb2.ListContainerRequest(ref=spaces.ref("two"))
    assert spaces.call("ListContainer", listing)[0] == "CODE_INTERNAL"


def test_spaces_say_what_a_deleted_file_has_become(spaces: Raw) -> None:
    assert spaces.put("f", b"12345") == 200
    node = spaces.stat("f")[1].id.opaque_id
    answer = spaces.call("Delete", provider_api_pb2.DeleteRequest(ref=spaces.ref("f")))[1]
    assert answer.opaque.map["opaque_id"].value.decode() == node
    (item,) = spaces.call("ListRecycle", provider_api_pb2.ListRecycleRequest(ref=spaces.ref("")))[1].recycle_items
    assert (item.key, item.size) == (node, 0)
    alone = provider_api_pb2.ListRecycleRequest(ref=spaces.ref(""), key=node)
    assert [one.size for one in spaces.call("ListRecycle", alone)[1].recycle_items] == [5]
    restore = provider_api_pb2.RestoreRecycleItemRequest(ref=spaces.ref(""), key=node)
    assert spaces.call("RestoreRecycleItem", restore)[0] == "CODE_OK"
    assert spaces.stat("f")[1].id.opaque_id == node
    assert spaces.call("ListRecycle", alone)[0] == "CODE_INTERNAL"


def test_spaces_locks(spaces: Raw) -> None:
    assert spaces.put("f", b"x") == 200
    lock = resources_pb2.Lock(lock_id="mine", type=resources_pb2.LOCK_TYPE_EXCL)
    request = provider_api_pb2.SetLockRequest(ref=spaces.ref("f"), lock=lock)
    look = provider_api_pb2.GetLockRequest(ref=spaces.ref("f"))
    assert spaces.call("GetLock", look)[0] == "CODE_NOT_FOUND"
    assert spaces.call("SetLock", request)[0] == "CODE_OK"
    assert spaces.call("SetLock", request)[0] == "CODE_FAILED_PRECONDITION"
    assert spaces.call("GetLock", look)[1].lock.lock_id == "mine"
    assert spaces.delete("f") == "CODE_LOCKED"
    assert spaces.call("InitiateFileUpload", provider_api_pb2.InitiateFileUploadRequest(ref=spaces.ref("f")))[0] == (
        "CODE_LOCKED"
    )
    assert spaces.stat("f")[1].size == 1
    theirs = provider_api_pb2.UnlockRequest(ref=spaces.ref("f"), lock=resources_pb2.Lock(lock_id="theirs"))
    assert spaces.call("Unlock", theirs)[0] == "CODE_LOCKED"
    held = provider_api_pb2.DeleteRequest(ref=spaces.ref("f"), lock_id="mine")
    assert spaces.call("Delete", held)[0] == "CODE_OK"
    assert spaces.put("f", b"x") == 200
    assert spaces.delete("f") == "CODE_OK"


def test_spaces_purge(spaces: Raw) -> None:
    assert spaces.put("f", b"x") == 200
    assert spaces.delete("f") == "CODE_OK"
    everything = provider_api_pb2.ListRecycleRequest(ref=spaces.ref(""))
    item = spaces.call("ListRecycle", everything)[1].recycle_items[0]
    purge = provider_api_pb2.PurgeRecycleRequest(ref=spaces.ref(""), key=item.key)
    assert spaces.call("PurgeRecycle", purge)[0] == "CODE_OK"
    assert not spaces.call("ListRecycle", everything)[1].recycle_items
    assert spaces.call("PurgeRecycle", purge)[0] == "CODE_NOT_FOUND"


def test_spaces_versions_go_with_their_file(spaces: Raw) -> None:
    def versions(path: str) -> tuple[str, list[int]]:
        code, answer = spaces.call("ListFileVersions", provider_api_pb2.ListFileVersionsRequest(ref=spaces.ref(path)))
        return code, [one.size for one in answer.versions]

    for content in (b"1", b"22", b"333"):
        # The same time for all, so that names clash.
        assert spaces.put("f", content, X_OC_Mtime="1000000000") == 200
    assert versions("f") == ("CODE_OK", [1, 2]) or versions("f") == ("CODE_OK", [2, 1])
    assert spaces.move("f", "g") == "CODE_OK"
    assert spaces.put("f", b"x") == 200
    assert versions("f") == ("CODE_OK", [])
    assert sorted(versions("g")[1]) == [1, 2]
    assert versions("nothing")[0] == "CODE_NOT_FOUND"
    assert versions("") == ("CODE_OK", [])
    on_disk = [*spaces.cloud.versions_directory.rglob("*-*T*Z*")]
    assert sorted(path.read_bytes() for path in on_disk) == [b"1", b"22"]

    node = spaces.stat("g")[1].id.opaque_id
    assert spaces.delete("g") == "CODE_OK"
    restore = provider_api_pb2.RestoreRecycleItemRequest(ref=spaces.ref(""), key=node)
    assert spaces.call("RestoreRecycleItem", restore)[0] == "CODE_OK"
    assert sorted(versions("g")[1]) == [1, 2]
    assert spaces.delete("g") == "CODE_OK"
    purge = provider_api_pb2.PurgeRecycleRequest(ref=spaces.ref(""), key=node)
    assert spaces.call("PurgeRecycle", purge)[0] == "CODE_OK"
    assert not any(path.exists() for path in on_disk)


def test_spaces_processing() -> None:
    # Long enough that it is certainly not over while the test looks, and never waited for.
    with running(behaviour=Behaviour.SPACES, processing_delay_s=3600) as raw:
        assert raw.put("f", b"hello") == 200
        code, info = raw.stat("f")
        assert (code, info.size, opaque(info, "status")) == ("CODE_OK", 5, "processing")
        assert raw.get("f").status_code == 500
        assert raw.dav("GET", "f").status_code == 425
        assert raw.delete("f") == "CODE_TOO_EARLY"
        assert raw.move("f", "g") == "CODE_OK"
    with running(behaviour=Behaviour.SPACES, processing_delay_s=0.2) as raw:
        assert raw.put("f", b"hello") == 200
        deadline = time.monotonic() + _TIMEOUT_S
        while opaque(raw.stat("f")[1], "status") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert raw.get("f").content == b"hello"


def test_spaces_quota() -> None:
    with running(behaviour=Behaviour.SPACES, quota_bytes=100) as raw:
        assert raw.put("f", b"x" * 60) == 200
        assert raw.initiate("g", Upload_Length="41")[0] == "CODE_INSUFFICIENT_STORAGE"
        assert raw.dav("PUT", "g", b"x" * 41).status_code == 507
        quota = raw.call("GetQuota", gateway_api_pb2.GetQuotaRequest(ref=raw.ref("")))[1]
        assert (quota.total_bytes, quota.used_bytes, opaque(quota, "remaining")) == (100, 60, "40")
    with running(behaviour=Behaviour.SPACES) as raw:
        quota = raw.call("GetQuota", gateway_api_pb2.GetQuotaRequest(ref=raw.ref("")))[1]
        assert (quota.total_bytes, opaque(quota, "remaining")) == (0, str(2**64 - 1))


def test_v3_full_disk() -> None:
    with running(quota_bytes=100) as raw:
        assert raw.put("f", b"x" * 60) == 200
        assert raw.put("g", b"x" * 41) == 500
        assert raw.stat("g")[0] == "CODE_NOT_FOUND"
        quota = raw.call("GetQuota", gateway_api_pb2.GetQuotaRequest(ref=raw.ref("")))[1]
        assert (quota.total_bytes, quota.used_bytes) == (100, 60)


def test_spaces_have_no_tpc(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    assert spaces.dav("COPY", "g", Source="http://elsewhere.test/f").status_code == 400
    assert spaces.dav("COPY", "f", Destination="http://elsewhere.test/g").status_code == 400
    same_path = spaces.cloud.webdav_url.replace(spaces.cloud.http_url, "http://elsewhere.test")
    assert spaces.dav("COPY", "f", Destination=f"{same_path}/g").status_code == 201
    assert spaces.get("g").content == b"hello"


def test_spaces_webdav_paths(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    space = spaces.cloud.root
    for base in (
        f"/dav/spaces/{space}",
        f"/dav/spaces/{space.replace('$', '%24')}",
        f"/remote.php/dav/spaces/{space}",
        "/dav/files/einstein",
        "/webdav",
        "/remote.php/webdav",
    ):
        url = f"{spaces.cloud.http_url}{base}/f"
        assert spaces.http.get(url, auth=("einstein", "relativity")).content == b"hello"
    assert spaces.dav("PUT", "no/parent", b"x").status_code == 409


def test_spaces_tus(spaces: Raw) -> None:
    def begin(path: str, **values: str) -> Any:
        response = spaces.initiate(path, options=None, Upload_Length="10", **values)[1]
        return next(one for one in response.protocols if one.protocol == "tus")

    def send(method: str, ticket: Any, data: bytes = b"", offset: int = 0) -> requests.Response:
        headers = {
            **spaces.headers(ticket),
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        return spaces.http.request(method, ticket.upload_endpoint, data=data, headers=headers)

    ticket = begin("f")
    assert send("POST", ticket).status_code == 500
    assert send("PUT", ticket).status_code == 501
    spaces.cloud.faults.add("data.patch", "cut-after:4")
    with pytest.raises(requests.ConnectionError):
        send("PATCH", ticket, b"0123456789")
    assert send("HEAD", ticket).headers["Upload-Offset"] == "4"
    assert send("PATCH", ticket, b"456789", offset=4).status_code == 204
    assert spaces.get("f").content == b"0123456789"
    assert send("HEAD", ticket).status_code == 404
    assert send("PATCH", begin("g", Upload_Checksum="md5 0"), b"0123456789").status_code == 500
    given_up = begin("g")
    assert send("DELETE", given_up).status_code == 204
    assert send("HEAD", given_up).status_code == 404
    assert spaces.stat("g")[0] == "CODE_NOT_FOUND"


# Faults


@pytest.mark.parametrize(
    ("point", "script"),
    [
        ("data.put", "nonsense"),
        ("data.put", "cut-after:many"),
        ("data.put", "short-body:3"),
        ("data.somewhere", "stall"),
        ("gateway.Stat", "return-503"),
        ("gateway.Stat", "code:CODE_WONDERFUL"),
        ("gateway.Stat", "grpc:WONDERFUL"),
        ("gateway.Move", "wrong-checksum"),
        ("webdav.delete", "flip-byte"),
    ],
)
def test_scripts_that_do_nothing_are_refused(point: str, script: str) -> None:
    with pytest.raises(ValueError, match=r"fault|no CS3 code|no gRPC status"):
        Faults().add(point, script)


def test_v3_refuses_a_wrong_checksum(v3: Raw) -> None:
    with pytest.raises(ValueError, match="no checksums"):
        v3.cloud.faults.add("gateway.Stat", "wrong-checksum")


def test_pending_tells_what_did_not_happen(v3: Raw) -> None:
    v3.cloud.faults.add("gateway.Stat", "code:CODE_LOCKED", times=2)
    v3.cloud.faults.add("gateway.Stat", "grpc:UNAVAILABLE")
    assert v3.stat("")[0] == "CODE_LOCKED"
    assert v3.cloud.faults.pending() == ["gateway.Stat code:CODE_LOCKED x1", "gateway.Stat grpc:UNAVAILABLE x1"]
    assert v3.stat("")[0] == "CODE_LOCKED"
    assert v3.stat("")[0] == "gRPC UNAVAILABLE"
    assert v3.stat("")[0] == "CODE_OK"


def test_fault_status(either: Raw) -> None:
    either.cloud.faults.add("data.put", "return-503")
    assert either.put("f", b"x") == 503
    assert either.stat("f")[0] == "CODE_NOT_FOUND"
    either.cloud.faults.add("data.get", "return-502")
    assert either.get("f").status_code == 502
    either.cloud.faults.add("webdav.mkcol", "return-507")
    assert either.dav("MKCOL", "d").status_code == 507


def test_fault_cut_put(v3: Raw) -> None:
    v3.cloud.faults.add("data.put", "cut-after:400")
    ticket = v3.ticket("f", 0)
    with pytest.raises(requests.ConnectionError):
        v3.send(ticket, b"a" * 5_000_000)
    assert v3.stat("f")[1].size == 400


def test_fault_bodies_that_are_not_what_they_seem(either: Raw) -> None:
    assert either.put("f", b"0123456789") == 200
    faults = either.cloud.faults
    for script, received in (
        ("cut-after:4", (10, b"0123")),
        ("short-body:4", (4, b"0123")),
        ("long-body:3", (13, b"0123456789+++")),
        ("flip-byte", (10, b"1123456789")),
    ):
        faults.add("data.get", script)
        assert either.received("f") == received
    faults.add("webdav.get", "short-body:4")
    assert either.dav("GET", "f").content == b"0123"


def test_fault_flipped_byte_is_stored(either: Raw) -> None:
    either.cloud.faults.add("data.put", "flip-byte")
    assert either.put("f", b"0123456789") == 200
    assert either.cloud.path_on_disk("f").read_bytes() == b"1123456789"


def test_fault_wrong_checksum(spaces: Raw) -> None:
    assert spaces.put("f", b"hello") == 200
    spaces.cloud.faults.add("gateway.Stat", "wrong-checksum")
    assert opaque(spaces.stat("f")[1], "adler32") != opaque(spaces.stat("f")[1], "adler32")


def test_fault_expired_tokens(either: Raw) -> None:
    either.cloud.faults.add("data.put", "expire-token")
    assert either.put("f", b"x") == 403
    assert either.dav("GET", "f").status_code == 401
    either.token = either.cloud.access_token()
    either.cloud.faults.add("gateway.Stat", "expire-token")
    expected = "gRPC PERMISSION_DENIED" if either.cloud.behaviour is Behaviour.V3 else "CODE_NOT_FOUND"
    assert either.stat("")[0] == expected
    either.token = either.cloud.access_token()
    assert either.stat("")[0] == "CODE_OK"


def test_fault_lost_answers(either: Raw) -> None:
    either.cloud.faults.add("data.put", "lost-answer")
    ticket = either.ticket("f", 1)
    with pytest.raises(requests.ConnectionError):
        either.send(ticket, b"x")
    assert either.stat("f")[1].size == 1
    either.cloud.faults.add("gateway.Move", "lost-answer")
    assert either.move("f", "g") == "gRPC UNAVAILABLE"
    assert either.stat("g")[0] == "CODE_OK"
    either.cloud.faults.add("webdav.delete", "lost-answer")
    with pytest.raises(requests.ConnectionError):
        either.dav("DELETE", "g")
    assert either.stat("g")[0] == "CODE_NOT_FOUND"


def test_fault_stalls_end_with_the_client(either: Raw) -> None:
    assert either.put("f", b"0123456789") == 200
    either.cloud.faults.add("data.get", "stall")
    ticket = either.download("f")
    with pytest.raises(requests.ReadTimeout):
        either.http.get(ticket.download_endpoint, headers=either.headers(ticket), timeout=0.2)
    either.cloud.faults.add("data.get", "stall-after:4")
    with either.http.get(ticket.download_endpoint, headers=either.headers(ticket), timeout=0.5, stream=True) as answer:
        assert answer.raw.read(4) == b"0123"
        with pytest.raises(Exception, match=r"(?i)timed out"):
            answer.raw.read(1)
    either.cloud.faults.add("gateway.Stat", "stall")
    with pytest.raises(grpc.RpcError) as caught:
        either.stub.Stat(
            provider_api_pb2.StatRequest(ref=either.ref("f")),
            metadata=(("x-access-token", either.token),),
            timeout=0.2,
        )
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_faults_of_tpc(v3: Raw) -> None:
    assert v3.put("f", b"0123456789") == 200
    headers = {
        "Source": f"{v3.cloud.webdav_url}/f",
        "TransferHeaderAuthorization": f"Bearer {v3.token}",
    }
    success = "success: Created"
    for number, (point, script, status, text, stored) in enumerate(
        [
            ("webdav.copy", "return-503", 503, "", None),
            ("webdav.copy", "say:failure: no space left", 202, "failure: no space left", None),
            ("tpc.inner-get", "return-502", 502, "", None),
            ("tpc.inner-put", "return-507", 202, success, None),
            ("tpc.inner-put", "cut-after:4", 202, "", b"0123"),
            ("tpc.inner-get", "cut-after:4", 202, "", b"0123"),
            ("tpc.inner-put", "flip-byte", 202, success, b"1123456789"),
            ("webdav.get", "short-body:4", 202, success, b"0123"),
            ("webdav.get", "cut-after:4", 202, "", b"0123"),
        ]
    ):
        v3.cloud.faults.add(point, script)
        answer = v3.dav("COPY", f"c{number}", **headers)
        assert (answer.status_code, answer.text) == (status, text), script
        place = v3.cloud.path_on_disk(f"c{number}")
        assert (place.read_bytes() if place.exists() else None) == stored, script
        assert v3.cloud.faults.pending() == []
    v3.cloud.faults.add("webdav.copy", "lost-answer")
    with pytest.raises(requests.ConnectionError):
        v3.dav("COPY", "lost", **headers)
    assert v3.cloud.path_on_disk("lost").exists()


def test_a_dead_client_does_not_hold_the_cloud(v3: Raw) -> None:
    host, port = v3.cloud.http_url.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port))):
        assert v3.put("f", b"x") == 200
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"not HTTP at all\r\n\r\n")
    assert v3.stat("f")[0] == "CODE_OK"


def test_access_tokens_say_who_and_until_when(either: Raw) -> None:
    claims = jwt.decode(either.token, options={"verify_signature": False})
    assert claims["user"]["username"] == "einstein"
    assert claims["user"]["id"]["opaque_id"] == either.cloud.space_id("einstein")
    assert 23 * 3600 < claims["exp"] - time.time() <= 24 * 3600
