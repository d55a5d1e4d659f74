"""Every error that this client raises, and the three tables that decide which one it is.

This module does no I/O and knows neither Rucio nor a transport object: the edges
(:mod:`rucio_cs3.cs3.gateway` for gRPC, :mod:`rucio_cs3.cs3.http.client` for HTTP) translate once
with the tables below; :mod:`rucio_cs3.protocol` maps the tree onto Rucio's exceptions. ::

    CS3Error
    +-- NotFound               the server says that the file or folder does not exist
    +-- AlreadyExists          the target is there, and overwriting was not asked for
    +-- AccessDenied           the identity is known, and may not do this
    +-- Unauthenticated        no token, or one that the server does not accept
    +-- InvalidRequest         the request is malformed; repeating it cannot help
    |   +-- InvalidReference   a PFN or path outside the storage's prefix, or one that is no path
    +-- Unsupported            the server does not implement this
    +-- PreconditionFailed     a condition of the request (parent, etag, lock) does not hold
    +-- Locked                 somebody holds a lock; later it may work
    +-- TooEarly               the file is still being post-processed; later it may work
    |   +-- StillProcessing    ... for longer than this client was told to wait
    +-- NoSpaceLeft            a quota or a disk at the server is full
    +-- Throttled              the server asks for fewer requests
    +-- Unavailable            the server cannot be reached, or says that it is not able to serve
    +-- DeadlineExceeded       no answer within the time allowed
    +-- Cancelled              the call was cancelled
    +-- ServerFault            the server failed, or answered with a code that says nothing more
    |   +-- UnknownCode        a code that no table knows; never taken for NotFound
    +-- ProtocolViolation      the server's answer breaks its own protocol
    +-- TransferInterrupted    a data connection ended before the data did
    +-- IntegrityError         what arrived is not what was sent
    |   +-- SizeMismatch
    |   +-- ChecksumMismatch
    +-- LocalError             the disk or the file on this side; nothing remote is to blame
    |   +-- LocalNotFound
    |   +-- LocalChanged       the local file changed while it was read
    |   +-- LocalNoSpaceLeft
    +-- ConfigurationError     a setting is missing or wrong

It is no :class:`OSError` on purpose: an ``except OSError`` around local disk work must not swallow
a remote fault (note that those of sockets and of :mod:`ssl` *are*).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

#: Most characters of a message; of a longer one the middle is left out. Servers' words are in it, and of their code,
#: trace id and whatever else they say no more than the second number is kept.
MESSAGE_MAX_CHARACTERS = 8000
DETAIL_MAX_CHARACTERS = 200


class CS3Error(Exception):
    """Base of all errors; ``str()`` is a sentence that stands alone, and of one line: what would end it or steer a
    terminal is replaced.

    :param message: what happened, in one sentence.
    :param operation: what was attempted, such as ``Stat`` or ``PUT``.
    :param target: what it was attempted on: a CS3 path or a URL without credentials.
    :param code: the server's own code, such as ``CODE_LOCKED``, ``UNAVAILABLE`` or ``HTTP 507``.
    :param trace: the server's trace id, for the operator's search in the server's log.
    :param retryable: whether the same call may succeed later without anybody changing anything.
    :param retry_after_s: for how many seconds the server asked to be left alone (``Retry-After``).
    """

    #: Whether an error of this class is worth another try unless its raiser says otherwise.
    retryable_by_default = False

    def __init__(
        self,
        message: str,
        *,
        operation: str | None = None,
        target: str | None = None,
        code: str | None = None,
        trace: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        message = _told(message, MESSAGE_MAX_CHARACTERS)
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.target = target and _told(target, MESSAGE_MAX_CHARACTERS)
        self.code = code and _told(code, DETAIL_MAX_CHARACTERS)
        self.trace = trace and _told(trace, DETAIL_MAX_CHARACTERS)
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        parts = [self.message]
        if self.operation and self.target:
            parts.insert(0, f"{self.operation} {self.target}:")
        elif self.operation or self.target:
            parts.insert(0, f"{self.operation or self.target}:")
        details = [part for part in (self.code, f"trace {self.trace}" if self.trace else None) if part]
        if details:
            parts.append(f"({', '.join(details)})")
        return " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves, and Rucio's
        # upload client and multiprocessing both send exceptions between processes.
        return (_rebuild, (type(self), self.message, self._details()))

    def _details(self) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "target": self.target,
            "code": self.code,
            "trace": self.trace,
            "retryable": self.retryable,
            "retry_after_s": self.retry_after_s,
        }


def _told(text: str, most: int) -> str:
    """Text as it may be told: of one line, without what steers a terminal, and not too long."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}…{text[-half:]}"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or unicodedata.category(character) == "Zs" else "\ufffd"
        for character in text
    )


