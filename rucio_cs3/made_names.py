"""Which PFNs a thread has made last, because it may be about to delete them. Pure.

Rucio 41.5.1's reaper (daemons/reaper/reaper.py) makes the PFNs of all files of a chunk first, by one call of
``lfns2pfns`` each and each by a protocol object of its own; then it deletes them one by one, in the same order and the
same thread. So while one is deleted, the next are known. Nothing relies on that but speed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class MadeNames:
    """Of one process; each thread sees its own.

    :param most: PFNs of one thread that are remembered, at some 200 bytes each.
    """

    def __init__(self, most: int = 2000) -> None:
        self._most = most
        self._of_thread = threading.local()

    def add(self, pfns: Iterable[str]) -> None:
        """This thread has made these, in this order."""
        made: list[str] = self._of_thread.__dict__.setdefault("made", [])
        made.extend(pfns)
        if len(made) > 2 * self._most:
            # Rarely, and not at each call: a server makes one name after the other.
            del made[: -self._most]

    def after(self, pfn: str) -> Sequence[str]:
        """What this thread made after a PFN, oldest first; nothing where it did not make that. It and what is before it
        are forgotten."""
        made: list[str] = self._of_thread.__dict__.setdefault("made", [])
        try:
            del made[: made.index(pfn) + 1]
        except ValueError:
            return ()
        return made


#: Of this process.
MADE_NAMES = MadeNames()
