"""The agent's options: what the command line says, then section ``[cs3]`` of ``rucio.cfg``, then the defaults here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rucio.common.config import get_config

from rucio_cs3.agent.claims import LEASE, LONGEST_LEASE
from rucio_cs3.agent.queue import WINDOW

SECTION = "cs3"

# ``rucio-cs3 transfers``, too, takes a row that was not changed for longer than that for one without an agent.
_LONGEST_LEASE_S = int(LONGEST_LEASE.total_seconds())

# Least and greatest value.
_BOUNDS: dict[str, tuple[int, int | None]] = {
    "sleep_time": (2, None),
    "bulk": (1, 100_000),
    "threads": (1, 1000),
    "per_host": (1, None),
    "per_link": (1, None),
    "lease": (6, _LONGEST_LEASE_S),
    "grace": (0, None),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Names are those of the command's options and of the settings in ``rucio.cfg``, with ``_`` for ``-``.

    :param sleep_time: seconds between two looks at a queue that had nothing more, at least 2; also the rhythm of
        heartbeats.
    :param bulk: most requests that one look takes from each end of the queue; with ``--run-once`` most to finish.
    :param threads: most copies at the same time in this agent. Three times as many small files may be at their
        proofs meanwhile.
    :param per_host: most of them with one host at either end; None is three quarters of ``threads``, so that one host
        that hangs cannot have them all; of fewer than four it may.
    :param per_link: most of them from one host to another; None is no cap.
    :param lease: seconds until another agent takes over from one that died, 6 to 3600.
    :param grace: seconds that running transfers get to finish when the agent is stopped.
    :param activity: Rucio's activities to work on; empty for all.
    :raises ValueError: for a value out of its range.
    """

    sleep_time: int = 10
    bulk: int = WINDOW
    threads: int = 8
    per_host: int | None = None
    per_link: int | None = None
    lease: int = int(LEASE.total_seconds())
    grace: int = 60
    activity: tuple[str, ...] = ()

    @property
    def host_cap(self) -> int:
        """``per_host``, decided."""
        return self.per_host or (self.threads if self.threads < 4 else self.threads * 3 // 4)

    def __post_init__(self) -> None:
        for name, (least, greatest) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
            if greatest is not None and value > greatest:
                raise ValueError(f"{name} must be at most {greatest}, not {value}")


def configured(**given: Any) -> Options:
    """Options with these values; what is None or empty comes from ``rucio.cfg``, and then from the defaults.

    :raises ValueError: naming the option, for a value that is no number or out of its range.
    """
    values: dict[str, Any] = {}
    parser = get_config()
    for field in dataclasses.fields(Options):
        value = given.pop(field.name, None)
        if value not in (None, ()):
            values[field.name] = value
        elif parser.has_option(SECTION, field.name):
            text = str(parser.get(SECTION, field.name, raw=True)).strip()
            values[field.name] = _parsed(field.name, text)
    if given:
        raise TypeError(f"there is no option {min(given)}")
    return Options(**values)


def _parsed(name: str, text: str) -> int | tuple[str, ...]:
    if name == "activity":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} in section [{SECTION}] of rucio.cfg must be a whole number, not {text!r}") from None
