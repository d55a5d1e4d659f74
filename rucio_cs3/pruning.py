"""Which empty folders below a place are removed, and in which order. Knows no Rucio, prints nothing.

Each folder is judged by how it was before anything in it was touched: a folder that was old, and held nothing but
folders that have gone, goes too. How one is removed, and what is done about a file that comes into it at that moment,
is in :mod:`rucio_cs3.cs3.empty_folders`; the command in :mod:`rucio_cs3.cli.prune`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.empty_folders import Deed, EmptyFolders, Outcome
from rucio_cs3.cs3.hidden_names import is_part
from rucio_cs3.cs3.namespace import Deleted
from rucio_cs3.cs3.reference import NAME_MAX_BYTES, Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.server_clock import ClockOffset, clock_offset
from rucio_cs3.inventory.crawl import is_of_one_place

if TYPE_CHECKING:
    from rucio_cs3.clouds import Place
    from rucio_cs3.cs3.storage import CS3Storage

_log = logging.getLogger(__name__)

#: Folders younger than this are never removed, in seconds: an upload makes its folder first, and its file comes last.
LEAST_AGE_S = 600.0

#: Removed folders that are looked for in the bin by one listing, where the server does not say with the Delete which
#: item of the bin one has become. Until then a file that came in between is away.
_TOGETHER = 50

#: Longest name of a folder that Reva v3.12.1 ``local`` can put into its bin, in bytes: it adds ``.d`` and milliseconds.
_NAME_MAX_BYTES = NAME_MAX_BYTES - len(".d1700000000000")

#: How much later than our deletion a folder may say that it was changed by it, in seconds; times may be whole seconds.
_TOLERANCE_S = 1.0


@dataclass
class Run:
    """One run; its outcomes come from :meth:`outcomes`.

    :param older_than_s: what was changed later stays, by the server's clock.
    :param unchecked: go on where nobody can see afterwards what was in a folder that was removed.
    :param ends: asked between two folders; once it says True nothing more is begun.
    """

    place: Place
    older_than_s: float
    dry_run: bool = False
    unchecked: bool = False
    ends: Callable[[], bool] = field(default=lambda: False)
    #: Folders that were looked at, so far.
    looked_at: int = 0

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Remove, and tell of each folder when it is known what has become of it. Close it to end early.

        :raises InvalidRequest: for a place outside of the cloud's folder, and an age that is too low.
        :raises Unavailable: when the server does not say what time it is, or cannot be reached.
        :raises NotFound: when the place is not there.
        :raises Unsupported: before anything is removed, without ``unchecked``, see there.
        """
        _check(self.place, self.older_than_s)
        storage, top = self.place.storage, self.place.reference
        offset = clock_offset(storage.http, storage.endpoint)
        if offset is None:
            raise errors.Unavailable(
                f"{self.place.cloud.name}: the server does not say what time it is (Date of its WebDAV address), so "
                "nobody can tell how old folders are"
            )
        removal = _Removal(storage, top, offset)
        try:
            yield from self._walk(storage, top, removal, time.time() + offset.least_s - self.older_than_s)
        except errors.CS3Error:
            yield from removal.settled()
            raise
        else:
            yield from removal.settled()
        finally:
            # At an early end nobody hears of these, and they are looked at all the same.
            with closing(removal.settled()) as unheard:
                next(unheard, None)

    def _walk(self, storage: CS3Storage, top: Reference, removal: _Removal, old_before_s: float) -> Iterator[Outcome]:
        """Folders in a folder before itself, by name; those that are removed come later, when that is settled."""
        path = [self._opened(storage, FileInfo(reference=top, size=0, is_directory=True), is_folder=False)]
        while path and not self.ends():
            current = path[-1]
            if current.rest:
                child = current.rest.pop()
                try:
                    path.append(self._opened(storage, child, is_folder=True))
                except errors.NotFound:
                    pass  # somebody else has removed it
                except errors.CS3Error as error:
                    if not _goes_on(error):
                        raise
                    current.stays = True
                    if not isinstance(error, errors.Throttled):  # too large to be listed, and so not empty
                        yield Outcome(reference=child.reference, deed=Deed.FAILED, why=str(error))
                continue
            path.pop()
            if not path or current.stays:
                if path:
                    path[-1].stays = True
                continue
            outcome = self._judged(current, removal, old_before_s)
            if outcome is None:
                path[-1].ours_until_s = removal.last_until_s
                if removal.is_due:
                    yield from removal.settled()
            else:
                path[-1].stays |= outcome.deed is not Deed.WOULD_REMOVE
                yield outcome

    def _opened(self, storage: CS3Storage, info: FileInfo, *, is_folder: bool) -> _Open:
        entries = storage.list(info.reference, is_folder=is_folder)
        self.looked_at += 1
        folders = [one for one in entries if one.is_directory and _may_go(storage, one.reference)]
        return _Open(info=info, rest=folders[::-1], stays=len(folders) < len(entries) or entries.left_out > 0)

    def _judged(self, folder: _Open, removal: _Removal, old_before_s: float) -> Outcome | None:
        """Remove a folder that nothing is in, as far as is known; None where that is done."""
        reference = folder.info.reference
        # 0 is what a server says that does not know.
        if not 0 < folder.info.mtime_s < old_before_s:
            return Outcome(reference=reference, deed=Deed.TOO_YOUNG)
        if self.dry_run:
            return Outcome(reference=reference, deed=Deed.WOULD_REMOVE)
        if not self.unchecked and removal.unseen:
            raise errors.Unsupported(
                "nothing was removed, because nobody could see afterwards whether a file had come into a folder at "
                f"that moment: {removal.unseen}; with --unchecked folders are removed all the same",
                target=self.place.cloud.name,
            )
        try:
            removal.remove(folder)
        except errors.NotFound:
            return Outcome(reference=reference, deed=Deed.CHANGED, why="somebody else has removed it")
        except errors.PreconditionFailed as error:
            return Outcome(reference=reference, deed=Deed.CHANGED, why=error.message)
        except errors.CS3Error as error:
            if not _goes_on(error):
                raise
            return Outcome(reference=reference, deed=Deed.FAILED, why=str(error))
        return None


