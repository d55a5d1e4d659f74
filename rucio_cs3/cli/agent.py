"""``rucio-cs3 agent``, also installed as ``rucio-cs3-agent``: options and signals of :mod:`rucio_cs3.agent.daemon`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

import click
from rucio.common.exception import RucioException

from rucio_cs3.cli import rucio_here


@click.command(name="agent")
@click.option("--run-once", is_flag=True, help="One look: finish what waits, at most --bulk requests, then end.")
@click.option("--threads", type=click.IntRange(1), help="Copies at the same time (default 8).")
@click.option("--per-host", type=click.IntRange(1), help="Most of them with one host (default: 3/4 of --threads).")
@click.option("--per-link", type=click.IntRange(1), help="Most of them from one host to another (default: no cap).")
@click.option(
    "--bulk", type=click.IntRange(1), help="Most requests to read from each end of the queue at a time (default 1000)."
)
@click.option(
    "--sleep-time", type=click.IntRange(2), help="Seconds between two looks at a queue that had no more (default 10)."
)
@click.option(
    "--lease", type=click.IntRange(6), help="Seconds until another agent takes over from one that died (default 600)."
)
@click.option(
    "--grace", type=click.IntRange(0), help="Seconds that running transfers get when the agent is stopped (default 60)."
)
@click.option("--activity", multiple=True, help="Work on this activity of Rucio's only; may be repeated.")
def command(run_once: bool, **given: Any) -> None:
    """Move files between clouds for Rucio's conveyor.

    Takes the requests that rucio-conveyor-submitter gave to transfertool cs3, has the files moved, proves size and
    checksum at the destination, and reports to Rucio. State is in Rucio's database alone: run as many as you like, on
    any machines with Rucio's configuration.

    Each option is also a setting in section [cs3] of rucio.cfg, with _ for -, such as per_host; the command line wins.

    On SIGTERM or SIGINT nothing new begins. Running transfers may finish within --grace seconds; after that they are
    stopped, what they wrote is removed, and they go back to the queue. A second signal ends the process at once;
    nothing is lost by that either.

    \b
    Example:
      rucio-cs3 agent --threads 16 --per-host 8
      rucio-cs3 agent --run-once
    """
    try:
        # Rucio reads its configuration when it is imported; the help must not need one.
        from rucio_cs3.agent import daemon
        from rucio_cs3.agent.options import configured
    except ModuleNotFoundError as exc:
        raise rucio_here.server_is_missing("agent", exc) from exc
    except RucioException as exc:
        raise rucio_here.unusable(exc) from exc
    except OSError as exc:
        # Rucio opens the port when it is imported.
        raise click.ClickException(f"the port of [monitor] metrics_port cannot be used: {exc}") from exc
    try:
        options = configured(**given)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    signal.signal(signal.SIGTERM, daemon.stop)
    signal.signal(signal.SIGINT, daemon.stop)
    if not daemon.run(once=run_once, options=options):
        # Threads hang in a transfer; the interpreter's own end would be a race with them.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
