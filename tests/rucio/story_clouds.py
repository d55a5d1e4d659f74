"""The clouds of the stories: of the kinds that each story names, or all of the one kind that ``--clouds`` asks for."""

from __future__ import annotations

import contextlib

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.story import Cloud


class StoryClouds:
    """Starts clouds, which live as long as ``stack``."""

    def __init__(self, request: pytest.FixtureRequest, stack: contextlib.ExitStack) -> None:
        self._request = request
        self._stack = stack
        self._all: str | None = request.config.getoption("--clouds")

    def reva(self, name: str, *, tls: bool = False) -> Cloud:
        """A real Reva, unless all clouds are to be something else."""
        return self._start(self._all or "process", name, tls)

    def embedded(self, name: str) -> Cloud:
        """An embedded cloud, unless all clouds are to be something else."""
        return self._start(self._all or "embedded", name, tls=False)

    def _start(self, kind: str, name: str, tls: bool) -> Cloud:
        if kind == "embedded":
            return self._stack.enter_context(EmbeddedCloud(name=name, tls=tls))
        if kind == "process":
            return self._stack.enter_context(RevaSite(name, tls=tls))
        from tests.containers.places import ContainerPlace

        place = self._request.getfixturevalue("container_place")
        assert isinstance(place, ContainerPlace)
        return self._stack.enter_context(place.site(name, tls=tls))
