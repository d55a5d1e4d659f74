"""Access tokens of a cloud: what they say of their life, and the source that keeps one fresh.

The providers of :mod:`rucio_cs3.cs3.login.providers` know no channel and transports know no login: :class:`TokenSource`
stands between them.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rucio_cs3.cs3 import errors

#: Renew a token when less than this share of its life is left, so that a call that starts now still
#: has a living token when it arrives.
_EARLY_SHARE = 0.1
#: ... and no earlier than this many seconds before its end, so that day-long tokens are not wasted.
_EARLY_MAX_S = 300.0

#: What a token that is lent to another site has to live, in seconds: copies wait in that site's queue, and it is
#: looked at only when they begin.
LENT_LIFE_S = 1800.0
#: ... and where tokens do not live so long, this share of their life: otherwise each copy would log in anew.
_LENT_SHARE = 0.5


@dataclass(frozen=True)
class Credential:
    """An access token and the moment it ends, in seconds since the epoch; None where it does not say."""

    token: str = field(repr=False)
    expires_at: float | None = None
    issued_at: float = field(default_factory=time.time)

    def needs_renewal(self, now: float, *, min_life_s: float = 0.0) -> bool:
        """Whether a new one should be had before the next call.

        :param min_life_s: what it has to live from ``now``, but no more than half of its whole life.
        """
        if self.expires_at is None:
            return False
        life = max(self.expires_at - self.issued_at, 0.0)
        early = max(min(life * _EARLY_SHARE, _EARLY_MAX_S), min(life * _LENT_SHARE, min_life_s))
        return now >= self.expires_at - early


class TokenSource:
    """One living access token for one identity at one endpoint; safe for many threads.

    :param authenticate: logs in and returns a new credential; called under a lock, so that many
        threads that find the token old cause one login.
    """

    def __init__(self, authenticate: Callable[[], Credential]) -> None:
        self._authenticate = authenticate
        self._lock = threading.Lock()
        self._current: Credential | None = None
        self._failures = 0
        self._failure: errors.CS3Error | None = None

    def get(self, *, min_life_s: float = 0.0) -> Credential:
        """The current credential, renewed when it nears its end.

        :param min_life_s: see :meth:`Credential.needs_renewal`.
        """
        current = self._current
        if current is not None and not current.needs_renewal(time.time(), min_life_s=min_life_s):
            return current
        seen = self._failures
        with self._lock:
            current = self._current
            if current is not None and not current.needs_renewal(time.time(), min_life_s=min_life_s):
                return current
            if self._failures != seen and self._failure is not None:
                # A login that began no earlier than our call has just failed: to try again one after another
                # would let the last of many threads wait for all of them.
                raise copy.copy(self._failure)
            try:
                current = self._current = self._authenticate()
            except errors.CS3Error as error:
                self._failures, self._failure = self._failures + 1, error
                raise
            return current

    def invalidate(self, used: Credential) -> None:
        """Forget ``used`` if it is still the current one; a newer one stays."""
        with self._lock:
            if self._current is used:
                self._current = None


def new_credential(token: str) -> Credential:
    """The credential of a token that was issued just now.

    Its end is by the clock of this machine, where it says how long it lives: to a clock that is ahead of the issuer's
    by more than that, each new token would be over already.
    """
    now = time.time()
    expiry, issued = jwt_expiry(token), _claim(token, "iat")
    if expiry is not None and issued is not None and issued < expiry:
        expiry = now + (expiry - issued)
    return Credential(token, expiry, now)


def jwt_expiry(token: str) -> float | None:
    """The ``exp`` claim of a JWT in seconds since the epoch (RFC 7519, 4.1.4), unverified.

    It only decides when to renew, so anything unreadable is None.
    """
    return _claim(token, "exp")


def _claim(token: str, name: str) -> float | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        value = payload[name]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
