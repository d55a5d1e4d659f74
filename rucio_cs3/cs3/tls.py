"""TLS with the servers of one site, the same for gRPC and HTTP: whom we believe, who we are, and what went wrong.

Certificates are verified against the site's ``ca_bundle``, certifi's where it has none; TLS older than 1.2 is not
spoken. Files are looked at before each new connection, so renewed ones are found. Who connects:
:mod:`rucio_cs3.cs3.http.dialling` and :mod:`rucio_cs3.cs3.channel`. Plaintext is refused in
:mod:`rucio_cs3.cs3.config`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import warnings
from pathlib import Path
from typing import NamedTuple

import certifi

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Site
from rucio_cs3.cs3.login.secret import read_secret_file

_log = logging.getLogger(__name__)

#: OpenSSL's numbers of what is wrong with a certificate (openssl/x509_vfy.h).
_OUT_OF_TIME = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 64})
_OTHER_AUTHORITY = frozenset({2, 18, 19, 20, 21})

#: What a server says that it is our certificate, or the want of one, that it ends the connection for (RFC 8446, 6.2).
#: OpenSSL has "handshake failure" for a missing one in TLS 1.2; Go has "bad certificate".
_ABOUT_US = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
_TOO_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})

#: Which sites this process has warned about; with its id, because a forked child is another process.
_warned: set[tuple[int, str]] = set()


class InsecureTLSWarning(UserWarning):
    """Certificates of a site are not verified, or for another name than the site's."""


def warn_of_insecurity(site: Site) -> None:
    """Say it loudly, once in each process for each site: in the log, and as a Python warning."""
    if not (site.insecure or site.tls_name_for_tests) or (os.getpid(), site.name) in _warned:
        return
    _warned.add((os.getpid(), site.name))
    whose = f"certificates of {', '.join(sorted(site.own_hosts))}" if site.own_hosts else "certificates"
    message = (
        f"{site.name}: INSECURE: {whose} are NOT verified, so anybody on the way can read and change tokens and data; "
        "set ca_bundle instead of insecure (as settings: cs3_ca_bundle, cs3_insecure)"
    )
    if not site.insecure:
        message = (
            f"{site.name}: INSECURE: {whose} are verified for {site.tls_name_for_tests}, so whoever has one for that "
            "name can stand in for them; tls_name_for_tests is for tests (as a setting: cs3_tls_name_for_tests)"
        )
    _log.warning(message)
    warnings.warn(message, InsecureTLSWarning, stacklevel=2)


class Files(NamedTuple):
    """The files of a site's TLS as they are at one moment; two are equal where none was changed between.

    :param states: of each, as the system tells it; None for one that is not there.
    """

    states: tuple[tuple[int, int, int] | None, ...]

    @classmethod
    def of(cls, site: Site) -> Files:
        """Look at the files; certifi's, which comes with Python, is not looked at."""
        return cls(tuple(_state(path) for path in (site.ca_bundle, site.client_certificate, site.client_key) if path))


def _state(path: Path) -> tuple[int, int, int] | None:
    # Kubernetes renews by a link to another folder, others by a new file or in place.
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
    return None


