"""What a WebDAV server says about one file (the answer to PROPFIND with Depth 0, and the header ``Digest``), and what
the files of a folder are called (PROPFIND with Depth 1). Pure.

A multistatus is XML by RFC 4918, 14.16. Servers disagree about nearly everything in it that is optional; see
:func:`parse`.
"""

from __future__ import annotations

import base64
import email.utils
import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from rucio_cs3.cs3 import checksums, errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo

#: Asks for what :func:`parse` reads. Checksums are no standard: ownCloud and Reva have theirs, dCache its own.
REQUEST = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns" xmlns:dc="http://www.dcache.org/2013/webdav">'
    b"<d:prop><d:resourcetype/><d:getcontentlength/><d:getetag/><d:getlastmodified/>"
    b"<oc:checksums/><dc:Checksums/></d:prop></d:propfind>"
)

#: Asks for what :func:`files_in` reads.
LISTING_REQUEST = (
    b'<?xml version="1.0" encoding="utf-8"?><d:propfind xmlns:d="DAV:"><d:prop><d:resourcetype/></d:prop></d:propfind>'
)

#: The adler32 of a server that has not summed yet: just after a transfer EOS may say 000000 (xrootd#1314). It is kept,
#: because whoever wants a proof has to know that a checksum is to come.
NOT_YET_ADLER32 = "00000000"

#: A real answer about one file is 600 bytes to 2 KiB; more is not read.
ANSWER_MAX_BYTES = 64 * 1024

#: The longest listing that is read, in bytes, and most entries in one; XRootD 5.5.3 needs 450 to 600 bytes for each,
#: whatever it is asked.
LISTING_MAX_BYTES = 8 * 1024 * 1024
LISTING_MAX_ENTRIES = 20_000

#: Longest name of a namespace, in characters, and most elements in an answer about one file and levels in any. Each
#: element's name is kept with that of its namespace, so that 64 KiB of one long name and many short elements would be
#: 130 MB. Of a listing only addresses are kept; XRootD 5.5.3 has 12 elements for each entry.
_NAMESPACE_MAX_CHARACTERS = 256
_ELEMENTS_MAX = 2000
_LISTING_ELEMENTS_MAX = 25 * LISTING_MAX_ENTRIES
_DEPTH_MAX = 32

#: Longest address of an entry that is read, in characters: a path of 4 KiB with every byte in percents, and some more.
_HREF_MAX_CHARACTERS = 16 * 1024

_DAV = "DAV:}"
_OWNCLOUD = "http://owncloud.org/ns}"
_DCACHE = "http://www.dcache.org/2013/webdav}"

_STATUS_OK = re.compile(r"HTTP/\S+\s+200\b")

#: More digits are no size that a file can have, and ``int`` raises ValueError for more than some thousands.
_SIZE = re.compile(r"[0-9]{1,18}")


class _Refused(Exception):
    """The document has a part that no multistatus has."""


def parse(body: bytes, reference: Reference) -> FileInfo:
    """Read the answer to a PROPFIND of one file or folder.

    XRootD 5.5.3 gives no etag, and properties nobody asked for; Reva v3.12.1 gives those that it lacks with status
    404; dCache gives checksums as the header ``Digest`` would.

    :raises ProtocolViolation: when it is no multistatus, or says nothing about one resource alone.
    """

    def wrong(what: str) -> errors.ProtocolViolation:
        return errors.ProtocolViolation(f"the server's answer {what}", operation="PROPFIND", target=str(reference))

    builder = TreeBuilder()
    try:
        _read(body, builder, elements_max=_ELEMENTS_MAX)
        root = builder.close()
    except _UNREADABLE as exc:
        raise wrong(f"is no XML that can be read: {exc}") from None
    responses = [element for element in root if element.tag == f"{_DAV}response"]
    if root.tag != f"{_DAV}multistatus" or len(responses) != 1:
        # With Depth 0 there is one. A server that lists a folder's entries instead would be misread.
        raise wrong(f"is no multistatus about one resource ({root.tag.rpartition('}')[2]}, {len(responses)} responses)")
    found = dict(_properties(responses[0]))
    kind = found.get(f"{_DAV}resourcetype")
    is_directory = kind is not None and kind.find(f"{_DAV}collection") is not None
    length = _text(found.get(f"{_DAV}getcontentlength"))
    told = _SIZE.fullmatch(length)
    if not is_directory and told is None:
        raise wrong("does not say how large the file is")
    size = int(length) if told is not None else 0
    sums = {} if is_directory else _checksums(found)
    if not is_directory and size == 0:
        sums["adler32"] = checksums.EMPTY_ADLER32
    return FileInfo(
        reference=reference,
        size=size,
        is_directory=is_directory,
        checksums=sums,
        etag=_text(found.get(f"{_DAV}getetag")),
        mtime_s=_seconds(_text(found.get(f"{_DAV}getlastmodified"))),
    )


def files_in(body: bytes, folder: Reference) -> list[str]:
    """Read the answer to a PROPFIND of a folder with its entries: the names of those that are no folders.

    What is no name of an entry is left out. XRootD 5.5.3 writes addresses without percents, others with them, and those
    may be paths or whole URLs (RFC 4918, 8.3), so only the last part of each counts.

    :raises ProtocolViolation: when it is no multistatus, or beyond one of the limits.
    """

    def wrong(what: str) -> errors.ProtocolViolation:
        return errors.ProtocolViolation(f"the folder's listing {what}", operation="PROPFIND", target=str(folder))

    if len(body) > LISTING_MAX_BYTES:
        raise wrong(f"has over {LISTING_MAX_BYTES} bytes, and is not read")
    listing = _Listing()
    try:
        _read(body, listing, elements_max=_LISTING_ELEMENTS_MAX)
    except _UNREADABLE as exc:
        raise wrong(f"is none that can be read: {exc}") from None
    return [name for href in listing.hrefs if (name := _name(href, folder))]


