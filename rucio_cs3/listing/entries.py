"""What ``rucio-cs3 transfers`` shows: transfers of one moment as plain values, and their JSON.

Where they come from: :mod:`rucio_cs3.listing.database` for operators, :mod:`rucio_cs3.listing.rest` for everybody
else. How they look: :mod:`rucio_cs3.cli.transfers_table`. Pure: imports no Rucio.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rucio_cs3 import progress
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.modes import Mode

#: Rates and times left are shown while the agent's last word is not older than this.
FRESH = timedelta(minutes=1)


# Rucio puts the class of the error before its text (Rucio 41.5.1 core/request.py:2946).
_KIND_OF_ERROR = re.compile(r"^RequestErrMsg\.\w+:")


class UnknownName(LookupError):
    """Rucio has no RSE, or no rule, of that name; the text is a sentence."""


class Stage(enum.Enum):
    """Where a transfer is; in the order in which they are shown."""

    RUNNING = "running"
    """An agent works on it."""
    WAITING = "waiting"
    """Submitted; for an agent to take it, or to begin it within seconds."""
    THROTTLED = "throttled"
    """Held back by Rucio's throttler or preparer."""
    QUEUED = "queued"
    """For Rucio's submitter."""
    FAILED = "failed"
    DONE = "done"

    @property
    def is_over(self) -> bool:
        return self in (Stage.FAILED, Stage.DONE)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for; a field that is None asks for everything.

    :param stages: never empty.
    :param rse: source or destination.
    :param rule_id: 32 hexadecimal digits.
    :param limit: most transfers of each stage.
    :param since: what was over before this long ago is not asked for.
    """

    stages: Sequence[Stage] = tuple(Stage)
    rse: str | None = None
    source: str | None = None
    destination: str | None = None
    rule_id: str | None = None
    activity: str | None = None
    limit: int = 10
    since: timedelta = timedelta(minutes=60)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One request of Rucio's. Times are UTC without time zone, sizes bytes.

    :param source: name of the RSE; None while Rucio has not chosen one.
    :param size_bytes: None where Rucio does not know.
    :param progress: of what runs, or the last word about what is over.
    :param created_at: when Rucio made the request.
    :param submitted_at: when the submitter gave it to the agents.
    :param started_at: when an agent began it.
    :param over_at: when it was done or failed.
    :param lease_until: until when its agent has said to be done, or to be heard of again.
    :param reason: why it failed, or why it waits.
    :param attempt: how often Rucio has tried before.
    """

    stage: Stage
    request_id: str
    scope: str
    name: str
    source: str | None
    destination: str
    size_bytes: int | None
    progress: Progress | None = None
    activity: str | None = None
    rule_id: str | None = None
    account: str | None = None
    priority: int | None = None
    attempt: int = 0
    created_at: datetime | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    over_at: datetime | None = None
    lease_until: datetime | None = None
    reason: str | None = None

    @property
    def mode(self) -> Mode | None:
        return self.progress.mode if self.progress else None

    @property
    def bytes_moved(self) -> int | None:
        """Never more than the file has: some servers count what they sent twice."""
        if self.stage is Stage.DONE:
            return self.size_bytes
        if self.progress is None:
            return None
        return min(self.progress.bytes_moved, self.size_bytes or self.progress.bytes_moved)

    def rate(self, now: datetime) -> int | None:
        """Bytes per second now, or over the whole time of what is done; None where nobody knows."""
        if self.stage is Stage.RUNNING and self.progress is not None:
            return self.progress.rate if now - self.progress.at <= FRESH else None
        seconds = self.seconds(now)
        if self.stage is Stage.DONE and self.size_bytes is not None and seconds:
            return int(self.size_bytes / seconds)
        return None

    def left_s(self, now: datetime) -> float | None:
        """Seconds that a running transfer will take at its present rate."""
        rate, moved = self.rate(now), self.bytes_moved
        if self.stage is not Stage.RUNNING or not rate or moved is None or self.size_bytes is None:
            return None
        return (self.size_bytes - moved) / rate

    def seconds(self, now: datetime) -> float | None:
        """For how long an agent has worked on it."""
        if self.started_at is None or self.stage not in (Stage.RUNNING, Stage.FAILED, Stage.DONE):
            return None
        return max(0.0, ((self.over_at or now) - self.started_at).total_seconds())

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """The shape that docs/monitoring.md promises; keys may be added, none changes."""
        left_s, seconds = self.left_s(now), self.seconds(now)
        return {
            "state": self.stage.value,
            "request_id": self.request_id,
            "scope": self.scope,
            "name": self.name,
            "source": self.source,
            "destination": self.destination,
            "bytes": self.size_bytes,
            "bytes_moved": self.bytes_moved,
            "mode": self.mode.value if self.mode else None,
            "rate": self.rate(now),
            "seconds": None if seconds is None else round(seconds, 3),
            "left_s": None if left_s is None else round(left_s, 1),
            "activity": self.activity,
            "rule_id": self.rule_id,
            "account": self.account,
            "priority": self.priority,
            "attempt": self.attempt,
            "created_at": _iso(self.created_at),
            "submitted_at": _iso(self.submitted_at),
            "started_at": _iso(self.started_at),
            "over_at": _iso(self.over_at),
            "lease_until": _iso(self.lease_until),
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Count:
    """
    :param number: of transfers in a stage.
    :param at_least: whether there are more than that, which were not counted.
    """

    number: int
    at_least: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}".replace(",", " ") + ("+" if self.at_least else "")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The transfers of one moment.

    :param at: UTC without time zone.
    :param transfers: in the order of :class:`Stage`; of each at most as many as were wanted.
    :param counts: of all stages that were looked at, not of ``transfers`` alone.
    :param oldest_s: seconds since the oldest of the transfers waiting was submitted; None for none.
    :param rate: bytes per second of all that run.
    :param since: how far what is over reaches back.
    :param notes: what could not be seen, in sentences.
    """

    at: datetime
    transfers: Sequence[Transfer]
    counts: dict[Stage, Count]
    oldest_s: float | None = None
    rate: int = 0
    since: timedelta = timedelta(minutes=60)
    notes: Sequence[str] = field(default=())

    def of(self, *stages: Stage) -> list[Transfer]:
        return [transfer for transfer in self.transfers if transfer.stage in stages]

    def as_dict(self) -> dict[str, Any]:
        """See :meth:`Transfer.as_dict`."""
        return {
            "at": _iso(self.at),
            "summary": {
                **{stage.value: count.number for stage, count in self.counts.items()},
                "at_least": [stage.value for stage, count in self.counts.items() if count.at_least],
                "rate": self.rate,
                "oldest_s": None if self.oldest_s is None else round(self.oldest_s, 1),
                "since_s": int(self.since.total_seconds()),
            },
            "notes": list(self.notes),
            "transfers": [transfer.as_dict(self.at) for transfer in self.transfers],
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds") + "Z"


def reason_of(
    stage: Stage,
    err_msg: str | None,
    attributes: Mapping[str, Any] | str | None = None,
    request_id: str = "",
) -> str | None:
    """Why something failed, by the row's ``err_msg``, or why it waits, by its ``attributes``; None where neither says.

    Rucio's words for states are made readable.
    """
    if stage is Stage.WAITING:
        times = progress.times_put_off(attributes, request_id)
        return f"put off {times} times by a site" if times > 1 else "put off once by a site" if times else None
    if stage is not Stage.FAILED or not err_msg:
        return None
    text = _KIND_OF_ERROR.sub("", err_msg).strip()
    if text.startswith("RequestState."):
        text = text.partition(".")[2].replace("_", " ").lower()
    return text or None
