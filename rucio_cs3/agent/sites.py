"""The sites behind Rucio's RSEs, prepared once for many files: settings read, protocol made, logged in.

Rucio reads its database five times for each protocol object that it makes (41.5.1: algorithms, domains and schemes of
its configuration), and copies the RSE's whole description; done for both ends of each transfer, that costs more than
all the rest of the agent's work for a small file. What is prepared here is used for :data:`TTL_S`; tokens are renewed
by themselves, and what could not be prepared is never kept.
"""

from __future__ import annotations

import copy
import posixpath
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rucio.core.rse import RseData
from rucio.rse import rsemanager

from rucio_cs3 import partners, rse_credentials, rses
from rucio_cs3.cs3 import errors
from rucio_cs3.partners import Kind
from rucio_cs3.protocol import Default
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.site_tokens import SiteTokens
from rucio_cs3.transfers.webdav_end import WebDAVEnd

#: For how long a change of an RSE's settings or credentials may go unnoticed, in seconds; Rucio's daemons keep what
#: they know of an RSE as long.
TTL_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """One RSE for one operation, by one of its protocols.

    :param end: makes the end of a PFN; raises CS3Error, or RucioException with one as its cause.
    :param path: the path by which Rucio's finisher registers a PFN's file where the RSE is not deterministic (Rucio
        41.5.1 finisher.py:292); None elsewhere.
    :param verifies: Rucio's own setting ``verify_checksum`` of the RSE.
    """

    end: Callable[[str], End]
    path: Callable[[str], str | None]
    verifies: bool


class Sites:
    """Sites by RSE; safe for many threads.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._infos: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._sites: dict[tuple[Any, ...], tuple[float, Site]] = {}

    def of(self, rse: RseData, operation: str, pfn: str) -> Site:
        """The site that serves a PFN.

        :param operation: :data:`~rucio_cs3.partners.READ` or :data:`~rucio_cs3.partners.WRITE`.
        :raises ConfigurationError: when the RSE is nothing to us, or has no protocol for the PFN (any more).
        :raises RucioException: when the RSE's settings cannot be read, or the login fails.
        """
        info = self._info(rse)
        protocol = partners.protocol_of(info, operation, pfn)
        key = (rse.id, operation, *(protocol[part] for part in ("scheme", "hostname", "port", "prefix", "impl")))
        with self._lock:
            until, site = self._sites.get(key, (0.0, None))
        if site is None or self._clock() >= until:
            # Outside of the lock, because it may log in; that two threads do it at the same time is no harm.
            site = _site(info, operation, protocol)
            with self._lock:
                self._sites[key] = (self._clock() + TTL_S, site)
        return site

    def _info(self, rse: RseData) -> Mapping[str, Any]:
        with self._lock:
            until, info = self._infos.get(rse.id, (0.0, None))
        if info is None or self._clock() >= until:
            # A copy, because Rucio's own threads may change theirs.
            info = copy.deepcopy(dict(rse.ensure_loaded(load_info=True).info))
            with self._lock:
                self._infos[rse.id] = (self._clock() + TTL_S, info)
        return info


#: Those of this process.
SITES = Sites()


def _site(info: Mapping[str, Any], operation: str, attributes: Mapping[str, Any]) -> Site:
    kind = partners.kind_of(attributes)
    if kind is None:
        raise errors.ConfigurationError(
            f"{info['rse']}: {operation} is by {attributes['impl']}, which is not over HTTP"
        )
    wish = rses.transfer_mode(info, attributes)
    verifies = info.get("verify_checksum", True) is not False
    if kind is Kind.PLAIN:
        webdav = rses.webdav_site(info, attributes)
        reader, writer = (rse_credentials.credentials(info, write=write) for write in (False, True))
        tokens = SiteTokens(webdav, reader, writer)

        def plain_end(pfn: str) -> End:
            return WebDAVEnd(webdav, tokens, pfn, wish=wish)

        return Site(end=plain_end, path=_path(info, _plain_folder(attributes)), verifies=verifies)
    # A copy, because create_protocol passes a token by way of this very dictionary (rsemanager.py:243,
    # protocol.py:64): two threads at it would fail with NoAuthInformation.
    own = copy.deepcopy(dict(info))
    protocol = rsemanager.create_protocol(
        own, operation, scheme=attributes["scheme"], domain="wan", protocol_attr=copy.deepcopy(dict(attributes))
    )
    if not isinstance(protocol, Default):
        raise errors.ConfigurationError(f"{info['rse']}: {operation} is by {attributes['impl']}, no CS3 protocol")
    protocol.connect()

    def cs3_end(pfn: str) -> End:
        return CS3End(protocol.storage, protocol.reference(pfn), url=protocol.http_url(pfn), wish=wish)

    return Site(
        end=cs3_end,
        path=_path(info, lambda pfn: str(protocol.parse_pfns([pfn])[pfn]["path"])),
        verifies=verifies,
    )


def _path(info: Mapping[str, Any], folder: Callable[[str], str]) -> Callable[[str], str | None]:
    if info["deterministic"]:
        return lambda pfn: None
    return lambda pfn: posixpath.join(folder(pfn), posixpath.basename(pfn))


def _plain_folder(attributes: Mapping[str, Any]) -> Callable[[str], str]:
    """As RSEProtocol.parse_pfns of Rucio 41.5.1 does, from which foreign protocols have it; nothing is decoded."""
    prefix = f"/{attributes['prefix'].strip('/')}/" if attributes["prefix"].strip("/") else "/"
    single = re.sub("/{2,}", "/", prefix)

    def folder(pfn: str) -> str:
        below = re.sub("/{2,}", "/", urlsplit(pfn).path).removeprefix(single)
        return posixpath.join("/", posixpath.dirname(below))

    return folder
