"""Fault scripts: how they are written, how long they last, and what they make of a body."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rucio_cs3.sandbox.cloud.faults import FOREVER, Faults, Throttle, flip, parse, received


@pytest.mark.parametrize("script", ["return-503,at:x", "answer-503,at:1", "throttle", "sink:1", "drop-bytes:-1", ""])
def test_what_is_no_script(script: str) -> None:
    with pytest.raises(ValueError, match="no fault script"):
        parse(script)


def test_a_refusal_in_the_middle_with_a_time() -> None:
    fault = parse("return-429,retry-after:7,at:100")
    assert (fault.number, fault.at, fault.headers) == (429, 100, {"Retry-After": "7"})


def test_for_ever_is_pending_until_it_has_been_met() -> None:
    faults = Faults()
    faults.add("data.put", "stall", FOREVER)
    assert faults.pending() == ["data.put stall x?"]
    assert [faults.take("data.put") is not None for _ in range(3)] == [True] * 3
    assert faults.pending() == []
    faults.clear()
    assert faults.take("data.put") is None


def _blocks() -> Iterator[memoryview]:
    yield memoryview(b"abc")
    yield memoryview(b"def")


@pytest.mark.parametrize(
    ("script", "stored"),
    [
        ("drop-bytes:2", b"abcd"),
        ("drop-bytes:9", b""),
        ("add-bytes:2", b"abcdef++"),
        ("lose-after:0", b""),
        ("lose-after:4", b"abcd"),
        ("flip-byte-at:3", b"abceef"),
        ("throttle:1000", b"abcdef"),
    ],
)
def test_what_a_server_gets(script: str, stored: bytes) -> None:
    assert b"".join(received(_blocks(), 6, parse(script))) == stored


def test_a_byte_beyond_a_block_is_not_flipped() -> None:
    assert bytes(flip(b"abc", 10, 13)) == b"abc"
    assert bytes(flip(b"abc", 10, 12)) == b"abb"


def test_a_throttle_waits_for_what_has_passed() -> None:
    waits: list[float] = []
    throttle = Throttle(1000, waits.append)
    assert throttle.piece(10_000) == 50
    throttle.moved(2000)
    assert 1.0 < waits[0] <= 2.0
    assert Throttle(None, waits.append).piece(10_000) == 10_000
