"""The gRPC side of a cloud: one method per CS3APIs call, and one choke point that all go through.

``Gateway._call`` adds the token and a deadline, translates every failure with the tables of
:mod:`rucio_cs3.cs3.errors`, logs in anew when a token has died, and repeats what may be repeated.
The bytes go through :mod:`rucio_cs3.cs3.data_gateway`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2

from rucio_cs3.cs3 import errors, resources, retry
from rucio_cs3.cs3.auth import Credential, CredentialProvider, TokenSource, jwt_expiry
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.reference import Reference

_log = logging.getLogger(__name__)

#: One answer may be this large. gRPC's own limit of 4 MiB cuts a folder of some 6,000 entries
#: (reva#1825: 10 MB is about 15,000); this one lets 250,000 pass and still bounds memory.
_MAX_MESSAGE_BYTES = 160 * 1024 * 1024

#: Answers that a dead token causes, too, so that the token is checked before they are believed.
#: OpenCloud: Stat says NOT_FOUND to none, garbage and expired, Delete PERMISSION_DENIED, others INTERNAL.
_DOUBTFUL = frozenset({"CODE_NOT_FOUND", "CODE_PERMISSION_DENIED", "CODE_INTERNAL"})

_RETRY = retry.RetryPolicy()


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

    def delete(self, reference: Reference) -> None:
        """Delete a file, or a folder with all that is in it, into the recycle bin.

        :raises NotFound: when nothing is there.
        """
        request = provider_api_pb2.DeleteRequest(ref=resources.to_message(reference))
        self._call("Delete", request, str(reference))

    def move(self, source: Reference, destination: Reference) -> None:
        """Move. Reva v3.12.1 replaces an existing destination, OpenCloud refuses it.

        :raises AlreadyExists: when the destination is there (OpenCloud).
        """
        request = provider_api_pb2.MoveRequest(
            source=resources.to_message(source), destination=resources.to_message(destination)
        )
        self._call("Move", request, f"{source} to {destination}")

    def quota(self, reference: Reference) -> resources.Quota:
        """GetQuota of the space or disk that holds a folder."""
        request = gateway_api_pb2.GetQuotaRequest(ref=resources.to_message(reference))
        response = self._call("GetQuota", request, str(reference), idempotent=True)
        return resources.quota(response.total_bytes, response.used_bytes, response.opaque)

    def initiate_upload(
        self, reference: Reference, size: int, *, only_new: bool = False, headers: Mapping[str, str] | None = None
    ) -> list[resources.Ticket]:
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
        return [
            resources.Ticket(protocol=offer.protocol, url=offer.upload_endpoint, token=offer.token)
            for offer in response.protocols
        ]

    def initiate_download(self, reference: Reference) -> list[resources.Ticket]:
        """InitiateFileDownload. OpenCloud says OK for missing files and folders, too: stat first."""
        request = provider_api_pb2.InitiateFileDownloadRequest(ref=resources.to_message(reference))
        response = self._call("InitiateFileDownload", request, str(reference), idempotent=True)
        return [
            resources.Ticket(protocol=offer.protocol, url=offer.download_endpoint, token=offer.token)
            for offer in response.protocols
        ]

    def _call(self, method: str, request: Any, target: str, *, idempotent: bool = False) -> Any:
        """Make one call with a living token.

        :param idempotent: whether it may be repeated after a failure that leaves its outcome open.
        :raises CS3Error: for every failure, one of the tree.
        """
        timeouts = self._endpoint.timeouts

        def attempt(left_s: float) -> Any:
            first = self.tokens.get()
            try:
                return self._call_trusted(method, request, target, first, min(timeouts.call_s, left_s))
            except errors.Unauthenticated:
                # The server refused the token before it looked at the request, so repeating it is safe.
                _log.info("%s: the access token is no longer accepted; logging in again", self._endpoint.name)
                self.tokens.invalidate(first)
            second = self.tokens.get()
            try:
                return self._call_trusted(method, request, target, second, min(timeouts.call_s, left_s))
            except errors.Unauthenticated:
                self.tokens.invalidate(second)
                raise

        # The login repeats itself where it may; within the call's own attempts the two would multiply.
        self.tokens.get()
        if not idempotent:
            return attempt(timeouts.operation_s)
        return retry.call(attempt, _RETRY, deadline_s=timeouts.operation_s)

    def _call_trusted(self, method: str, request: Any, target: str, credential: Credential, timeout_s: float) -> Any:
        """Make one call; an answer that a dead token causes, too, is believed only to a living one.

        :raises Unauthenticated: when the token is not accepted.
        """
        try:
            return self._call_once(method, request, target, credential, timeout_s)
        except errors.CS3Error as error:
            if error.code not in _DOUBTFUL or self._is_good(credential, timeout_s):
                raise
            raise errors.Unauthenticated(
                f"gateway {self._endpoint.gateway} does not accept the access token",
                operation=method,
                target=target,
                code=error.code,
                trace=error.trace,
            ) from error

    def _call_once(
        self, method: str, request: Any, target: str, credential: Credential | None, timeout_s: float
    ) -> Any:
        # Call credentials are refused by gRPC on plaintext channels, hence the metadata. Only this
        # header counts at both lines; "authorization" is not looked at.
        metadata = [("x-access-token", credential.token)] if credential else []
        try:
            response = getattr(self._stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as exc:
            raise self._grpc_error(exc, method, target, timeout_s) from None
        status = response.status
        if status.code == code_pb2.CODE_OK:
            return response
        raise _status_error(status, method, target)

    def _grpc_error(self, exc: Any, method: str, target: str, timeout_s: float) -> errors.CS3Error:
        """The error of a failed RPC; not chained, because a gRPC error's text repeats the metadata's names."""
        status = exc.code().name
        details = " ".join((exc.details() or "no details").split())
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
        """Whether the server still knows the token. A token that is good after a call was good during it.

        :raises CS3Error: when the server cannot say; then the first answer is worth nothing either.
        """
        request = gateway_api_pb2.WhoAmIRequest(token=credential.token)
        try:
            self._call_once("WhoAmI", request, "", credential, timeout_s)
        except (errors.Unauthenticated, errors.AccessDenied):
            return False
        return True

    def _authenticate(self) -> Credential:
        """Log in.

        :raises Unauthenticated: when the server refuses; the message names user and type.
        """
        login = self._provider.login()
        who = f"{login.client_id or 'the token'} ({login.type})"
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
        return Credential(response.token, jwt_expiry(response.token))


def _status_error(status: status_pb2.Status, method: str, target: str) -> errors.CS3Error:
    known = code_pb2.Code.DESCRIPTOR.values_by_number.get(status.code)
    name = known.name if known else f"CODE_{status.code}"
    message = " ".join(status.message.split()) or "the server gives no reason"
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
