"""A real Reva behind two relays that act the same fault scripts as the embedded clouds.

The client under test is unchanged and talks to the relays: one for gRPC, which passes messages on as bytes and
writes the HTTP relay's address into tickets, and one for HTTP (``http_relay.py``). What no relay can do to a server
from outside (checksums that Reva does not have, its own inner requests) is refused when the script is added.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from google.protobuf import message_factory

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.cloud.faults import Fault, Faults
from rucio_cs3.sandbox.cloud.rpc import lead
from rucio_cs3.sandbox.cloud.traffic import Traffic
from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from rucio_cs3.sandbox.reva import RevaSite, User
from tests.contract.http_relay import HTTPRelay, Tokens, Witness

_SERVICE = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"]
_POLL_S = 0.05
_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    # As large as what the client under test takes.
    ("grpc.max_receive_message_length", -1),
    # A Reva that was started again is found again as soon as by the client itself.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]

_REFUSED = {
    "sink": "what Reva is sent it stores",
    "wrong-checksum": "the local driver of Reva v3.12.1 gives no checksums that could be wrong",
    "say": "what Reva writes into its report is Reva's",
}


class FaultyReva(Startable):
    """The surface of a sandbox cloud: a running Reva site, with fault scripts.

    An embedded cloud can be behind the relays, too: for what only they can do, such as the witness.

    :param site: started already, and stopped by its owner.
    """

    def __init__(self, site: RevaSite | EmbeddedCloud) -> None:
        self.site = site
        self.name = site.name
        self.root = site.root
        self.tls = self.gateway_tls = False
        self.ca_bundle: Path | None = None
        self.faults = Faults(refused=_REFUSED)
        self.traffic = Traffic()
        #: Told of all that passes.
        self.witness = Witness()
        #: Another secret that every login is sent with; None leaves them as they are.
        self.password: str | None = None
        self.tokens = Tokens(site.aged_token)
        self._stopping = threading.Event()
        self._http = HTTPRelay(
            site.http_url, self.faults, self.traffic, self.tokens, self._stopping, lambda: self.witness
        )
        self._gateway = _GatewayRelay(self, self._stopping, self._http.address)

    @property
    def gateway(self) -> str:
        return self._gateway.address

    @property
    def webdav_url(self) -> str:
        return urlsplit(self.site.webdav_url)._replace(netloc=self._http.address).geturl()

    @property
    def users(self) -> dict[str, User]:
        return self.site.users

    @property
    def data_directory(self) -> Path:
        return self.site.data_directory

    def path_on_disk(self, relative: str) -> Path:
        return self.site.path_on_disk(relative)

    @property
    def log(self) -> Path | None:
        return self.site.log

    def start(self) -> None:
        self._http.start()
        self._gateway.start()

    def stop(self) -> None:
        self._stopping.set()
        self._gateway.stop()
        self._http.stop()


class _GatewayRelay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes unary calls on to the site's gateway."""

    def __init__(self, owner: FaultyReva, stopping: threading.Event, http_address: str) -> None:
        self._owner = owner
        self._faults = owner.faults
        self._tokens = owner.tokens
        self._stopping = stopping
        self._http_address = http_address
        self._channel = grpc.insecure_channel(owner.site.gateway, options=_CHANNEL_OPTIONS)
        self._server = grpc.server(futures.ThreadPoolExecutor(16), handlers=(self,), options=[("grpc.so_reuseport", 0)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        def relay(request: bytes, context: Any) -> bytes:
            return self._relay(method, request, context)

        return grpc.unary_unary_rpc_method_handler(relay)

    def _relay(self, method: str, request: bytes, context: Any) -> bytes:
        name = method.rpartition("/")[2]
        response_class: Any = message_factory.GetMessageClass(_SERVICE.methods_by_name[name].output_type)
        metadata = dict(context.invocation_metadata())
        self._owner.witness.came(f"gateway.{name}", metadata)
        self._owner.witness.passes(f"gateway.{name}", "before")
        fault = self._faults.take(f"gateway.{name}")
        if fault is not None and fault.kind == "code":
            return self._status(response_class, fault)
        if fault is not None:
            self._act_before(fault, context)
        token = metadata.get("x-access-token", "")
        if name in ("WhoAmI", "Authenticate"):
            request = self._as_seen(name, request)
        try:
            answer: bytes = self._channel.unary_unary(method)(
                request,
                timeout=context.time_remaining(),
                metadata=[("x-access-token", self._tokens.as_seen(token))] if token else [],
            )
        except grpc.RpcError as exc:
            failed: Any = exc
            context.abort(failed.code(), failed.details())
        if fault is not None and fault.kind == "lost-answer":
            context.abort(grpc.StatusCode.UNAVAILABLE, "a scripted fault: the answer got lost")
        self._owner.witness.passes(f"gateway.{name}", "after")
        response = response_class.FromString(answer)
        if name == "Authenticate" and response.token:
            self._tokens.issued(response.token)
        for protocol in getattr(response, "protocols", ()):
            self._tokens.offered(protocol.token)
        nowhere = fault is not None and fault.kind == "nowhere"
        lead(response, f"{LOOPBACK}:{free_port()}" if nowhere else self._http_address)
        return bytes(response.SerializeToString())

    def _as_seen(self, name: str, request: bytes) -> bytes:
        """A request that has a secret in itself."""
        request_class: Any = message_factory.GetMessageClass(_SERVICE.methods_by_name[name].input_type)
        message = request_class.FromString(request)
        if name == "WhoAmI":
            message.token = self._tokens.as_seen(message.token)
        elif self._owner.password is not None:
            message.client_secret = self._owner.password
        return bytes(message.SerializeToString())

    @staticmethod
    def _status(response_class: Any, fault: Fault) -> bytes:
        code = code_pb2.Code.Value(f"CODE_{fault.name.removeprefix('CODE_')}")
        response = response_class(status=status_pb2.Status(code=code, message="a scripted fault"))
        return bytes(response.SerializeToString())

    def _act_before(self, fault: Fault, context: Any) -> None:
        if fault.kind == "expire-token":
            self._tokens.expire_all()
        elif fault.kind == "grpc":
            context.abort(grpc.StatusCode[fault.name], "a scripted fault")
        elif fault.kind == "stall":
            while context.is_active() and not self._stopping.wait(_POLL_S):
                pass
            context.abort(grpc.StatusCode.CANCELLED, "a scripted fault: nobody waits any more")


@contextlib.contextmanager
def behind_relays(request: pytest.FixtureRequest) -> Iterator[FaultyReva]:
    """The cloud that a fixture's parameter names, ``reva`` or a :class:`Behaviour`, behind relays."""
    if request.param == "reva":
        with FaultyReva(request.getfixturevalue("reva_sites")[0]) as cloud:
            yield cloud
    else:
        with (
            EmbeddedCloud(name="relayed", behaviour=Behaviour(request.param)) as site,
            FaultyReva(site) as cloud,
        ):
            yield cloud
