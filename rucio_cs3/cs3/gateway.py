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
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import errors, redaction, resources, retry
from rucio_cs3.cs3.call_gate import CALLS
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.login.token_proofs import Refusals, TokenProofs
from rucio_cs3.cs3.login.tokens import Credential, TokenSource, new_credential
from rucio_cs3.cs3.reference import Reference

_log = logging.getLogger(__name__)

#: One answer may be this large. gRPC's own limit of 4 MiB cuts a folder of some 6,000 entries
#: (reva#1825: 10 MB is about 15,000); this one lets 250,000 pass and still bounds memory.
_MAX_MESSAGE_BYTES = 160 * 1024 * 1024

#: Answers that a dead token causes, too, so that the token is checked before they are believed.
#: OpenCloud: Stat says NOT_FOUND to none, garbage and expired, Delete PERMISSION_DENIED, others INTERNAL.
_DOUBTFUL = frozenset({"CODE_NOT_FOUND", "CODE_PERMISSION_DENIED", "CODE_INTERNAL"})

#: Calls that succeed only with a living token at both lines. (OpenCloud's InitiateFileDownload says OK to much.)
_PROVING = frozenset({"Stat", "ListContainer", "InitiateFileUpload", "CreateContainer", "Delete", "Move"})

_RETRY = retry.RetryPolicy()


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
        self._provider = provider
        self._channel = _open_channel(endpoint)
        self._stub = gateway_api_pb2_grpc.GatewayAPIStub(self._channel)
        self.tokens = TokenSource(self._authenticate)
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

    def list_folder(self, reference: Reference) -> list[resources.FileInfo]:
        """ListContainer: the entries of a folder, in the server's order.

        ListContainerStream is "Unimplemented" in the gateways of both lines, so this is one message.

        :raises Throttled: naming the folder, when it has too many entries for one message.
        """
        request = provider_api_pb2.ListContainerRequest(ref=resources.to_message(reference))
        response = self._call("ListContainer", request, str(reference), idempotent=True)
        return [resources.file_info(reference.child(resources.listed_name(info)), info) for info in response.infos]

    def create_folder(self, reference: Reference) -> None:
        """CreateContainer; its parent must exist.

        :raises AlreadyExists: when something is there.
        :raises NotFound: without a parent (Reva v3.12.1 local).
        :raises PreconditionFailed: without a parent (OpenCloud).
        """
        request = provider_api_pb2.CreateContainerRequest(ref=resources.to_message(reference))
        self._call("CreateContainer", request, str(reference))

    def delete(self, reference: Reference, *, timeout_s: float | None = None) -> None:
        """Delete a file, or a folder with all that is in it, into the recycle bin.

        :param timeout_s: for whom ``timeouts.call_s`` is too long to wait.
        :raises NotFound: when nothing is there.
        """
        request = provider_api_pb2.DeleteRequest(ref=resources.to_message(reference))
        self._call("Delete", request, str(reference), timeout_s=timeout_s)

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

        def attempt(left_s: float) -> Any:
            first = only or self.tokens.get()
            try:
                return self._call_trusted(method, request, target, first, min(call_s, left_s), doubts)
            except errors.Unauthenticated:
                # The server refused the token before it looked at the request, so repeating it is safe.
                _log.info("%s: the access token is no longer accepted; logging in again", self._endpoint.name)
                self.tokens.invalidate(first)
                if only is not None:
                    raise
            second = self.tokens.get()
            try:
                return self._call_trusted(method, request, target, second, min(call_s, left_s), doubts)
            except errors.Unauthenticated:
                self.tokens.invalidate(second)
                raise

        # The login repeats itself where it may; within the call's own attempts the two would multiply.
        self.tokens.get()
        if not idempotent:
            return attempt(timeouts.operation_s)
        return retry.call(attempt, _RETRY, deadline_s=timeouts.operation_s)

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
                f"gateway {self._endpoint.gateway} does not accept the access token",
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
        try:
            with CALLS:
                response = getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as exc:
            raise self._grpc_error(exc, method, target, timeout_s, _secrets(request, credential)) from None
        status = response.status
        if status.code == code_pb2.CODE_OK:
            return response
        raise _status_error(status, method, target, _secrets(request, credential))

    def _grpc_error(
        self, exc: Any, method: str, target: str, timeout_s: float, secrets: Collection[str]
    ) -> errors.CS3Error:
        """The error of a failed RPC; not chained, because a gRPC error's text repeats the metadata's names."""
        status = exc.code().name
        details = redaction.hidden(" ".join((exc.details() or "no details").split()), secrets)
        kind = errors.for_grpc_status(status)
        gateway = f"{self._endpoint.name}: gateway {self._endpoint.gateway}"
        if kind is errors.Unavailable:
            message = f"{gateway} cannot be reached: {details}"
        elif kind is errors.DeadlineExceeded:
            message = f"{gateway} did not answer within {timeout_s:.0f} s"
        elif status == "RESOURCE_EXHAUSTED" and "message" in details:
            # grpc's own text for an answer over the limit; a server's throttling says something else.
            message = f"the answer is larger than {_MAX_MESSAGE_BYTES >> 20} MiB; use folders with fewer entries"
            return errors.Throttled(message, operation=method, target=target, code=status, retryable=False)
        else:
            message = f"{gateway} failed: {details}"
        return kind(message, operation=method, target=target, code=status)

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

    def _authenticate(self) -> Credential:
        """Log in.

        :raises Unauthenticated: when the server refuses; the message names user and type.
        """
        login = self._provider.login()
        who = login.who
        request = gateway_api_pb2.AuthenticateRequest(
            type=login.type, client_id=login.client_id, client_secret=login.client_secret
        )

        def attempt(left_s: float) -> Any:
            try:
                return self._call_once("Authenticate", request, who, None, min(self._endpoint.timeouts.call_s, left_s))
            except (errors.AccessDenied, errors.NotFound, errors.Unauthenticated, errors.InvalidRequest) as error:
                # A wrong password is PERMISSION_DENIED; an unknown user that, too, or NOT_FOUND (OpenCloud).
                raise errors.Unauthenticated(
                    f"{self._endpoint.name}: gateway {self._endpoint.gateway} refuses to log in {who}; "
                    "check user name and secret",
                    code=error.code,
                    trace=error.trace,
                ) from error
            except errors.ServerFault as error:
                # Both lines say INTERNAL in the first seconds after their start (and to unknown types).
                error.retryable = True
                raise

        response = retry.call(attempt, _RETRY, deadline_s=self._endpoint.timeouts.operation_s)
        if not response.token:
            raise errors.ProtocolViolation(f"{self._endpoint.name}: login of {who} gave no token")
        return new_credential(response.token)


