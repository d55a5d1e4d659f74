"""How the reading of a remote file may end before its end, and what may be done about it. Pure."""

from __future__ import annotations

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo

#: Errors after which the same file may be had a moment later.
TEMPORARY = (
    errors.TransferInterrupted,
    errors.DeadlineExceeded,
    errors.Unavailable,
    errors.Throttled,
    errors.TooEarly,
)

#: Errors that no look at the file explains.
FINAL = (
    errors.NotFound,  # said by a look itself
    errors.AccessDenied,
    errors.Unauthenticated,
    errors.ProtocolViolation,
    errors.ConfigurationError,
    errors.LocalError,
)


class VersionMoved(Exception):
    """Another version of the file is there now.

    :param info: it.
    """

    def __init__(self, info: FileInfo) -> None:
        super().__init__("another version is there now")
        self.info = info


class NoRanges(Exception):
    """The server gave the whole file, or nothing (416), where it was asked for a range."""


class Stopped(Exception):
    """Another thread of the same download has ended it."""


def same_version(one: FileInfo, other: FileInfo) -> bool:
    """Whether two looks saw the same content, as far as metadata tell."""
    return (one.size, one.etag, one.mtime_s) == (other.size, other.etag, other.mtime_s)
