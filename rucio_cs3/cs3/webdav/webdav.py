"""Files at a WebDAV server that is no CS3 cloud (dCache, EOS, XRootD, StoRM), over HTTP only.

All requests go through :class:`~rucio_cs3.cs3.http.client.HTTPClient`; answers are read by
:mod:`rucio_cs3.cs3.webdav.multistatus`. Redirects are followed here, and only here, because such servers send GET and
PUT on to their data nodes; :meth:`WebDAVClient._follow` says which get a token.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import WebDAVSite, is_loopback
from rucio_cs3.cs3.hosts import is_off_limits, is_this_machine
from rucio_cs3.cs3.http.client import Answer, HTTPClient, drain, http_error
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.remote_file import RemoteFile
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import CHUNK_BYTES, UploadBody
from rucio_cs3.cs3.webdav import multistatus
from rucio_cs3.cs3.webdav.multistatus import NOT_YET_ADLER32

_log = logging.getLogger(__name__)

#: A dCache door redirects once, an XRootD federation once for each level of redirectors.
_REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 307, 308})

#: How fast a server reads a file for its checksum, in bytes per second, and the longest that it is given for that, in
#: seconds. XRootD 5.5.3 says nothing until it is through; a disk under load does not read faster.
_SUM_BYTES_PER_S = 20e6
_SUM_MAX_S = 3600.0

#: What may say no more than that the checksum took too long: ours, and a proxy's before the server.
_SUM_TOO_SLOW = (errors.DeadlineExceeded, errors.TransferInterrupted, errors.Unavailable)


class WebDAVClient:
    """The files of one site, for one identity; safe for many threads.

    :param authorization: gives the value of ``Authorization`` for a request to the site that only reads (False) or
        may write (True).
    :param refused: gets the one that the site has answered 401 to.
    """

    def __init__(
        self,
        site: WebDAVSite,
        http: HTTPClient,
        authorization: Callable[[bool], str],
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.site = site
        self.http = http
        self._authorization = authorization
        self._refused = refused

    # -- metadata -----------------------------------------------------------------------------------------

    def stat(self, reference: Reference) -> FileInfo:
        """Look at a file or folder; one round trip, checksums only where PROPFIND has them.

        HEAD would give the checksum at once, but no word of whether it is a file, and XRootD 5.5.3 does not answer
        HEAD of a folder at all.

        :raises NotFound: when nothing is there.
        """
        headers = {"Depth": "0", "Content-Type": "application/xml; charset=utf-8"}
        with self.request("PROPFIND", reference, headers=headers, body=multistatus.REQUEST) as response:
            if response.status_code != 207:
                raise http_error(response, "PROPFIND", str(reference))
            body = response.read(multistatus.ANSWER_MAX_BYTES + 1)
        if len(body) > multistatus.ANSWER_MAX_BYTES:
            raise errors.ProtocolViolation(
                f"the answer has over {multistatus.ANSWER_MAX_BYTES} bytes", operation="PROPFIND", target=str(reference)
            )
        return multistatus.parse(body, reference)

    def files_in(self, folder: Reference) -> list[str]:
        """The names of a folder's files, without its folders; one round trip.

        :raises NotFound: when there is no such folder.
        :raises ProtocolViolation: also for a listing that is beyond one of the limits of :mod:`.multistatus`.
        """
        headers = {"Depth": "1", "Content-Type": "application/xml; charset=utf-8"}
        with self.request("PROPFIND", folder, headers=headers, body=multistatus.LISTING_REQUEST) as response:
            if response.status_code != 207:
                raise http_error(response, "PROPFIND", str(folder))
            body = response.read(multistatus.LISTING_MAX_BYTES + 1)
        return multistatus.files_in(body, folder)

    def checksums(self, info: FileInfo) -> Mapping[str, str]:
        """A file's checksums by the server (``Want-Digest``, RFC 3230); empty where it gives none.

        XRootD reads the whole file for it where it has not been asked before. One for which that takes too long has
        none to give, unless the site's proof is the server's checksum alone: then the size would be all that is left.

        :param info: what :meth:`stat` gave.
        :raises NotFound: when nothing is there any more.
        :raises DeadlineExceeded: only for proof ``server``; so TransferInterrupted and Unavailable.
        """
        reference = info.reference
        patience_s = min(info.size / _SUM_BYTES_PER_S, _SUM_MAX_S)
        try:
            with self.request("HEAD", reference, headers={"Want-Digest": "adler32"}, patience_s=patience_s) as response:
                if response.status_code == 200:
                    return multistatus.digest(response.headers.get("Digest", ""))
                raise http_error(response, "HEAD", str(reference))
        except (errors.NotFound, errors.Unauthenticated, errors.AccessDenied, errors.Throttled):
            raise
        except errors.CS3Error as error:
            too_slow = isinstance(error, _SUM_TOO_SLOW)
            if not (too_slow or error.code) or (too_slow and self.site.proof == "server"):
                raise
            # A digest is optional by RFC 3230, and a server that cannot make one has not lost the file.
            _log.info("%s: no checksum of %s: %s", self.site.name, reference, error)
            return {}

    def with_checksums(self, info: FileInfo) -> FileInfo:
        """What :meth:`stat` gave, and where it has no adler32 (yet), the server's :meth:`checksums`."""
        if info.is_directory or info.checksums.get("adler32", NOT_YET_ADLER32) != NOT_YET_ADLER32:
            return info
        return replace(info, checksums={**info.checksums, **self.checksums(info)})

    def make_directories(self, folder: Reference) -> None:
        """Make a folder and those above it; what is there stays.

        :raises AlreadyExists: when a file stands where a folder is needed.
        """
        if not folder.path:
            return
        try:
            standing = self.stat(folder)
        except errors.NotFound:
            self.make_directories(folder.parent)
        else:
            if not standing.is_directory:
                raise errors.AlreadyExists("a file stands where a folder is needed", target=str(folder))
            return
        with self.request("MKCOL", folder, write=True) as response:
            # 405: it exists (RFC 4918, 9.3.1), so somebody else was faster.
            if response.status_code not in (200, 201, 204, 405):
                raise http_error(response, "MKCOL", str(folder))

    def delete_file(self, reference: Reference) -> None:
        """Delete a file, and nothing but a file: WebDAV's DELETE takes whole folders (RFC 4918, 9.6.1).

        :raises NotFound: when nothing is there.
        :raises InvalidRequest: when it is a folder; it stays.
        """
        if self.stat(reference).is_directory:
            raise errors.InvalidRequest("is a folder, not a file", operation="DELETE", target=str(reference))
        with self.request("DELETE", reference, write=True) as response:
            if response.status_code not in (200, 202, 204):
                raise http_error(response, "DELETE", str(reference))

    # -- data ---------------------------------------------------------------------------------------------

    def checksum(self, reference: Reference, algorithm: str) -> str:
        """The checksum of a file's content as the server sends it: a read of the whole file.

        :raises TransferInterrupted: when fewer bytes came than the server announced.
        """
        digests = Digests([algorithm])
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with self.open(reference) as file:
            while count := file.readinto(buffer):
                digests.update(buffer[:count])
        return digests.hexdigests()[algorithm]

    def open(self, reference: Reference, *, size: int | None = None) -> RemoteFile:
        """A file's bytes; its entry sends the GET.

        :param size: bytes that the server says it has, where somebody asked.
        """
        return RemoteFile(lambda: self.request("GET", reference), size=size, target=str(reference))

    def put(self, body: UploadBody, reference: Reference) -> None:
        """Send a file's bytes, once, to a name that nobody else has: a server that knows no ``If-None-Match`` replaces
        what stands there (XRootD 5.5.3).

        It stands under that name while it is being sent, and *of a cut upload a part may stay*, or appear a moment
        later.

        :raises AlreadyExists: when something stands there, and the server says so.
        """
        size = len(body)
        headers = {"Content-Type": "application/octet-stream", "If-None-Match": "*"}
        if size:
            # dCache and XRootD's redirectors send the client on; no byte is to go there before.
            headers["Expect"] = "100-continue"
        with self.request("PUT", reference, write=True, headers=headers, body=body) as response:
            if response.status_code == 412:
                raise errors.AlreadyExists(
                    "something stands there already", operation="PUT", target=str(reference), code="HTTP 412"
                )
            # 202 and 206 are no "stored" (OpenCloud answers 206 to what it did not store).
            if response.status_code not in (200, 201, 204):
                raise http_error(response, "PUT", str(reference))
        if body.sent < size:
            raise errors.TransferInterrupted(
                f"the server said {response.status_code} after {body.sent} of {size} bytes were sent",
                operation="PUT",
                target=str(reference),
            )

    # -- requests -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        reference: Reference,
        *,
        write: bool = False,
        headers: Mapping[str, str] | None = None,
        headers_at: Callable[[str], Mapping[str, str]] = lambda _: {},
        body: UploadBody | bytes | None = None,
        idle_timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[Answer]:
        """Send one request, to the data node that the server names where it names one, and hand out the answer.

        Where the token was not accepted (401) and there is another one, it is sent once more; a file's bytes are not.

        :param write: whether the token has to allow writing.
        :param headers_at: more headers, of the URL that the request goes to; after a redirect it gets that of the data
            node, which is a secret.
        :param idle_timeout_s: longest silence, where shorter than the site's.
        :param patience_s: so much longer than that.
        """
        url = self.site.server.url(reference)
        authorization: str | None = self._authorization(write)
        again = not isinstance(body, UploadBody)
        never_here = False
        for _ in range(_REDIRECTS_MAX + 1):
            sent = {**(headers or {}), **headers_at(url)}
            if authorization is not None:
                sent["Authorization"] = authorization
            with self.http.request(
                method,
                url,
                headers=sent,
                target=str(reference),
                body=body,
                idle_timeout_s=idle_timeout_s,
                patience_s=patience_s,
                never_here=never_here,
            ) as response:
                location = response.headers.get("Location") if response.status_code in _REDIRECTS else None
                if location is None:
                    renewed = authorization
                    if response.status_code == 401 and authorization is not None:
                        self._refused(authorization)
                        renewed = self._authorization(write) if again else authorization
                    if renewed == authorization:
                        yield response
                        return
                    authorization, again = renewed, False
                    drain(response)
                    continue
                sent_from_here = response.is_from_here
                drain(response)
            url, with_token = self._follow(url, location, str(reference))
            # A name tells too little: it may lead to this machine, where others have no business.
            never_here = not (with_token or sent_from_here)
            if not with_token:
                authorization = None
            if isinstance(body, UploadBody) and body.digests.byte_count:
                # Some of it was sent although nobody wanted it: the server was too slow to say so.
                body.rewind()
        raise errors.ProtocolViolation(
            f"the server redirects more than {_REDIRECTS_MAX} times", operation=method, target=str(reference)
        )

    def _follow(self, url: str, location: str, target: str) -> tuple[str, bool]:
        """Where a redirect leads, and whether the token goes there, too.

        It goes to the same host and port, and to the site's ``data_hosts``. Others get none: dCache's and XRootD's
        data nodes take what stands in the URL for it, so that URL is a secret and in no message.

        :raises ProtocolViolation: for a place that must not even get the data.
        """

        def refused(why: str) -> errors.ProtocolViolation:
            return errors.ProtocolViolation(f"{self.site.name}: the server redirects {why}", target=target)

        with contextlib.suppress(UnicodeError):
            # Headers are read as Latin-1; XRootD 5.5.3 writes names in UTF-8 into it, without percents.
            location = location.encode("latin-1").decode()
        try:
            following = urljoin(url, location)
            parts = urlsplit(following)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise refused("to something that is no URL") from None
        if parts.scheme not in ("http", "https") or not host or "\\" in following or "@" in parts.netloc:
            raise refused("to something that is no plain HTTP URL")
        if is_off_limits(host):
            raise refused(f"to {host}, where nothing is ever sent")
        if parts.scheme == "http":
            if urlsplit(url).scheme == "https":
                raise refused(f"from https to http, at {host}; its data would travel without TLS")
            if not (self.site.allow_plaintext or is_loopback(host)):
                raise refused(
                    f"to {host} without TLS; if the network between is trusted, set allow_plaintext (as a setting: "
                    "cs3_allow_plaintext)"
                )
        if is_this_machine(host) and not is_this_machine(urlsplit(url).hostname or ""):
            # What listens on this machine's own addresses trusts whoever runs here.
            raise refused(f"to {host}, which is this machine")
        try:
            return self.site.check_redirect(url, following), True
        except errors.ProtocolViolation:
            return following, False
