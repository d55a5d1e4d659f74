"""Logs in at a gateway: asks the provider how, has the gateway called, and says what a refusal means.

Knows no channel and keeps no token: :mod:`rucio_cs3.cs3.gateway` calls, :mod:`rucio_cs3.cs3.login.tokens` keeps.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from cs3.gateway.v1beta1 import gateway_api_pb2

from rucio_cs3.cs3 import errors, retry
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.providers import PUBLIC_LINK, CredentialProvider, Login
from rucio_cs3.cs3.login.tokens import Credential, jwt_expiry, new_credential

#: For how long a login that was refused is not sent again, in seconds: a daemon that goes on to the next of a thousand
#: files would otherwise try a wrong password a thousand times, and clouds lock accounts out for less.
REFUSED_S = 10.0

#: Longest access token, in characters. Reva v3.12.1's name the user's groups and have some KiB; gRPC's own limit on all
#: metadata of a call is 16 KiB.
TOKEN_MAX_CHARACTERS = 16 * 1024

_RETRY = retry.RetryPolicy()


class LastRefusal:
    """The last login that was refused, for :data:`REFUSED_S`. For one thread at a time."""

    def __init__(self) -> None:
        self._last: tuple[Login | None, float, errors.CS3Error] | None = None

    def note(self, login: Login | None, error: errors.CS3Error) -> None:
        """
        :param login: what was refused; None where whoever gives tokens has refused to give one.
        """
        self._last = login, time.monotonic() + REFUSED_S, error

    def check(self, login: Login | None) -> None:
        """
        :raises CS3Error: as the refusal was, where it was of the same login, a short while ago.
        """
        if self._last is not None:
            refused, until, error = self._last
            if time.monotonic() < until and refused == login:
                raise copy.copy(error)


class Authentication:
    """Logs one identity in at one endpoint. For one thread at a time: :class:`~.tokens.TokenSource` sees to that.

    :param call: makes one call ``Authenticate``; gets the request, who logs in, and a timeout in seconds.
    """

    def __init__(
        self, endpoint: Endpoint, provider: CredentialProvider, call: Callable[[Any, str, float], Any]
    ) -> None:
        self._endpoint = endpoint
        self._provider = provider
        self._call = call
        self._refusal = LastRefusal()
        #: Who has logged in last, as messages call them; free of secrets.
        self.who = "nobody yet"

    def log_in(self) -> Credential:
        """A new token. Takes no longer than ``timeouts.operation_s``, and what the provider takes.

        :raises Unauthenticated: when the server refuses; the message names gateway, user and type.
        :raises CS3Error: otherwise; never NotFound, which callers would take for an answer about their file.
        """
        self._refusal.check(None)
        try:
            login = self._provider.login()
        except errors.Unauthenticated as error:
            self._refusal.note(None, error)
            raise
        except errors.NotFound as error:
            # It is whoever gives tokens that is not found.
            raise errors.Unavailable(
                f"{self._endpoint.name}: no token is to be had: {error.message}",
                operation=error.operation,
                target=error.target,
                code=error.code,
                trace=error.trace,
            ) from error
        if login.type == PUBLIC_LINK and not self._endpoint.stores_paths:
            # Reva v3.12.1 takes their tokens for the shared folder's own path. OpenCloud has them for references of
            # their own only (code), and answers dead tokens with NOT_FOUND, while these cannot be asked about.
            raise errors.ConfigurationError(
                f"{self._endpoint.name}: public links are for clouds whose files have paths (CERNBox, Reva); log in to "
                "this space in another way"
            )
        self._refusal.check(login)
        self.who = login.who
        try:
            token = self._ask(login)
        except errors.Unauthenticated as error:
            self._refusal.note(login, error)
            raise
        return new_credential(token)

    def _ask(self, login: Login) -> str:
        who, timeouts = login.who, self._endpoint.timeouts
        request = gateway_api_pb2.AuthenticateRequest(
            type=login.type, client_id=login.client_id, client_secret=login.client_secret
        )

        def attempt(left_s: float) -> Any:
            try:
                return self._call(request, who, min(timeouts.call_s, left_s))
            except (errors.AccessDenied, errors.NotFound, errors.Unauthenticated, errors.InvalidRequest) as error:
                # A wrong password is PERMISSION_DENIED; an unknown user that, too, or NOT_FOUND (OpenCloud).
                raise errors.Unauthenticated(
                    f"{self._endpoint.name}: gateway {self._endpoint.gateway} refuses to log in {who}; "
                    f"{_ended(login) or 'check user name and secret'}",
                    code=error.code,
                    trace=error.trace,
                ) from error
            except errors.ServerFault as error:
                # Both lines say INTERNAL in the first seconds after their start (and to unknown types).
                error.retryable = True
                if ended := _ended(login):
                    raise errors.Unauthenticated(
                        f"{self._endpoint.name}: gateway {self._endpoint.gateway} fails to log in {who}; {ended}",
                        code=error.code,
                        trace=error.trace,
                    ) from error
                raise

        response = retry.call(attempt, _RETRY, deadline_s=timeouts.operation_s)
        if not response.token:
            raise errors.ProtocolViolation(f"{self._endpoint.name}: login of {who} gave no token")
        if len(response.token) > TOKEN_MAX_CHARACTERS or not all("!" <= one <= "~" for one in response.token):
            raise errors.ProtocolViolation(f"{self._endpoint.name}: login of {who} gave what no header can carry")
        return str(response.token)


def _ended(login: Login) -> str | None:
    """What is to be done about a bearer token that has ended, by its own word and the clock of this machine."""
    ends_at = jwt_expiry(login.client_secret) if login.type == "bearer" else None
    if ends_at is None or ends_at > time.time():
        return None
    at = datetime.fromtimestamp(max(ends_at, 0.0), timezone.utc)
    return f"it ended at {at:%Y-%m-%d %H:%M:%S} UTC, so get a new one"
