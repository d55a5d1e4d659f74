"""Whether a local file and one in a cloud have the same content: what a second run does not copy again.

It never rests on a guess, because whoever is told "the same" may delete one of both:

- another size is another content;
- an md5 or sha1 that the server states of the file decides, against that of the local file;
- an adler32 that it states decides that they differ, but not alone that they are the same: ``121`` and ``202`` have one
  and the same. They are where the modification times agree as well, to the second;
- where none of that decides, the file is read from the cloud and compared byte by byte. What was proven so is kept as
  the file's checksums where the server takes them (:mod:`rucio_cs3.cs3.kept_checksums`), so that it is read only once.

:attr:`Rule.TIME` is for those who trust modification times: same size and same second are the same content.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.local_files import local_errors, open_source
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import CHUNK_BYTES

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage

#: Those that nobody meets by chance, the cheapest first.
_STRONG = ("md5", "sha1")

#: Algorithms of the checksums that are kept of a file which was read.
KEPT = ("adler32", "md5")


class Rule(Enum):
    """What makes a content the same."""

    CONTENT = "content"
    TIME = "time"


def same(
    storage: CS3Storage,
    path: Path,
    status: os.stat_result,
    info: FileInfo,
    *,
    rule: Rule = Rule.CONTENT,
    tick: Callable[[int], object] = lambda _: None,
) -> bool:
    """Whether the local file has the content of the file in the cloud.

    :param status: of the local file.
    :param info: a look at the file in the cloud.
    :param tick: called with 0 while something is read; what it raises ends the reading.
    :raises LocalError: when the local file cannot be read.
    :raises CS3Error: when the other one has to be read, and cannot be.
    """
    if info.is_directory or status.st_size != info.size:
        return False
    same_second = int(status.st_mtime) == int(info.mtime_s)
    if not info.size or (rule is Rule.TIME and same_second):
        return True
    stated = info.checksums
    strong = next((name for name in _STRONG if name in stated), None)
    if strong is None and "adler32" not in stated:
        return _same_bytes(storage, path, info, tick)
    algorithm = strong or "adler32"
    if _digest(path, algorithm, tick) != stated[algorithm]:
        return False
    return strong is not None or same_second or _same_bytes(storage, path, info, tick)


def _digest(path: Path, algorithm: str, tick: Callable[[int], object]) -> str:
    digests = Digests([algorithm])
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with open_source(path) as (file, _), local_errors(path):
        while count := file.readinto(buffer):
            digests.update(buffer[:count])
            tick(0)
    return digests.hexdigests()[algorithm]


def _same_bytes(storage: CS3Storage, path: Path, info: FileInfo, tick: Callable[[int], object]) -> bool:
    """Read both to their end, or to the first difference."""
    info = storage.settled(info.reference)
    digests = Digests(KEPT)
    ours, theirs = (memoryview(bytearray(CHUNK_BYTES)) for _ in range(2))
    with open_source(path) as (file, status), storage.open(info.reference) as remote:
        if status.st_size != info.size:
            return False
        while count := remote.readinto(theirs):
            if _read(file.readinto, ours[:count], path) != count or ours[:count] != theirs[:count]:
                return False
            digests.update(theirs[:count])
            tick(0)
    if digests.byte_count != info.size:
        return False
    if storage.stat(info.reference).content == info.content:
        storage.keep_checksums(info, digests.hexdigests())
    return True


def _read(read: Callable[[memoryview], int | None], buffer: memoryview, path: Path) -> int:
    """Fill the buffer as far as the file goes."""
    done = 0
    with local_errors(path):
        while done < len(buffer) and (count := read(buffer[done:])):
            done += count
    return done


def difference(path: Path, status: os.stat_result, info: FileInfo) -> errors.CS3Error:
    """The error of two files of one name with other contents."""
    sizes = f"{status.st_size} bytes here and {info.size} in the cloud"
    how = sizes if status.st_size != info.size else f"both of {info.size} bytes"
    return errors.AlreadyExists(f"the content differs ({how}); --overwrite replaces what is there")