@dataclass
class _Open:
    """A folder on the way down.

    :param info: how it was before anything in it was touched.
    :param rest: folders in it that were not looked at yet, the last first.
    :param stays: something in it stays.
    :param ours_until_s: see :meth:`~rucio_cs3.cs3.empty_folders.EmptyFolders.remove`.
    """

    info: FileInfo
    rest: list[FileInfo]
    stays: bool
    ours_until_s: float | None = None


class _Removal:
    """Removes, and remembers what is to be looked for in the bin."""

    def __init__(self, storage: CS3Storage, top: Reference, offset: ClockOffset) -> None:
        self._folders: EmptyFolders = storage.empty_folders(top)
        self._offset = offset
        self._removed: list[Deleted] = []
        #: When the last one was removed, at most, by the server's clock.
        self.last_until_s: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether to ask :meth:`settled` now: enough for one listing of the bin, or none is needed."""
        return len(self._removed) >= _TOGETHER or any(one.key is not None for one in self._removed)

    @property
    def unseen(self) -> str:
        """See :attr:`~rucio_cs3.cs3.empty_folders.EmptyFolders.unseen`."""
        return self._folders.unseen

    def remove(self, folder: _Open) -> None:
        deleted = self._folders.remove(folder.info, ours_until_s=folder.ours_until_s)
        self._removed.append(deleted)
        self.last_until_s = deleted.ended_s + self._offset.most_s + _TOLERANCE_S

    def settled(self) -> Generator[Outcome, None, None]:
        """What has become of those that were removed since this was asked last; all is done before the first comes.
        Where something had come into one, and nobody takes its outcome any more, the log has it.
        """
        removed, self._removed = self._removed, []
        done: deque[Outcome] = deque()
        try:
            if removed:
                done.extend(self._folders.settle(removed))
            back = [one.reference.path for one in done if one.deed is Deed.RESTORED]
            while done:
                one = done[0]
                made_again = any(path.startswith(f"{one.reference.path}/") for path in back)
                # For what is in it.
                yield replace(one, deed=Deed.RESTORED) if made_again and one.deed is Deed.REMOVED else one
                done.popleft()
        finally:
            for one in done:
                if one.deed in (Deed.RESTORED, Deed.NOT_RESTORED):
                    _log.warning("%s: something had come into it: %s %s", one.reference, one.deed.value, one.why)


def _check(place: Place, older_than_s: float) -> None:
    folder = place.cloud.folder
    if folder.path and not f"{place.reference.path}/".startswith(f"{folder.path}/"):
        raise errors.InvalidRequest(f"is not below the folder of {place.cloud.name}", target=place.shown)
    if older_than_s < LEAST_AGE_S:
        raise errors.InvalidRequest(
            f"folders younger than {LEAST_AGE_S / 60:.0f} minutes are not removed: an upload may be under way into one"
        )


def _may_go(storage: CS3Storage, folder: Reference) -> bool:
    """Not what programs hide (the doctor's scratch folder, the ``.space`` of OpenCloud, versions of EOS), unless it is
    what a killed run of this has left.
    """
    name = folder.name
    if name.startswith(".") and not is_part(name):
        return False
    return not (storage.endpoint.stores_paths and len(name.encode()) > _NAME_MAX_BYTES)


def _goes_on(error: errors.CS3Error) -> bool:
    """Whether the other folders may fare better; also where a file has taken the place of one meanwhile."""
    return is_of_one_place(error) or isinstance(error, errors.InvalidRequest)