def digest(header: str) -> dict[str, str]:
    """The checksums of a ``Digest`` header (RFC 3230), in Rucio's form; what is none is left out.

    adler32 is hexadecimal in it and md5 base64 (RFC 3230, 4.1.1; so XRootD and dCache).

    >>> digest("adler32=f499b08b, MD5=1B2M2Y8AsgTpgAmY7PhCfg==")
    {'adler32': 'f499b08b', 'md5': 'd41d8cd98f00b204e9800998ecf8427e'}
    """
    found: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name.lower() == "md5":
            try:
                value = base64.b64decode(value, validate=True).hex()
            except ValueError:
                continue
        _add(found, name, value)
    return found


def _checksums(found: dict[str, Element]) -> dict[str, str]:
    sums = digest(_text(found.get(f"{_DCACHE}Checksums")))
    container = found.get(f"{_OWNCLOUD}checksums")
    for element in container.iter(f"{_OWNCLOUD}checksum") if container is not None else ():
        # "SHA1:… MD5:… ADLER32:…"
        for pair in _text(element).split():
            name, _, value = pair.partition(":")
            _add(sums, name, value)
    return sums


def _add(found: dict[str, str], name: str, value: str) -> None:
    name = name.lower().replace("-", "")
    checksum = checksums.normalise(name, value)
    if checksum is not None:
        found.setdefault(name, checksum)


def _properties(response: Element) -> Iterator[tuple[str, Element]]:
    """Those that the resource has: of each ``propstat`` with status 200."""
    for propstat in response.iter(f"{_DAV}propstat"):
        if _STATUS_OK.match(_text(propstat.find(f"{_DAV}status"))):
            for prop in propstat.iter(f"{_DAV}prop"):
                for element in prop:
                    yield element.tag, element


def _text(element: Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _seconds(text: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, IndexError):  # the last in early releases of Python 3.10 and 3.11
        return 0.0


def _name(href: str, folder: Reference) -> str:
    """The name at the end of an address; empty where it has none that an entry may have."""
    try:
        name = unquote(urlsplit(href).path.rpartition("/")[2], errors="strict")
        return name if name and folder.child(name).name == name else ""
    except (ValueError, errors.InvalidReference):
        return ""


class _Target(Protocol):
    """Gets a document's elements and text, in their order."""

    def start(self, tag: str, attrs: dict[str, str], /) -> object: ...

    def end(self, tag: str, /) -> object: ...

    def data(self, data: str, /) -> object: ...


class _Listing:
    """Keeps the addresses of the entries that are no folders, and nothing else."""

    def __init__(self) -> None:
        self.hrefs: list[str] = []
        self._entries = 0
        self._open: list[str] = []
        self._href: list[str] = []
        self._href_characters = 0
        self._is_folder = False

    def start(self, tag: str, _: dict[str, str], /) -> None:
        self._open.append(tag)
        if len(self._open) == 1 and tag != f"{_DAV}multistatus":
            raise _Refused("it is no multistatus")
        if len(self._open) == 2 and tag == f"{_DAV}response":
            self._href, self._href_characters, self._is_folder = [], 0, False
            self._entries += 1
            if self._entries > LISTING_MAX_ENTRIES:
                raise _Refused(f"it has over {LISTING_MAX_ENTRIES} entries")
        elif self._open[-2:] == [f"{_DAV}resourcetype", f"{_DAV}collection"]:
            self._is_folder = True

    def data(self, data: str, /) -> None:
        if self._open[1:] == [f"{_DAV}response", f"{_DAV}href"]:
            self._href.append(data)
            self._href_characters += len(data)
            if self._href_characters > _HREF_MAX_CHARACTERS:
                raise _Refused("the address of an entry is too long")

    def end(self, _: str, /) -> None:
        if len(self._open) == 2 and self._href and not self._is_folder:
            self.hrefs.append("".join(self._href).strip())
        self._open.pop()


#: ValueError and LookupError: it declares an encoding that the parser cannot use, or nobody knows.
_UNREADABLE = (expat.ExpatError, ValueError, LookupError, _Refused)


def _read(body: bytes, target: _Target, *, elements_max: int) -> None:
    """Parse XML without a document type, which is where entities come from; names are ``<namespace>}<local name>``.

    :raises ExpatError: when it is no XML.
    :raises _Refused: when it has a document type, or is beyond one of the limits.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    elements = depth = 0

    def refuse(*_: object) -> None:
        raise _Refused("it declares a document type")

    def namespace(_: str | None, name: str | None) -> None:
        if name is not None and len(name) > _NAMESPACE_MAX_CHARACTERS:
            raise _Refused("the name of a namespace is too long")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements > elements_max or depth > _DEPTH_MAX:
            raise _Refused("it has too many elements")
        target.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        target.end(tag)

    # No WebDAV server sends one, and what it declares may grow without bounds or name local files.
    parser.StartDoctypeDeclHandler = refuse
    parser.StartNamespaceDeclHandler = namespace
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = target.data
    parser.Parse(body, True)
