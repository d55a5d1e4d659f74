"""The gRPC side of a cloud: one method per CS3APIs call, and one choke point that all go through.

``Gateway._call`` adds the token and a deadline, translates every failure with the tables of
:mod:`rucio_cs3.cs3.errors`, logs in anew when a token has died, and repeats what may be repeated.
The bytes go through :mod:`rucio_cs3.cs3.data_gateway`.

**Doubt.** OpenCloud says NOT_FOUND to a dead token, too. Where a server does so (at the CERNBox line a forged token
shows it, once in a while), :meth:`Gateway.stat`, and every other method, believes a NOT_FOUND only when a call that
began after it has succeeded with the same token; where there is none it makes one, ``WhoAmI``, shared by all threads
that doubt at that time. Whoever moves something there anyway saves it::

    seen = gateway.glance(reference)        # FileInfo, or an Absence that is not believed yet
    gateway.move(a, b, absent=seen)         # only while the token that was told so is alive
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import errors, resources, retry
from rucio_cs3.cs3.call_errors import of_rpc, of_status, secrets_of
from rucio_cs3.cs3.call_gate import CALLS
from rucio_cs3.cs3.channel import Channel
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.authentication import Authentication
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.login.token_proofs import Refusals, TokenProofs
from rucio_cs3.cs3.login.tokens import Credential, TokenSource
from rucio_cs3.cs3.reference import Reference

_log = logging.getLogger(__name__)

#: Answers that a dead token causes, too, so that the token is checked before they are believed.
#: OpenCloud: Stat says NOT_FOUND to none, garbage and expired, Delete PERMISSION_DENIED, others INTERNAL.
_DOUBTFUL = frozenset({"CODE_NOT_FOUND", "CODE_PERMISSION_DENIED", "CODE_INTERNAL"})

#: Calls that succeed only with a living token at both lines. (OpenCloud's InitiateFileDownload says OK to much.)
_PROVING = frozenset({"Stat", "ListContainer", "InitiateFileUpload", "CreateContainer", "Delete", "Move"})

_RETRY = retry.RetryPolicy()

#: Of what must not be done twice.
_ONCE = retry.RetryPolicy(attempts=1)


@dataclass(frozen=True)
class Absence:
    """The server says that nothing is there; whether to a living token is open (see the module's docstring)."""

    _credential: Credential = field(repr=False)


class Offer(list[resources.Ticket]):
    """The tickets of one Initiate.

    :param created: the server says that the name was free (OpenCloud); False says nothing.
    """

    def __init__(self, tickets: Iterable[resources.Ticket] = (), *, created: bool = False) -> None:
        super().__init__(tickets)
        self.created = created


class Gateway:
    """A connection to one gateway with one identity; safe for many threads.

    :param provider: how to log in.
    """

    def __init__(self, endpoint: Endpoint, provider: CredentialProvider) -> None:
        self._endpoint = endpoint
        self._channel = Channel(endpoint)
        self._authentication = Authentication(
            endpoint, provider, lambda request, who, left_s: self._call_once("Authenticate", request, who, None, left_s)
        )
        self.tokens = TokenSource(self._authentication.log_in)
        self._proofs = TokenProofs(self._is_good)
        self._refusals = Refusals(self._refuses_with_grpc)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def stat(self, reference: Reference) -> resources.FileInfo:
        """Stat; one round trip, two where the answer is NOT_FOUND.

        :raises NotFound: when nothing is there, said to a token known to be good.
        """
        request = provider_api_pb2.StatRequest(ref=resources.to_message(reference))
        response = self._call("Stat", request, str(reference), idempotent=True)
        return resources.file_info(reference, response.info)

    def glance(self, reference: Reference) -> resources.FileInfo | Absence:
        """Stat without asking about the token: what is there, or that the server says "nothing", not believed yet.

        One round trip; two where it is not known yet how the server refuses tokens.
        """
        request = provider_api_pb2.StatRequest(ref=resources.to_message(reference))
        doubts: list[Absence] = []
        try:
            response = self._call("Stat", request, str(reference), idempotent=True, doubts=doubts)
        except errors.NotFound:
            if doubts:
                return doubts[-1]
            raise  # with another code than the doubtful one; there is none today
        return resources.file_info(reference, response.info)

    def list_folder(self, reference: Reference) -> resources.Entries:
        """ListContainer: the entries of a folder, in the server's order; see :func:`~.resources.listed`.

        ListContainerStream is "Unimplemented" in the gateways of both lines, so this is one message.

        :raises Throttled: naming the folder, when it has too many entries for one message.
        """
        request = provider_api_pb2.ListContainerRequest(ref=resources.to_message(reference))
        response = self._call("ListContainer", request, str(reference), idempotent=True)
        return resources.listed(reference, response.infos)

    def create_folder(self, reference: Reference) -> None:
        """CreateContainer; its parent must exist.

        :raises AlreadyExists: when something is there.
        :raises NotFound: without a parent (Reva v3.12.1 local).
        :raises PreconditionFailed: without a parent (OpenCloud).
        """
        request = provider_api_pb2.CreateContainerRequest(ref=resources.to_message(reference))
        self._call("CreateContainer", request, str(reference))

    def delete(self, reference: Reference, *, timeout_s: float | None = None) -> str | None:
        """Delete a file, or a folder with all that is in it, into the recycle bin.

        :param timeout_s: for whom ``timeouts.call_s`` is too long to wait.
        :returns: its key in the recycle bin, where the server says it: OpenCloud says the id of the deleted node, and
            that is its key (code: storageprovider.go and decomposedfs/tree.go of its Reva). Reva v3.12.1 says nothing.
        :raises NotFound: when nothing is there.
        """
        request = provider_api_pb2.DeleteRequest(ref=resources.to_message(reference))
        response = self._call("Delete", request, str(reference), timeout_s=timeout_s)
        return resources.plain_entries(response.opaque).get("opaque_id") or None

    def move(self, source: Reference, destination: Reference, *, absent: Absence | None = None) -> None:
        """Move. Reva v3.12.1 replaces an existing destination, OpenCloud refuses it.

        :param absent: that nothing is at the destination: the move is made with the token that was told so, which
            proves in the same round trip that it was good.
        :raises AlreadyExists: when the destination is there (OpenCloud).
        :raises Unauthenticated: with ``absent``, when that token has died: nothing has moved, and a new look must
            tell what is there.
        """
        request = provider_api_pb2.MoveRequest(
            source=resources.to_message(source), destination=resources.to_message(destination)
        )
        self._call("Move", request, f"{source} to {destination}", only=absent._credential if absent else None)

    def set_metadata(self, reference: Reference, metadata: Mapping[str, str]) -> None:
        """SetArbitraryMetadata: add or replace entries; the others stay. Both lines answer a Stat with all of them.

        :raises NotFound: when nothing is there.
        """
        request = provider_api_pb2.SetArbitraryMetadataRequest(
            ref=resources.to_message(reference),
            arbitrary_metadata=resources_pb2.ArbitraryMetadata(metadata=metadata),
        )
        self._call("SetArbitraryMetadata", request, str(reference))

    def quota(self, reference: Reference) -> resources.Quota:
        """GetQuota of the space or disk that holds a folder."""
        request = gateway_api_pb2.GetQuotaRequest(ref=resources.to_message(reference))
        response = self._call("GetQuota", request, str(reference), idempotent=True)
        return resources.quota(response.total_bytes, response.used_bytes, response.opaque)

    def initiate_upload(
        self, reference: Reference, size: int, *, only_new: bool = False, headers: Mapping[str, str] | None = None
    ) -> Offer:
        """InitiateFileUpload.

        :param size: bytes to come. OpenCloud replaces the target by an empty file at once when this is
            missing or 0, and an empty file needs nothing more there.
        :param only_new: ``if_not_exist``: OpenCloud then refuses an existing target; Reva v3.12.1 ignores it.
        :param headers: more entries for the request's opaque, such as ``Upload-Checksum``.
        :raises PreconditionFailed: without a parent folder (OpenCloud; Reva v3.12.1 fails at the PUT).
        """
        request = provider_api_pb2.InitiateFileUploadRequest(
            ref=resources.to_message(reference),
            opaque=resources.plain_opaque({"Upload-Length": str(size), **(headers or {})}),
        )
        if only_new:
            request.if_not_exist = True
        response = self._call("InitiateFileUpload", request, str(reference))
        return Offer(
            (
                resources.Ticket(protocol=offer.protocol, url=offer.upload_endpoint, token=offer.token)
                for offer in response.protocols
            ),
            created=resources.plain_entries(response.opaque).get("created") == "true",
        )

    def initiate_download(self, reference: Reference) -> list[resources.Ticket]:
        """InitiateFileDownload. OpenCloud says OK for missing files and folders, too: stat first."""
        request = provider_api_pb2.InitiateFileDownloadRequest(ref=resources.to_message(reference))
        response = self._call("InitiateFileDownload", request, str(reference), idempotent=True)
        return [
            resources.Ticket(protocol=offer.protocol, url=offer.download_endpoint, token=offer.token)
            for offer in response.protocols
        ]

    def ask(self, method: str, request: Any, target: str, *, idempotent: bool = False) -> Any:
        """Make a call that has no method here; see :meth:`_call`."""
        return self._call(method, request, target, idempotent=idempotent)

    def _call(
        self,
        method: str,
        request: Any,
        target: str,
        *,
        idempotent: bool = False,
        doubts: list[Absence] | None = None,
        only: Credential | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Make one call with a living token.

        :param idempotent: whether it may be repeated after a failure that leaves its outcome open.
        :param doubts: takes a NOT_FOUND as it is, to be believed later.
        :param only: with this token and no other.
        :param timeout_s: less than ``timeouts.call_s``.
        :raises CS3Error: for every failure, one of the tree.
        """
        timeouts = self._endpoint.timeouts
        call_s = timeouts.call_s if timeout_s is None else min(timeout_s, timeouts.call_s)
        left_s = timeouts.operation_s
        for last in (only is not None, True):
            # The login repeats itself where it may, and within a deadline of its own; within the call's attempts the
            # two would multiply.
            credential = only or self.tokens.get()
            began_at = time.monotonic()

            def attempt(within_s: float, credential: Credential = credential) -> Any:
                return self._call_trusted(method, request, target, credential, min(call_s, within_s), doubts)

            try:
                return retry.call(attempt, _RETRY if idempotent else _ONCE, deadline_s=left_s)
            except errors.Unauthenticated as error:
                self.tokens.invalidate(credential)
                if last:
                    raise self._refused(error) from error
                # The server refused the token before it looked at the request, so repeating it is safe.
                _log.info("%s: the access token is no longer accepted; logging in again", self._endpoint.name)
            left_s = max(left_s - (time.monotonic() - began_at), call_s)
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, error: errors.CS3Error) -> errors.CS3Error:
        """What it is called that a token was refused, and no other helped."""
        return errors.Unauthenticated(
            f"{self._endpoint.name}: gateway {self._endpoint.gateway} does not accept the access token of "
            f"{self._authentication.who}: {error.message}",
            operation=error.operation,
            target=error.target,
            code=error.code,
            trace=error.trace,
        )

    def _call_trusted(
        self,
        method: str,
        request: Any,
        target: str,
        credential: Credential,
        timeout_s: float,
        doubts: list[Absence] | None = None,
    ) -> Any:
        """Make one call; an answer that a dead token causes, too, is believed only to a living one.

        :raises Unauthenticated: when the token is not accepted.
        """
        began_at = time.monotonic()
        try:
            response = self._call_once(method, request, target, credential, timeout_s)
        except errors.CS3Error as error:
            if error.code not in _DOUBTFUL:
                raise
            answered_at = time.monotonic()
            # OpenCloud's own answers are never unmistakable, and what a proxy before it says to a forged signature
            # says nothing of an expired token.
            if self._endpoint.stores_paths and self._refusals.are_unmistakable(credential, timeout_s):
                self._proofs.succeeded(credential, answered_at)
            if doubts is not None and isinstance(error, errors.NotFound):
                doubts.append(Absence(credential))
                raise
            if self._proofs.was_good(credential, answered_at, timeout_s):
                raise
            raise errors.Unauthenticated(
                error.message,
                operation=method,
                target=target,
                code=error.code,
                trace=error.trace,
            ) from error
        if method in _PROVING:
            self._proofs.succeeded(credential, began_at)
        return response

    def _call_once(
        self, method: str, request: Any, target: str, credential: Credential | None, timeout_s: float
    ) -> Any:
        # Call credentials are refused by gRPC on plaintext channels, hence the metadata. Only this
        # header counts at both lines; "authorization" is not looked at.
        metadata = [("x-access-token", credential.token)] if credential else []
        failure: Any = None
        closed = False
        try:
            with CALLS:
                # Here, because a fork may hold us up before.
                stub = self._channel.stub()
                response = getattr(stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as exc:
            failure = exc
        except ValueError:
            # gRPC's word for a channel that has been closed.
            closed = True
        if closed:
            raise errors.Cancelled(
                f"{self._endpoint.name}: the connection to gateway {self._endpoint.gateway} has been closed",
                operation=method,
                target=target,
            )
        if failure is not None:
            # Outside of the block: gRPC's error has the server's words with all that they repeat, and would stay behind
            # ours, also where it is not shown.
            secrets = secrets_of(request, credential)
            raise of_rpc(failure, self._endpoint, method, target, timeout_s, secrets, self._channel.trouble)
        status = response.status
        if status.code == code_pb2.CODE_OK:
            return response
        raise of_status(status, method, target, secrets_of(request, credential))

    def _is_good(self, credential: Credential, timeout_s: float) -> bool:
        """Whether the server still knows the token.

        :raises CS3Error: when the server cannot say; then the first answer is worth nothing either.
        """
        request = gateway_api_pb2.WhoAmIRequest(token=credential.token)
        try:
            self._call_once("WhoAmI", request, "", credential, timeout_s)
        except (errors.Unauthenticated, errors.AccessDenied):
            return False
        except errors.NotFound as error:
            # It is the user, or whoever keeps the users, that is not found, and that says nothing of any file.
            raise errors.Unavailable(
                f"{self._endpoint.name}: gateway {self._endpoint.gateway} cannot say whether it knows the token: "
                f"{error.message}",
                operation="WhoAmI",
                code=error.code,
                trace=error.trace,
            ) from error
        return True

    def _refuses_with_grpc(self, forged: Credential, timeout_s: float) -> bool | None:
        """Whether a token that is not accepted is told so before anything else; None where nobody can say."""
        request = provider_api_pb2.StatRequest(ref=resources.to_message(Reference(self._endpoint.root)))
        try:
            self._call_once("Stat", request, "", forged, timeout_s)
        except (errors.Unauthenticated, errors.AccessDenied) as error:
            # Names of CS3 codes begin with CODE_: such an answer could be one about the file.
            return error.code in ("UNAUTHENTICATED", "PERMISSION_DENIED")
        except errors.CS3Error as error:
            return False if error.code in _DOUBTFUL else None
        return False
