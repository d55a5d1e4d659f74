"""A file at a plain WebDAV site (dCache, EOS, XRootD, StoRM) as an end of a transfer, and where a copy lands beside it;
knows no Rucio.

The other kind of end is :class:`rucio_cs3.transfers.cs3_end.CS3End`. Bytes and names are
:mod:`rucio_cs3.cs3.webdav.webdav`'s, tokens :mod:`rucio_cs3.transfers.site_tokens`'.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Proof, WebDAVSite
from rucio_cs3.cs3.hidden_names import hidden_sibling, is_hidden_sibling
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.pool import HTTP_POOL
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import Reader, UploadBody
from rucio_cs3.cs3.webdav.probes import TPC_PROBES
from rucio_cs3.cs3.webdav.renaming import move
from rucio_cs3.cs3.webdav.webdav import WebDAVClient
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.modes import Wish
from rucio_cs3.transfers.site_tokens import SiteTokens

_log = logging.getLogger(__name__)

#: How long after a broken connection a server may make a file of what had come until then, and the pause between two
#: looks, in seconds.
_STUB_S = 2.0
_POLL_S = 0.05

#: How long a site that cannot be reached is asked to remove what has landed, in seconds: more than a short outage.
_UNDO_S = 3.0

#: Errors of a site that may do soon what was asked.
_SOON = (*OPEN_OUTCOME, errors.Throttled)


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

    def keep(self, info: FileInfo, checksums: Mapping[str, str]) -> None:
        """Nothing to do: these sites keep their own, or tell no metadata."""

    def landing(self) -> WebDAVLanding:
        return WebDAVLanding(self._site, self._tokens, self.url, wish=self.wish)

    def leftovers(self) -> Sequence[WebDAVLanding]:
        folder = self._reference.parent
        try:
            names = self._client.files_in(folder)
        except errors.NotFound:
            return []
        return [
            WebDAVLanding(self._site, self._tokens, self.url, folder.child(name), wish=self.wish)
            for name in names
            if is_hidden_sibling(name, of=self._reference)
        ]

    @property
    def _base_url(self) -> str:
        return self._site.server.url(self._site.prefix)


class WebDAVLanding(WebDAVEnd):
    """A hidden sibling of a file at a plain WebDAV site.

    :param pfn: the file's URL.
    :param hidden: a new one by default.
    """

    def __init__(
        self,
        site: WebDAVSite,
        tokens: SiteTokens,
        pfn: str,
        hidden: Reference | None = None,
        *,
        wish: Wish = "auto",
    ) -> None:
        self._named = site.server.reference(pfn)
        hidden = hidden or hidden_sibling(self._named, traceable=True)
        super().__init__(site, tokens, site.server.url(hidden), wish=wish)
        # In the middle of what was sent.
        self._was_cut = False

    def store(self, body: UploadBody) -> None:
        try:
            self._client.put(body, self._reference)
        except errors.CS3Error as failure:
            # Also by what ended the reading of the source, or by the last piece that was held back.
            cut = failure is body.failure or isinstance(failure, (*OPEN_OUTCOME, errors.Cancelled))
            self._was_cut = body.begun and cut
            raise

    def take_name(self, file: FileInfo) -> None:
        move(self._client, self._reference, self._named, size=file.size)

    def discard(self, *, may_come: bool) -> None:
        stub_s = _STUB_S if may_come or self._was_cut else 0.0
        come_by = time.monotonic() + stub_s
        undo_by: float | None = None
        while True:
            try:
                # Nobody else has this name, so it may be deleted again; the look that this begins with is for a folder,
                # of which DELETE would take everything.
                self.delete()
                return
            except errors.NotFound:
                # Nothing has come into being, or not yet: the server may notice the end later than we do.
                if time.monotonic() >= come_by:
                    return
                undo_by = None
            except _SOON:
                now = time.monotonic()
                undo_by = undo_by or now + _UNDO_S
                if now >= undo_by:
                    raise
                # What was cut off by an outage comes when that is over.
                come_by = now + stub_s
            time.sleep(_POLL_S)
