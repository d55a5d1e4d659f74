"""Text files that appear under their names only when they are whole."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from rucio_cs3.cs3.local_files import local_errors, sync_folder


def open_part(part: Path, *, mode: int = 0o666, empty: bool = True) -> int:
    """A descriptor of a hidden file that grows. A link that somebody has put there is refused: its target is not ours.

    :param empty: what stands in it goes; otherwise it stays.
    :raises OSError: also where it is a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if empty else 0)
    return os.open(part, flags, mode)


def replace_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Replace a small file at one stroke. After a crash it may be the one before, unless the folder is synced.

    :param mode: before the umask.
    :raises OSError: what stood there stands there still.
    """
    part = path.with_name(f".{path.name.removeprefix('.')}.new")
    try:
        with os.fdopen(open_part(part, mode=mode), "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_gz(path: Path, texts: Iterable[str]) -> None:
    """Write a compressed file; whatever stands under its name is replaced at the end.

    :raises LocalNoSpaceLeft: when the disk is full; nothing is left then.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with local_errors(path):
            with os.fdopen(open_part(part), "wb") as packed:
                with gzip.open(packed, "wt", compresslevel=6, encoding="utf-8", newline="\n") as file:
                    file.writelines(texts)
                packed.flush()
                os.fsync(packed.fileno())
            part.replace(path)
            sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class Lists:
    """Files of a folder that appear together, when all of them are written."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = [*names]
        self._files: dict[str, IO[str]] = {}

    def __enter__(self) -> Lists:
        with local_errors(self._folder):
            for name in self._names:
                self._open(name)
        return self

    def add(self, name: str, text: str) -> None:
        """
        :raises LocalNoSpaceLeft: when the disk is full.
        """
        with local_errors(self._folder / name):
            if name not in self._files:
                self._open(name)
            self._files[name].write(text)

    def commit(self) -> None:
        """Give all their names, the last one last."""
        for name, file in self._files.items():
            with local_errors(self._folder / name):
                file.flush()
                os.fsync(file.fileno())
        for name in self._files:
            with local_errors(self._folder / name):
                self._part(name).replace(self._folder / name)
        sync_folder(self._folder)

    def __exit__(self, *_: object) -> None:
        for name, file in self._files.items():
            with contextlib.suppress(OSError):
                file.close()
            self._part(name).unlink(missing_ok=True)

    def _open(self, name: str) -> None:
        self._files[name] = os.fdopen(open_part(self._part(name)), "w", encoding="utf-8", newline="\n")

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.part"
