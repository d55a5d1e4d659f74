"""The peers that are Python: ours, Rucio's own protocols, cs3client, and a bare gRPC stub."""

from __future__ import annotations

import http.client
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from peers import Operation, Peer, Site, Task


class Storage(Peer):
    """What the protocol calls; the data path of this package and nothing around it."""

    label = "rucio_cs3, CS3Storage"

    def open(self) -> None:
        from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, parse_root

        root = parse_root(self.site.root)
        endpoint = Endpoint(
            name="benchmark",
            gateway=self.site.gateway,
            gateway_tls=False,
            webdav=WebDAVBase.parse(self.site.webdav_url, root=root),
        )
        self._storage = CS3Storage(endpoint, BasicProvider(self.site.username, Secret(self.site.password)))
        self._storage.access_token()
        self._reference: Callable[[Task], Any] = lambda task: Reference(root, task.name)

    def close(self) -> None:
        self._storage.close()

    def put(self, task: Task) -> None:
        self._storage.upload(Path(task.local_path), self._reference(task))

    def get(self, task: Task) -> None:
        self._storage.download(self._reference(task), Path(task.local_path))

    def stat(self, task: Task) -> None:
        self._storage.stat(self._reference(task))


class BareCalls(Peer):
    """The requests that ours sends for a small file, in its order, by the generated gRPC stub and Python's HTTP client,
    and nothing else: what the server takes, and no client that gives a file its name only when it has arrived can beat.
    """

    label = "the bare calls, nothing verified"
    operations = ("put", "get", "stat")
    largest = 4096

    def open(self) -> None:
        import grpc
        from cs3.gateway.v1beta1 import gateway_api_pb2_grpc
        from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

        self._channel = grpc.insecure_channel(self.site.gateway, options=[("grpc.enable_http_proxy", 0)])
        self._stub = gateway_api_pb2_grpc.GatewayAPIStub(self._channel)
        self._messages: Any = provider_api_pb2
        self._reference: Callable[[str], Any] = lambda name: resources_pb2.Reference(path=f"{self.site.root}/{name}")
        self._with = {"timeout": 30, "metadata": [("x-access-token", self.site.token)]}
        # As a client does that has logged in: the connection is there.
        grpc.channel_ready_future(self._channel).result(timeout=10)
        self._mine = threading.local()

    def close(self) -> None:
        self._channel.close()

    def put(self, task: Task) -> None:
        hidden = self._reference(f"{task.name}.arriving")
        request = self._messages.InitiateFileUploadRequest(ref=hidden)
        request.opaque.map["Upload-Length"].decoder = "plain"
        request.opaque.map["Upload-Length"].value = str(task.size).encode()
        ticket = self._ticket(self._stub.InitiateFileUpload(request, **self._with))
        self._exchange("PUT", ticket.upload_endpoint, ticket.token, Path(task.local_path).read_bytes())
        looks = [
            self._stub.Stat.future(self._messages.StatRequest(ref=ref), **self._with)
            for ref in (hidden, self._reference(task.name))
        ]
        for look in looks:
            look.result()
        request = self._messages.MoveRequest(source=hidden, destination=self._reference(task.name))
        self._fine(self._stub.Move(request, **self._with))

    def get(self, task: Task) -> None:
        ref = self._reference(task.name)
        look = self._stub.Stat.future(self._messages.StatRequest(ref=ref), **self._with)
        answer = self._stub.InitiateFileDownload(self._messages.InitiateFileDownloadRequest(ref=ref), **self._with)
        ticket = self._ticket(answer)
        self._fine(look.result())
        Path(task.local_path).write_bytes(self._exchange("GET", ticket.download_endpoint, ticket.token))

    def stat(self, task: Task) -> None:
        answer = self._stub.Stat(self._messages.StatRequest(ref=self._reference(task.name)), **self._with)
        if answer.info.size != task.size:
            raise RuntimeError(answer.status.message)

    def _ticket(self, answer: Any) -> Any:
        self._fine(answer)
        return next(one for one in answer.protocols if one.protocol == "simple")

    def _fine(self, answer: Any) -> None:
        if answer.status.code != 1:
            raise RuntimeError(answer.status.message)

    def _exchange(self, method: str, url: str, token: str, body: bytes | None = None) -> bytes:
        parts = urlsplit(url)
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        headers = {"X-Reva-Transfer": token, "X-Access-Token": self.site.token}
        self._mine.connection.request(method, f"{parts.path}?{parts.query}", body, headers)
        answer = self._mine.connection.getresponse()
        content: bytes = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"HTTP {answer.status}")
        return content


