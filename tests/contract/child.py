"""A transfer in a process of its own; its other side is ``one_transfer.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import Reference
from tests.contract.place import Place

#: Of a process that hangs; nothing here takes so long.
_PATIENCE_S = 120.0

_ROOT = Path(__file__).parents[2]


class Child:
    """One upload (or read) by a process of its own.

    :param tell: whether it is to say at each step how far it is.
    """

    def __init__(
        self,
        place: Place,
        reference: Reference,
        local: Path,
        *,
        overwrite: bool = False,
        down: bool = False,
        tell: bool = False,
        **settings: Any,
    ) -> None:
        user = next(iter(place.cloud.users.values()))
        wish = {
            "gateway": place.cloud.gateway,
            "webdav_url": place.cloud.webdav_url,
            "root": place.cloud.root,
            "path": reference.path,
            "local": str(local),
            "username": user.username,
            "password": user.password,
            "overwrite": overwrite,
            "down": down,
            "tell": tell,
            "settings": settings,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.one_transfer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        self._timer = threading.Timer(_PATIENCE_S, self._process.kill)
        self._timer.start()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish).encode())
        self._process.stdin.close()

    def moved(self, count: int) -> None:
        """Wait until so many bytes have moved."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if json.loads(line)["moved"] >= count:
                return
        raise AssertionError(f"it ended before {count} bytes had moved")

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._end()

    def wait(self) -> dict[str, Any]:
        """What it said at last."""
        assert self._process.stdout is not None
        lines = self._process.stdout.read().splitlines()
        self._end()
        assert self._process.returncode == 0
        told: dict[str, Any] = json.loads(lines[-1])
        return told

    def _end(self) -> None:
        self._process.wait()
        self._timer.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
