"""Access and transfer tokens of an embedded cloud: JWTs that expire, as real ones do.

Read next: ``rpc.py`` and ``http_server.py``, which check them.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

import jwt

_ALGORITHM = "HS256"
_AUDIENCE = "reva"


class InvalidToken(Exception):
    """The token is garbage, expired, or was issued by somebody else."""


class TokenMint:
    """Issues and verifies the tokens of one cloud; thread-safe.

    :param access_lifetime_s: validity of an access token in seconds; may be a fraction, and negative for tokens
        that are expired from the beginning.
    :param transfer_lifetime_s: the same for transfer tokens.
    :param bearer_secret: HS256 secret of the identity provider whose tokens ``Authenticate(bearer)`` takes.
    """

    def __init__(
        self, *, issuer: str, access_lifetime_s: float, transfer_lifetime_s: float, bearer_secret: str | None
    ) -> None:
        self._issuer = issuer
        self._access_lifetime_s = access_lifetime_s
        self._transfer_lifetime_s = transfer_lifetime_s
        self._bearer_secret = bearer_secret
        self._access_secret = secrets.token_hex(32)
        self._transfer_secret = secrets.token_hex(32)
        self._lock = threading.Lock()
        # Tokens carry the generation they were issued in; expiring all of them is one step to the next one.
        self._generation = 0

    def issue_access(self, user: Mapping[str, Any], *, useful: bool = True) -> str:
        """Access token for ``user``, the ``user`` claim of a Reva token (with ``username`` and ``id``).

        :param useful: whether it has a scope in which it may do anything.
        """
        # Reva v3.12.1: claims iss, aud, exp, iat, user and scope, about 580 characters in all.
        claims = {"iss": self._issuer, "user": dict(user), "scope": {"user": {"role": 1}} if useful else {}}
        return self._issue(claims, self._access_secret, self._access_lifetime_s)

    def username(self, token: str) -> str:
        """The user of an access token.

        :raises InvalidToken: it is not one of ours, or expired.
        """
        claims = self._verify(token, self._access_secret)
        if not claims["scope"]:
            raise InvalidToken("the token has no scope")
        return str(claims["user"]["username"])

    def issue_transfer(self, target: str) -> str:
        """Transfer token for the internal ``target``."""
        return self._issue({"target": target}, self._transfer_secret, self._transfer_lifetime_s)

    def target(self, token: str) -> str:
        """The target of a transfer token.

        :raises InvalidToken: it is not one of ours, or expired.
        """
        return str(self._verify(token, self._transfer_secret)["target"])

    def expire_all(self) -> None:
        """Make every token that was issued until now an expired one."""
        with self._lock:
            self._generation += 1

    @property
    def accepts_bearer(self) -> bool:
        return self._bearer_secret is not None

    def bearer_username(self, token: str) -> str:
        """The user whom an identity provider's token names, ``preferred_username`` before ``sub``.

        :raises InvalidToken: wrong signature, expired, or no name in it.
        """
        if self._bearer_secret is None:
            raise InvalidToken("this cloud takes no bearer logins")
        try:
            claims = jwt.decode(token, self._bearer_secret, algorithms=[_ALGORITHM], options={"verify_aud": False})
        except jwt.InvalidTokenError as error:
            raise InvalidToken(str(error)) from error
        name = claims.get("preferred_username") or claims.get("sub")
        if not isinstance(name, str):
            raise InvalidToken("the token names nobody")
        return name

    def _issue(self, claims: Mapping[str, Any], secret: str, lifetime_s: float) -> str:
        now = time.time()
        with self._lock:
            generation = self._generation
        # Reva rounds to whole seconds; a fraction would make short lifetimes in tests longer than they say.
        times = {"aud": [_AUDIENCE], "iat": int(now), "exp": int(now + lifetime_s), "gen": generation}
        # jti: two tokens that were issued in the same second differ, so that a client can be seen to refresh.
        return jwt.encode({**claims, **times, "jti": secrets.token_hex(8)}, secret, algorithm=_ALGORITHM)

    def _verify(self, token: str, secret: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(token, secret, algorithms=[_ALGORITHM], audience=_AUDIENCE)
        except jwt.InvalidTokenError as error:
            raise InvalidToken(str(error)) from error
        with self._lock:
            if claims.get("gen") != self._generation:
                raise InvalidToken("the token has expired")
        return claims