def _rebuild(cls: type[CS3Error], message: str, details: Mapping[str, Any]) -> CS3Error:
    return cls(message, **details)


class NotFound(CS3Error):
    """The server, with a token known to be good, says that the file or folder does not exist."""


class AlreadyExists(CS3Error):
    """The target is there, and overwriting was not asked for."""


class AccessDenied(CS3Error):
    """The identity is known to the server, and may not do this."""


class Unauthenticated(CS3Error):
    """There was no token, or one that the server does not accept."""


class InvalidRequest(CS3Error):
    """The request is malformed; repeating it cannot help."""


class InvalidReference(InvalidRequest):
    """A PFN or path lies outside the storage's prefix, or is no path at all."""


class Unsupported(CS3Error):
    """The server does not implement this."""


class PreconditionFailed(CS3Error):
    """A condition of the request (parent folder, etag, lock) does not hold."""


class Locked(CS3Error):
    """Somebody holds a lock on the file; later it may work."""

    retryable_by_default = True


class TooEarly(CS3Error):
    """The file is still being post-processed by the server; later it may work."""

    retryable_by_default = True


class StillProcessing(TooEarly):
    """The server has the whole file, and has not made it readable within ``timeouts.processing_s``."""


class NoSpaceLeft(CS3Error):
    """A quota or a disk at the server is full."""


class Throttled(CS3Error):
    """The server asks for fewer requests."""

    retryable_by_default = True


class Unavailable(CS3Error):
    """The server cannot be reached, or says that it is not able to serve at the moment."""

    retryable_by_default = True


class DeadlineExceeded(CS3Error):
    """There was no answer within the time allowed."""

    retryable_by_default = True


class Cancelled(CS3Error):
    """The call was cancelled."""


class ServerFault(CS3Error):
    """The server failed, or answered with a code that says nothing more."""


class UnknownCode(ServerFault):
    """A code that no table knows; it is kept in ``code`` and never taken for :class:`NotFound`."""


class ProtocolViolation(CS3Error):
    """The server's answer breaks its own protocol."""


class TransferInterrupted(CS3Error):
    """A data connection ended before the data did."""

    retryable_by_default = True


class IntegrityError(CS3Error):
    """What arrived is not what was sent."""


class SizeMismatch(IntegrityError):
    """The number of bytes differs."""


class ChecksumMismatch(IntegrityError):
    """The checksum differs although the number of bytes does not."""


class LocalError(CS3Error):
    """The disk or the file on this side is at fault; nothing remote is to blame."""


class LocalNotFound(LocalError):
    """A local file or folder does not exist."""


class LocalChanged(LocalError):
    """The local file changed while it was being read."""


class LocalNoSpaceLeft(LocalError):
    """The local disk is full."""


class ConfigurationError(CS3Error):
    """A setting is missing or wrong; the message names where and which."""


