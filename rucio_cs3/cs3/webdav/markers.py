"""The body of a COPY's answer: performance markers, then a line with the outcome. Pure, and never waits.

Read next: :mod:`rucio_cs3.cs3.webdav.tpc`, which drives it over HTTP. *An outcome is a claim, not a proof*: Reva
v3.12.1 writes ``success: Created`` after a failed inner PUT, too.

What the servers write differs, and no two follow one text:

- Reva v3.12.1 (``ocdav/tpc.go``): "Strip Index" where others have "Stripe Index", the bytes before it, and markers
  only while bytes flow.
- XRootD 5.5.3 (seen): the index before the bytes, "RemoteConnections", and a marker every 5 s even when nothing
  moves; the outcome has no line end.
- dCache (``RemoteTransferHandler.java``): indented, a dozen more fields (dCache#7058 adds others), no bytes at all
  while a transfer waits in a queue, and no marker for a short file (dCache#7441).
- StoRM WebDAV (``TransferStatus.java``): time stamps in milliseconds; the outcome has no line end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rucio_cs3.cs3 import errors

#: A line of a marker is some 50 bytes, one of a failure some hundred; who sends longer ones sends something else.
LINE_MAX_BYTES = 8192

#: Longest report, in bytes more than it says have arrived: dCache's markers have one KiB and come every 5 s, so that
#: this is more than three days in which nothing moves, and with a marker for each of ten stripes nine hours.
REPORT_MAX_BYTES = 64 * 1024 * 1024

#: Most stripes whose bytes are added up. A hostile server could name a new one in each marker; real ones have a few.
_STRIPES_MAX = 1024

#: What is kept of a line that nobody knows, in characters.
_WORDS_MAX = 200

_STRIPE = re.compile(r"stripe? index\s*:\s*(\d{1,18})\b", re.ASCII | re.IGNORECASE)
_BYTES = re.compile(r"stripe? bytes transferred\s*:\s*(\d{1,18})\b", re.ASCII | re.IGNORECASE)
# Success only as the word by itself; of anything that begins like a failure, failure is believed.
_OUTCOME = re.compile(
    r"(?:(success)(?=\s*(?::|$))|(?:failure|failed|aborted)\b)\s*:?\s*(.*)", re.ASCII | re.IGNORECASE | re.DOTALL
)
_BEGIN = re.compile(r"perf marker\b", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Marker:
    """One performance marker: bytes that have arrived so far, over all stripes; never fewer than in the one before."""

    transferred_bytes: int


@dataclass(frozen=True)
class Outcome:
    """The last line: what the server claims."""

    success: bool
    message: str


class MarkerParser:
    """Reads a COPY's body piece by piece, in bounded memory. Unknown lines are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._inside = False
        self._stripe = 0
        self._bytes: int | None = None
        self._bytes_by_stripe: dict[int, int] = {}
        self._total = self._sum = 0
        self._left = REPORT_MAX_BYTES
        #: What the server claims; None until it has.
        self.outcome: Outcome | None = None
        #: Whether anything was read that only a third-party copy says.
        self.began = False
        #: The last line outside of a marker that means nothing here. XRootD up to 5.6 writes some failures of its
        #: own as bare text (``XrdTpcTPC.cc``: "Internal server error due to libcurl").
        self.unknown = ""

    def feed(self, data: bytes) -> list[Marker]:
        """Take the next piece of the body.

        :returns: the markers that it completed; nothing after the outcome counts.
        :raises ProtocolViolation: for a line over 8 KiB, or a report over :data:`REPORT_MAX_BYTES`.
        """
        markers: list[Marker] = []
        if self.outcome is not None:
            return markers
        before = self._total
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line, markers)
        if self.outcome is not None:
            self._rest = b""
            return markers
        _check_length(self._rest)
        # A copy that moves is a living one, however long it takes; a byte with each marker is no copy.
        self._left = min(self._left - len(data) + self._total - before, REPORT_MAX_BYTES)
        if self._left < 0:
            raise errors.ProtocolViolation(
                f"the server's progress report has no end: it is over {REPORT_MAX_BYTES >> 20} MiB longer than what it "
                "says has moved"
            )
        return markers

    def close(self) -> list[Marker]:
        """The body has ended; the last line may lack its end.

        :returns: the marker that this completed, if any.
        """
        markers: list[Marker] = []
        rest, self._rest = self._rest, b""
        self._take(rest, markers)
        return markers

    def _take(self, line: bytes, markers: list[Marker]) -> None:
        if self.outcome is not None:
            return
        _check_length(line)
        marker = self._line(line.decode("utf-8", "replace").strip())
        if marker is not None:
            markers.append(marker)

    def _line(self, line: str) -> Marker | None:
        if outcome := _OUTCOME.match(line):
            self.began = True
            self.outcome = Outcome(outcome[1] is not None, outcome[2].strip() or line)
            return self._end()
        if _BEGIN.match(line):
            # A marker that was not ended counts all the same.
            marker = self._end()
            self.began = self._inside = True
            return marker
        if not self._inside:
            self.unknown = line[:_WORDS_MAX] or self.unknown
        elif match := _STRIPE.match(line):
            self._stripe = int(match[1])
        elif match := _BYTES.match(line):
            # Reva names the bytes before the stripe, others after it: both count when the marker ends.
            self._bytes = int(match[1])
        elif line.lower() == "end":
            return self._end()
        return None

    def _end(self) -> Marker | None:
        """End the marker that is being read, if there is one."""
        if not self._inside:
            return None
        if self._bytes is not None and (len(self._bytes_by_stripe) < _STRIPES_MAX or self._known(self._stripe)):
            self._sum += self._bytes - self._bytes_by_stripe.get(self._stripe, 0)
            self._bytes_by_stripe[self._stripe] = self._bytes
        self._inside, self._stripe, self._bytes = False, 0, None
        # A stripe that begins anew does not take back what was told already.
        self._total = max(self._total, self._sum)
        return Marker(self._total)

    def _known(self, stripe: int) -> bool:
        return stripe in self._bytes_by_stripe


def _check_length(line: bytes) -> None:
    if len(line) > LINE_MAX_BYTES:
        raise errors.ProtocolViolation("the server's progress report has a line over 8 KiB")
