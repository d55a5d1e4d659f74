"""Which items of a recycle bin a person means, and their restoration. Knows no Rucio, prints nothing.

The bin itself is in :mod:`rucio_cs3.cs3.recycle`, the command in :mod:`rucio_cs3.cli.undelete`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import is_part
from rucio_cs3.cs3.recycle import RecycledItem

#: Ending of the name that Rucio uploads to before it renames (uploadclient.py, rsemanager.py of Rucio 41.5.1).
RUCIO_UPLOAD_SUFFIX = ".rucio.upload"

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str, *, now_s: float) -> float:
    """A time as a person writes it: so long ago (``90s``, ``30m``, ``2h``, ``3d``, ``1w``), or a date with or without a
    time (ISO 8601, UTC where no zone is said).

    :returns: seconds since the epoch.
    :raises ValueError: for anything else.
    """
    ago_s = duration_s(text)
    if ago_s is not None:
        return now_s - ago_s
    try:
        # Python 3.10 reads no "Z".
        at = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{text!r} is no time; write 2h, 3d, 2026-11-21 or 2026-11-21T17:05:00Z") from exc


def duration_s(text: str) -> int | None:
    """Seconds of ``90s``, ``30m``, ``2h``, ``3d``, ``1w``; None for anything else."""
    parts = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    return int(parts[1]) * _UNITS_S[parts[2]] if parts else None


def shown_moment(at_s: float) -> str:
    """Such as ``2026-11-21T17:05:00Z``; with milliseconds where there are any."""
    try:
        at = datetime.fromtimestamp(round(at_s, 3), tz=timezone.utc)
    except (ValueError, OverflowError, OSError):  # a server may say what is no time
        return str(at_s)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at.microsecond // 1000:03d}Z" if at.microsecond else "Z")


def items(place: Place, *, since_s: float) -> Iterator[RecycledItem]:
    """What was deleted at or below a place, in no order."""
    return place.storage.recycle_bin.items(place.reference, since_s=since_s)


def oldest_first(found: Iterable[RecycledItem]) -> list[RecycledItem]:
    """In the order of their deletion."""
    return sorted(found, key=lambda item: (item.deleted_at_s, item.reference.path))


def newest_of(place: Place, *, since_s: float, deleted_at: str | None = None) -> RecycledItem:
    """The item of one place that a person means: the newest, or that of a time.

    :param deleted_at: as :func:`shown_moment` writes it; a whole second means any time within it.
    :raises NotFound: when there is none, with what there is instead.
    """
    # From the folder on: what was deleted may have been the folder, with the file in it.
    above = place.cloud.folder
    wanted = place.reference
    inside = not above.path or wanted.path.startswith(f"{above.path}/")
    versions: list[RecycledItem] = []
    folders: list[RecycledItem] = []
    for item in place.storage.recycle_bin.items(above if inside else wanted.parent, since_s=since_s):
        if item.reference == wanted:
            versions.append(item)
        elif item.is_directory and wanted.path.startswith(f"{item.reference.path}/"):
            folders.append(item)
    mine = [item for item in versions if _is_of(item, deleted_at)]
    if mine:
        return max(mine, key=lambda item: item.deleted_at_s)
    since = f"since {shown_moment(since_s)}"
    if versions:
        times = ", ".join(sorted(shown_moment(item.deleted_at_s) for item in versions)[-5:])
        raise errors.NotFound(f"{place.shown} was not deleted at {deleted_at}, but at {times}")
    if folders:
        last = max(folders, key=lambda item: item.deleted_at_s)
        raise errors.NotFound(
            f"{place.shown} is not in the recycle bin by itself, but the folder {place.cloud.shown(last.reference)}, "
            f"deleted {shown_moment(last.deleted_at_s)}, is, and may have it: restore that"
        )
    raise errors.NotFound(
        f"{place.shown} is not in the recycle bin (deletions {since}): it was purged, never deleted, or longer ago"
    )


def is_unfinished_upload(item: RecycledItem) -> bool:
    """Whether nobody ever had it by this name: what an upload of this package, or of Rucio's commands, was to become a
    file of, and the folders of a trial of ours."""
    name = item.reference.name
    return is_part(name) or (not item.is_directory and name.endswith(RUCIO_UPLOAD_SUFFIX))


def newest_of_each(found: Iterable[RecycledItem]) -> list[RecycledItem]:
    """Of each place the newest; folders first, and those above before those below."""
    newest: dict[str, RecycledItem] = {}
    for item in found:
        known = newest.get(item.reference.path)
        if known is None or item.deleted_at_s > known.deleted_at_s:
            newest[item.reference.path] = item
    return [newest[path] for path in sorted(newest)]


def restored(place: Place, wanted: Iterable[RecycledItem]) -> Iterator[tuple[RecycledItem, errors.CS3Error | None]]:
    """Restore one after the other; what cannot be restored comes with its error, and the others go on.

    :raises CS3Error: where none of the others would fare better.
    """
    for item in wanted:
        try:
            place.storage.recycle_bin.restore(item)
        except (errors.AlreadyExists, errors.NotFound, errors.ServerFault, errors.PreconditionFailed) as error:
            yield item, error
        else:
            yield item, None


def _is_of(item: RecycledItem, deleted_at: str | None) -> bool:
    if deleted_at is None:
        return True
    at_s = moment(deleted_at, now_s=0.0)
    if "." in deleted_at:
        return abs(item.deleted_at_s - at_s) < 0.001
    return at_s <= item.deleted_at_s < at_s + 1
