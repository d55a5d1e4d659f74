"""The report of a third-party copy, as three servers write it, in pieces of any size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.tpc import Marker, MarkerParser, Outcome

# Reva v3.12.1, internal/http/services/owncloud/ocdav/tpc.go: "Strip Index", and bytes before it.
REVA = (
    b"Perf Marker\n\tTimestamp: 1700000005\n\tStripe Bytes Transferred: 1048576\n\tStrip Index: 0\n"
    b"\tTotal Stripe Count: 1\nEnd\n"
    b"Perf Marker\n\tTimestamp: 1700000010\n\tStripe Bytes Transferred: 2097152\n\tStrip Index: 0\n"
    b"\tTotal Stripe Count: 1\nEnd\n"
    b"success: Created\n"
)
# dCache, org.dcache.webdav.transfer: more fields, other order.
DCACHE = (
    b"Perf Marker\n    Timestamp: 1700000005\n    State: Running\n    State description: querying pool\n"
    b"    Stripe Index: 0\n    Stripe Start Time: 1700000000\n    Stripe Last Transferred: 1700000004\n"
    b"    Stripe Transfer Time: 4\n    Stripe Bytes Transferred: 1048576\n    Stripe Status: RUNNING\n"
    b"    Total Stripe Count: 1\n    RemoteConnections: tcp:[::1]:443\nEnd\n"
    b"success: Created\n"
)
# XRootD, src/XrdTpc/XrdTpcTPC.cc: CRLF-free, a failure with a reason.
XROOTD = (
    b"Perf Marker\nTimestamp: 1700000005\nStripe Index: 0\nStripe Bytes Transferred: 512\nTotal Stripe Count: 1\n"
    b"RemoteConnections: tcp:[::1]:443\nEnd\n"
    b"failure: HTTP request failed: 404: Not Found"
)

CASES = [
    (REVA, [1048576, 2097152], Outcome(True, "Created")),
    (DCACHE, [1048576], Outcome(True, "Created")),
    (XROOTD, [512], Outcome(False, "HTTP request failed: 404: Not Found")),
    (b"success: Created", [], Outcome(True, "Created")),
    (b"\r\nSuccess: Created\r\n", [], Outcome(True, "Created")),
    (b"success\n", [], Outcome(True, "success")),
    (b"failure: rejected GET: 500\n", [], Outcome(False, "rejected GET: 500")),
    (b"failed\n", [], Outcome(False, "failed")),
    (b"failure: no\nsuccess: yes\n", [], Outcome(False, "no")),
    # Two stripes, in either order of the lines: the sum counts.
    (
        b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 5\nEnd\n"
        b"Perf Marker\nStripe Bytes Transferred: 7\nStripe Index: 1\nEnd\n"
        b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 9\nEnd\nsuccess: Created\n",
        [5, 12, 16],
        Outcome(True, "Created"),
    ),
    (b"success: Created\nPerf Marker\nStripe Bytes Transferred: 9\nEnd\n", [], Outcome(True, "Created")),
    (b"", [], None),
    (b"Perf Marker\nStripe Bytes Transferred: 5\n", [], None),
    (b"Perf Marker\nStripe Bytes Transferred: many\nEnd\n", [0], None),
    (b"<html>it works</html>\n", [], None),
    (b"not a success\n", [], None),
    (b"\xff\xfe\x00\n\n\n", [], None),
]


def parse(pieces: list[bytes]) -> tuple[list[int], Outcome | None]:
    parser = MarkerParser()
    markers = [marker for piece in pieces for marker in parser.feed(piece)]
    parser.close()
    assert all(isinstance(marker, Marker) for marker in markers)
    return [marker.transferred_bytes for marker in markers], parser.outcome


@pytest.mark.parametrize(("body", "transferred", "outcome"), CASES)
def test_reports(body: bytes, transferred: list[int], outcome: Outcome | None) -> None:
    assert parse([body]) == (transferred, outcome)
    assert parse([body[i : i + 1] for i in range(len(body))]) == (transferred, outcome)


@given(st.sampled_from([case[0] for case in CASES]), st.lists(st.integers(0, 400)))
def test_pieces_do_not_matter(body: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert b"".join(pieces) == body
    assert parse(pieces) == parse([body])


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_are_read(pieces: list[bytes]) -> None:
    assert parse(pieces) == parse([b"".join(pieces)])


@pytest.mark.parametrize("piece_bytes", [1000, 8192, 20_000])
def test_a_line_without_end_is_refused(piece_bytes: int) -> None:
    with pytest.raises(errors.ProtocolViolation, match="8 KiB"):
        parse([b"x" * piece_bytes] * (20_000 // piece_bytes + 1))


def test_an_outcome_comes_only_with_its_line() -> None:
    parser = MarkerParser()
    parser.feed(b"success: Crea")
    assert parser.outcome is None
    parser.close()
    # The connection's end is the line's end: what was cut is not known here, so the destination is looked at.
    assert parser.outcome == Outcome(True, "Crea")
