"""What the clouds have in them, and what a dump says of it."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.commands.clouds import CommandPlace

TREE = {
    "one": b"1",
    "scope/ab/cd/data-01.root": b"abc" * 1000,
    "scope/ab/cd-more/with space": b"",
    "scope/ab/cd.d/pct%23#?": b"x",
    "été/\U0001f600": b"smile",
    ".hidden/file": b"seen",
}


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()


def paths_on_disk(site: CommandPlace) -> list[str]:
    """As the server's disk has them, in the order of a dump."""
    top = site.disk()
    found = [str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]
    return sorted(found, key=str.encode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
