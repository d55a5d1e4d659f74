"""The HTTP side of a cloud: PUT and GET of bytes by ticket, behind one choke point.

``HTTPClient.request`` is the only place that opens HTTP connections; :mod:`rucio_cs3.cs3.tpc` uses it, too.
It never follows a redirect (requests would carry ``x-access-token`` and ``X-Reva-Transfer`` to the new
host), ignores ``~/.netrc`` and proxy variables, limits silence rather than duration, and translates
every failure once.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import http.cookiejar
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.auth import Credential
from rucio_cs3.cs3.config import Endpoint, Site
from rucio_cs3.cs3.expect import AskingFirst
from rucio_cs3.cs3.redaction import without_secrets
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.streams import UploadBody

_log = logging.getLogger(__name__)

#: Connections kept per host; more at once are opened and then dropped.
_POOL_CONNECTIONS = 16

#: What is kept of an error answer's body for the message, in bytes.
_ERROR_BODY_BYTES = 500

#: Longest that a server is left alone because it said so, in seconds: an hour. One that is down for a day says it
#: again; one that says a year has a clock or a configuration that is wrong.
RETRY_AFTER_MAX_S = 3600.0


class HTTPClient:
    """All HTTP requests to one site; safe for many threads.

    :param endpoint: its TLS settings and timeouts.
    """

    def __init__(self, endpoint: Site) -> None:
        self._endpoint = endpoint
        self._session = _Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(_NoCookies())
        adapter = _Adapter(pool_maxsize=_POOL_CONNECTIONS, max_retries=0)
        adapter.limit_silence(endpoint.timeouts.idle_s)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._verify: bool | str = str(endpoint.ca_bundle) if endpoint.ca_bundle else True
        if endpoint.insecure:
            self._verify = False
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            _log.warning("%s: INSECURE: certificates of HTTP connections are NOT verified", endpoint.name)

    @property
    def site(self) -> Site:
        """The settings."""
        return self._endpoint

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        target: str,
        body: UploadBody | bytes | None = None,
        idle_timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[requests.Response]:
        """Send one request and hand out its answer, whose body is not read yet.

        :param target: what messages call the place; the URL itself may hold a transfer token.
        :param idle_timeout_s: longest silence before and in the answer, where shorter than the endpoint's.
        :param patience_s: so much longer than that; for a server that has much to do before it answers.
        :raises CS3Error: when no answer comes; while the caller reads the body, too.
        """
        timeouts = self._endpoint.timeouts
        with translated(method, target, url):
            response = self._session.request(
                method,
                url,
                # requests takes any iterable with a length; its type stubs know only some.
                data=body,  # type: ignore[arg-type]
                headers={"Accept-Encoding": "identity", **headers},
                timeout=(timeouts.connect_s, min(idle_timeout_s or timeouts.idle_s, timeouts.idle_s) + patience_s),
                allow_redirects=False,
                verify=self._verify,
                stream=True,
            )
            with response:
                yield response


class _Session(requests.Session):
    """A session that does not look where a redirect leads."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # requests (2.32) prepares the next request even where it is told to follow none: it reads the whole body
        # first, however long, and raises ValueError for a Location that is no URL.
        return None


class _PatientSending:
    """Mixed into a connection: limits the silence while a body is being sent by the idle timeout.

    urllib3 (1.26 and 2) sends the body under the *connect* timeout and sets the read timeout only then, on a
    new connection and on a kept one; a server that flushes to disk, or a link that needs more than that for
    one piece, would be cut off.
    """

    #: Seconds.
    idle_s: float
    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(self.idle_s)

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.idle_s)
        super().endheaders(*args, **kwargs)  # type: ignore[misc]


class _Adapter(HTTPAdapter):
    """An adapter whose connections send with :class:`_PatientSending` and :class:`~.expect.AskingFirst`."""

    def limit_silence(self, idle_s: float) -> None:
        """Set the timeout of connections that are made from now on, in seconds."""
        limit = {"idle_s": idle_s}
        pools: dict[str, type[urllib3.HTTPConnectionPool]] = {}
        for scheme, connection, pool in (
            ("http", urllib3.connection.HTTPConnection, urllib3.HTTPConnectionPool),
            ("https", urllib3.connection.HTTPSConnection, urllib3.HTTPSConnectionPool),
        ):
            patient = type("PatientConnection", (_PatientSending, AskingFirst, connection), limit)
            pools[scheme] = type("PatientPool", (pool,), {"ConnectionCls": patient})
        self.poolmanager.pool_classes_by_scheme = pools


