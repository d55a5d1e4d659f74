"""What a call by gRPC that failed becomes: one error of the tree, with the server's words and without our secrets.

The tables are in :mod:`rucio_cs3.cs3.errors`; calls are made by :mod:`rucio_cs3.cs3.gateway`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2

from rucio_cs3.cs3 import errors, redaction
from rucio_cs3.cs3.channel import ANSWER_MAX_BYTES, LISTING_MAX_BYTES, Trouble
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.providers import PUBLIC_LINK
from rucio_cs3.cs3.login.tokens import Credential

#: gRPC's words of who takes how many bytes: "Received message larger than max (19550113 vs. 10240000)".
_LIMIT = re.compile(r"\([0-9]{1,18} vs\.? ([0-9]{1,18})\)")

#: gRPC's words (1.60 to 1.85) for an answer by HTTP/2 that is none of gRPC; it makes a status of its own of the number.
_WEB_SERVER = re.compile(r"Received http2 header with status: [0-9]{3}")


def of_rpc(
    exc: Any,
    endpoint: Endpoint,
    method: str,
    target: str,
    timeout_s: float,
    secrets: Collection[str],
    trouble: Callable[[], Trouble | None],
) -> errors.CS3Error:
    """The error of an RPC that brought no answer. Not to be chained: a gRPC error's text repeats the metadata's names.

    :param timeout_s: that the call had.
    :param secrets: :func:`secrets_of` the request.
    :param trouble: asked where nobody could be reached; says what is wrong with TLS, if that is it.
    """
    status = exc.code().name
    details = redaction.hidden(" ".join((exc.details() or "no details").split()), secrets)
    kind = errors.for_grpc_status(status)
    gateway = f"{endpoint.name}: gateway {endpoint.gateway}"
    if _WEB_SERVER.match(details) and kind is not errors.Unavailable:
        # A web page's server speaks HTTP/2, too, and its 401 or 404 is no word about a login or a file.
        message = (
            f"{gateway} cannot be reached: what answers there is a web server, and no gRPC gateway; check "
            "cs3_gateway, whose port is not that of the web page"
        )
        return errors.Unavailable(message, operation=method, target=target, code=status, retryable=False)
    if kind is errors.Unavailable:
        wrong = trouble()
        if wrong is not None and wrong.lasts:
            message = f"{endpoint.name}: TLS with gateway {endpoint.gateway} failed: {wrong.words}"
            return errors.ConfigurationError(message, operation=method, target=target)
        message = f"{gateway} cannot be reached: {wrong.words if wrong is not None else details}"
    elif kind is errors.DeadlineExceeded:
        message = f"{gateway} did not answer within {timeout_s:.0f} s"
    elif status == "RESOURCE_EXHAUSTED" and "message" in details:
        # grpc's own text for an answer over the limit; a server's throttling says something else.
        listing = method in ("ListContainer", "ListRecycle")
        limit = LISTING_MAX_BYTES if listing else ANSWER_MAX_BYTES
        told = _LIMIT.search(details)
        if told is not None and int(told[1]) < limit:
            # Between Reva's gateway and its storage provider no more than that passes (pool/option.go of v3.12.1: a
            # constant; OpenCloud: OC_GRPC_MAX_RECEIVED_MESSAGE_SIZE).
            message = f"the answer is larger than the {int(told[1]) / 1e6:.1f} MB that the server itself passes on"
        else:
            message = f"the answer is larger than {limit >> 20} MiB"
        message += {"ListContainer": "; use folders with fewer entries", "ListRecycle": "; empty the recycle bin"}.get(
            method, ""
        )
        return errors.Throttled(message, operation=method, target=target, code=status, retryable=False)
    else:
        message = f"{gateway} failed: {details}"
    return kind(message, operation=method, target=target, code=status)


def of_status(status: status_pb2.Status, method: str, target: str, secrets: Collection[str]) -> errors.CS3Error:
    """The error of an answer that is not OK, in the server's words.

    :param secrets: :func:`secrets_of` the request.
    """
    known = code_pb2.Code.DESCRIPTOR.values_by_number.get(status.code)
    name = known.name if known else f"CODE_{status.code}"
    message = (
        redaction.hidden(" ".join(status.message[: redaction.WORDS_MAX_CHARACTERS].split()), secrets)
        or "the server gives no reason"
    )
    trace = redaction.hidden(status.trace, secrets) or None
    return errors.for_cs3_code(name)(message, operation=method, target=target, code=name, trace=trace)


def secrets_of(request: Any, credential: Credential | None) -> Collection[str]:
    """What a request carries that an answer must not repeat in a message."""
    said = [credential.token if credential else ""]
    if isinstance(request, gateway_api_pb2.AuthenticateRequest):
        if request.type == PUBLIC_LINK:
            # The id is what opens it, and the secret says first what kind of proof it is, which is none.
            said += [request.client_id, request.client_secret.partition("|")[2]]
        else:
            said.append(request.client_secret)
    # InvalidateAppPassword: a hash, and nobody's business.
    said.append(getattr(request, "password", ""))
    return {secret for secret in said if secret}
