"""Frees what was deleted: out of the recycle bin, exactly those items, and nothing else.

OpenCloud says with a deletion which item it has become. At Reva v3.12.1 the bin is listed, once for many deletions. An
item is ours that has the place of a deleted file, its size, and a time of deletion that fits; where there are more of
those than we have deleted there, they cannot be told apart, and all stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.namespace import Deleted
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.side_by_side import Aside

#: How far the server's clock may be from ours, in seconds; what Kerberos allows.
CLOCK_SKEW_S = 300.0

#: Items outside of that are listed, too, so that a clock which is wrong can be told from a bin without the item.
_DAY_S = 86_400.0

#: Purges at the same time. Each is a short call; what they share is the server's disk.
_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Remains:
    """A deletion that frees nothing yet.

    :param why: ends the sentence "it stays in the recycle bin: …".
    """

    deleted: Deleted
    why: str


def purge(bin_: RecycleBin, folder: Reference, deleted: Collection[Deleted]) -> list[Remains]:
    """Purge what has just been deleted.

    :param folder: all were below it; it exists.
    :returns: what stays in the bin, or may stay there. Nothing is raised for it: deleted it is.
    """
    remains: list[Remains] = []
    unknown = [one for one in deleted if one.key is None]
    for one, outcome in _each(bin_, [(one, _item(folder, one)) for one in deleted if one.key is not None]):
        if outcome is None:
            unknown.append(one)  # no such key after all
        elif isinstance(outcome, errors.CS3Error):
            remains.append(Remains(deleted=one, why=_reason(outcome)))
    if not unknown:
        return remains
    try:
        found, unclear = _found(bin_, folder, unknown)
    except errors.CS3Error as error:
        return remains + [Remains(deleted=one, why=f"it cannot be looked for: {_reason(error)}") for one in unknown]
    for one, outcome in _each(bin_, found):
        if isinstance(outcome, errors.CS3Error):
            remains.append(Remains(deleted=one, why=_reason(outcome)))
    return remains + unclear


def _each(
    bin_: RecycleBin, items: Iterable[tuple[Deleted, RecycledItem]]
) -> Iterable[tuple[Deleted, errors.CS3Error | bool | None]]:
    """Purge some at the same time; True where it was done, None where no such item was there."""
    waiting: list[tuple[Deleted, Aside[errors.CS3Error | bool | None]]] = []
    for one, item in items:
        if len(waiting) == _AT_ONCE:
            first, purging = waiting.pop(0)
            yield first, purging.result()
        waiting.append((one, Aside(partial(_purged, bin_, item))))
    for one, purging in waiting:
        yield one, purging.result()


def _purged(bin_: RecycleBin, item: RecycledItem) -> errors.CS3Error | bool | None:
    try:
        return bin_.purge(item) or None
    except errors.CS3Error as error:
        return error


def _item(folder: Reference, one: Deleted) -> RecycledItem:
    return RecycledItem(
        reference=one.recycled_as,
        key=one.key or "",
        size=one.size,
        is_directory=one.is_directory,
        deleted_at_s=one.ended_s,
        bin_of=folder,
    )


def _found(
    bin_: RecycleBin, folder: Reference, deleted: Collection[Deleted]
) -> tuple[list[tuple[Deleted, RecycledItem]], list[Remains]]:
    """Which items of the bin deletions have become, and those of which that cannot be said."""
    by_place: dict[Reference, list[Deleted]] = defaultdict(list)
    for one in deleted:
        by_place[one.recycled_as].append(one)
    items: dict[Reference, list[RecycledItem]] = defaultdict(list)
    for item in bin_.items(folder, since_s=min(one.began_s for one in deleted) - _DAY_S):
        if item.reference in by_place:
            items[item.reference].append(item)
    found: list[tuple[Deleted, RecycledItem]] = []
    unclear: list[Remains] = []
    for place, ours in by_place.items():
        fitting = [item for item in items[place] if any(_fits(item, one) for one in ours)]
        if not fitting:
            why = "no item there has its place and size"
            if items[place]:
                why = f"no item of its place was deleted within {CLOCK_SKEW_S:.0f} s of then by the server's clock"
            unclear += [Remains(deleted=one, why=why) for one in ours]
        elif len(fitting) > len(ours):
            why = f"{len(fitting)} items have its place, size and time, and which is ours cannot be told"
            unclear += [Remains(deleted=one, why=why) for one in ours]
        else:
            found += zip(ours, fitting, strict=False)
    return found, unclear


def _fits(item: RecycledItem, one: Deleted) -> bool:
    return (
        item.is_directory == one.is_directory
        and (item.size is None or one.size is None or item.size == one.size)
        and one.began_s - CLOCK_SKEW_S <= item.deleted_at_s <= one.ended_s + CLOCK_SKEW_S
    )


def _reason(error: errors.CS3Error) -> str:
    # Without place and trace, so that many of one reason can be told together.
    return f"{error.message} ({error.code})" if error.code else error.message
