"""What a check is, and what it finds; pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rucio_cs3.cs3 import errors

Examined = TypeVar("Examined")

#: A server's answers that say something of the server. All others, such as silence or a login that is no longer taken,
#: say only that nobody knows, and are findings themselves.
REFUSED = (
    errors.Unsupported,
    errors.AccessDenied,
    errors.InvalidRequest,
    errors.PreconditionFailed,
    errors.Locked,
    errors.ServerFault,
)

#: So many names are said.
_SHOWN = 4

#: Longest text of a finding, in characters; servers' words are in it.
TEXT_MAX_CHARACTERS = 600


class Status(enum.Enum):
    """How good that is; from best to worst."""

    OK = "ok"
    NOTE = "note"
    """The server does it in another way, or not at all, and this package does without: nothing has to be done."""
    NOT_TRIED = "not tried"
    """Nobody knows."""
    WEAK = "weak"
    """It works, and somebody should change something."""
    BROKEN = "broken"
    """It does not work."""


class Verdict(enum.Enum):
    """What all findings together mean."""

    OK = "ok"
    DEGRADED = "degraded"
    BROKEN = "broken"

    @property
    def exit_code(self) -> int:
        """Not 1 and 2, which say that there was no examination."""
        return {Verdict.OK: 0, Verdict.DEGRADED: 3, Verdict.BROKEN: 4}[self]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has found.

    :param seen: in one sentence without its full stop.
    :param advice: what to do, in one sentence; empty where nothing has to be done.
    :param facts: the same for programs; JSON.
    """

    status: Status
    seen: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("seen", "advice"):
            text: str = getattr(self, name)
            if len(text) > TEXT_MAX_CHARACTERS:
                object.__setattr__(self, name, f"{text[: TEXT_MAX_CHARACTERS - 1]}…")


@dataclass(frozen=True, kw_only=True)
class Check(Generic[Examined]):
    """One row of the table.

    :param name: in the table and for ``needs``; short.
    :param look: makes the attempt. An error that it raises is the finding that this is broken.
    :param needs: checks that must have succeeded before; where one has not, this one is not tried.
    :param writes: whether something is written at the endpoint.
    :param advice: what to do where ``look`` raises.
    :param severity: how bad that is.
    :param deadline_s: after so long the check is given up.
    """

    name: str
    look: Callable[[Examined], Finding]
    needs: tuple[str, ...] = ()
    writes: bool = False
    advice: str = ""
    severity: Status = Status.BROKEN
    deadline_s: float = 30.0


def ok(seen: str, **facts: Any) -> Finding:
    """As wished."""
    return Finding(status=Status.OK, seen=seen, facts=facts)


def note(seen: str, advice: str = "", **facts: Any) -> Finding:
    """See :attr:`Status.NOTE`."""
    return Finding(status=Status.NOTE, seen=seen, advice=advice, facts=facts)


def weak(seen: str, advice: str, **facts: Any) -> Finding:
    """See :attr:`Status.WEAK`."""
    return Finding(status=Status.WEAK, seen=seen, advice=advice, facts=facts)


def broken(seen: str, advice: str, **facts: Any) -> Finding:
    """See :attr:`Status.BROKEN`."""
    return Finding(status=Status.BROKEN, seen=seen, advice=advice, facts=facts)


def not_tried(why: str, advice: str = "") -> Finding:
    """See :attr:`Status.NOT_TRIED`."""
    return Finding(status=Status.NOT_TRIED, seen=f"not tried: {why}", advice=advice)


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    if not names:
        return "none"
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def verdict(findings: Mapping[str, Finding]) -> Verdict:
    """The worst of them; what was not tried counts for nothing."""
    statuses = {finding.status for finding in findings.values()}
    if Status.BROKEN in statuses:
        return Verdict.BROKEN
    return Verdict.DEGRADED if Status.WEAK in statuses else Verdict.OK
