"""Checksums kept beside a file as its metadata, at servers that store none of their own.

Its one job: write them where they are worth it (:class:`KeptChecksums`), and believe them only of the very content
that they were made of (:func:`believed`). Who asks: :mod:`rucio_cs3.cs3.resources` for every file that is looked at.

**What is believed.** A record names size, modification time and etag of the content. Whoever overwrites the file, by
whatever way, gives it another etag, and the record is void. Reva v3.12.1 ``local`` makes the etag of inode, device,
size and modification time in whole seconds (``localfs_unix.go``: ``calcEtag``), and it keeps metadata by path: they
are still there for whatever stands under the name later, also after Delete. So the etag is what protects: an
overwritten or deleted file keeps its inode in the versions or in the recycle bin, and its successor has another, also
within the same second. Only a file that is deleted *and purged*, and followed by one of equal size within the second
of its own upload, has a successor with its etag (seen on ext4).

**What it proves.** The caller keeps only what it has just read back (or compared in another way) of the content that
the record names. So a record says: these bytes were there, whole and right, and nothing has been written through
the server since. That is what a server's own checksum says, too; neither notices a rotten disk before somebody reads.
After a third-party copy the content is new, no record fits, and it is read as if there had never been one. Who may
write a file may write its metadata, too, and could vouch for a content that he made; with adler32, which is no
protection against intent, he could as well make a content that fits.

**The name of a record** is :data:`KEY_PREFIX` and a digest of what it names, so that no two contents share one. With
one name for all, Reva v3.12.1 ``local`` answers a Move with INTERNAL, after the file has moved, where a record of a
deleted file is left at the new name (``db.go``: ``copyMD`` hits its primary key).
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import HEX_DIGITS

if TYPE_CHECKING:
    from rucio_cs3.cs3.gateway import Gateway
    from rucio_cs3.cs3.resources import FileInfo

_log = logging.getLogger(__name__)

#: Beginning of the metadata keys of records. With what follows it is the name of an XML element, too.
KEY_PREFIX = "rucio.checksums."

#: Smallest file whose checksums are kept, in bytes. Below it one read of the file costs no more than keeping. Reva
#: v3.12.1 ``local`` on this project's 2-core machine, smallest of many in ms: SetArbitraryMetadata 2.3 on a disk (a
#: synced SQLite transaction) and 0.7 in memory; ticket and GET of 4 KiB 2.5, 256 KiB 3.0, 1 MiB 5.3, 4 MiB 14.7.
KEEP_FROM_BYTES = 1024 * 1024

#: How long a server that did not take metadata is left in peace, in seconds.
REFUSED_PAUSE_S = 600.0

#: Form of a record: version, then checksums, size, modification time and etag, which may hold anything.
_RECORD = re.compile(r"1 (?P<sums>[a-z0-9:,]+) (?P<size>\d+) (?P<mtime>\S+) (?P<etag>.+)", re.DOTALL)


class KeptChecksums:
    """Keeps checksums at one endpoint; safe for many threads.

    :param enabled: False keeps nothing.
    """

    def __init__(self, gateway: Gateway, *, name: str, enabled: bool) -> None:
        self._gateway = gateway
        self._name = name
        self._enabled = enabled
        self._lock = threading.Lock()
        self._refused_until = 0.0
        self._told = False

    def keep(self, info: FileInfo, sums: Mapping[str, str]) -> bool:
        """Keep checksums of a content that is proven to have them.

        Nothing is done for a small file, one of which the server knows these checksums or has a record already, and one
        without an etag. That a server refuses or fails is no error: after :data:`REFUSED_PAUSE_S` it is asked again.
        One round trip.

        :param info: what the server said of that very content.
        :param sums: algorithm -> full-width hex digits.
        :returns: whether they are kept now.
        """
        if not self._enabled or not worth_keeping(info) or time.monotonic() < self._refused_until:
            return False
        known = {name: value for name, value in sums.items() if name in HEX_DIGITS}
        if known.keys() <= info.checksums.keys():
            return False
        # A content has one record: what an earlier one said stays in it.
        known = {**{name: value for name, value in info.checksums.items() if name in HEX_DIGITS}, **known}
        try:
            self._gateway.set_metadata(info.reference, {key_of(info): record_of(info, known)})
        except errors.NotFound:
            # Somebody moved or removed it meanwhile; the server does not refuse metadata.
            return False
        except errors.CS3Error as error:
            self._pause(error)
            return False
        return True

    def _pause(self, error: errors.CS3Error) -> None:
        with self._lock:
            self._refused_until = time.monotonic() + REFUSED_PAUSE_S
            first, self._told = not self._told, True
        if first:
            _log.info("%s: checksums cannot be kept as metadata for now (%s)", self._name, error)


def worth_keeping(info: FileInfo) -> bool:
    """Whether a record of this content would say something that one cheap read does not, and could be believed."""
    return info.size >= KEEP_FROM_BYTES and bool(info.etag) and not (info.is_directory or info.processing)


def key_of(info: FileInfo) -> str:
    """The metadata key of the record of a content."""
    return f"{KEY_PREFIX}{hashlib.sha256(_content(info.size, info.mtime_s, info.etag).encode()).hexdigest()[:16]}"


def record_of(info: FileInfo, sums: Mapping[str, str]) -> str:
    """The record of a content; :func:`believed` reads it."""
    written = ",".join(f"{name}:{value}" for name, value in sorted(sums.items()))
    return f"1 {written} {_content(info.size, info.mtime_s, info.etag)}"


def believed(metadata: Mapping[str, str], *, size: int, mtime_s: float, etag: str) -> dict[str, str]:
    """The checksums that a file's metadata hold of the content it has now.

    :param metadata: all arbitrary metadata of the file.
    :returns: algorithm -> full-width lower-case hex digits. Empty where there is no record, where it is of another
        content, or where it is garbage: anybody may edit it.
    """
    if not etag:
        return {}
    content = _content(size, mtime_s, etag)
    for key, record in metadata.items():
        if not key.startswith(KEY_PREFIX):
            continue
        match = _RECORD.fullmatch(record)
        if match is not None and f"{match['size']} {match['mtime']} {match['etag']}" == content:
            return _sums(match["sums"])
    return {}


def _content(size: int, mtime_s: float, etag: str) -> str:
    return f"{size} {mtime_s!r} {etag}"


def _sums(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, _, value = pair.partition(":")
        if not re.fullmatch(r"[0-9a-f]+", value) or len(value) != HEX_DIGITS.get(name):
            return {}
        found[name] = value
    return found
