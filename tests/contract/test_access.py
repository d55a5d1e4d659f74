"""C5xx: who we are, and whether the cloud can be reached at all."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.downloads.ranges import FRUITLESS_MAX
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.ports import free_port
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.place import SHORT_S, TIMEOUTS, Place, content

MIB = 1024 * 1024


def test_c501_a_wrong_password(place: Place) -> None:
    user = next(iter(place.cloud.users))
    storage = place.another(BasicProvider(user, Secret("wrong-password-4711")))
    with pytest.raises(errors.Unauthenticated, match="refuses to log in") as caught:
        storage.stat(place.folder)
    assert user in str(caught.value)
    assert place.cloud.gateway in str(caught.value)
    assert "4711" not in str(caught.value)


def test_c502_an_unknown_user(place: Place) -> None:
    storage = place.another(BasicProvider("nobody", Secret("wrong-password-4711")))
    with pytest.raises(errors.Unauthenticated, match="refuses to log in nobody") as caught:
        storage.exists(place.folder)
    assert place.cloud.gateway in str(caught.value)
    assert "4711" not in str(caught.value)


def test_c503_nothing_listens(place: Place) -> None:
    gateway = f"127.0.0.1:{free_port()}"
    storage = place.another(gateway=gateway)
    with pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        storage.stat(place.folder)
    assert gateway in str(caught.value)


def test_c504_an_unknown_host(place: Place) -> None:
    storage = place.another(gateway="name.invalid:9142", allow_plaintext=True)
    with pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        storage.stat(place.folder)
    assert "name.invalid:9142" in str(caught.value)


def test_c505_the_gateway_is_an_http_server(place: Place) -> None:
    webdav = place.storage.endpoint.webdav
    gateway = f"{webdav.host}:{webdav.port}"
    with pytest.raises(errors.CS3Error) as caught:
        place.another(gateway=gateway).stat(place.folder)
    assert isinstance(caught.value, errors.Unavailable | errors.ServerFault | errors.DeadlineExceeded)
    assert gateway in str(caught.value)


def test_c506_tls_is_spoken_to_a_plaintext_gateway(place: Place) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"speaks no TLS .*cs3_gateway_tls") as caught:
        place.another(gateway_tls=True).stat(place.folder)
    assert place.cloud.gateway in str(caught.value)


@pytest.fixture
def tls_gateway() -> Iterator[tuple[str, trustme.CA]]:
    """A gRPC server that speaks TLS only and knows no method."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", authority
    server.stop(None).wait()


def test_c507_plaintext_is_spoken_to_a_tls_gateway(place: Place, tls_gateway: tuple[str, trustme.CA]) -> None:
    with pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        place.another(gateway=tls_gateway[0]).stat(place.folder)
    assert tls_gateway[0] in str(caught.value)


def test_c508_a_gateway_with_an_unknown_authority(place: Place, tls_gateway: tuple[str, trustme.CA]) -> None:
    address, authority = tls_gateway
    with pytest.raises(errors.ConfigurationError, match=r"TLS .* failed: .*cs3_ca_bundle") as caught:
        place.another(gateway=address, gateway_tls=True).stat(place.folder)
    assert address in str(caught.value)
    ca_bundle = place.local / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_bundle))
    # With the authority it is reached, and says that it knows no such method.
    with pytest.raises(errors.Unsupported):
        place.another(gateway=address, gateway_tls=True, ca_bundle=ca_bundle).stat(place.folder)


