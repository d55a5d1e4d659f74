"""What Rucio deletes at one RSE, as its setting ``cs3_delete`` wants it. Imports no Rucio.

Rucio's reaper deletes a chunk of files and then closes the protocol; what is to be done besides is done then, together.
The deletions themselves are in :mod:`rucio_cs3.cs3.file_deletions`.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import Deleted
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.storage import CS3Storage

#: Deletions that are purged together: at Reva v3.12.1 the recycle bin is listed once for all of them. Whoever kills a
#: daemon leaves so many in the bin.
TOGETHER = 100

#: Places that a warning names.
_NAMED = 5


class Deletions:
    """The deletions of one protocol object.

    :param folder: that all files of the RSE are below.
    :param warn: tells the operator.
    """

    def __init__(self, rse: str, storage: CS3Storage, folder: Reference, warn: Callable[[str], None]) -> None:
        self.storage = storage
        self._rse = rse
        self._folder = folder
        self._warn = warn
        self._files = storage.file_deletions(looks=storage.endpoint.deletion_look != "never")
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._unfinished: list[Deleted] = []
        #: The server did not answer when it was to purge: why nothing more is begun.
        self._silence: str | None = None

    def delete(self, reference: Reference, upcoming: Iterable[Reference] = ()) -> None:
        """Delete a file; what the settings want besides is done by :meth:`finish`, or when there is much of it.

        :param upcoming: what is probably deleted next.
        :raises NotFound: when it is not there, and only then.
        """
        try:
            deleted = self._files.delete(reference, upcoming)
        except errors.NotFound as error:
            # Of a space that is not ours (any more), a wrong cs3_root or a disk that is not mounted, servers
            # of both lines say NOT_FOUND of every file, and Rucio would forget all that is there.
            if not self.storage.exists(self._folder):
                raise errors.Unavailable(
                    f"RSE {self._rse}: not even the prefix's folder {self._folder} is there, so "
                    "nothing can be said of its files; check cs3_root, the account's access and the disk",
                    operation="Delete",
                    target=str(reference),
                ) from error
            raise
        if self.storage.endpoint.deletion == "purge":
            with self._lock:
                self._unfinished.append(deleted)
                enough = len(self._unfinished) >= TOGETHER
            if enough:
                self.finish()

    def finish(self) -> None:
        """Purge what has been deleted, where the RSE wants that. What cannot be purged is told; it is no error, for
        deleted it is. After a fork the parent does that.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            deleted, self._unfinished = self._unfinished, []
        if not deleted:
            return
        by_reason: dict[str, list[Deleted]] = defaultdict(list)
        if self._silence is not None:
            # Each time it would be waited for again.
            by_reason[self._silence] = deleted
        else:
            for one in self.storage.purge(self._folder, deleted):
                by_reason[one.why].append(one.deleted)
                if one.silent:
                    self._silence = one.why
        for why, ones in by_reason.items():
            places = ", ".join(str(one.recycled_as) for one in ones[:_NAMED])
            more = f" and {len(ones) - _NAMED} more" if len(ones) > _NAMED else ""
            self._warn(f"RSE {self._rse}: deleted, but not purged from the recycle bin: {places}{more}: {why}")
