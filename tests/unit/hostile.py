"""What hostile people write: strategies that the tests of the parsers share."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import strategies as st

#: Pieces that lead out of a folder, or end something early, for one reader or another.
TRICKS = [
    "..",
    ".",
    "",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "%2F",
    "%2f",
    "%5c",
    "\\",
    "..\\",
    "/",
    "//",
    "/../",
    "%00",
    "\0",
    "..%2f",
    "%c0%ae",
    "%ff",
    "%",
    "%zz",
    "%u002e",
    ";",
    "..;",
    "?",
    "#",
    "%3f",
    "@",
    ":",
    "~",
    "$",
    "!",
    "\t",
    "\r\n",
    "\x1b[2J",
    "\u202e",
    "\uff0e\uff0e",
    "\u2024\u2024",
    "\u2025",
    "\ud800",
    "\udfff",
    "\ufeff",
    "e\u0301",
    "\U0001f600",
    " ",
    "...",
    "a" * 256,
]

#: Any text, lone surrogates too.
TEXT = st.text(st.characters(), max_size=40)

#: Text that is made to be misread.
TRICKY = st.lists(st.sampled_from(TRICKS) | TEXT, max_size=8).map("".join) | st.lists(
    st.sampled_from(TRICKS) | TEXT, max_size=8
).map("/".join)

#: Beginnings of PFNs, from the very one to those that only look like it.
BEGINNINGS = st.sampled_from(
    [
        "davs://cloud.test/remote.php/webdav/",
        "https://cloud.test:443/remote.php/webdav/",
        "davs://cloud.test/dav/spaces/st-1$sp-2/",
        "davs://cloud.test/dav/spaces/st-1%24sp-2/",
        "davs://cloud.test/remote.php/webdavx/",
        "davs://cloud.test/remote.php/",
        "davs://cloud.test",
        "davs://cloud.test.evil.test/remote.php/webdav/",
        "davs://cloud.test@evil.test/remote.php/webdav/",
        "davs://evil.test\\@cloud.test/remote.php/webdav/",
        "davs://clоud.test/remote.php/webdav/",  # noqa: RUF001
        "davs://[::1/remote.php/webdav/",
        "davs://cloud.test:x/",
        "file:///",
        "gopher://cloud.test/",
        "//cloud.test/",
        "",
    ]
)

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | TEXT
    | st.sampled_from([10**400, "x" * 5000, "2024-05-01T10:00:02Z", "pull", [], {}])
)

#: Any JSON.
JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)

#: JSON as nobody sends it by accident: deeper than parsers go, larger than numbers are, and cut.
BOMBS = [
    "[" * 9_000,
    '{"a":' * 9_000,
    "[" * 500 + "]" * 500,
    "1" * 9_000,
    "1e999999",
    "-" * 1000,
    '"' + "\\u0000" * 1000 + '"',
    '"\\ud800"',
    "NaN",
    "",
    "\0",
    "null",
    "[]",
    "{}",
    "0",
    '""',
]


def reader(data: bytes) -> io.BufferedReader:
    """What an answer of these bytes is read from."""
    return io.BufferedReader(io.BytesIO(data))


def is_told(text: str) -> bool:
    """Whether a text is of one line and steers no terminal."""
    return all(character.isprintable() or character.isspace() for character in text) and len(text.splitlines()) <= 1
