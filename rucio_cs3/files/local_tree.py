"""What is below a local folder: files, folders, and what no cloud has; links are never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import PART_PREFIX, PART_SUFFIX
from rucio_cs3.cs3.local_files import local_error, local_errors

#: What is neither a file nor a folder, as messages call it.
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@dataclass(frozen=True)
class LocalEntry:
    """One entry of a local folder.

    :param status: its own, not that of what a link leads to.
    """

    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def oddity(self) -> str:
        """Why it is not copied; empty for files and folders."""
        if self.is_file and is_part(self.path.name):
            return "an unfinished download"
        return "" if self.is_file or self.is_folder else kind(self.status)


def kind(status: os.stat_result) -> str:
    """What something is, such as ``a symbolic link``."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    if stat.S_ISREG(status.st_mode):
        return "a file"
    return _KINDS.get(stat.S_IFMT(status.st_mode), "neither a file nor a folder")


def is_part(name: str) -> bool:
    """Whether a name is one of those under which unfinished uploads and downloads lie, here and in clouds."""
    return name.startswith(PART_PREFIX) and name.endswith((PART_SUFFIX, ".json"))


def local_entries(folder: Path) -> Iterator[LocalEntry | errors.LocalError]:
    """What is in a local folder, by name; an error for an entry that cannot be looked at, as in a folder that may be
    listed and not entered. Memory is for the names of this one folder.

    :raises LocalError: at once, when it cannot be read.
    """
    with local_errors(folder), os.scandir(folder) as listed:
        names = sorted((entry.name for entry in listed), reverse=True)
    return _looked_at(folder, names)


def _looked_at(folder: Path, names: list[str]) -> Iterator[LocalEntry | errors.LocalError]:
    while names:
        path = folder / names.pop()
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # removed since it was listed
        except OSError as exc:
            yield local_error(exc, path)
        else:
            yield LocalEntry(path, status)


def present(path: Path) -> os.stat_result | None:
    """The status of what stands under a name, itself and not what a link leads to; None where nothing does.

    :raises LocalError: when that cannot be found out, as below a file.
    """
    with local_errors(path):
        try:
            return path.lstat()
        except FileNotFoundError:
            return None
