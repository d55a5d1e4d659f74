"""How full a cloud is, in bytes, and the WLCG's storage resource report of it. What numbers mean: docs/usage.md.

Knows no Rucio; how Rucio is told: :mod:`rucio_cs3.inventory.pushing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rucio_cs3._version import __version__
from rucio_cs3.clouds import Cloud, Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import MountRoot, Reference, SpaceRoot
from rucio_cs3.cs3.resources import Quota
from rucio_cs3.cs3.storage import CS3Storage
from rucio_cs3.inventory import dumping, versions
from rucio_cs3.inventory.versions import VersionCounts


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The space of the quota or disk that holds a cloud's folder.

    :param quota: as the server says it.
    :param trash: of the folder: ``items``, ``bytes`` and ``of_unknown_size``; None where the server does not tell.
    :param versions: of the files in the folder; None where they were not asked for.
    :param at_s: seconds since the epoch.
    """

    cloud: Cloud
    quota: Quota
    trash: Mapping[str, Any] | None
    versions: VersionCounts | None = None
    at_s: float

    def as_dict(self) -> dict[str, Any]:
        """Bytes; null is "no limit", for trash "not known", and for versions "not asked for"."""
        return {
            "name": self.cloud.name,
            "folder": str(self.cloud.folder),
            "used": self.quota.used_bytes,
            "remaining": self.quota.remaining_bytes,
            "total": self.quota.total_bytes,
            "unlimited": self.quota.remaining_bytes is None,
            "trash": self.trash,
            "versions": None if self.versions is None else self.versions.as_dict(),
        }


def look(cloud: Cloud, *, trash: bool = True) -> Usage:
    """Ask the server.

    :param trash: ask for the recycle bin, too, whose listing may be long.
    """
    storage, folder = cloud.storage, cloud.folder
    try:
        quota = storage.quota(folder)
    except (errors.NotFound, errors.ServerFault):
        if storage.exists(folder):
            raise
        # Before the first upload there is no folder; its quota is that of the whole base.
        quota = storage.quota(Reference(folder.root))
    # Of the folder alone, also where it is gone: what lies elsewhere below the base is others'.
    found = dumping.trash(Place(cloud, folder)) if trash else None
    return Usage(cloud=cloud, quota=quota, trash=found, at_s=time.time())


def with_versions(usage: Usage, *, watcher: Callable[[VersionCounts], None] | None = None) -> Usage:
    """The same with old versions counted: a walk through the folder, and a call for each file in it.

    :param watcher: see :func:`~rucio_cs3.inventory.versions.count`, also for errors.
    """
    storage, folder = usage.cloud.storage, usage.cloud.folder
    try:
        found = versions.count(storage, folder, watcher=watcher)
    except errors.NotFound:
        if not _is_missing(storage, folder):
            raise
        found = VersionCounts()  # as in look(): before the first upload
    return replace(usage, versions=found)


def _is_missing(storage: CS3Storage, folder: Reference) -> bool:
    """Whether a folder is not there, as a folder above it shows. A gateway before a storage that is away says NOT_FOUND
    of everything; at Reva it leaves out of ``/`` what is away, so that is not believed.
    """
    while folder.path:
        above = folder.parent
        if above == Reference(MountRoot("/")):
            break
        try:
            return folder.name not in {entry.reference.name for entry in storage.list(above)}
        except errors.NotFound:
            folder = above
    return False


def _space(usage: Usage) -> tuple[Any, ...]:
    """What several RSEs have in common whose space is one. Below a mount there may be many quotas: one is known by its
    numbers.
    """
    root = usage.cloud.folder.root
    return (usage.cloud.endpoint.gateway, root, None if isinstance(root, SpaceRoot) else usage.quota)


def report(usages: Iterable[Usage], *, name: str) -> dict[str, Any]:
    """A WLCG storage resource report: a share for each RSE, and its door. Spaces without a limit have no total size.

    The form is that of https://twiki.cern.ch/twiki/bin/view/LCG/StorageSpaceAccounting, version 4.
    """
    usages = list(usages)
    now = int(time.time())
    doors, shares = [], []
    for usage in usages:
        cloud, quota = usage.cloud, usage.quota
        web = cloud.endpoint.webdav
        share = {
            "name": cloud.name,
            "timestamp": int(usage.at_s),
            "usedsize": quota.used_bytes,
            "path": [f"{web.path}/{cloud.folder.path}".rstrip("/") or "/"],
            "vos": [],
            "servingstate": "open",
            "assignedendpoints": [cloud.name],
        }
        if quota.total_bytes is not None:
            share["totalsize"] = quota.total_bytes
        shares.append(share)
        doors.append(
            {
                "name": cloud.name,
                "endpointurl": cloud.url(Reference(cloud.folder.root)),
                "interfacetype": cloud.scheme,
                "qualitylevel": "production",
                "assignedshares": [cloud.name],
            }
        )
    # Several RSEs in one space, or on one disk, tell the same numbers, which are all of its.
    spaces = {_space(usage): usage for usage in usages}
    totals = [usage.quota.total_bytes for usage in spaces.values()]
    online: dict[str, int] = {"usedsize": sum(usage.quota.used_bytes for usage in spaces.values())}
    if totals and None not in totals:
        online["totalsize"] = sum(total or 0 for total in totals)
    return {
        "storageservice": {
            "name": name,
            "implementation": "rucio-cs3",
            "implementationversion": __version__,
            "latestupdate": now,
            "qualitylevel": "production",
            "storagecapacity": {"online": online},
            "storageendpoints": doors,
            "storageshares": shares,
        }
    }
