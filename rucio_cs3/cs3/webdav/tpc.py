"""HTTP third-party copy: one WebDAV server brings a file to or from another by itself.

:func:`pull` and :func:`push` are one request with the roles changed. The dialect is WLCG's: ``COPY`` with ``Source``
(sent to the destination) or ``Destination`` (sent to the source), and an answer that reports as it goes
(:mod:`rucio_cs3.cs3.webdav.markers`). *Success here is a claim, not a proof*: Reva v3.12.1 claims it after a failed
inner PUT, so the caller must look at the destination.

Which servers may be asked at all: :mod:`rucio_cs3.cs3.webdav.probes`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urljoin, urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.confidential import Confidential
from rucio_cs3.cs3.hidden_names import is_part
from rucio_cs3.cs3.http.client import Answer, HTTPClient, drain, http_error
from rucio_cs3.cs3.webdav.markers import LINE_MAX_BYTES, Marker, MarkerParser

#: Seconds of silence after which a server is gone. Reva v3.12.1, dCache and XRootD send a marker every 5 s; Reva
#: is silent until the source's first byte, too.
MARKER_TIMEOUT_S = 120.0

#: Seconds without one more byte after which a copy is stalled, though markers come: XRootD 5.5.3 was seen to send
#: them all the while that its peer said nothing. A server that computes the checksum of a large file after its last
#: byte, or has a transfer wait in its queue (dCache), needs minutes.
STALL_S = 900.0

#: Asked of every server in the same way; those that know no such header pass it over.
_COMMON_HEADERS = {
    # Reva v3.12.1 and XRootD 5.5.3 were seen to look at it for a pull only: see push().
    "Overwrite": "F",
    # dCache would exchange the token at an issuer, and XRootD takes nothing but this word.
    "Credential": "none",
    # dCache and StoRM fail a copy by themselves where the other side states no checksum, as Reva's `local` driver
    # does; whether the file is right is for the caller to prove.
    "RequireChecksumVerification": "false",
}

#: Answers that may hold a report: XRootD up to 5.8 says 201 before it begins (xrootd#2625), all others 202.
_REPORTING = frozenset({200, 201, 202})

#: The word for "refused, and nothing was written". 400: Reva v3.12.1 without ``enable_http_tpc`` (pull), OpenCloud,
#: XRootD without its TPC library, and XRootD with it where a file cannot be opened. 405 and 501: plain WebDAV servers.
_REFUSED = frozenset({400, 405, 501})

#: Levels of head nodes before the server that copies: XRootD and EOS send the client on by 307.
_REDIRECTS_MAX = 3
_REDIRECTS = frozenset({301, 302, 307, 308})

#: Longest silence of a server that is asked whether something stands there, in seconds.
_LOOK_TIMEOUT_S = 30.0

Progress = Callable[[Marker], None]


def pull(
    http: HTTPClient,
    *,
    source_url: str,
    destination_url: str,
    source_authorization: str,
    destination_authorization: str,
    on_marker: Progress | None = None,
) -> None:
    """Have the destination fetch the file from the source; returns when the destination claims success.

    Nothing that stands at the destination is replaced (``Overwrite: F``), and the source is only read. After a
    failure XRootD 5.5.3 leaves what it has, often an empty file; Reva v3.12.1 leaves a stub where the source broke off.

    :param http: HTTP client of the destination's endpoint.
    :param source_authorization: header value; goes to the destination as ``TransferHeaderAuthorization``, and from
        it to the source.
    :param on_marker: called in this thread for each performance marker; what it raises ends the copy.
    :raises AlreadyExists: when something stands at the destination.
    :raises Unsupported: when the destination refused before anything was written: it does no third-party copies.
    :raises NotFound: when the destination found no such file at the source.
    :raises ServerFault: when the copy failed; the message holds the server's words.
    :raises DeadlineExceeded: when the server is silent, or no byte has moved for :data:`STALL_S`.
    :raises TransferInterrupted: when the answer ended without an outcome.
    :raises ProtocolViolation: for a bare 201 or 204: that is how a server without third-party copy reports
        a copy within itself.
    """
    request = _Request(
        actor="destination",
        url=destination_url,
        authorization=destination_authorization,
        other_url=source_url,
        other_authorization=source_authorization,
    )
    _copy(http, request, on_marker)


def push(
    http: HTTPClient,
    *,
    source_url: str,
    destination_url: str,
    source_authorization: str,
    destination_authorization: str,
    on_marker: Progress | None = None,
) -> None:
    """Have the source send the file to the destination; returns when the source claims success.

    To be called only for a source that has proven that it does third-party copies: any other takes the request for a
    copy within itself, the destination's host being ignored. ``Overwrite: F`` is what saves the file where the paths
    are equal (Reva v3.12.1: with ``T`` it deletes first what it is to read then).

    *What stands at the destination is not safe*: neither Reva v3.12.1 nor XRootD 5.5.3 looks at ``Overwrite`` in a
    push, nor has either anything to tell the other server with. So the destination has to be a name that nobody has.

    :param http: HTTP client of the source's endpoint.
    :param destination_authorization: header value; goes to the source as ``TransferHeaderAuthorization``, and from
        it to the destination.
    :param on_marker: as for :func:`pull`.
    :raises Unsupported: when the source refused before anything was written, or shows that it took the request for
        a copy within itself, which could not be made.
    :raises ProtocolViolation: for a bare 201 or 204: a copy within the source was made. It is removed again where it
        has a name that only this package gives, and named by the message otherwise.
    :raises TransferInterrupted: when the answer ended without an outcome; for Reva v3.12.1 also when the source has
        no such file (it breaks the connection), or the destination cannot be reached.
    :raises CS3Error: otherwise as for :func:`pull`.
    """
    request = _Request(
        actor="source",
        url=source_url,
        authorization=source_authorization,
        other_url=destination_url,
        other_authorization=destination_authorization,
    )
    _copy(http, request, on_marker)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request(Confidential):
    """One COPY.

    :param actor: which side is asked; it moves the bytes.
    :param url: of the file there.
    """

    actor: Literal["destination", "source"]
    url: str
    authorization: str = field(repr=False)
    other_url: str
    other_authorization: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {
            **_COMMON_HEADERS,
            "Source" if self.actor == "destination" else "Destination": self.other_url,
            "Authorization": self.authorization,
            "TransferHeaderAuthorization": self.other_authorization,
        }

    @property
    def stray_url(self) -> str:
        """Where a copy within the source itself would go: the destination's path, at the source's host."""
        return urlsplit(self.url)._replace(path=urlsplit(self.other_url).path, query="", fragment="").geturl()

    def error(self, kind: type[errors.CS3Error], message: str) -> errors.CS3Error:
        return kind(message, operation="COPY", target=self.url)


def _copy(http: HTTPClient, request: _Request, on_marker: Progress | None) -> None:
    """Send the COPY and read its report.

    :raises CS3Error: unless the server claims success.
    """
    parser = MarkerParser()
    refusal: errors.CS3Error | None = None
    with ask_to_copy(http, request.url, request.headers, idle_timeout_s=MARKER_TIMEOUT_S) as response:
        status = response.status_code
        if status in _REPORTING:
            _read(response, parser, request, on_marker)
        elif not 200 <= status < 300:
            refusal = http_error(response, "COPY", request.url)
    # The connection is free again, and may be needed to tell what a refusal means.
    if refusal is not None:
        raise _refused(http, request, status, refusal) from None

    outcome = parser.outcome
    if outcome is None and not parser.began and status != 202:
        raise request.error(errors.ProtocolViolation, _bare(http, request, status))
    if outcome is None:
        words = f"; its last words: {response.without_secrets(parser.unknown)}" if parser.unknown else ""
        raise request.error(errors.TransferInterrupted, f"the {request.actor}'s report ended without an outcome{words}")
    if not outcome.success:
        error = request.error(
            errors.ServerFault,
            f"the {request.actor} reports a failed copy, {_way(request)}: {response.without_secrets(outcome.message)}",
        )
        error.retryable = True
        raise error


@contextlib.contextmanager
def ask_to_copy(http: HTTPClient, url: str, headers: Mapping[str, str], *, idle_timeout_s: float) -> Iterator[Answer]:
    """Send a COPY, and hand out the answer of the server that does it.

    A head node may send the client on to its own host and port and to the site's ``data_hosts``, and no further: the
    tokens of both sites go along. What leads elsewhere is handed out as it is. A URL that a server names may hold a
    token, so messages have the first one only.
    """
    following = url
    for level in range(_REDIRECTS_MAX + 1):
        with http.request("COPY", following, headers=headers, target=url, idle_timeout_s=idle_timeout_s) as response:
            location = response.headers.get("Location") if response.status_code in _REDIRECTS else None
            following = _within_site(http, following, location) if location else ""
            if not following or level == _REDIRECTS_MAX:
                yield response
                return


def _within_site(http: HTTPClient, url: str, location: str) -> str:
    """The URL that a redirect leads to; empty where it must not be followed."""
    try:
        return http.site.check_redirect(url, urljoin(url, location))
    except (errors.ProtocolViolation, ValueError):  # ValueError: of urljoin, for what is no URL
        return ""


def _way(request: _Request) -> str:
    return f"{'from' if request.actor == 'destination' else 'to'} {request.other_url}"


def _bare(http: HTTPClient, request: _Request, status: int) -> str:
    message = (
        f"the {request.actor} answered a bare {status}: that is what a copy within the server itself looks like, "
        "not a copy from one site to another"
    )
    if request.actor == "destination" or status == 200:
        return message
    stray = unquote(urlsplit(request.stray_url).path)
    if stray == unquote(urlsplit(request.url).path):
        # The file itself, which nobody is to be sent after.
        return message
    if is_part(stray.rpartition("/")[2]) and _removed(http, request):
        return f"{message}; it is removed again"
    return f"{message}; a copy of the file may now stand at {request.stray_url}, where it does not belong"


def _removed(http: HTTPClient, request: _Request) -> bool:
    """Whether a copy within the source is gone, whose name nobody else has."""
    url = request.stray_url
    headers = {"Authorization": request.authorization}
    try:
        with http.request("DELETE", url, headers=headers, target=url, idle_timeout_s=_LOOK_TIMEOUT_S) as response:
            return response.status_code in (200, 204, 404)
    except errors.CS3Error:
        # What the copy's answer means is worth more.
        return False


def _read(response: Answer, parser: MarkerParser, request: _Request, on_marker: Progress | None) -> None:
    """Feed the parser until the body ends.

    :raises DeadlineExceeded: when nothing moves any more.
    """
    moved_at = time.monotonic()
    transferred = 0
    while True:
        try:
            piece = response.read_some(LINE_MAX_BYTES)
        except (errors.TransferInterrupted, errors.DeadlineExceeded):
            # What was claimed before the connection broke is as good a claim as any.
            parser.close()
            if parser.outcome is None:
                raise
            return
        markers = parser.feed(piece) if piece else parser.close()
        for marker in markers:
            if on_marker is not None:
                on_marker(marker)
            if marker.transferred_bytes > transferred:
                transferred, moved_at = marker.transferred_bytes, time.monotonic()
        if not piece:
            return
        if parser.outcome is not None:
            # Nothing that follows counts, and it may have no end.
            drain(response)
            return
        still_s = time.monotonic() - moved_at
        if still_s > STALL_S:
            raise request.error(
                errors.DeadlineExceeded,
                f"no byte has moved for {still_s:.0f} s, {_way(request)}, though the {request.actor} keeps reporting; "
                f"it has come to {transferred} bytes",
            )


def _refused(http: HTTPClient, request: _Request, status: int, error: errors.CS3Error) -> errors.CS3Error:
    """Say what a COPY's status means, which is not what it means for a GET or PUT."""
    meaning: tuple[type[errors.CS3Error], str] | None = None
    if status in _REFUSED:
        meaning = (errors.Unsupported, f"the {request.actor} does no third-party copies, or not this one")
    elif 300 <= status < 400:
        meaning = (
            errors.Unsupported,
            f"the {request.actor} sends the client on to another host or port than its own (data_hosts, at an RSE "
            "cs3_data_hosts, names hosts that may get its token)",
        )
    elif status == 404:
        meaning = (errors.NotFound, "the source has no such file")
    elif status == 409 and request.actor == "source":
        # Reva v3.12.1 without TPC: the destination's folder does not exist at the source.
        meaning = (errors.Unsupported, "the source tried a copy within itself")
    elif status == 412 and request.actor == "destination":
        meaning = _precondition_of_pull(http, request)
    elif status == 412:
        meaning = _precondition_of_push(http, request)
    kind, message = type(error), error.message
    if meaning is not None:
        kind, message = meaning[0], f"{meaning[1]}; {error.message}"
    return kind(
        message,
        operation=error.operation,
        target=error.target,
        code=error.code,
        trace=error.trace,
        # StoRM's 412 may be any failure.
        retryable=True if status == 412 and kind is errors.ServerFault else error.retryable,
        retry_after_s=error.retry_after_s,
    )


