"""HTTP with one site: the one place that all requests go through, and where every failure is translated once.

No redirect is followed (tokens would go along), no proxy variable and no ``~/.netrc`` is looked at, no cookie is kept,
and silence is limited rather than duration. Below are :mod:`rucio_cs3.cs3.http.connections` (sockets) and
:mod:`rucio_cs3.cs3.http.answers` (what a server says on them).
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Site
from rucio_cs3.cs3.hosts import is_this_machine
from rucio_cs3.cs3.http.answers import Broken, CutShort, Headers
from rucio_cs3.cs3.http.connection import Pieces, PiecesFailed, Request
from rucio_cs3.cs3.http.connections import Connections, Exchange
from rucio_cs3.cs3.http.dialling import Dialling, NoDescriptors, NotAccepted, NotReached, Origin, Untrusted
from rucio_cs3.cs3.http.retry_after import retry_after_s
from rucio_cs3.cs3.http.wire import FellSilent, StoppedReading
from rucio_cs3.cs3.redaction import without_secrets
from rucio_cs3.cs3.tls import Contexts, explain, is_about_us, warn_of_insecurity

_log = logging.getLogger(__name__)

#: What is kept of an error answer's body for the message, in bytes.
_ERROR_BODY_BYTES = 500

#: A rest of a body that is read only so that the connection can be used again, in bytes.
_REST_BYTES = 64 * 1024

#: Longest silence in what adds nothing to the answer but words, in seconds.
_REST_S = 5.0

#: Longest that a document of some KiB may take, in seconds: one byte now and then is no silence, and would last for
#: days.
WORDS_S = 60.0

#: How long bytes that have come may wait for more, in seconds: whoever they are for may have a clock, too.
_GATHER_S = 1.0

#: Sent with every request; names that a caller gives, too, are the caller's.
_DEFAULT_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "rucio-cs3"}

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Not the callers' to say.
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})

#: Characters that end a header or the head, and others that none may have (RFC 9110, 5.5).
_CONTROLS = bytes({*range(0x20), 0x7F} - {ord("\t")})
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{0,5})?")
_NO_URL = re.compile(r"[\x00-\x1f\x7f\\]")

#: What a URL may have as it is; all else is written in percents (RFC 3986, appendix A).
_URL_SAFE = "%/:?#[]@!$&'()*+,;=-._~"


class Answer:
    """A server's answer, whose body is read as the caller asks for it. For one thread, and within its request.

    All reading raises DeadlineExceeded for silence and TransferInterrupted for a body that ends before its end.

    :param call: the request that it answers.
    """

    def __init__(self, exchange: Exchange, call: _Call) -> None:
        self.status_code: int = exchange.head.status
        self.reason: str = exchange.head.reason
        #: By name, in any case.
        self.headers: Headers = exchange.head.headers
        self._body = exchange.body
        self._exchange = exchange
        self._call = call
        self._failure: errors.CS3Error | None = None

    @property
    def length(self) -> int | None:
        """Bytes that the body was announced to have; None where that is not known before its end."""
        return self._body.length

    @property
    def is_from_here(self) -> bool:
        """Whether it is this machine that answers, as far as is known."""
        return is_this_machine(self._exchange.peer)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, or what the rest of the body takes of it, or what comes within a second; 0 is the end.

        Bytes that came before a failure are handed out; the next call raises it.
        """
        filled = self._readinto1(buffer)
        if not filled or filled == len(buffer):
            return filled
        until = time.monotonic() + _GATHER_S
        while filled < len(buffer):
            left_s = until - time.monotonic()
            count = self._more(buffer[filled:], left_s) if left_s > 0 else 0
            if not count:
                break
            filled += count
        return filled

    def _more(self, buffer: memoryview, within_s: float) -> int:
        """What comes within a short time; 0 where nothing does, or only an end or a failure for the next call."""
        if self._body.between_chunks and not self._body.is_next_chunk(self._exchange.held()):
            # Whoever gives up within a chunk's length cannot go on.
            return 0
        silence_s = self._exchange.wait_for(within_s)
        try:
            return self._body.readinto1(buffer)
        except FellSilent:
            return 0
        except _FAILURES as exc:
            self._failure = self._call.failure(exc)
            return 0
        finally:
            self._exchange.wait_for(silence_s)

    def read(self, size: int, /) -> bytes:
        """So many bytes, or what there is of them until the end of the body; for what a server says, not for data.

        :raises DeadlineExceeded: also when it takes over :data:`WORDS_S` in all.
        """
        buffer = memoryview(bytearray(size))
        filled = 0
        until = time.monotonic() + WORDS_S
        while filled < size and (count := self.readinto(buffer[filled:])):
            filled += count
            if time.monotonic() > until:
                raise self._call.error(
                    errors.DeadlineExceeded, f"{self._call.host} has not ended its answer in {WORDS_S:.0f} s"
                )
        return bytes(buffer[:filled])

    def read_some(self, size: int, /) -> bytes:
        """What has come already, at most so many bytes; waits only where nothing has. Empty is the end."""
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self._readinto1(buffer)])

    def _readinto1(self, buffer: memoryview) -> int:
        if self._failure is not None:
            raise self._failure
        try:
            return self._body.readinto1(buffer)
        except _FAILURES as exc:
            raise self._call.failure(exc) from None

    def hurry(self) -> None:
        """The rest is worth no more than some seconds of waiting."""
        self._exchange.hurry(_REST_S)

    def without_secrets(self, words: str) -> str:
        """A server's words, without what it was told in confidence by the request."""
        return without_secrets(words, self._call.headers, self._call.url)


