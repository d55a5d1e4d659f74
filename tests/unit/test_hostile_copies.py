"""Reports of COPY that have no end, or say what cannot be; and macaroons that are none."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.webdav import markers, probes, tpc
from rucio_cs3.cs3.webdav.markers import LINE_MAX_BYTES, REPORT_MAX_BYTES, MarkerParser
from rucio_cs3.transfers import site_tokens
from tests.unit.hostile import BOMBS, JSON, is_told

MARKER = b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: %d\nEnd\n"


class Report:
    """An answer whose body is made as it is read."""

    def __init__(self, pieces: Iterator[bytes], status: int = 202) -> None:
        self.status_code = status
        self.reason = ""
        self.headers: Mapping[str, str] = {}
        self.length: int | None = None
        self._pieces = pieces
        self.read = 0

    def read_some(self, size: int) -> bytes:
        piece = next(self._pieces, b"")
        self.read += len(piece)
        return piece

    def readinto(self, buffer: memoryview) -> int:
        piece = next(self._pieces, b"")[: len(buffer)]
        buffer[: len(piece)] = piece
        self.read += len(piece)
        return len(piece)

    def hurry(self) -> None:
        """There is nothing to wait for."""

    def without_secrets(self, words: str) -> str:
        return words


class Site:
    """An HTTP client whose one answer to everything is a report."""

    def __init__(self, report: Report) -> None:
        self.report = report

    @contextlib.contextmanager
    def request(self, *_: object, **__: object) -> Iterator[Report]:
        yield self.report


def pull(pieces: Iterator[bytes], status: int = 202) -> Report:
    return pull_from(Report(pieces, status))


def pull_from(report: Report) -> Report:
    site: Any = Site(report)
    tpc.pull(
        site,
        source_url="https://a.test/f",
        destination_url="https://b.test/f",
        source_authorization="Bearer a",
        destination_authorization="Bearer b",
    )
    return report


#: Pieces of a report that does not end by itself; more than any limit lets pass, so that a test that fails ends, too.
_MANY = 200


def forever(*pieces: bytes) -> Iterator[bytes]:
    for _ in range(_MANY):
        yield from pieces


def counting() -> Iterator[bytes]:
    """Markers of a copy that always moves, by a byte with each."""
    for number in range(_MANY):
        yield b"".join(MARKER % (number * 100 + index) for index in range(100))


@pytest.mark.parametrize(
    "pieces", [forever(b"x" * 8000 + b"\n"), forever(b"\n" * 8000), counting()], ids=["words", "lines", "markers"]
)
def test_a_report_without_end_ends(pieces: Iterator[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers, "REPORT_MAX_BYTES", 200_000)
    tracemalloc.start()
    try:
        with pytest.raises(errors.ProtocolViolation, match="has no end"):
            pull(pieces)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_report_may_be_as_long_as_a_copy_of_days() -> None:
    assert REPORT_MAX_BYTES / 1024 * 5 > 3 * 86_400


def test_a_copy_that_moves_may_report_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a marker for each of ten stripes, every 5 s, would be over the limit in nine hours."""
    monkeypatch.setattr(markers, "REPORT_MAX_BYTES", 20_000)
    pieces = (b"".join(MARKER % (number * 10_000 + stripe) for stripe in range(10)) for number in range(1000))
    report = pull(itertools.chain(pieces, [b"success: Created\n"]))
    assert report.read > 500_000


def test_growth_is_no_credit_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers, "REPORT_MAX_BYTES", 20_000)
    report = Report(itertools.chain([MARKER % 10**12], forever(b"\n" * 1000)))
    with pytest.raises(errors.ProtocolViolation, match="has no end"):
        pull_from(report)
    assert report.read < 25_000


def test_what_follows_the_outcome_is_not_waited_for() -> None:
    """It may have no end; then the outcome was never told."""
    report = pull(iter_of(b"success: Created\n", forever(b"x" * 8000)))
    assert report.read < 200_000


def iter_of(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(errors.ProtocolViolation, match="a line over 8 KiB"):
        pull(forever(b"x" * LINE_MAX_BYTES))


def test_a_copy_that_only_says_that_it_moves_is_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpc, "STALL_S", 0.05)

    def still() -> Iterator[bytes]:
        for _ in range(_MANY):
            time.sleep(0.005)
            yield MARKER % 7

    with pytest.raises(errors.DeadlineExceeded, match="no byte has moved"):
        pull(still())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30))
