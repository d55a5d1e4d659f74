"""Whether one can see at a server what is in a folder in its recycle bin, tried with a folder of our own.

What :meth:`~rucio_cs3.cs3.recycle.RecycleBin.is_empty` does is true of the servers that it names. Another version of
Reva's ``local`` driver may purge a folder with all in it, where v3.12.1 fails (``os.Remove`` in localfs.go), and
OpenCloud's decomposedfs leaves what it cannot read out of its answer (ListRecycle in recycle.go). A file that had come
into a folder by chance would be taken for nothing then. So it is tried before it is relied on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import part_name
from rucio_cs3.cs3.namespace import Namespace
from rucio_cs3.cs3.purging import SILENCE, identified, item_of
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.server_clock import ClockOffset


def why_unseen(
    namespace: Namespace, bin_: RecycleBin, below: Reference, clock: Callable[[], ClockOffset | None]
) -> str:
    """Try it; some twenty calls. A folder that holds another goes into the bin, has to be seen as full there, and to
    come back with the other; then each of them has to be seen as empty. Both are out of the bin in the end.

    :param below: where the folder of the trial is made and removed; it exists.
    :returns: why it cannot be seen; empty where it can.
    :raises CS3Error: one of :data:`~rucio_cs3.cs3.purging.SILENCE`, where the server does not answer.
    """
    # Who is killed in between leaves it, under a name by which a later run knows it.
    scratch = below.child(part_name())

    def removed(folder: Reference) -> RecycledItem:
        deleted = replace(namespace.delete(folder), is_directory=True)
        if deleted.key is not None:
            return item_of(below, deleted)
        found, unclear = identified(bin_, below, [deleted], clock)
        if unclear:
            raise errors.NotFound(unclear[0].why, operation="ListRecycle", target=str(folder))
        return found[0][1]

    try:
        why = _tried(namespace, bin_, scratch, removed)
    except SILENCE:
        raise
    except errors.CS3Error as error:
        why = str(error)
    if why:
        with contextlib.suppress(errors.CS3Error):
            namespace.delete(scratch)
    return why


def _tried(
    namespace: Namespace, bin_: RecycleBin, scratch: Reference, removed: Callable[[Reference], RecycledItem]
) -> str:
    inner = scratch.child(part_name("inner"))
    namespace.make_directories(inner)
    full = removed(scratch)
    is_empty = bin_.is_empty(full)
    if is_empty is None:
        return "the server does not say what is in a folder in its recycle bin"
    if is_empty:
        return "the server says of a full folder in its recycle bin that it is empty, or empties it"
    bin_.restore(full)
    if namespace.present(inner) is None:
        return "the server does not restore what is in a folder"
    for folder in (inner, scratch):
        item = removed(folder)
        if not bin_.is_empty(item):
            return "the server says of an empty folder in its recycle bin that it is full"
        if not item.by_rmdir:
            bin_.purge(item)
    return ""
