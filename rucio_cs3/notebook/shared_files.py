"""Files that are read piece by piece by calls that know nothing of each other, as uproot and dask do through fsspec.

Where a server has no ranges, each of them would read the whole file; here they share what was read of one version.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio_cs3.clouds import Place
from rucio_cs3.cs3.resources import FileInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from rucio_cs3.cs3.random_access import RandomAccessFile

#: Most files that are kept at a time; each may have a temporary copy of its size.
_FILES_MAX = 4

#: A file that nobody has asked for so long is given up, in seconds, and its copy with it.
_IDLE_S = 60.0


@dataclass
class _Held:
    file: RandomAccessFile
    users: int = 0
    used_s: float = 0.0


class SharedFiles:
    """The open files of this process, by place and version; safe for many threads. A forked child begins anew.

    :param idle_s: how long a file is kept after its last use.
    """

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._begin()
        # Another thread may hold the lock at the moment of a fork, and the files are the parent's.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Any, _Held] = OrderedDict()
        self._timer: threading.Timer | None = None

    def borrow(self, place: Place, info: FileInfo) -> Loan:
        """A file of just this version, to read at positions; give it back.

        :param info: a new look at it.
        """
        key = (place.cloud.endpoint, place.cloud.provider, info.reference, info.content)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(place.storage.open_seekable(info))
            self._held.move_to_end(key)
            held.users += 1
        return Loan(self, key, held)

    def open(self, place: Place, info: FileInfo) -> SharedReader:
        """The same as a file object with a position of its own."""
        return SharedReader(self.borrow(place, info))

    def read(self, place: Place, info: FileInfo, first: int, end: int) -> bytes:
        """The bytes from ``first`` up to, not including, ``end``.

        :raises CS3Error: see :meth:`RandomAccessFile.read_at`.
        """
        loan = self.borrow(place, info)
        try:
            return loan.file.read_at(first, end)
        except BaseException:
            loan.spoil()
            raise
        finally:
            loan.give_back()

    def spoil(self, key: object, held: _Held) -> None:
        """Nobody else is to get this one: it is of a version that is gone, or broken."""
        with self._lock:
            if self._held.get(key) is held:
                del self._held[key]

    def give_back(self, key: object, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            held.used_s = time.monotonic()
            self._let_go()
            if not held.users and self._held.get(key) is not held:
                held.file.close()

    def clear(self) -> None:
        """Close what nobody reads at the moment, and its temporary copies."""
        with self._lock:
            for key, held in list(self._held.items()):
                if not held.users:
                    del self._held[key]
                    held.file.close()

    def _let_go(self) -> None:
        """Close what is too old or too many; later again, if something stays. Under the lock."""
        now = time.monotonic()
        for key, held in list(self._held.items()):
            too_many = len(self._held) > _FILES_MAX
            if not held.users and (too_many or now - held.used_s >= self._idle_s):
                del self._held[key]
                held.file.close()
        if self._held and self._timer is None:
            self._timer = threading.Timer(self._idle_s, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            self._let_go()


class Loan:
    """A file that somebody else may read, too."""

    def __init__(self, owner: SharedFiles, key: object, held: _Held) -> None:
        self._owner = owner
        self._key = key
        self._held: _Held | None = held
        self.file = held.file

    def spoil(self) -> None:
        """See :meth:`SharedFiles.spoil`."""
        if self._held is not None:
            self._owner.spoil(self._key, self._held)

    def give_back(self) -> None:
        """Idempotent."""
        held, self._held = self._held, None
        if held is not None:
            self._owner.give_back(self._key, held)


class SharedReader(io.RawIOBase):
    """A position of one's own in a file that others read, too."""

    def __init__(self, loan: Loan) -> None:
        super().__init__()
        self._loan = loan
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._loan.file.size}[whence]
        if base + position < 0:
            raise ValueError(f"there is no byte {base + position}")
        self._position = base + position
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """
        :raises CS3Error: see :meth:`RandomAccessFile.readinto`.
        """
        count = self.readinto_at(self._position, memoryview(buffer).cast("B"))
        self._position += count
        return count

    def readinto_at(self, position: int, view: memoryview) -> int:
        """See :meth:`RandomAccessFile.readinto_at`."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        try:
            return self._loan.file.readinto_at(position, view)
        except BaseException:
            self._loan.spoil()
            raise

    def readall(self) -> bytes:
        rest = bytearray(max(self._loan.file.size - self._position, 0))
        self.readinto(rest)
        return bytes(rest)

    def close(self) -> None:
        """Idempotent."""
        if not self.closed:
            self._loan.give_back()
        super().close()


#: Those of this process.
SHARED = SharedFiles()
