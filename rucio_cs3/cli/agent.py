"""``rucio-cs3 agent``, also installed as ``rucio-cs3-agent``: :mod:`rucio_cs3.agent` with options and signals."""

from __future__ import annotations

import signal

import click
from rucio.common.exception import RucioException


@click.command(name="agent")
@click.option("--run-once", is_flag=True, help="One round: finish up to --bulk waiting requests, then end.")
@click.option("--threads", type=click.IntRange(1), default=8, show_default=True, help="Transfers at the same time.")
@click.option("--bulk", type=click.IntRange(1), default=100, show_default=True, help="Most requests in hand.")
@click.option("--sleep-time", type=click.IntRange(2), default=10, show_default=True, help="Seconds between two rounds.")
def command(run_once: bool, threads: int, bulk: int, sleep_time: int) -> None:
    """Move files between clouds for Rucio's conveyor.

    Takes the requests that rucio-conveyor-submitter gave to transfertool cs3, has the destination fetch each
    file from the source, proves size and checksum there, and reports to Rucio. State is in Rucio's database
    alone: run as many as you like, on any machines with Rucio's configuration. On SIGTERM running transfers
    finish and the rest stays in the queue.

    \b
    Example:
      rucio-cs3 agent --threads 16
      rucio-cs3 agent --run-once
    """
    try:
        # Rucio reads its configuration when it is imported; the help must not need one.
        from rucio_cs3 import agent
    except RucioException as exc:
        raise click.ClickException(f"Rucio cannot be used here: {exc}") from exc
    signal.signal(signal.SIGTERM, agent.stop)
    signal.signal(signal.SIGINT, agent.stop)
    agent.run(once=run_once, threads=threads, bulk=bulk, sleep_time_s=sleep_time)