class _RucioPeer(Peer):
    """An RSE protocol of Rucio's kind, made as Rucio makes it; an object for each thread, as its daemons have."""

    operations: ClassVar[tuple[Operation, ...]] = ("put", "get", "stat", "upload")
    impl: ClassVar[str]
    scheme: ClassVar[str]
    #: Whether Rucio looks at what it has uploaded: not where the RSE's attribute ``skip_upload_stat`` is set.
    upload_stat: ClassVar[bool] = True
    #: Settings of this package's protocol.
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: list[Any] = []

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("rucio") else "no Rucio in this environment"

    def open(self) -> None:
        # Rucio decides at the import of its RSE code whether it is a client or a server.
        os.environ["RUCIO_CLIENT_MODE"] = "1"
        self._protocol()

    def close(self) -> None:
        for protocol in self._all:
            protocol.close()

    def put(self, task: Task) -> None:
        self._protocol().put(task.local_path, self._pfn(task), None)

    def get(self, task: Task) -> None:
        self._protocol().get(self._pfn(task), task.local_path)

    def stat(self, task: Task) -> None:
        self._compare(self._protocol().stat(self.site.url(task.name, self.scheme)), task)

    def upload(self, task: Task) -> None:
        """What Rucio 41.5.1's uploadclient.py does with a storage for each file, with the checks that it makes."""
        protocol = self._new_protocol()
        pfn, temporary = self._pfn(task), f"{self._pfn(task)}.rucio.upload"
        if protocol.exists(pfn) or protocol.exists(temporary):
            raise RuntimeError("the name is taken")
        protocol.put(task.local_path, temporary, None)
        if self.upload_stat:
            self._compare(protocol.stat(self.site.url(f"{task.name}.rucio.upload", self.scheme)), task)
        protocol.rename(temporary, pfn)
        protocol.close()

    def _pfn(self, task: Task) -> str:
        return self.site.url(task.name, self.scheme)

    def _compare(self, found: dict[str, Any], task: Task) -> None:
        if int(found["filesize"]) != task.size:
            raise RuntimeError(f"{found['filesize']} bytes instead of {task.size}")

    def _connect(self, protocol: Any) -> None:
        protocol.connect()

    def _protocol(self) -> Any:
        """This thread's own, connected."""
        if not hasattr(self._mine, "protocol"):
            self._mine.protocol = self._new_protocol()
            self._all.append(self._mine.protocol)
        return self._mine.protocol

    def _new_protocol(self) -> Any:
        from rucio.rse import rsemanager

        # Rucio loads protocols by name; one at a time, so that threads do not import in each other's way.
        with self._lock:
            protocol = rsemanager.create_protocol(self._rse(), "write", auth_token=self.site.token)
        self._connect(protocol)
        return protocol

    def _rse(self) -> dict[str, Any]:
        url = urlsplit(self.site.webdav_url)
        operations = ("read", "write", "delete", "third_party_copy_read", "third_party_copy_write")
        protocol = {
            "scheme": self.scheme,
            "hostname": url.hostname,
            "port": url.port,
            "prefix": f"{url.path}/",
            "impl": self.impl,
            "extended_attributes": {
                "cs3_gateway": self.site.gateway,
                "cs3_gateway_tls": False,
                "cs3_root": self.site.root,
                **self.settings,
            },
            "domains": {domain: dict.fromkeys(operations, 1) for domain in ("lan", "wan")},
        }
        return {
            "id": "0",
            "rse": "BENCHMARK",
            "protocols": [protocol],
            "verify_checksum": True,
            "deterministic": True,
            "lfn2pfn_algorithm": "hash",
            "sign_url": None,
        }


