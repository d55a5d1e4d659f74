"""Checksums: one form, whatever the server says."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import checksums
from rucio_cs3.cs3.checksums import Digests, from_server, normalise

MD5_EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize(
    ("algorithm", "value", "expected"),
    [
        ("adler32", "00f40092", "00f40092"),
        ("ADLER32", "F40092", "00f40092"),
        ("adler-32", " f40092\n", "00f40092"),
        ("adler32", "1", "00000001"),
        ("adler32", "0", "00000000"),
        ("adler32", "100f40092", None),
        ("adler32", "", None),
        ("adler32", "0x12", None),
        ("adler32", "f4 0092", None),
        ("adler32", "٣", None),
        ("md5", MD5_EMPTY.upper(), MD5_EMPTY),
        ("md5", MD5_EMPTY[1:], None),
        ("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("SHA-1", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("crc32", "00f40092", None),
        ("", "00f40092", None),
    ],
)
def test_normalise(algorithm: str, value: str, expected: str | None) -> None:
    assert normalise(algorithm, value) == expected


@pytest.mark.parametrize(
    ("size", "typed", "opaque", "expected"),
    [
        (5, None, {}, {}),
        (0, None, {}, {"adler32": "00000001"}),
        (0, ("adler32", "0"), {}, {"adler32": "00000001"}),
        (5, ("adler32", "f40092"), {}, {"adler32": "00f40092"}),
        (5, ("adler32", "000000"), {}, {}),  # EOS has not summed yet
        (5, ("sha1", "a" * 40), {"adler32": "00f40092", "md5": "b" * 32, "status": "processing"},
         {"sha1": "a" * 40, "adler32": "00f40092", "md5": "b" * 32}),
        (5, ("adler32", "garbage"), {"adler32": "00f40092"}, {"adler32": "00f40092"}),
        (5, ("adler32", "1"), {"adler32": "2"}, {"adler32": "00000001"}),
        (5, ("md5", "short"), {"md5": ""}, {}),
    ],
)  # fmt: skip
def test_what_a_server_says(
    size: int, typed: tuple[str, str] | None, opaque: dict[str, str], expected: dict[str, str]
) -> None:
    assert from_server(size, typed=typed, opaque=opaque) == expected


@given(st.lists(st.binary(max_size=64)))
def test_digests_of_any_pieces(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    digests = Digests(["adler32", "md5", "sha1"])
    for piece in pieces:
        digests.update(memoryview(piece))
    expected = {
        "adler32": f"{zlib.adler32(whole):08x}",
        "md5": hashlib.md5(whole).hexdigest(),
        "sha1": hashlib.sha1(whole).hexdigest(),
    }
    assert digests.byte_count == len(whole)
    assert digests.hexdigests() == expected
    for name, value in expected.items():
        assert len(value) == checksums.HEX_DIGITS[name]
        assert normalise(name, value) == value


@given(st.text(), st.text())
def test_normalise_takes_anything(algorithm: str, value: str) -> None:
    result = normalise(algorithm, value)
    assert result is None or int(result, 16) >= 0


def test_reset_forgets_everything() -> None:
    digests = Digests(["adler32", "md5"])
    digests.update(b"x")
    digests.reset()
    assert digests.byte_count == 0
    assert digests.hexdigests() == {"adler32": checksums.EMPTY_ADLER32, "md5": MD5_EMPTY}


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="'crc32'; known are adler32, md5, sha1"):
        Digests(["crc32"])
