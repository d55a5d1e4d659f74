"""A file at a plain WebDAV site (dCache, EOS, XRootD, StoRM) as an end of a transfer; knows no Rucio.

The other kind of end is :class:`rucio_cs3.transfers.ends.CS3End`. Bytes and names are
:mod:`rucio_cs3.cs3.webdav.webdav`'s, tokens :mod:`rucio_cs3.transfers.site_tokens`'.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof, WebDAVSite
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.pool import HTTP_POOL
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.cs3.webdav.probes import TPC_PROBES
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.modes import Wish
from rucio_cs3.transfers.site_tokens import SiteTokens

_log = logging.getLogger(__name__)

#: How long after a broken connection a server may make a file of what had come until then, and the pause between two
#: looks, in seconds.
_STUB_S = 2.0
_STUB_POLL_S = 0.05


class WebDAVEnd:
    """A file at a plain WebDAV site.

    :param tokens: of one identity at that site.
    :param pfn: the file's URL, of any scheme that :mod:`rucio_cs3.cs3.reference` knows.
    :param wish: the RSE's transfer mode.
    :raises InvalidReference: for a PFN that is not at this site.
    """

    def __init__(self, site: WebDAVSite, tokens: SiteTokens, pfn: str, *, wish: Wish = "auto") -> None:
        self._site = site
        self._tokens = tokens
        self._reference: Reference = site.server.reference(pfn)
        self.url = site.server.url(self._reference)
        self.wish = wish
        self._client = WebDAVClient(site, HTTP_POOL.get(site), lambda write: tokens.own(write=write), tokens.refused)
        # With whether it was for writing.
        self._given: tuple[Credential | None, bool] = (None, False)

    @property
    def name(self) -> str:
        return self._site.name

    @property
    def place(self) -> str:
        # The path alone is the same at many sites; a CS3 cloud's begins with a mount or space.
        return self.url

    @property
    def proof(self) -> Proof:
        return self._site.proof

    @property
    def http(self) -> HTTPClient:
        return self._client.http

    @property
    def leaves_parts(self) -> bool:
        return True

    @property
    def token_has_died(self) -> bool:
        given, write = self._given
        return given is not None and self._tokens.has_died(given, write=write)

    def is_same_place(self, other: End) -> bool:
        return self.url == other.url

    def stat(self) -> FileInfo:
        return self._client.stat(self._reference)

    def settled(self) -> FileInfo:
        """As :meth:`stat`, with the server's checksum: one more round trip where PROPFIND has none."""
        return self._client.with_checksums(self._client.stat(self._reference))

    def checksum(self, algorithm: str) -> str:
        return self._client.checksum(self._reference, algorithm)

    def read_back(self, size_bytes: int, algorithm: str) -> FileInfo | None:
        """Never: one look has size and checksum where the site has one, and tells what a GET does not."""
        return None

    def make_parents(self, *, anew: bool = False) -> bool:
        self._client.make_directories(self._reference.parent)
        return False

    def delete(self) -> None:
        self._client.delete_file(self._reference)

    def speaks_tpc(self, *, max_age_s: float | None = None) -> bool:
        return TPC_PROBES.ask(self.http, self._base_url, self._tokens.own(write=True), max_age_s=max_age_s)

    def refused_tpc(self) -> None:
        TPC_PROBES.note(self._base_url, speaks=False)

    def guards_names(self) -> bool:
        """No: what stood in the way of a copy that failed is known by a look only. XRootD 5.5.3 does refuse with 412;
        nobody has seen dCache, EOS and StoRM do it.
        """
        return False

    def authorization(self, *, write: bool, lent: bool = False) -> str:
        if lent:
            authorization = self._tokens.lend(self._client, self._reference, write=write)
        else:
            authorization = self._tokens.own(write=write)
        # Of a macaroon, the token that it was had with.
        self._given = self._tokens.current(write=write), write
        return authorization

    def open(self) -> AbstractContextManager[Reader]:
        return self._client.open(self._reference)

    def store(self, body: UploadBody) -> None:
        try:
            self._client.put(body, self._reference)
        except errors.CS3Error as failure:
            # Not every error with a code is this server's answer: 502 and 504 are those of a proxy before it, and that
            # of a body that was read from another server is that server's.
            answered = not isinstance(failure, (*OPEN_OUTCOME, errors.Cancelled)) and failure is not body.failure
            if body.begun and not answered:
                self._wait_for_a_part()
            raise

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        """Nothing to do: these sites keep their own, or tell no metadata."""

    def _wait_for_a_part(self) -> None:
        """The server may notice a connection's end later than we do, and make a file of what had come until then."""
        by = time.monotonic() + _STUB_S
        while time.monotonic() < by:
            try:
                self.stat()
            except errors.NotFound:
                time.sleep(_STUB_POLL_S)
            except errors.CS3Error as exc:
                # The first error is the one to report.
                _log.info("%s: could not look for a part of %s: %s", self.name, self.place, exc)
                return
            else:
                return

    def sweep(self) -> None:
        """Nothing to do: what is sent stands under its own name."""

    @property
    def _base_url(self) -> str:
        return self._site.server.url(self._site.prefix)
