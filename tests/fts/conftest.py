"""Real Reva sites as RSEs, once without and once with TLS, and the programs of gfal2 and davix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rucio_cs3.sandbox.reva import RevaSite

if TYPE_CHECKING:
    from tests.fts.gfal import Grid

# What needs Rucio is imported late, so that its absence is a skip of the tests and no error here.


@pytest.fixture(scope="session", params=["davs", "dav"])
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """The sites over TLS, and without it."""
    from tests.fts.gfal import Gfal, GfalRse, Grid, certificate_folder
    from tests.unit.rucio_client import configure

    tls = request.param == "davs"
    home = tmp_path_factory.mktemp("gfal")
    with contextlib.ExitStack() as stack:
        sites = [
            stack.enter_context(RevaSite(name, tls=tls, http_tpc=http_tpc))
            for name, http_tpc in (("from", True), ("to", True), ("mute", False), ("dumb", False))
        ]
        authorities = [site.ca_bundle for site in sites[:1] if site.ca_bundle is not None]
        certificates = certificate_folder(home / "certificates", *authorities) if authorities else None
        with pytest.MonkeyPatch.context() as monkeypatch:
            configure(home, monkeypatch)
            rses = [GfalRse(site, request.param) for site in sites]
        yield Grid(rses[0], rses[1], rses[2], rses[3], Gfal(home, certificates))


@pytest.fixture(autouse=True)
def _rucio_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PFNs are made by Rucio's code, which wants a configuration."""
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
