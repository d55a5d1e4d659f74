"""Uploads that can be gone on with: those by TUS, and what is kept of them for another process.

Joins the dialogue with the server (:mod:`rucio_cs3.cs3.uploads.tus_uploads`) and the state files
(:mod:`rucio_cs3.cs3.uploads.upload_state`) with the rest of an upload (:mod:`rucio_cs3.cs3.uploads.uploads`), which
says where the file lands, proves it, and undoes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from rucio_cs3.cs3.checksums import agree
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Ticket, pick_ticket
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.cs3.uploads.tus_uploads import Errand, TUSUploads
from rucio_cs3.cs3.uploads.upload_state import Claim, LocalSource, Unfinished, UploadStates


@dataclass
class Resumption:
    """What an attempt has to do with others of the same file.

    :param claim: the right to the state file, where one is kept.
    :param unfinished: what another process has left, and this attempt goes on with.
    :param by_tus: the bytes go by TUS.
    :param mended: they were put together from several requests, one of which broke.
    """

    claim: Claim = field(default_factory=Claim)
    unfinished: Unfinished | None = None
    by_tus: bool = False
    mended: bool = False


class ResumableUploads:
    """Sends files to one endpoint by TUS, and goes on with what other processes have left; safe for many threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        http: HTTPClient,
        gateway: Gateway,
        namespace: Namespace,
        provider: CredentialProvider,
    ) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self._namespace = namespace
        self._tus = TUSUploads(endpoint, http, gateway.tokens)
        self._states = UploadStates(endpoint, provider)

    def claim(
        self, body: UploadBody, source: LocalSource | None, target: Reference, *, overwrite: bool
    ) -> AbstractContextManager[Claim]:
        """The state of this upload; see :meth:`UploadStates.claim`."""
        return self._states.claim(source if self._tus.wanted(len(body)) else None, target, overwrite=overwrite)

    def wants(self, body: UploadBody, *, again: bool) -> bool:
        """Whether a file is to go by TUS where that is offered.

        :param again: its bytes can be read again at no cost.
        """
        if self._endpoint.upload_landing == "direct" and not (again or body.expected):
            # The server must be told the checksum beforehand: answers to a PATCH name no etag, so that a file that
            # turns out to be wrong could not be told from somebody else's, and would stay.
            return False
        return self._tus.wanted(len(body))

    def offered(self, tickets: Collection[Ticket], body: UploadBody) -> bool:
        """Whether one of the tickets is for TUS."""
        return self._tus.worth(tickets, len(body))

    @property
    def insists(self) -> bool:
        """Whether nothing else will do where TUS is offered."""
        return self._endpoint.upload_protocol == "tus"

    def send(
        self,
        tickets: Collection[Ticket],
        body: UploadBody,
        landing: Reference,
        headers: Mapping[str, str],
        resumption: Resumption,
        *,
        only_new: bool,
        idle_timeout_s: float | None,
    ) -> None:
        """Send all bytes, through broken connections and lost uploads. On failure the state file stays where somebody
        else can go on, and goes where nobody can.

        :param headers: those of the tickets, should new ones be needed.
        :raises AlreadyExists: when the name was taken before a lost upload was begun again.
        :raises CS3Error: the error of the last attempt.
        """
        claim = resumption.claim

        def initiate() -> Ticket:
            # Without its folder an upload is lost when all of it is there (Reva v3.12.1 local), again and again.
            self._namespace.make_directories(landing.parent)
            again = self._gateway.initiate_upload(landing, len(body), only_new=only_new, headers=headers)
            return pick_ticket(again, ("tus",), landing)

        errand = Errand(
            body=body,
            ticket=pick_ticket(tickets, ("tus",), landing),
            target=str(landing),
            initiate=initiate,
            arrived=lambda: self._is_whole(body, landing),
            keep=lambda ticket: claim.keep(Unfinished(landing=landing.name, ticket=ticket)),
            begun_elsewhere=resumption.unfinished is not None,
            idle_timeout_s=idle_timeout_s,
        )
        resumption.by_tus = True
        try:
            resumption.mended = self._tus.send(errand)
        except BaseException:
            if not errand.resumable:
                claim.forget()
            raise

    def _is_whole(self, body: UploadBody, landing: Reference) -> bool:
        """Whether all of ``body`` stands there, when the upload is not there any more to tell."""
        info = self._namespace.present(landing)
        if info is None or info.is_directory or info.size != len(body):
            return False
        body.resume_at(len(body))
        if self._endpoint.upload_landing == "temporary":
            return True  # a name that nobody else has; the content is proven afterwards
        return agree(body.digests.hexdigests(), info.checksums)
