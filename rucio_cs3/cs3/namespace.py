"""A cloud's names: look, list, make folders, move, delete, with a definite outcome also where an answer is lost.

Metadata only, so gRPC only (:mod:`rucio_cs3.cs3.gateway`). Where a call must not be blindly repeated, the
server is looked at to find out whether it happened.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.folder_memory import FolderMemory
from rucio_cs3.cs3.gateway import Absence, Gateway
from rucio_cs3.cs3.reference import NAME_MAX_BYTES, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.cs3.side_by_side import Aside

_log = logging.getLogger(__name__)

#: Errors after which the server may have done what was asked, although it did not say so.
OPEN_OUTCOME = (errors.TransferInterrupted, errors.DeadlineExceeded, errors.Unavailable)

#: First pause between two looks at a file that is being post-processed or committed, and the longest, in seconds; it
#: doubles. OpenCloud is done with a small file in some tens of milliseconds, and with a virus scan in minutes.
_LOOK_AGAIN_S = 0.02
_LOOK_AGAIN_MAX_S = 1.0

#: How long a file that has another name for its deletion is deleted again, and then given its name back, while the
#: server cannot be reached, and the pause between two calls, in seconds: more than a short outage.
_INSIST_S = 3.0
_INSIST_PAUSE_S = 0.1

#: What Reva v3.12.1 local adds to a file's name in the recycle bin: ``.d`` and milliseconds since the epoch.
_RECYCLED_SUFFIX_BYTES = len(".d1700000000000")


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """What is known of a deletion that happened.

    :param recycled_as: the place that the recycle bin has it from: another name of the same folder where its own was
        too long for the bin.
    :param key: its key in the recycle bin, where the server said so.
    :param began_s: seconds since the epoch by our clock, as is ``ended_s``; it happened between them.
    :param size: bytes, where they were looked at before.
    """

    reference: Reference
    recycled_as: Reference
    key: str | None = field(repr=False)
    began_s: float
    ended_s: float
    size: int | None = None
    is_directory: bool = False


class Namespace:
    """The names below one endpoint's root, as one identity sees them; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._folders = FolderMemory()

    def present(self, reference: Reference) -> FileInfo | None:
        """What is there; None where nothing is."""
        try:
            return self._gateway.stat(reference)
        except errors.NotFound:
            self._folders.forget(reference)
            return None

    def list(self, reference: Reference, *, is_folder: bool = False) -> Entries:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.list`."""
        if not is_folder:
            self._check_listable(reference)
        try:
            entries = self._gateway.list_folder(reference)
        except errors.ServerFault:
            if is_folder:
                self._check_listable(reference)
            raise
        entries.sort(key=lambda info: info.reference.path)
        return entries

    def _check_listable(self, reference: Reference) -> None:
        if not self._gateway.stat(reference).is_directory:
            # Both lines answer INTERNAL to a ListContainer of a file.
            raise errors.InvalidRequest("is a file, not a folder", operation="ListContainer", target=str(reference))

    def knows_folder(self, reference: Reference) -> bool:
        """Whether a folder was there when it was last heard of."""
        return self._folders.knows(reference)

    def saw_folder(self, reference: Reference) -> None:
        """Something has just shown that a folder is there, such as a file that came to stand in it."""
        self._folders.learn(reference)

    def make_directories(self, reference: Reference, *, remembered: bool = False) -> bool:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.make_directories`.

        :returns: whether a folder was missing.
        """
        if remembered:
            if self._folders.knows(reference):
                return False
            try:
                return self._make_missing(reference, remembered=True)
            except (errors.NotFound, errors.PreconditionFailed):
                # A folder that was known is gone: its parent is missing now.
                pass
        return self._make_missing(reference, remembered=False)

    def _make_missing(self, reference: Reference, *, remembered: bool) -> bool:
        missing: list[Reference] = []
        fault: errors.ServerFault | None = None
        current = reference
        while current.path and not (remembered and self._folders.knows(current)):
            try:
                # A "nothing" that a dead token caused does no harm: what is there cannot be made anew.
                seen = self._gateway.glance(current)
            except errors.ServerFault as error:
                # Reva v3.12.1 says INTERNAL to a place below a file; the walk up finds out whether it is one.
                fault = fault or error
                seen = None
            if isinstance(seen, FileInfo):
                _check_folder(seen)
                self._folders.learn(current)
                break
            self._folders.forget(current)
            missing.append(current)
            current = current.parent
        if fault is not None:
            raise fault
        for folder in reversed(missing):
            try:
                self._gateway.create_folder(folder)
            except errors.CS3Error:
                # Somebody else may make the same folder at the same moment: AlreadyExists where the server
                # notices, INTERNAL from Reva v3.12.1 local. If it is there now, all is as wanted.
                made = self.present(folder)
                if made is None:
                    raise
                _check_folder(made)
            self._folders.learn(folder)
        return bool(missing)

    def rename(self, source: Reference, destination: Reference) -> None:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.move`."""
        # Reva v3.12.1 replaces an existing destination and answers a missing source with INTERNAL, so both are looked
        # at first. The look and the move are not one step: a file that somebody else writes between them to the same
        # name is replaced on that line.
        look = Aside(lambda: self._gateway.glance(destination))
        moving = self._gateway.stat(source)
        try:
            seen = look.result()
        except errors.ServerFault:
            # Reva v3.12.1 to a place below a file, and that is for the folders to say.
            self.make_directories(destination.parent)
            raise
        if isinstance(seen, FileInfo):
            raise errors.AlreadyExists("the new name is taken", operation="Move", target=str(destination))
        self.make_directories(destination.parent, remembered=True)
        try:
            self.move(source, destination, size=moving.size, absent=seen)
        except (errors.NotFound, errors.ServerFault):
            # What a folder shows as that was removed since it was seen (OpenCloud, Reva v3.12.1).
            if not self.make_directories(destination.parent):
                raise
            self.move(source, destination, size=moving.size)

    def take_name(self, hidden: Reference, reference: Reference, *, size: int) -> None:
        """See :meth:`rucio_cs3.cs3.hidden_files.HiddenFiles.take_name`."""
        seen = self._gateway.glance(reference)
        if isinstance(seen, FileInfo):
            raise errors.AlreadyExists("something stands there", operation="Move", target=str(reference))
        self.move(hidden, reference, size=size, absent=seen)

    def move(self, source: Reference, destination: Reference, *, size: int, absent: Absence | None = None) -> None:
        """Move a file of ``size`` bytes; Reva v3.12.1 replaces what stands at the destination.

        :param absent: a glance that found nothing there; see :meth:`Gateway.move`.
        :raises AlreadyExists: when that glance was worth nothing, and something is there.
        """
        self._folders.forget(source)
        try:
            try:
                self._gateway.move(source, destination, absent=absent)
            except errors.Unauthenticated:
                if absent is None:
                    raise
                # Nothing has moved, and "nothing is there" was said to a token that may have been dead by then.
                if self.present(destination) is not None:
                    raise errors.AlreadyExists(
                        "the new name is taken", operation="Move", target=str(destination)
                    ) from None
                self._gateway.move(source, destination)
        except OPEN_OUTCOME as error:
            if not self.is_gone(source):
                raise
            arrived = self.present(destination)
            if arrived is None or arrived.size != size:
                raise
            _log.info("Move %s to %s: done although its answer was lost (%s)", source, destination, error)

    def delete(self, reference: Reference) -> Deleted:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.delete`."""
        if not reference.path:
            # OpenCloud would empty the whole space; Reva refuses its mount.
            raise errors.InvalidRequest("is the root of the storage", operation="Delete", target=str(reference))
        self._folders.forget(reference)
        began_s = time.time()
        recycled_as, key = reference, None
        try:
            key = self._gateway.delete(reference)
        except OPEN_OUTCOME as error:
            # A look decides what the lost answer was; it is not repeated, because the next Delete
            # could hit a file that somebody wrote meanwhile.
            if not self.is_gone(reference):
                raise
            _log.info("Delete %s: done although its answer was lost (%s)", reference, error)
        except errors.ServerFault as error:
            if len(reference.name.encode()) + _RECYCLED_SUFFIX_BYTES > NAME_MAX_BYTES:
                recycled_as = self._delete_long_name(reference)
            elif self._endpoint.stores_paths and self.is_gone(reference):
                # Reva v3.12.1 local: of two files of one name in two folders that are deleted within a millisecond, the
                # later takes the earlier's place in the recycle bin, and is answered so.
                _log.info("Delete %s: done although the server says that it failed (%s)", reference, error)
            else:
                raise
        return Deleted(reference=reference, recycled_as=recycled_as, key=key, began_s=began_s, ended_s=time.time())

    def _delete_long_name(self, reference: Reference) -> Reference:
        """Reva v3.12.1 local cannot recycle a name of more than 240 bytes (INTERNAL): give it a shorter one first.

        :returns: its place under the shorter name.
        """
        shorter = reference.sibling(f".rucio-cs3.{secrets.token_hex(8)}.deleted")
        failure: errors.CS3Error | None = None
        moved = True
        try:
            self._gateway.move(reference, shorter)
        except OPEN_OUTCOME as error:
            failure, moved = error, False  # as far as is known
        end = time.monotonic() + _INSIST_S
        while True:
            try:
                # Nobody else has this name, so it may be deleted again.
                self._gateway.delete(shorter)
                return shorter
            except errors.NotFound as error:
                if self.is_gone(shorter):
                    if moved or self.is_gone(reference):
                        return shorter
                    raise failure or error from None
                failure = failure or error
            except OPEN_OUTCOME as error:
                failure = failure or error
            except errors.CS3Error as error:
                failure = error
                break
            if time.monotonic() >= end:
                break
            time.sleep(_INSIST_PAUSE_S)
        self._give_name_back(shorter, reference)
        if isinstance(failure, errors.NotFound):
            # To the caller it would mean that the file is deleted.
            raise errors.Unavailable(
                "the storage shows neither the file nor its folder", operation="Delete", target=str(reference)
            ) from failure
        raise failure

    def _give_name_back(self, shorter: Reference, reference: Reference) -> None:
        """Not deleted, so it keeps its name: under the other nobody would look for it."""
        end = time.monotonic() + _INSIST_S
        while True:
            try:
                # Move would replace what somebody else stored there meanwhile.
                if self.present(reference) is None:
                    self._gateway.move(shorter, reference)
                return
            except errors.CS3Error as error:
                if time.monotonic() >= end:
                    _log.warning("%s: %s may be left as %s: %s", self._endpoint.name, reference, shorter, error)
                    return
            time.sleep(_INSIST_PAUSE_S)

    def settled(self, reference: Reference, *, size: int | None = None, within_s: float = 0.0) -> FileInfo:
        """What is there once the server has finished with it.

        :param size: bytes that it is to have; None is any.
        :param within_s: how long it may take to appear with that size, when an answer was lost.
        :raises NotFound: when nothing is there by then.
        :raises StillProcessing: when post-processing takes longer than ``timeouts.processing_s``.
        """
        began = time.monotonic()
        commit_by, processed_by = began + within_s, began + self._endpoint.timeouts.processing_s
        pause = _LOOK_AGAIN_S
        while True:
            until = commit_by
            try:
                info = self._gateway.stat(reference)
            except errors.NotFound:
                if time.monotonic() >= commit_by:
                    raise
            else:
                now = time.monotonic()
                if not info.processing and (size is None or info.size == size or now >= commit_by):
                    return info
                if info.processing:
                    until = processed_by
                    if now >= processed_by:
                        raise errors.StillProcessing(
                            f"the server is stuck in post-processing: {now - began:.1f} s after it had the whole file, "
                            "nobody can read it yet. Look at it again later; if that lasts, the cloud's operator can "
                            "tell why. Where a cloud is only slow, let timeouts.processing_s (as a setting: "
                            "cs3_processing_timeout_s) be longer",
                            operation="Stat",
                            target=str(reference),
                        )
            time.sleep(max(min(pause, until - time.monotonic()), 0.001))
            pause = min(2 * pause, _LOOK_AGAIN_MAX_S)

    def is_gone(self, reference: Reference) -> bool:
        """After a lost answer: whether nothing is there. What cannot be found out counts as "no, nothing happened".

        A living gateway before a storage that is away says NOT_FOUND of everything, so "nothing" counts only where the
        folder shows, and still after that.
        """
        try:
            return (
                self.present(reference) is None
                and self.present(reference.parent) is not None
                and self.present(reference) is None
            )
        except errors.CS3Error:
            return False


def _check_folder(info: FileInfo) -> None:
    if not info.is_directory:
        raise errors.AlreadyExists(
            "a file stands where a folder is needed", operation="CreateContainer", target=str(info.reference)
        )
