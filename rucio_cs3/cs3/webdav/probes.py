"""Which sites have proven that they do third-party copies, asked in a way that can write nothing.

The question is a pull that must be refused: ``COPY <folder>/`` with ``Overwrite: F``, and with a ``Source`` at a host
that cannot exist. Who does third-party copies sees that something stands there, and says 412; who does none looks
for a ``Destination``, and says 400. Each of three things alone keeps anything from being written: the folder stands
there, its name ends in a slash, and the source leads nowhere. A copy to a name that does not exist yet would be a
worse question: XRootD 5.5.3 makes an empty file there before it asks the source, and leaves it.

======================================  ==================  ===========================
Server                                  does TPC            does none
======================================  ==================  ===========================
Reva v3.12.1 (seen)                     412                 400 (``enable_http_tpc`` off)
XRootD 5.5.3 (seen)                     412                 400 (without its TPC library)
OpenCloud (a pull: seen)                                    400
StoRM (``TransferFilterSupport.java``)  412                 (always does)
dCache (``CopyFilter.java``)            400 "Not a file"    (always does)
other WebDAV servers                                        400, 405, 501
======================================  ==================  ===========================

dCache is therefore known by its name. No server is ever asked by a push: without third-party copies that is a copy
within the server, and where the paths are equal it may destroy the file (Reva v3.12.1).

**Why a pull proves pushes, too.** In all of them one switch is for both: Reva's ``handlePathCopy`` (``ocdav/copy.go``)
looks at ``enable_http_tpc`` and then at which of the two headers is there; XRootD's library registers for COPY as a
whole (``XrdTpcTPC.cc``), dCache's and StoRM's filters stand before the WebDAV servlet for both headers.
"""

from __future__ import annotations

import copy
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.http.client import Answer, HTTPClient, http_error
from rucio_cs3.cs3.webdav.markers import LINE_MAX_BYTES, MarkerParser
from rucio_cs3.cs3.webdav.tpc import ask_to_copy, stands

_log = logging.getLogger(__name__)

#: How long a yes holds, in seconds. Nobody switches it off in daily work, and a refused copy tells at once.
YES_S = 3600.0

#: How long a no holds, in seconds: all bytes pass through the agent meanwhile, and a probe is one request.
NO_S = 600.0

#: Longest that a site is not believed whose probes say yes and whose copies say no, in seconds.
DISPROVED_MAX_S = 86_400.0

#: Longest silence of a server that is asked, in seconds. It has next to nothing to do.
PROBE_TIMEOUT_S = 30.0

#: Longest time for its report, in seconds: while it looks for the source, which a slow resolver takes long for, there
#: is a marker now and then.
REPORT_S = 120.0

#: Longest report on a copy of nothing, in bytes: some markers.
_REPORT_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class _Answer:
    """
    :param since: by the monotonic clock, as is ``until``.
    :param disproved: how often in a row copies have shown the opposite of a yes.
    """

    speaks: bool
    since: float
    until: float
    disproved: int = 0

    def holds(self, now: float, max_age_s: float | None) -> bool:
        """Whether nobody has to be asked again."""
        fresh = not self.speaks or max_age_s is None or now - self.since <= max_age_s
        return fresh and now < self.until


