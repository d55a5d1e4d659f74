"""The gate that gRPC calls pass: a fork waits for those under way, and new ones wait for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from rucio_cs3.cs3 import call_gate
from rucio_cs3.cs3.call_gate import CallGate

#: Longest wait for what must happen.
SOON_S = 20.0


def test_a_fork_waits_for_the_calls_under_way_and_new_ones_for_the_fork() -> None:
    gate = CallGate()
    order: list[str] = []
    within, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with gate:
            within.set()
            assert go_on.wait(SOON_S)
            order.append("first call")

    def fork() -> None:
        gate._close()
        order.append("fork")
        second.start()
        # A call that does not wait would have come by now.
        second.join(0.1)
        order.append("forked")
        gate._open()

    def call() -> None:
        with gate:
            order.append("second call")
            done.set()

    second = threading.Thread(target=call)
    caller, forker = threading.Thread(target=first), threading.Thread(target=fork)
    caller.start()
    assert within.wait(SOON_S)
    forker.start()
    forker.join(0.1)
    assert order == []
    go_on.set()
    assert done.wait(SOON_S)
    for thread in (caller, forker, second):
        thread.join(SOON_S)
    assert order == ["first call", "fork", "forked", "second call"]


def test_a_call_that_hangs_holds_no_fork_up_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(call_gate, "QUIET_WITHIN_S", 0.05)
    gate = CallGate()
    with caplog.at_level(logging.WARNING, "rucio_cs3"), gate:
        gate._close()
        gate._open()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    # And the gate is open.
    with gate:
        pass


def passes(gate: CallGate) -> bool:
    """Whether calls of this thread and of another one get through."""
    done = threading.Event()

    def call() -> None:
        with gate:
            done.set()

    threading.Thread(target=call, daemon=True).start()
    if not done.wait(SOON_S):
        return False
    with gate:
        return True


class _Interrupted(Exception):
    """What a signal handler raises; Python drops it within the hooks of a fork."""


def interrupted(gate: CallGate, hook: Callable[[], None]) -> None:
    """Run a hook of a fork that a signal interrupts while it waits for the gate's lock."""

    def handle(*_: object) -> None:
        raise _Interrupted

    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with gate._changed:
            held.set()
            while not over.wait(0.02):
                os.kill(os.getpid(), signal.SIGUSR1)

    def caught() -> None:
        signal.signal(signal.SIGUSR1, handle)
        hook()

    holder = threading.Thread(target=hold)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        holder.start()
        assert held.wait(SOON_S)
        with pytest.raises(_Interrupted):
            caught()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        over.set()
        holder.join(SOON_S)
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_before_the_gate_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_gate, "SHUT_MAX_S", 1e6)
    gate = CallGate()
    interrupted(gate, gate._close)
    gate._open()
    assert passes(gate)
    # The next fork shuts it again.
    gate._close()
    assert gate._forks
    gate._open()
    assert passes(gate)


def test_a_signal_before_the_gate_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_gate, "SHUT_MAX_S", 0.3)
    gate = CallGate()
    gate._close()
    interrupted(gate, gate._open)
    assert passes(gate)


def test_the_thread_that_forked_opens_the_gate_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_gate, "SHUT_MAX_S", 1e6)
    gate = CallGate()
    through = threading.Event()

    def fork_and_call() -> None:
        gate._close()
        with gate:
            through.set()

    threading.Thread(target=fork_and_call, daemon=True).start()
    assert through.wait(SOON_S)
    assert passes(gate)


def test_a_call_that_fails_has_ended() -> None:
    gate = CallGate()
    with pytest.raises(ValueError, match="failed"), gate:
        raise ValueError("failed")
    gate._close()
    assert not gate._calls
    gate._open()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads, which is the point
def test_the_gate_is_open_in_a_child_whatever_happened_in_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_gate, "QUIET_WITHIN_S", 0.05)
    gate = CallGate()
    with gate:
        child = os.fork()
        if not child:
            # Nothing of pytest may run here. The alarm ends a child that hangs.
            import signal

            signal.alarm(20)
            with gate:
                os._exit(0 if len(gate._calls) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    with gate:
        pass
