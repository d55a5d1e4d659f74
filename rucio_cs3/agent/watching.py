"""How far a running transfer is, in memory; :mod:`rucio_cs3.agent.claims` writes it down for those that take long."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from typing import Any

from rucio_cs3.agent import transfer_log
from rucio_cs3.agent.database import utc_now
from rucio_cs3.agent.transfer_log import Subject
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.modes import Mode

LoggerFunction = Callable[..., Any]


class ProgressWatch:
    """:class:`rucio_cs3.transfers.jobs.Watch` for one transfer, whose thread writes; the agent's thread reads.

    :param proves: called with True when only the proof and the name are left, and with False when it copies once
        more after that; in the transfer's thread.
    """

    def __init__(
        self,
        subject: Subject,
        logger: LoggerFunction = logging.log,
        proves: Callable[[bool], object] = lambda _proves: None,
    ) -> None:
        self._subject = subject
        self._proves = proves
        self._is_copied = False
        self._logger = logger
        self._mode: Mode | None = None
        self._started: datetime.datetime = utc_now()
        self._bytes = 0
        # Of the last look; the rate is over the time since.
        self._bytes_before = 0
        self._looked_at = time.monotonic()

    def began(self, mode: Mode) -> None:
        """See :class:`rucio_cs3.transfers.jobs.Watch`."""
        if self._is_copied:
            self._is_copied = False
            self._proves(False)
        self._bytes = self._bytes_before = 0
        self._looked_at = time.monotonic()
        self._started = utc_now()
        self._mode = mode
        transfer_log.began(self._logger, self._subject, mode)

    def moved(self, total_bytes: int) -> None:
        """See :class:`rucio_cs3.transfers.jobs.Watch`."""
        self._bytes = total_bytes

    def copied(self) -> None:
        """See :class:`rucio_cs3.transfers.jobs.Watch`."""
        self._is_copied = True
        self._proves(True)

    def progress(self) -> Progress | None:
        """How far it is, with the rate since the last call; None before a copy has begun."""
        mode, moved, now = self._mode, self._bytes, time.monotonic()
        if mode is None:
            return None
        seconds = now - self._looked_at
        rate = max(0, moved - self._bytes_before) / seconds if seconds > 0 else 0.0
        self._bytes_before, self._looked_at = moved, now
        return Progress(mode=mode, bytes_moved=moved, rate=int(rate), at=utc_now(), started=self._started)
