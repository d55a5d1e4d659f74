"""What a gateway's answers mean where no server has to be: scripted stubs in place of gRPC's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import BasicProvider, Endpoint, Reference, Secret, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.gateway import Gateway

TOKEN = "header.claims.signature-4711"
PASSWORD = "hunter2-0815"
OK = status_pb2.Status(code=code_pb2.CODE_OK)

CERNBOX = Endpoint(
    name="CLOUD",
    gateway="127.0.0.1:1",
    gateway_tls=False,
    webdav=WebDAVBase.parse("http://127.0.0.1:1/remote.php/webdav", parse_root("/localfs")),
)
OPENCLOUD = replace(CERNBOX, webdav=WebDAVBase.parse("http://127.0.0.1:1/dav/spaces/a-b$c-d"))


class Refused(grpc.RpcError):  # type: ignore[misc]  # gRPC carries no types
    """As a server's interceptor raises it."""

    def __init__(self, status: grpc.StatusCode, details: str) -> None:
        self._status, self._details = status, details

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._details


class Stub:
    """Answers as a living server does; ``stat`` says what to a token."""

    def __init__(self, stat: Callable[[str], provider_api_pb2.StatResponse]) -> None:
        self._stat = stat
        self.calls: list[str] = []

    def Authenticate(self, request: Any, **_: Any) -> gateway_api_pb2.AuthenticateResponse:  # noqa: N802
        self.calls.append("Authenticate")
        return gateway_api_pb2.AuthenticateResponse(status=OK, token=TOKEN)

    def WhoAmI(self, request: Any, **_: Any) -> gateway_api_pb2.WhoAmIResponse:  # noqa: N802
        self.calls.append("WhoAmI")
        return gateway_api_pb2.WhoAmIResponse(status=OK)

    def Stat(self, request: Any, *, metadata: list[tuple[str, str]], **_: Any) -> provider_api_pb2.StatResponse:  # noqa: N802
        self.calls.append("Stat")
        return self._stat(dict(metadata)["x-access-token"])


def saying(code: code_pb2.Code.ValueType, message: str = "") -> provider_api_pb2.StatResponse:
    return provider_api_pb2.StatResponse(status=status_pb2.Status(code=code, message=message))


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Endpoint, Stub], Gateway]]:
    made: list[Gateway] = []

    def make(endpoint: Endpoint, stub: Stub) -> Gateway:
        gateway = Gateway(endpoint, BasicProvider("me", Secret(PASSWORD)))
        monkeypatch.setattr(gateway._channel, "stub", lambda: stub)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.close()


def _in_status(token: str) -> provider_api_pb2.StatResponse:
    return saying(code_pb2.CODE_INVALID_ARGUMENT, f"bad request with token {token} and some more")


def _in_details(token: str) -> provider_api_pb2.StatResponse:
    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"bad request with token {token} and some more")


@pytest.mark.parametrize("stat", [_in_status, _in_details])
def test_a_token_that_a_server_repeats_is_hidden(
    make: Callable[[Endpoint, Stub], Gateway], stat: Callable[[str], provider_api_pb2.StatResponse]
) -> None:
    gateway = make(CERNBOX, Stub(stat))
    with pytest.raises(errors.InvalidRequest, match=r"bad request with token \*\*\* and some more") as caught:
        gateway.stat(Reference(CERNBOX.root, "f"))
    assert "4711" not in repr(vars(caught.value))


def test_a_password_that_a_server_repeats_is_hidden(make: Callable[[Endpoint, Stub], Gateway]) -> None:
    class Repeating(Stub):
        def Authenticate(self, request: Any, **_: Any) -> gateway_api_pb2.AuthenticateResponse:  # noqa: N802
            status = status_pb2.Status(code=code_pb2.CODE_UNIMPLEMENTED, message=f"no {request.client_secret}")
            return gateway_api_pb2.AuthenticateResponse(status=status)

    gateway = make(CERNBOX, Repeating(_in_status))
    with pytest.raises(errors.Unsupported, match=r"no \*\*\*") as caught:
        gateway.tokens.get()
    assert "0815" not in str(caught.value)


def _nothing_there(token: str) -> provider_api_pb2.StatResponse:
    if token != TOKEN:
        # Of Reva v3.12.1's interceptor, or of a proxy before an OpenCloud.
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
    return saying(code_pb2.CODE_NOT_FOUND)


def test_where_forged_tokens_are_refused_at_the_door_a_not_found_is_believed(
    make: Callable[[Endpoint, Stub], Gateway],
) -> None:
    stub = Stub(_nothing_there)
    gateway = make(CERNBOX, stub)
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            gateway.stat(Reference(CERNBOX.root, "f"))
    assert stub.calls == ["Authenticate", "Stat", "Stat", "Stat"]


def test_at_an_opencloud_that_proves_nothing(make: Callable[[Endpoint, Stub], Gateway]) -> None:
    """A proxy that refuses forged tokens may let expired ones pass for a while; OpenCloud says NOT_FOUND to them."""
    stub = Stub(_nothing_there)
    gateway = make(OPENCLOUD, stub)
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            gateway.stat(Reference(OPENCLOUD.root, "f"))
    assert stub.calls == ["Authenticate", "Stat", "WhoAmI", "Stat", "WhoAmI"]


def _refusing(token: str) -> provider_api_pb2.StatResponse:
    raise Refused(grpc.StatusCode.UNAUTHENTICATED, f"no such token: {token}")


def test_a_gateway_that_refuses_each_token_says_whose(make: Callable[[Endpoint, Stub], Gateway]) -> None:
    """An app password without a scope, say: the login succeeds, and its token can do nothing."""
    stub = Stub(_refusing)
    with pytest.raises(errors.Unauthenticated) as caught:
        make(CERNBOX, stub).stat(Reference(CERNBOX.root, "f"))
    for word in ("CLOUD", CERNBOX.gateway, "does not accept the access token of me (basic)", "no such token: ***"):
        assert word in str(caught.value)
    assert stub.calls == ["Authenticate", "Stat"] * 2
    assert "4711" not in repr(vars(caught.value))