def test_bytes_of_all_stripes_are_added_up(told: list[tuple[int, int]]) -> None:
    """Also where a stripe begins anew: what was told is not taken back."""
    parser = MarkerParser()
    stripes: dict[int, int] = {}
    most = 0
    for stripe, count in told:
        stripes[stripe] = count
        most = max(most, sum(stripes.values()))
        (marker,) = parser.feed(b"Perf Marker\nStripe Index: %d\nStripe Bytes Transferred: %d\nEnd\n" % (stripe, count))
        assert marker.transferred_bytes == most


def test_stripes_are_not_without_number() -> None:
    parser = MarkerParser()
    for stripe in range(markers._STRIPES_MAX + 100):
        parser.feed(b"Perf Marker\nStripe Index: %d\nStripe Bytes Transferred: 2\nEnd\n" % stripe)
    assert parser.feed(b"Perf Marker\nEnd\n")[0].transferred_bytes == 2 * markers._STRIPES_MAX


LINES = st.sampled_from(
    [
        b"Perf Marker\n",
        b"End\n",
        b"Stripe Index: 1\n",
        b"Strip Bytes Transferred: 99999999999999999999\n",
        b"Stripe Bytes Transferred: 999999999999999999\n",
        b"Stripe Bytes Transferred: -5\n",
        b"success",
        b": ",
        b"failure\n",
        b"aborted: \x1b[2J\n",
        b"\n",
        b"\0",
        b"\xff",
    ]
)


@given(st.lists(LINES | st.binary(max_size=9), max_size=20))
def test_any_report_is_an_outcome_or_an_error_of_ours(pieces: list[bytes]) -> None:
    told = ""
    try:
        pull(iter([piece for piece in pieces if piece]))
    except errors.CS3Error as error:
        told = str(error)
    assert is_told(told)
    assert len(told) < 20_000


# -- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [forever(b"x" * 8000 + b"\n"), counting()], ids=["words", "markers"])
def test_a_probe_whose_answer_has_no_end_ends(pieces: Iterator[bytes]) -> None:
    """All threads that want to know wait for the one that asks."""
    report = Report(pieces)
    site: Any = Site(report)
    with pytest.raises(errors.ProtocolViolation, match="has no end"):
        probes.TPCProbes().ask(site, "https://b.test/", "Bearer b")
    assert report.read < 200_000


def test_a_probe_whose_answer_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is alive, and slow: nothing is wrong with what it says."""
    monkeypatch.setattr(probes, "REPORT_S", 0.05)

    def dripping() -> Iterator[bytes]:
        for _ in range(_MANY):
            time.sleep(0.005)
            yield b"\n"

    site: Any = Site(Report(dripping()))
    with pytest.raises(errors.DeadlineExceeded, match="has not ended"):
        probes.TPCProbes().ask(site, "https://b.test/", "Bearer b")


# -- macaroons -------------------------------------------------------------------------------------------------------


class Macaroons:
    """A WebDAV client whose answer to the question for a macaroon is always the same."""

    def __init__(self, body: bytes) -> None:
        self._report = Report(iter([body]), 200)

    @contextlib.contextmanager
    def request(self, *_: object, **__: object) -> Iterator[Any]:
        report: Any = self._report
        body = next(report._pieces)
        report.read = lambda size: body[:size]
        yield report


def lent(body: bytes) -> object:
    asked: Any = Macaroons(body)
    return site_tokens._ask(asked, None, write=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_no_macaroon(bomb: str) -> None:
    for body in (bomb, f'{{"macaroon": {bomb}}}', f'{{"macaroon": {bomb}'):
        assert isinstance(lent(body.encode("utf-8", "replace")), site_tokens._None)


@given(JSON)
def test_no_answer_is_a_macaroon_but_one(content: Any) -> None:
    for answer in (content, {"macaroon": content}):
        found = lent(json.dumps(answer).encode())
        assert isinstance(found, site_tokens._None)


def test_a_macaroon_goes_into_a_header() -> None:
    """What is none of base64 would be left out by its decoder, and end the header."""
    good = "YWN0aXZpdHk6RE9XTkxPQUQsTElTVA=="  # activity:DOWNLOAD,LIST
    assert lent(json.dumps({"macaroon": good}).encode()) == good
    for bad in (f"{good[:-2]}\r\nX-Evil: 1", f"{good} ", f"\x00{good}", f"{good}é"):
        assert isinstance(lent(json.dumps({"macaroon": bad}).encode()), site_tokens._None)
