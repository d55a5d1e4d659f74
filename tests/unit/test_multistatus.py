"""What servers say about a file, in their own words."""

from __future__ import annotations

import contextlib
from encodings.aliases import aliases

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import Reference, errors
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.cs3.webdav import multistatus

FILE = Reference(MountRoot("/"), "data/a/b/f")

# XRootD 5.5.3, word for word.
XROOTD = b"""<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns1="http://apache.org/dav/props/" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:lp3="LCGDM:">
<D:href>/data/a/b/f</D:href>
<D:propstat>
<D:prop>
<lp1:getcontentlength>100000</lp1:getcontentlength>
<lp1:getlastmodified>Sat, 21 Nov 2026 06:17:55 GMT</lp1:getlastmodified>
<lp1:iscollection>0</lp1:iscollection>
<lp1:executable>F</lp1:executable>
</D:prop>
<D:status>HTTP/1.1 200 OK</D:status>
</D:propstat>
</D:response>
</D:multistatus>
"""
XROOTD_FOLDER = XROOTD.replace(
    b"<lp1:iscollection>0<", b"<lp1:resourcetype><D:collection/></lp1:resourcetype><lp1:iscollection>1<"
).replace(b">100000<", b">4096<")

# The form of ownCloud's and Reva's answers: what there is, and what there is not.
OWNCLOUD = b"""<d:multistatus xmlns:s="http://sabredav.org/ns" xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">
<d:response><d:href>/remote.php/webdav/f</d:href>
<d:propstat><d:prop><d:resourcetype></d:resourcetype><d:getcontentlength>12</d:getcontentlength>
<d:getetag>&quot;abc&quot;</d:getetag>
<oc:checksums><oc:checksum>SHA1:0123456789012345678901234567890123456789 MD5:d41d8cd98f00b204e9800998ecf8427e
ADLER32:f40092</oc:checksum></oc:checksums></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>
<d:propstat><d:prop><d:getlastmodified/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>
</d:response></d:multistatus>"""

# By dCache's documentation of its property; no dCache was asked.
DCACHE = OWNCLOUD.replace(b"http://owncloud.org/ns", b"urn:none").replace(
    b"</d:resourcetype>",
    b'</d:resourcetype><Checksums xmlns="http://www.dcache.org/2013/webdav">adler32=00f40092</Checksums>',
)


def test_xrootd() -> None:
    info = multistatus.parse(XROOTD, FILE)
    assert (info.reference, info.size, info.is_directory, info.etag) == (FILE, 100_000, False, "")
    assert info.mtime_s == 1_795_241_875
    assert info.checksums == {}
    assert multistatus.parse(XROOTD_FOLDER, FILE).is_directory


def test_owncloud_and_dcache_give_checksums() -> None:
    info = multistatus.parse(OWNCLOUD, FILE)
    assert (info.size, info.etag, info.mtime_s) == (12, '"abc"', 0.0)
    assert info.checksums["adler32"] == "00f40092"
    assert set(info.checksums) == {"sha1", "md5", "adler32"}
    assert multistatus.parse(DCACHE, FILE).checksums == {"adler32": "00f40092"}


def test_a_checksum_that_is_not_there_yet_is_told() -> None:
    """EOS, just after a transfer (xrootd#1314)."""
    later = OWNCLOUD.replace(b"ADLER32:f40092", b"ADLER32:000000")
    assert multistatus.parse(later, FILE).checksums["adler32"] == "00000000"