class DataGateway:
    """Moves bytes by ticket.

    :param http: the endpoint's HTTP client.
    :param credential: gives the access token that must accompany a transfer token.
    """

    def __init__(self, endpoint: Endpoint, http: HTTPClient, credential: Callable[[], Credential]) -> None:
        self._endpoint = endpoint
        self._http = http
        self._credential = credential

    def put(self, ticket: Ticket, body: UploadBody, *, target: str, idle_timeout_s: float | None = None) -> str:
        """Send a body by a ``simple`` ticket, once.

        :param idle_timeout_s: longest wait for the answer, where shorter than the endpoint's.
        :returns: the etag of what was stored, as the server says; empty where it does not (Reva v3.12.1).
        :raises TransferInterrupted: when the connection ended early; whether the server has it all is open.
        :raises ChecksumMismatch: when the server compared a checksum (HTTP 419).
        """
        size = len(body)
        headers = {**self._headers(ticket), "Content-Type": "application/octet-stream"}
        if not size:
            # requests would send an empty iterator chunked, which OpenCloud answers with 206 and no file.
            headers["Content-Length"] = "0"
        with self._http.request(
            "PUT",
            self._endpoint.check_data_url(ticket.url),
            headers=headers,
            body=body if size else b"",
            target=target,
            idle_timeout_s=idle_timeout_s,
        ) as response:
            # OpenCloud answers 206 to what it did not store; only these mean "stored".
            if response.status_code not in (200, 201, 204):
                raise http_error(response, "PUT", target)
            etag = response.headers.get("ETag", "")
            drain(response)
        if body.sent < size:
            # urllib3 reads the answer of a server that closed the connection while the body was being sent.
            raise errors.TransferInterrupted(
                f"the server said {response.status_code} after {body.sent} of {size} bytes were sent",
                operation="PUT",
                target=target,
            )
        return etag

    def open(
        self, ticket: Ticket, *, target: str, idle_timeout_s: float | None = None
    ) -> AbstractContextManager[requests.Response]:
        """Ask for the whole file by a ``simple`` or ``spaces`` ticket; for :class:`~.remote_file.RemoteFile`.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        """
        return self._http.request(
            "GET",
            self._endpoint.check_data_url(ticket.url),
            headers=self._headers(ticket),
            target=target,
            idle_timeout_s=idle_timeout_s,
        )

    def _headers(self, ticket: Ticket) -> dict[str, str]:
        # Both are needed on both lines: without the access token Reva v3.12.1 and OpenCloud say 401.
        return {"X-Reva-Transfer": ticket.token, "X-Access-Token": self._credential().token}


def http_error(response: requests.Response, operation: str, target: str) -> errors.CS3Error:
    """The error of an answer, with the server's own words where it gave some, without the request's secrets."""
    with contextlib.suppress(errors.CS3Error, requests.RequestException, urllib3.exceptions.HTTPError):
        # The first bytes only: an error page may be endless.
        text = response.raw.read(_ERROR_BODY_BYTES, decode_content=True) or b""
        return _http_error(response, operation, target, text)
    return _http_error(response, operation, target, b"")


def _http_error(response: requests.Response, operation: str, target: str, body: bytes) -> errors.CS3Error:
    status = response.status_code
    request = response.request
    words, reason, trace = (
        without_secrets(said, request.headers, request.url or "")
        for said in (
            " ".join(body.decode("utf-8", "replace").split()),
            response.reason or "",
            response.headers.get("X-Request-Id", ""),
        )
    )
    message = f"the server answered {status} {reason}".rstrip()
    if 300 <= status < 400:
        message += "; redirects are not followed, because they would carry the token to another place"
    elif words and "<" not in words:
        message += f": {words}"
    return errors.for_http_status(status)(
        message,
        operation=operation,
        target=target,
        code=f"HTTP {status}",
        trace=trace or None,
        retryable=None if status != 500 else False,
        retry_after_s=_retry_after_s(response.headers) if status in (429, 503) else None,
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds (RFC 9110, 10.2.3: a number of them, or a date), None where there is none to use.

    :returns: between 0 and :data:`RETRY_AFTER_MAX_S`.
    """
    text = headers.get("Retry-After", "").strip()
    # ASCII only: isdecimal() takes the digits of all scripts.
    if text.isascii() and text.isdecimal():
        # A number of any length: float() of thousands of digits is inf, which is above the limit, too.
        return min(float(text), RETRY_AFTER_MAX_S)
    until = _date(text)
    if until is None:
        return None
    # By the server's own clock, where it tells it: ours may differ.
    now = _date(headers.get("Date", "")) or datetime.datetime.now(datetime.timezone.utc)
    return min(max((until - now).total_seconds(), 0.0), RETRY_AFTER_MAX_S)


def _date(text: str) -> datetime.datetime | None:
    """An HTTP date in any of its three forms; None for anything else."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # asctime's form names no zone; HTTP dates are in UTC.
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.timezone.utc)


