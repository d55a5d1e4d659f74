"""Access tokens of a cloud: what they say of their life, and the source that keeps one fresh.

The providers of :mod:`rucio_cs3.cs3.login.providers` know no channel and transports know no login: :class:`TokenSource`
stands between them.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.confidential import Confidential

_log = logging.getLogger(__name__)

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

#: A renewal that nobody has to wait for and that failed is tried again after so long, in seconds.
_EARLY_AGAIN_S = 10.0

#: For how long a token is kept that may have been issued a while ago and does not say when it ends, in seconds: with
#: none, each request would ask for one, one after another.
UNKNOWN_LIFE_S = 10.0

#: So many tokens that were refused are remembered: as many as die within the time of a transfer.
_REFUSED_KEPT = 8


@dataclass(frozen=True, slots=True)
class Credential(Confidential):
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

    def is_over(self, now: float) -> bool:
        """Whether it has ended, by the clock of this machine."""
        return self.expires_at is not None and now >= self.expires_at


class TokenSource:
    """One living access token for one identity at one endpoint; safe for many threads, and in forked children, which
    begin with the token that their parent had.

    :param authenticate: logs in and returns a new credential; called under a lock, so that many
        threads that find the token old cause one login.
    """

    def __init__(self, authenticate: Callable[[], Credential]) -> None:
        self._authenticate = authenticate
        self._current: Credential | None = None
        self._refused: tuple[Credential, ...] = ()
        self._failures = 0
        self._failure: errors.CS3Error | None = None
        # Until then, by the monotonic clock, a token is not renewed before its end: that has just failed.
        self._early_again_at = 0.0
        self._renew_lock()
        _SOURCES.add(self)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def current(self) -> Credential | None:
        """What there is, be it old; None where there is nothing. Nobody is asked."""
        return self._current

    def get(self, *, min_life_s: float = 0.0) -> Credential:
        """The current credential, renewed when it nears its end. Where that fails for now and it still lives, or while
        another thread is at it, it is the old one.

        :param min_life_s: see :meth:`Credential.needs_renewal`; for it another thread's renewal is waited for.
        """
        current = self._fresh(min_life_s)
        if current is not None:
            return current
        seen, living = self._failures, self._living()
        if not self._lock.acquire(blocking=living is None or min_life_s > 0.0) and living is not None:
            return living
        try:
            current = self._fresh(min_life_s)
            if current is not None:
                return current
            living = self._living()
            if self._failures != seen and self._failure is not None:
                # A login that was under way when we came, or began since, has failed: to try again one after
                # another would let the last of many threads wait for all of them.
                if living is not None:
                    return living
                raise copy.copy(self._failure)
            if living is not None and time.monotonic() < self._early_again_at:
                return living
            return self._renew(living)
        finally:
            self._lock.release()

    def _renew(self, living: Credential | None) -> Credential:
        """Log in, under the lock.

        :param living: what will do where the new one cannot be had, be it by a file that is just being written; that
            somebody is refused, he is to know.
        """
        try:
            renewed = self._authenticate()
        except errors.CS3Error as error:
            self._failures, self._failure = self._failures + 1, error
            if living is None or isinstance(error, errors.Unauthenticated | errors.AccessDenied):
                raise
            self._early_again_at = time.monotonic() + _EARLY_AGAIN_S
            _log.warning("the access token still lives and could not be renewed: %s", error)
            return living
        self._current = renewed
        return renewed

    def _fresh(self, min_life_s: float) -> Credential | None:
        current = self._current
        if current is None or current.needs_renewal(time.time(), min_life_s=min_life_s):
            return None
        return current

    def _living(self) -> Credential | None:
        current = self._current
        return None if current is None or current.is_over(time.time()) else current

    def invalidate(self, used: Credential) -> None:
        """The server has refused ``used``: forget it if it is still the current one; a newer one stays."""
        with self._lock:
            if self._current is used:
                self._current = None
            self._refused = (*self._refused[1 - _REFUSED_KEPT :], used)

    def has_died(self, credential: Credential) -> bool:
        """Whether a token that was had here was refused since, or has ended by its own words."""
        if any(refused is credential for refused in self._refused):
            return True
        return credential.is_over(time.time()) and jwt_expiry(credential.token) is not None


#: All of this process. A thread that held a lock at the moment of a fork does not exist in the child.
_SOURCES: weakref.WeakSet[TokenSource] = weakref.WeakSet()


def _renew_locks() -> None:
    for source in tuple(_SOURCES):
        source._renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


def new_credential(token: str) -> Credential:
    """The credential of a token that was issued just now.

    Its end is by the clock of this machine, where it says how long it lives: to a clock that is ahead of the issuer's
    by more than that, each new token would be over already. Of one that says its end only, and is over already by this
    clock, the end is not known.
    """
    now = time.time()
    expiry, issued = jwt_expiry(token), _claim(token, "iat")
    if expiry is not None and issued is not None and issued < expiry:
        expiry = now + (expiry - issued)
    if expiry is not None and expiry <= now:
        expiry = None
    return Credential(token, expiry, now)


def credential_of_unknown_age(token: str) -> Credential:
    """The credential of a token that may have been issued a while ago, by a clock that is ahead of ours: whichever end
    comes first. One that does not say when it ends is kept for :data:`UNKNOWN_LIFE_S`.
    """
    ends = [end for end in (new_credential(token).expires_at, jwt_expiry(token)) if end is not None]
    return Credential(token, min(ends, default=time.time() + UNKNOWN_LIFE_S))


def jwt_expiry(token: str) -> float | None:
    """The ``exp`` claim of a JWT in seconds since the epoch (RFC 7519, 4.1.4), unverified.

    It only decides when to renew, so anything unreadable is None.
    """
    return _claim(token, "exp")


def jwt_claims(token: str) -> Mapping[str, Any] | None:
    """What a JWT claims (RFC 7519, 3), unverified; None where it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _claim(token: str, name: str) -> float | None:
    value = (jwt_claims(token) or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        moment = float(value)
    except OverflowError:
        return None
    return moment if math.isfinite(moment) else None  # JSON may say 1e999, and Python's reader knows NaN