def _secrets(request: Any, credential: Credential | None) -> Collection[str]:
    """What a request carries that an answer must not repeat in a message."""
    of_login = getattr(request, "client_secret", "")  # AuthenticateRequest
    return {secret for secret in (credential.token if credential else "", of_login) if secret}


def _status_error(status: status_pb2.Status, method: str, target: str, secrets: Collection[str]) -> errors.CS3Error:
    known = code_pb2.Code.DESCRIPTOR.values_by_number.get(status.code)
    name = known.name if known else f"CODE_{status.code}"
    message = redaction.hidden(" ".join(status.message.split()), secrets) or "the server gives no reason"
    return errors.for_cs3_code(name)(message, operation=method, target=target, code=name, trace=status.trace or None)


def _open_channel(endpoint: Endpoint) -> Any:
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.enable_retries", 0),  # the one retry layer is ours
        ("grpc.enable_http_proxy", 0),  # like trust_env=False on the HTTP side
        # gRPC's own limit is 120 s between two attempts to connect, all subchannels of the process alike: a
        # gateway that is back would stay "unavailable", which costs the RSE strikes at the reaper.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if not endpoint.gateway_tls:
        return grpc.insecure_channel(endpoint.gateway, options=options)
    roots = None
    if endpoint.ca_bundle is not None:
        roots = endpoint.ca_bundle.read_bytes()
    return grpc.secure_channel(endpoint.gateway, grpc.ssl_channel_credentials(root_certificates=roots), options=options)
