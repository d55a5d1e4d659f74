"""Uploads: a whole, proven file under its name, or nothing new there.

The ladder above is in :mod:`rucio_cs3.cs3.storage`. How the bytes go is in :mod:`rucio_cs3.cs3.uploads.sending`, what
arrived in :mod:`rucio_cs3.cs3.uploads.arrivals`, and what a failure leaves in :mod:`rucio_cs3.cs3.uploads.leftovers`.
There are two landings (:attr:`rucio_cs3.cs3.config.Endpoint.landing`), because the two server lines differ in what a
cut PUT leaves. Calls on one line below go at the same time, those in brackets only where they are needed::

    temporary (Reva v3)   Initiate hidden sibling [, Stat folder] [, Stat name]
                          PUT
                          Stat sibling, Stat name [, GET sibling]
                          Move, with the token that was told that the name is free
    direct (OpenCloud)    Initiate name, if it is free [again, if it is not and may be replaced]
                          PUT
                          Stat name, until it can be read

What is to land under a hidden name alone (:attr:`~rucio_cs3.cs3.uploads.attempt.Options.hidden`) is done when that is
proven: nobody looks at its later name, nor moves it.

Where an attempt fails by the network or a server that is busy, the next one begins with a new Initiate: a ticket is
never used twice (OpenCloud appends to what came before). What the last of them fails with is what is raised.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import agree
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.downloads.downloads import Downloads
from rucio_cs3.cs3.gateway import Absence, Gateway
from rucio_cs3.cs3.hidden_names import hidden_sibling
from rucio_cs3.cs3.kept_checksums import KeptChecksums
from rucio_cs3.cs3.login.tokens import TokenSource
from rucio_cs3.cs3.namespace import OPEN_OUTCOME, Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo, Ticket
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.cs3.side_by_side import Aside
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.arrivals import Arrivals
from rucio_cs3.cs3.uploads.attempt import SMALL_BYTES, Attempt, Delivery, Options
from rucio_cs3.cs3.uploads.leftovers import Leftovers
from rucio_cs3.cs3.uploads.resumable import ResumableUploads, Resumption
from rucio_cs3.cs3.uploads.sending import Sending
from rucio_cs3.cs3.uploads.upload_state import Claim

_log = logging.getLogger(__name__)

#: How often a file that can be read again is sent anew, and the pauses before.
_RESTARTS = RetryPolicy(attempts=3, base_s=0.5)

#: What a missing folder shows as: Reva v3.12.1 local HTTP 500 at the PUT, OpenCloud FAILED_PRECONDITION at Initiate.
_FOLDER_MAY_BE_GONE = (errors.ServerFault, errors.PreconditionFailed, errors.NotFound)


class Uploads:
    """Sends files to one endpoint; safe for many threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        gateway: Gateway,
        data: DataGateway,
        namespace: Namespace,
        leftovers: Leftovers,
        downloads: Downloads,
        kept: KeptChecksums,
        resumable: ResumableUploads,
    ) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._tokens: TokenSource = gateway.tokens
        self._namespace = namespace
        self._resumable = resumable
        self._sending = Sending(endpoint, gateway, data, resumable)
        self._leftovers = leftovers
        self._arrivals = Arrivals(endpoint, namespace, downloads, kept)

    def upload(self, body: UploadBody, reference: Reference, options: Options) -> FileInfo | None:
        """Store what ``body`` reads; see :meth:`rucio_cs3.cs3.storage.CS3Storage.upload`.

        :returns: what the server said of the very content, maybe under a hidden sibling's name; None where only its
            arrival under the name itself was seen.
        """
        with self._resumable.claim(body, options.source, reference, overwrite=options.overwrite) as claim:
            try:
                proven = self._upload(body, reference, options, claim)
            except errors.NotFound as error:
                if error is body.failure:
                    raise
                # Never NotFound from an upload: callers take it for an answer about a file that they asked for.
                raise errors.PreconditionFailed(
                    f"the server does not find what is uploaded, nor its folder: {error.message}",
                    operation=error.operation,
                    target=error.target,
                    code=error.code,
                    trace=error.trace,
                ) from error
            claim.forget()
            return proven

    def _upload(self, body: UploadBody, reference: Reference, options: Options, claim: Claim) -> FileInfo | None:
        land = self._via_temporary if self._endpoint.upload_landing == "temporary" else self._direct
        headers = {} if options.mtime_s is None else {"X-OC-Mtime": str(int(options.mtime_s))}
        number, folder_made, lost = 1, False, False
        unfinished = claim.unfinished
        while True:
            attempt = Attempt(resumption=Resumption(claim, unfinished))
            unfinished = None  # the next attempt has a beginning of its own
            try:
                land(body, reference, dict(headers), options, attempt)
                break
            except errors.CS3Error as error:
                may_be_ours = (lost or error is attempt.lost) and isinstance(error, errors.AlreadyExists)
                if may_be_ours and self._is_ours(body, reference):
                    break
                lost = lost or attempt.lost is not None
                pause: float | None = 0.0
                if not folder_made and self._folder_was_gone(reference.parent, error, attempt):
                    folder_made = True
                elif attempt.resumption.unfinished is not None and _was_spoiled(error, body):
                    pass  # what another process has left was, and a new beginning has nothing of it
                else:
                    pause = _RESTARTS.wait_s(number, error) if _may_restart(error, body, options, attempt) else None
                    number += 1
                if pause is None:
                    raise
                _log.info("%s: sending %s again (%s)", self._endpoint.name, reference, error)
            time.sleep(pause)
            if body.begun:
                body.rewind()
        self._namespace.saw_folder(reference.parent)
        return attempt.proven

    def _is_ours(self, body: UploadBody, reference: Reference) -> bool:
        """Whether the file that took the name is what an earlier attempt sent, committed later than anybody waited.

        Where not even its checksum tells it from ours, it is the file that was to be stored.
        """
        try:
            info = self._namespace.settled(reference)
        except errors.NotFound:
            return False  # gone since, or it is a folder above that cannot be made
        if body.begun:
            body.rewind()
        for _ in body:
            pass  # for its checksums; nothing is sent
        return info.size == len(body) and agree(body.digests.hexdigests(), info.checksums)

    def _folder_was_gone(self, folder: Reference, error: errors.CS3Error, attempt: Attempt) -> bool:
        """Whether an attempt failed because the folder was missing that nobody had looked at; it is there now.

        :raises AlreadyExists: when a file stands where a folder is needed.
        """
        if not attempt.trusted_folder or not isinstance(error, _FOLDER_MAY_BE_GONE):
            return False
        try:
            made = self._namespace.make_directories(folder)
        except errors.AlreadyExists:
            raise
        except errors.CS3Error:
            raise error from None
        # Where it is there by now, somebody else has made it meanwhile, and the ticket was refused for its absence.
        refused = error.operation == "InitiateFileUpload" and not isinstance(error, errors.ServerFault)
        return made or refused

    # -- landing on a hidden sibling (the CERNBox line) ---------------------------------------------------

    def _via_temporary(
        self, body: UploadBody, reference: Reference, headers: dict[str, str], options: Options, attempt: Attempt
    ) -> None:
        """Land on a hidden sibling, prove it, then move it to the name.

        Each attempt has a sibling of its own: what a broken one leaves may come into being during the next.
        """
        unfinished = attempt.resumption.unfinished
        if unfinished is not None:
            landing = reference.sibling(unfinished.landing)
        else:
            landing = reference if options.hidden else hidden_sibling(reference)
        is_large = len(body) > SMALL_BYTES
        look = is_large and not options.hidden
        with self._undone_on_failure(landing, body, attempt.resumption):
            tickets = self._ticket_and_folder(landing, reference, body, headers, options, attempt, look=look)
            delivery = Delivery(body=body, landing=landing, headers=headers, options=options, attempt=attempt)
            self._sending.send(tickets, delivery)
            absent: Absence | None = None
            if options.hidden:
                self._prove(body, landing, options, attempt)
                return
            if options.overwrite and is_large:
                self._prove(body, landing, options, attempt)  # that it is no folder was seen before it was sent
            elif attempt.lost or (is_large and options.read_back):
                # The proof takes its time, and the look is worth most just before the move.
                self._prove(body, landing, options, attempt)
                absent = _free(reference, self._gateway.glance(reference), options, meanwhile=is_large)
            else:
                seen = Aside(lambda: self._gateway.glance(reference))
                self._prove(body, landing, options, attempt)
                absent = _free(reference, seen.result(), options, meanwhile=is_large)
            # Move would replace what stands there.
            self._namespace.move(landing, reference, size=len(body), absent=None if options.overwrite else absent)

    def _ticket_and_folder(
        self,
        landing: Reference,
        reference: Reference,
        body: UploadBody,
        headers: Mapping[str, str],
        options: Options,
        attempt: Attempt,
        *,
        look: bool,
    ) -> Collection[Ticket]:
        """A ticket for the hidden sibling; its folder is there, as far as is known.

        :param look: whether the name is looked at now: before a large file is sent for nothing.
        """
        if attempt.resumption.unfinished is not None:
            # It may have gone since the other process began, and then all would be sent in vain.
            self._namespace.make_directories(reference.parent)
            _free(reference, self._gateway.glance(reference), options)
            return [attempt.resumption.unfinished.ticket]
        size = len(body)
        used = self._tokens.get()
        attempt.trusted_folder = self._namespace.knows_folder(reference.parent)
        seen = Aside(lambda: self._gateway.glance(reference)) if look else None
        if attempt.trusted_folder:
            tickets: Collection[Ticket] = self._gateway.initiate_upload(landing, size, headers=headers)
        else:
            ticket = Aside(lambda: self._gateway.initiate_upload(landing, size, headers=headers))
            try:
                made = self._namespace.make_directories(reference.parent, remembered=True)
            finally:
                # It must not come later than what follows: at OpenCloud the ticket of nothing makes an empty file.
                ticket.wait()
            tickets = [] if made else ticket.result()
        if seen is not None:
            _free(reference, seen.result(), options)
        if self._tokens.get() is not used:
            # The token has died by now, and a ticket that was given to it may be worth no more.
            tickets = []
        return tickets or self._gateway.initiate_upload(landing, size, headers=headers)

    # -- landing under the name itself (OpenCloud) --------------------------------------------------------

    def _direct(
        self, body: UploadBody, reference: Reference, headers: dict[str, str], options: Options, attempt: Attempt
    ) -> None:
        """Land under the name itself, where the server shows only whole uploads."""
        attempt.trusted_folder = attempt.only_new = True
        if len(body) and (body.expected or options.restarts or len(body) <= SMALL_BYTES):
            # The server shows nothing that it refutes. It costs one more read of a local file, mostly of memory; a
            # file that comes from another server is not fetched twice.
            _add_checksum(headers, body)
        tickets = self._ticket_for_name(body, reference, headers, options, attempt)
        try:
            delivery = Delivery(body=body, landing=reference, headers=headers, options=options, attempt=attempt)
            self._sending.send(tickets, delivery)
            self._prove(body, reference, options, attempt)
        except BaseException:
            if attempt.only_new:
                self._leftovers.remove_own(reference, attempt.etag)
            raise

    def _ticket_for_name(
        self, body: UploadBody, reference: Reference, headers: dict[str, str], options: Options, attempt: Attempt
    ) -> Collection[Ticket]:
        """A ticket for the name itself: for a new file, or to replace the one that is there.

        :param headers: of the ticket; gets a checksum where something is replaced.
        """
        if not len(body):
            return self._ticket_for_nothing(reference, headers, options, attempt)
        if attempt.resumption.unfinished is not None:
            attempt.only_new = _free(reference, self._gateway.glance(reference), options) is not None
            return [attempt.resumption.unfinished.ticket]
        try:
            offer = self._gateway.initiate_upload(reference, len(body), only_new=True, headers=headers)
        except (errors.AlreadyExists, errors.PreconditionFailed) as error:
            # FAILED_PRECONDITION to a folder of this name, and where the folder above is missing.
            standing: FileInfo | Absence | None = self._gateway.glance(reference)
            if isinstance(standing, Absence) and isinstance(error, errors.AlreadyExists):
                # One of both answers is wrong: this one, where the token has died in between.
                standing = self._namespace.present(reference)
            if standing is None or _free(reference, standing, options) is not None:
                raise
        else:
            if offer.created:
                return offer
            # A server that does not say so may not know the condition.
            seen = self._namespace.present(reference)
            if seen is None:
                return offer
            _free(reference, seen, options)
        attempt.only_new = False
        # The old content is replaced at the commit, so the server must compare before it, whatever it costs.
        _add_checksum(headers, body)
        return self._gateway.initiate_upload(reference, len(body), headers=headers)

    def _ticket_for_nothing(
        self, reference: Reference, headers: dict[str, str], options: Options, attempt: Attempt
    ) -> Collection[Ticket]:
        """Make an empty file: Initiate alone does, also of what is there, so that is looked at first."""
        seen = self._namespace.present(reference)
        if seen is not None:
            _free(reference, seen, options)
            attempt.only_new = False
        try:
            return self._gateway.initiate_upload(reference, 0, only_new=attempt.only_new, headers=headers)
        except OPEN_OUTCOME as error:
            attempt.lost = error  # a lost answer is that of the whole upload
            return []

    # -- proof, and when it fails -------------------------------------------------------------------------

    def _prove(self, body: UploadBody, landing: Reference, options: Options, attempt: Attempt) -> None:
        """See :meth:`rucio_cs3.cs3.uploads.arrivals.Arrivals.prove`."""
        attempt.sending = attempt.trusted_folder = False
        try:
            attempt.proven = self._arrivals.prove(
                body,
                landing,
                # What was put together is not believed without proof: nothing locks an upload at these servers.
                read_back=options.read_back or (attempt.resumption.mended and self._endpoint.proof != "size"),
                idle_timeout_s=options.idle_timeout_s,
                lost=attempt.lost,
            )
        except errors.CS3Error as error:
            # Then a look has shown that nothing came.
            attempt.sending = error is attempt.lost
            raise

    @contextlib.contextmanager
    def _undone_on_failure(self, landing: Reference, body: UploadBody, resumption: Resumption) -> Iterator[None]:
        """Remove the hidden sibling unless the block ends well; for KeyboardInterrupt, too."""
        try:
            yield
        except BaseException as failure:
            # An error with a code is an answer: the server had finished with the request. That of a body that was
            # read from another server is none, nor are codes that this client gives or a proxy (502, 504).
            answered = (
                isinstance(failure, errors.CS3Error)
                and not isinstance(failure, OPEN_OUTCOME)
                and failure.code
                and failure is not body.failure
            )
            # An upload by TUS that is not whole makes none.
            stubs = body.begun and not answered and not resumption.by_tus
            try:
                if self._leftovers.remove_sibling(landing, stubs=stubs, hurried=not isinstance(failure, Exception)):
                    resumption.claim.forget()
            except errors.CS3Error as error:
                self._leftovers.is_left(landing, error)
            raise


