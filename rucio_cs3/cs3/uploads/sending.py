"""The bytes of one attempt, by the way that the tickets, the size and the settings allow: in pieces (TUS), or one PUT.

Knows neither what the landing is nor what follows: :mod:`rucio_cs3.cs3.uploads.uploads` does. The byte loop below is in
:mod:`rucio_cs3.cs3.streams`, TUS in :mod:`rucio_cs3.cs3.uploads.resumable`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.data_gateway import DataGateway
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.namespace import OPEN_OUTCOME
from rucio_cs3.cs3.resources import Ticket, pick_ticket
from rucio_cs3.cs3.uploads.attempt import Delivery
from rucio_cs3.cs3.uploads.resumable import ResumableUploads

_log = logging.getLogger(__name__)


class Sending:
    """Sends to one endpoint; safe for many threads."""

    def __init__(self, endpoint: Endpoint, gateway: Gateway, data: DataGateway, resumable: ResumableUploads) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._tokens = gateway.tokens
        self._data = data
        self._resumable = resumable

    def send(self, tickets: Collection[Ticket], delivery: Delivery) -> None:
        """Send all bytes, where the ticket has not made the (empty) file already.

        On return the server has been given the whole body, once, and ``body.digests`` are those of all of it; whatever
        the server says about it is not believed, but proven afterwards. An error means that it cannot be there: the
        server refused, or not all was sent. A retryable one may be followed by another call with new tickets, and
        (temporary landing) for another sibling. ``attempt.lost`` is the error that hid the answer after everything had
        been sent, and ``attempt.etag`` is set where the server names that of what it stored.

        :param tickets: fresh, and the body begins at its first byte.
        :raises CS3Error: the error of the last request.
        """
        body, attempt = delivery.body, delivery.attempt
        if len(body) or self._endpoint.stores_paths:
            # OpenCloud has made an empty file at Initiate, and answers a PUT of nothing with 400.
            wanted = self._resumable.wants(body, again=delivery.options.restarts)
            by_tus = wanted and self._resumable.offered(tickets, body)
            if not by_tus or not self._in_pieces(tickets, delivery):
                if by_tus:
                    tickets = self._anew(delivery)
                attempt.lost = self._put(tickets, delivery)
        if attempt.lost is None:
            attempt.sending = attempt.trusted_folder = False

    def _in_pieces(self, tickets: Collection[Ticket], delivery: Delivery) -> bool:
        """
        :returns: whether TUS is understood.
        """
        body, landing, attempt = delivery.body, delivery.landing, delivery.attempt
        # It has its own new beginnings.
        attempt.sending = False
        try:
            self._resumable.send(
                tickets,
                body,
                landing,
                delivery.headers,
                attempt.resumption,
                only_new=attempt.only_new,
                idle_timeout_s=delivery.options.idle_timeout_s,
            )
            return True
        except errors.AlreadyExists as error:
            # A new upload was to take the place of one that was lost. Or that one has come late, and is what is there.
            attempt.lost = error
            raise
        except errors.Unsupported as error:
            if self._resumable.insists or body.failure is not None:
                raise
            # A proxy that knows no PATCH, say.
            _log.info("PATCH %s: sending it by PUT, because TUS is not understood (%s)", landing, error)
        attempt.sending, attempt.resumption.by_tus = True, False
        return False

    def _put(self, tickets: Collection[Ticket], delivery: Delivery) -> errors.CS3Error | None:
        """
        :returns: the error that hid the answer after everything had been sent; None where there was an answer.
        """
        body, landing = delivery.body, delivery.landing
        for last in (False, True):
            used = self._tokens.get()
            try:
                delivery.attempt.etag = self._data.put(
                    pick_ticket(tickets, ("simple",), landing),
                    body,
                    target=str(landing),
                    idle_timeout_s=delivery.options.idle_timeout_s,
                )
            except (errors.Unauthenticated, errors.AccessDenied) as error:
                # The access token died between ticket and PUT, or the ticket did (403: both lines look at it first).
                # That of a source which is read is another one.
                if last or body.failure is not None:
                    raise
                if isinstance(error, errors.Unauthenticated):
                    self._tokens.invalidate(used)
                tickets = self._anew(delivery)
            except OPEN_OUTCOME as error:
                if body.sent < len(body):
                    raise
                # All was sent and only the answer is missing: what is there decides, not a second upload.
                _log.info("PUT %s: looking at the file, because the answer was lost (%s)", landing, error)
                return error
            else:
                return None
        return None

    def _anew(self, delivery: Delivery) -> Collection[Ticket]:
        """Begin with the first byte, by new tickets: a session is never used twice, because OpenCloud appends to it."""
        body = delivery.body
        body.rewind()
        return self._gateway.initiate_upload(
            delivery.landing, len(body), only_new=delivery.attempt.only_new, headers=delivery.headers
        )
