"""Every example of the documentation that can be run is run, in the order of its page, against real servers.

One playground serves all pages: a real Rucio, two clouds of CERNBox's line (real Reva sites where there is a ``revad``)
and an embedded cloud of spaces. Each page has RSEs, a scope and a folder of its own in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.sandbox.playground import Playground
from tests.docs.examples import PAGES, parse
from tests.docs.runner import Runner
from tests.docs.world import World

pytestmark = pytest.mark.rucio

_RUN = [page for page in map(parse, PAGES) if page.steps]


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with Playground(tmp_path_factory.mktemp("playground")) as site:
        yield site


@pytest.mark.parametrize("path", [page.path for page in _RUN], ids=lambda path: str(path.stem))
def test_examples_of_a_page(path: Path, playground: Playground, tmp_path: Path) -> None:
    page = parse(path)
    world = World(playground, page, tmp_path)
    world.make()
    playground.rucio.set_rse_accounts(world.accounts())
    with contextlib.closing(Runner(world)) as runner:
        for step in page.steps:
            runner.run(step)
