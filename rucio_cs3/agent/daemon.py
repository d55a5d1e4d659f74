"""The daemon ``rucio-cs3-agent``: executes the requests that Rucio's submitter gave to transfertool ``cs3``.

It is stateless, takes part in Rucio's heartbeats and hash partition as Rucio's own daemons do, and any number of
agents on any machines share Rucio's table of requests. Read on in :mod:`rucio_cs3.agent.dispatcher`::

    run                           start, heartbeats, signals, end
      Dispatcher.step             what waits, what runs, what has ended
        queue, scheduling         which requests, in which order, within which caps
        claims                    a row is ours for a while
        execution, hops           one transfer in a thread; transfers.transfer_one knows no Rucio
        reporting, outcomes       what Rucio is told

The loop is Rucio's ``HeartbeatHandler`` without ``run_daemon``, which ends when the database is away for a moment
(Rucio 41.5.1 daemons/common.py:213 renews the heartbeat outside of its ``try``) and begins at most one round a second.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rucio.common.exception import DatabaseException
from rucio.common.logging import setup_logging
from rucio.core import request as request_core
from rucio.daemons.common import HeartbeatHandler
from rucio.db.sqla.util import is_old_db

from rucio_cs3 import policy
from rucio_cs3.agent.database import FAILURES, Absence, first_line
from rucio_cs3.agent.dispatcher import Dispatcher
from rucio_cs3.agent.options import Options
from rucio_cs3.agent.queue import Share

LoggerFunction = Callable[..., Any]

EXECUTABLE = "rucio-cs3-agent"
GRACEFUL_STOP = threading.Event()

#: How long a thread computes at most before one that waits for Python's lock gets it, in seconds. With Python's own
#: 5 ms a thread whose answer has come waits for that of the database, and a copy's place stays empty.
_SWITCH_S = 0.0005

#: Pause after a failure that nobody has foreseen, in seconds.
_UNFORESEEN_S = 5.0


def stop(signum: int | None = None, frame: Any = None) -> None:
    """End when the transfers that run now are over, at the latest after the grace period; for ``signal.signal``.

    A second signal ends the process at once, as if it were killed: claims run out, and nothing is lost.
    """
    if signum is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    GRACEFUL_STOP.set()


def run(once: bool = False, *, options: Options | None = None, partition_wait_s: int = 10) -> bool:
    """Run the agent until :func:`stop`.

    :param once: end as soon as what one look found, at most ``options.bulk`` requests, is done.
    :param partition_wait_s: seconds to wait at the start for other agents' heartbeats; none with ``once``.
    :returns: whether nothing was left running or unreported. What was is not lost: it is found again when its claim
        ends; but threads of this process may still be at work on it.
    :raises ConfigurationError: when Rucio does not know this package, see :func:`rucio_cs3.policy.check`.
    :raises DatabaseException: when the database's schema is older than Rucio, or cannot be reached at the start.
    """
    options = options or Options()
    setup_logging(process_name=EXECUTABLE)
    if is_old_db():
        raise DatabaseException("the database was not updated; the agent will not start")
    policy.register()
    policy.check()
    executable = EXECUTABLE
    if options.activity:
        # As Rucio's daemons do: those with the same activities share the work among them.
        executable += f" --activity {sorted(options.activity)}"
    with (
        _quick_switches(),
        _statistics() as stats_manager,
        _Pulse(executable, options.sleep_time) as pulse,
        Dispatcher(options, stats_manager, GRACEFUL_STOP, once=once, name=EXECUTABLE) as dispatcher,
    ):
        if not once:
            GRACEFUL_STOP.wait(partition_wait_s)
            pulse.renew()
        while not (GRACEFUL_STOP.is_set() or (once and dispatcher.idle)):
            with _carrying_on(pulse.logger, once=once):
                dispatcher.step(pulse.share(), pulse.logger)
        if GRACEFUL_STOP.is_set():
            pulse.logger(logging.INFO, "Stop requested; running transfers have %d s", options.grace)
        return dispatcher.finish(options.grace, pulse.logger)


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def _statistics() -> Iterator[Any]:
    """Rucio's statistics of transfers; the last ones are lost where the database is away at the end."""
    manager = request_core.TransferStatsManager()
    manager.__enter__()
    try:
        yield manager
    finally:
        with contextlib.suppress(*FAILURES):
            manager.__exit__(None, None, None)


class _Pulse:
    """This agent's heartbeat, which stands for it among all agents, also while the database is away."""

    def __init__(self, executable: str, rhythm_s: int) -> None:
        # As Rucio's daemons: an agent that was not heard of for ten beats is no longer counted.
        self._handler = HeartbeatHandler(executable=executable, renewal_interval=rhythm_s - 1)
        self._absence = Absence("heartbeat")
        self._share = Share()

    def __enter__(self) -> _Pulse:
        self._handler.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        try:
            self._handler.__exit__(*exc_info)
        except FAILURES as exc:
            self.logger(logging.WARNING, "the heartbeat stays, and is forgotten in time: %s", first_line(exc))

    @property
    def logger(self) -> LoggerFunction:
        """Rucio's, which names this agent's number."""
        logger: LoggerFunction = self._handler.logger
        return logger

    def share(self) -> Share:
        """Beat if it is time to; this agent's share of the queue."""
        self._beat(force=False)
        return self._share

    def renew(self) -> None:
        """Beat now."""
        self._beat(force=True)

    def _beat(self, *, force: bool) -> None:
        if self._absence.pause_s:
            return
        try:
            number, total, _ = self._handler.live(force_renew=force)
        except FAILURES as exc:
            self._absence.noticed(exc, self.logger)
        else:
            self._absence.over(self.logger)
            self._share = Share(number, total)


@contextlib.contextmanager
def _carrying_on(logger: LoggerFunction, *, once: bool) -> Iterator[None]:
    """Log what nobody has foreseen and go on, as Rucio's daemons do; what runs must not suffer for it."""
    try:
        yield
    except Exception:
        if once:
            raise
        logger(logging.CRITICAL, "Exception", exc_info=True)
        time.sleep(_UNFORESEEN_S)
