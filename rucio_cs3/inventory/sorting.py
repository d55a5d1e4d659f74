"""Text files of lines that are larger than memory: opened whatever they are compressed with, and sorted.

Sorted by a key and not by the whole line, as it is the path that is compared; in the order of code points, which is
that of the bytes of UTF-8.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import heapq
import itertools
import os
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors

#: Lines that are sorted in memory, some 40 MB; fewer where they have more characters than that together.
_CHUNK_LINES = 100_000
_CHUNK_CHARACTERS = 32 * 1024 * 1024

#: A longer line is none of a dump, in characters: no path has so many.
_LINE_MAX_CHARACTERS = 1024 * 1024

#: Files that are merged at a time; a process may have 1024 open.
_MERGED_MAX = 64

_Key = Callable[[str], str]


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file that may be compressed by gzip or bzip2, whatever its name; empty ones are left out.

    :raises LocalError: when it cannot be read, or is cut off, or is no UTF-8, or has no lines.
    """
    with local_errors(path):
        try:
            with _opened(path) as file:
                while line := file.readline(_LINE_MAX_CHARACTERS):
                    if len(line) == _LINE_MAX_CHARACTERS:
                        raise errors.LocalError(f"local path {path} is no list: it has a line of a million characters")
                    if line != "\n":
                        yield line
        except (EOFError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile) as exc:
            raise errors.LocalError(f"local path {path} is broken or cut off: {exc}") from exc


def sorted_lines(lines: Iterable[str], key: _Key, folder: Path) -> Generator[str, None, None]:
    """All lines, sorted; memory does not grow with their number.

    :param folder: for files meanwhile; as large as all lines.
    :raises LocalNoSpaceLeft: when it is full.
    """
    lines = iter(lines)
    chunk = _chunk(lines, key)
    following = next(lines, None)
    if following is None:
        yield from chunk
        return
    with _place(folder) as place:
        runs = [_written(chunk, place)]
        rest = itertools.chain([following], lines)
        while chunk := _chunk(rest, key):
            runs.append(_written(chunk, place))
            if len(runs) == _MERGED_MAX:
                with _merged(runs, key) as merged:
                    one = _written(merged, place)
                for run in runs:
                    run.unlink()
                runs = [one]
        del chunk
        with _merged(runs, key) as merged:
            yield from merged


def _chunk(lines: Iterator[str], key: _Key) -> list[str]:
    """The next lines, as many as memory is meant to take, sorted; none at the end."""
    chunk, characters = [], 0
    for line in itertools.islice(lines, _CHUNK_LINES):
        chunk.append(line)
        characters += len(line)
        if characters >= _CHUNK_CHARACTERS:
            break
    chunk.sort(key=key)
    return chunk


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        with local_errors(folder):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=".rucio-cs3-sort-", dir=folder))
        yield Path(name)


def _written(lines: Iterable[str], folder: Path) -> Path:
    with local_errors(folder):
        descriptor, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            # A file's last line may have no end.
            file.writelines(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return Path(name)


@contextlib.contextmanager
def _merged(runs: list[Path], key: _Key) -> Iterator[Iterator[str]]:
    with contextlib.ExitStack() as stack:
        with local_errors(runs[0]):
            files = [stack.enter_context(run.open(encoding="utf-8", newline="\n")) for run in runs]
        yield heapq.merge(*files, key=key)


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        magic = file.read(3)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    if magic == b"BZh":
        return bz2.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")