def _precondition_of_pull(http: HTTPClient, request: _Request) -> tuple[type[errors.CS3Error], str]:
    """412 is the answer to ``Overwrite: F`` where something stands; StoRM says it for a failed copy, too
    (``TransferFilterSupport.java``).
    """
    if stands(http, request.url, request.authorization) is False:
        return errors.ServerFault, f"the copy failed at the destination, {_way(request)}"
    return errors.AlreadyExists, "something stands at the destination already"


def _precondition_of_push(http: HTTPClient, request: _Request) -> tuple[type[errors.CS3Error], str]:
    """412 to a push: a copy within the source that ``Overwrite: F`` prevented, unless nothing could have been in its
    way there. Then it is a copy to the other site that failed.
    """
    if stands(http, request.stray_url, request.authorization) is False:
        return errors.ServerFault, f"the copy failed at the source, {_way(request)}"
    return errors.Unsupported, "the source tried a copy within itself, which Overwrite: F prevented"


def stands(http: HTTPClient, url: str, authorization: str) -> bool | None:
    """Whether something stands at a URL, by a PROPFIND; None when that cannot be told.

    :param authorization: header value.
    """
    headers = {"Authorization": authorization, "Depth": "0"}
    try:
        with http.request("PROPFIND", url, headers=headers, target=url, idle_timeout_s=_LOOK_TIMEOUT_S) as response:
            if response.status_code == 207:
                return True
            return False if response.status_code in (404, 410) else None
    except errors.CS3Error:
        # The answer that was to be understood is what matters.
        return None
