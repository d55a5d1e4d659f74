"""Clouds with some files in them."""

from __future__ import annotations

import pytest

from tests.commands.clouds import CommandPlace
from tests.commands.dump.contents import TREE


@pytest.fixture
def filled(site: CommandPlace) -> CommandPlace:
    """The tree, on the server's disk."""
    for path, content in TREE.items():
        on_disk = site.disk(path)
        on_disk.parent.mkdir(parents=True, exist_ok=True)
        on_disk.write_bytes(content)
    site.disk("empty").mkdir()
    return site


@pytest.fixture
def small(one_site: CommandPlace) -> CommandPlace:
    for number in range(4):
        folder = one_site.disk(f"d{number}")
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    one_site.add_entry("WRONG", password="mistyped")
    return one_site
