"""Uploads: a whole, proven file under its name, or nothing new there.

The ladder above is in :mod:`rucio_cs3.cs3.storage`; the byte loop below in :mod:`rucio_cs3.cs3.streams`. There
are two landings (:attr:`rucio_cs3.cs3.config.Endpoint.landing`), because the two server lines differ in what a
cut PUT leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.auth import TokenSource
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.downloads import Downloads, compare
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import OPEN_OUTCOME, Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Ticket, pick_ticket
from rucio_cs3.cs3.streams import UploadBody

_log = logging.getLogger(__name__)

#: How long a server may take to commit an upload whose answer was lost, in seconds.
_LATE_COMMIT_S = 10.0

#: How long after a broken connection a server may make a file of what had come until then, and the
#: pause between two looks, in seconds. Reva v3.12.1 needs some milliseconds.
_STUB_S = 2.0
_STUB_POLL_S = 0.05

#: Names of hidden siblings: this, something random, and that.
_PREFIX = ".rucio-cs3."
_SUFFIX = ".part"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one upload is done; the meaning is that of :meth:`rucio_cs3.cs3.storage.CS3Storage.upload`.

    :param mtime_s: modification time of the local file, in seconds since the epoch; None where there is none.
    :param traceable: :meth:`Uploads.sweep` may take what is left of it, should this process be killed.
    """

    mtime_s: float | None = None
    overwrite: bool = False
    read_back: bool = False
    idle_timeout_s: float | None = None
    traceable: bool = False


@dataclass
class _Landed:
    """What became of an upload under the name itself.

    :param only_new: the name was free when it began, and must be still for any further ticket.
    :param etag: what the server gave to what it stored; empty while nothing is stored, or where it gives none.
    :param lost: the error that hid the answer to the Initiate of an empty file.
    """

    only_new: bool = False
    etag: str = ""
    lost: errors.CS3Error | None = None