class HTTPClient:
    """All HTTP requests to one site; safe for many threads, and across forks.

    :param endpoint: its TLS settings and timeouts.
    """

    def __init__(self, endpoint: Site) -> None:
        self._endpoint = endpoint
        self._connections = Connections(Dialling(Contexts(endpoint), endpoint.timeouts.connect_s).dial)
        warn_of_insecurity(endpoint)

    @property
    def site(self) -> Site:
        """The settings."""
        return self._endpoint

    def close(self) -> None:
        """Close idle connections."""
        self._connections.close()

    def break_off(self) -> None:
        """Break the connections of all requests under way, from whatever thread: each fails as one whose connection
        broke (TransferInterrupted). For a process that is about to end.
        """
        self._connections.break_off()

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        target: str,
        body: Pieces | bytes | None = None,
        idle_timeout_s: float | None = None,
        patience_s: float = 0.0,
        never_here: bool = False,
    ) -> Iterator[Answer]:
        """Send one request and hand out its answer, whose body is not read yet.

        An answer that comes before all of the body was sent counts, and ends the sending.

        :param target: what messages call the place; the URL itself may hold a transfer token.
        :param body: what comes out of its reading as an error comes through as it is.
        :param idle_timeout_s: longest silence before and in the answer, where shorter than the endpoint's.
        :param patience_s: so much longer than that; for a server that has much to do before it answers.
        :param never_here: not to this machine, whatever the host's name leads to.
        :raises CS3Error: when no answer comes.
        """
        timeouts = self._endpoint.timeouts
        place = _place(url)
        if place is None:
            raise errors.ProtocolViolation(
                "the URL to ask, which a server gave, is none", operation=method, target=target
            )
        if not place.origin.secure:
            self._endpoint.refuse_plaintext(place.name, place.origin.host)
        call = _Call(method, target, url, headers, place.name, time.monotonic())
        sent = b"" if body is None else body
        origin = place.origin._replace(never_here=never_here)
        request = Request(
            method=method,
            head=_head(call, place, None if body is None and method in ("GET", "HEAD") else len(sent)),
            body=sent,
            asks_first=any(name.lower() == "expect" for name in headers),
            silence_s=min(idle_timeout_s or timeouts.idle_s, timeouts.idle_s) + patience_s,
            standstill_s=timeouts.idle_s,
        )
        try:
            exchange = self._connections.exchange(origin, request)
        except PiecesFailed as exc:
            raise exc.error from None
        except _FAILURES as exc:
            raise call.failure(exc) from None
        try:
            yield Answer(exchange, call)
        finally:
            exchange.done()


def http_error(answer: Answer, operation: str, target: str) -> errors.CS3Error:
    """The error of an answer, with the server's own words where it gave some, without the request's secrets."""
    buffer = memoryview(bytearray(_ERROR_BODY_BYTES))
    count = 0
    answer.hurry()
    with contextlib.suppress(errors.DeadlineExceeded, errors.TransferInterrupted):
        # The first bytes only: an error page may be endless.
        count = answer.readinto(buffer)
    status = answer.status_code
    words, reason, trace = (
        answer.without_secrets(said)
        for said in (
            " ".join(str(buffer[:count], "utf-8", "replace").split()),
            answer.reason,
            answer.headers.get("X-Request-Id", ""),
        )
    )
    message = f"the server answered {status} {reason}".rstrip()
    if 300 <= status < 400:
        message += "; redirects are not followed, because they would carry the token to another place"
    elif words and "<" not in words and "Content-Encoding" not in answer.headers:
        message += f": {words}"
    return errors.for_http_status(status)(
        message,
        operation=operation,
        target=target,
        code=f"HTTP {status}",
        trace=trace or None,
        retryable=None if status != 500 else False,
        retry_after_s=retry_after_s(answer.headers) if status in (429, 503) else None,
    )