OPERATIONS: dict[str, tuple[str, Callable[[CS3Storage, Place], object]]] = {
    "stat": ("gateway.Stat", lambda storage, place: storage.stat(place.file("file"))),
    "list": ("gateway.ListContainer", lambda storage, place: storage.list(place.folder)),
    "quota": ("gateway.GetQuota", lambda storage, place: storage.quota(place.folder)),
    "make": ("gateway.CreateContainer", lambda storage, place: storage.make_directories(place.file("new"))),
    "move": ("gateway.Move", lambda storage, place: storage.move(place.file("file"), place.file("moved"))),
    "delete": ("gateway.Delete", lambda storage, place: storage.delete(place.file("file"))),
    "ticket": (
        "gateway.InitiateFileDownload",
        lambda storage, place: storage.download(place.file("file"), place.local / "back"),
    ),
    "download": ("data.get", lambda storage, place: storage.download(place.file("file"), place.local / "back")),
    "upload-ticket": (
        "gateway.InitiateFileUpload",
        lambda storage, place: storage.upload(place.local / "put.bin", place.file("new")),
    ),
    "upload": ("data.put", lambda storage, place: storage.upload(place.local / "put.bin", place.file("new"))),
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_c509_an_expired_token_is_renewed_unseen(place: Place, operation: str) -> None:
    data = content(2 * MIB)
    place.put("file", data)
    point, run = OPERATIONS[operation]
    place.storage.access_token()
    # A data gateway looks at the transfer token first; what it says to a dead access token is 401.
    place.fault(point, "return-401" if point.startswith("data.") else "expire-token")
    run(place.storage, place)
    assert place.pending() == []
    expected = {"make": ["file", "new"], "move": ["moved"], "delete": []}
    assert place.names() == expected.get(operation, ["file", "new"] if "upload" in operation else ["file"])
    if "upload" in operation:
        assert place.stored(place.file("new")) == data
    if (place.local / "back").exists():
        assert (place.local / "back").read_bytes() == data


@pytest.mark.parametrize("operation", ["stat", "delete", "list"])
def test_c510_a_refused_token_never_reads_as_not_found(place: Place, operation: str) -> None:
    place.put("file", b"x")
    storage = place.another()
    storage.exists(place.file("nothing"))
    point, run = OPERATIONS[operation]
    # The second token is dead on arrival, too.
    place.fault(point, "expire-token", times=2)
    with pytest.raises(errors.Unauthenticated) as caught:
        run(storage, place)
    assert place.cloud.gateway in str(caught.value)
    assert place.pending() == []
    assert place.names() == ["file"]


def test_c511_a_short_outage_is_survived(place: Place) -> None:
    file = place.put("file", b"x")
    place.fault("gateway.Stat", "grpc:UNAVAILABLE", times=2)
    assert place.storage.stat(file).size == 1
    assert place.pending() == []


def test_c512_a_silent_gateway(place: Place) -> None:
    storage = place.another(timeouts=replace(TIMEOUTS, call_s=SHORT_S, operation_s=SHORT_S))
    storage.access_token()
    place.fault("gateway.Stat", "stall")
    with pytest.raises(errors.DeadlineExceeded, match="did not answer") as caught:
        storage.stat(place.folder)
    assert place.cloud.gateway in str(caught.value)
    assert str(place.folder) in str(caught.value)


def test_c513_secrets_are_in_no_message_and_no_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="rucio_cs3")
    reference = place.put("file", content(MIB))
    secrets = {user.password for user in place.cloud.users.values()} | {place.storage.access_token()}
    told = []
    for point, script, times in (
        ("data.get", "cut-after:0", FRUITLESS_MAX),
        ("data.get", "return-500", 1),
        ("data.get", "return-302", 1),
        ("gateway.InitiateFileDownload", "code:INTERNAL", 1),
        ("gateway.InitiateFileDownload", "grpc:INTERNAL", 1),
    ):
        place.fault(point, script, times)
        with pytest.raises(errors.CS3Error) as caught:
            place.storage.download(reference, place.local / "back")
        told.append("".join(traceback.format_exception(caught.value)))
        told.append(repr(caught.value) + repr(vars(caught.value)))
    place.fault("gateway.Stat", "expire-token")
    place.storage.stat(reference)
    secrets.add(place.storage.access_token())
    told.append(caplog.text)
    assert "logging in again" in caplog.text
    for secret in secrets:
        assert all(secret not in text for text in told)


def test_c514_a_data_host_that_nobody_allowed(place: Place) -> None:
    """The access token goes only to hosts that the endpoint names."""
    place.put("file", b"x")
    # The gateway under another name of this machine: the ticket's 127.0.0.1 is then a foreign host.
    port = place.cloud.gateway.partition(":")[2]
    webdav = replace(place.storage.endpoint.webdav, host="localhost")
    with pytest.raises(errors.ProtocolViolation, match="data_hosts") as caught:
        place.another(gateway=f"localhost:{port}", webdav=webdav).download(place.file("file"), place.local / "back")
    assert "127.0.0.1" in str(caught.value)
    allowed = place.another(gateway=f"localhost:{port}", webdav=webdav, data_hosts=frozenset({"127.0.0.1"}))
    allowed.download(place.file("file"), place.local / "back")
    assert (place.local / "back").read_bytes() == b"x"


@contextlib.contextmanager
def tls_cloud(kind: str, request: pytest.FixtureRequest) -> Iterator[EmbeddedCloud | RevaSite]:
    if kind == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with RevaSite("tls", tls=True) as site:
            yield site
    else:
        with EmbeddedCloud(name="tls", behaviour=Behaviour(kind), tls=True) as cloud:
            yield cloud


@pytest.mark.parametrize("kind", ["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def test_c515_tls_is_verified(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(content(2 * MIB))
    with tls_cloud(kind, request) as cloud:
        user = next(iter(cloud.users.values()))
        provider = BasicProvider(user.username, Secret(user.password))
        endpoint = Endpoint(
            name=cloud.name,
            gateway=cloud.gateway,
            gateway_tls=kind != "reva",  # Reva v3 has no TLS for gRPC
            webdav=WebDAVBase.parse(cloud.webdav_url, parse_root(cloud.root)),
            ca_bundle=cloud.ca_bundle,
            timeouts=TIMEOUTS,
        )
        reference = Reference(endpoint.root, "folder/file")
        with CS3Storage(endpoint, provider) as storage:
            storage.upload(local, reference)
            storage.download(reference, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content(2 * MIB)
        with (
            CS3Storage(replace(endpoint, ca_bundle=None), provider) as storage,
            pytest.raises(errors.ConfigurationError, match=r"TLS .* failed: .*cs3_ca_bundle") as caught,
        ):
            storage.download(reference, tmp_path / "never")
        assert "127.0.0.1" in str(caught.value)
        assert not (tmp_path / "never").exists()


def test_c516_a_question_about_the_token_that_finds_nobody_says_nothing_of_a_file(
    spaces: Place, short_pauses: None
) -> None:
    spaces.fault("gateway.WhoAmI", "code:NOT_FOUND", times=4)
    with pytest.raises(errors.Unavailable, match="cannot say whether it knows the token"):
        spaces.storage.stat(spaces.file("nothing"))
    assert spaces.pending() == []
    assert not spaces.storage.exists(spaces.file("nothing"))
