"""Checks without a login: who answers at the two addresses, what TLS is worth there, and what time it is.

Each is a connection of its own; nothing is sent that would be a secret.
"""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from rucio_cs3.cs3 import errors, tls
from rucio_cs3.cs3.config import Endpoint, is_loopback, split_address
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.doctor.findings import Check, Finding, Status, broken, not_tried, note, ok, weak
from rucio_cs3.doctor.subjects import Subject

#: The start of HTTP/2 with empty settings (RFC 9113, 3.4). A server answers it with settings of its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS_FRAME = 4

#: A certificate that ends within so many days is worth a warning.
_RENEW_DAYS = 21

#: Clocks that differ by more seconds make tokens end too early, or not valid yet, at issuers that allow for less.
_SKEW_S = 60.0


class _Server(NamedTuple):
    """One of the two addresses."""

    what: str
    host: str
    port: int
    secure: bool
    #: How a setting says that it has TLS, for advice.
    tls_setting: str

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module."""
    return (
        Check(name="settings", look=_settings),
        Check(name="gateway", look=lambda subject: _gateway(subject.place), needs=("settings",), deadline_s=20),
        Check(name="gateway TLS", look=lambda subject: _tls(subject.place, _gateway_of), needs=("gateway",)),
        Check(name="WebDAV", look=_webdav, needs=("settings",), deadline_s=20),
        Check(name="WebDAV TLS", look=lambda subject: _tls(subject.place, _webdav_of), needs=("WebDAV",)),
        Check(name="clock", look=_clock, needs=("WebDAV",), severity=Status.WEAK, deadline_s=20),
    )


def _settings(subject: Subject) -> Finding:
    if subject.fault is not None:
        return broken(subject.fault.message, "Mend this setting; docs/rse-setup.md has the table of all.")
    place = subject.place
    seen = f"gateway {place.gateway}, WebDAV {place.webdav.host}:{place.webdav.port}{place.webdav.path}"
    return ok(f"{seen}, which stands for {place.root}", settings=dict(subject.settings))


def _gateway_of(place: Endpoint) -> _Server:
    host, port = split_address(place.gateway, place.name)
    return _Server("gateway", host, port, place.gateway_tls, "cs3_gateway_tls")


def _webdav_of(place: Endpoint) -> _Server:
    return _Server("WebDAV", place.webdav.host, place.webdav.port, place.webdav.secure, "the scheme of the URL")


def _gateway(place: Endpoint) -> Finding:
    server = _gateway_of(place)
    began = time.monotonic()
    advice = f"Check cs3_gateway ({place.gateway}): host, port, and whether a firewall is between."
    try:
        with _connected(place, server, ["h2"]) as sock:
            # Whoever has hung up may have said why.
            with contextlib.suppress(OSError):
                sock.sendall(_PREFACE)
            first = _some(sock, 9)
    except _Untrusted as exc:
        return broken(f"{server.address} answers, and TLS with it failed: {exc}", _advice_on_tls(server, exc))
    except ssl.SSLError as exc:
        # A server of TLS 1.3 says only now that it wants to know who we are.
        asks = tls.is_about_us(exc)
        return broken(
            f"{server.address} ends TLS: {tls.explain(exc)}",
            "Set cs3_client_certificate and cs3_client_key." if asks else _advice_on_tls(server),
        )
    except TimeoutError:
        waited_s = time.monotonic() - began
        return broken(f"{server.address} is silent (for {waited_s:.0f} s)", advice)
    except OSError as exc:
        return broken(f"{server.address} cannot be reached: {exc.strerror or exc}", advice)
    if len(first) < 9 or first[3] != _SETTINGS_FRAME:
        # Some say the version of a request that they cannot read, and some answer it as HTTP/0.9, with a page alone.
        what = "a web server" if first.startswith((b"HTTP/", b"<")) else "something else"
        way = "with TLS" if server.secure else "without TLS"
        return broken(
            f"{server.address} is no gRPC server: {what} answers there when asked {way}",
            "Give the port of the gRPC gateway in cs3_gateway (often 9142 or 19000), and check cs3_gateway_tls.",
        )
    took_ms = 1000 * (time.monotonic() - began)
    return ok(f"{server.address} speaks gRPC ({took_ms:.0f} ms)", address=server.address, milliseconds=round(took_ms))


def _webdav(subject: Subject) -> Finding:
    place = subject.place
    server = _webdav_of(place)
    advice = f"Check host and port of the URL ({server.address}), and whether a firewall is between."
    with contextlib.closing(HTTPClient(place)) as http:
        try:
            status, _ = _options(http, place)
        except errors.ConfigurationError as error:
            return broken(error.message, _advice_on_tls(server))
        except errors.CS3Error as error:
            return _only_by_tls(place, server) or broken(error.message, advice)
    # Go's servers answer so (Reva v3.12.1), others hang up.
    if status == 400 and (wrong := _only_by_tls(place, server)):
        return wrong
    if status >= 500:
        return weak(f"{server.address} answers {status}", "Ask the cloud's operator: its front end is in trouble.")
    return ok(f"{server.address} answers", address=server.address, status=status)


def _only_by_tls(place: Endpoint, server: _Server) -> Finding | None:
    """What to say where a server that is asked without TLS speaks nothing else."""
    if server.secure:
        return None
    try:
        with _connected(place, server._replace(secure=True), ["http/1.1"]):
            pass
    except _Untrusted as exc:
        if exc.none_spoken:
            return None
    except OSError:
        return None
    return broken(f"{server.address} speaks TLS, and is asked without", "Write https in the URL (davs as a scheme).")


def _options(http: HTTPClient, place: Endpoint) -> tuple[int, str]:
    """Status and ``Date`` of an answer that needs no login."""
    url = place.webdav.url(_root(place))
    with http.request("OPTIONS", url, headers={}, target=url) as answer:
        return answer.status_code, answer.headers.get("Date", "")


def _root(place: Endpoint) -> Any:
    from rucio_cs3.cs3.reference import Reference

    return Reference(place.root)


def _clock(subject: Subject) -> Finding:
    place = subject.place
    with contextlib.closing(HTTPClient(place)) as http:
        asked_at = time.time()
        _, date = _options(http, place)
        answered_at = time.time()
    try:
        server_at = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return not_tried("the front end says no Date")
    # Its seconds are whole ones.
    ahead_s = server_at + 0.5 - (asked_at + answered_at) / 2
    off_s = round(abs(ahead_s))
    if off_s <= _SKEW_S:
        return ok(f"this machine and the front end agree (within {off_s + 1} s)", ahead_s=round(ahead_s, 1))
    which = "ahead of" if ahead_s > 0 else "behind"
    return weak(
        f"the front end's clock is {off_s} s {which} this machine's",
        "Set both by NTP; tokens of an identity provider are refused where clocks differ.",
        ahead_s=round(ahead_s, 1),
    )


def _tls(place: Endpoint, server_of: Any) -> Finding:
    server: _Server = server_of(place)
    if not server.secure:
        if is_loopback(server.host):
            return note("PLAINTEXT, within this machine", tls=False)
        return weak(
            f"PLAINTEXT: passwords, tokens and data travel unencrypted to {server.host} (cs3_allow_plaintext)",
            f"Switch TLS on ({server.tls_setting}); Reva v3 needs a proxy for it before its gateway.",
            tls=False,
        )
    try:
        with _connected(place, server, ["h2"] if server.what == "gateway" else ["http/1.1"]) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            version, ends_at = sock.version(), _end_of(sock)
    except _Untrusted as exc:
        return broken(f"TLS with {server.address} failed: {exc}", _advice_on_tls(server, exc))
    except OSError as exc:
        return broken(f"{server.address}: {exc.strerror or exc}", "Try again; the connection before this one worked.")
    facts = {"tls": version, "ends": ends_at.strftime("%Y-%m-%dT%H:%M:%SZ"), "verified": not place.insecure}
    days = (ends_at - datetime.now(timezone.utc)).total_seconds() / 86_400
    until = f"the certificate ends on {ends_at:%Y-%m-%d} (in {days:.0f} days)"
    if place.insecure:
        return weak(
            f"NOT VERIFIED ({version}): anybody on the way can read and change all (cs3_insecure); {until}",
            "Remove cs3_insecure, and name the PEM file of the site's authority in cs3_ca_bundle.",
            **facts,
        )
    if place.tls_name_for_tests is not None:
        return weak(
            f"verified for another name ({place.tls_name_for_tests}, cs3_tls_name_for_tests); {until}",
            "Remove cs3_tls_name_for_tests: whoever has a certificate for that name can stand in for the site.",
            **facts,
        )
    if days < _RENEW_DAYS:
        return weak(f"{version}, verified; {until}", "Have the site renew its certificate now.", **facts)
    return ok(f"{version}, verified; {until}", **facts)


def _end_of(sock: ssl.SSLSocket) -> datetime:
    # Late, because it takes long to import; and by it, because Python tells nothing of what it has not verified.
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")
    return certificate.not_valid_after_utc


class _Untrusted(Exception):
    """TLS could not be agreed on; ``str()`` says why, and what to do.

    :param none_spoken: the server speaks none.
    """

    def __init__(self, text: str, *, none_spoken: bool) -> None:
        super().__init__(text)
        self.none_spoken = none_spoken


@contextlib.contextmanager
def _connected(place: Endpoint, server: _Server, protocols: list[str]) -> Iterator[socket.socket]:
    """A connection, and TLS on it where it has that.

    :raises _Untrusted: when a certificate is not believed, or no TLS is spoken.
    :raises OSError: when no connection comes about.
    """
    within_s = min(place.timeouts.connect_s, place.timeouts.call_s)
    with socket.create_connection((server.host, server.port), timeout=within_s) as sock:
        if not server.secure:
            yield sock
            return
        context = tls.context_of(place, identified=True)
        context.set_alpn_protocols(protocols)
        try:
            secured = context.wrap_socket(sock, server_hostname=place.tls_name_of(server.host))
        except (ssl.SSLEOFError, TimeoutError):
            raise
        except (ssl.SSLError, ValueError) as exc:
            raise _Untrusted(tls.explain(exc), none_spoken=tls.is_no_tls(exc)) from None
        with secured:
            yield secured


def _some(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or what there is of them."""
    found = b""
    while len(found) < size and (piece := sock.recv(size - len(found))):
        found += piece
    return found


def _advice_on_tls(server: _Server, why: _Untrusted | None = None) -> str:
    if why is not None and why.none_spoken and server.what == "gateway":
        return (
            f"If {server.address} is the gateway, set cs3_gateway_tls = false; where it is not this machine, "
            "cs3_allow_plaintext = true, too, if the network between is trusted."
        )
    return (
        f"If {server.host} is the right server, name the PEM file of its authority in cs3_ca_bundle; if it has no TLS "
        f"at that port, correct {server.tls_setting}."
    )
