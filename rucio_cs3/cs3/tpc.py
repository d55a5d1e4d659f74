"""HTTP third-party copy: one WebDAV server fetches a file from another by itself.

:class:`MarkerParser` is sans-I/O and knows the answer's body; :func:`pull` drives it over HTTP.
The dialect is WLCG's (COPY with ``Source``, 202, performance markers, a last line with the outcome),
as Reva v3.12.1 ocdav speaks it. *Success here is a claim, not a proof*: Reva writes ``success: Created``
after a failed inner PUT, too, so the caller must look at the destination over CS3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.data_gateway import HTTPClient, http_error

#: Reva, dCache and XRootD send a marker every 5 s; a server silent for this long is gone.
MARKER_TIMEOUT_S = 120.0

#: A line of a marker is some 50 bytes; a server that sends longer ones sends something else.
_LINE_MAX_BYTES = 8192

#: Most stripes whose bytes are added up.
_STRIPES_MAX = 1024

_STRIPE = re.compile(r"stripe? index:\s*(\d{1,18})\b")
_BYTES = re.compile(r"stripe? bytes transferred:\s*(\d{1,18})\b")


@dataclass(frozen=True)
class Marker:
    """One performance marker: bytes that have arrived so far, over all stripes."""

    transferred_bytes: int


@dataclass(frozen=True)
class Outcome:
    """The last line: what the server claims."""

    success: bool
    message: str


class MarkerParser:
    """Reads a COPY's 202 body piece by piece.

    Tolerant by design: Reva writes "Strip Index" where others write "Stripe Index", dCache adds fields
    (dcache#7058), short files have no marker at all (dcache#7441). Unknown lines are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._stripe = self._bytes = 0
        self._bytes_by_stripe: dict[int, int] = {}
        self.outcome: Outcome | None = None

    def feed(self, data: bytes) -> list[Marker]:
        """Take the next piece of the body.

        :returns: the markers that it completed; nothing after the outcome counts.
        :raises ProtocolViolation: for a line over 8 KiB.
        """
        markers = []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX_BYTES or any(len(line) > _LINE_MAX_BYTES for line in lines):
            raise errors.ProtocolViolation("the server's progress report has a line over 8 KiB")
        for line in lines:
            marker = self._line(line.decode("utf-8", "replace").strip())
            if marker is not None:
                markers.append(marker)
        return markers

    def close(self) -> None:
        """The body has ended; a last line may lack its newline."""
        rest, self._rest = self._rest, b""
        self._line(rest.decode("utf-8", "replace").strip())

    def _line(self, line: str) -> Marker | None:
        if self.outcome is not None:
            return None
        lowered = line.lower()
        if lowered.startswith(("success", "failure", "failed")):
            message = line.partition(":")[2].strip() or line
            self.outcome = Outcome(lowered.startswith("success"), message)
        elif lowered == "perf marker":
            self._stripe = self._bytes = 0
        elif match := _STRIPE.match(lowered):
            self._stripe = int(match[1])
        elif match := _BYTES.match(lowered):
            # Reva names the bytes before the stripe, others after it: both count when the marker ends.
            self._bytes = int(match[1])
        elif lowered == "end":
            # A hostile server could name a new stripe in each marker; real ones have a handful.
            if len(self._bytes_by_stripe) < _STRIPES_MAX or self._stripe in self._bytes_by_stripe:
                self._bytes_by_stripe[self._stripe] = self._bytes
            return Marker(sum(self._bytes_by_stripe.values()))
        return None


def pull(
    http: HTTPClient,
    *,
    source_url: str,
    destination_url: str,
    source_token: str,
    destination_token: str,
    on_marker: Callable[[Marker], None] | None = None,
) -> None:
    """Have the destination fetch the file from the source; returns when the destination claims success.

    Nothing that stands at the destination is replaced (``Overwrite: F``), and the source is only read.

    :param http: HTTP client of the destination's endpoint.
    :param source_token: goes to the destination as ``TransferHeaderAuthorization``, and from it to the source.
    :param on_marker: called in this thread for each performance marker.
    :raises AlreadyExists: when something stands at the destination (412).
    :raises Unsupported: when the destination does not do third-party copies (Reva without ``enable_http_tpc``: 400).
    :raises ServerFault: when the copy failed; the message holds the server's words.
    :raises TransferInterrupted: when the answer ended without an outcome.
    :raises ProtocolViolation: for a bare 201 or 204: that is how a server without third-party copy reports
        a copy within itself.
    """
    headers = {
        "Source": source_url,
        "Overwrite": "F",
        "Authorization": f"Bearer {destination_token}",
        "TransferHeaderAuthorization": f"Bearer {source_token}",
    }
    parser = MarkerParser()
    with http.request(
        "COPY", destination_url, headers=headers, target=destination_url, idle_timeout_s=MARKER_TIMEOUT_S
    ) as response:
        if response.status_code != 202:
            raise _refusal(http_error(response, "COPY", destination_url), response.status_code)
        # read1 would be better than one byte count for all; urllib3 1.26 has none, and stream() of a
        # chunked body hands out each chunk as it comes, which is what a marker is.
        for piece in response.raw.stream(_LINE_MAX_BYTES, decode_content=False):
            for marker in parser.feed(piece):
                if on_marker is not None:
                    on_marker(marker)
        parser.close()
    outcome = parser.outcome
    if outcome is None:
        raise errors.TransferInterrupted(
            "the destination's report ended without an outcome", operation="COPY", target=destination_url
        )
    if not outcome.success:
        raise errors.ServerFault(
            f"the destination reports a failed copy from {source_url}: {outcome.message}",
            operation="COPY",
            target=destination_url,
            retryable=True,
        )


def _refusal(error: errors.CS3Error, status: int) -> errors.CS3Error:
    """Say what a COPY's status means, which is not what it means for a GET or PUT."""
    meaning: tuple[type[errors.CS3Error], str] | None = {
        201: (errors.ProtocolViolation, "a bare 201 is what a copy within the server itself looks like"),
        204: (errors.ProtocolViolation, "a bare 204 is what a copy within the server itself looks like"),
        400: (errors.Unsupported, "the destination does no third-party copies (Reva: enable_http_tpc is off)"),
        404: (errors.NotFound, "the source has no such file"),
        412: (errors.AlreadyExists, "something stands at the destination already"),
    }.get(status)
    if meaning is None:
        return error
    kind, message = meaning
    return kind(f"{message}; {error.message}", operation=error.operation, target=error.target, code=error.code)
