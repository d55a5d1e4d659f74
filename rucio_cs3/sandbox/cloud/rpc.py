"""Serving the CS3 gateway's gRPC methods: deadlines, tokens and faults around functions that only answer.

Methods are registered from the protobuf descriptor of the service; grpc itself answers UNIMPLEMENTED for every
other one, as for a server that does not know them. Read next: ``gateway_v3.py``, ``gateway_spaces.py``.
"""

from __future__ import annotations

import enum
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from cs3.gateway.v1beta1 import gateway_api_pb2
from cs3.rpc.v1beta1 import code_pb2, status_pb2
from google.protobuf import message_factory

from rucio_cs3.sandbox.cloud.faults import Fault
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tokens import InvalidToken
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from rucio_cs3.sandbox.reva import User

_SERVICE = gateway_api_pb2.DESCRIPTOR.services_by_name["GatewayAPI"]
TOKEN_METADATA = "x-access-token"

# How often a stalled call looks whether its client is still there, in seconds.
_STALL_POLL_S = 0.05


class Login(enum.Enum):
    """What the access token of a call is worth."""

    NONE = "none"
    INVALID = "invalid"
    VALID = "valid"


class Refusal(Exception):
    """The answer is a CS3 status other than OK.

    :param code: name without its prefix, such as ``NOT_FOUND``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that is being answered.

    :param fault: a script that the method itself has to act.
    """

    method: str
    login: Login
    maybe_user: User | None
    context: Any
    fault: Fault | None

    @property
    def user(self) -> User:
        """Who calls; only for methods that have passed ``refuse_login``."""
        if self.maybe_user is None:
            raise Refusal("UNAUTHENTICATED", "user not found in context")
        return self.maybe_user


Method = Callable[[Any, Call], Any]
# Told about calls without a valid token before the method is: raises Refusal, or aborts the call, or returns.
LoginCheck = Callable[[Call], None]
# Whether a token of this scope may make this call: gets scope, name of the method, and request; may raise Refusal.
ScopeCheck = Callable[[Mapping[str, Any], str, Any], bool]


def status(code: str, message: str = "") -> Any:
    return status_pb2.Status(code=code_pb2.Code.Value(f"CODE_{code}"), message=message, trace=str(uuid.uuid4()))


OK = "OK"


def generic_handler(
    state: CloudState, methods: Mapping[str, Method], check_login: LoginCheck, check_scope: ScopeCheck
) -> Any:
    """The gateway service with these methods, for ``grpc.Server.add_generic_rpc_handlers``."""
    handlers = {}
    for name, method in methods.items():
        descriptor = _SERVICE.methods_by_name[name]
        request_class: Any = message_factory.GetMessageClass(descriptor.input_type)
        response_class: Any = message_factory.GetMessageClass(descriptor.output_type)
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            _answering(state, name, method, check_login, check_scope, response_class),
            request_deserializer=request_class.FromString,
            response_serializer=response_class.SerializeToString,
        )
    # Reva v3.12.1 and OpenCloud: gRPC UNKNOWN, though the method is registered.
    handlers["ListContainerStream"] = grpc.unary_stream_rpc_method_handler(
        _unknown_stream, request_deserializer=None, response_serializer=None
    )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)


def _unknown_stream(_request: object, context: Any) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, "error: not supported: Unimplemented")
    raise AssertionError("abort() returned")


def _answering(
    state: CloudState,
    name: str,
    method: Method,
    check_login: LoginCheck,
    check_scope: ScopeCheck,
    response_class: Any,
) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: Any) -> Any:
        fault = state.faults.take(f"gateway.{name}")
        if fault is not None:
            _act_before(state, fault, context)
            if fault.kind == "code":
                state.log(f"gRPC {name} {fault.script}")
                return response_class(status=status(fault.name.removeprefix("CODE_"), "a scripted fault"))
        login, user, scope = _login(state, context)
        try:
            if login is Login.VALID and not check_scope(scope, name, request):
                # Reva v3.12.1 says the same of a token that may not do this and of one that is none.
                login, user = Login.INVALID, None
            call = Call(method=name, login=login, maybe_user=user, context=context, fault=fault)
            if login is not Login.VALID:
                check_login(call)
            response = method(request, call)
        except Refusal as refusal:
            response = response_class(status=status(refusal.code, refusal.message))
        state.log(f"gRPC {name} {code_pb2.Code.Name(response.status.code)}")
        if fault is not None and fault.kind == "lost-answer":
            context.abort(grpc.StatusCode.UNAVAILABLE, "a scripted fault: the answer got lost")
        if fault is not None and fault.kind == "nowhere":
            lead(response, f"{LOOPBACK}:{free_port()}")
        return response

    return answer


def lead(response: Any, address: str) -> None:
    """Make the tickets of an answer name another data gateway.

    :param address: ``host:port``.
    """
    for protocol in getattr(response, "protocols", ()):
        for key in ("upload_endpoint", "download_endpoint"):
            if getattr(protocol, key, ""):
                parts = urllib.parse.urlsplit(getattr(protocol, key))
                setattr(protocol, key, parts._replace(netloc=address).geturl())


def _login(state: CloudState, context: Any) -> tuple[Login, User | None, Mapping[str, Any]]:
    # Reva v3.12.1, OpenCloud: only the metadata `x-access-token` counts, `authorization` does not.
    token = dict(context.invocation_metadata()).get(TOKEN_METADATA, "")
    if not token:
        return Login.NONE, None, {}
    try:
        user, scope = state.users.get(state.mint.username(token)), state.mint.scope(token)
    except InvalidToken:
        return Login.INVALID, None, {}
    return (Login.INVALID, None, {}) if user is None else (Login.VALID, user, scope)


def _act_before(state: CloudState, fault: Fault, context: Any) -> None:
    if fault.kind == "expire-token":
        state.mint.expire_all()
    elif fault.kind == "grpc":
        context.abort(grpc.StatusCode[fault.name], "a scripted fault")
    elif fault.kind == "stall":
        while context.is_active() and not state.stopping.wait(_STALL_POLL_S):
            pass
        context.abort(grpc.StatusCode.CANCELLED, "a scripted fault: nobody waits any more")
