"""The report of a third-party copy, as the servers write it, in pieces of any size."""

from __future__ import annotations

import itertools
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.webdav.markers import Marker, MarkerParser, Outcome

# Reva v3.12.1, internal/http/services/owncloud/ocdav/tpc.go: "Strip Index", bytes before it, a blank line after.
REVA = (
    b"Perf Marker\nTimestamp: 1700000005\nStripe Bytes Transferred: 1048576\nStrip Index: 0\n"
    b"Total Stripe Count: 1\nEnd\n\n"
    b"Perf Marker\nTimestamp: 1700000010\nStripe Bytes Transferred: 2097152\nStrip Index: 0\n"
    b"Total Stripe Count: 1\nEnd\n\n"
    b"success: Created"
)
# dCache, RemoteTransferHandler.java: indented, more fields, no bytes as long as the transfer waits for its turn; and
# what dCache#7058 proposes.
DCACHE = (
    b"Perf Marker\n    Timestamp: 1700000000\n    State: 7\n    State description: Queued\n    Stripe Index: 0\n"
    b"    Total Stripe Count: 1\nEnd\n"
    b"Perf Marker\n    Timestamp: 1700000005\n    State: 8\n    State description: Mover created\n"
    b"    Stripe Index: 0\n    Stripe Start Time: 1700000000\n    Stripe Last Transferred: 1700000004\n"
    b"    Stripe Transfer Time: 4\n    Stripe Bytes Transferred: 1048576\n    Stripe Status: RUNNING\n"
    b"    Total Stripe Count: 1\n    RemoteConnections: tcp:[::1]:443,tcp:127.0.0.1:443\n"
    b"    Stripe Source: tcp:[::1]:443\n    Stripe Destination: tcp:127.0.0.1:8443\nEnd\n"
    b"success: Created\n"
)
# XRootD 5.5.3: a marker at the end, too, before anything of it is known; no line end after the outcome.
XROOTD = (
    b"Perf Marker\nTimestamp: 1795241583\nStripe Index: 0\nStripe Bytes Transferred: 0\nTotal Stripe Count: 1\n"
    b"RemoteConnections: tcp:127.0.0.1:23411\nEnd\n"
    b'failure: Remote side failed with status code 404; error message: "Unable to open /x; no such file or directory "'
)
# StoRM WebDAV, TransferStatus.java: milliseconds; no line end after the outcome.
STORM = (
    b"Perf Marker\nTimestamp: 1700000005123\nStripe Index: 0\nStripe Bytes Transferred: 77\nTotal Stripe Count: 1\n"
    b"End\nfailure: Checksum verification failed"
)

CASES = [
    (REVA, [1048576, 2097152], Outcome(True, "Created")),
    (REVA.replace(b"\n", b"\r\n"), [1048576, 2097152], Outcome(True, "Created")),
    (DCACHE, [0, 1048576], Outcome(True, "Created")),
    (
        XROOTD,
        [0],
        Outcome(
            False,
            'Remote side failed with status code 404; error message: "Unable to open /x; no such file or directory "',
        ),
    ),
    (STORM, [77], Outcome(False, "Checksum verification failed")),
    (b"success: Created", [], Outcome(True, "Created")),
    (b"\r\nSuccess: Created\r\n", [], Outcome(True, "Created")),
    (b"SUCCESS:Created\n", [], Outcome(True, "Created")),
    (b"  success : Created \n", [], Outcome(True, "Created")),
    (b"success\n", [], Outcome(True, "success")),
    (b"successful so far\n", [], None),
    (b"success rate: 50 %\n", [], None),
    (b"failure: rejected GET: 500\n", [], Outcome(False, "rejected GET: 500")),
    (b"Failure :rejected PUT: 401 Unauthorized\n", [], Outcome(False, "rejected PUT: 401 Unauthorized")),
    (b"failed\n", [], Outcome(False, "failed")),
    (b"aborted: by an operator\n", [], Outcome(False, "by an operator")),
    (b"failure: no\nsuccess: yes\n", [], Outcome(False, "no")),
    # Two stripes, in either order of the lines: the sum counts.
    (
        b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 5\nEnd\n"
        b"Perf Marker\nStripe Bytes Transferred: 7\nStripe Index: 1\nEnd\n"
        b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 9\nEnd\nsuccess: Created\n",
        [5, 12, 16],
        Outcome(True, "Created"),
    ),
    # A stripe that begins anew, and one that says nothing: what was told is not taken back.
    (
        b"Perf Marker\nStripe Bytes Transferred: 9\nEnd\nPerf Marker\nStripe Bytes Transferred: 2\nEnd\n"
        b"Perf Marker\nEnd\nPerf Marker\nStripe Bytes Transferred: 10\nEnd\n",
        [9, 9, 9, 10],
        None,
    ),
    # Markers that nobody ended.
    (
        b"Perf Marker\nStripe Bytes Transferred: 5\nPerf Marker\nStripe Bytes Transferred: 6\nsuccess: Created\n",
        [5, 6],
        Outcome(True, "Created"),
    ),
    (b"perf marker\nstripe  bytes transferred: 5\nStripe Bytes Transferred : 6\nEND\n", [6], None),
    (b"success: Created\nPerf Marker\nStripe Bytes Transferred: 9\nEnd\n", [], Outcome(True, "Created")),
    (b"", [], None),
    (b"Perf Marker\nStripe Bytes Transferred: 5\n", [], None),
    (b"Perf Marker\nStripe Bytes Transferred: many\nEnd\n", [0], None),
    (b"Stripe Bytes Transferred: 5\nEnd\n", [], None),
    (b"<html>it works</html>\n", [], None),
    (b"not a success\n", [], None),
    (b"\xff\xfe\x00\n\n\n", [], None),
]


