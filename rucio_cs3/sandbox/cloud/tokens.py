"""Access and transfer tokens of an embedded cloud: JWTs that expire, as real ones do.

Read next: ``rpc.py`` and ``http_server.py``, which check them.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import jwt

from rucio_cs3.sandbox.aged_tokens import aged

_ALGORITHM = "HS256"
_AUDIENCE = "reva"

#: How long an identity provider may take to show its keys, in seconds.
_KEYS_S = 20

#: Of a token that may do all that its user may.
USER_SCOPE: Mapping[str, Any] = {"user": {"role": 1}}


class InvalidToken(Exception):
    """The token is garbage, expired, or was issued by somebody else."""


class TokenMint:
    """Issues and verifies the tokens of one cloud; thread-safe.

    :param access_lifetime_s: validity of an access token in seconds; may be a fraction, and negative for tokens
        that are expired from the beginning.
    :param transfer_lifetime_s: the same for transfer tokens.
    :param bearer_secret: HS256 secret of the identity provider whose tokens ``Authenticate(bearer)`` takes.
    :param bearer_issuer: URL of one whose keys are asked for; at most one of both.
    """

    def __init__(
        self,
        *,
        issuer: str,
        access_lifetime_s: float,
        transfer_lifetime_s: float,
        bearer_secret: str | None,
        bearer_issuer: str = "",
    ) -> None:
        self._issuer = issuer
        self._bearer_issuer = bearer_issuer
        self._bearer_keys: jwt.PyJWKSet | None = None
        self._access_lifetime_s = access_lifetime_s
        self._transfer_lifetime_s = transfer_lifetime_s
        self._bearer_secret = bearer_secret
        self._access_secret = secrets.token_hex(32)
        self._transfer_secret = secrets.token_hex(32)
        self._lock = threading.Lock()
        # Tokens carry the generation they were issued in; expiring all of them is one step to the next one.
        self._generation = 0

    def issue_access(self, user: Mapping[str, Any], *, scope: Mapping[str, Any] = USER_SCOPE) -> str:
        """Access token for ``user``, the ``user`` claim of a Reva token (with ``username`` and ``id``).

        :param scope: what it may do; empty is nothing.
        """
        # Reva v3.12.1: claims iss, aud, exp, iat, user and scope, about 580 characters in all.
        claims = {"iss": self._issuer, "user": dict(user), "scope": dict(scope)}
        return self._issue(claims, self._access_secret, self._access_lifetime_s)

    def username(self, token: str) -> str:
        """The user of an access token.

        :raises InvalidToken: it is not one of ours, or expired.
        """
        claims = self._verify(token, self._access_secret)
        if not claims["scope"]:
            raise InvalidToken("the token has no scope")
        return str(claims["user"]["username"])

    def scope(self, token: str) -> Mapping[str, Any]:
        """What an access token may do, as it was issued.

        :raises InvalidToken: it is not one of ours, or expired.
        """
        return dict(self._verify(token, self._access_secret)["scope"])

    def issue_transfer(self, target: str) -> str:
        """Transfer token for the internal ``target``."""
        return self._issue({"target": target}, self._transfer_secret, self._transfer_lifetime_s)

    def target(self, token: str) -> str:
        """The target of a transfer token.

        :raises InvalidToken: it is not one of ours, or expired.
        """
        return str(self._verify(token, self._transfer_secret)["target"])

    def aged(self, token: str) -> str:
        """An access or transfer token as it is after its end.

        :raises ValueError: it is none of ours.
        """
        return aged(token, (self._access_secret, self._transfer_secret))

    def expire_all(self) -> None:
        """Make every token that was issued until now an expired one."""
        with self._lock:
            self._generation += 1

    @property
    def accepts_bearer(self) -> bool:
        return self._bearer_secret is not None or bool(self._bearer_issuer)

    def bearer_username(self, token: str) -> str:
        """The user whom an identity provider's token names, ``preferred_username`` before ``sub``.

        :raises InvalidToken: wrong signature, expired, or no name in it.
        """
        try:
            claims = self._bearer_claims(token)
        except (jwt.PyJWTError, KeyError) as error:
            raise InvalidToken(str(error)) from error
        name = claims.get("preferred_username") or claims.get("sub")
        if not isinstance(name, str):
            raise InvalidToken("the token names nobody")
        return name

    def _bearer_claims(self, token: str) -> dict[str, Any]:
        # Reva v3.12.1 (oidc manager): the audience is not looked at.
        options: Any = {"verify_aud": False}
        if self._bearer_secret is not None:
            return dict(jwt.decode(token, self._bearer_secret, algorithms=[_ALGORITHM], options=options))
        if not self._bearer_issuer:
            raise InvalidToken("this cloud takes no bearer logins")
        with self._lock:
            if self._bearer_keys is None:
                metadata = _json(f"{self._bearer_issuer.rstrip('/')}/.well-known/openid-configuration")
                self._bearer_keys = jwt.PyJWKSet.from_dict(_json(metadata["jwks_uri"]))
            keys = self._bearer_keys
        key = keys[jwt.get_unverified_header(token)["kid"]].key
        return dict(jwt.decode(token, key, algorithms=["RS256"], issuer=self._bearer_issuer, options=options))

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


def _json(url: str) -> Any:
    # No proxy stands before the issuers of a sandbox.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_KEYS_S) as answer:
        return json.load(answer)
