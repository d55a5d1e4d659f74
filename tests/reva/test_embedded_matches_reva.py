"""The embedded V3 cloud answers like a real Reva: the same requests to both, the same expectations.

What differs here would make every test on the embedded cloud a test of our imagination.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
import pytest
import requests
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2, spaces_api_pb2

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite, User

_NOT_A_TOKEN = "not.a.token"


class Cloud(Protocol):
    @property
    def gateway(self) -> str: ...
    @property
    def http_url(self) -> str: ...
    @property
    def webdav_url(self) -> str: ...
    @property
    def users(self) -> dict[str, User]: ...


@dataclass
class Raw:
    """The bare calls, without any of the client ring's care."""

    cloud: Cloud
    stub: Any
    http: requests.Session
    token: str = field(default="", repr=False)

    def call(self, method: str, request: Any, *, token: str | None = None) -> tuple[str, Any]:
        """Name of the CS3 code or gRPC status, and the response."""
        used = self.token if token is None else token
        metadata = (("x-access-token", used),) if used else ()
        try:
            response = getattr(self.stub, method)(request, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return f"gRPC {error.code().name}", None
        return code_pb2.Code.Name(response.status.code), response

    def log_in(self, username: str, password: str, kind: str = "basic") -> tuple[str, Any]:
        request = gateway_api_pb2.AuthenticateRequest(type=kind, client_id=username, client_secret=password)
        return self.call("Authenticate", request, token="")

    def stat(self, path: str, *, token: str | None = None) -> tuple[str, Any]:
        code, response = self.call("Stat", provider_api_pb2.StatRequest(ref=ref(path)), token=token)
        return code, response.info if response is not None else None

    def size(self, path: str) -> int | None:
        code, info = self.stat(path)
        return info.size if code == "CODE_OK" else None

    def make(self, path: str) -> str:
        return self.call("CreateContainer", provider_api_pb2.CreateContainerRequest(ref=ref(path)))[0]

    def delete(self, path: str) -> str:
        return self.call("Delete", provider_api_pb2.DeleteRequest(ref=ref(path)))[0]

    def move(self, source: str, destination: str) -> str:
        request = provider_api_pb2.MoveRequest(source=ref(source), destination=ref(destination))
        return self.call("Move", request)[0]

    def upload_ticket(self, path: str, **options: Any) -> Any:
        request = provider_api_pb2.InitiateFileUploadRequest(ref=ref(path), **options)
        code, response = self.call("InitiateFileUpload", request)
        assert code == "CODE_OK"
        return next(one for one in response.protocols if one.protocol == "simple")

    def download_ticket(self, path: str) -> Any:
        request = provider_api_pb2.InitiateFileDownloadRequest(ref=ref(path))
        code, response = self.call("InitiateFileDownload", request)
        assert code == "CODE_OK"
        return response.protocols[0]

    def headers(self, transfer_token: str) -> dict[str, str]:
        return {"X-Reva-Transfer": transfer_token, "X-Access-Token": self.token}

    def put(self, path: str, data: Any, **options: Any) -> int:
        ticket = self.upload_ticket(path, **options)
        return self.http.put(ticket.upload_endpoint, data=data, headers=self.headers(ticket.token)).status_code

    def get(self, path: str, **headers: str) -> requests.Response:
        ticket = self.download_ticket(path)
        return self.http.get(ticket.download_endpoint, headers={**self.headers(ticket.token), **headers})

    def dav(self, method: str, path: str, data: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.cloud.webdav_url + path
        return self.http.request(method, url, data=data, headers={"Authorization": f"Bearer {self.token}", **named})


def ref(path: str) -> Any:
    return resources_pb2.Reference(path=path)


def _raw(cloud: Cloud) -> Iterator[Raw]:
    channel = grpc.insecure_channel(cloud.gateway, options=[("grpc.enable_http_proxy", 0)])
    with channel, requests.Session() as http:
        http.trust_env = False
        raw = Raw(cloud, gateway_api_pb2_grpc.GatewayAPIStub(channel), http)
        user = next(iter(cloud.users.values()))
        code, response = raw.log_in(user.username, user.password)
        assert code == "CODE_OK"
        raw.token = response.token
        yield raw


BOTH = ["embedded", pytest.param("reva", marks=pytest.mark.reva)]


@pytest.fixture(scope="module", params=BOTH)
def site(request: pytest.FixtureRequest) -> Iterator[Raw]:
    if request.param == "embedded":
        with EmbeddedCloud(behaviour=Behaviour.V3) as cloud:
            yield from _raw(cloud)
    else:
        with RevaSite("matched") as real:
            yield from _raw(real)


@pytest.fixture(scope="module", params=BOTH)
def site_without_tpc(request: pytest.FixtureRequest) -> Iterator[Raw]:
    if request.param == "embedded":
        with EmbeddedCloud(behaviour=Behaviour.V3, http_tpc=False) as cloud:
            yield from _raw(cloud)
    else:
        with RevaSite("unmatched", http_tpc=False) as real:
            yield from _raw(real)


@pytest.fixture
def folder(site: Raw, request: pytest.FixtureRequest) -> str:
    """A folder of this test's own; the name below the mount, with a slash in front."""
    name = f"/{request.node.originalname}"
    assert site.make(f"/localfs{name}") == "CODE_OK"
    return name


@pytest.fixture
def folder_without_tpc(site_without_tpc: Raw, request: pytest.FixtureRequest) -> str:
    name = f"/{request.node.originalname}"
    assert site_without_tpc.make(f"/localfs{name}") == "CODE_OK"
    return name


@pytest.mark.parametrize(
    ("username", "password", "kind", "code"),
    [
        ("einstein", "wrong", "basic", "CODE_PERMISSION_DENIED"),
        ("nobody", "relativity", "basic", "CODE_PERMISSION_DENIED"),
        ("einstein", "relativity", "unheard-of", "CODE_INTERNAL"),
        ("einstein", "relativity", "", "CODE_INTERNAL"),
    ],
)
def test_refused_logins(site: Raw, username: str, password: str, kind: str, code: str) -> None:
    assert site.log_in(username, password, kind)[0] == code


def test_tokens_are_refused_as_grpc_errors(site: Raw) -> None:
    assert site.stat("/localfs", token="")[0] == "gRPC UNAUTHENTICATED"
    assert site.stat("/localfs", token=_NOT_A_TOKEN)[0] == "gRPC PERMISSION_DENIED"
    who = gateway_api_pb2.WhoAmIRequest(token=site.token)
    assert site.call("WhoAmI", who, token="")[0] == "gRPC UNAUTHENTICATED"
    assert site.call("WhoAmI", who)[1].user.username == "einstein"
    assert site.call("WhoAmI", gateway_api_pb2.WhoAmIRequest(token="x"))[0] == "CODE_UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", "CODE_OK"),
        ("/localfs", "CODE_OK"),
        ("/localfs/", "CODE_OK"),
        ("/localfs/nothing", "CODE_NOT_FOUND"),
        ("/elsewhere", "CODE_NOT_FOUND"),
        ("/localfs/../localfs", "CODE_NOT_FOUND"),
        ("localfs/x", "CODE_INTERNAL"),
        ("/localfs/" + "n" * 256, "CODE_INTERNAL"),
    ],
)
def test_stat_of_paths(site: Raw, path: str, code: str) -> None:
    assert site.stat(path)[0] == code


