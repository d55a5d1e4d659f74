"""Clouds for the commands, without a Rucio: ``site`` is a fresh folder in each kind of cloud in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from tests.commands.clouds import CommandPlace, new_place
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import Cloud

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["v3", "spaces", pytest.param("reva", marks=pytest.mark.reva)])
def commands_cloud(request: pytest.FixtureRequest) -> Iterator[tuple[str, Cloud]]:
    """Each kind of cloud in turn; one server for all its tests."""
    kind: str = request.param
    if kind == "reva":
        sites: tuple[RevaSite, RevaSite] = request.getfixturevalue("reva_sites")
        with FaultyReva(sites[0]) as reva:
            yield kind, reva
    else:
        with EmbeddedCloud(name=f"commands-{kind}", behaviour=Behaviour(kind)) as cloud:
            yield kind, cloud


@pytest.fixture(scope="session")
def commands_v3() -> Iterator[EmbeddedCloud]:
    """An embedded cloud for tests to which the kind means nothing."""
    with EmbeddedCloud(name="commands") as cloud:
        yield cloud


@pytest.fixture
def site(commands_cloud: tuple[str, Cloud], tmp_path: Path) -> Iterator[CommandPlace]:
    """A fresh folder in each kind of cloud in turn; at the end every planned fault must have happened."""
    yield from _fresh(*commands_cloud, tmp_path)


@pytest.fixture
def one_site(commands_v3: EmbeddedCloud, tmp_path: Path) -> Iterator[CommandPlace]:
    """A fresh folder in an embedded cloud (v3) only: for what the kind of cloud means nothing to."""
    yield from _fresh("v3", commands_v3, tmp_path)


def _fresh(kind: str, cloud: Cloud, directory: Path) -> Iterator[CommandPlace]:
    place = new_place(kind, cloud, next(_numbers), directory)
    try:
        yield place
        assert cloud.faults.pending() == []
    finally:
        cloud.faults.clear()
        place.storage.close()
