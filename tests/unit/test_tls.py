"""TLS without a cloud: what goes wrong in words, and what a gateway that cannot be reached is asked."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import socket
import ssl
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2

from rucio_cs3.cs3 import BasicProvider, Endpoint, Secret, Timeouts, WebDAVBase, channel, errors, tls
from rucio_cs3.cs3.call_gate import CALLS
from rucio_cs3.cs3.config import Site
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.sandbox.ports import free_port
from tests.listening import Listening


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def verification_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "verification")
    error.verify_code, error.verify_message = code, f"words of {code}."
    return error


EXPLAINED: list[tuple[ssl.SSLError | ValueError, str]] = [
    *((verification_error(code), "words of .*; if this .*cs3_ca_bundle") for code in (2, 18, 19, 20, 21)),
    *((verification_error(code), "words of .*; the site has to renew it") for code in (9, 10)),
    *((verification_error(code), "words of .*; use a name of that certificate") for code in (62, 64)),
    (verification_error(79), "words of 79; check ca_bundle and host name"),
    *((ssl_error(reason), "cs3_client_certificate") for reason in sorted(tls._ABOUT_US)),
    (ssl_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "cs3_client_certificate"),
    (ssl_error("UNSUPPORTED_PROTOCOL"), r"no TLS 1\.2 or newer"),
    (ssl_error("WRONG_VERSION_NUMBER"), "speaks no TLS"),
    (ssl_error("SOMETHING_NEW"), "SOMETHING_NEW; check"),
    (ssl.SSLError(1, "no reason"), "SSLError; check"),
    (ValueError("server_hostname cannot be an empty string"), "empty string; check"),
]


@pytest.mark.parametrize(("error", "expected"), EXPLAINED)
def test_what_is_wrong_comes_with_what_to_do(error: ssl.SSLError | ValueError, expected: str) -> None:
    assert re.search(expected, tls.explain(error))
    assert "\n" not in tls.explain(error)


def test_the_warning_is_of_one_process_and_one_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_warned", set())
    for name in ("A", "B"):
        with pytest.warns(tls.InsecureTLSWarning, match=f"{name}: INSECURE"):
            tls.warn_of_insecurity(Site(name=name, insecure=True))
        tls.warn_of_insecurity(Site(name=name, insecure=True))
    tls.warn_of_insecurity(Site(name="C"))
    with pytest.warns(tls.InsecureTLSWarning, match="T: INSECURE: .* verified for cloud.internal"):
        tls.warn_of_insecurity(Site(name="T", tls_name_for_tests="cloud.internal"))
    # A forked child is another process.
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.warns(tls.InsecureTLSWarning, match="A: INSECURE"):
        tls.warn_of_insecurity(Site(name="A", insecure=True))


class Greeter(Listening):
    """A TLS server that shakes hands, counts, and closes the connection."""

    def serve(self, connection: socket.socket, number: int) -> None:
        pass


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def greeting(authority: trustme.CA) -> Callable[..., Greeter]:
    def greeter(*protocols: str, not_after: datetime.datetime | None = None) -> Greeter:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", not_after=not_after).configure_cert(context)
        context.set_alpn_protocols(list(protocols))
        return Greeter(tls=context)

    return greeter


@pytest.fixture
def endpoint(authority: trustme.CA, tmp_path: Path) -> Callable[..., Endpoint]:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))

    def endpoint(port: int, *, insecure: bool = False) -> Endpoint:
        webdav = WebDAVBase.parse("https://127.0.0.1:1/w")
        return Endpoint(
            name="CLOUD",
            gateway=f"127.0.0.1:{port}",
            webdav=webdav,
            ca_bundle=bundle,
            insecure=insecure,
            timeouts=Timeouts(call_s=10, operation_s=10, connect_s=10),
        )

    return endpoint


@contextlib.contextmanager
def opened(endpoint: Endpoint) -> Iterator[channel.Channel]:
    one = channel.Channel(endpoint)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_warned", {(os.getpid(), "CLOUD")})
    monkeypatch.setattr(channel, "_seen", {})


@pytest.mark.parametrize("insecure", [False, True])
def test_a_gateway_with_tls_that_is_down(endpoint: Callable[..., Endpoint], insecure: bool, unwarned: None) -> None:
    gateway = Gateway(endpoint(free_port(), insecure=insecure), BasicProvider("me", Secret("x")))
    with contextlib.closing(gateway), pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        gateway.tokens.get()
    assert caught.value.retryable


def test_no_trouble(endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter]) -> None:
    with greeting("h2") as greeter, opened(endpoint(greeter.port)) as one:
        assert one.trouble() is None


def test_a_server_that_is_none_of_grpc(endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter]) -> None:
    with greeting("http/1.1") as greeter, opened(endpoint(greeter.port)) as one:
        assert "speaks no HTTP/2" in str(one.trouble())


def test_many_that_fail_ask_once(
    endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    with greeting() as greeter, opened(endpoint(greeter.port)) as one:
        for _ in range(3):
            assert "speaks no HTTP/2" in str(one.trouble())
        assert greeter.count == 1
        monkeypatch.setattr(one, "_verdict", (0.0, None))
        assert one.trouble()
        assert greeter.count == 2


def test_many_that_fail_at_once_ask_once(endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter]) -> None:
    together = threading.Barrier(8)
    with greeting() as greeter, opened(endpoint(greeter.port)) as one, ThreadPoolExecutor(8) as threads:

        def ask() -> channel.Trouble | None:
            together.wait(20)
            return one.trouble()

        told = [asked.result(20) for asked in [threads.submit(ask) for _ in range(8)]]
        assert all("speaks no HTTP/2" in str(verdict) for verdict in told)
        assert greeter.count == 1


def test_a_page_in_place_of_a_gateway_may_be_gone_later(
    endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer's, while the gateway is looked after."""
    monkeypatch.setattr("rucio_cs3.cs3.login.authentication._RETRY", RetryPolicy(attempts=1))
    with greeting("http/1.1") as greeter:
        gateway = Gateway(endpoint(greeter.port), BasicProvider("me", Secret("x")))
        with contextlib.closing(gateway), pytest.raises(errors.Unavailable, match=r"speaks no HTTP/2") as caught:
            gateway.tokens.get()
    assert caught.value.retryable


