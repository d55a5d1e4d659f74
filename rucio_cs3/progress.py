"""How far a running transfer is, as it is kept in Rucio's ``requests.attributes``: the format's one reader and writer.

The column is JSON of Rucio's own; ours is its key :data:`KEY`, and the rest stays as it is::

    {"activity": "User", …, "cs3": {"mode": "pull", "bytes": 1048576, "rate": 524288,
                                    "at": "2024-05-01T10:00:02Z", "started": "2024-05-01T10:00:00Z"}}

Pure: imports no Rucio. The agent writes it, ``rucio-cs3 transfers`` and Rucio's REST interface show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from rucio_cs3.transfers.modes import Mode

#: Ours among the keys of ``requests.attributes``.
KEY = "cs3"

#: And the other one: how often and since when sites put a request off; written by :mod:`rucio_cs3.agent.outcomes`.
POSTPONED_KEY = "cs3_postponed"

#: Width of ``requests.attributes`` (Rucio 41.5.1 db/sqla/models.py:1415). Oracle counts bytes; what is written here
#: is ASCII, so bytes and characters are the same.
MAX_CHARACTERS = 4000


#: More bytes than any file has, or a second brings: with thousands of digits nothing can be reckoned.
_COUNT_MAX = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """
    :param mode: of the copy that runs.
    :param bytes_moved: of the file, since the copy began.
    :param rate: bytes per second at the moment ``at``, not over the whole copy.
    :param at: when this was so; UTC without time zone and in whole seconds, as is ``started``.
    :param started: when the copy began.
    """

    mode: Mode
    bytes_moved: int
    rate: int
    at: datetime
    started: datetime


def read(attributes: Mapping[str, Any] | str | None, *, since: datetime | None = None) -> Progress | None:
    """Find the progress in a row's ``attributes``, given as the column's text or parsed.

    :param since: ``started_at`` of the row, UTC without time zone. What began before is an earlier attempt's: Rucio
        copies the attributes when it tries again (Rucio 41.5.1 core/request.py:379).
    :returns: None where there is none, or none that can be understood.
    """
    kept = parsed(attributes)
    written_by_agent = kept.get(KEY) if kept is not None else None
    if not isinstance(written_by_agent, Mapping):
        return None
    try:
        progress = Progress(
            mode=Mode(written_by_agent["mode"]),
            bytes_moved=_count(written_by_agent["bytes"]),
            rate=_count(written_by_agent["rate"]),
            at=_moment(written_by_agent["at"]),
            started=_moment(written_by_agent["started"]),
        )
    except (KeyError, TypeError, ValueError):
        # Of a newer version, or of somebody else: nothing to show, and no reason to fail.
        return None
    if since is not None and progress.started < since.replace(microsecond=0):
        return None
    return progress


def written(attributes: Mapping[str, Any] | str | None, progress: Progress | None) -> str | None:
    """The text for the column, with this progress in place of any earlier one; all other keys stay.

    :param attributes: the column's text or its parsed form.
    :param progress: None takes it out.
    :returns: at most :data:`MAX_CHARACTERS` ASCII characters; None where the column has to stay as it is, because it
        holds something else than a JSON object, or has no room.
    """
    kept = parsed(attributes)
    if kept is None:
        return None
    kept.pop(KEY, None)
    if progress is not None:
        kept[KEY] = {
            "mode": progress.mode.value,
            "bytes": progress.bytes_moved,
            "rate": progress.rate,
            "at": _text(progress.at),
            "started": _text(progress.started),
        }
    text = json.dumps(kept)
    return text if len(text) <= MAX_CHARACTERS else None


def times_put_off(attributes: Mapping[str, Any] | str | None, request_id: str) -> int:
    """How often sites put this request off; an earlier attempt's count is not this one's."""
    mark = (parsed(attributes) or {}).get(POSTPONED_KEY)
    if not isinstance(mark, Mapping) or mark.get("request") != request_id:
        return 0
    times = mark.get("times")
    return times if isinstance(times, int) else 0


def parsed(attributes: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    """The JSON object; None where it is none."""
    if isinstance(attributes, Mapping):
        return dict(attributes)
    value: Any = attributes
    # Rucio reads rows that were encoded twice as well (Rucio 41.5.1 core/request.py:325).
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value or "{}")
            except (ValueError, RecursionError):
                return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
        raise ValueError("no number of bytes")
    return value


def _moment(value: Any) -> datetime:
    # Without a time zone, as all of Rucio's times are.
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")


def _text(moment: datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
