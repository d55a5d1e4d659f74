"""Frees what was deleted: out of the recycle bin, exactly those items, and nothing else.

OpenCloud says with a deletion which item it has become; where the bin has no such item, there is nothing to do. At Reva
v3.12.1, and after a lost answer, the bin is listed, once for many deletions. An item is ours that has the place of a
deleted file, its size, and a time of deletion that lies within ours by the server's clock, which is measured before. An
item that stays does no harm, and a wrong one that goes does: so where that clock is not known, or there are more or
fewer such items than we have deleted there, all stay.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import Deleted
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.server_clock import ClockOffset
from rucio_cs3.cs3.side_by_side import Aside

#: How much earlier or later an item may have been deleted than its deletion took by the measured clock, in seconds.
TOLERANCE_S = 0.25

#: Deletion times that are whole seconds may be so much too early.
_WHOLE_SECOND_S = 1.0

#: Items outside of that are listed, too, so that a clock which is wrong can be told from a bin without the item.
_DAY_S = 86_400.0

#: Purges at the same time. Each is a short call; what they share is the server's disk.
_AT_ONCE = 4

#: After one of these nothing more is begun: who did not answer one call will not answer a hundred, and each is waited
#: for.
SILENCE = (errors.Unavailable, errors.DeadlineExceeded)


@dataclass(frozen=True, kw_only=True)
class Remains:
    """A deletion that frees nothing yet.

    :param why: ends the sentence "it stays in the recycle bin: …".
    :param silent: the server does not answer, so that others would fare no better.
    """

    deleted: Deleted
    why: str
    silent: bool = False


def purge(
    bin_: RecycleBin, folder: Reference, deleted: Collection[Deleted], clock: Callable[[], ClockOffset | None]
) -> list[Remains]:
    """Purge what has just been deleted.

    :param folder: all were below it; it exists.
    :param clock: measures the server's clock; asked where the bin has to be searched.
    :returns: what stays in the bin, or may stay there. Nothing is raised for it: deleted it is.
    """
    # Whose key is in the bin no more is done: it was freed or restored by somebody else, or by a call whose answer was
    # lost. Another item of the same place is somebody else's.
    remains = list(_each(bin_, [(one, item_of(folder, one)) for one in deleted if one.key is not None]))
    unknown = [one for one in deleted if one.key is None]
    if not unknown:
        return remains
    silence = next((one.why for one in remains if one.silent), None)
    if silence is not None:
        return remains + [Remains(deleted=one, why=silence, silent=True) for one in unknown]
    try:
        found, unclear = identified(bin_, folder, unknown, clock)
    except errors.CS3Error as error:
        why, silent = f"it cannot be looked for: {_reason(error)}", isinstance(error, SILENCE)
        return remains + [Remains(deleted=one, why=why, silent=silent) for one in unknown]
    return remains + list(_each(bin_, found)) + unclear


def _each(bin_: RecycleBin, items: Iterable[tuple[Deleted, RecycledItem]]) -> Iterator[Remains]:
    """Purge some at the same time; what remains of them."""
    waiting: deque[tuple[Deleted, Aside[errors.CS3Error | None]]] = deque()
    silence: Remains | None = None

    def ended() -> Iterator[Remains]:
        nonlocal silence
        one, purging = waiting.popleft()
        error = purging.result()
        if error is not None:
            remains = Remains(deleted=one, why=_reason(error), silent=isinstance(error, SILENCE))
            silence = silence or (remains if remains.silent else None)
            yield remains

    for one, item in items:
        if len(waiting) == _AT_ONCE:
            yield from ended()
        if silence is None:
            waiting.append((one, Aside(partial(_purged, bin_, item))))
        else:
            yield replace(silence, deleted=one)
    while waiting:
        yield from ended()


def _purged(bin_: RecycleBin, item: RecycledItem) -> errors.CS3Error | None:
    try:
        bin_.purge(item)
    except errors.CS3Error as error:
        return error
    return None


def item_of(folder: Reference, one: Deleted) -> RecycledItem:
    """The item that a deletion has become, where the server has said its key."""
    return RecycledItem(
        reference=one.recycled_as,
        key=one.key or "",
        size=one.size,
        is_directory=one.is_directory,
        deleted_at_s=one.ended_s,
        bin_of=folder,
    )


def identified(
    bin_: RecycleBin, folder: Reference, deleted: Collection[Deleted], clock: Callable[[], ClockOffset | None]
) -> tuple[list[tuple[Deleted, RecycledItem]], list[Remains]]:
    """Which items of the bin deletions have become, and those of which that cannot be said; by one listing.

    :raises CS3Error: when the bin cannot be listed.
    """
    offset = clock()
    if offset is None:
        why = "the server's clock is not known, so which item is ours cannot be told"
        return [], [Remains(deleted=one, why=why) for one in deleted]
    by_place: dict[Reference, list[Deleted]] = defaultdict(list)
    for one in deleted:
        by_place[one.recycled_as].append(one)
    items: dict[Reference, list[RecycledItem]] = defaultdict(list)
    for item in bin_.items(folder, since_s=min(one.began_s for one in deleted) + offset.least_s - _DAY_S):
        if item.reference in by_place:
            items[item.reference].append(item)
    found: list[tuple[Deleted, RecycledItem]] = []
    unclear: list[Remains] = []
    for place, ours in by_place.items():
        ours.sort(key=lambda one: one.began_s)
        timely = [item for item in items[place] if any(_is_timely(item, one, offset) for one in ours)]
        fitting = [item for item in map(bin_.measured, timely) if any(_is_alike(item, one) for one in ours)]
        fitting.sort(key=lambda item: item.deleted_at_s)
        pairs = list(zip(ours, fitting, strict=False))
        if len(fitting) == len(ours) and all(_is_timely(i, one, offset) and _is_alike(i, one) for one, i in pairs):
            found += pairs
            continue
        if fitting:
            why = (
                f"for {len(ours)} deleted there, items of its place, size and time are {len(fitting)}, "
                "and which is ours cannot be told"
            )
        elif items[place]:
            why = "no item of its place and size was deleted at that time by the server's clock"
        else:
            why = "no item there has its place"
        unclear += [Remains(deleted=one, why=why) for one in ours]
    return found, unclear


def _is_timely(item: RecycledItem, one: Deleted, offset: ClockOffset) -> bool:
    cut_s = _WHOLE_SECOND_S if item.deleted_at_s.is_integer() else 0.0
    first_s = one.began_s + offset.least_s - TOLERANCE_S - cut_s
    return first_s <= item.deleted_at_s <= one.ended_s + offset.most_s + TOLERANCE_S


def _is_alike(item: RecycledItem, one: Deleted) -> bool:
    # The size of what was a folder nobody tells.
    same_size = one.size is None or one.is_directory or item.size == one.size
    return item.is_directory == one.is_directory and same_size


def _reason(error: errors.CS3Error) -> str:
    # Without place and trace, so that many of one reason can be told together.
    return f"{error.message} ({error.code})" if error.code else error.message