def test_an_empty_file_has_its_checksum() -> None:
    assert multistatus.parse(XROOTD.replace(b">100000<", b">0<"), FILE).checksums == {"adler32": "00000001"}


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        b"<html>",
        b"{}",
        XROOTD.replace(b'<?xml version="1.0" encoding="utf-8"?>\n', BOMB).replace(b"100000", b"&b;"),
        XROOTD.replace(b'encoding="utf-8"?>\n', b'?><!DOCTYPE x SYSTEM "file:///etc/passwd">'),
        # A folder's entries, from a server that does not know Depth.
        XROOTD.replace(b"</D:multistatus>", b"<D:response><D:href>/data/a/b/g</D:href></D:response></D:multistatus>"),
        XROOTD.replace(b"100000", b"-1"),
        XROOTD.replace(b"100000", "٣".encode()),
        XROOTD.replace(b"200 OK", b"403 Forbidden"),
        XROOTD.replace(b">100000<", b">" + b"9" * 19 + b"<"),
        XROOTD.replace(b">100000<", b">" + b"9" * 5000 + b"<"),
        # One that the parser cannot use, and one that nobody knows.
        XROOTD.replace(b"utf-8", b"shift_jis"),
        XROOTD.replace(b"utf-8", b"utf-nothing"),
    ],
)
def test_what_is_no_answer_about_one_file(body: bytes) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        multistatus.parse(body, FILE)
    assert "PROPFIND /data/a/b/f" in str(caught.value)


def test_a_folder_may_have_any_size() -> None:
    endless = XROOTD_FOLDER.replace(b">4096<", b">" + b"9" * 5000 + b"<")
    assert multistatus.parse(endless, FILE).is_directory


def parsed(body: bytes) -> None:
    with contextlib.suppress(errors.CS3Error):
        assert 0 <= multistatus.parse(body, FILE).size < 2**63


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_an_answer_or_an_error_of_ours(body: bytes) -> None:
    parsed(body)


@given(
    st.sampled_from([b"100000", b"Sat, 21 Nov 2026 06:17:55 GMT", b"HTTP/1.1 200 OK", b"utf-8", b"D:prop", b"DAV:"]),
    st.text().map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=40),
)
def test_an_answer_with_any_bytes_in_it(old: bytes, new: bytes) -> None:
    parsed(XROOTD.replace(old, new))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of decoders themselves
@pytest.mark.parametrize("encoding", sorted({*aliases.values(), "idna", "undefined", "unicode_escape", "punycode"}))
def test_an_answer_in_any_encoding(encoding: str) -> None:
    parsed(XROOTD.replace(b"utf-8", encoding.encode()))


@pytest.mark.parametrize("date", ["Sat, 21 Nov , 06:17:55 GMT", "21 Nov 9999999999 06:17:55 GMT", "a b c d e", ","])
def test_a_date_that_is_none(date: str) -> None:
    body = XROOTD.replace(b"Sat, 21 Nov 2026 06:17:55 GMT", date.encode())
    assert multistatus.parse(body, FILE).mtime_s == 0.0


@given(st.lists(st.sampled_from(["Sat,", "21", "Nov", "2026", "06:17:55", "GMT", "-", ",", ":", "+", "9999999999"])))
def test_any_words_are_a_date_or_none(words: list[str]) -> None:
    parsed(XROOTD.replace(b"Sat, 21 Nov 2026 06:17:55 GMT", " ".join(words).encode()))


@given(st.text() | st.text().map("md5={}".format) | st.text().map("adler32={}".format))
def test_any_header_is_read(header: str) -> None:
    assert set(multistatus.digest(header)) <= {"adler32", "md5", "sha1"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("adler32=f499b08b", {"adler32": "f499b08b"}),
        ("ADLER32=f40092", {"adler32": "00f40092"}),
        ("md5=1B2M2Y8AsgTpgAmY7PhCfg==,adler32=00000001", {"adler32": "00000001"}),
        # "Not yet", by EOS: to know that one is to come, it must not be taken for none.
        ("adler32=0", {"adler32": "00000000"}),
        ("adler32=000000", {"adler32": "00000000"}),
        ("adler32=xyz, md5=!", {}),
        ("adler32=1, md5=\u00e4!", {"adler32": "00000001"}),
        ("sha-256=abc", {}),
        ("", {}),
    ],
)
def test_digest(header: str, found: dict[str, str]) -> None:
    sums = multistatus.digest(header)
    if "md5" in header and "!" not in header:
        assert sums.pop("md5") == "d41d8cd98f00b204e9800998ecf8427e"
    assert sums == found


# -- the files of a folder ---------------------------------------------------------------------------------------

FOLDER = Reference(MountRoot("/"), "data/a/b")

