"""How far a server's clock is from ours, by the header ``Date`` of an HTTP answer.

Web servers send it with every answer (RFC 9110, 6.6.1), in whole seconds; so what is known is a second wide, and as
much more as the round trip took. Where another machine than the storage answers, its clock is what is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.http.retry_after import http_date
from rucio_cs3.cs3.reference import Reference

#: Longest that a server may take for the one answer, in seconds.
_PATIENCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ClockOffset:
    """The server's clock minus ours, in seconds: between these two."""

    least_s: float
    most_s: float


def clock_offset(http: HTTPClient, endpoint: Endpoint) -> ClockOffset | None:
    """Ask a server for its time, without a login; None where it does not say it."""
    url = endpoint.webdav.url(Reference(endpoint.root))
    began_s, began = time.time(), time.monotonic()
    try:
        with http.request("OPTIONS", url, headers={}, target=url, idle_timeout_s=_PATIENCE_S) as answer:
            said = http_date(answer.headers.get("Date", ""))
    except errors.CS3Error:
        return None
    ended_s = time.time()
    # Ours may have been set meanwhile.
    if said is None or abs((ended_s - began_s) - (time.monotonic() - began)) > 0.1:
        return None
    at_s = said.timestamp()
    return ClockOffset(least_s=at_s - ended_s, most_s=at_s + 1.0 - began_s)
