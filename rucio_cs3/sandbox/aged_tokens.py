"""Tokens of a cloud as they are after their end: signed anew by its own secret, only ``exp`` is another."""

from __future__ import annotations

import time
from collections.abc import Iterable

import jwt

_ALGORITHM = "HS256"  # of Reva v3.12.1's access and transfer tokens
_AGO_S = 3600


def aged(token: str, secrets: Iterable[str]) -> str:
    """The same token, as if it had ended an hour ago.

    :param secrets: one of them has signed it.
    :raises ValueError: none has.
    """
    for secret in secrets:
        try:
            claims = jwt.decode(
                token,
                secret,
                algorithms=[_ALGORITHM],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            continue
        life_s = max(claims["exp"] - claims.get("iat", claims["exp"]), 0)
        ended = int(time.time()) - _AGO_S
        return jwt.encode({**claims, "iat": ended - life_s, "exp": ended}, secret, algorithm=_ALGORITHM)
    raise ValueError("the token is none of this cloud")
