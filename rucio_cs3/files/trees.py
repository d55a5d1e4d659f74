"""Whole trees, up and down: the same layout on the other side, and a second run goes on where the first ended.

:func:`put_tree` and :func:`get_tree` yield the outcome of each file when it is known, so that a tree of any size takes
the memory of its largest folder::

    put_tree          walks the local tree, lists each folder of the cloud once, and says of each file what it is
      outcomes        workers: some files at a time, each outcome, an early end
        Upload        copying: same content already? otherwise up
          same        sameness: the rule
          CS3Storage.upload

Nothing is ever deleted. What is there with another content is replaced only with ``overwrite``, and is a failure
otherwise, whichever side has changed. Links, pipes, devices and unfinished files are named and left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.files import looks, workers
from rucio_cs3.files.copying import Download, Upload, Wishes
from rucio_cs3.files.local_tree import LocalEntry, is_part, kind, local_entries, present
from rucio_cs3.files.outcomes import Deed, Outcome, failed
from rucio_cs3.files.walk import entries
from rucio_cs3.files.workers import Watch, Work

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage


def put_tree(
    storage: CS3Storage,
    local: Path,
    folder: Reference,
    wishes: Wishes,
    watch: Watch | None = None,
    break_off: Callable[[], object] | None = None,
) -> Generator[Outcome, None, None]:
    """Have all that is below a local folder below one of a cloud, too.

    :param folder: is made where it is missing.
    :param watch: called with the bytes that move, from any thread.
    :param break_off: see :func:`rucio_cs3.files.workers.outcomes`.
    :raises LocalError: when ``local`` cannot be read.
    :raises CS3Error: when ``folder`` cannot be looked at or is a file; later, when nothing more can succeed
        (:func:`rucio_cs3.files.workers.outcomes`).
    """
    things = _Upwards(storage, wishes).walk(local, folder)
    return workers.outcomes(things, threads=wishes.threads, watch=watch, break_off=break_off)


def get_tree(
    storage: CS3Storage,
    folder: Reference,
    local: Path,
    wishes: Wishes,
    watch: Watch | None = None,
    break_off: Callable[[], object] | None = None,
) -> Generator[Outcome, None, None]:
    """Have all that is below a folder of a cloud below a local one, too. Nothing is written outside of that, whatever
    the server says its files are called, and wherever local links lead.

    :param local: is made where it is missing.
    :param watch: see :func:`put_tree`, also for ``break_off``.
    :raises CS3Error: when ``folder`` cannot be listed; later as :func:`put_tree`.
    :raises LocalError: when ``local`` cannot be made.
    """
    things = _downwards(storage, folder, local, wishes)
    return workers.outcomes(things, threads=wishes.threads, watch=watch, break_off=break_off)


class _Upwards:
    """Walks a local tree beside one in a cloud."""

    def __init__(self, storage: CS3Storage, wishes: Wishes) -> None:
        self._storage = storage
        self._wishes = wishes

    def walk(self, local: Path, top: Reference) -> Iterator[Outcome | Work]:
        # Folders that wait: the local one, its path below the tree, and whether the cloud has it.
        waiting = [(local, "", _folder_there(self._storage, top))]
        while waiting:
            path, relative, there = waiting.pop()
            below: list[tuple[Path, str, bool]] = []
            try:
                folder = top.child(relative) if relative else top
                found = local_entries(path)  # before anything is made: it may not be readable
                names = _Names(self._storage, folder) if there else _Nothing()
                if not there and not self._wishes.dry_run:
                    self._storage.make_directories(folder, remembered=True)
            except errors.CS3Error as error:
                if not relative:
                    raise
                yield failed(relative, error)
                continue
            for entry in found:
                if isinstance(entry, errors.CS3Error):
                    yield failed(relative or ".", entry)
                    continue
                thing = self._entry(entry, relative, folder, names)
                if isinstance(thing, tuple):
                    below.append(thing)
                else:
                    yield thing
            waiting.extend(reversed(below))

    def _entry(
        self, entry: LocalEntry, above: str, folder: Reference, names: _Nothing
    ) -> Outcome | Work | tuple[Path, str, bool]:
        name = _below(above, entry.path.name)
        if entry.oddity:
            return Outcome(deed=Deed.SKIPPED, name=name, reason=entry.oddity)
        try:
            reference = folder.child(entry.path.name)
            there, looked = names.find(reference)
            if entry.is_file:
                return Upload(
                    storage=self._storage,
                    wishes=self._wishes,
                    name=name,
                    path=entry.path,
                    status=entry.status,
                    reference=reference,
                    there=there,
                    looked=looked,
                    seen_s=names.seen_s,
                )
            if not looked:
                return entry.path, name, _folder_there(self._storage, reference)
            if there is not None and not there.is_directory:
                raise errors.AlreadyExists("a file of this name is in the cloud, where a folder is needed")
        except errors.CS3Error as error:
            return failed(name, error)
        return entry.path, name, there is not None


class _Nothing:
    """The names of a folder that is not there."""

    def __init__(self) -> None:
        #: When they were asked for, on the monotonic clock.
        self.seen_s = time.monotonic()

    def find(self, reference: Reference) -> tuple[FileInfo | None, bool]:
        """What stands under a name of the folder, and whether that is known."""
        return None, True


class _Names(_Nothing):
    """The names of one folder in a cloud: one listing instead of a look at each."""

    def __init__(self, storage: CS3Storage, folder: Reference) -> None:
        super().__init__()
        self._found: Mapping[str, FileInfo] = {}
        self._complete = False
        try:
            listed = storage.list(folder)
        except errors.Throttled:
            # More entries than one answer holds: each name is looked at when its turn comes.
            return
        self._found = {info.reference.name: info for info in listed}
        self._complete = not listed.left_out

    def find(self, reference: Reference) -> tuple[FileInfo | None, bool]:
        found = self._found.get(reference.name)
        return found, self._complete or found is not None


def _folder_there(storage: CS3Storage, folder: Reference) -> bool:
    """Whether a folder is there.

    :raises AlreadyExists: when it is a file.
    """
    there = looks.look(storage, folder)
    if there is None:
        return False
    if not there.is_directory:
        raise errors.AlreadyExists("is a file, where a folder is needed", operation="Stat", target=str(folder))
    return True


def _downwards(storage: CS3Storage, top: Reference, local: Path, wishes: Wishes) -> Iterator[Outcome | Work]:
    # Folders that wait: the one in the cloud, its path below the tree, and the local one.
    waiting = [(top, "", local)]
    while waiting:
        folder, relative, path = waiting.pop()
        below: list[tuple[Reference, str, Path]] = []
        try:
            seen_s = time.monotonic()
            found = entries(storage, folder)  # before anything is made here
            _make_folder(path, wishes, is_top=not relative)
        except errors.CS3Error as error:
            if not relative:
                raise
            yield failed(relative, error)
            continue
        for info in found:
            if isinstance(info, errors.CS3Error):
                yield failed(relative or ".", info)
                continue
            own = info.reference.name
            name = _below(relative, own)
            if own in ("", ".", "..") or "/" in own:
                # No listing has such names by now (rucio_cs3.cs3.resources.listed); this is where they would do harm.
                yield failed(name, errors.InvalidReference("its name leads elsewhere"))
            elif info.is_directory:
                below.append((info.reference, name, path / own))
            elif is_part(own):
                yield Outcome(deed=Deed.SKIPPED, name=name, reason="an unfinished upload")
            else:
                yield Download(
                    storage=storage,
                    wishes=wishes,
                    name=name,
                    reference=info.reference,
                    path=path / own,
                    info=info,
                    seen_s=seen_s,
                )
        waiting.extend(reversed(below))


def _make_folder(path: Path, wishes: Wishes, *, is_top: bool) -> None:
    """Have a local folder, which no link leads to: what a server calls a folder is never written elsewhere.

    :param is_top: the one that the person named, which may be a link.
    :raises AlreadyExists: when something else stands there.
    """
    status = present(path)
    if status is None:
        if not wishes.dry_run:
            with local_errors(path):
                path.mkdir(parents=is_top, exist_ok=True)
    elif kind(status) != "a folder" and not (is_top and path.is_dir()):
        raise errors.AlreadyExists(f"{kind(status)} of this name is here, where a folder is needed: {path}")


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
