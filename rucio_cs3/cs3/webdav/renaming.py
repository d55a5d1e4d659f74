"""Giving a file another name at a WebDAV server: MOVE (RFC 4918, 9.9), and what servers make of it.

The requests are :mod:`rucio_cs3.cs3.webdav.webdav`'s. To a name that is taken XRootD 5.5.3 renames whatever
``Overwrite`` says (201), unless the token allows creating only (403; both seen). By their sources others answer 412 to
``Overwrite: F``: Reva v3.12.1 (``ocdav/move.go``), EOS (``mgm/http/webdav/WebDAVHandler.cc``), and dCache and StoRM
(``MoveHandler.java`` of their library Milton, which looks first, so that a file may still come between).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.http.client import http_error
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.reference import Reference, encode_path
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.webdav.webdav import WebDAVClient

_log = logging.getLogger(__name__)


def move(client: WebDAVClient, source: Reference, destination: Reference, *, size: int) -> None:
    """Rename a file of ``size`` bytes; its new folder has to be there (XRootD 5.5.3 would make it).

    The look before and the MOVE are not one step where the server knows no ``Overwrite``: a file that somebody else
    writes to the new name between them is replaced there.

    :raises AlreadyExists: when something stands at the new name; both stay.
    :raises NotFound: when there is no such file.
    :raises PreconditionFailed: when the new name's folder is missing.
    :raises Unsupported: when the server does not rename, or not to this name.
    """
    taken = errors.AlreadyExists("the new name is taken", operation="MOVE", target=str(destination))
    if _present(client, destination) is not None:
        raise taken
    header = _DestinationHeader(client, source, destination)
    try:
        with client.request("MOVE", source, write=True, headers={"Overwrite": "F"}, headers_at=header.at) as response:
            if response.status_code == 412:
                raise taken
            if response.status_code not in (200, 201, 204):
                raise http_error(response, "MOVE", str(source))
    except OPEN_OUTCOME as error:
        if not _is_done(client, source, destination, size):
            raise
        _log.info("MOVE %s to %s: done although its answer was lost (%s)", source, destination, error)
        return
    # Not a look at the new name: just after, XRootD 5.5.3's redirectors still say that nothing is there (seen).
    if header.misread is not None and _has_arrived(client, header.misread, size):
        raise errors.ServerFault(
            f"the server seems to have named the file {header.misread}, which is to be removed by hand",
            operation="MOVE",
            target=str(destination),
        )


def _present(client: WebDAVClient, reference: Reference) -> FileInfo | None:
    try:
        return client.stat(reference)
    except errors.NotFound:
        return None


def _is_done(client: WebDAVClient, source: Reference, destination: Reference, size: int) -> bool:
    """After a lost answer; what cannot be found out counts as "no"."""
    try:
        if _present(client, source) is not None:
            return False
    except errors.CS3Error:
        return False
    return _has_arrived(client, destination, size)


def _has_arrived(client: WebDAVClient, reference: Reference, size: int) -> bool:
    """Whether a file of that size is known to be there."""
    try:
        found = _present(client, reference)
    except errors.CS3Error:
        return False
    return found is not None and not found.is_directory and found.size == size


class _DestinationHeader:
    """``Destination`` of one MOVE: the new name's URL at whatever server the request goes to.

    Its host has to be the request's own: XRootD 5.5.3's redirectors refuse any other (``XrdHttpReq.cc``). RFC 4918
    (10.3) wants it with percents; XRootD 5.5.3 takes it as it is, and writes them into the name (seen; 6.1.0 by its
    source, too).
    """

    def __init__(self, client: WebDAVClient, source: Reference, destination: Reference) -> None:
        server = client.site.server
        self._source = urlsplit(server.url(source)).path
        self._target = str(destination)
        self._path = urlsplit(server.url(destination)).path
        #: Where a server puts the file that reads the header in the other way; None where both are the same.
        self.misread: Reference | None = None
        if encode_path(destination.path) == destination.path:
            return
        if not _is_xrootd(client, source):
            self.misread = replace(destination, path=encode_path(destination.path))
            return
        if "?" in destination.path:
            raise errors.Unsupported(
                "XRootD renames no file to a name with a question mark", operation="MOVE", target=self._target
            )
        plain = unquote(destination.path)
        if plain != destination.path:
            # EOS may call itself so, too.
            self.misread = replace(destination, path=plain)
        # A header's characters are bytes.
        self._path = f"{server.path}/{destination.path}".encode().decode("latin-1")

    def at(self, url: str) -> Mapping[str, str]:
        """
        :param url: where the request goes; what follows its ``?`` goes along. XRootD's redirectors put the token there,
            and its data nodes refuse a new name without it, even where the header ``Authorization`` has it (seen with
            5.5.3; xrootd#2550).
        :raises ProtocolViolation: when a server has redirected to something else than the file under its own name, for
            nobody knows the new one's there.
        """
        parts = urlsplit(url)
        if unquote(parts.path) != unquote(self._source):
            raise errors.ProtocolViolation(
                "the server redirects to another name", operation="MOVE", target=self._target
            )
        query = f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
        return {"Destination": f"{parts.scheme}://{parts.netloc}{self._path}{query}"}


#: What a query may have as it is (RFC 3986, 3.4), and percents.
_QUERY_SAFE = "%/?:@!$&'()*+,;=-._~"


def _is_xrootd(client: WebDAVClient, reference: Reference) -> bool:
    """By what it calls itself. EOS, which is reached through XRootD's server, may do so, too, and reads percents (by
    its source, ``WebDAVHandler.cc``).
    """
    with client.request("HEAD", reference) as response:
        return response.headers.get("Server", "").lower().startswith("xrootd/")
