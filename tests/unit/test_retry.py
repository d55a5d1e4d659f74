"""The one retry layer: what is tried again, how often, and within which time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rucio_cs3.cs3 import errors, retry
from rucio_cs3.cs3.retry import RetryPolicy


class Clock:
    """Time that passes only in pauses and in calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        monkeypatch.setattr("rucio_cs3.cs3.retry.time.monotonic", lambda: self.now)
        monkeypatch.setattr("rucio_cs3.cs3.retry.time.sleep", self.sleep)
        # Full jitter at its upper end.
        monkeypatch.setattr("rucio_cs3.cs3.retry.random.uniform", lambda low, high: high)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def failing(
    times: int, clock: Clock, *, takes_s: float = 0.0, kind: type[errors.CS3Error] = errors.Unavailable
) -> tuple[Callable[[float], str], list[float]]:
    """A function that fails ``times`` times, and the seconds that it was told to have left at each call."""
    left: list[float] = []

    def function(left_s: float) -> str:
        left.append(left_s)
        clock.now += takes_s
        if len(left) <= times:
            raise kind(f"failure {len(left)}")
        return "done"

    return function, left


POLICY = RetryPolicy(attempts=4, base_s=1.0, cap_s=3.0)


def test_success_needs_no_pause(clock: Clock) -> None:
    function, left = failing(0, clock)
    assert retry.call(function, POLICY, deadline_s=10) == "done"
    assert (left, clock.pauses) == ([10], [])


def test_pauses_double_up_to_the_cap(clock: Clock) -> None:
    function, left = failing(3, clock)
    assert retry.call(function, POLICY, deadline_s=100) == "done"
    assert clock.pauses == [1.0, 2.0, 3.0]
    assert left == [100, 99, 97, 94]


def test_attempts_end(clock: Clock) -> None:
    function, left = failing(9, clock)
    with pytest.raises(errors.Unavailable, match="failure 4"):
        retry.call(function, POLICY, deadline_s=100)
    assert len(left) == 4


@pytest.mark.parametrize("kind", [errors.NotFound, errors.AccessDenied, errors.ServerFault, errors.UnknownCode])
def test_what_may_not_be_repeated_is_not(clock: Clock, kind: type[errors.CS3Error]) -> None:
    function, left = failing(1, clock, kind=kind)
    with pytest.raises(kind, match="failure 1"):
        retry.call(function, POLICY, deadline_s=100)
    assert len(left) == 1


def test_the_raiser_decides_whether_it_may(clock: Clock) -> None:
    calls: list[float] = []

    def function(left_s: float) -> None:
        calls.append(left_s)
        raise errors.ServerFault("starting up", retryable=True)

    with pytest.raises(errors.ServerFault):
        retry.call(function, POLICY, deadline_s=100)
    assert len(calls) == 4


def test_no_pause_passes_the_deadline(clock: Clock) -> None:
    function, left = failing(9, clock, takes_s=5.0)
    with pytest.raises(errors.Unavailable, match="failure 2"):
        retry.call(function, POLICY, deadline_s=12)
    assert left == [12, 6]
    assert clock.now <= 112


def test_a_foreign_error_goes_through(clock: Clock) -> None:
    def function(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry.call(function, POLICY, deadline_s=10)
    assert clock.pauses == []


@pytest.mark.parametrize("attempt", [1, 2, 3, 10])
def test_the_jitter_is_full(attempt: int) -> None:
    pauses = [POLICY.pause_s(attempt) for _ in range(200)]
    limit = min(3.0, 2.0 ** (attempt - 1))
    assert min(pauses) >= 0
    assert max(pauses) <= limit
    assert max(pauses) - min(pauses) > limit / 2


def test_what_a_server_asks_for_is_waited_for(clock: Clock) -> None:
    error = errors.Throttled("busy", retry_after_s=2.5)
    assert POLICY.wait_s(1, error) == 2.5  # longer than the pause of 1 s
    assert POLICY.wait_s(3, error) == 3.0  # shorter


def test_a_server_that_asks_for_too_much_is_not_asked_again(clock: Clock) -> None:
    assert POLICY.wait_s(1, errors.Throttled("busy", retry_after_s=POLICY.patience_s)) == POLICY.patience_s
    assert POLICY.wait_s(1, errors.Throttled("busy", retry_after_s=POLICY.patience_s + 1)) is None


def test_the_last_call_is_the_last(clock: Clock) -> None:
    assert POLICY.wait_s(3, errors.Unavailable("gone")) == 3.0
    assert POLICY.wait_s(4, errors.Unavailable("gone")) is None
