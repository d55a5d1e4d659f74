"""What an embedded cloud keeps of files that are overwritten, in the manner of each server line. It knows no CS3.

Read next: ``tree.py``, whose uploads put them here; ``gateway.py`` lists them.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class OldVersion:
    """One that was overwritten.

    :param mtime: as the server tells it: milliseconds at Reva ``local``, seconds at OpenCloud.
    """

    key: str
    size: int
    mtime: int
    etag: str


class OldVersions(Protocol):
    """Where a tree leaves what is overwritten."""

    def keep(self, relative: str, node_id: str, target: Path, size: int) -> None:
        """Keep what stands at ``target``, which is about to be replaced, here.

        :param size: as the server says it.
        """

    def of(self, relative: str, node_id: str) -> list[OldVersion]:
        """The versions of one file, in no order."""

    def forget(self, node_id: str) -> None:
        """The file was removed for good."""


class VersionsByPath:
    """Reva v3.12.1 ``local``: they belong to a path, whatever stands there. So those of a file that is moved or deleted
    stay, and what comes to its path later has them. A folder that a file has replaced is one of them.

    :param folder: has a folder for each path with versions, and in it a file for each (``v1795293683727``).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, relative: str, _node_id: str, target: Path, _size: int) -> None:
        place = self._folder / relative
        place.mkdir(parents=True, exist_ok=True)
        # Of two within a millisecond the later replaces the earlier (code).
        target.rename(place / f"v{time.time_ns() // 1_000_000}")

    def of(self, relative: str, _node_id: str) -> list[OldVersion]:
        try:
            found = [*(self._folder / relative).iterdir()]
        except FileNotFoundError:
            return []
        versions = []
        for path in found:
            # Whatever has a number behind its first letter; so all versions of "d/v1" are one version of "d".
            if _NUMBER.fullmatch(path.name[1:]):
                status = path.stat()
                versions.append(
                    OldVersion(
                        key=path.name[1:],
                        size=status.st_size,
                        mtime=int(path.name[1:]) % 2**64,
                        etag=_etag(f"{status.st_ino}:{status.st_mtime_ns}"),
                    )
                )
        return versions

    def forget(self, node_id: str) -> None:
        pass


class VersionsByNode:
    """OpenCloud: they belong to a file, and go with it to other places, into the recycle bin and out of it.

    That overwriting makes one was measured (February 2025, decomposedfs); names and times are (code) of
    opencloud-eu/reva ffb022b, decomposedfs/tree/revisions.go.

    :param folder: has a folder for each file with versions, and in it a file for each, named by its time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Declared ones, which the server believes.
        self._sizes: dict[Path, int] = {}

    def keep(self, _relative: str, node_id: str, target: Path, size: int) -> None:
        at = datetime.fromtimestamp(target.stat().st_mtime, tz=timezone.utc)
        folder = self._folder / node_id
        folder.mkdir(exist_ok=True)
        place = folder / at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if place.exists():
            # The one that has the name gets another.
            older = place.with_name(f"{place.name}.{len([*folder.iterdir()])}")
            place.rename(older)
            self._sizes[older] = self._sizes.pop(place)
        # A second name, so that nobody ever sees nothing at the first.
        os.link(target, place)
        self._sizes[place] = size

    def of(self, _relative: str, node_id: str) -> list[OldVersion]:
        folder = self._folder / node_id
        return [
            OldVersion(
                key=f"{node_id}.REV.{path.name}",
                size=self._sizes[path],
                mtime=int(path.stat().st_mtime),
                etag=_etag(f"{node_id}:{path.stat().st_mtime_ns}"),
            )
            for path in (folder.iterdir() if folder.exists() else ())
        ]

    def forget(self, node_id: str) -> None:
        folder = self._folder / node_id
        for path in [*folder.iterdir()] if folder.exists() else ():
            path.unlink()
            self._sizes.pop(path)


def _etag(text: str) -> str:
    return f'"{hashlib.md5(text.encode()).hexdigest()}"'
