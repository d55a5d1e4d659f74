"""One PostgreSQL server for the tests here; each Rucio has a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rucio_cs3.sandbox.postgres import PostgresSite


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresSite]:
    """A server that nobody stops; tests that do start one of their own."""
    with PostgresSite() as site:
        yield site
