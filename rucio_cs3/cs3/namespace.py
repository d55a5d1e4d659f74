"""A cloud's names: look, list, make folders, move, delete, with a definite outcome also where an answer is lost.

Metadata only, so gRPC only (:mod:`rucio_cs3.cs3.gateway`). Where a call must not be blindly repeated, the
server is looked at to find out whether it happened.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.reference import NAME_MAX_BYTES, Reference
from rucio_cs3.cs3.resources import FileInfo

_log = logging.getLogger(__name__)

#: Errors after which the server may have done what was asked, although it did not say so.
OPEN_OUTCOME = (errors.TransferInterrupted, errors.DeadlineExceeded, errors.Unavailable)

#: Pause between two looks at a file that is being post-processed or committed, in seconds.
_LOOK_AGAIN_S = 0.25

#: What Reva v3.12.1 local adds to a file's name in the recycle bin: ``.d`` and milliseconds since the epoch.
_RECYCLED_SUFFIX_BYTES = len(".d1700000000000")


class Namespace:
    """The names below one endpoint's root, as one identity sees them; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway) -> None:
        self._endpoint = endpoint
        self._gateway = gateway

    def present(self, reference: Reference) -> FileInfo | None:
        """What is there; None where nothing is."""
        try:
            return self._gateway.stat(reference)
        except errors.NotFound:
            return None

    def list(self, reference: Reference) -> list[FileInfo]:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.list`."""
        if not self._gateway.stat(reference).is_directory:
            # Both lines answer INTERNAL to a ListContainer of a file.
            raise errors.InvalidRequest("is a file, not a folder", operation="ListContainer", target=str(reference))
        return sorted(self._gateway.list_folder(reference), key=lambda info: info.reference.path)

    def make_directories(self, reference: Reference) -> None:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.make_directories`."""
        missing: list[Reference] = []
        fault: errors.ServerFault | None = None
        current = reference
        while current.path:
            try:
                info = self._gateway.stat(current)
            except (errors.NotFound, errors.ServerFault) as error:
                if isinstance(error, errors.ServerFault):
                    # Reva v3.12.1 says INTERNAL to a place below a file; the walk up finds out whether it is one.
                    fault = fault or error
                missing.append(current)
                current = current.parent
                continue
            if not info.is_directory:
                raise errors.AlreadyExists(
                    "a file stands where a folder is needed", operation="CreateContainer", target=str(current)
                )
            break
        if fault is not None:
            raise fault
        for folder in reversed(missing):
            try:
                self._gateway.create_folder(folder)
            except errors.CS3Error:
                # Somebody else may make the same folder at the same moment: AlreadyExists where the server
                # notices, INTERNAL from Reva v3.12.1 local. If it is there now, all is as wanted.
                made = self.present(folder)
                if made is None or not made.is_directory:
                    raise

    def move(self, source: Reference, destination: Reference, *, size: int) -> None:
        """Move a file of ``size`` bytes; Reva v3.12.1 replaces what stands at the destination."""
        try:
            self._gateway.move(source, destination)
        except OPEN_OUTCOME as error:
            if self._still_there(source):
                raise
            arrived = self.present(destination)
            if arrived is None or arrived.size != size:
                raise
            _log.info("Move %s to %s: done although its answer was lost (%s)", source, destination, error)

    def delete(self, reference: Reference) -> None:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.delete`."""
        if not reference.path:
            # OpenCloud would empty the whole space; Reva refuses its mount.
            raise errors.InvalidRequest("is the root of the storage", operation="Delete", target=str(reference))
        try:
            self._gateway.delete(reference)
        except OPEN_OUTCOME as error:
            # One look decides what the lost answer was; it is not repeated, because the next Delete
            # could hit a file that somebody wrote meanwhile.
            if self._still_there(reference):
                raise
            _log.info("Delete %s: done although its answer was lost (%s)", reference, error)
        except errors.ServerFault:
            if len(reference.name.encode()) + _RECYCLED_SUFFIX_BYTES <= NAME_MAX_BYTES:
                raise
            self._delete_long_name(reference)

    def _delete_long_name(self, reference: Reference) -> None:
        """Reva v3.12.1 local cannot recycle a name of more than 240 bytes (INTERNAL): give it a shorter one first."""
        shorter = reference.sibling(f".rucio-cs3.{secrets.token_hex(8)}.deleted")
        self._gateway.move(reference, shorter)
        try:
            self._gateway.delete(shorter)
        except errors.CS3Error:
            # Not deleted, so it keeps its name; the first error is the one to report.
            with contextlib.suppress(errors.CS3Error):
                self._gateway.move(shorter, reference)
            raise

    def settled(self, reference: Reference, *, size: int | None = None, within_s: float = 0.0) -> FileInfo:
        """What is there once the server has finished with it.

        :param size: bytes that it is to have; None is any.
        :param within_s: how long it may take to appear with that size, when an answer was lost.
        :raises NotFound: when nothing is there by then.
        :raises TooEarly: when post-processing takes longer than ``timeouts.processing_s``.
        """
        now = time.monotonic()
        commit_by, processed_by = now + within_s, now + self._endpoint.timeouts.processing_s
        while True:
            try:
                info = self._gateway.stat(reference)
            except errors.NotFound:
                if time.monotonic() >= commit_by:
                    raise
            else:
                if not info.processing and (info.size == size or size is None or time.monotonic() >= commit_by):
                    return info
                if info.processing and time.monotonic() >= processed_by:
                    raise errors.TooEarly(
                        "the server is stuck in post-processing; it has the file, but nobody can read it yet",
                        operation="Stat",
                        target=str(reference),
                    )
            time.sleep(_LOOK_AGAIN_S)

    def _still_there(self, reference: Reference) -> bool:
        """After a lost answer: is it there? What cannot be found out counts as "yes, nothing happened"."""
        try:
            return self.present(reference) is not None
        except errors.CS3Error:
            return True
