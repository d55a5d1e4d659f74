"""What the agent counts, in the registry that Rucio serves to Prometheus, and on the wire to statsd."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.transfers.ladder import Outcome, State
from rucio_cs3.transfers.modes import Mode


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if find_spec("rucio") is None or find_spec("rucio.core") is None:
        pytest.skip("the Rucio server is not installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from rucio_cs3.agent import metrics

    return metrics


def value(name: str, **labels: str) -> float:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(f"rucio_cs3_{name}", labels) or 0.0


@pytest.mark.parametrize(
    ("outcome", "mode", "moved", "error"),
    [
        (Outcome(state=State.DONE, copied=True, mode=Mode.PULL), "pull", 700, None),
        (Outcome(state=State.DONE, copied=True, mode=Mode.RELAY), "relay", 700, None),
        # The file was there already.
        (Outcome(state=State.DONE), "none", 0, None),
        (Outcome(state=State.FAILED, mode=Mode.PUSH, error=errors.NoSpaceLeft("full")), "push", 0, "NoSpaceLeft"),
        (Outcome(state=State.FAILED, reason="unexpected"), "none", 0, "unexpected"),
        (Outcome(state=State.POSTPONED, error=errors.Throttled("later")), "none", 0, None),
        (Outcome(state=State.ABANDONED), "none", 0, None),
    ],
)
def test_a_transfer_is_counted_once(metrics: Any, outcome: Outcome, mode: str, moved: float, error: str | None) -> None:
    def all_failures() -> float:
        from prometheus_client import REGISTRY

        (family,) = [family for family in REGISTRY.collect() if family.name == "rucio_cs3_transfer_failures"]
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))

    labels = {"outcome": outcome.state.value, "mode": mode}

    def seen() -> list[float]:
        return [
            value("transfers_total", **labels),
            value("transfer_seconds_count", **labels),
            value("transfer_seconds_sum", **labels),
            value("transfer_seconds_bucket", le="5.0", **labels),
            value("transfer_seconds_bucket", le="2.5", **labels),
            value("transferred_bytes_total", mode=mode),
            value("transfer_failures_total", error=error or ""),
            all_failures(),
        ]

    before = seen()
    metrics.finished(outcome, 700, 3.5)
    failed = 1 if error else 0
    assert [after - was for was, after in zip(before, seen(), strict=True)] == [
        *(1, 1, 3.5, 1, 0),
        *(moved, failed, failed),
    ]


def test_what_never_happened_is_zero(tmp_path: Path) -> None:
    if find_spec("rucio") is None or find_spec("rucio.core") is None:
        pytest.skip("the Rucio server is not installed")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "rucio.cfg").write_text("[database]\ndefault = sqlite://\n")
    # A process of its own, in which nothing has been counted.
    done = subprocess.run(
        [sys.executable, "-c", _SHOW],
        env={"RUCIO_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'rucio_cs3_transfers_total{mode="pull",outcome="done"} 0.0' in done.stdout.splitlines()


_SHOW = "import rucio_cs3.agent.metrics, prometheus_client as p; print(p.generate_latest().decode())"


def test_the_queue(metrics: Any) -> None:
    for waiting, oldest_age_s, running in ((12, 34.5, 3), (0, 0.0, 0)):
        metrics.queue(waiting, oldest_age_s, running)
        assert value("requests_waiting") == waiting
        assert value("oldest_request_age_seconds") == oldest_age_s
        assert value("transfers_running") == running


def test_statsd_hears_the_same(metrics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rucio.core import monitor

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        client = monitor.StatsClient(host="127.0.0.1", port=listener.getsockname()[1], prefix="rucio")
        monkeypatch.setattr(monitor, "STATSD_CLIENT", client)
        metrics.finished(Outcome(state=State.DONE, copied=True, mode=Mode.PULL), 700, 3.5)
        metrics.queue(12, 34.5, 3)
        heard = {listener.recv(1000).decode() for _ in range(6)}
        client.close()
    assert heard == {
        "rucio.rucio_cs3.transfers.done.pull:1|c",
        "rucio.rucio_cs3.transfer_seconds.done.pull:3500.000000|ms",
        "rucio.rucio_cs3.transferred_bytes.pull:700|c",
        "rucio.rucio_cs3.requests_waiting:12|g",
        "rucio.rucio_cs3.oldest_request_age_seconds:34.5|g",
        "rucio.rucio_cs3.transfers_running:3|g",
    }
