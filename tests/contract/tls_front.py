"""TLS before a cloud, as a proxy of a real site has it: with any certificate, version and demand for ours."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import select
import socket
import ssl
import threading
import warnings
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

#: Ends what hangs; nothing takes a second.
_HANGS_S = 20.0
#: How often it is looked whether all is over.
_POLL_S = 0.05


class TLSFront:
    """A TLS server on 127.0.0.1 that passes on what it gets, decrypted, and the answers back.

    :param target: ``host:port`` that it stands before, without TLS.
    :param context: of the server; may be changed at any time, for the connections to come.
    """

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.context = context
        #: Connections that were begun, whatever became of them.
        self.connections = 0
        #: What clients have sent after their handshakes.
        self.heard = b""
        #: Subjects of the certificates that clients have shown.
        self.known: list[str] = []
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> TLSFront:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._threads.append(threading.Thread(target=self._one, args=(connection,)))
            self._threads[-1].start()

    def _one(self, connection: socket.socket) -> None:
        # Failed handshakes and broken connections are what the cases are about.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_HANGS_S)
            with self.context.wrap_socket(connection, server_side=True) as secure:
                shown = secure.getpeercert(binary_form=True)
                if shown:
                    self.known.append(x509.load_der_x509_certificate(shown).subject.rfc4514_string())
                with socket.create_connection(self._target, timeout=_HANGS_S) as inside:
                    self._pass_on(secure, inside)

    def _pass_on(self, outside: ssl.SSLSocket, inside: socket.socket) -> None:
        while not self._stopping.is_set():
            ready = [outside] if outside.pending() else select.select([outside, inside], [], [], _POLL_S)[0]
            for sock in ready:
                data = sock.recv(65536)
                if not data:
                    return
                if sock is outside:
                    self.heard += data
                (inside if sock is outside else outside).sendall(data)


def server_context(certificate: trustme.LeafCert, *protocols: str) -> ssl.SSLContext:
    """A server's TLS.

    :param protocols: that it agrees to speak over TLS (ALPN), ``h2`` for gRPC.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(list(protocols))
    return context


def wants_certificates(context: ssl.SSLContext, authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Have a server let in only who shows a certificate of an authority, at one version of TLS: the two say differently
    that somebody has none.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    return context


def make_old(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have one side of TLS speak versions 1.0 and 1.1 only, which OpenSSL 3 does at security level 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def self_signed(address: str) -> trustme.LeafCert:
    """A certificate that vouches for itself, as servers make it that were told of none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "self-signed")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(private, certificate.public_bytes(Encoding.PEM), [])


def written(path: Path, *parts: trustme.Blob, mode: int = 0o600) -> Path:
    """A file with PEM texts."""
    path.write_bytes(b"".join(part.bytes() for part in parts))
    path.chmod(mode)
    return path