class Contexts:
    """The settings of Python's TLS for one site; safe for many threads, which may make one twice."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made: dict[bool, tuple[Files, ssl.SSLContext]] = {}

    def secured(self, sock: socket.socket, host: str, port: int) -> ssl.SSLSocket:
        """Shake hands on a connection; nothing else is sent before the server's certificate is verified.

        :raises ssl.SSLError: for which there is :func:`explain`; so ValueError, for a host that no certificate has.
        :raises ConfigurationError: when a file cannot be used.
        """
        return self._for(host, port).wrap_socket(sock, server_hostname=self._site.tls_name_of(host))

    def _for(self, host: str, port: int) -> ssl.SSLContext:
        # Whoever the site sends us on to does not get to know who we are, unless its settings name him.
        identified = self._site.client_certificate is not None and self._site.may_know_us(host, port)
        files = Files.of(self._site)
        made = self._made.get(identified)
        if made is not None and made[0] == files:
            return made[1]
        try:
            context = context_of(self._site, identified=identified)
        except errors.ConfigurationError as error:
            if made is None:
                raise
            # Half renewed, maybe: certificate and key are two files.
            _log.warning("%s; what they held before is used", error)
            context = made[1]
        self._made[identified] = files, context
        return context


def context_of(site: Site, *, identified: bool, believed: bytes | None = None) -> ssl.SSLContext:
    """The settings of Python's TLS with a site.

    :param identified: whether a server that asks who we are gets the site's client certificate.
    :param believed: a certificate, in DER, that is believed in place of all authorities.
    :raises ConfigurationError: when a file cannot be used.
    """
    try:
        # certifi's where nothing else is said: a slim container has no store of its own.
        authorities = None if believed else str(site.ca_bundle or certifi.where())
        context = ssl.create_default_context(cafile=authorities, cadata=believed)
    except OSError as exc:  # ssl.SSLError is one
        raise errors.ConfigurationError(
            f"{site.name}: ca_bundle {site.ca_bundle} cannot be used: {exc.strerror or exc}"
        ) from exc
    # Python's own default, unless the system's OpenSSL is set up otherwise.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    # The same with every Python, and as gRPC has it: what stands in the bundle is believed, be it a server's own
    # certificate; so are authorities whose certificates are older than RFC 5280, which Python 3.13 refuses.
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    if site.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if identified:
        _identify(context, site)
    return context


def _identify(context: ssl.SSLContext, site: Site) -> None:
    """
    :raises ConfigurationError: when certificate and key cannot be used, or the key can be read by others.
    """
    certificate, key = site.client_certificate, key_of(site)
    if certificate is None or key is None:
        return
    try:
        read_secret_file(key)
    except errors.ConfigurationError as error:
        raise errors.ConfigurationError(f"{site.name}: client_key: {error.message}") from error

    def refuse() -> str:
        # OpenSSL would ask the terminal otherwise.
        raise errors.ConfigurationError(f"{site.name}: client_key {key} is encrypted; give one without a password")

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as exc:
        reason = getattr(exc, "reason", None)
        why = "they do not belong together" if reason == "KEY_VALUES_MISMATCH" else reason or "no PEM in them"
        raise errors.ConfigurationError(
            f"{site.name}: client_certificate {certificate} cannot be used with key {key}: {why}"
        ) from None
    except OSError as exc:
        raise errors.ConfigurationError(
            f"{site.name}: client_certificate {certificate} cannot be read: {exc.strerror}"
        ) from exc


def key_of(site: Site) -> Path | None:
    """The file with the client's key, which may be that of the certificate."""
    return site.client_key or site.client_certificate


def is_about_us(exc: BaseException) -> bool:
    """Whether an error is the server's word that it does not take our certificate, or wants one."""
    return isinstance(exc, ssl.SSLError) and getattr(exc, "reason", None) in _ABOUT_US


def is_of_authority(exc: BaseException) -> bool:
    """Whether an error is that nobody whom we believe vouches for a certificate."""
    return isinstance(exc, ssl.SSLCertVerificationError) and exc.verify_code in _OTHER_AUTHORITY


def is_no_tls(exc: BaseException) -> bool:
    """Whether an error is that what answers is no TLS at all."""
    return isinstance(exc, ssl.SSLError) and getattr(exc, "reason", None) in _NO_TLS


def explain(exc: ssl.SSLError | ValueError) -> str:
    """What is wrong, and what to do: ends the sentence "TLS with … failed: …"."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        words, code = exc.verify_message.rstrip("."), exc.verify_code
        if code in _OTHER_AUTHORITY:
            return (
                f"{words}; if this is the right server, name the PEM file of its authority in ca_bundle (as a "
                "setting: cs3_ca_bundle)"
            )
        if code in _OTHER_NAME:
            return f"{words}; use a name of that certificate as host, or have the site get another one"
        if code in _OUT_OF_TIME:
            return f"{words}; the site has to renew it, unless the clock of this machine is wrong"
        return f"{words}; check ca_bundle and host name"
    # Those that Python itself raises have no reason.
    reason: str | None = getattr(exc, "reason", None) if isinstance(exc, ssl.SSLError) else str(exc)
    if reason in _ABOUT_US or reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return (
            f"the server wants another client certificate than it got ({reason}); check client_certificate and "
            "client_key (as settings: cs3_client_certificate, cs3_client_key)"
        )
    if reason in _TOO_OLD:
        return f"the server knows no TLS 1.2 or newer ({reason}); the site has to switch it on"
    if reason in _NO_TLS:
        return f"what answers there speaks no TLS ({reason}); check address and port, and cs3_gateway_tls if it is gRPC"
    return f"{reason or type(exc).__name__}; check ca_bundle and host name"
