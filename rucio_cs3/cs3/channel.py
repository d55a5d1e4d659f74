"""The gRPC channel to the gateway of a cloud: its options, its TLS, and why it does not come about.

Whom TLS believes is said in :mod:`rucio_cs3.cs3.tls`; gRPC has an implementation of its own, which is given the same
files. Calls are made by :mod:`rucio_cs3.cs3.gateway`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc

from rucio_cs3.cs3 import errors, tls
from rucio_cs3.cs3.config import Endpoint, split_address
from rucio_cs3.cs3.login.secret import read_secret_file

_log = logging.getLogger(__name__)

#: The listing of a folder, or of a recycle bin, may be this large, in bytes. gRPC's own limit of 4 MiB cuts a folder of
#: some 6,000 entries (reva#1825: 10 MB is about 15,000); this one lets 250,000 pass and still bounds memory.
LISTING_MAX_BYTES = 160 * 1024 * 1024

#: Any other answer may be this large, in bytes: gRPC's own limit. What is said of one file has some KiB.
ANSWER_MAX_BYTES = 4 * 1024 * 1024

_SERVICE = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"].full_name
#: gRPC's way to say it of each method (grpc/service_config, "maxResponseMessageBytes").
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {"name": [{"service": _SERVICE}], "maxResponseMessageBytes": ANSWER_MAX_BYTES},
            {
                "name": [{"service": _SERVICE, "method": method} for method in ("ListContainer", "ListRecycle")],
                "maxResponseMessageBytes": LISTING_MAX_BYTES,
            },
        ]
    }
)

#: Longest wait in a handshake that is made only to find out what is wrong, for each of its steps, in seconds; and for
#: how long what was found out holds, so that many threads do not all ask a server that is in trouble.
_TRIAL_S = 5.0
_VERDICT_S = 10.0

#: How much longer than a call's deadline a channel that has been replaced is kept, in seconds: a call that has been
#: ended says so a little later.
_FORMER_S = 15.0

#: The start of HTTP/2 with empty settings (RFC 9113, 3.4), by which a server is made to speak; it holds no secret.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

#: Of insecure gateways: host and port -> the certificate that this process saw there first, in DER.
_seen: dict[tuple[str, int], bytes] = {}


class _Opened(NamedTuple):
    channel: Any
    stub: Any
    files: tls.Files


class Trouble(NamedTuple):
    """Why no connection comes about.

    :param words: ends the sentence "… failed: …".
    :param lasts: until somebody changes a setting or a certificate; otherwise it may be over by itself.
    """

    words: str
    lasts: bool = True


class Channel:
    """The connection to one gateway: opened for the first call, and anew when a file of its TLS has been renewed.

    Safe for many threads.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._host, self._port = split_address(endpoint.gateway, endpoint.name)
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        #: Channels that have been replaced, and when by the monotonic clock: calls may be under way on them.
        self._former: list[tuple[float, Any]] = []
        self._trying = threading.Lock()
        #: Until when by the monotonic clock, and what.
        self._verdict: tuple[float, Trouble | None] = (0.0, None)
        if endpoint.gateway_tls:
            tls.warn_of_insecurity(endpoint)

    def close(self) -> None:
        """Close it; calls under way are cancelled."""
        with self._lock:
            for _, channel in self._former:
                channel.close()
            if self._opened is not None:
                self._opened.channel.close()

    def stub(self) -> Any:
        """What calls are made with, and begun with at once: after the longest call a former one is closed.

        :raises ConfigurationError: when a file of TLS cannot be used.
        :raises Unavailable: when the certificate of an insecure gateway cannot be fetched.
        """
        files = tls.Files.of(self._endpoint) if self._endpoint.gateway_tls else tls.Files(())
        opened = self._opened
        if opened is None or opened.files != files:
            with self._lock:
                opened = self._opened
                if opened is None or opened.files != files:
                    opened = self._opened = self._reopened(opened, files)
        return opened.stub

    def trouble(self) -> Trouble | None:
        """Why TLS with the gateway cannot be agreed on, and what to do; None where it can, or nobody answers."""
        if not self._endpoint.gateway_tls:
            return None
        until, verdict = self._verdict
        if time.monotonic() < until:
            return verdict
        with self._trying:
            # Another thread may have found out meanwhile.
            until, verdict = self._verdict
            if time.monotonic() >= until:
                verdict = self._trial()
                self._verdict = time.monotonic() + _VERDICT_S, verdict
            return verdict

    def _reopened(self, opened: _Opened | None, files: tls.Files) -> _Opened:
        try:
            channel = self._open()
        except errors.ConfigurationError as error:
            if opened is None:
                raise
            # Half renewed, maybe: certificate and key are two files.
            _log.warning("%s; what they held before is used", error)
            return opened._replace(files=files)
        if opened is not None:
            _log.info("%s: files of TLS have changed; connecting anew", self._endpoint.name)
            now = time.monotonic()
            # All calls on those have ended.
            ended = now - self._endpoint.timeouts.call_s - _FORMER_S
            for replaced_at, former in self._former:
                if replaced_at < ended:
                    former.close()
            self._former = [(at, former) for at, former in self._former if at >= ended]
            self._former.append((now, opened.channel))
        self._verdict = (0.0, None)
        return _Opened(channel, gateway_api_pb2_grpc.GatewayAPIStub(channel), files)

    def _open(self) -> Any:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", LISTING_MAX_BYTES),
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 0),  # the one retry layer is ours
            ("grpc.enable_http_proxy", 0),  # like trust_env=False on the HTTP side
            # gRPC's own limit is 120 s between two attempts to connect, all subchannels of the process alike: a
            # gateway that is back would stay "unavailable", which costs the RSE strikes at the reaper.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        endpoint = self._endpoint
        if not endpoint.gateway_tls:
            return grpc.insecure_channel(endpoint.gateway, options=options)
        # Python's errors say what is wrong with a file, and gRPC's do not.
        if endpoint.ca_bundle is not None or endpoint.client_certificate is not None:
            tls.context_of(endpoint, identified=True)
        key, chain = None, None
        if endpoint.client_certificate is not None and (path := tls.key_of(endpoint)) is not None:
            key, chain = read_secret_file(path).encode(), self._content(endpoint.client_certificate)
        if endpoint.insecure:
            certificate = self._first_certificate()
            roots, name = ssl.DER_cert_to_PEM_cert(certificate).encode(), _name_in(certificate, self._host)
        else:
            # gRPC's own authorities are a copy of the same list, of another age.
            roots, name = self._content(endpoint.ca_bundle or Path(certifi.where())), endpoint.tls_name_of(self._host)
        if name != self._host:
            options.append(("grpc.ssl_target_name_override", name))
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        return grpc.secure_channel(endpoint.gateway, credentials, options=options)

    def _content(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as exc:  # it has just been there
            raise errors.ConfigurationError(f"{self._endpoint.name}: {path} cannot be read: {exc.strerror}") from exc

    # -- what gRPC does not do ------------------------------------------------------------------------------

    def _first_certificate(self) -> bytes:
        """The certificate that this process saw at an insecure gateway first, in DER.

        gRPC for Python verifies always. So what it verifies with is this certificate: whoever stands between at the
        first moment is not noticed, and who comes later is.
        """
        place = self._host, self._port
        if place not in _seen:
            gateway = f"gateway {self._endpoint.gateway}"
            try:
                with self._handshake(tls.context_of(self._endpoint, identified=True)) as secure:
                    _seen.setdefault(place, secure.getpeercert(binary_form=True) or b"")
            except _Untrusted as exc:
                raise errors.ConfigurationError(f"{self._endpoint.name}: TLS with {gateway} failed: {exc}") from None
            except OSError as exc:
                raise errors.Unavailable(
                    f"{self._endpoint.name}: {gateway} cannot be reached: {exc.strerror or exc}"
                ) from None
        return _seen[place]

    def _trial(self) -> Trouble | None:
        """Shake hands once more, by Python's TLS and with the same files, and say how that fails.

        gRPC tells it only in words, and with the same code as that a server is down. Nothing is sent but the beginning
        of HTTP/2.
        """
        seen = _seen.get((self._host, self._port)) if self._endpoint.insecure else None
        try:
            # As gRPC has it: that one certificate, and nobody else's.
            context = tls.context_of(replace(self._endpoint, insecure=False), identified=True, believed=seen)
            if self._endpoint.insecure:
                context.check_hostname = False
            with self._handshake(context) as secure:
                if secure.selected_alpn_protocol() != "h2":
                    # A balancer's page, be it for a while: so it does not last.
                    return Trouble(
                        "what answers there speaks no HTTP/2, which gRPC needs; check the address of the gateway",
                        lasts=False,
                    )
                # A server of TLS 1.3 that does not take our certificate says so only now, and may be gone by now.
                with contextlib.suppress(OSError):
                    secure.sendall(_PREFACE)
                secure.recv(1)
        except _Untrusted as exc:
            if seen is not None and exc.is_of_authority:
                return Trouble(
                    "its certificate is not the one that this process saw first; if it was renewed, start anew"
                )
            return Trouble(str(exc))
        except OSError as exc:
            return Trouble(tls.explain(exc)) if isinstance(exc, ssl.SSLError) and tls.is_about_us(exc) else None
        except errors.ConfigurationError:
            return None
        return None

    @contextlib.contextmanager
    def _handshake(self, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        """
        :raises _Untrusted: when it fails by what one of both sides says.
        :raises OSError: when no connection comes about, or it breaks.
        """
        context.set_alpn_protocols(["h2"])
        within_s = min(self._endpoint.timeouts.connect_s, _TRIAL_S)
        with socket.create_connection((self._host, self._port), timeout=within_s) as sock:
            try:
                secure = context.wrap_socket(sock, server_hostname=self._endpoint.tls_name_of(self._host))
            except (ssl.SSLEOFError, TimeoutError):
                raise
            except (ssl.SSLError, ValueError) as exc:
                raise _Untrusted(exc) from None
            with secure:
                yield secure


class _Untrusted(Exception):
    """TLS could not be agreed on; ``str()`` says why, and what to do."""

    def __init__(self, error: ssl.SSLError | ValueError) -> None:
        super().__init__(tls.explain(error))
        self.is_of_authority = tls.is_of_authority(error)


def _name_in(certificate: bytes, host: str) -> str:
    """A name that a certificate is for: the host, where that is one of them."""
    # Late, because it takes longer than all else here, and few need it.
    from cryptography import x509

    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return host
    every = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return host if host in every or not every else every[0].replace("*", "any")
