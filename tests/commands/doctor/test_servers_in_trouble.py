"""``rucio-cs3 doctor`` at servers that are silent, refuse, or lie: it ends, and names what failed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from rucio_cs3.doctor import subjects
from rucio_cs3.sandbox.cloud import Behaviour
from rucio_cs3.sandbox.ports import LOOPBACK
from tests.commands.clouds import CommandPlace
from tests.commands.doctor.seen import FOREVER, doctor, leftovers


def test_a_silent_rucio_ends_it(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = threading.Event()
    monkeypatch.setattr("rucio_cs3.cli.doctor._FIND_S", 0.05)
    monkeypatch.setattr(subjects, "_of_rse", lambda name: spoken.wait(60))
    done = one_site.run("doctor", "CERNBOX")
    spoken.set()
    assert (done.code, done.out) == (1, "")
    assert "Rucio has not answered within" in done.err


def test_a_silent_gateway_ends_it(one_site: CommandPlace, impatient: None) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        one_site.add_entry("SILENT", cs3_gateway=f"{LOOPBACK}:{silent.getsockname()[1]}")
        seen = doctor(one_site, name="SILENT")
    assert (seen.code, seen.having("broken")) == (4, {"gateway"})
    assert "silent" in seen["gateway"]["seen"]


def test_a_gateway_that_wants_to_know_who_we_are(one_site: CommandPlace, tmp_path: Path, impatient: None) -> None:
    """TLS 1.3 tells only after the client's handshake is over."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=_refuse, args=(server, context), daemon=True)
        thread.start()
        address = f"{LOOPBACK}:{server.getsockname()[1]}"
        one_site.add_entry("ASKS", cs3_gateway=address, cs3_gateway_tls="true", cs3_ca_bundle=tmp_path / "ca.pem")
        seen = doctor(one_site, name="ASKS")
        thread.join(20)
    assert seen.having("broken") == {"gateway"}
    assert "wants another client certificate" in seen["gateway"]["seen"]
    assert "cs3_client_certificate" in seen["gateway"]["advice"]


def _refuse(server: socket.socket, context: ssl.SSLContext) -> None:
    """Take one connection, end it at its handshake, and wait for the other side to leave."""
    connection, _ = server.accept()
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
        with contextlib.suppress(ssl.SSLError):
            secured.do_handshake()
        # An end with something unread would be a reset, and that may overtake the reason.
        with contextlib.suppress(OSError):
            while socket.socket.recv(secured, 1000):
                pass


@pytest.mark.parametrize(
    ("point", "script", "row"),
    [
        ("gateway.Authenticate", "stall", "login"),
        ("gateway.Stat", "stall", "folder"),
        ("gateway.CreateContainer", "code:CODE_PERMISSION_DENIED", "probe folder"),
        ("data.put", "return-500", "upload"),
        ("data.put", "stall", "upload"),
        ("data.get", "flip-byte", "upload"),
        ("webdav.propfind", "return-401", "WebDAV folder"),
        ("gateway.GetQuota", "code:CODE_INTERNAL", "quota"),
    ],
)
def test_what_fails_is_named_and_nothing_stays(
    fresh: Callable[..., CommandPlace], impatient: None, point: str, script: str, row: str
) -> None:
    place = fresh()
    place.fault(point, script, FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    assert seen.code == (3 if row in ("WebDAV folder", "quota") else 4)
    assert row in seen.having("weak", "broken"), seen.document
    assert seen[row]["advice"]
    assert place.tree() == {}
    assert seen.document["left"] == []


def test_wrong_checksums_of_the_server(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh(behaviour=Behaviour.SPACES)
    place.fault("gateway.Stat", "wrong-checksum", FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    # The upload finds out first.
    assert seen["upload"]["status"] == "broken"
    assert "but the server says" in seen["upload"]["seen"]
    assert leftovers(place) == []


@pytest.mark.parametrize("trouble", ["grpc:UNAVAILABLE", "code:CODE_UNAUTHENTICATED", "code:CODE_RESOURCE_EXHAUSTED"])
def test_trouble_on_the_way_is_no_fact_about_the_server(
    fresh: Callable[..., CommandPlace], impatient: None, trouble: str
) -> None:
    place = fresh(behaviour=Behaviour.SPACES)
    for point in ("gateway.SetLock", "gateway.SetArbitraryMetadata"):
        place.fault(point, trouble, FOREVER)
    seen = doctor(place)
    assert {"locks", "metadata"} <= seen.having("weak"), seen.document
    assert seen.code == 3
    place.cloud.faults.clear()
    for point in ("gateway.SetLock", "gateway.SetArbitraryMetadata"):
        place.fault(point, "code:CODE_INTERNAL", FOREVER)
    seen = doctor(place)
    assert {"locks", "metadata"} <= seen.having("note"), seen.document
