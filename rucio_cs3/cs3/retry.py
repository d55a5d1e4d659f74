"""The one retry layer: try again what may be tried again, within one overall deadline.

Neither gRPC nor HTTP retries by itself here, so that waiting times do not multiply. (The one exception costs no
time: a look on a kept connection that the server has just closed, :mod:`rucio_cs3.cs3.http.connections`.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rucio_cs3.cs3 import errors

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Full jitter (a random pause between nothing and a doubling limit).

    :param attempts: calls in all, at least 1.
    :param base_s: limit of the first pause, in seconds.
    :param cap_s: limit that the doubling stops at, in seconds.
    :param patience_s: longest time that a server may ask for (``Retry-After``), in seconds; one that asks for more
        gets no further call.
    """

    attempts: int = 4
    base_s: float = 0.2
    cap_s: float = 5.0
    patience_s: float = 10.0

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after the failed call number ``attempt`` (1, 2, …)."""
        # Jitter spreads clients apart; it protects nothing, so the plain generator is right.
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))  # noqa: S311

    def wait_s(self, attempt: int, error: errors.CS3Error) -> float | None:
        """Seconds to wait after call number ``attempt`` failed with a retryable error; None ends it."""
        asked = error.retry_after_s or 0.0
        if attempt >= self.attempts or asked > self.patience_s:
            return None
        return max(self.pause_s(attempt), asked)


def call(function: Callable[[float], T], policy: RetryPolicy, *, deadline_s: float) -> T:
    """Call until it works, fails for good, or time is up.

    :param function: gets the seconds left until the deadline, to bound its own timeout with; it must
        be safe to repeat.
    :param deadline_s: seconds for everything together.
    :raises CS3Error: the last error, when it is not retryable, attempts are used up, or the next
        pause would pass the deadline.
    """
    end = time.monotonic() + deadline_s
    attempt = 1
    while True:
        try:
            return function(max(end - time.monotonic(), 0.001))
        except errors.CS3Error as error:
            pause = policy.wait_s(attempt, error) if error.retryable else None
            if pause is None or time.monotonic() + pause >= end:
                raise
        time.sleep(pause)
        attempt += 1
