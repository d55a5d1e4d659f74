"""A dump of a place that somebody named: joins :mod:`rucio_cs3.inventory.dump` with a cloud."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rucio_cs3.clouds import Cloud, Place
from rucio_cs3.cs3 import errors
from rucio_cs3.inventory.crawl import THREADS
from rucio_cs3.inventory.dump import Dump, Wanted, Watcher
from rucio_cs3.inventory.lines import Form
from rucio_cs3.inventory.manifest import Manifest
from rucio_cs3.inventory.versions import looking
from rucio_cs3.settings import prefix_path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """See :class:`~rucio_cs3.inventory.dump.Wanted` and :meth:`~rucio_cs3.inventory.dump.Dump.run`."""

    form: Form = "paths"
    older_than_h: float = 0.0
    incomplete: bool = False
    resume: bool = True
    threads: int = THREADS
    versions: bool = False


def dump(place: Place, path: Path, options: Options, *, watcher: Watcher | None = None) -> Manifest:
    """Dump a folder; see :meth:`~rucio_cs3.inventory.dump.Dump.run` for what is promised and raised.

    :raises NotFound: when the folder is not there.
    :raises InvalidRequest: when it is a file.
    """
    cloud, storage = place.cloud, place.storage
    if not storage.stat(place.reference).is_directory:
        raise errors.InvalidRequest("is a file, not a folder", operation="dump", target=place.shown)
    wanted = Wanted(
        cloud=cloud.name,
        gateway=cloud.endpoint.gateway,
        top=place.reference,
        below=below_prefix(place) or "",
        form=options.form,
        older_than_h=options.older_than_h,
        incomplete=options.incomplete,
        prefix=_prefix(cloud),
        versions=options.versions,
    )
    made = Dump(
        wanted,
        functools.partial(storage.list, is_folder=True),
        threads=options.threads,
        watcher=watcher,
        trash=lambda: trash(place),
        look=looking(storage, place.reference),
    )
    return made.run(path, resume=options.resume)


def below_prefix(place: Place) -> str | None:
    """The path of a place below its cloud's folder; None where it is not below."""
    folder, reference = place.cloud.folder, place.reference
    if reference.root != folder.root:
        return None
    if reference == folder or not folder.path:
        return reference.path if not folder.path else ""
    below = reference.path.removeprefix(f"{folder.path}/")
    return None if below == reference.path else below


def trash(place: Place) -> Mapping[str, Any] | None:
    """How much of what was below a place is in the recycle bin; None where the server does not tell.

    ``bytes`` is the sum of the items whose size the server tells: not of folders, and of no file at OpenCloud.
    """
    items = total = unknown = 0
    try:
        for item in place.storage.recycle_bin.items(place.reference):
            items += 1
            unknown += item.size is None
            total += item.size or 0
    except errors.CS3Error as error:
        # It is told beside other things, which are true without it.
        _log.info("%s: what is in the recycle bin is not known: %s", place, error)
        return None
    return {"items": items, "bytes": total, "of_unknown_size": unknown}


def _prefix(cloud: Cloud) -> str:
    """The prefix as Rucio's reader has it."""
    if cloud.protocol is not None:
        return prefix_path(cloud.protocol)
    return f"{cloud.endpoint.webdav.path}/{cloud.folder.path}".rstrip("/") + "/"