def test_unimplemented(site: Raw) -> None:
    assert site.call("ListStorageSpaces", spaces_api_pb2.ListStorageSpacesRequest())[0] == "gRPC UNIMPLEMENTED"
    stream = provider_api_pb2.ListContainerStreamRequest(ref=ref("/localfs"))
    with pytest.raises(grpc.RpcError) as caught:
        list(site.stub.ListContainerStream(stream, metadata=(("x-access-token", site.token),), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


def test_what_a_file_looks_like(site: Raw, folder: str) -> None:
    assert site.put(f"/localfs{folder}/a b%#é", b"hello world") == 200
    code, info = site.stat(f"/localfs{folder}/a b%#é")
    assert code == "CODE_OK"
    assert (info.path, info.name, info.size) == (f"/localfs{folder}/a b%#é", "", 11)
    assert info.type == resources_pb2.ResourceType.Value("RESOURCE_TYPE_FILE")
    assert info.id.storage_id == "localfs"
    assert info.id.opaque_id.endswith("%2Fa+b%25%23%C3%A9")
    assert not info.HasField("checksum")
    by_id = provider_api_pb2.StatRequest(ref=resources_pb2.Reference(resource_id=info.id))
    assert site.call("Stat", by_id)[1].info.path == info.path
    listed = site.call("ListContainer", provider_api_pb2.ListContainerRequest(ref=ref(f"/localfs{folder}")))[1]
    assert [(one.path, one.name) for one in listed.infos] == [(info.path, "")]
    of_file = provider_api_pb2.ListContainerRequest(ref=ref(info.path))
    assert site.call("ListContainer", of_file)[0] == "CODE_INTERNAL"


def test_create_container(site: Raw, folder: str) -> None:
    assert site.make(f"/localfs{folder}") == "CODE_ALREADY_EXISTS"
    assert site.make(f"/localfs{folder}/no/parent") == "CODE_NOT_FOUND"
    assert site.put(f"/localfs{folder}/file", b"x") == 200
    assert site.make(f"/localfs{folder}/file") == "CODE_ALREADY_EXISTS"
    assert site.make(f"/localfs{folder}/file/below") == "CODE_INTERNAL"
    assert site.stat(f"/localfs{folder}/file/below")[0] == "CODE_INTERNAL"


def test_upload_needs_both_tokens(site: Raw, folder: str) -> None:
    ticket = site.upload_ticket(f"/localfs{folder}/file")
    url, transfer = ticket.upload_endpoint, {"X-Reva-Transfer": ticket.token}
    assert site.http.put(url, data=b"x").status_code == 403
    assert site.http.put(url, data=b"x", headers={"X-Access-Token": site.token}).status_code == 403
    assert site.http.put(url, data=b"x", headers=site.headers(_NOT_A_TOKEN)).status_code == 403
    refused = site.http.put(url, data=b"x", headers=transfer)
    assert refused.status_code == 401
    assert "Basic realm=" in refused.headers["WWW-Authenticate"]
    assert site.http.put(url, data=b"x", headers={**transfer, "X-Access-Token": "x"}).status_code == 401
    bearer = {**transfer, "Authorization": f"Bearer {site.token}"}
    done = site.http.put(url, data=b"x", headers=bearer)
    assert (done.status_code, done.headers.get("ETag")) == (200, None)
    assert site.http.put(url, data=b"x", headers=bearer).status_code == 500, "the session is over"


def test_transfer_token_in_the_path(site: Raw, folder: str) -> None:
    ticket = site.upload_ticket(f"/localfs{folder}/file")
    url = f"{ticket.upload_endpoint}/{ticket.token}"
    assert site.http.put(url, data=b"abc", headers={"X-Access-Token": site.token}).status_code == 200
    assert site.size(f"/localfs{folder}/file") == 3


def test_upload_without_a_length(site: Raw, folder: str) -> None:
    assert site.put(f"/localfs{folder}/chunked", iter([b"abc", b"def"])) == 200
    assert site.get(f"/localfs{folder}/chunked").content == b"abcdef"


def test_upload_ignores_what_is_asked_for(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"
    assert site.put(path, b"one") == 200
    assert site.put(path, b"three", if_not_exist=True) == 200
    assert site.put(path, b"seventh", if_match='"other"') == 200
    assert site.size(path) == 7


def test_upload_where_it_cannot_go(site: Raw, folder: str) -> None:
    assert site.put(f"/localfs{folder}/no/parent", b"x") == 500
    assert site.put(f"/localfs{folder}/file", b"x") == 200
    assert site.put(f"/localfs{folder}/file/below", b"x") == 500
    assert site.put(f"/localfs{folder}/{'n' * 256}", b"x") == 500
    request = provider_api_pb2.InitiateFileUploadRequest(ref=ref("/localfs"))
    assert site.call("InitiateFileUpload", request)[0] == "CODE_INTERNAL"


def test_upload_onto_a_folder_replaces_it(site: Raw, folder: str) -> None:
    assert site.make(f"/localfs{folder}/sub") == "CODE_OK"
    assert site.put(f"/localfs{folder}/sub", b"x") == 200
    info = site.stat(f"/localfs{folder}/sub")[1]
    assert info.type == resources_pb2.ResourceType.Value("RESOURCE_TYPE_FILE")


def test_a_cut_upload_leaves_a_stub(site: Raw, folder: str) -> None:
    ticket = site.upload_ticket(f"/localfs{folder}/cut")
    host, port = site.cloud.http_url.rpartition("/")[2].split(":")
    head = "PUT /datagateway HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in site.headers(ticket.token).items())
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"\r\n" + b"a" * 1000)
        connection.shutdown(socket.SHUT_WR)
        # Wait for the server's end, so that its part is over.
        connection.settimeout(20)
        while connection.recv(4096):
            pass
    deadline = time.monotonic() + 20
    while (size := site.size(f"/localfs{folder}/cut")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert size == 1000
    again = site.http.put(ticket.upload_endpoint, data=b"b" * 5000, headers=site.headers(ticket.token))
    assert again.status_code == 500
    assert site.size(f"/localfs{folder}/cut") == 1000


def test_tus_upload(site: Raw, folder: str) -> None:
    def begin(path: str, length: int) -> Any:
        request = provider_api_pb2.InitiateFileUploadRequest(ref=ref(path))
        request.opaque.map["Upload-Length"].decoder = "plain"
        request.opaque.map["Upload-Length"].value = str(length).encode()
        response = site.call("InitiateFileUpload", request)[1]
        return next(one for one in response.protocols if one.protocol == "tus")

    def send(method: str, ticket: Any, data: bytes = b"", **changed: str | None) -> requests.Response:
        headers: dict[str, str | None] = {
            **site.headers(ticket.token),
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        given = {name: value for name, value in headers.items() if value is not None}
        return site.http.request(method, ticket.upload_endpoint, data=data, headers=given)

    path = f"/localfs{folder}/file"
    ticket = begin(path, 10)
    head = send("HEAD", ticket)
    assert (head.status_code, head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (200, "0", "10")
    assert send("HEAD", ticket, Tus_Resumable=None).status_code == 200
    assert send("PATCH", ticket, b"01234", Tus_Resumable=None).status_code == 412
    assert send("PATCH", ticket, b"01234", Content_Type="text/plain").status_code == 400
    assert send("PATCH", ticket, b"01234", Upload_Offset=None).status_code == 400
    assert send("PATCH", ticket, b"01234", Upload_Offset="3").status_code == 409
    assert send("PATCH", ticket, b"01234").status_code == 204
    assert site.size(path) is None
    assert send("HEAD", ticket).headers["Upload-Offset"] == "5"
    assert send("POST", ticket).status_code == 501
    assert send("DELETE", ticket).status_code == 501
    last = send("PATCH", ticket, b"56789+more", Upload_Offset="5")
    assert (last.status_code, last.headers["Upload-Offset"]) == (204, "10")
    assert site.get(path).content == b"0123456789"
    assert send("HEAD", ticket).status_code == 404
    assert send("PATCH", ticket, b"", Upload_Offset="10").status_code == 404
    nowhere = begin(f"/localfs{folder}/no/parent", 1)
    assert send("PATCH", nowhere, b"x").status_code == 500
    failed = send("HEAD", nowhere)
    assert (failed.status_code, failed.headers["Upload-Offset"]) == (200, "1")
    assert send("PATCH", nowhere, Upload_Offset="1").status_code == 204, "nothing is done any more"
    assert site.size(f"/localfs{folder}/no/parent") is None
    open_to_all = begin(f"/localfs{folder}/open", 10)
    assert send("PATCH", open_to_all, b"01234", X_Access_Token=None).status_code == 204
    assert send("HEAD", open_to_all, X_Access_Token="x").headers["Upload-Offset"] == "5"
    assert send("PATCH", open_to_all, b"56789", X_Access_Token="x", Upload_Offset="5").status_code == 204
    assert send("HEAD", ticket, X_Reva_Transfer="x").status_code == 403
    empty = begin(f"/localfs{folder}/empty", 0)
    assert send("PATCH", empty).status_code == 204
    assert site.size(f"/localfs{folder}/empty") is None, "an empty TUS upload never finishes"


def test_tus_requests_at_the_same_time_are_mixed(site: Raw, folder: str) -> None:
    unit = 1024 * 1024  # the embedded cloud appends whole blocks
    request = provider_api_pb2.InitiateFileUploadRequest(ref=ref(f"/localfs{folder}/mixed"))
    request.opaque.map["Upload-Length"].decoder = "plain"
    request.opaque.map["Upload-Length"].value = str(4 * unit).encode()
    offers = site.call("InitiateFileUpload", request)[1].protocols
    ticket = next(one for one in offers if one.protocol == "tus")
    headers = {
        **site.headers(ticket.token),
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/offset+octet-stream",
    }

    def offset() -> int:
        return int(site.http.head(ticket.upload_endpoint, headers=headers).headers["Upload-Offset"])

    def patch(data: bytes, at: int) -> requests.Response:
        return site.http.patch(ticket.upload_endpoint, data=data, headers={**headers, "Upload-Offset": str(at)})

    def reached(wanted: int) -> bool:
        deadline = time.monotonic() + 10
        while offset() != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        return offset() == wanted

    parts = urlsplit(ticket.upload_endpoint)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as first:
        lines = [f"PATCH {parts.path} HTTP/1.1", "Host: x", f"Content-Length: {4 * unit}", "Upload-Offset: 0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        first.sendall("\r\n".join([*lines, "", "a" * unit]).encode())
        assert reached(unit), "a request that goes on"
        second = patch(b"b" * unit, unit)
        assert (second.status_code, second.headers["Upload-Offset"]) == (204, str(2 * unit))
        first.sendall(b"c" * unit)
        assert reached(3 * unit), "bytes of both"
        third = patch(b"d" * unit, 3 * unit)
        assert (third.status_code, third.headers["Upload-Offset"]) == (204, str(4 * unit))
    got = site.get(f"/localfs{folder}/mixed").content
    assert got == b"".join(letter * unit for letter in (b"a", b"b", b"c", b"d"))


def test_download(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"
    assert site.put(path, b"hello world") == 200
    assert site.get(path).content == b"hello world"
    valid = site.get(path, Range="bytes=0-3")
    assert (valid.status_code, valid.headers.get("Accept-Ranges")) == (416, "bytes")
    beyond = site.get(path, Range="bytes=100-")
    assert (beyond.status_code, beyond.headers.get("Content-Range")) == (416, "bytes */11")
    assert site.get(f"/localfs{folder}/nothing").status_code == 404
    ticket = site.download_ticket(path)
    head = site.http.head(ticket.download_endpoint, headers=site.headers(ticket.token))
    assert (head.status_code, head.headers["Content-Length"]) == (200, "11")
    without = site.http.get(ticket.download_endpoint, headers={"X-Reva-Transfer": ticket.token})
    assert without.status_code == 401
    for_upload = site.upload_ticket(path)
    assert site.http.get(for_upload.upload_endpoint, headers=site.headers(for_upload.token)).status_code == 404


def test_an_empty_file(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/empty"
    assert site.put(path, b"") == 200
    answer = site.get(path)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "0")
    assert site.get(path, Range="bytes=0-").status_code == 416


def test_move(site: Raw, folder: str) -> None:
    one, two = f"/localfs{folder}/one", f"/localfs{folder}/two"
    assert site.put(one, b"1") == 200
    assert site.put(two, b"22") == 200
    assert site.move(one, two) == "CODE_OK"
    assert (site.size(one), site.size(two)) == (None, 1)
    assert site.move(one, two) == "CODE_INTERNAL", "a missing source"
    assert site.move(two, f"/localfs{folder}/no/parent") == "CODE_INTERNAL"
    assert site.move(two, f"/localfs{folder}") == "CODE_INTERNAL", "onto a folder"
    assert site.move(two, two) == "CODE_OK"


def test_delete(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"
    assert site.put(path, b"x") == 200
    assert site.delete(path) == "CODE_OK"
    assert site.delete(path) == "CODE_NOT_FOUND"
    recycled = site.call("ListRecycle", provider_api_pb2.ListRecycleRequest(ref=ref("/localfs")))[1]
    item = next(one for one in recycled.recycle_items if one.ref.path == path)
    assert item.key.startswith("file.d")
    assert item.deletion_time.seconds > 10**12, "milliseconds"
    restore = provider_api_pb2.RestoreRecycleItemRequest(ref=ref("/localfs"), key=item.key)
    assert site.call("RestoreRecycleItem", restore)[0] == "CODE_OK"
    assert site.size(path) == 1
    assert site.delete(f"/localfs{folder}") == "CODE_OK", "with what is in it"
    assert site.delete("/localfs") == "CODE_INTERNAL"


def test_the_recycle_bin(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"

    def in_bin(asked: str = "/localfs", **more: Any) -> list[Any]:
        request = provider_api_pb2.ListRecycleRequest(ref=ref(asked), **more)
        items = site.call("ListRecycle", request)[1].recycle_items
        return [item for item in items if item.ref.path.startswith(f"/localfs{folder}/")]

    def act(method: str, key: str) -> str:
        request = getattr(provider_api_pb2, f"{method}Request")(ref=ref("/localfs"), key=key)
        return str(site.call(method, request)[0])

    assert site.put(path, b"12345") == 200
    assert site.delete(path) == "CODE_OK"
    (item,) = in_bin()
    assert item.size == 5
    old = {"from_ts": {"seconds": 1}, "to_ts": {"seconds": 2}}
    for more in ({"key": item.key}, {"key": "none"}, old):
        assert [one.key for one in in_bin(**more)] == [item.key], "windows and keys are ignored"
    assert [one.key for one in in_bin(f"/localfs{folder}/none")] == [item.key], "it is the bin of all"

    assert site.put(path, b"new") == 200
    assert act("RestoreRecycleItem", item.key) == "CODE_INTERNAL", "something is there"
    assert site.size(path) == 3
    for method in ("PurgeRecycle", "RestoreRecycleItem"):
        assert act(method, "none.d1") == "CODE_INTERNAL"
    assert act("PurgeRecycle", item.key) == "CODE_OK"
    assert in_bin() == []

    for name in ("full", "empty"):
        assert site.make(f"/localfs{folder}/{name}") == "CODE_OK"
    assert site.put(f"/localfs{folder}/full/file", b"x") == 200
    for name, code in (("full", "CODE_INTERNAL"), ("empty", "CODE_OK")):
        assert site.delete(f"/localfs{folder}/{name}") == "CODE_OK"
        (item,) = [one for one in in_bin() if one.ref.path.endswith(f"/{name}")]
        assert act("PurgeRecycle", item.key) == code, name


def test_two_of_one_name_within_a_millisecond(site: Raw, folder: str) -> None:
    """One takes the other's place in the recycle bin; it is deleted all the same, and the answer says otherwise."""
    deadline = time.monotonic() + 60
    codes: list[str] = []
    for number in itertools.count():
        paths = [f"/localfs{folder}/{number}-{one}/same" for one in range(8)]
        for path in paths:
            assert site.make(path.rpartition("/")[0]) == "CODE_OK"
            assert site.put(path, b"x") == 200
        with ThreadPoolExecutor(len(paths)) as threads:
            codes = list(threads.map(site.delete, paths))
        assert set(codes) <= {"CODE_OK", "CODE_INTERNAL"}
        assert [path for path in paths if site.size(path) is not None] == []
        if "CODE_INTERNAL" in codes or time.monotonic() > deadline:
            break
    assert "CODE_INTERNAL" in codes
    assert "CODE_OK" in codes


def test_what_is_overwritten_becomes_a_version_of_its_path(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"

    def versions(of: str = path) -> tuple[str, list[int]]:
        code, answer = site.call("ListFileVersions", provider_api_pb2.ListFileVersionsRequest(ref=ref(of)))
        assert all(int(one.key) == one.mtime > 10**12 for one in answer.versions), "milliseconds"
        return code, [one.size for one in answer.versions]

    assert site.put(path, b"1") == 200
    assert versions() == ("CODE_OK", [])
    assert site.put(path, b"22") == 200
    assert site.dav("PUT", f"{folder}/file", b"333").status_code == 204
    assert versions() == ("CODE_OK", [2, 1]), "newest first"
    assert site.put(f"/localfs{folder}/other", b"4444") == 200
    assert site.move(f"/localfs{folder}/other", path) == "CODE_OK"
    assert versions() == ("CODE_OK", [2, 1]), "what a rename replaces is none"
    assert site.move(path, f"/localfs{folder}/other") == "CODE_OK"
    assert versions(f"/localfs{folder}/other") == ("CODE_OK", [])
    assert versions() == ("CODE_OK", [2, 1]), "they stay at the path"
    assert site.put(path, b"55555") == 200
    assert site.delete(path) == "CODE_OK"
    assert versions() == ("CODE_OK", [2, 1])
    for nothing in (f"/localfs{folder}/nothing", f"{path}/below", "/localfs"):
        assert versions(nothing) == ("CODE_OK", [])
    assert versions("/nowhere")[0] == "CODE_NOT_FOUND"
    assert versions(f"/localfs{folder}/{'n' * 256}")[0] == "CODE_INTERNAL"
    assert site.make(f"/localfs{folder}/folder") == "CODE_OK"
    assert site.put(f"/localfs{folder}/folder", b"x") == 200
    assert len(versions(f"/localfs{folder}/folder")[1]) == 1, "a folder that a file has replaced"


def test_there_are_no_locks(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/file"
    assert site.put(path, b"x") == 200
    lock = resources_pb2.Lock(lock_id="1", type=resources_pb2.LOCK_TYPE_EXCL)
    assert site.call("SetLock", provider_api_pb2.SetLockRequest(ref=ref(path), lock=lock))[0] == "CODE_INTERNAL"
    assert site.call("GetLock", provider_api_pb2.GetLockRequest(ref=ref(path)))[0] == "CODE_INTERNAL"
    assert site.delete(path) == "CODE_OK"


def test_the_longest_name_cannot_be_deleted(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/{'n' * 255}"
    assert site.put(path, b"x") == 200
    assert site.delete(path) == "CODE_INTERNAL"
    assert site.size(path) == 1
    assert site.dav("DELETE", path.removeprefix("/localfs")).status_code == 500


def test_metadata_touch_and_quota(site: Raw, folder: str) -> None:
    path = f"/localfs{folder}/touched"
    touch = provider_api_pb2.TouchFileRequest(ref=ref(path))
    assert site.call("TouchFile", touch)[0] == "CODE_OK"
    assert site.call("TouchFile", touch)[0] == "CODE_ALREADY_EXISTS"
    request = provider_api_pb2.SetArbitraryMetadataRequest(ref=ref(path))
    request.arbitrary_metadata.metadata["colour"] = "red"
    request.arbitrary_metadata.metadata["mtime"] = "1000000"
    assert site.call("SetArbitraryMetadata", request)[0] == "CODE_OK"
    info = site.stat(path)[1]
    assert dict(info.arbitrary_metadata.metadata) == {"colour": "red"}
    assert info.mtime.seconds == 1000000
    quota = site.call("GetQuota", gateway_api_pb2.GetQuotaRequest(ref=ref("/localfs")))[1]
    assert quota.total_bytes > quota.used_bytes > 0
    assert not quota.opaque.map


def test_metadata_belong_to_a_path(site: Raw, folder: str) -> None:
    """What rucio_cs3/cs3/kept_checksums.py is made for."""

    def put(name: str) -> None:
        assert site.dav("PUT", f"{folder}/{name}", b"0123456789").status_code in (201, 204)

    def keep(name: str, **metadata: str) -> str:
        request = provider_api_pb2.SetArbitraryMetadataRequest(ref=ref(f"/localfs{folder}/{name}"))
        for key, value in metadata.items():
            request.arbitrary_metadata.metadata[key] = value
        return site.call("SetArbitraryMetadata", request)[0]

    def look(name: str, *keys: str) -> tuple[str, int, dict[str, str]]:
        request = provider_api_pb2.StatRequest(ref=ref(f"/localfs{folder}/{name}"), arbitrary_metadata_keys=keys)
        code, response = site.call("Stat", request)
        assert code == "CODE_OK"
        info = response.info
        return info.etag, info.mtime.seconds, dict(info.arbitrary_metadata.metadata)

    put("a")
    etag, mtime, none = look("a")
    assert none == {}
    assert keep("a", one="1", two="2") == "CODE_OK"
    assert look("a") == (etag, mtime, {"one": "1", "two": "2"})
    assert look("a", "two", "three")[2] == {"two": "2"}
    assert look("a", "*")[2] == {"one": "1", "two": "2"}
    assert site.move(f"/localfs{folder}/a", f"/localfs{folder}/b") == "CODE_OK"
    assert look("b") == (etag, mtime, {"one": "1", "two": "2"})
    # Another content has another etag at once, and the metadata of the one before.
    put("b")
    second, _, left = look("b")
    assert (second != etag, left) == (True, {"one": "1", "two": "2"})
    assert site.delete(f"/localfs{folder}/b") == "CODE_OK"
    put("b")
    third, _, left = look("b")
    assert (third in (etag, second), left) == (False, {"one": "1", "two": "2"})
    # The same key at both names: moved, and INTERNAL; each path has its own still.
    put("c")
    assert keep("c", one="c") == "CODE_OK"
    moving = look("c")[0]
    assert site.move(f"/localfs{folder}/c", f"/localfs{folder}/b") == "CODE_INTERNAL"
    assert look("b")[::2] == (moving, {"one": "1", "two": "2"})
    assert site.size(f"/localfs{folder}/c") is None
    put("c")
    assert look("c")[2] == {"one": "c"}
    assert site.dav("MOVE", f"{folder}/c", Destination=f"{site.cloud.webdav_url}{folder}/b").status_code == 500
    # Other keys come together.
    put("d")
    assert keep("d", four="4") == "CODE_OK"
    assert site.move(f"/localfs{folder}/d", f"/localfs{folder}/b") == "CODE_OK"
    assert look("b")[2] == {"one": "1", "two": "2", "four": "4"}
    assert keep("nothing", one="1") == "CODE_NOT_FOUND"


def test_webdav_put_and_get(site: Raw, folder: str) -> None:
    path = f"{folder}/file"
    assert site.dav("PUT", path, b"hello").status_code == 201
    overwritten = site.dav("PUT", path, b"hello world")
    assert overwritten.status_code == 204
    assert overwritten.headers["ETag"]
    assert site.dav("GET", path).content == b"hello world"
    assert site.dav("HEAD", path).headers["Content-Length"] == "11"
    assert site.dav("GET", path, Range="bytes=0-3").status_code == 416
    assert site.dav("GET", f"{folder}/nothing").status_code == 404
    assert site.dav("GET", folder).status_code == 501
    assert site.dav("PUT", folder, b"x").status_code == 409
    assert site.dav("PUT", f"{folder}/no/parent", b"x").status_code == 500
    assert site.dav("PUT", path, iter([b"x"])).status_code == 400, "no length"
    assert site.dav("PUT", path, b"x", If_Match='"other"').status_code == 412
    assert site.dav("PUT", path, b"x", Content_Range="bytes 0-0/5").status_code == 501
    assert site.dav("PUT", path, b"x", OC_Checksum="ADLER32:00000000").status_code == 204, "not compared"
    assert site.dav("GET", f"{path}/below").status_code == 500


def test_webdav_logins(site: Raw, folder: str) -> None:
    url = site.cloud.webdav_url + folder
    none = site.http.request("PROPFIND", url)
    assert (none.status_code, "WWW-Authenticate" in none.headers) == (401, True)
    wrong = site.http.request("PROPFIND", url, headers={"Authorization": f"Bearer {_NOT_A_TOKEN}"})
    assert (wrong.status_code, "WWW-Authenticate" in wrong.headers) == (401, False)
    assert site.http.request("PROPFIND", url, auth=("einstein", "wrong")).status_code == 401
    assert site.http.request("PROPFIND", url, auth=("einstein", "relativity")).status_code == 207
    assert site.http.request("PROPFIND", url, headers={"X-Access-Token": site.token}).status_code == 207


def test_webdav_name_space(site: Raw, folder: str) -> None:
    base = site.cloud.webdav_url
    assert site.dav("MKCOL", f"{folder}/sub").status_code == 201
    assert site.dav("MKCOL", f"{folder}/sub").status_code == 405
    assert site.dav("MKCOL", f"{folder}/no/parent").status_code == 409
    assert site.dav("MKCOL", f"{folder}/body", b"x").status_code == 415
    assert site.dav("PUT", f"{folder}/one", b"1").status_code == 201
    assert site.dav("MOVE", f"{folder}/one", Destination=f"{base}{folder}/two").status_code == 201
    assert site.dav("PUT", f"{folder}/one", b"1").status_code == 201
    moved = site.dav("MOVE", f"{folder}/one", Destination=f"{base}{folder}/two", Overwrite="F")
    assert moved.status_code == 412
    assert site.dav("MOVE", f"{folder}/one", Destination=f"{base}{folder}/two").status_code == 204
    assert site.dav("MOVE", f"{folder}/one", Destination=f"{base}{folder}/two").status_code == 404
    assert site.dav("MOVE", f"{folder}/two", Destination=f"{base}{folder}/no/parent").status_code == 409
    assert site.dav("MOVE", f"{folder}/two").status_code == 400
    listed = site.dav("PROPFIND", folder, Depth="1")
    assert listed.status_code == 207
    assert listed.text.count("<d:response>") == 3
    assert site.dav("PROPFIND", folder, Depth="0").text.count("<d:response>") == 1
    assert site.dav("PROPFIND", folder, Depth="7").status_code == 400
    assert site.dav("DELETE", f"{folder}/two").status_code == 204
    assert site.dav("DELETE", f"{folder}/two").status_code == 404


def test_tpc_pull(site: Raw, folder: str) -> None:
    source = f"{site.cloud.webdav_url}{folder}/file"
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    token = {"TransferHeaderAuthorization": f"Bearer {site.token}"}
    pulled = site.dav("COPY", f"{folder}/pulled", Source=source, **token)
    assert (pulled.status_code, pulled.text) == (202, "success: Created")
    assert site.size(f"/localfs{folder}/pulled") == 5
    assert site.dav("COPY", f"{folder}/pulled", Source=source, Overwrite="F", **token).status_code == 412
    assert site.dav("COPY", f"{folder}/x", Source=source, Overwrite="maybe", **token).status_code == 400
    assert site.dav("COPY", f"{folder}/x", Source=f"{source}-missing", **token).status_code == 404
    assert site.dav("COPY", f"{folder}/x", Source=source).status_code == 401
    a_folder = f"{site.cloud.webdav_url}{folder}"
    assert site.dav("COPY", f"{folder}/x", Source=a_folder, **token).status_code == 400
    assert site.dav("COPY", f"{folder}/x", Source="http://127.0.0.1:1/x", **token).status_code == 500
    assert site.dav("COPY", f"{folder}/x").status_code == 400


def test_tpc_says_success_whatever_the_inner_put_says(site: Raw, folder: str) -> None:
    source = f"{site.cloud.webdav_url}{folder}/file"
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    token = {"TransferHeaderAuthorization": f"Bearer {site.token}"}
    pulled = site.dav("COPY", f"{folder}/no/parent", Source=source, **token)
    assert (pulled.status_code, pulled.text) == (202, "success: Created")
    assert site.size(f"/localfs{folder}/no/parent") is None
    target = f"{site.cloud.webdav_url}{folder}/pushed"
    refused = site.dav("COPY", f"{folder}/file", Destination=target, TransferHeaderAuthorization="Bearer x")
    assert (refused.status_code, refused.text) == (202, "success: Created")
    assert site.size(f"/localfs{folder}/pushed") is None


def test_tpc_push(site: Raw, folder: str) -> None:
    target = f"{site.cloud.webdav_url}{folder}/pushed"
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    token = {"TransferHeaderAuthorization": f"Bearer {site.token}"}
    pushed = site.dav("COPY", f"{folder}/file", Destination=target, **token)
    assert (pushed.status_code, pushed.text) == (202, "success: Created")
    assert site.size(f"/localfs{folder}/pushed") == 5
    assert site.dav("PUT", f"{folder}/file", b"hello world").status_code == 204
    # Overwrite is not looked at.
    assert site.dav("COPY", f"{folder}/file", Destination=target, Overwrite="F", **token).status_code == 202
    assert site.size(f"/localfs{folder}/pushed") == 11
    assert site.dav("PUT", f"{folder}/empty", b"").status_code == 201
    empty = site.dav("COPY", f"{folder}/empty", Destination=f"{target}-empty", **token)
    assert (empty.status_code, empty.text) == (202, "success: Created")
    assert site.size(f"/localfs{folder}/pushed-empty") is None, "it was sent without a length"
    token_and_source = {**token, "Source": f"{site.cloud.webdav_url}{folder}/empty"}
    assert site.dav("COPY", f"{folder}/pulled-empty", **token_and_source).status_code == 202
    assert site.size(f"/localfs{folder}/pulled-empty") == 0
    unreachable = site.dav("COPY", f"{folder}/file", Destination="http://127.0.0.1:1/x", **token)
    assert (unreachable.status_code, unreachable.text) == (202, "")
    assert site.dav("COPY", folder, Destination=target, **token).status_code == 400
    with pytest.raises(requests.ConnectionError):
        site.dav("COPY", f"{folder}/missing", Destination=target, **token)


def test_without_tpc_the_host_is_ignored(site_without_tpc: Raw, folder_without_tpc: str) -> None:
    site, folder = site_without_tpc, folder_without_tpc
    elsewhere = f"http://elsewhere.test:99/remote.php/webdav{folder}"
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    assert site.dav("COPY", f"{folder}/x", Source=f"{elsewhere}/file").status_code == 400
    assert site.dav("COPY", f"{folder}/file", Destination=f"{elsewhere}/copy").status_code == 201
    assert site.size(f"/localfs{folder}/copy") == 5
    kept = site.dav("COPY", f"{folder}/file", Destination=f"{elsewhere}/copy", Overwrite="F")
    assert kept.status_code == 412
    assert site.dav("COPY", f"{folder}/file", Destination=f"{elsewhere}/copy").status_code == 204
    assert site.dav("COPY", f"{folder}/file", Destination=f"{elsewhere}/no/parent").status_code == 409
    assert site.dav("COPY", f"{folder}/missing", Destination=f"{elsewhere}/y").status_code == 404


def test_without_tpc_a_push_destroys_its_source(site_without_tpc: Raw, folder_without_tpc: str) -> None:
    site, folder = site_without_tpc, folder_without_tpc
    same = f"http://elsewhere.test:99/remote.php/webdav{folder}/file"
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    assert site.dav("COPY", f"{folder}/file", Destination=same, Overwrite="F").status_code == 412
    assert site.size(f"/localfs{folder}/file") == 5
    assert site.dav("COPY", f"{folder}/file", Destination=same).status_code == 500
    assert site.size(f"/localfs{folder}/file") is None


class Peer(http.server.BaseHTTPRequestHandler):
    """The other site of a third-party copy: it does as its path says."""

    protocol_version = "HTTP/1.1"
    ended: threading.Semaphore

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"a" * 1000)
        self.close_connection = True
        if self.path == "/slow":
            with contextlib.suppress(OSError):
                for _ in range(4000):
                    time.sleep(0.05)
                    self.wfile.write(b"a")
                return
            self.ended.release()

    def do_PUT(self) -> None:
        if self.path == "/cut":
            self.close_connection = True
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path.lstrip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def peer() -> Iterator[tuple[str, threading.Semaphore]]:
    """URL of the other site, and what is released for each slow answer that nobody waits for any more."""

    class Fresh(Peer):
        ended = threading.Semaphore(0)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Fresh.ended
        server.shutdown()
        thread.join()


def test_tpc_onto_a_folder(site: Raw, folder: str) -> None:
    """What a probe asks: it is refused before anybody looks for the source."""
    nowhere = {"Source": "https://nowhere.invalid/nothing", "Overwrite": "F"}
    assert site.dav("COPY", f"{folder}/", **nowhere).status_code == 412
    assert site.dav("COPY", "/", **nowhere).status_code == 412
    assert site.dav("COPY", f"{folder}/missing/", **nowhere).status_code == 500
    listed = site.call("ListContainer", provider_api_pb2.ListContainerRequest(ref=ref(f"/localfs{folder}")))[1]
    assert not listed.infos


def test_without_tpc_onto_a_folder(site_without_tpc: Raw, folder_without_tpc: str) -> None:
    site, folder = site_without_tpc, folder_without_tpc
    nowhere = {"Source": "https://nowhere.invalid/nothing", "Overwrite": "F"}
    assert site.dav("COPY", f"{folder}/", **nowhere).status_code == 400
    assert site.dav("COPY", f"{folder}/missing/", **nowhere).status_code == 400
    assert site.dav("PROPFIND", f"{folder}/", Depth="0").status_code == 207
    assert site.dav("PROPFIND", f"{folder}/missing/", Depth="0").status_code == 404


def test_tpc_pull_from_a_source_that_breaks_off(site: Raw, folder: str, peer: tuple[str, threading.Semaphore]) -> None:
    pulled = site.dav("COPY", f"{folder}/cut", Source=f"{peer[0]}/cut")
    assert (pulled.status_code, pulled.text) == (202, "")
    deadline = time.monotonic() + 20
    while (size := site.size(f"/localfs{folder}/cut")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert size == 1000, "a stub"


def test_tpc_pull_ends_with_its_client(site: Raw, folder: str, peer: tuple[str, threading.Semaphore]) -> None:
    host, port = site.cloud.http_url.rpartition("/")[2].split(":")
    head = f"COPY /remote.php/webdav{folder}/file HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Source: {peer[0]}/slow\r\n\r\n".encode())
        assert not peer[1].acquire(timeout=0.5), "the source is being read"
    assert peer[1].acquire(timeout=20), "the connection to the source has ended, too"
    deadline = time.monotonic() + 20
    while (size := site.size(f"/localfs{folder}/file")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert size in range(1000, 5000), "a stub"


@pytest.mark.parametrize("status", [200, 201, 204, 401, 403, 500, 507])
def test_tpc_push_says_success_whatever_the_destination_says(
    site: Raw, peer: tuple[str, threading.Semaphore], status: int
) -> None:
    assert site.dav("PUT", f"/pushed-{status}", b"hello").status_code == 201
    pushed = site.dav("COPY", f"/pushed-{status}", Destination=f"{peer[0]}/{status}")
    assert (pushed.status_code, pushed.text) == (202, "success: Created")


def test_tpc_push_to_a_destination_that_breaks_off(
    site: Raw, folder: str, peer: tuple[str, threading.Semaphore]
) -> None:
    assert site.dav("PUT", f"{folder}/file", b"hello").status_code == 201
    pushed = site.dav("COPY", f"{folder}/file", Destination=f"{peer[0]}/cut")
    assert (pushed.status_code, pushed.text) == (202, "")
    assert site.size(f"/localfs{folder}/file") == 5