def drain(response: requests.Response) -> None:
    """Read a small rest, so that the connection can be used again."""
    response.raw.read(_ERROR_BODY_BYTES, decode_content=False)


@contextlib.contextmanager
def translated(method: str, target: str, url: str, *, since: float | None = None) -> Iterator[None]:
    """Turn the failures of requests and urllib3 into ours, most specific first.

    Their texts hold URLs, and a URL may hold a transfer token: only the kind of failure is kept, and
    the chain is cut.

    :param since: when the request began, by the monotonic clock, in seconds; None is now.
    """
    host = _host(url)
    started = time.monotonic() if since is None else since

    def error(kind: type[errors.CS3Error], message: str) -> errors.CS3Error:
        return kind(message, operation=method, target=target)

    if host is None:
        raise error(errors.ProtocolViolation, "the URL to ask, which a server gave, is none")
    try:
        yield
    except requests.exceptions.SSLError as exc:
        raise error(
            errors.ConfigurationError, f"TLS with {host} failed: {_reason(exc)}; check ca_bundle and host name"
        ) from None
    except requests.exceptions.ConnectTimeout:
        raise error(errors.DeadlineExceeded, f"{host} did not accept a connection in time") from None
    except requests.exceptions.ReadTimeout:
        waited = time.monotonic() - started
        raise error(errors.DeadlineExceeded, f"{host} fell silent (after {waited:.0f} s in all)") from None
    except (requests.exceptions.ConnectionError, urllib3.exceptions.ProtocolError) as exc:
        if isinstance(_cause(exc), urllib3.exceptions.NewConnectionError):
            raise error(errors.Unavailable, f"{host} cannot be reached: {_reason(exc)}") from None
        if _timed_out(exc):
            waited = time.monotonic() - started
            raise error(errors.DeadlineExceeded, f"{host} stopped reading (after {waited:.0f} s in all)") from None
        raise error(errors.TransferInterrupted, f"the connection to {host} broke: {_reason(exc)}") from None
    except urllib3.exceptions.TimeoutError:
        waited = time.monotonic() - started
        raise error(errors.DeadlineExceeded, f"{host} fell silent (after {waited:.0f} s in all)") from None
    except urllib3.exceptions.HTTPError as exc:
        raise error(errors.TransferInterrupted, f"the answer of {host} broke off: {type(exc).__name__}") from None
    except requests.exceptions.RequestException as exc:
        raise error(errors.ProtocolViolation, f"{host}: {type(exc).__name__}") from None


def _host(url: str) -> str | None:
    """Host and port as messages name them; None for what is no URL, of which nothing is said."""
    try:
        return urllib3.util.parse_url(url).netloc
    except urllib3.exceptions.LocationParseError:
        return None


def _cause(exc: BaseException) -> Any:
    """The innermost reason that urllib3 wrapped."""
    inner: Any = exc.args[0] if exc.args else None
    return getattr(inner, "reason", inner)


def _timed_out(exc: BaseException) -> bool:
    """Whether a send ran into the socket's timeout, which urllib3 wraps as if the connection had broken."""
    wrapped = exc.args[0] if exc.args and isinstance(exc.args[0], BaseException) else exc
    return any(isinstance(argument, TimeoutError) for argument in wrapped.args)


def _reason(exc: BaseException) -> str:
    """A short reason without URLs."""
    cause = _cause(exc)
    while isinstance(cause, BaseException):
        following: Any = cause.__cause__ or cause.__context__
        if isinstance(following, OSError) and following.strerror:
            return following.strerror
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, http.client.RemoteDisconnected):
            # urllib3 1.26 raises it while it handles a TypeError of its own, which says nothing.
            return "it was closed without an answer"
        if isinstance(cause, ssl.SSLError) or (isinstance(cause, urllib3.exceptions.SSLError) and cause.args):
            inner = cause if isinstance(cause, ssl.SSLError) else cause.args[0]
            return str(getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or type(inner).__name__)
        if following is None:
            break
        cause = following
    return type(cause).__name__ if cause is not None else type(exc).__name__


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    """Keeps no cookie: an identity must come from its token alone."""

    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False