class Uploads:
    """Sends files to one endpoint; safe for many threads."""

    def __init__(
        self, endpoint: Endpoint, gateway: Gateway, data: DataGateway, namespace: Namespace, downloads: Downloads
    ) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._tokens: TokenSource = gateway.tokens
        self._data = data
        self._namespace = namespace
        self._downloads = downloads

    def upload(self, body: UploadBody, reference: Reference, options: Options) -> None:
        """Store what ``body`` reads; see :meth:`rucio_cs3.cs3.storage.CS3Storage.upload`."""
        # The folders first: Reva v3.12.1 answers a Stat below a file with INTERNAL.
        self._namespace.make_directories(reference.parent)
        present = self._namespace.present(reference)
        if present is not None and (present.is_directory or not options.overwrite):
            kind = "a folder" if present.is_directory else "a file"
            raise errors.AlreadyExists(
                f"{kind} of this name exists", operation="InitiateFileUpload", target=str(reference)
            )
        if self._endpoint.upload_landing == "temporary":
            self._via_temporary(body, reference, options)
            return
        headers = {} if options.mtime_s is None else {"X-OC-Mtime": str(int(options.mtime_s))}
        if present is not None or (body.expected and len(body)):
            # Where the old content is replaced at the commit, the server must compare before it; where the checksum
            # is known beforehand, it costs nothing to have it do so. (An empty file is made without a PUT.)
            algorithm = "adler32" if present is not None else next(iter(body.expected))
            headers["Upload-Checksum"] = f"{algorithm} {body.foresee(algorithm)}"
        self._direct(body, reference, headers, options, only_new=present is None)

    def sweep(self, reference: Reference) -> None:
        """See :meth:`rucio_cs3.cs3.storage.CS3Storage.sweep`."""
        if self._endpoint.upload_landing != "temporary":
            return
        prefix = _traceable_prefix(reference)
        try:
            listed = self._namespace.list(reference.parent)
        except errors.NotFound:
            return
        for info in listed:
            name = info.reference.name
            if name.startswith(prefix) and name.endswith(_SUFFIX) and not info.is_directory:
                _log.warning("%s: removing %s, which a killed transfer left", self._endpoint.name, info.reference)
                with contextlib.suppress(errors.NotFound):
                    self._gateway.delete(info.reference)

    def _via_temporary(self, body: UploadBody, reference: Reference, options: Options) -> None:
        """Land on a hidden sibling, prove it, then move it to the name (the CERNBox line)."""
        prefix = _traceable_prefix(reference) if options.traceable else _PREFIX
        landing = reference.sibling(f"{prefix}{secrets.token_hex(8)}{_SUFFIX}")
        with self._undone_on_failure(landing, body):
            self._send(self._gateway.initiate_upload(landing, len(body)), body, landing, {}, options, _Landed())
            if not options.overwrite and self._namespace.present(reference) is not None:
                # Move would replace it; the time since the first look was that of the whole upload.
                raise errors.AlreadyExists(
                    "a file of this name appeared meanwhile", operation="Move", target=str(reference)
                )
            self._namespace.move(landing, reference, size=len(body))

    def _direct(
        self,
        body: UploadBody,
        reference: Reference,
        headers: Mapping[str, str],
        options: Options,
        *,
        only_new: bool,
    ) -> None:
        """Land under the name itself, where the server shows only whole uploads (OpenCloud)."""
        landed = _Landed(only_new=only_new)
        try:
            tickets = self._gateway.initiate_upload(reference, len(body), only_new=only_new, headers=headers)
        except OPEN_OUTCOME as error:
            if len(body):
                raise
            # An empty file is made by Initiate alone: a lost answer is that of the whole upload.
            tickets, landed.lost = [], error
        try:
            self._send(tickets, body, reference, headers, options, landed)
        except BaseException:
            if only_new:
                self._remove_if_ours(reference, landed)
            raise

    def _send(
        self,
        tickets: Collection[Ticket],
        body: UploadBody,
        landing: Reference,
        headers: Mapping[str, str],
        options: Options,
        landed: _Landed,
    ) -> None:
        """PUT, then compare what is there with what was sent.

        :param headers: those of the tickets, should new ones be needed.
        """
        lost = landed.lost
        # OpenCloud has made an empty file at Initiate already, and answers a PUT of nothing with 400.
        if len(body) or self._endpoint.stores_paths:
            lost = self._put(tickets, body, landing, headers, options, landed)
        sent = body.digests.hexdigests()
        try:
            info = self._namespace.settled(landing, size=len(body), within_s=_LATE_COMMIT_S if lost else 0.0)
            compare(info, len(body), sent, operation="PUT")
        except (errors.NotFound, errors.SizeMismatch) as error:
            if lost is not None:
                raise lost from None  # it did not arrive, and what the connection said is why
            if isinstance(error, errors.NotFound):
                # Never NotFound from an upload: callers take it for an answer about a file that they asked for.
                raise errors.SizeMismatch(
                    f"the server said that it stored {len(body)} bytes, but has no such file",
                    operation="PUT",
                    target=str(landing),
                ) from error
            raise
        if options.read_back and not sent.keys() & info.checksums.keys():
            stored = Digests(sent)
            self._downloads.fetch(info, stored.update, idle_timeout_s=options.idle_timeout_s)
            compare(
                replace(info, checksums=stored.hexdigests(), size=stored.byte_count),
                len(body),
                sent,
                operation="GET after PUT",
            )

    def _put(
        self,
        tickets: Collection[Ticket],
        body: UploadBody,
        landing: Reference,
        headers: Mapping[str, str],
        options: Options,
        landed: _Landed,
    ) -> errors.CS3Error | None:
        """PUT, once more where the access token died between ticket and PUT.

        :returns: the error that hid the answer after everything had been sent; None where there was an answer.
        """
        used = self._tokens.get()
        for last in (False, True):
            try:
                landed.etag = self._data.put(
                    pick_ticket(tickets, ("simple",), landing),
                    body,
                    target=str(landing),
                    idle_timeout_s=options.idle_timeout_s,
                )
            except errors.Unauthenticated:
                if last:
                    raise
                self._tokens.invalidate(used)
                body.rewind()
                # A session is never used twice: OpenCloud appends to it.
                tickets = self._gateway.initiate_upload(landing, len(body), only_new=landed.only_new, headers=headers)
            except OPEN_OUTCOME as error:
                if body.sent < len(body):
                    raise
                # All was sent and only the answer is missing: what is there decides, not a second upload.
                _log.info("PUT %s: looking at the file, because the answer was lost (%s)", landing, error)
                return error
            else:
                return None
        return None

    def _remove_if_ours(self, reference: Reference, landed: _Landed) -> None:
        """Remove what this upload stored under the name itself, and nothing that somebody else stored there.

        ``if_not_exist`` is looked at when the ticket is given, not when the bytes are committed, so another
        upload may have taken the name meanwhile. A cut PUT leaves nothing at this line, so without an etag
        there is nothing of ours.
        """
        try:
            standing = self._namespace.present(reference)
            if standing is not None and landed.etag and standing.etag == landed.etag:
                self._gateway.delete(reference)
            elif standing is not None:
                _log.warning("%s: %s is not known to be of this upload, so it stays", self._endpoint.name, reference)
        except errors.CS3Error as error:
            _log.warning("%s: could not remove the unfinished upload %s: %s", self._endpoint.name, reference, error)

    @contextlib.contextmanager
    def _undone_on_failure(self, landing: Reference, body: UploadBody) -> Iterator[None]:
        """Remove the hidden sibling unless the block ends well; for KeyboardInterrupt, too.

        Reva v3.12.1 local makes a stub of what came before a connection broke, maybe only after a first look.
        """
        try:
            yield
        except BaseException as failure:
            # An error with a code is an answer: the server had finished with the request. That of a body that was
            # read from another server is none.
            answered = isinstance(failure, errors.CS3Error) and failure.code and failure is not body.failure
            stub_by = time.monotonic() + (_STUB_S if body.begun and not answered else 0.0)
            try:
                while True:
                    try:
                        self._gateway.delete(landing)
                        break
                    except errors.NotFound:
                        # Nothing has come into being, or not yet: the server may notice the end later than we do.
                        if time.monotonic() >= stub_by:
                            break
                    time.sleep(_STUB_POLL_S)
            except errors.CS3Error as error:
                # The first error is the one to report; this line tells the operator what is left over.
                _log.warning("%s: could not remove the unfinished upload %s: %s", self._endpoint.name, landing, error)
            raise


def _traceable_prefix(reference: Reference) -> str:
    """The same for all uploads of one file, and short also for a name of 255 bytes; no other upload's name has it."""
    return f"{_PREFIX}{hashlib.sha256(reference.name.encode()).hexdigest()[:16]}."
