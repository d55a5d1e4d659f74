"""How many old versions of files there are below a folder, and how large they are: counted while a walk goes on.

CS3APIs tells of versions file by file only, so this is one call for each file, some at the same time. What servers
answer: :mod:`rucio_cs3.cs3.file_versions`. What cannot be had is counted as not known, and nothing is guessed.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.file_versions import OldVersions
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.side_by_side import Aside
from rucio_cs3.cs3.storage import CS3Storage
from rucio_cs3.inventory.crawl import THREADS, Crawl, Entered, Found, is_of_one_place
from rucio_cs3.inventory.manifest import name_place

#: Tells the old versions of a file, and raises what is in the way.
Look = Callable[[Reference], OldVersions]

#: How often who watches is told, in events of a walk.
_TELL_EVERY = 500

#: Where so many files do not tell, for the same reason, and none does, no more are asked.
IN_VAIN_MAX = 100

#: Errors of a server that cannot tell of any file: Reva v3.12.1 with ``cephfs`` says CODE_INTERNAL. A denial may be one
#: folder's.
_OF_SERVERS = frozenset({errors.Unsupported.__name__, errors.ServerFault.__name__})


@dataclass(kw_only=True)
class VersionCounts:
    """What was found so far.

    :param files: files whose versions were asked for and told.
    :param items: old versions of all of them.
    :param bytes: of all those versions.
    :param unknown_files: files of whose versions the server does not tell, or was not asked any more, and files that
        nobody can name.
    :param unknown_folders: folders that cannot be listed.
    :param named: the first places of those two: path, and why.
    :param refusals: files of which the server was asked and did not tell, by the name of the error.
    """

    files: int = 0
    items: int = 0
    bytes: int = 0
    unknown_files: int = 0
    unknown_folders: int = 0
    named: list[list[str]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)

    @property
    def supported(self) -> bool:
        """False where the server says of all files that it keeps no versions."""
        return self.files > 0 or self.refusals.keys() != {errors.Unsupported.__name__}

    @property
    def stopped(self) -> bool:
        """Whether asking was in vain so often that no more are asked."""
        return (
            not self.files
            and len(self.refusals) == 1
            and self.refusals.keys() <= _OF_SERVERS
            and sum(self.refusals.values()) >= IN_VAIN_MAX
        )

    @property
    def is_all(self) -> bool:
        """Whether there are no more than the counted ones."""
        return not self.unknown_files and not self.unknown_folders

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``items`` and ``bytes`` are null where the server keeps no versions."""
        none = {} if self.supported else {"items": None, "bytes": None}
        return {"supported": self.supported, "stopped": self.stopped, **asdict(self), **none}

    def name(self, path: str, why: str) -> None:
        """Keep a place, where there are not many yet."""
        name_place(self.named, path, why)


class VersionCounter:
    """Asks for the versions of the files that a walk comes to.

    :param look: see :data:`Look`; called by several threads.
    :param counts: what to add to.
    :param threads: most files that are asked for at the same time.
    """

    def __init__(self, look: Look, counts: VersionCounts, *, threads: int = THREADS) -> None:
        self._look = look
        self._counts = counts
        self._threads = threads

    def through(self, events: Iterable[Found | Entered]) -> Iterator[Found | Entered]:
        """All events as they came, each when what it says of versions has been counted, and none before.

        :raises CS3Error: when the server cannot be asked. What came before is counted.
        """
        waiting: deque[tuple[Found | Entered, Aside[OldVersions] | None]] = deque()
        for event in events:
            waiting.append((event, self._asked(event)))
            if len(waiting) >= self._threads:
                yield self._counted(*waiting.popleft())
        while waiting:
            yield self._counted(*waiting.popleft())

    def _asked(self, event: Found | Entered) -> Aside[OldVersions] | None:
        if isinstance(event, Entered) or self._counts.stopped:
            return None
        return Aside(functools.partial(self._look, event.info.reference))

    def _counted(self, event: Found | Entered, aside: Aside[OldVersions] | None) -> Found | Entered:
        if isinstance(event, Entered):
            self._enter(event)
        elif aside is None:
            self._counts.unknown_files += 1
        else:
            self._add(event, aside)
        return event

    def _add(self, found: Found, aside: Aside[OldVersions]) -> None:
        counts = self._counts
        try:
            old = aside.result()
        except errors.CS3Error as error:
            if not is_of_one_place(error):
                raise
            kind = type(error).__name__
            counts.refusals[kind] = counts.refusals.get(kind, 0) + 1
            counts.unknown_files += 1
            counts.name(found.path, str(error))
            return
        counts.files += 1
        counts.items += old.items
        counts.bytes += old.bytes

    def _enter(self, entered: Entered) -> None:
        counts, shown = self._counts, entered.path or "the folder itself"
        if entered.refused is not None:
            counts.unknown_folders += 1
            counts.name(shown, str(entered.refused))
        if entered.left_out:
            counts.unknown_files += entered.left_out
            counts.name(shown, f"{entered.left_out} entries that nobody can name")


def looking(storage: CS3Storage, top: Reference) -> Look:
    """How files below a folder are asked for. One that was removed since it was listed has no versions any more."""

    def look(file: Reference) -> OldVersions:
        try:
            return storage.old_versions(file)
        except errors.InvalidReference:
            raise
        except (errors.NotFound, errors.InvalidRequest) as error:
            if storage.exists(file):
                raise errors.ProtocolViolation(
                    f"it is there, but of its versions the server says: {error.message}",
                    operation="ListFileVersions",
                    target=str(file),
                    code=error.code,
                    trace=error.trace,
                ) from error
            # A gateway before a storage that is away says NOT_FOUND of everything.
            storage.stat(top)
            return OldVersions()

    return look


def count(
    storage: CS3Storage,
    top: Reference,
    *,
    watcher: Callable[[VersionCounts], None] | None = None,
    threads: int = THREADS,
) -> VersionCounts:
    """Count the old versions of all files below a folder; what comes after asking was in vain is not counted at all.

    :param watcher: told now and then how far it is.
    :raises NotFound: when the folder is not there.
    :raises CS3Error: when the server cannot be asked, or the folder itself not be listed.
    """
    counts = VersionCounts()
    crawl = Crawl(functools.partial(storage.list, is_folder=True), top, threads=threads)
    counter = VersionCounter(looking(storage, top), counts, threads=threads)
    for number, _ in enumerate(counter.through(crawl.events())):
        if counts.stopped:
            break
        if watcher is not None and number % _TELL_EVERY == 0:
            watcher(counts)
    return counts
