"""Our errors as Rucio's exceptions: the one table, by class and never by text."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rucio.common import exception

from rucio_cs3.cs3 import errors

_Table = Mapping[type[errors.CS3Error], type[exception.RucioException]]

#: Error -> Rucio's exception, total over the tree by inheritance. Rucio's reaper decides by class:
#: SourceNotFound means "deleted"; ServiceUnavailable, RSEAccessDenied and ResourceTemporaryUnavailable are
#: strikes that exclude the whole RSE for a while, so they stand only for faults of the whole RSE; everything
#: else concerns this file alone and is tried again in the next cycle.
RUCIO_EXCEPTIONS: _Table = {
    errors.NotFound: exception.SourceNotFound,
    errors.AlreadyExists: exception.FileReplicaAlreadyExists,
    errors.AccessDenied: exception.AccessDenied,
    errors.Unauthenticated: exception.RSEAccessDenied,
    errors.InvalidReference: exception.RSEFileNameNotSupported,
    errors.InvalidRequest: exception.RSEOperationNotSupported,
    errors.Unsupported: exception.RSEOperationNotSupported,
    errors.NoSpaceLeft: exception.RSEOverQuota,
    errors.Throttled: exception.ResourceTemporaryUnavailable,
    errors.Unavailable: exception.ServiceUnavailable,
    errors.DeadlineExceeded: exception.ServiceUnavailable,
    errors.IntegrityError: exception.FileConsistencyMismatch,
    errors.LocalError: exception.DestinationNotAccessible,
    errors.ConfigurationError: exception.ConfigurationError,
    errors.CS3Error: exception.RucioException,
}

#: Where ``put`` differs: its source is the local file, its destination the cloud.
PUT_EXCEPTIONS: _Table = {
    errors.LocalNotFound: exception.SourceNotFound,
    errors.LocalError: exception.SourceAccessDenied,
    errors.NotFound: exception.DestinationNotAccessible,
    errors.PreconditionFailed: exception.DestinationNotAccessible,
    errors.AccessDenied: exception.DestinationNotAccessible,
}


def rucio_exception(error: errors.CS3Error, first: _Table | None = None) -> exception.RucioException:
    """Rucio's exception for an error: that of its nearest class in ``first``, then in :data:`RUCIO_EXCEPTIONS`."""
    for table in (first or {}, RUCIO_EXCEPTIONS):
        for kind in type(error).__mro__:
            if kind in table:
                return table[kind](str(error))
    raise AssertionError(f"{type(error).__name__} is no CS3Error")


class RucioExceptions:
    """Within it, errors of this package become Rucio's exceptions; ``first`` is as for :func:`rucio_exception`."""

    def __init__(self, first: _Table | None = None) -> None:
        self._first = first

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, errors.CS3Error):
            raise rucio_exception(error, self._first) from error
