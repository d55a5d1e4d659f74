"""The data gateway of a cloud: PUT and GET of bytes by ticket, over :mod:`rucio_cs3.cs3.http.client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.http.client import Answer, HTTPClient, drain, http_error
from rucio_cs3.cs3.login.tokens import Credential
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.streams import UploadBody


class DataGateway:
    """Moves bytes by ticket.

    :param http: the endpoint's HTTP client.
    :param credential: gives the access token that must accompany a transfer token.
    """

    def __init__(self, endpoint: Endpoint, http: HTTPClient, credential: Callable[[], Credential]) -> None:
        self._endpoint = endpoint
        self._http = http
        self._credential = credential

    def put(self, ticket: Ticket, body: UploadBody, *, target: str, idle_timeout_s: float | None = None) -> str:
        """Send a body by a ``simple`` ticket, once.

        :param idle_timeout_s: longest wait for the answer, where shorter than the endpoint's.
        :returns: the etag of what was stored, as the server says; empty where it does not (Reva v3.12.1).
        :raises TransferInterrupted: when the connection ended early; whether the server has it all is open.
        :raises ChecksumMismatch: when the server compared a checksum (HTTP 419).
        """
        size = len(body)
        headers = {**self._headers(ticket), "Content-Type": "application/octet-stream"}
        with self._http.request(
            "PUT",
            self._endpoint.check_data_url(ticket.url),
            headers=headers,
            body=body,
            target=target,
            idle_timeout_s=idle_timeout_s,
        ) as answer:
            # OpenCloud answers 206 to what it did not store; only these mean "stored".
            if answer.status_code not in (200, 201, 204):
                raise http_error(answer, "PUT", target)
            etag = answer.headers.get("ETag", "")
            drain(answer)
        if body.sent < size:
            # A server that says so before it has all of it.
            raise errors.TransferInterrupted(
                f"the server said {answer.status_code} after {body.sent} of {size} bytes were sent",
                operation="PUT",
                target=target,
            )
        return etag

    def open(
        self,
        ticket: Ticket,
        *,
        target: str,
        idle_timeout_s: float | None = None,
        conditions: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Answer]:
        """Ask for a file by a ``simple`` or ``spaces`` ticket; for :class:`~.remote_file.RemoteFile`.

        :param idle_timeout_s: longest silence, where shorter than the endpoint's.
        :param conditions: more headers, such as ``Range``.
        """
        return self._http.request(
            "GET",
            self._endpoint.check_data_url(ticket.url),
            headers={**self._headers(ticket), **(conditions or {})},
            target=target,
            idle_timeout_s=idle_timeout_s,
        )

    def _headers(self, ticket: Ticket) -> dict[str, str]:
        # Both are needed on both lines: without the access token Reva v3.12.1 and OpenCloud say 401.
        return {"X-Reva-Transfer": ticket.token, "X-Access-Token": self._credential().token}
