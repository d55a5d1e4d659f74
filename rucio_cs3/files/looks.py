"""What stands at a place, or nothing: also where a file stands in place of a folder above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage


def look(storage: CS3Storage, reference: Reference) -> FileInfo | None:
    """What is at a place; None where nothing is, also because a file stands where a folder would have to be.

    :raises CS3Error: when it cannot be found out.
    """
    try:
        return storage.stat(reference)
    except errors.NotFound:
        return None
    except errors.ServerFault:
        # Reva v3.12.1 says INTERNAL to a place below a file.
        if file_above(storage, reference) is not None:
            return None
        raise


def file_above(storage: CS3Storage, reference: Reference) -> FileInfo | None:
    """The file that stands where a folder above a place would have to be; None where there is none.

    :raises CS3Error: when it cannot be found out.
    """
    parent = reference.parent
    if not parent.path:
        return None
    try:
        above = storage.stat(parent)
    except errors.NotFound:
        above = None
    except errors.ServerFault:
        found = file_above(storage, parent)
        if found is None:
            raise
        return found
    if above is None:
        return file_above(storage, parent)
    return None if above.is_directory else above
