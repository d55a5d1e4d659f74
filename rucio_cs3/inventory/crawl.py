"""A walk through all files below a folder in the order of their paths, which can go on where another one ended.

The order is that of the paths' bytes in UTF-8, as ``LC_ALL=C sort`` has it. So one path says how far a walk has come,
and what it yields needs no sorting. Folders that come next are listed ahead, beside each other. In memory are the
listings of the folders above the current place, and those that were fetched ahead.

Knows no Rucio, and of the storage only how it lists a folder. What becomes of it: :mod:`rucio_cs3.inventory.dump`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.cs3.side_by_side import Aside

#: Folders that are listed at the same time.
THREADS = 8

#: No more is fetched ahead once so many entries wait; each takes about 1 KiB.
_WAITING_MAX = 20_000

#: How a folder is listed. It raises NotFound where nothing is there, and InvalidRequest where it is a file.
Lister = Callable[[Reference], Entries]

#: What keeps one file or folder from being looked at, and says nothing of the others. All other errors end the walk.
OF_ONE_PLACE = (
    errors.AccessDenied,
    errors.InvalidReference,
    errors.Locked,
    errors.ProtocolViolation,
    errors.ServerFault,
    errors.Throttled,
    errors.TooEarly,
    errors.Unsupported,
)


def is_of_one_place(error: errors.CS3Error) -> bool:
    """Whether an error says something of one file or folder, and nothing of the others. Of throttling, what lasts does:
    an answer that is too large.
    """
    return isinstance(error, OF_ONE_PLACE) and not (isinstance(error, errors.Throttled) and error.retryable)


@dataclass(frozen=True, slots=True)
class Found:
    """A file.

    :param path: below the folder where the walk began, without a leading slash.
    """

    path: str
    info: FileInfo

    @property
    def position(self) -> str:
        """Where a walk is after this."""
        return self.path


@dataclass(frozen=True, slots=True)
class Entered:
    """A folder whose entries come next; "" is the folder where the walk began.

    :param left_out: entries that the server lists and nobody can name; see :class:`~rucio_cs3.cs3.resources.Entries`.
    :param refused: why it cannot be listed; nothing below it comes then.
    :param gone: it was removed since its parent was listed.
    """

    path: str
    left_out: int = 0
    refused: errors.CS3Error | None = None
    gone: bool = False

    @property
    def position(self) -> str:
        """Where a walk is after this."""
        return f"{self.path}/" if self.path else ""


@dataclass(frozen=True, slots=True)
class _Listing:
    entries: Entries
    refused: errors.CS3Error | None = None
    gone: bool = False


class _Level:
    """What is still to come of one folder."""

    def __init__(self, path: str, entries: list[FileInfo], after: str | None) -> None:
        self.path = path
        left = [entry for entry in entries if after is None or not _is_done(self.full(entry), entry, after)]
        left.sort(key=_order)
        self.entries = deque(left)
        self.folders = deque(entry for entry in left if entry.is_directory)

    def full(self, entry: FileInfo) -> str:
        """The path of an entry below the top."""
        return f"{self.path}/{entry.reference.name}" if self.path else entry.reference.name


class Crawl:
    """A walk through what is below ``top``.

    :param lister: see :data:`Lister`; called by several threads.
    :param threads: most folders that are listed at the same time.
    """

    def __init__(self, lister: Lister, top: Reference, *, threads: int = THREADS) -> None:
        self._lister = lister
        self._top = top
        self._threads = threads
        #: Path -> a listing that was begun ahead.
        self._ahead: dict[str, Aside[_Listing]] = {}
        #: Path -> how many entries are waiting there.
        self._arrived: dict[str, int] = {}
        self._lock = threading.Lock()

    def events(self, after: str | None = None) -> Iterator[Found | Entered]:
        """All files and folders, each folder before what is in it.

        :param after: ``position`` of the last event of another walk, which is not repeated; None is the beginning.
        :raises NotFound: when the top is not there, also when it is taken away meanwhile: nothing can be said then.
        :raises CS3Error: when the server cannot be asked. What came before is true all the same.
        """
        listing = self._list(self._top)
        if after is None:
            yield Entered("", listing.entries.left_out, listing.refused)
        levels = [_Level("", listing.entries, after)]
        del listing
        while levels:
            level = levels[-1]
            if not level.entries:
                levels.pop()
                continue
            entry = level.entries.popleft()
            path = level.full(entry)
            if not entry.is_directory:
                yield Found(path, entry)
                continue
            level.folders.popleft()
            got = self._listing_of(path, entry, levels)
            if after is None or f"{path}/" > after:
                yield Entered(path, got.entries.left_out, got.refused, got.gone)
            levels.append(_Level(path, got.entries, after))
            del got

    def _listing_of(self, path: str, entry: FileInfo, levels: list[_Level]) -> _Listing:
        """Begun ahead, or now; and those that come after it are begun."""
        current = self._ahead.pop(path, None) or Aside(self._job(path, entry.reference))
        self._look_ahead(levels)
        got = current.result()
        with self._lock:
            self._arrived.pop(path, None)
        return got

    def _look_ahead(self, levels: list[_Level]) -> None:
        room = self._threads - 1 - len(self._ahead)
        with self._lock:
            waiting = sum(self._arrived.values())
        if room <= 0 or waiting > _WAITING_MAX:
            return
        for level in reversed(levels):
            for entry in level.folders:
                path = level.full(entry)
                if path in self._ahead:
                    continue
                if room <= 0:
                    return
                room -= 1
                self._ahead[path] = Aside(self._job(path, entry.reference))

    def _job(self, path: str, folder: Reference) -> Callable[[], _Listing]:
        def listed() -> _Listing:
            listing = self._list(folder)
            with self._lock:
                self._arrived[path] = len(listing.entries)
            return listing

        return listed

    def _list(self, folder: Reference) -> _Listing:
        try:
            return _Listing(self._lister(folder))
        except errors.InvalidReference as error:
            if folder == self._top:
                raise
            return _Listing(Entries(), refused=error)
        except (errors.NotFound, errors.InvalidRequest) as error:
            if folder == self._top:
                raise
            # Where a file has taken its place meanwhile, that is younger than the walk.
            return _Listing(Entries(), gone=True) if self._has_gone(folder) else _Listing(Entries(), refused=error)
        except errors.CS3Error as error:
            if folder == self._top or not is_of_one_place(error):
                raise
            return _Listing(Entries(), refused=error)

    def _has_gone(self, folder: Reference) -> bool:
        """Whether a folder was removed. A gateway before a storage that is away says NOT_FOUND of everything, and many
        failures are an "invalid argument", so they are believed only where the parent shows, and no such folder in it.

        :raises NotFound: when not even the top shows.
        """
        parent = folder.parent
        try:
            entries = self._lister(parent)
        except (errors.NotFound, errors.InvalidRequest):
            if parent == self._top:
                raise
            return self._has_gone(parent)
        return folder.name not in {entry.reference.name for entry in entries if entry.is_directory}


def _order(entry: FileInfo) -> str:
    # A folder stands where the paths of its files do: "a-b" comes before "a/b".
    return f"{entry.reference.name}/" if entry.is_directory else entry.reference.name


def _is_done(path: str, entry: FileInfo, after: str) -> bool:
    if not entry.is_directory:
        return path <= after
    return f"{path}/" < after and not after.startswith(f"{path}/")