def _free(
    reference: Reference, seen: FileInfo | Absence, options: Options, *, meanwhile: bool = False
) -> Absence | None:
    """Whether the name may be taken.

    :param meanwhile: it was free when it was looked at before.
    :returns: that nothing is there, not believed yet; None where a file is that is to be replaced.
    :raises AlreadyExists: when something is there that is not to be replaced.
    """
    if isinstance(seen, Absence):
        return seen
    if seen.is_directory or not options.overwrite:
        kind = "a folder" if seen.is_directory else "a file"
        how = "appeared meanwhile" if meanwhile else "exists"
        raise errors.AlreadyExists(f"{kind} of this name {how}", operation="InitiateFileUpload", target=str(reference))
    return None


def _was_spoiled(error: errors.CS3Error, body: UploadBody) -> bool:
    """Whether the server has other bytes than were sent; not so where the local file is another."""
    return isinstance(error, errors.IntegrityError) and body.failure is None


def _add_checksum(headers: dict[str, str], body: UploadBody) -> None:
    """Have the server compare (OpenCloud): lower-case name, one space, lower-case digits in full."""
    if "Upload-Checksum" not in headers:
        algorithm = next(iter(body.expected), "adler32")
        headers["Upload-Checksum"] = f"{algorithm} {body.foresee(algorithm)}"


def _may_restart(error: errors.CS3Error, body: UploadBody, options: Options, attempt: Attempt) -> bool:
    """Whether the same bytes may arrive at another attempt, and it is known that they have not yet."""
    if not options.restarts or not attempt.sending or body.failure is not None:
        return False
    if isinstance(error, errors.DeadlineExceeded):
        # Silence has taken its whole time already; a server that says so (408, 504) has not.
        return (error.code or "").startswith("HTTP ")
    return isinstance(error, errors.TransferInterrupted | errors.Unavailable | errors.Throttled)
