"""Bytes and times as people read them. Pure."""

from __future__ import annotations


def size(amount: float) -> str:
    """So many bytes in powers of 1000, as Rucio's own commands write them: ``0 B``, ``12.3 kB``, ``4.2 GB``."""
    if amount < 999.5:
        return f"{amount:.0f} B"
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def span(seconds: float) -> str:
    """A time, as exact as people want it: ``0.4 s``, ``31 s``, ``4 min``, ``3 h``, ``2 d``; none is below 0."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, length in ((99.5, "s", 1), (99.5 * 60, "min", 60), (47.5 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
