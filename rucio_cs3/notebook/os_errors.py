"""Errors as Python's own file functions raise them: FileNotFoundError, PermissionError and so on, with our sentence.

The tree of :mod:`rucio_cs3.cs3.errors` is none of OSErrors, for good reasons inside of the package; whoever opens a
file expects them. What comes is the one that :class:`OSError` makes of a number, and its ``__cause__`` is ours.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping

from rucio_cs3.cs3 import errors

#: Error class -> number; the nearest base counts. A wrong setting is none of them: it stays a ConfigurationError.
NUMBERS: Mapping[type[errors.CS3Error], int] = {
    errors.NotFound: errno.ENOENT,  # FileNotFoundError
    errors.AlreadyExists: errno.EEXIST,  # FileExistsError
    errors.AccessDenied: errno.EACCES,  # PermissionError
    errors.Unauthenticated: errno.EACCES,
    errors.InvalidRequest: errno.EINVAL,
    errors.Unsupported: errno.ENOTSUP,
    errors.PreconditionFailed: errno.ESTALE,
    errors.Locked: errno.EBUSY,
    errors.TooEarly: errno.EBUSY,
    errors.NoSpaceLeft: errno.ENOSPC,
    errors.Throttled: errno.EBUSY,
    errors.Unavailable: errno.ECONNREFUSED,  # ConnectionRefusedError
    errors.DeadlineExceeded: errno.ETIMEDOUT,  # TimeoutError
    errors.Cancelled: errno.ECANCELED,
    errors.ServerFault: errno.EIO,
    errors.ProtocolViolation: errno.EPROTO,
    errors.TransferInterrupted: errno.ECONNABORTED,  # ConnectionAbortedError
    errors.IntegrityError: errno.EIO,
    errors.LocalError: errno.EIO,
    errors.LocalNotFound: errno.ENOENT,
    errors.LocalNoSpaceLeft: errno.ENOSPC,
}


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn our errors out of a block into those of Python's file functions.

    :raises OSError: with the number of :data:`NUMBERS`.
    """
    try:
        yield
    except errors.ConfigurationError:
        raise
    except errors.CS3Error as error:
        raise os_error(error) from error


def os_error(error: errors.CS3Error) -> OSError:
    """What Python's file functions would raise for it."""
    number = next((NUMBERS[kind] for kind in type(error).__mro__ if kind in NUMBERS), errno.EIO)
    return OSError(number, str(error))


def is_a_folder(shown: str) -> IsADirectoryError:
    """The error of what wants a file and finds a folder.

    :param shown: what people call the place.
    """
    return IsADirectoryError(errno.EISDIR, f"{shown} is a folder, not a file")


def is_a_file(shown: str) -> NotADirectoryError:
    """The error of what wants a folder and finds a file."""
    return NotADirectoryError(errno.ENOTDIR, f"{shown} is a file, not a folder")


def is_there(shown: str) -> FileExistsError:
    """The error of what would replace something unasked."""
    return FileExistsError(errno.EEXIST, f"{shown} is there already")
