"""C1461 to C1479: TLS, the same for gRPC and HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from rucio_cs3.cs3 import (
    BasicProvider,
    CS3Storage,
    Endpoint,
    Reference,
    Secret,
    WebDAVBase,
    channel,
    errors,
    parse_root,
    tls,
)
from rucio_cs3.cs3.config import WebDAVSite
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.jobs import State
from rucio_cs3.transfers.modes import Wish
from tests.contract.place import TIMEOUTS, Place, content, endpoint_of, provider_of
from tests.contract.test_access import tls_cloud
from tests.contract.tls_front import (
    TLSFront,
    make_old,
    self_signed,
    server_context,
    wants_certificates,
    written,
)
from tests.partners.ends import CONTENT, transfer
from tests.recording_site import Answer, RecordingSite


class Face:
    """A cloud behind TLS by one of the two transports, and a client of it; both are kept until the end of a case.

    :param front: what the client connects to.
    """

    def __init__(self, place: Place, front: TLSFront, **settings: Any) -> None:
        self.front = front
        self._place = place
        self._settings: dict[str, Any] = {"timeouts": TIMEOUTS, **settings}
        self._opened = contextlib.ExitStack()

    def look(self) -> None:
        """Ask for the case's folder, with a token.

        :raises CS3Error: where it cannot be had.
        """
        raise NotImplementedError

    def __enter__(self) -> Face:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class GRPCFace(Face):
    protocol = "h2"

    @staticmethod
    def target(place: Place) -> str:
        return place.cloud.gateway

    def __init__(self, place: Place, front: TLSFront, **settings: Any) -> None:
        super().__init__(place, front, **settings)
        endpoint = endpoint_of(place.cloud, gateway=front.address, gateway_tls=True, **self._settings)
        self._storage = self._opened.enter_context(CS3Storage(endpoint, provider_of(place.cloud)))

    def look(self) -> None:
        assert self._storage.stat(self._place.folder).is_directory


class HTTPFace(Face):
    protocol = "http/1.1"

    @staticmethod
    def target(place: Place) -> str:
        return urlsplit(place.storage.endpoint.webdav.url(place.folder)).netloc

    def __init__(self, place: Place, front: TLSFront, **settings: Any) -> None:
        super().__init__(place, front, **settings)
        url = place.storage.endpoint.webdav.url(place.folder)
        server = WebDAVBase.parse(f"https://{front.address}/", MountRoot("/"))
        self._folder = server.reference(f"https://{front.address}{urlsplit(url).path}")
        site = WebDAVSite(name=place.cloud.name, server=server, prefix=Reference(server.root), **self._settings)
        http = self._opened.enter_context(contextlib.closing(HTTPClient(site)))
        self._client = WebDAVClient(site, http, lambda _: f"Bearer {place.storage.access_token()}")

    def look(self) -> None:
        assert self._client.stat(self._folder).is_directory


Transport = type[GRPCFace] | type[HTTPFace]


@pytest.fixture(params=[GRPCFace, HTTPFace], ids=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> Transport:
    transport: Transport = request.param
    return transport


@dataclass
class World:
    """What all cases need.

    :param bundle: PEM file of the authority.
    :param serve: makes a front with a certificate.
    """

    place: Place
    transport: Transport
    authority: trustme.CA
    bundle: Path
    folder: Path
    serve: Callable[[trustme.LeafCert], TLSFront]

    def front(self, *names: str, **how: Any) -> TLSFront:
        """A front with a certificate of the authority."""
        return self.serve(self.authority.issue_cert(*(names or ("127.0.0.1",)), **how))

    def client(self, front: TLSFront, **settings: Any) -> Face:
        return self.transport(self.place, front, **{"ca_bundle": self.bundle, **settings})

    def looks(self, front: TLSFront, **settings: Any) -> None:
        """A client sees the folder."""
        with self.client(front, **settings) as client:
            client.look()
        assert front.heard

    def is_refused(self, front: TLSFront, match: str, **settings: Any) -> str:
        """A client sees nothing and says why, of whom, and what to do; and no byte of it was sent. The message."""
        with self.client(front, **settings) as client, pytest.raises(errors.ConfigurationError, match=match) as caught:
            client.look()
        assert front.heard == b""
        message = str(caught.value)
        assert front.address in message
        assert not caught.value.retryable
        assert self.place.storage.access_token() not in message
        return message

    def other(self, name: str) -> Path:
        """PEM file of an authority that nobody here knows."""
        return written(self.folder / f"{name}.pem", trustme.CA().cert_pem)


@pytest.fixture
def world(place: Place, transport: Transport, tmp_path: Path) -> Iterator[World]:
    authority = trustme.CA()
    bundle = written(tmp_path / "authority.pem", authority.cert_pem)
    with contextlib.ExitStack() as fronts:

        def serve(certificate: trustme.LeafCert) -> TLSFront:
            context = server_context(certificate, transport.protocol)
            return fronts.enter_context(TLSFront(transport.target(place), context))

        yield World(place, transport, authority, bundle, tmp_path, serve)


def test_c1461_a_self_signed_certificate(world: World) -> None:
    certificate = self_signed("127.0.0.1")
    front = world.serve(certificate)
    for bundle in (None, world.bundle):
        message = world.is_refused(front, "TLS .*failed: self.signed certificate", ca_bundle=bundle)
        assert "ca_bundle (as a setting: cs3_ca_bundle)" in message
    world.looks(front, ca_bundle=written(world.folder / "own.pem", *certificate.cert_chain_pems))


def test_c1462_an_authority_that_is_not_known(world: World) -> None:
    certificate = world.authority.issue_cert("127.0.0.1")
    front = world.serve(certificate)
    for bundle in (None, world.other("other")):
        assert "cs3_ca_bundle" in world.is_refused(front, "TLS .*failed: .*local issuer", ca_bundle=bundle)
    world.looks(front)
    # The server's own certificate will do, too.
    world.looks(front, ca_bundle=written(world.folder / "own.pem", certificate.cert_chain_pems[0]))


def test_c1463_another_host_name(world: World) -> None:
    front = world.front("elsewhere.test", "127.0.0.2")
    assert "use a name of that certificate" in world.is_refused(front, "TLS .*failed: .*mismatch")
    world.looks(world.front("elsewhere.test", "127.0.0.1"))


@pytest.mark.parametrize("when", ["expired", "not yet valid"])
def test_c1464_a_certificate_out_of_its_time(world: World, when: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    how = {"not_after": now - day} if when == "expired" else {"not_before": now + day}
    assert "clock" in world.is_refused(world.front(**how), f"TLS .*failed: certificate .*{when}")


def test_c1465_tls_older_than_1_2(world: World) -> None:
    front = world.front()
    make_old(front.context)
    # Somebody as old as the server gets in.
    old = make_old(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    old.load_verify_locations(world.bundle)
    with (
        socket.create_connection(("127.0.0.1", front.port)) as sock,
        old.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() in ("TLSv1", "TLSv1.1")
    assert "switch it on" in world.is_refused(front, "TLS .*failed: the server knows no TLS 1.2 or newer")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"])
def test_c1466_a_server_that_asks_who_we_are(world: World, version: ssl.TLSVersion) -> None:
    front = world.front()
    wants_certificates(front.context, world.authority, version)
    ours = world.authority.issue_cert("robot@cloud.test", common_name="robot")
    theirs = trustme.CA().issue_cert("robot@cloud.test", common_name="robot")
    chain, key = written(world.folder / "us.pem", *ours.cert_chain_pems), ours.private_key_pem
    files = {"client_certificate": chain, "client_key": written(world.folder / "us.key", key)}
    wrong = written(world.folder / "wrong.pem", *theirs.cert_chain_pems, theirs.private_key_pem)
    for settings in ({}, {"client_certificate": wrong}):
        message = world.is_refused(front, "TLS .*failed: the server ", **settings)
        assert "cs3_client_certificate" in message
    assert front.known == []
    world.looks(front, **files)
    # One file with both, as grids have it.
    world.looks(front, client_certificate=written(world.folder / "both.pem", key, *ours.cert_chain_pems))
    assert all("robot" in name for name in front.known)


KEYS = ["open to others", "of another certificate", "encrypted", "nothing"]


@pytest.mark.parametrize("case", KEYS)
def test_c1467_a_key_that_cannot_be_used(world: World, case: str) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    ours = world.authority.issue_cert("robot@cloud.test")
    key = written(world.folder / "us.key", ours.private_key_pem)
    expected = "they do not belong together"
    if case == "open to others":
        key.chmod(0o644)
        expected = "can be read by other users; run: chmod 600"
    elif case == "of another certificate":
        written(key, world.authority.issue_cert("x.test").private_key_pem)
    elif case == "encrypted":
        private = load_pem_private_key(ours.private_key_pem.bytes(), None)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
        expected = "is encrypted; give one without a password"
    else:
        key.write_text("no key\n")
        expected = "cannot be used with key"
    front = world.front()
    chain = written(world.folder / "us.pem", *ours.cert_chain_pems)
    with (
        world.client(front, client_certificate=chain, client_key=key) as client,
        pytest.raises(errors.ConfigurationError, match=expected) as caught,
    ):
        client.look()
    assert str(key) in str(caught.value)
    assert front.heard == b""


def test_c1468_renewed_files_are_found(world: World) -> None:
    front = world.front()
    wants_certificates(front.context, world.authority, ssl.TLSVersion.TLSv1_2)
    theirs, ours = (authority.issue_cert("robot@cloud.test") for authority in (trustme.CA(), world.authority))
    bundle = world.other("bundle")
    us = written(world.folder / "us.pem", *theirs.cert_chain_pems, theirs.private_key_pem)
    with world.client(front, ca_bundle=bundle, client_certificate=us) as client:
        with pytest.raises(errors.ConfigurationError, match=r"TLS .*failed: .*(local issuer|self.signed)"):
            client.look()
        written(bundle, world.authority.cert_pem)
        with pytest.raises(errors.ConfigurationError, match=r"TLS .*failed: the server .*cs3_client_certificate"):
            client.look()
        # Half of it, for a moment: what it held before is used.
        us.write_bytes(b"")
        with pytest.raises(errors.ConfigurationError, match=r"TLS .*failed: the server .*cs3_client_certificate"):
            client.look()
        written(us, *ours.cert_chain_pems, ours.private_key_pem)
        client.look()
    assert front.known


class Listener:
    """Something that must not be connected to; it takes what it gets, and closes the connection."""

    def __init__(self, address: str) -> None:
        self._connected: list[bytes] = []
        self._changed = threading.Condition()
        self._socket = socket.create_server((address, 0))
        self._address = self._socket.getsockname()
        self.port: int = self._address[1]
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            heard = b""
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                heard = connection.recv(65536)
            with self._changed:
                self._connected.append(heard)
                self._changed.notify_all()

    def heard(self) -> list[bytes]:
        """The first words of all connections until now."""
        # Ours is taken after all those before it.
        with socket.create_connection(self._address, timeout=20) as sock, self._changed:
            sock.sendall(b"and now?")
            assert self._changed.wait_for(lambda: b"and now?" in self._connected, timeout=20)
        heard, self._connected = self._connected[:-1], []
        return heard

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # close() alone does not wake a thread in accept().
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def own_address() -> str:
    """An address of this machine that is none of the loopback ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Nothing is sent: it is only asked from where it would be.
            sock.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback ones")
        return str(sock.getsockname()[0])