def drain(answer: Answer) -> None:
    """Read a small rest, so that the connection can be used again."""
    if answer.length is not None and not 0 < answer.length <= _REST_BYTES:
        return
    answer.hurry()
    left = memoryview(bytearray(_REST_BYTES if answer.length is None else answer.length))
    until = time.monotonic() + _REST_S
    # What was asked for has been said; a connection that breaks now is closed, as one with a long rest is.
    with contextlib.suppress(errors.DeadlineExceeded, errors.TransferInterrupted):
        while left and time.monotonic() < until and (count := answer.readinto(left)):
            left = left[count:]


#: Everything that a connection raises.
_FAILURES = (Broken, FellSilent, StoppedReading, NotReached, NotAccepted, OSError)


class _Call(NamedTuple):
    """One request as messages tell it.

    :param host: with its port.
    :param since: when it began, by the monotonic clock, in seconds.
    """

    method: str
    target: str
    url: str
    headers: Mapping[str, str]
    host: str
    since: float

    def __repr__(self) -> str:
        # The headers have tokens, and the URL may.
        return f"<_Call {self.method} {self.target}>"

    def error(self, kind: type[errors.CS3Error], message: str) -> errors.CS3Error:
        return kind(message, operation=self.method, target=self.target)

    def failure(self, exc: Exception) -> errors.CS3Error:
        """What went wrong with it, in our words: those of libraries may hold a URL, and that a transfer token."""
        host, waited_s = self.host, time.monotonic() - self.since
        if isinstance(exc, Untrusted):
            return self.error(errors.ConfigurationError, f"TLS with {host} failed: {exc.reason}")
        if isinstance(exc, ssl.SSLError) and is_about_us(exc):
            return self.error(errors.ConfigurationError, f"TLS with {host} failed: {explain(exc)}")
        if isinstance(exc, NoDescriptors):
            return self.error(errors.LocalError, f"no connection to {host} can be opened on this side: {exc.reason}")
        if isinstance(exc, NotReached):
            return self.error(errors.Unavailable, f"{host} cannot be reached: {exc.reason}")
        if isinstance(exc, NotAccepted):
            return self.error(errors.DeadlineExceeded, f"{host} did not accept a connection in time")
        if isinstance(exc, FellSilent):
            return self.error(errors.DeadlineExceeded, f"{host} fell silent (after {waited_s:.0f} s in all)")
        if isinstance(exc, StoppedReading):
            return self.error(errors.DeadlineExceeded, f"{host} stopped reading (after {waited_s:.0f} s in all)")
        if isinstance(exc, CutShort):
            return self.error(
                errors.TransferInterrupted, f"the connection ended after {exc.received} of {exc.announced} bytes"
            )
        if isinstance(exc, Broken):
            reason = exc.reason
        else:
            reason = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
        return self.error(errors.TransferInterrupted, f"the connection to {host} broke: {reason}")


class _Place(NamedTuple):
    """A URL, taken apart.

    :param name: host and port as messages and the header ``Host`` name them.
    :param path: with the query, as it is sent.
    """

    origin: Origin
    name: str
    path: str


def _place(url: str) -> _Place | None:
    """Where a request goes to; None for what is no URL, of which nothing is said."""
    if _NO_URL.search(url):
        # Before urlsplit, which passes over line breaks.
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        name = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in ("http", "https") or not host or not _HOST_AND_PORT.fullmatch(name):
        return None
    secure = parts.scheme == "https"
    path = quote(parts.path or "/", safe=_URL_SAFE) + (f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else "")
    return _Place(Origin(secure, host, (443 if secure else 80) if port is None else port), name, path)


def _head(call: _Call, place: _Place, length: int | None) -> bytes:
    """The head of a request, with the empty line.

    :param length: of its body in bytes; None where it can have none.
    :raises InvalidRequest: for a header that would be more than one, or is none; its value is not told.
    """
    given = {name.lower() for name in call.headers}
    fields = [("Host", place.name)]
    fields += [(name, value) for name, value in _DEFAULT_HEADERS.items() if name.lower() not in given]
    fields += [(name, value) for name, value in call.headers.items() if name.lower() not in _OURS]
    if length is not None:
        fields.append(("Content-Length", str(length)))
    lines = [f"{call.method} {place.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    try:
        head = "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        head = b""
    # All of it at once, because tokens are long: nothing but the ends of our own lines may be left out.
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * (len(lines) - 1) or not all(
        _NAME.fullmatch(name) for name, _ in fields
    ):
        raise call.error(errors.InvalidRequest, "a header of the request has characters that no header may have")
    return head