class Protocol(_RucioPeer):
    """This package as Rucio uses it, with no read-back where the server keeps no checksum."""

    label = "rucio_cs3, Rucio protocol"
    impl = "rucio_cs3.protocol.Default"
    scheme = "http"
    # As docs/rse-setup.md sets it: the protocol has looked before it says that it is done.
    upload_stat = False
    settings: ClassVar[dict[str, Any]] = {"cs3_proof": "server"}

    def open(self) -> None:
        os.environ["RUCIO_CLIENT_MODE"] = "1"
        from rucio_cs3 import rses

        # There is no Rucio to ask for the RSE's attributes; a client asks once in minutes.
        rses.rse_attributes = lambda rse_settings: {}
        super().open()

    def _connect(self, protocol: Any) -> None:
        protocol.connect({"username": self.site.username, "password": self.site.password})


class ProtocolReadingBack(Protocol):
    """The same as it is without settings: what the server keeps no checksum of is read back and compared."""

    label = "rucio_cs3, Rucio protocol, reads back"
    operations = ("put", "upload")
    settings: ClassVar[dict[str, Any]] = {"cs3_proof": "read"}


class RucioWebDAV(_RucioPeer):
    label = "Rucio's webdav protocol"
    speaks = "WebDAV"
    impl = "rucio.rse.protocols.webdav.Default"
    scheme = "http"

    def _pfn(self, task: Task) -> str:
        # Its path2pfn takes "https…" as it is, and puts scheme and host before everything else.
        return task.name


class RucioGfal(_RucioPeer):
    label = "Rucio's gfal protocol"
    speaks = "WebDAV"
    impl = "rucio.rse.protocols.gfal.Default"
    scheme = "dav"

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (None if _gfal2() else "no gfal2 for this version of Python")

    def open(self) -> None:
        found = _gfal2()
        if found is None:
            raise RuntimeError("gfal2 is gone")
        # The one module, and nothing else of the system's packages, which may not fit to ours.
        spec = importlib.util.spec_from_file_location("gfal2", found)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{found} is no module")
        sys.modules["gfal2"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["gfal2"])
        super().open()


def _gfal2() -> str | None:
    """The file of the system's gfal2 bindings, where this Python can load it."""
    if spec := importlib.util.find_spec("gfal2"):
        return spec.origin
    try:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", "import gfal2; print(gfal2.__file__)"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    path = done.stdout.strip()
    return path if path.endswith(importlib.machinery.EXTENSION_SUFFIXES[0]) else None


class CS3Client(Peer):
    """The CS3 community's own client. Its upload takes the content of a file as one object."""

    label = "cs3client"
    environment = "cs3client"

    def open(self) -> None:
        import configparser
        import logging

        from cs3client.auth import Auth
        from cs3client.cs3client import CS3Client as Client
        from cs3client.cs3resource import Resource

        configuration = configparser.ConfigParser()
        configuration["cs3client"] = {
            "host": self.site.gateway,
            "auth_login_type": "basic",
            "auth_client_id": self.site.username,
        }
        # It logs headers with tokens at INFO.
        log = logging.getLogger("cs3client")
        log.setLevel(logging.CRITICAL + 1)
        client = Client(configuration, "cs3client", log)
        auth = Auth(client)
        auth.set_client_secret(self.site.password)
        self._token = auth.get_token()
        self._file = client.file
        self._resource: Callable[[Task], Any] = lambda task: Resource(abs_path=f"{self.site.root}/{task.name}")

    def put(self, task: Task) -> None:
        content = Path(task.local_path).read_bytes()
        self._file.write_file(self._token, self._resource(task), content, task.size)

    def get(self, task: Task) -> None:
        with Path(task.local_path).open("wb") as file:
            for piece in self._file.read_file(self._token, self._resource(task)):
                file.write(piece)

    def stat(self, task: Task) -> None:
        self._file.stat(self._token, self._resource(task))
