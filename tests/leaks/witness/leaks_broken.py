"""A protocol that fails where nobody has foreseen it, for Rucio to make a traceback of."""

from __future__ import annotations

from typing import Any

from rucio_cs3.protocol import Default


class Broken(Default):
    """Fails to look at files with "broken" in their names, and to delete any."""

    def stat(self, path: str) -> dict[str, Any]:
        found = super().stat(path)
        if "broken-file" in path:
            self._fail()
        return found

    def delete(self, path: str) -> None:
        self.storage.stat(self.reference(path))
        self._fail()

    def _fail(self) -> None:
        raise RuntimeError(f"nobody has foreseen this: {vars(self)!r} {vars(self.storage)!r}")
