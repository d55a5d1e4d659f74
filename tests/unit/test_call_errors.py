"""Who it is that takes no larger answer: the client, or the server's own services among each other."""

from __future__ import annotations

import grpc
import pytest

from rucio_cs3.cs3 import Endpoint, WebDAVBase, errors
from rucio_cs3.cs3.call_errors import of_rpc


class Failed(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

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
