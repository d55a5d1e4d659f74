"""All that is below a folder of a cloud, and the sums of it, in the memory of one folder for each level.

What cannot be listed does not end a walk: it comes out of it as :class:`Trouble`, for the caller to count.

The walk of a dump is another one (:mod:`rucio_cs3.inventory.crawl`), and shares no more than a stack of open folders:
it lists ahead, in an order that lets it go on where another has ended, tells folders that have gone from those that are
refused, and fails where the cloud is away, since a dump is all of a folder or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Entries, FileInfo

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage


@dataclass(frozen=True)
class Entry:
    """A file or folder below the folder that was asked for.

    :param relative: its path below that.
    """

    relative: str
    info: FileInfo


@dataclass(frozen=True)
class Trouble:
    """Something below the folder that nobody can be told of.

    :param relative: path of the folder that it is in; empty for the one that was asked for.
    """

    relative: str
    error: errors.CS3Error


def entries(storage: CS3Storage, folder: Reference, *, is_folder: bool = False) -> Iterator[FileInfo | errors.CS3Error]:
    """What is in one folder, by name; at the end, an error where the server listed what nothing here can name.

    :param is_folder: a listing has shown that it is one.
    :raises CS3Error: at once, when it cannot be listed.
    """
    return _taken(storage.list(folder, is_folder=is_folder), folder)


def _taken(listed: Entries, folder: Reference) -> Iterator[FileInfo | errors.CS3Error]:
    left_out = listed.left_out
    listed.reverse()
    while listed:
        yield listed.pop()  # what is done with needs no memory
    if left_out:
        yield errors.ProtocolViolation(
            f"left out {left_out} of its entries, whose names lead elsewhere or whose sizes no file has",
            operation="ListContainer",
            target=str(folder),
        )


def walk(storage: CS3Storage, folder: Reference) -> Iterator[Entry | Trouble]:
    """All files and folders below ``folder``, each folder before what is in it, by name.

    :raises CS3Error: when ``folder`` itself cannot be listed.
    """
    open_folders = [("", entries(storage, folder))]
    while open_folders:
        above, rest = open_folders[-1]
        found = next(rest, None)
        if found is None:
            open_folders.pop()
        elif isinstance(found, errors.CS3Error):
            yield Trouble(above, found)
        else:
            relative = f"{above}/{found.reference.name}" if above else found.reference.name
            yield Entry(relative, found)
            if found.is_directory:
                try:
                    open_folders.append((relative, entries(storage, found.reference, is_folder=True)))
                except errors.CS3Error as error:
                    yield Trouble(relative, error)


@dataclass
class Total:
    """What is below a folder.

    :param relative: path of the folder below the one that was asked for; empty for that one.
    :param depth: 0 for that one, 1 for those in it.
    :param bytes: of all files below it.
    """

    relative: str
    depth: int
    bytes: int = 0
    files: int = 0
    folders: int = 0


def totals(storage: CS3Storage, folder: Reference) -> Iterator[Total | Trouble]:
    """The sums of each folder, those within it before its own; the last is that of ``folder``.

    :raises CS3Error: when ``folder`` itself cannot be listed.
    """
    path = [Total("", 0)]
    for found in walk(storage, folder):
        above = found.relative if isinstance(found, Trouble) else found.relative.rpartition("/")[0]
        while path[-1].relative != above:
            yield _closed(path)
        if isinstance(found, Trouble):
            yield found
        elif found.info.is_directory:
            path[-1].folders += 1
            path.append(Total(found.relative, len(path)))
        else:
            path[-1].files += 1
            path[-1].bytes += found.info.size
    while path:
        yield _closed(path)


def _closed(path: list[Total]) -> Total:
    done = path.pop()
    if path:
        path[-1].bytes += done.bytes
        path[-1].files += done.files
        path[-1].folders += done.folders
    return done
