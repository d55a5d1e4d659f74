"""How long a server asks to be left alone."""

from __future__ import annotations

import contextlib
import datetime
import email.utils

import pytest

from rucio_cs3.cs3 import Endpoint, WebDAVBase, errors
from rucio_cs3.cs3.http.client import HTTPClient, http_error
from rucio_cs3.cs3.http.retry_after import RETRY_AFTER_MAX_S
from tests.unit.test_data_gateway import RawServer, says

#: Some moment by the server's clock, which is years behind.
_DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def refused(status: int, *headers: str) -> errors.CS3Error:
    """The error of an answer with these headers."""
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", "Content-Length: 0", *headers])
    with RawServer(says(f"{head}\r\n\r\n".encode("latin-1"))) as server:
        url = f"http://127.0.0.1:{server.port}/x"
        endpoint = Endpoint(name="CLOUD", gateway="127.0.0.1:1", gateway_tls=False, webdav=WebDAVBase.parse(url))
        with (
            contextlib.closing(HTTPClient(endpoint)) as http,
            http.request("COPY", url, headers={}, target=url) as response,
        ):
            return http_error(response, "COPY", url)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("3600", RETRY_AFTER_MAX_S),
        ("3601", RETRY_AFTER_MAX_S),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", RETRY_AFTER_MAX_S),
    ],
)
def test_what_a_server_asks_for(status: int, text: str, seconds: float) -> None:
    error = refused(status, f"Date: {_DATE}", f"Retry-After: {text}")
    assert error.retry_after_s == seconds
    assert error.retryable


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "1e3", "\xb2", "06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT"])
def test_what_means_nothing(text: str) -> None:
    assert refused(503, f"Date: {_DATE}", f"Retry-After: {text}").retry_after_s is None


def test_our_own_clock_where_the_server_tells_none() -> None:
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=30)
    for date in ("X-Date: none", "Date: yesterday"):
        seconds = refused(503, date, f"Retry-After: {email.utils.format_datetime(later, usegmt=True)}").retry_after_s
        assert seconds is not None
        assert 1500 < seconds < 1900
    assert refused(503).retry_after_s is None


@pytest.mark.parametrize("status", [301, 404, 408, 425, 500, 502, 507])
def test_other_answers_ask_for_nothing(status: int) -> None:
    assert refused(status, "Retry-After: 7").retry_after_s is None
