"""What a later attempt does with what earlier ones have left and is not whole."""

from __future__ import annotations

from rucio_cs3.transfers.ends import End


def sweep(end: End) -> list[str]:
    """Remove all landings that are left of a file.

    :returns: their URLs.
    """
    left = end.leftovers()
    for landing in left:
        landing.discard(may_come=False)
    return [landing.url for landing in left]
