"""Files from place to place through this machine, for CS3 has no copy: within a cloud, and between two."""

from __future__ import annotations

from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.notebook import files
from rucio_cs3.notebook.os_errors import is_there


def copy(source: Place, info: FileInfo, target: Place, *, overwrite: bool) -> None:
    """Copy a file; compared on the way.

    :param info: a look at the source.
    :raises CS3Error: what :meth:`~rucio_cs3.cs3.storage.CS3Storage.store` raises.
    """
    known = {name: total for name, total in info.checksums.items() if name == "adler32"}
    with source.storage.open(source.reference) as file:
        body = UploadBody(file, info.size, Digests(("adler32",)), name=source.shown, expected=known)
        target.storage.store(body, target.reference, overwrite=overwrite)


def move(source: Place, target: Place) -> None:
    """Copy a file to another cloud, and delete it then. No folder is moved so: what somebody stores in it meanwhile
    would be deleted with it.

    :raises Unsupported: for a folder.
    :raises FileExistsError: when something is at the target.
    :raises PreconditionFailed: when the source was replaced while it was copied; both stay.
    """
    info = files.there(source)
    if info.is_directory:
        raise errors.Unsupported(
            "is a folder, and is not moved to another cloud; copy it (cp), compare, and delete it then (rm)",
            target=source.shown,
        )
    if files.look(target) is not None:
        raise is_there(target.shown)
    copy(source, info, target, overwrite=False)
    if files.there(source).content != info.content:
        raise errors.PreconditionFailed(
            f"was replaced while it was copied; both it and {target.shown} are there", target=source.shown
        )
    files.delete_file(source)
