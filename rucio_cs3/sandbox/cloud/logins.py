"""The ways to log in at an embedded cloud, and the app passwords that its users make for their robots.

What each wrong login is answered was seen at Reva v3.12.1 (one process, all managers) and OpenCloud, as the comments
say. Read next: ``gateway.py``, which asks it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cs3.auth.applications.v1beta1 import applications_api_pb2, resources_pb2

from rucio_cs3.sandbox.cloud.public_links import PublicLinks
from rucio_cs3.sandbox.cloud.rpc import OK, Call, Method, Refusal, status
from rucio_cs3.sandbox.cloud.state import CloudState
from rucio_cs3.sandbox.cloud.tokens import USER_SCOPE, InvalidToken
from rucio_cs3.sandbox.reva import User


@dataclass(frozen=True, kw_only=True)
class _AppPassword:
    owner: str
    message: Any

    def lives(self) -> bool:
        ends_at = self.message.expiration.seconds
        return not ends_at or time.time() <= ends_at


class Logins:
    """Who may log in how; thread-safe.

    :param refuse_password: the answer to a wrong user name or password, which the two lines give differently.
    """

    def __init__(self, state: CloudState, refuse_password: Callable[[str], Refusal]) -> None:
        self._state = state
        self._refuse_password = refuse_password
        self._lock = threading.Lock()
        # By the hash, which is what listing shows and invalidating wants.
        self._app_passwords: dict[str, _AppPassword] = {}
        self._links = PublicLinks(state)

    def methods(self) -> dict[str, Method]:
        return {
            "GenerateAppPassword": self.generate,
            "ListAppPasswords": self.list,
            "InvalidateAppPassword": self.invalidate,
            **(self._links.methods() if self._state.v3 else {}),
        }

    def user(self, kind: str, client_id: str, secret: str) -> tuple[User, Mapping[str, Any]]:
        """Who logs in, and the scope of the token that he gets.

        :raises Refusal: nobody does.
        """
        ways: Mapping[str, Callable[[str, str], tuple[User, Mapping[str, Any]]]] = {
            "basic": self._basic,
            "appauth": self._app,
            "machine": self._machine,
        }
        if self._state.mint.accepts_bearer:
            ways = {**ways, "bearer": self._bearer}
        if self._state.v3:
            ways = {**ways, "publicshares": self._links.opened}
        else:
            # OpenCloud has it, Reva v3 does not.
            ways = {**ways, "serviceaccounts": self._service_account}
        if kind not in ways:
            # Reva v3.12.1, OpenCloud: an unknown type, and the empty one.
            raise Refusal("INTERNAL", "error getting auth provider client")
        return ways[kind](client_id, secret)

    def generate(self, request: Any, call: Call) -> Any:
        clear = secrets.token_urlsafe(12)
        message = resources_pb2.AppPassword(
            password=_hash(clear),
            token_scope=request.token_scope,
            label=request.label,
            expiration=request.expiration if request.HasField("expiration") else None,
        )
        message.ctime.seconds = message.utime.seconds = int(time.time())
        with self._lock:
            self._app_passwords[message.password] = _AppPassword(owner=call.user.username, message=message)
        shown = resources_pb2.AppPassword()
        shown.CopyFrom(message)
        shown.password = clear
        return applications_api_pb2.GenerateAppPasswordResponse(status=status(OK), app_password=shown)

    def list(self, _request: Any, call: Call) -> Any:
        with self._lock:
            own = [one.message for one in self._app_passwords.values() if one.owner == call.user.username]
        return applications_api_pb2.ListAppPasswordsResponse(status=status(OK), app_passwords=own)

    def invalidate(self, request: Any, call: Call) -> Any:
        with self._lock:
            found = self._app_passwords.get(request.password)
            if found is None or found.owner != call.user.username:
                # Reva v3.12.1, OpenCloud: also to the password itself in place of its hash.
                raise Refusal("INTERNAL", "error invalidating app password")
            del self._app_passwords[request.password]
        return applications_api_pb2.InvalidateAppPasswordResponse(status=status(OK))

    def _basic(self, username: str, password: str) -> tuple[User, Mapping[str, Any]]:
        user = self._state.password_matches(username, password)
        if user is None:
            raise self._refuse_password(username)
        return user, USER_SCOPE

    def _bearer(self, _: str, token: str) -> tuple[User, Mapping[str, Any]]:
        try:
            user = self._state.users.get(self._state.mint.bearer_username(token))
        except InvalidToken:
            user = None
        if user is None:
            # Reva v3.12.1: garbage, expired, and somebody unknown.
            raise Refusal("UNAUTHENTICATED", "error authenticating user")
        return user, USER_SCOPE

    def _app(self, username: str, password: str) -> tuple[User, Mapping[str, Any]]:
        user = self._named(username)
        with self._lock:
            found = self._app_passwords.get(_hash(password))
        if found is None or found.owner != username or not found.lives():
            # Reva v3.12.1: a wrong one, an expired one, and one that was invalidated.
            raise Refusal("UNAUTHENTICATED", "error authenticating user")
        # Reva v3.12.1, OpenCloud: without a scope the login succeeds, and the token can do nothing.
        return user, USER_SCOPE if "user" in found.message.token_scope else {}

    def _machine(self, who: str, key: str) -> tuple[User, Mapping[str, Any]]:
        if key != self._state.machine_key:
            # Reva v3.12.1.
            raise Refusal("PERMISSION_DENIED", "wrong password")
        # Reva v3.12.1, OpenCloud: a bare name, or one of these claims before it.
        claim, _, value = who.rpartition(":")
        if claim in ("", "username"):
            return self._named(value), USER_SCOPE
        fields = {"mail": lambda user: self._state.user_claim(user)["mail"], "userid": self._state.id_of}
        found = [user for user in self._state.users.values() if claim in fields and fields[claim](user) == value]
        if not found or (self._state.v3 and claim == "userid"):
            # Reva v3.12.1 with JSON users knows nobody by "userid".
            raise _nobody(who)
        return found[0], USER_SCOPE

    def _service_account(self, account: str, secret: str) -> tuple[User, Mapping[str, Any]]:
        if self._state.service_accounts.get(account) != secret:
            raise Refusal("PERMISSION_DENIED", "wrong password")
        # OpenCloud's service user has no space of its own; here it is the first user, so that there is one.
        return next(iter(self._state.users.values())), USER_SCOPE

    def _named(self, username: str) -> User:
        user = self._state.users.get(username)
        if user is None:
            raise _nobody(username)
        return user


def _nobody(who: str) -> Refusal:
    # Reva v3.12.1 (machine, appauth), OpenCloud.
    return Refusal("NOT_FOUND", f"unknown client id: error: not found: user not found username {who}")


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
