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

#: Lines that are sorted in memory: some 40 MB.
_CHUNK_LINES = 100_000

#: Files that are merged at a time; a process may have 1024 open.
_MERGED_MAX = 64

_Key = Callable[[str], str]


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file that may be compressed by gzip or bzip2, whatever its name; empty ones are left out.

    :raises LocalError: when it cannot be read, or is cut off, or is no UTF-8.
    """
    with local_errors(path):
        try:
            with _opened(path) as file:
                for line in file:
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
    chunk = sorted(itertools.islice(lines, _CHUNK_LINES), key=key)
    following = next(lines, None)
    if following is None:
        yield from chunk
        return
    with tempfile.TemporaryDirectory(prefix=".rucio-cs3-sort-", dir=folder) as place:
        runs = [_written(chunk, Path(place))]
        rest = itertools.chain([following], lines)
        while chunk := sorted(itertools.islice(rest, _CHUNK_LINES), key=key):
            runs.append(_written(chunk, Path(place)))
            if len(runs) == _MERGED_MAX:
                with _merged(runs, key) as merged:
                    one = _written(merged, Path(place))
                for run in runs:
                    run.unlink()
                runs = [one]
        del chunk
        with _merged(runs, key) as merged:
            yield from merged


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
