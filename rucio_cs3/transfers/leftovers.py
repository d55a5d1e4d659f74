"""What earlier attempts have left beside a file: one that is whole gets the name, the others go; knows no Rucio.

An agent that was killed leaves its landing, and so does a site that went on by itself with a copy which nobody waited
for any more.
"""

from __future__ import annotations

import logging

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers import aftermath
from rucio_cs3.transfers.ends import End, Landing
from rucio_cs3.transfers.jobs import Job

_log = logging.getLogger(__name__)


class Leftovers:
    """Those of one file."""

    def __init__(self, job: Job, destination: End) -> None:
        self._job = job
        self._destination = destination
        self._left: list[Landing] = []

    def find(self) -> None:
        """Look for them, where there may be some. Raises nothing: none of them is under the file's name, so they do not
        keep a transfer from being done.
        """
        if not (self._job.attempt or self._job.resumed):
            return
        try:
            self._left.extend(self._destination.leftovers())
        except errors.CS3Error as exc:
            _log.warning("%s: no look for leftovers of %s: %s", self._job.request_id, self._destination.place, exc)

    def add(self, landing: Landing) -> None:
        """One more, of this attempt."""
        self._left.append(landing)

    def take(self) -> tuple[Landing, FileInfo] | None:
        """One that is proven to be the whole file, and what the proof found; it is no leftover any more.

        :raises StillProcessing: where the server has one, and nobody can read it yet: another copy would wait as long.
        """
        for landing in self._left:
            try:
                file = aftermath.proven(self._job, landing, landing.settled())
            except errors.StillProcessing:
                raise
            except errors.CS3Error as exc:
                _log.info("%s: %s cannot be proven: %s", self._job.request_id, landing.place, exc)
                continue
            if file is not None:
                _log.info("%s: an earlier attempt has brought %s whole", self._job.request_id, landing.place)
                self._left.remove(landing)
                return landing, file
        return None

    def clear(self) -> None:
        """Remove them. Raises nothing, and may be called again for those that could not be removed."""
        for landing in self._left:
            _log.warning("%s: removing %s, which an earlier copy left", self._job.request_id, landing.place)
        self._left = [landing for landing in self._left if not aftermath.clear(self._job, landing, may_come=False)]
