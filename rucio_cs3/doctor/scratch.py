"""The one folder that an examination writes in: hidden, named at random, and gone at the end."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.recycle import RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.storage import CS3Storage

#: How the folders' names begin. No name of Rucio's begins so, and clouds hide what begins with a dot.
PREFIX = ".rucio-cs3-doctor."

#: So far may the server's clock be behind ours, in seconds; only what is this young is looked for in the recycle bin.
_CLOCKS_S = 86_400.0


class Scratch:
    """A folder of its own below ``parent``. Made with :meth:`make`, and removed with all in it by :meth:`remove`.

    :param parent: it has to exist: nothing above the folder is ever made, or removed.
    """

    def __init__(self, storage: CS3Storage, parent: Reference) -> None:
        self._storage = storage
        self.folder = parent.child(f"{PREFIX}{secrets.token_hex(8)}")
        self._since_s = time.time() - _CLOCKS_S
        self._lock = threading.Lock()
        self._begun = False
        self._over = False

    def make(self) -> None:
        """
        :raises CS3Error: when it cannot be made.
        """
        with self._lock:
            if self._over:
                raise errors.Cancelled("the examination is over")
            self._begun = True
        self._storage.gateway.create_folder(self.folder)

    def file(self, name: str) -> Reference:
        """A place in it for one check.

        :raises Cancelled: when the examination is over.
        """
        if self._over:
            raise errors.Cancelled("the examination is over")
        return self.folder.child(name)

    def end(self) -> None:
        """Let nobody begin to write any more. Idempotent."""
        with self._lock:
            self._over = True

    def remove(self) -> list[str]:
        """Remove it, and what of it went to the recycle bin; may be done again. Whoever still writes then may leave
        something: wait for them before.

        :returns: what is left, for people; empty where nothing is. Raises nothing of the server's.
        """
        self.end()
        with self._lock:
            if not self._begun:
                return []
        left = []
        try:
            self._delete()
        except errors.CS3Error as error:
            left.append(f"{self.folder} ({error.message})")
        return left + self._purge()

    def _delete(self) -> None:
        for last in (False, True):
            try:
                # File by file: Reva v3.12.1 purges no folder that has something in it.
                for info in self._storage.list(self.folder):
                    with contextlib.suppress(errors.CS3Error):
                        self._storage.delete(info.reference)
                self._storage.delete(self.folder)
            except errors.NotFound:
                return
            except errors.CS3Error:
                # Somebody may still be writing in it.
                if last:
                    raise

    def _purge(self) -> list[str]:
        parent, recycle_bin = self.folder.parent, self._storage.recycle_bin
        try:
            mine = [item for item in recycle_bin.items(parent, since_s=self._since_s) if self.holds(item)]
        except (errors.Unsupported, errors.AccessDenied):
            # There is no bin, or nobody may look into it; the row of the table says so.
            return []
        except errors.CS3Error as error:
            return [f"what of {self.folder} is in the recycle bin, which could not be looked into ({error.message})"]
        left = []
        # What was in it before it: a folder's purge may need it to be empty.
        for item in sorted(mine, key=lambda one: len(one.reference.path), reverse=True):
            try:
                recycle_bin.purge(item)
            except errors.CS3Error as error:
                left.append(f"{item.reference} in the recycle bin ({error.message})")
        return left

    def holds(self, item: RecycledItem) -> bool:
        """Whether something in the recycle bin is the folder, or was in it."""
        return f"{item.reference.path}/".startswith(f"{self.folder.path}/")
