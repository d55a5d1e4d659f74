"""Requests under way that another thread breaks, because the process is about to end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from rucio_cs3.cs3 import Endpoint, WebDAVBase, errors
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.reference import MountRoot


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("body", [None, b"x" * 50_000_000], ids=["waiting for an answer", "sending"])
def test_whoever_waits_for_a_silent_server_waits_no_longer(silent: socket.socket, body: bytes | None) -> None:
    port = silent.getsockname()[1]
    webdav = WebDAVBase.parse(f"http://127.0.0.1:{port}/remote.php/webdav", MountRoot("/"))
    client = HTTPClient(Endpoint(name="silent", gateway="127.0.0.1:1", gateway_tls=False, webdav=webdav))
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            with client.request("PUT", f"http://127.0.0.1:{port}/x", headers={}, target="x", body=body):
                pass
        except errors.CS3Error as error:
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    connection, _ = silent.accept()
    with connection:
        assert connection.recv(4)  # it is under way
        client.break_off()
        thread.join(20)
    assert [type(failure) for failure in failures] == [errors.TransferInterrupted]
    client.break_off()  # nothing to break
    client.close()