def parse(pieces: list[bytes]) -> tuple[list[int], Outcome | None]:
    parser = MarkerParser()
    markers = [marker for piece in pieces for marker in parser.feed(piece)]
    markers += parser.close()
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


#: What a hostile or broken server could make of the words.
_WORDS = st.sampled_from(
    [
        b"Perf Marker",
        b"End",
        b"Stripe Index: 3",
        b"Stripe Bytes Transferred: ",
        b"7",
        b"\n",
        b"\r\n",
        b"success",
        b":",
        b"",
    ]
)


@given(st.lists(st.one_of(st.binary(max_size=50), _WORDS)))
def test_any_bytes_are_read(pieces: list[bytes]) -> None:
    transferred, outcome = parse(pieces)
    assert (transferred, outcome) == parse([b"".join(pieces)])
    assert transferred == sorted(transferred), "never backwards"


@given(st.lists(st.binary(max_size=20_000), max_size=5))
def test_garbage_is_refused_in_one_way_only(pieces: list[bytes]) -> None:
    longest = max((len(line) for line in re.split(rb"\n", b"".join(pieces))), default=0)
    try:
        parse(pieces)
    except errors.ProtocolViolation:
        assert longest > 8192


def test_memory_is_bounded() -> None:
    """A server that reports for ever, with a new stripe and new words each time."""
    parser = MarkerParser()

    def feed(number: int) -> None:
        parser.feed(b"Perf Marker\nStripe Index: %d\nStripe Bytes Transferred: 1\nEnd\nword %d\n" % (number, number))

    for number in range(2000):
        feed(number)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000, 22_000):
            feed(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000, "20,000 markers leave less than a byte each"
    assert parser.feed(b"Perf Marker\nEnd\n") == [Marker(1024)]


@pytest.mark.parametrize("piece_bytes", [1000, 8192, 20_000])
def test_a_line_without_end_is_refused(piece_bytes: int) -> None:
    with pytest.raises(errors.ProtocolViolation, match="8 KiB"):
        parse([b"x" * piece_bytes] * (20_000 // piece_bytes + 1))
    # What comes after the outcome is nobody's.
    assert parse([b"success: Created\n", b"x" * 20_000])[1] == Outcome(True, "Created")


@pytest.mark.parametrize(("body", "_", "outcome"), CASES)
def test_what_only_a_third_party_copy_says(body: bytes, _: list[int], outcome: Outcome | None) -> None:
    parser = MarkerParser()
    parser.feed(body)
    parser.close()
    assert parser.began == (outcome is not None or b"perf marker" in body.lower())


def test_last_words_are_kept() -> None:
    parser = MarkerParser()
    parser.feed(b"one\nPerf Marker\ntwo\nEnd\nInternal server error due to libcurl\n\n")
    assert parser.unknown == "Internal server error due to libcurl"
    parser.feed(b"x" * 8000 + b"\n")
    assert len(parser.unknown) == 200


def test_an_outcome_comes_only_with_its_line() -> None:
    parser = MarkerParser()
    parser.feed(b"success: Crea")
    assert parser.outcome is None
    parser.close()
    # The connection's end is the line's end: what was cut is not known here, so the destination is looked at.
    assert parser.outcome == Outcome(True, "Crea")
