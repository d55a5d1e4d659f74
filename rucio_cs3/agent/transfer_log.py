"""What the agent's log says about a transfer: one line when it begins, one when it ends.

Each line is a sentence, and carries the same as data: the attribute ``transfer`` of the log record, a dictionary of
plain values. Rucio's own formatter writes it as JSON where the configuration asks for it::

    [common]
    logjson = True
    logformat = %%(asctime)s %%(levelname)s %%(name)s %%(message)s %%(transfer)s

(The percent signs are doubled because Rucio's configuration interpolates.) The fields are stable; docs/monitoring.md
has their table. No field is secret: URLs are PFNs, and reasons are made from :mod:`rucio_cs3.cs3.errors`.

Knows no Rucio; the logger is the function that Rucio's heartbeat gives to daemons.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rucio_cs3.listing.amounts import size
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode

LoggerFunction = Callable[..., Any]

_LEVELS = {
    State.DONE: logging.INFO,
    State.FAILED: logging.ERROR,
    State.POSTPONED: logging.WARNING,
    State.ABANDONED: logging.WARNING,
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the lines are about; all of it is known before the transfer begins.

    :param source: name of the RSE; so is ``destination``.
    :param source_url: PFN, free of secrets; so is ``destination_url``.
    :param attempt: how often Rucio has tried before.
    """

    request_id: str
    scope: str
    name: str
    size_bytes: int
    source: str
    destination: str
    source_url: str
    destination_url: str
    activity: str | None = None
    rule_id: str | None = None
    attempt: int = 0

    def _fields(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "scope": self.scope,
            "name": self.name,
            "bytes": self.size_bytes,
            "source": self.source,
            "destination": self.destination,
            "source_url": self.source_url,
            "destination_url": self.destination_url,
            "activity": self.activity,
            "rule_id": self.rule_id,
            "attempt": self.attempt,
        }


def began(logger: LoggerFunction, subject: Subject, mode: Mode) -> None:
    """A copy begins, in this mode; said again for each mode that is tried."""
    logger(
        logging.INFO,
        "%s: %s of %s:%s (%s) begins: %s -> %s",
        subject.request_id,
        mode.value,
        subject.scope,
        subject.name,
        size(subject.size_bytes),
        subject.source_url,
        subject.destination_url,
        extra={"transfer": {"event": "began", **subject._fields(), "mode": mode.value}},
    )


def ended(logger: LoggerFunction, subject: Subject, outcome: Outcome, seconds: float) -> None:
    """The attempt is over, however it ended.

    :param seconds: from the start to the outcome, proof included.
    """
    error = outcome.error
    fields = {
        "event": "ended",
        **subject._fields(),
        "mode": outcome.mode.value if outcome.mode else None,
        "outcome": outcome.state.value,
        "copied": outcome.copied,
        "seconds": round(seconds, 3),
        "reason": outcome.reason,
        "error": type(error).__name__ if error else None,
        "code": error.code if error else None,
        "trace": error.trace if error else None,
        "retry_after_s": outcome.retry_after_s,
    }
    logger(
        _LEVELS[outcome.state],
        "%s: %s: %s:%s, %s -> %s",
        subject.request_id,
        _how(subject, outcome, seconds),
        subject.scope,
        subject.name,
        subject.source,
        subject.destination,
        extra={"transfer": fields},
    )


def _how(subject: Subject, outcome: Outcome, seconds: float) -> str:
    if outcome.state is State.DONE and not outcome.copied:
        return f"was there, and right ({size(subject.size_bytes)})"
    if outcome.state is State.DONE:
        rate = f", {size(subject.size_bytes / seconds)}/s" if seconds > 0 and subject.size_bytes else ""
        mode = f" by {outcome.mode.value}" if outcome.mode else ""
        return f"copied and proven{mode}: {size(subject.size_bytes)} in {seconds:.1f} s{rate}"
    if outcome.state is State.POSTPONED:
        pause = f" for {outcome.retry_after_s:.0f} s" if outcome.retry_after_s is not None else ""
        return f"put off{pause}: {outcome.reason}"
    return f"{outcome.state.value} after {seconds:.1f} s: {outcome.reason}"
