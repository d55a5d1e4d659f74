"""Uploads by TUS: does what :class:`rucio_cs3.cs3.uploads.tus.Upload` says, over the endpoint's HTTP client.

Decides nothing about the protocol, and keeps nothing on the disk (:mod:`rucio_cs3.cs3.uploads.upload_state`). Where the
whole file has to stand, and what becomes of it, is up to :mod:`rucio_cs3.cs3.uploads.uploads`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from rucio_cs3.cs3 import errors, retry
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.http.client import HTTPClient, drain, http_error
from rucio_cs3.cs3.login.tokens import TokenSource
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.streams import UploadBody, UploadPart
from rucio_cs3.cs3.uploads import tus
from rucio_cs3.cs3.uploads.piece_sizes import MIB, PieceSizes

_log = logging.getLogger(__name__)

#: Files of more bytes than this go by TUS where the setting is ``auto``: those of more than one piece. On Reva v3.12.1
#: a PATCH is as fast as a PUT; below, a broken upload is begun again sooner than asked for.
FIRST_PIECE_BYTES = FROM_BYTES = 64 * MIB

#: Pauses between failures; a server that is started again takes some seconds. The limit on their number is
#: :data:`rucio_cs3.cs3.uploads.tus.ATTEMPTS`.
_PAUSES = retry.RetryPolicy(attempts=tus.ATTEMPTS, base_s=0.5, cap_s=10.0)

#: An upload that has lasted so long is kept for other processes, in seconds: sooner, to begin again costs as little.
KEEP_AFTER_S = 2.0

#: Failures after which the same bytes may still arrive by the same upload. All others are answers about the file.
_MAY_GO_ON = (
    *OPEN_OUTCOME,
    errors.AccessDenied,
    errors.Cancelled,
    errors.Locked,
    errors.NoSpaceLeft,
    errors.ServerFault,
    errors.Throttled,
    errors.TooEarly,
    errors.Unauthenticated,
)


@dataclass(kw_only=True)
class Errand:
    """One file to be sent, and what its sender has to be asked for.

    :param target: what messages call the place.
    :param begun_elsewhere: the ticket is that of an upload which another process began.
    :param initiate: makes a new upload of the same file and gives its ticket.
    :param arrived: whether the whole file is where the upload was to put it.
    :param keep: called with the ticket that the bytes go by, when it is worth keeping for another process: once the
        upload lasts, and when it is given up. Called again and again; must not raise.
    """

    body: UploadBody
    ticket: Ticket
    target: str
    initiate: Callable[[], Ticket]
    arrived: Callable[[], bool]
    begun_elsewhere: bool = False
    keep: Callable[[Ticket], None] = lambda _ticket: None
    idle_timeout_s: float | None = None
    #: After a failure: whether another process may go on.
    resumable: bool = False


class TUSUploads:
    """Sends files to one endpoint by TUS; safe for many threads."""

    def __init__(self, endpoint: Endpoint, http: HTTPClient, tokens: TokenSource) -> None:
        self._endpoint = endpoint
        self._http = http
        self._tokens = tokens

    def wanted(self, size: int) -> bool:
        """Whether a file of ``size`` bytes is to go by TUS where that is offered."""
        if not size or self._endpoint.upload_protocol == "simple":
            return False
        return self._endpoint.upload_protocol == "tus" or size > FROM_BYTES

    def worth(self, tickets: Collection[Ticket], size: int) -> bool:
        """Whether it is wanted, and offered."""
        return self.wanted(size) and any(ticket.protocol == "tus" for ticket in tickets)

    def send(self, errand: Errand) -> bool:
        """Send all bytes, through broken connections and lost uploads.

        :returns: whether anything broke on the way, so that what the server has put together is to be proven.
        :raises CS3Error: the error of the last attempt, when it is given up; an error of the local file as it is.
        """
        return _Sending(self._endpoint, self._http, self._tokens, errand).run()


class _Sending:
    """One file on its way."""

    def __init__(self, endpoint: Endpoint, http: HTTPClient, tokens: TokenSource, errand: Errand) -> None:
        self._endpoint = endpoint
        self._http = http
        self._tokens = tokens
        self._errand = errand
        self._ticket = errand.ticket
        # Of the last request, and the last one of any request.
        self._error: errors.CS3Error | None = None
        self._earlier: errors.CS3Error | None = None
        self._credential = tokens.get()
        self._keep_from = time.monotonic() + KEEP_AFTER_S

    def run(self) -> bool:
        try:
            interrupted = self._run()
            # What follows, a proof and a new name, may take its time, too.
            self._look_at_the_clock()
            return interrupted
        except BaseException as failure:
            # Ctrl-C, too. An error of the file itself is none that another process would not have.
            ours = isinstance(failure, errors.CS3Error)
            self._errand.resumable = isinstance(failure, _MAY_GO_ON) if ours else True
            if self._errand.body.failure is not None:
                self._errand.resumable = False
            if self._errand.resumable:
                self._errand.keep(self._ticket)
            raise

    def _run(self) -> bool:
        errand = self._errand
        upload = tus.Upload(
            len(errand.body),
            pause_s=_PAUSES.pause_s,
            pieces=PieceSizes(start=FIRST_PIECE_BYTES),
            begun_elsewhere=errand.begun_elsewhere,
        )
        while True:
            step = upload.step
            if isinstance(step, tus.Done):
                return upload.interrupted
            if isinstance(step, tus.GiveUp):
                raise self._given_up(step)
            if isinstance(step, tus.Send):
                self._patch(upload, step)
            elif isinstance(step, tus.Ask):
                self._head(upload)
            elif isinstance(step, tus.Look):
                upload.looked(found=errand.arrived())
            elif isinstance(step, tus.Restart):
                _log.info("PATCH %s: the server has lost the upload; beginning another one", errand.target)
                self._ticket = errand.initiate()
                upload.began_again()
            else:
                if isinstance(step, tus.Renew):
                    self._tokens.invalidate(self._credential)
                else:
                    time.sleep(step.seconds)
                upload.waited()

    def _patch(self, upload: tus.Upload, step: tus.Send) -> None:
        body = self._errand.body
        # Reads what the checksums have not seen: all before the offset, for an upload that another process began.
        body.resume_at(step.offset)
        started = time.monotonic()
        headers = {"Upload-Offset": str(step.offset), "Content-Type": tus.CONTENT_TYPE}
        part = _Watched(body.part(step.count), self._look_at_the_clock)
        self._request(upload, "PATCH", headers, part, lambda: body.sent - step.offset, started)

    def _head(self, upload: tus.Upload) -> None:
        self._request(upload, "HEAD", {}, None, lambda: 0, time.monotonic())

    def _request(
        self,
        upload: tus.Upload,
        method: str,
        headers: dict[str, str],
        body: _Watched | None,
        sent: Callable[[], int],
        started: float,
    ) -> None:
        errand = self._errand
        # Reva v3.12.1 asks for no access token at a TUS upload; the OpenCloud line does.
        self._credential = self._tokens.get()
        common = {
            "Tus-Resumable": tus.VERSION,
            "X-Reva-Transfer": self._ticket.token,
            "X-Access-Token": self._credential.token,
        }
        try:
            with self._http.request(
                method,
                self._endpoint.check_data_url(self._ticket.url),
                headers={**common, **headers},
                target=errand.target,
                body=body,
                idle_timeout_s=errand.idle_timeout_s,
            ) as answer:
                status, answered = answer.status_code, answer.headers
                self._error = None if status in (200, 204) else http_error(answer, method, errand.target)
                if self._error is None:
                    drain(answer)
                else:
                    self._earlier = self._error
        except OPEN_OUTCOME as error:
            if error is errand.body.failure:
                raise  # the file's fault, which no other request can mend
            _log.info("%s %s: asking for the offset, because the request broke (%s)", method, errand.target, error)
            self._error = self._earlier = error
            upload.broken()
            return
        if errand.body.failure is not None:
            raise errand.body.failure
        retry_after_s = self._error.retry_after_s if self._error is not None else None
        upload.answered(
            status,
            answered,
            sent=sent(),
            seconds=time.monotonic() - started,
            retry_after_s=retry_after_s,
        )

    def _look_at_the_clock(self) -> None:
        if time.monotonic() >= self._keep_from:
            self._errand.keep(self._ticket)

    def _given_up(self, step: tus.GiveUp) -> errors.CS3Error:
        target = self._errand.target
        error = self._error or self._earlier
        if error is None:
            return errors.ProtocolViolation(step.reason or "the upload cannot go on", operation="PATCH", target=target)
        if isinstance(error, errors.NotFound):
            # Never NotFound from an upload: callers take it for an answer about a file that they asked for.
            return errors.TransferInterrupted(
                "the upload is lost at the server again and again",
                operation="PATCH",
                target=target,
                code=error.code,
                trace=error.trace,
            )
        return error


class _Watched:
    """A part of the file as a request body, that calls somebody now and then while it is sent."""

    def __init__(self, part: UploadPart, watch: Callable[[], None]) -> None:
        self._part = part
        self._watch = watch

    def __len__(self) -> int:
        return len(self._part)

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._part:
            yield piece
            self._watch()
