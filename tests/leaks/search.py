"""Looks for secrets in everything that was written, and says where one is without saying it again."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.leaks.known import Known

#: Tokens that nobody has told us of: the two first parts of a JWT, and how a macaroon begins in base64.
_ANY_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}|MDA[0-9A-Za-z_-]{3}xvY2F0aW9u")


@dataclass(frozen=True)
class Place:
    """Something that was written.

    :param name: what findings call it.
    """

    name: str
    content: bytes


def search(known: Known, places: Iterable[Place]) -> list[str]:
    """Where a secret is, as sentences that do not hold it."""
    forms = known.forms()
    found = []
    for place in places:
        found += [f"{place.name}: {name}" for form, name in forms.items() if form in place.content]
        if _ANY_TOKEN.search(place.content):
            found.append(f"{place.name}: a token")
    return sorted(set(found))


def files_below(folder: Path, *, without: Collection[Path] = ()) -> Iterator[Place]:
    """All files, but for these and those below them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(one) for one in without):
            yield Place(str(path), path.read_bytes())


def dump(database: Path) -> Place:
    """A SQLite database as statements: a long text is in several pieces in the file itself."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return Place(f"dump of {database}", "\n".join(connection.iterdump()).encode())