#: By what plaintext would come to be spoken, with another machine's address.
PLAIN = ["gateway", "webdav", "ticket", "redirect", "site"]


@pytest.mark.parametrize("way", PLAIN)
def test_c1469_plaintext_to_another_machine(place: Place, way: str) -> None:
    """No connection is tried. A ticket that leads away from TLS is one of the ways."""
    address = own_address()
    with Listener(address) as listener:

        def speak(**settings: Any) -> None:
            where = f"{address}:{listener.port}"
            if way == "gateway":
                place.another(gateway=where, **settings).stat(place.folder)
            elif way == "webdav":
                webdav = WebDAVBase.parse(f"http://{where}/remote.php/webdav", place.storage.endpoint.root)
                another = place.another(webdav=webdav, **settings)
                ask(another.http, f"http://{where}/")
            elif way == "ticket":
                webdav = WebDAVBase.parse(f"https://{address}/remote.php/webdav", place.storage.endpoint.root)
                another = place.another(webdav=webdav, **settings)
                ticket = Ticket(protocol="simple", url=f"http://{where}/data", token="transfer-token-4711")
                credential = Credential("access-token-4711")
                with DataGateway(another.endpoint, another.http, lambda: credential).open(
                    ticket, target="/f"
                ) as answer:
                    answer.read(1)
            elif way == "redirect":
                server = WebDAVBase.parse(f"https://{address}/", MountRoot("/"))
                site = WebDAVSite(name="S", server=server, prefix=Reference(server.root), timeouts=TIMEOUTS, **settings)
                with contextlib.closing(HTTPClient(site)) as http:
                    ask(http, site.check_redirect(f"http://{where}/a", f"http://{where}/b"))
            else:
                server = WebDAVBase.parse(f"http://{where}/", MountRoot("/"))
                site = WebDAVSite(name="S", server=server, prefix=Reference(server.root), timeouts=TIMEOUTS, **settings)
                with contextlib.closing(HTTPClient(site)) as http:
                    ask(http, f"http://{where}/")

        with pytest.raises((errors.ConfigurationError, errors.ProtocolViolation), match="without TLS") as caught:
            speak()
        assert address in str(caught.value)
        assert "cs3_allow_plaintext" in str(caught.value)
        assert listener.heard() == []
        # It would have been spoken, and is where that is allowed.
        with pytest.raises((errors.TransferInterrupted, errors.Unavailable)):
            speak(allow_plaintext=True)
        assert any(listener.heard())