#: CS3 status code (cs3/rpc/v1beta1/code.proto) -> error; CODE_OK is the only one that is none.
CS3_CODES: Mapping[str, type[CS3Error]] = {
    "CODE_INVALID": ProtocolViolation,  # the zero value: a server that never set its status
    "CODE_CANCELLED": Cancelled,
    "CODE_UNKNOWN": ServerFault,
    "CODE_INVALID_ARGUMENT": InvalidRequest,
    "CODE_DEADLINE_EXCEEDED": DeadlineExceeded,
    "CODE_NOT_FOUND": NotFound,
    "CODE_ALREADY_EXISTS": AlreadyExists,
    "CODE_PERMISSION_DENIED": AccessDenied,
    "CODE_UNAUTHENTICATED": Unauthenticated,
    "CODE_RESOURCE_EXHAUSTED": Throttled,
    "CODE_FAILED_PRECONDITION": PreconditionFailed,
    "CODE_ABORTED": PreconditionFailed,  # code.proto: a sequencer check or an etag failed
    "CODE_OUT_OF_RANGE": InvalidRequest,
    "CODE_UNIMPLEMENTED": Unsupported,
    "CODE_INTERNAL": ServerFault,
    "CODE_UNAVAILABLE": Unavailable,
    "CODE_DATA_LOSS": ServerFault,
    "CODE_REDIRECTION": Unsupported,
    "CODE_INSUFFICIENT_STORAGE": NoSpaceLeft,
    "CODE_LOCKED": Locked,
    "CODE_TOO_EARLY": TooEarly,
}

#: gRPC status name (grpc.StatusCode) -> error. NOT_FOUND is *not* NotFound here: on this level it
#: speaks of a method or a proxy route, never of a file, and a reaper would record a deletion.
GRPC_STATUSES: Mapping[str, type[CS3Error]] = {
    "CANCELLED": Cancelled,
    "UNKNOWN": ServerFault,
    "INVALID_ARGUMENT": InvalidRequest,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ServerFault,
    "ALREADY_EXISTS": AlreadyExists,
    "PERMISSION_DENIED": Unauthenticated,  # Reva v3.12.1: this is its answer to a token it cannot read
    "UNAUTHENTICATED": Unauthenticated,
    "RESOURCE_EXHAUSTED": Throttled,  # also: an answer over the message limit; the gateway looks closer
    "FAILED_PRECONDITION": PreconditionFailed,
    "ABORTED": PreconditionFailed,
    "OUT_OF_RANGE": InvalidRequest,
    "UNIMPLEMENTED": Unsupported,
    "INTERNAL": ServerFault,
    "UNAVAILABLE": Unavailable,
    "DATA_LOSS": ServerFault,
}

#: HTTP status -> error, for those that have a meaning of their own on the data path.
HTTP_STATUSES: Mapping[int, type[CS3Error]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: AccessDenied,
    404: NotFound,
    405: Unsupported,
    406: InvalidRequest,
    408: DeadlineExceeded,
    409: PreconditionFailed,  # RFC 4918, 9.3.1 and 9.7.1: the parent collection is missing
    410: NotFound,
    411: InvalidRequest,
    412: PreconditionFailed,
    413: NoSpaceLeft,  # Reva's answer where an upload is larger than the quota allows
    415: Unsupported,
    416: InvalidRequest,
    417: InvalidRequest,
    419: ChecksumMismatch,  # OpenCloud: a wrong Upload-Checksum
    423: Locked,
    424: PreconditionFailed,
    425: TooEarly,
    429: Throttled,
    460: ChecksumMismatch,  # TUS 1.0.0, checksum extension
    500: ServerFault,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
    507: NoSpaceLeft,
}


def for_cs3_code(name: str) -> type[CS3Error]:
    """The error class of a CS3 status code by its name; :class:`UnknownCode` for a new one."""
    return CS3_CODES.get(name, UnknownCode)


def for_grpc_status(name: str) -> type[CS3Error]:
    """The error class of a gRPC status by its name; :class:`UnknownCode` for a new one."""
    return GRPC_STATUSES.get(name, UnknownCode)


def for_http_status(status: int) -> type[CS3Error]:
    """The error class of an HTTP status of 300 and above; total over all integers.

    A redirect is a :class:`ProtocolViolation`, because it is never followed with credentials.
    """
    if status in HTTP_STATUSES:
        return HTTP_STATUSES[status]
    if 300 <= status < 400:
        return ProtocolViolation
    if 400 <= status < 500:
        return InvalidRequest
    if 500 <= status < 600:
        return ServerFault
    return UnknownCode