_PREFIX, _SUFFIX = XROOTD.split(b"<D:response")[0], b"</D:multistatus>\n"


def listing(*entries: bytes) -> bytes:
    """Entries in XRootD 5.5.3's words, after the folder itself: files' addresses."""
    one = XROOTD.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    folder = XROOTD_FOLDER.removeprefix(_PREFIX).removesuffix(_SUFFIX).replace(b"/data/a/b/f", b"/data/a/b")
    return _PREFIX + folder + b"".join(one.replace(b"/data/a/b/f", entry) for entry in entries) + _SUFFIX


def test_the_files_of_a_folder() -> None:
    """XRootD 5.5.3 writes no percents."""
    body = listing(b"/data/a/b/f", "/data/a/b/\u00e4 b".encode(), b"/data/a/b/x&amp;y&#38;z")
    assert multistatus.files_in(body, FOLDER) == ["f", "\u00e4 b", "x&y&z"]
    # A folder in it.
    assert multistatus.files_in(XROOTD_FOLDER, FOLDER) == []
    assert multistatus.files_in(listing(), FOLDER) == []


def test_an_address_is_a_path_or_a_whole_url() -> None:
    """RFC 4918, 8.3."""
    body = listing(b"https://door.test:2880/x/a/b/f", b"\n /remote.php/dav/b/%C3%A4%20b ", b"http://door.test/p/g?x#y")
    assert multistatus.files_in(body, FOLDER) == ["f", "\u00e4 b", "g"]


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"/",
        b"/data/a/b/",
        b"/data/a/b/..",
        b"%2e%2e",
        b"/a%2Fb",
        b"/a/%2E",
        b"/%00",
        b"/%FF",
        b"http://[x/f",
        b"/" + b"n" * 256,
    ],
)
def test_what_is_no_name_is_left_out(address: bytes) -> None:
    assert multistatus.files_in(listing(b"/data/a/b/f", address, b"/data/a/b/g"), FOLDER) == ["f", "g"]


def test_only_the_entrys_own_address_counts() -> None:
    inside = b"<D:href>/data/a/b/other</D:href>"
    body = listing(b"/data/a/b/f").replace(b"<lp1:executable>F", inside + b"<lp1:executable>F")
    assert multistatus.files_in(body, FOLDER) == ["f"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        listing(b"/data/a/b/f").replace(b'<?xml version="1.0" encoding="utf-8"?>\n', BOMB),
        listing(b"/data/a/b/f")[:-20],
        listing(b"/" + b"n" * 17_000),
        listing().replace(b"<D:prop>", b"<D:prop>" + b"<x>" * 40 + b"</x>" * 40),
        listing().replace(b"DAV:", b"x" * 300),
        listing(b"/data/a/b/f").replace(b"utf-8", b"utf-nothing"),
    ],
)
def test_what_is_no_listing(body: bytes) -> None:
    with pytest.raises(errors.ProtocolViolation) as caught:
        multistatus.files_in(body, FOLDER)
    assert "PROPFIND /data/a/b" in str(caught.value)


def test_a_listing_may_be_large_and_not_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"f{number}" for number in range(5000)]
    body = listing(*(f"/data/a/b/{name}".encode() for name in names))
    assert multistatus.files_in(body, FOLDER) == names
    for limit, least in (
        ("LISTING_MAX_BYTES", len(body)),
        ("LISTING_MAX_ENTRIES", len(names) + 1),
        ("_LISTING_ELEMENTS_MAX", body.count(b"</") + body.count(b"/>")),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(multistatus, limit, least)
            assert len(multistatus.files_in(body, FOLDER)) == 5000
            patched.setattr(multistatus, limit, least - 1)
            with pytest.raises(errors.ProtocolViolation):
                multistatus.files_in(body, FOLDER)


def files_read(body: bytes) -> None:
    with contextlib.suppress(errors.CS3Error):
        for name in multistatus.files_in(body, FOLDER):
            assert FOLDER.child(name).parent == FOLDER


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_listing_or_an_error_of_ours(body: bytes) -> None:
    files_read(body)
    files_read(listing(body))
    files_read(listing(b"/data/a/b/" + body))
