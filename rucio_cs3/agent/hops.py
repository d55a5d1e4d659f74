"""From a row of Rucio's ``requests`` to what :func:`rucio_cs3.transfers.ladder.transfer_one` takes: the job and its two
ends.

One hop is one row; of a path with several hops each has its own. An end is a
:class:`~rucio_cs3.transfers.cs3_end.CS3End` where the RSE's protocol is ours, and a
:class:`~rucio_cs3.transfers.webdav_end.WebDAVEnd` at any other site; :mod:`rucio_cs3.agent.sites` makes both. Reads
Rucio's tables; writes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rucio.core import request as request_core
from rucio.core.topology import Topology

from rucio_cs3 import partners, progress
from rucio_cs3.agent.sites import SITES
from rucio_cs3.cs3 import errors
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.jobs import Job

LoggerFunction = Callable[..., Any]

# Where [conveyor] webdav_transfer_mode is set, Rucio appends this to source URLs of davs and https for FTS
# (Rucio 41.5.1 core/transfer.py:172); it is no part of the PFN.
_COPY_MODE = re.compile(r"\?copy_mode=\w+$")


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One row, ready to be transferred.

    :param source_rse_id: of the source that was picked, which a report has to name.
    :param source_url: its PFN, as is ``destination_url``.
    :param path: by which Rucio's finisher registers the file at a non-deterministic RSE; None elsewhere.
    :param source_host: ``host:port`` whose load the transfer is, as is ``destination_host``.
    """

    job: Job
    source: End
    destination: End
    source_rse_id: str
    source_url: str
    destination_url: str
    path: str | None
    source_host: str
    destination_host: str


def open_hop(row: Mapping[str, Any], topology: Topology, logger: LoggerFunction = logging.log) -> Hop:
    """Make job and ends of a row. Logs in at CS3 clouds where no token is at hand.

    :param row: as ``get_and_mark_next`` gives it, with ``mode_all``.
    :raises CS3Error: when it cannot be transferred as the RSEs are now.
    :raises RucioException: the same in Rucio's words, from a protocol; the cause is ours.
    """
    source = pick_source(row)
    source_url, destination_url = pfn_of(source), str(row["dest_url"])
    source_rse, destination_rse = topology[source["rse_id"]], topology[row["dest_rse_id"]]
    from_site = SITES.of(source_rse, partners.READ, source_url)
    to_site = SITES.of(destination_rse, partners.WRITE, destination_url)
    origin, target = from_site.end(source_url), to_site.end(destination_url)
    if not isinstance(origin, CS3End) and not isinstance(target, CS3End):
        # Only after a change of the RSEs since the submission: such a hop is not ours to take.
        raise errors.ConfigurationError(f"neither {origin.name} nor {target.name} is a CS3 cloud")
    logger(logging.DEBUG, "%s: from %s to %s", row["id"], type(origin).__name__, type(target).__name__)
    return Hop(
        job=Job(
            request_id=row["id"],
            size_bytes=row["bytes"],
            adler32=row["adler32"],
            md5=row["md5"],
            # Rucio's own setting of an RSE; a checksum that the server has is compared all the same.
            read_back=to_site.verifies,
            attempt=row["retry_count"] or 0,
            resumed=was_begun(row),
        ),
        source=origin,
        destination=target,
        source_rse_id=source["rse_id"],
        source_url=source_url,
        destination_url=destination_url,
        path=to_site.path(destination_url),
        source_host=urlsplit(origin.url).netloc,
        destination_host=urlsplit(target.url).netloc,
    )


def was_begun(row: Mapping[str, Any]) -> bool:
    """Whether an agent has had this row before: it was killed, or put the row off and may have left something.

    :param row: as it was before the claim. A killed agent's lease stands there, and the start only where it was
        written by then. What was put off has neither, but progress of a long copy or the mark of a site that asked for
        it.
    """
    kept = progress.parsed(row["attributes"])
    marked = kept is not None and not kept.keys().isdisjoint((progress.KEY, progress.POSTPONED_KEY))
    return marked or row["started_at"] is not None or row["estimated_transferred_at"] is not None


def pick_source(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The source that the submitter chose for a request; another of its sources where that one is gone.

    :raises InvalidRequest: when there is none.
    """
    # A claimed row has them already.
    given = row["sources"] if "sources" in row else request_core.get_sources(row["id"]) or []
    sources = [s for s in given if s["is_using"] and s["url"]]
    for source in sources:
        if source["rse_id"] == row["source_rse_id"]:
            return dict(source)
    if sources:
        return dict(max(sources, key=lambda source: source["ranking"] or 0))
    raise errors.InvalidRequest("Rucio's table of sources has no URL for the request", target=row["id"])


def pfn_of(source: Mapping[str, Any]) -> str:
    """The PFN of a row of Rucio's ``sources``, without what Rucio appends for FTS."""
    return _COPY_MODE.sub("", source["url"])
