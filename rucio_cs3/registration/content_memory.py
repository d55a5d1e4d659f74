"""What is in datasets, as far as it fits into some memory. Pure.

A batch of files is mostly of a few datasets, and the next of the same. To list a dataset is one question; to ask of
each file which datasets it is in takes Rucio's server some queries for each (41.5.1 ``core/did.py``:
``list_all_parent_dids``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator

from rucio_cs3.registration.templates import Did

#: Most files of all datasets in memory; some 200 bytes each.
_MOST = 200_000


class ContentMemory:
    """Datasets and what is in them; safe for several threads.

    :param most: files of all datasets together; the dataset that was listed first is forgotten first.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._content: dict[Did, set[Did]] = {}
        self._too_large: set[Did] = set()

    def of(self, dataset: Did, listing: Callable[[Did], Iterator[Did]]) -> Collection[Did] | None:
        """What is in a dataset, or was when it was first asked for; None where that is too much.

        :param listing: lists one that is not known, one at a time.
        """
        with self._lock:
            if dataset in self._too_large:
                return None
            known = self._content.get(dataset)
            if known is None:
                known = set()
                for child in listing(dataset):
                    known.add(child)
                    if len(known) > self._most:
                        self._too_large.add(dataset)
                        return None
                self._content[dataset] = known
                self._shrink(dataset)
            return known

    def forget(self, datasets: Collection[Did]) -> None:
        """These are to be listed anew when they are next asked for."""
        with self._lock:
            for dataset in datasets:
                self._content.pop(dataset, None)

    def _shrink(self, keep: Did) -> None:
        while sum(map(len, self._content.values())) > self._most:
            oldest = next(iter(self._content))
            if oldest == keep:
                return
            del self._content[oldest]
