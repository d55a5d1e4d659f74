"""A gateway that says what a test wants it to say in place of a cloud's answers, and an HTTP server that says anything.

Both stand between the client and a cloud under test, whichever it is: what is not altered is the cloud's own.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2
from google.protobuf import message_factory

from rucio_cs3.cs3.channel import LISTING_MAX_BYTES
from tests.contract.place import Cloud
from tests.listening import Listening, read_head

_METHODS = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"].methods_by_name

#: Gets a method's answer; what it gives is sent, a message or bytes.
Alter = Callable[[Any], Any]


class HostileGateway(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC carries no types
    """Passes calls on to the gateway of a cloud, and alters the answers to some methods."""

    def __init__(self, cloud: Cloud) -> None:
        size = LISTING_MAX_BYTES * 2
        self._channel = grpc.insecure_channel(cloud.gateway, options=[("grpc.max_receive_message_length", size)])
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8),
            handlers=(self,),
            options=[("grpc.so_reuseport", 0), ("grpc.max_send_message_length", size)],
        )
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        #: Method -> what alters its answers.
        self.alter: dict[str, Alter] = {}
        #: Methods that were called, in order.
        self.calls: list[str] = []

    def __enter__(self) -> HostileGateway:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        name = path.rpartition("/")[2]

        def answer(request: bytes, context: Any) -> bytes:
            self.calls.append(name)
            metadata = [(key, value) for key, value in context.invocation_metadata() if key == "x-access-token"]
            try:
                whole: bytes = self._channel.unary_unary(path)(
                    request, timeout=context.time_remaining(), metadata=metadata
                )
            except grpc.RpcError as exc:
                failed: Any = exc
                context.abort(failed.code(), failed.details())
            if name not in self.alter:
                return whole
            message = message_factory.GetMessageClass(_METHODS[name].output_type).FromString(whole)
            altered = self.alter[name](message)
            return altered if isinstance(altered, bytes) else bytes(altered.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)

    def lead(self, url: str) -> None:
        """Make all tickets name this URL."""

        def lead(response: Any) -> Any:
            for offer in response.protocols:
                for key in ("upload_endpoint", "download_endpoint"):
                    if hasattr(offer, key):
                        setattr(offer, key, url)
            return response

        self.alter["InitiateFileUpload"] = self.alter["InitiateFileDownload"] = lead


#: Gets a connection and the head of a request on it, as text; the connection is closed when it returns.
Script = Callable[[socket.socket, str], None]


def says(data: bytes) -> Script:
    """Always the same, and then the end."""
    return lambda connection, _: connection.sendall(data)


_says_nothing = says(b"")


class HostileServer(Listening):
    """Says to each request what a script says."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        #: Heads of all requests.
        self.heads: list[str] = []
        self.script = script
        #: Bytes that were sent by :meth:`endless`.
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.port}/data"

    def serve(self, connection: socket.socket, number: int) -> None:
        request = read_head(connection)
        if request is not None:
            self.heads.append(request[0])
            self.script(connection, request[0])

    def endless(self, begin: bytes, more: bytes, *, pause_s: float = 0.0) -> Script:
        """Says something, and then something else for ever."""

        def script(connection: socket.socket, _: str) -> None:
            connection.sendall(begin)
            while not self.over.wait(pause_s):
                connection.sendall(more)
                self.sent += len(more)

        return script


@contextlib.contextmanager
def hostile_server(script: Script = _says_nothing) -> Iterator[HostileServer]:
    with HostileServer(script) as server:
        yield server