def ask(http: HTTPClient, url: str) -> None:
    headers = {"Authorization": "Bearer access-token-4711"}
    with http.request("GET", url, headers=headers, target="/file") as answer:
        answer.read(1)


def test_c1470_http_asks_whether_it_may_at_each_request(place: Place) -> None:
    """Whatever made the URL."""
    address = own_address()
    with Listener(address) as listener:
        with pytest.raises(errors.ConfigurationError) as caught:
            ask(place.storage.http, f"http://{address}:{listener.port}/")
        assert listener.heard() == []
    assert f"{address}:{listener.port} would get tokens without TLS" in str(caught.value)


def test_c1471_a_failed_handshake_is_not_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []

    def pause_s(_self: RetryPolicy, attempt: int) -> float:
        pauses.append(attempt)
        return 0.0

    monkeypatch.setattr(RetryPolicy, "pause_s", pause_s)
    world.is_refused(world.front("elsewhere.test"), "mismatch")
    assert pauses == []


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has warned nobody, and seen no certificates yet."""
    monkeypatch.setattr(tls, "_warned", set())
    monkeypatch.setattr(channel, "_seen", {})


def test_c1472_insecure_works_and_says_so(world: World, unwarned: None, caplog: pytest.LogCaptureFixture) -> None:
    name = world.place.cloud.name
    for names in (["elsewhere.test"], ["127.0.0.1"], ["*.elsewhere.test"]):
        front = world.front(*names)
        if caplog.messages:
            world.looks(front, ca_bundle=None, insecure=True)
            continue
        with pytest.warns(tls.InsecureTLSWarning, match=rf"{name}: INSECURE: .*cs3_ca_bundle"):
            world.looks(front, ca_bundle=None, insecure=True)
    assert len([text for text in caplog.messages if "INSECURE" in text]) == 1


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known authority"])
def test_c1473_insecure_grpc_believes_the_first_certificate_only(
    place: Place, unwarned: None, tmp_path: Path, known: bool
) -> None:
    authority = trustme.CA()
    settings = {"insecure": True, "ca_bundle": written(tmp_path / "ca.pem", authority.cert_pem) if known else None}
    first = server_context(authority.issue_cert("elsewhere.test"), "h2")
    second = server_context(authority.issue_cert("elsewhere.test"), "h2")
    with TLSFront(place.cloud.gateway, first) as front:
        with pytest.warns(tls.InsecureTLSWarning):
            client = GRPCFace(place, front, **settings)
        with client:
            client.look()
        front.context, front.heard = second, b""
        with (
            GRPCFace(place, front, **settings) as another,
            pytest.raises(errors.ConfigurationError, match="not the one that this process saw first") as caught,
        ):
            another.look()
        assert front.heard == b""
    assert front.address in str(caught.value)


_TWICE = """
import logging, os, sys, threading
from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Secret, WebDAVBase, parse_root
logging.basicConfig(filename=sys.argv[1])
webdav = WebDAVBase.parse("https://127.0.0.1:1/w")
endpoint = Endpoint(name="CLOUD", gateway="127.0.0.1:1", webdav=webdav, insecure=True)
def use():
    for _ in range(3):
        CS3Storage(endpoint, BasicProvider("me", Secret("x"))).close()
threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
use()
"""


def test_c1474_insecure_warns_once_in_each_process(tmp_path: Path) -> None:
    """In the log, and where people look who have none."""
    log = tmp_path / "log"
    for number in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", _TWICE, log], capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stderr.count("InsecureTLSWarning: CLOUD: INSECURE: ") == 1
        assert len(re.findall("WARNING.*CLOUD: INSECURE: ", log.read_text())) == number


def test_c1475_the_name_for_tests(world: World, unwarned: None) -> None:
    front = world.front("cloud.internal")
    with pytest.warns(tls.InsecureTLSWarning, match=r"INSECURE: .* verified for cloud\.internal"):
        world.looks(front, tls_name_for_tests="cloud.internal")
    front = world.front("cloud.internal")
    world.is_refused(front, "mismatch", tls_name_for_tests="other.internal")
    world.is_refused(front, "mismatch")
    world.is_refused(world.front(), "mismatch", tls_name_for_tests="cloud.internal")
    # Hosts that a ticket or redirect leads to are known by their own names.
    foreign = dataclasses.replace(endpoint_of(world.place.cloud), tls_name_for_tests="cloud.internal")
    assert foreign.tls_name_of("data.test") == "data.test"


@dataclass
class Authorities:
    """Two sites with TLS whose certificates are of two authorities that know nothing of each other; the sites do.

    :param bundles: PEM files.
    """

    sites: list[EmbeddedCloud | RevaSite]
    bundles: list[Path]

    def storage(self, number: int, **settings: Any) -> CS3Storage:
        site = self.sites[number]
        user = next(iter(site.users.values()))
        endpoint = Endpoint(
            name=site.name,
            gateway=site.gateway,
            gateway_tls=site.gateway_tls,
            webdav=WebDAVBase.parse(site.webdav_url, parse_root(site.root)),
            **{"timeouts": TIMEOUTS, "ca_bundle": self.bundles[number], **settings},
        )
        return CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password)))


@pytest.fixture(params=["v3", pytest.param("reva", marks=pytest.mark.reva)])
def authorities(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Authorities]:
    pair = [trustme.CA(), trustme.CA()]
    bundles = [written(tmp_path / f"{number}.pem", authority.cert_pem) for number, authority in enumerate(pair)]
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
    sites: list[EmbeddedCloud | RevaSite] = []
    with contextlib.ExitStack() as stack:
        for name, authority in zip("ab", pair, strict=True):
            settings: dict[str, Any] = {"name": name, "tls": True, "authority": authority, "trusted": bundles}
            if request.param == "reva":
                sites.append(stack.enter_context(RevaSite(**settings)))
            else:
                sites.append(stack.enter_context(EmbeddedCloud(**settings)))
        yield Authorities(sites, bundles)


#: Whom we ask for the bytes in each mode; how that one verifies the other is its own business.
ASKED: dict[Wish, list[int]] = {"pull": [1], "push": [0], "relay": [0, 1]}


def test_c1476_a_copy_uses_the_settings_of_each_side(authorities: Authorities, tmp_path: Path) -> None:
    def end(storage: CS3Storage, name: str) -> CS3End:
        reference = Reference(storage.endpoint.root, name)
        return CS3End(storage, reference, url=storage.endpoint.webdav.url(reference), wish=mode)

    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    there = authorities.sites[1].path_on_disk
    with authorities.storage(0) as source, authorities.storage(1) as destination:
        source.upload(local, Reference(source.endpoint.root, "file"))
        for mode, asked in ASKED.items():
            outcome = transfer(end(source, "file"), end(destination, mode))
            assert (outcome.state, outcome.reason) == (State.DONE, None)
            assert there(mode).read_bytes() == CONTENT
            for number in asked:
                with authorities.storage(number, ca_bundle=authorities.bundles[1 - number]) as misled:
                    ends = (misled, destination) if number == 0 else (source, misled)
                    outcome = transfer(end(ends[0], "file"), end(ends[1], "never"))
                assert outcome.state is State.FAILED
                assert isinstance(outcome.error, errors.ConfigurationError)
                assert re.search("TLS with .*127.0.0.1:.* failed: ", str(outcome.reason))
                assert not there("never").exists()


def test_c1477_the_client_certificate_is_not_shown_to_whom_a_redirect_leads(tmp_path: Path) -> None:
    authority = trustme.CA()
    bundle = written(tmp_path / "ca.pem", authority.cert_pem)
    ours = authority.issue_cert("robot@cloud.test", common_name="robot")
    us = written(tmp_path / "us.pem", *ours.cert_chain_pems, ours.private_key_pem)
    with contextlib.ExitStack() as stack:

        def front(site: RecordingSite) -> TLSFront:
            context = server_context(authority.issue_cert("127.0.0.1", "localhost"), "http/1.1")
            context.verify_mode = ssl.CERT_OPTIONAL
            authority.configure_trust(context)
            stack.enter_context(site)
            return stack.enter_context(TLSFront(urlsplit(site.url).netloc, context))

        door, node = RecordingSite(), RecordingSite()
        node.files["/file"] = b"hello"
        at_door, at_node = front(door), front(node)
        door.script = lambda _: Answer(302, {"Location": f"https://localhost:{at_node.port}/file"})
        server = WebDAVBase.parse(f"https://{at_door.address}/", MountRoot("/"))
        for hosts, shown in ((frozenset[str](), 0), (frozenset({"localhost"}), 1)):
            site = WebDAVSite(
                name="S",
                server=server,
                prefix=Reference(server.root),
                timeouts=TIMEOUTS,
                ca_bundle=bundle,
                client_certificate=us,
                data_hosts=hosts,
            )
            with contextlib.closing(HTTPClient(site)) as http:
                client = WebDAVClient(site, http, lambda _: "Bearer token-4711")
                with client.open(Reference(server.root, "file")) as file:
                    assert file.read(5) == b"hello"
            assert len(at_node.known) == shown
        assert at_door.known


@pytest.mark.parametrize("kind", ["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def test_c1478_the_data_path_of_an_insecure_site(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, unwarned: None
) -> None:
    local, data = tmp_path / "local", content(3 * 1024 * 1024)
    local.write_bytes(data)
    with tls_cloud(kind, request) as cloud:
        site = Authorities([cloud], [written(tmp_path / "other.pem", trustme.CA().cert_pem)])
        with site.storage(0) as storage, pytest.raises(errors.ConfigurationError, match=r"TLS .*failed"):
            storage.upload(local, Reference(storage.endpoint.root, "file"))
        assert not cloud.path_on_disk("file").exists()
        with pytest.warns(tls.InsecureTLSWarning):
            storage = site.storage(0, insecure=True)
        with storage:
            storage.upload(local, Reference(storage.endpoint.root, "file"))
            storage.download(Reference(storage.endpoint.root, "file"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
