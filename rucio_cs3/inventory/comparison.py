"""Lost and dark files by the before/after method: two dumps of Rucio's catalogue, and one of the storage between. Pure.

=============  =======  =======  =======  ============================================================================
what           before   storage  after    what it means
=============  =======  =======  =======  ============================================================================
``lost``       yes      no       yes      available all the time, and not there
``dark``       no       yes      no       there, and Rucio has never heard of it
``different``  yes      yes      yes      there with another size or adler32; told only by dumps that have them
=============  =======  =======  =======  ============================================================================

All else is on its way: uploaded, registered, or deleted meanwhile. Rucio's own auditor does the same (Rucio 41.5.1
``common/dumper/consistency.py``), without the third.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from rucio_cs3.cs3 import errors
from rucio_cs3.inventory.catalogue import AVAILABLE, Replica
from rucio_cs3.inventory.lines import Line


class Kind(enum.Enum):
    """See the table above."""

    LOST = "lost"
    DARK = "dark"
    DIFFERENT = "different"
    #: What would be one of those, and is too young to say.
    YOUNG = "young"


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is not as it should be.

    :param replica: as Rucio had it before; None of a dark file.
    :param line: as the storage has it; None of a lost file.
    """

    kind: Kind
    path: str
    replica: Replica | None = None
    line: Line | None = None


@dataclass
class Seen:
    """How many there were; counted while :func:`compare` goes on."""

    before: int = 0
    storage: int = 0
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class Grace:
    """From when on files are too young to say anything of them.

    :param dark_from_s: seconds since the epoch; of files that were changed later it is not said that they are dark.
    :param lost_from: such as ``2026-11-21 16:00:00``, UTC; of replicas that were made or changed later, or nobody knows
        when, it is not said that they are lost, because the dump of the storage has left such files out. "" is none.
    """

    dark_from_s: float | None = None
    lost_from: str = ""


def compare(
    before: Iterable[Replica], storage: Iterable[Line], after: Iterable[Replica], grace: Grace, seen: Seen
) -> Iterator[Finding]:
    """All findings, in the order of their paths; each input is read once.

    :raises LocalError: when one of the three is not sorted by its paths.
    """
    earlier, now, later = _Sorted(before), _Sorted(storage), _Sorted(after)
    while True:
        heads = [side.head.path for side in (earlier, now, later) if side.head is not None]
        if not heads:
            return
        path = min(heads)
        was, line, is_ = earlier.take(path), now.take(path), later.take(path)
        seen.before += was is not None
        seen.storage += line is not None
        seen.after += is_ is not None
        if line is not None and was is None and is_ is None:
            yield Finding(Kind.YOUNG if is_young(line, grace) else Kind.DARK, path, None, line)
        elif was is not None and is_ is not None and was.state == is_.state == AVAILABLE:
            if line is None:
                yield Finding(Kind.YOUNG if _is_new(was, grace) else Kind.LOST, path, was)
            elif differs(was, line) and differs(is_, line):
                yield Finding(Kind.DIFFERENT, path, was, line)


def is_young(line: Line, grace: Grace) -> bool:
    """Whether a file came so late that nothing can be said of it."""
    return line.mtime_s is not None and grace.dark_from_s is not None and line.mtime_s > grace.dark_from_s


def _is_new(replica: Replica, grace: Grace) -> bool:
    """Whether the dump may have left its file out: also where nobody knows when it came."""
    changed = max(replica.created_at, replica.updated_at)
    return bool(grace.lost_from) and (not replica.created_at or changed >= grace.lost_from)


def differs(replica: Replica, line: Line) -> bool:
    """Whether a file has another size or adler32 than Rucio has, as far as both are known."""
    sizes, sums = (replica.size, line.size), (replica.adler32, line.adler32)
    return (None not in sizes and sizes[0] != sizes[1]) or (None not in sums and sums[0] != sums[1])


_T = TypeVar("_T", Replica, Line)


class _Sorted(Generic[_T]):
    """The first of what is left; of several with one path the first."""

    def __init__(self, values: Iterable[_T]) -> None:
        self._rest: Iterator[_T] = iter(values)
        self.head: _T | None = next(self._rest, None)

    def take(self, path: str) -> _T | None:
        taken: _T | None = None
        while self.head is not None and self.head.path == path:
            taken = taken or self.head
            self.head = next(self._rest, None)
            if self.head is not None and self.head.path < path:
                raise errors.LocalError(f"{self.head.path!r} comes after {path!r}: the lines are not sorted by path")
        return taken