def test_a_file_that_vanishes(endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(endpoint(1)) as one:

        def gone(_: Path) -> bytes:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

        monkeypatch.setattr("rucio_cs3.cs3.channel.Path.read_bytes", gone)
        with pytest.raises(errors.ConfigurationError, match=r"ca\.pem cannot be read: No such file"):
            one.stub()


class Busy:
    """A gateway with TLS that answers WhoAmI when it is told to."""

    def __init__(self, authority: trustme.CA) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        certificate = authority.issue_cert("127.0.0.1")
        key, chain = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
        answer = grpc.unary_unary_rpc_method_handler(
            self._answer,
            request_deserializer=gateway_api_pb2.WhoAmIRequest.FromString,
            response_serializer=gateway_api_pb2.WhoAmIResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(channel._SERVICE, {"WhoAmI": answer})
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=(handler,), options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))

    def _answer(self, *_: Any) -> gateway_api_pb2.WhoAmIResponse:
        self.begun.set()
        assert self.go_on.wait(20)
        return gateway_api_pb2.WhoAmIResponse(status=status_pb2.Status(code=code_pb2.CODE_OK))

    def __enter__(self) -> Busy:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.stop(None).wait()


def who_am_i(gateway: Gateway) -> Any:
    return gateway._call_once("WhoAmI", gateway_api_pb2.WhoAmIRequest(), "", None, 20.0)


class Renewals:
    """Renews the bundle of an endpoint, each time at another moment."""

    def __init__(self, endpoint: Endpoint) -> None:
        assert endpoint.ca_bundle is not None
        self._path, self._moment = endpoint.ca_bundle, 1_000_000_000

    def __call__(self) -> None:
        self._moment += 1
        os.utime(self._path, ns=(self._moment, self._moment))


def test_a_call_outlives_that_files_are_renewed(endpoint: Callable[..., Endpoint], authority: trustme.CA) -> None:
    with Busy(authority) as server, ThreadPoolExecutor(1) as threads:
        described = endpoint(server.port)
        renew = Renewals(described)
        with contextlib.closing(Gateway(described, BasicProvider("me", Secret("x")))) as gateway:
            first = gateway._channel.stub()
            call = threads.submit(who_am_i, gateway)
            assert server.begun.wait(20)
            for _ in range(3):
                renew()
                assert gateway._channel.stub() is not first
            server.go_on.set()
            assert call.result(20).status.code == code_pb2.CODE_OK
            assert who_am_i(gateway).status.code == code_pb2.CODE_OK


def test_a_channel_that_was_replaced_is_closed_after_the_longest_call(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(channel, "time", types.SimpleNamespace(monotonic=lambda: now))
    described = endpoint(free_port())
    renew, request = Renewals(described), gateway_api_pb2.WhoAmIRequest()
    with opened(described) as one:
        stubs = []
        for seconds in (0.0, 0.0, described.timeouts.call_s + 16, 0.0):
            now += seconds
            stubs.append(one.stub())
            renew()
        # Of the first two somebody might have used the second until now.
        for stub in stubs[1:]:
            stub.WhoAmI.future(request, timeout=20).cancel()
        with pytest.raises(ValueError, match=r"[Cc]losed"):
            stubs[0].WhoAmI.future(request, timeout=20)


def test_a_gateway_that_was_closed_is_called_no_more(endpoint: Callable[..., Endpoint]) -> None:
    gateway = Gateway(endpoint(free_port()), BasicProvider("me", Secret("x")))
    gateway._channel.stub()
    gateway.close()
    with pytest.raises(errors.Cancelled, match=r"the connection to gateway .* has been closed"):
        who_am_i(gateway)


def test_a_stub_is_taken_where_no_fork_comes_between(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Gateway(endpoint(free_port()), BasicProvider("me", Secret("x")))) as gateway:
        within: list[bool] = []

        def stub() -> Any:
            within.append(threading.get_ident() in CALLS._calls)
            raise errors.Unavailable("enough")

        monkeypatch.setattr(gateway._channel, "stub", stub)
        with pytest.raises(errors.Unavailable, match="enough"):
            who_am_i(gateway)
    assert within == [True]


def test_an_insecure_gateway_with_an_expired_certificate(
    endpoint: Callable[..., Endpoint], greeting: Callable[..., Greeter], unwarned: None
) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    with greeting("h2", not_after=past) as greeter:
        gateway = Gateway(endpoint(greeter.port, insecure=True), BasicProvider("me", Secret("x")))
        with contextlib.closing(gateway), pytest.raises(errors.ConfigurationError, match="has expired") as caught:
            gateway.tokens.get()
    assert f"TLS with gateway 127.0.0.1:{greeter.port} failed" in str(caught.value)
