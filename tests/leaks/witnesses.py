"""What the processes of a story did, as ``witness/sitecustomize.py`` noted it in them, and as ``/proc`` shows them to
every user of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.leaks.search import Place

_FOLDER = Path(__file__).parent / "witness"

#: Between two looks for new processes, and between two looks at all of them, in seconds.
_LOOK_S = 0.05
_AGAIN_S = 1.0


class Witnesses:
    """A context manager; processes that are started within it are watched.

    :param folder: is made; notes and copies of deleted files go there.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "deleted").mkdir(parents=True, mode=0o700)
        (folder / "notes").touch(mode=0o600)
        # Commands of a sandbox get this process's environment without Rucio's variables.
        patch.setenv("LEAKS_WITNESS", str(folder))
        patch.setenv("PYTHONPATH", str(_FOLDER), prepend=os.pathsep)
        self._titles: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Witnesses:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def notes(self, kind: str) -> list[list[str]]:
        """``is`` and ``runs``: command lines; ``writes``: a path; ``deletes``: path, mode, and where its copy is."""
        lines = (json.loads(line) for line in (self.folder / "notes").read_text("utf-8").splitlines())
        return [what for one, _, *what in lines if one == kind]

    def written(self) -> set[Path]:
        """All files that were opened for writing, whether they are still there or not."""
        return {Path(path) for (path,) in self.notes("writes")}

    def places(self) -> Iterator[Place]:
        for kind in ("is", "runs"):
            for line in self.notes(kind):
                yield Place(f"command line of {Path(line[0]).name} ({kind})", "\0".join(line).encode())
        for title in self._titles:
            yield Place("a line of /proc", title)
        for path, _, copy in self.notes("deletes"):
            yield Place(f"{path}, which was deleted", Path(copy).read_bytes())

    def _run(self) -> None:
        known: set[str] = set()
        again_at = 0.0
        while not self._over.wait(_LOOK_S):
            processes = {path.name for path in Path("/proc").glob("[0-9]*")}
            if time.monotonic() >= again_at:
                # A process may change its title, and its program.
                known, again_at = set(), time.monotonic() + _AGAIN_S
            for process in processes - known:
                for name in ("cmdline", "comm"):
                    with contextlib.suppress(OSError):  # it has ended
                        self._titles.add(Path("/proc", process, name).read_bytes())
            known = processes
