"""What the agent counts, by Rucio's own MetricManager: for Prometheus, and for statsd where Rucio is set up for it.

Nothing has to be started here: where ``[monitor] enable_metrics`` is set, ``rucio.core.monitor`` serves
``/metrics`` on ``metrics_port`` from the moment it is imported, in the agent as in each of Rucio's daemons. An agent
is one process with threads, so its numbers need no ``PROMETHEUS_MULTIPROC_DIR``.

The MetricManager derives the Prometheus name from the statsd name: dots become underscores and ``{labels}`` go;
counters get ``_total``. docs/monitoring.md has the table.
"""

from __future__ import annotations

from rucio.core.monitor import MetricManager

from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode

_METRICS = MetricManager(prefix="rucio_cs3")

#: Upper ends of the histogram's buckets, in seconds: from a small file next door to a large one around the world.
_SECONDS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)

_transfers = _METRICS.counter(
    "transfers.{outcome}.{mode}", documentation="Attempts at a transfer that ended, by outcome and mode of the copy."
)
_failures = _METRICS.counter("transfer_failures.{error}", documentation="Failed attempts, by the kind of error.")
_bytes = _METRICS.counter("transferred_bytes.{mode}", documentation="Bytes of files that were copied and proven.")
_seconds = _METRICS.timer(
    "transfer_seconds.{outcome}.{mode}",
    documentation="From the start of a transfer to its outcome, proof included.",
    buckets=_SECONDS_BUCKETS,
)
_waiting = _METRICS.gauge(
    "requests_waiting", documentation="Submitted requests in this agent's share of the queue that no agent works on."
)
_oldest = _METRICS.gauge("oldest_request_age_seconds", documentation="Age of the oldest of the requests waiting.")
_running = _METRICS.gauge("transfers_running", documentation="Transfers that run in this agent now.")

#: Mode of what nothing was copied for: the right file stood there already, or nothing was begun.
_NO_MODE = "none"

for _state in State:
    for _mode in (*(mode.value for mode in Mode), _NO_MODE):
        # From the start on, because an alert about what never happens would otherwise be about nothing.
        _transfers.labels(outcome=_state.value, mode=_mode)


def finished(outcome: Outcome, size_bytes: int, seconds: float) -> None:
    """Count an attempt that ended, however it did.

    :param size_bytes: of the file.
    :param seconds: from the start to the outcome.
    """
    labels = {"outcome": outcome.state.value, "mode": outcome.mode.value if outcome.mode else _NO_MODE}
    _transfers.labels(**labels).inc()
    _seconds.labels(**labels).observe(seconds)
    if outcome.state is State.DONE and outcome.copied:
        _bytes.labels(mode=labels["mode"]).inc(size_bytes)
    if outcome.state is State.FAILED:
        _failures.labels(error=type(outcome.error).__name__ if outcome.error else "unexpected").inc()


def queue(waiting: int, oldest_age_s: float, running: int) -> None:
    """Tell how the queue stands, once a round.

    :param waiting: requests of this agent's share of the queue that no agent works on.
    :param oldest_age_s: seconds since the oldest of them was submitted, as far as it has looked; 0 for none.
    :param running: transfers of this agent.
    """
    _waiting.set(waiting)
    _oldest.set(oldest_age_s)
    _running.set(running)
