"""Clouds of a test's own for ``rucio-cs3 doctor``, and how long it waits for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3.config import Timeouts
from rucio_cs3.doctor import subjects
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.commands.clouds import CommandPlace, new_place


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., CommandPlace]]:
    """Makes a place in a new embedded cloud with options of its own."""
    opened: list[tuple[EmbeddedCloud, CommandPlace]] = []

    def make(**options: Any) -> CommandPlace:
        cloud = EmbeddedCloud(name="doctor", **options)
        cloud.start()
        directory = tmp_path / f"place-{len(opened)}"
        directory.mkdir()
        place = new_place(cloud.behaviour.value, cloud, len(opened), directory)
        opened.append((cloud, place))
        return place

    yield make
    for cloud, place in opened:
        place.storage.close()
        cloud.stop()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no silent server."""
    long = Timeouts(call_s=20.0, operation_s=40.0, connect_s=20.0, idle_s=20.0, processing_s=20.0)
    monkeypatch.setattr(subjects, "PATIENCE", long)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short, where somebody is silent on purpose."""
    short = Timeouts(call_s=1.0, operation_s=1.0, connect_s=1.0, idle_s=1.0, processing_s=1.0)
    monkeypatch.setattr(subjects, "PATIENCE", short)
    monkeypatch.setattr("rucio_cs3.cli.doctor._SETTLE_S", 1.0)
    monkeypatch.setattr("rucio_cs3.cli.doctor._REMOVAL_S", 2.0)