class TPCProbes:
    """Answers by URL, kept for a while; for all threads of a process. Survives a fork: the child knows what its
    parent knew.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._renew()
        # A lock that another thread held at the fork would never be released in the child, and a probe that it
        # was waiting for would never come back.
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._asking: dict[str, Future[bool]] = {}

    def ask(self, http: HTTPClient, base_url: str, authorization: str, *, max_age_s: float | None = None) -> bool:
        """Whether a WebDAV server copies to and from other sites by itself.

        One request for each URL and :data:`YES_S` (or :data:`NO_S`), however many threads ask.

        :param http: HTTP client of the site.
        :param base_url: of a folder that exists there.
        :param authorization: header value that lets its bearer write there; some servers look at it first.
        :param max_age_s: a yes that is older is asked for again, in seconds; to be given where it is dangerous to
            believe one that is over, as before a push.
        :raises CS3Error: when it cannot be found out now; that is not remembered.
        """
        url = _folder(base_url)
        with self._lock:
            known, now = self._answers.get(url), self._clock()
            if known is not None and known.holds(now, max_age_s):
                return known.speaks
            running = self._asking.get(url)
            mine: Future[bool] = Future()
            if running is None:
                self._asking[url] = mine
        if running is not None:
            try:
                return running.result()
            except errors.CS3Error as exc:
                # One exception raised in many threads would collect all their tracebacks.
                raise copy.copy(exc) from exc
        try:
            speaks = _ask(http, url, authorization)
        except BaseException as exc:
            self._finish(url, mine)
            mine.set_exception(exc if isinstance(exc, errors.CS3Error) else _interrupted(url))
            raise
        _log.info("%s: %s third-party copies", url, "does" if speaks else "does no")
        # A yes that was never disproved in all its time is believed as if it were the first.
        disproved = 0 if known is None or known.speaks else known.disproved
        now = self._clock()
        until = now + (YES_S if speaks else NO_S)
        self._finish(url, mine, _Answer(speaks, now, until, disproved))
        mine.set_result(speaks)
        return speaks

    def note(self, base_url: str, *, speaks: bool) -> None:
        """What a copy has just shown.

        A no counts for :data:`NO_S`, and for twice as long each time that a probe says yes in between: its answer
        is no good there.
        """
        url = _folder(base_url)
        with self._lock:
            known, now = self._answers.get(url), self._clock()
            disproved = 0 if known is None or speaks else known.disproved
            if speaks:
                self._answers[url] = _Answer(True, now, now + YES_S)
            # Many copies that were under way say the same at once; that is one time.
            elif known is None or known.speaks:
                hold_s = min(NO_S * 2**disproved, DISPROVED_MAX_S)
                self._answers[url] = _Answer(False, now, now + hold_s, disproved + 1)

    def _finish(self, url: str, mine: Future[bool], answer: _Answer | None = None) -> None:
        with self._lock:
            # After a fork there may be another, or none.
            if self._asking.get(url) is mine:
                del self._asking[url]
            if answer is not None:
                self._answers[url] = answer


#: The one of this process.
TPC_PROBES = TPCProbes()


def _folder(url: str) -> str:
    """The URL with one slash at its end: no server makes a file of such a name."""
    return f"{url.rstrip('/')}/"


def _interrupted(url: str) -> errors.CS3Error:
    return errors.Cancelled("the thread that was asking was interrupted", operation="COPY", target=url, retryable=True)


def _ask(http: HTTPClient, url: str, authorization: str) -> bool:
    """
    :returns: whether the server does third-party copies.
    :raises CS3Error: when the answer is neither yes nor no.
    """
    headers = {
        # RFC 6761: no host below .invalid will ever exist. Not this site itself: StoRM takes its own URLs for a
        # local copy. It is no secret; random, so that nobody's cache knows it.
        "Source": f"https://{secrets.token_hex(8)}.invalid/nothing",
        "Overwrite": "F",
        "Credential": "none",
        "Authorization": authorization,
    }
    parser = MarkerParser()
    with ask_to_copy(http, url, headers, idle_timeout_s=PROBE_TIMEOUT_S) as response:
        status = response.status_code
        server = response.headers.get("Server", "")
        if 200 <= status < 300:
            _read(response, parser, url)
        else:
            error = http_error(response, "COPY", url)
    if 200 <= status < 300:
        if parser.outcome is not None and not parser.outcome.success:
            return True  # it went to the source, and found none
        raise errors.ProtocolViolation(
            f"the server claims ({status}) to have copied a file that does not exist onto this folder; look at what "
            "stands there now, and set a transfer mode by hand",
            operation="COPY",
            target=url,
        )
    if status == 412 or (status == 400 and server.lower().startswith("dcache")):
        return True
    # A redirect that is not followed is as good as a no: a copy would not be, either.
    if status in (400, 405, 501) or 300 <= status < 400:
        if stands(http, url, authorization) is False:
            # XRootD 5.5.3 with its TPC library says 400 here, too.
            raise _unclear(error, "there is no such folder to ask about")
        return False
    raise _unclear(error, "whether the server does third-party copies cannot be told")


def _read(response: Answer, parser: MarkerParser, url: str) -> None:
    """Read the report of a copy that there is nothing to copy for: it is short, and comes soon.

    :raises ProtocolViolation: for one that is too long.
    :raises DeadlineExceeded: when it takes over :data:`REPORT_S`: the server may be slow today.
    """
    until = time.monotonic() + REPORT_S
    left = _REPORT_MAX_BYTES
    while piece := response.read_some(LINE_MAX_BYTES):
        parser.feed(piece)
        left -= len(piece)
        if parser.outcome is not None:
            return
        if left < 0:
            raise errors.ProtocolViolation(
                "the server's report on a copy of nothing has no end", operation="COPY", target=url
            )
        if time.monotonic() > until:
            raise errors.DeadlineExceeded(
                f"the server's report on a copy of nothing has not ended in {REPORT_S:.0f} s",
                operation="COPY",
                target=url,
            )
    parser.close()


def _unclear(error: errors.CS3Error, why: str) -> errors.CS3Error:
    # Never NotFound: that would be taken for the file's.
    kind = type(error) if not isinstance(error, (errors.NotFound, errors.Unsupported)) else errors.PreconditionFailed
    return kind(
        f"{why}; {error.message}",
        operation=error.operation,
        target=error.target,
        code=error.code,
        trace=error.trace,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
    )
