"""What an RPC that brought no answer means: who takes no larger one, and who is no gateway at all."""

from __future__ import annotations

import grpc
import pytest

from rucio_cs3.cs3 import Endpoint, WebDAVBase, errors
from rucio_cs3.cs3.call_errors import of_rpc


class Failed(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, details: str, code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED) -> None:
        self._details = details
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


ENDPOINT = Endpoint(
    name="A", gateway="cloud.example:443", webdav=WebDAVBase.parse("https://cloud.example/remote.php/webdav")
)


@pytest.mark.parametrize(
    ("details", "words"),
    [
        # Reva v3.12.1, of a folder of 50,000 entries.
        ("grpc: received message larger than max (19550113 vs. 10240000)", "the 10.2 MB that the server itself"),
        ("CLIENT: Received message larger than max (999999999 vs. 167772160)", "larger than 160 MiB"),
        ("message too large", "larger than 160 MiB"),
        ("message (1 vs. 99999999999999999999999)", "larger than 160 MiB"),
    ],
)
def test_whose_limit_it_is(details: str, words: str) -> None:
    error = of_rpc(Failed(details), ENDPOINT, "ListContainer", "/eos/large", 5.0, (), lambda: None)
    assert isinstance(error, errors.Throttled)
    assert words in str(error)
    assert "fewer entries" in str(error)
    assert error.retryable is False


@pytest.mark.parametrize(
    ("number", "code"),
    [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "UNIMPLEMENTED"), (400, "INTERNAL"), (302, "UNKNOWN")],
)
def test_a_web_server_says_nothing_of_logins_and_files(number: int, code: str) -> None:
    """gRPC makes a status of the number of HTTP (doc/http-grpc-status-mapping.md of grpc)."""
    details = f"Received http2 header with status: {number}"
    error = of_rpc(Failed(details, grpc.StatusCode[code]), ENDPOINT, "Authenticate", "me", 5.0, (), lambda: None)
    assert type(error) is errors.Unavailable
    assert "a web server" in str(error)
    assert "cs3_gateway" in str(error)
    assert error.retryable is False
    # Nobody is at home behind a proxy: that passes.
    away = of_rpc(
        Failed("Received http2 header with status: 503", grpc.StatusCode.UNAVAILABLE),
        ENDPOINT, "Stat", "/x", 5.0, (), lambda: None,
    )  # fmt: skip
    assert (type(away), away.retryable) == (errors.Unavailable, True)
