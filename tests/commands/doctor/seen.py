"""Asking ``rucio-cs3 doctor`` in the tests here: what it saw, and what it left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rucio_cs3.doctor.scratch import PREFIX
from tests.commands.clouds import CommandPlace
from tests.commands.running import Done

FOREVER = 1000


class Seen:
    """What ``--json`` said."""

    def __init__(self, done: Done) -> None:
        self.code = done.code
        assert "eyJ" not in done.out, "a token"
        self.document: dict[str, Any] = json.loads(done.out)
        assert self.document["exit_code"] == done.code
        self._rows = {row["name"]: row for row in self.document["checks"]}
        for row in self._rows.values():
            assert row["advice"] or row["status"] not in ("weak", "broken"), row

    def __getitem__(self, name: str) -> Any:
        return self._rows[name]

    def having(self, *statuses: str) -> set[str]:
        return {name for name, row in self._rows.items() if row["status"] in statuses}


def doctor(place: CommandPlace, *arguments: object, name: str = "TEST", **settings: str) -> Seen:
    done = place.run("doctor", name, "--json", *arguments, **settings)
    assert done.err == ""
    return Seen(done)


def leftovers(place: CommandPlace) -> list[str]:
    """What of an examination is on the server's disk, the recycle bin included."""
    return [str(path) for path in place.cloud.data_directory.parent.rglob(f"*{PREFIX}*")]


def unfinished(place: CommandPlace) -> set[Path]:
    """Uploads that an embedded cloud waits for."""
    folder = getattr(place.cloud, "uploads_directory", None)
    return set(folder.iterdir()) if folder else set()
