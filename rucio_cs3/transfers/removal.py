"""Deleting at a destination: by whose leave, and never the source under another name; knows no Rucio.

Everything that a transfer deletes under a file's name is deleted here.
"""

from __future__ import annotations

import contextlib

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.jobs import Claim, RequestGone, Stopping


def is_one_file(one: FileInfo, other: FileInfo) -> bool | None:
    """Whether two sites show the same file, because both stand before one disk; None where that cannot be told.

    By their etags where both sites give one: Reva v3.12.1 says the same over gRPC and WebDAV. XRootD 5.5.3 gives none;
    then size and time tell, the latter in whole seconds, as HTTP's dates are.
    """
    if one.size != other.size:
        # Not even a file that is still growing: what Rucio's catalogue has is whole.
        return False
    if one.etag and other.etag:
        return _same_etag(one, other)
    if one.mtime_s and other.mtime_s:
        return int(one.mtime_s) == int(other.mtime_s)
    return None


def remove_leftover(origin: FileInfo, standing: FileInfo, destination: End, claim: Claim) -> None:
    """Delete what stood at the destination before a transfer.

    :param origin: the file at the source.
    :raises InvalidRequest: when it may be the source.
    :raises CS3Error: when the claim does not allow it, or the site.
    """
    same = is_one_file(origin, standing)
    if same is not False:
        raise errors.InvalidRequest(
            "source and destination look like the same file"
            if same
            else "source and destination may be the same file: their sizes are equal, and the sites give neither the "
            "etags nor the times that would tell them apart",
            operation="COPY",
            target=destination.place,
        )
    claim.allow_removal()
    claim.check()
    destination.delete()


def remove_copied(file: FileInfo, destination: End, claim: Claim) -> None:
    """Delete a file that was copied and proven, and that nobody wants any more.

    :param file: what the proof found.
    :raises AlreadyExists: when another stands there now.
    :raises NotFound: when nothing does.
    :raises CS3Error: as for :func:`remove_leftover`.
    """
    _allowed(claim)
    # After the claim, whose answer may take a while.
    standing = destination.stat()
    if not is_copied(file, standing, destination):
        raise errors.AlreadyExists(
            "what stands there now is not known to be the file that was copied",
            operation="Delete",
            target=destination.place,
        )
    destination.delete()


def is_copied(file: FileInfo, standing: FileInfo, destination: End) -> bool:
    """Whether what stands at the destination is known to be the file that was copied.

    :param file: what the proof found, maybe under a hidden name.
    :raises CS3Error: when it cannot be found out.
    """
    if standing.is_directory:
        return False
    if file.etag or file.mtime_s or not file.checksums:
        return bool(is_one_file(file, standing))
    # It was proven by a read alone, so another read tells.
    name, value = next(iter(file.checksums.items()))
    return file.size == standing.size and destination.checksum(name) == value


def _allowed(claim: Claim) -> None:
    """Ask whether what this agent has written may go, also after a cancellation or while it stops."""
    claim.allow_removal()
    # The question may have taken longer than the claim lasts.
    with contextlib.suppress(RequestGone, Stopping):
        claim.check()


def _same_etag(one: FileInfo, other: FileInfo) -> bool:
    def plain(etag: str) -> str:
        # Without what only some front ends write around it.
        return etag.removeprefix("W/").strip('"')

    return bool(one.etag) and plain(one.etag) == plain(other.etag)
