"""A file of Rucio's catalogue as a place in a CS3 cloud: which of its replicas is at one."""

from __future__ import annotations

import errno
from typing import Any

from rucio_cs3 import places
from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import SCHEMES
from rucio_cs3.cs3.resources import FileInfo


def find_replica(did: str, *, rse: str | None = None) -> tuple[Place, FileInfo]:
    """A replica that can be read, and a look at it. The first in Rucio's order wins whose size is the catalogue's.

    :param did: ``scope:name`` of a file.
    :param rse: only a replica there counts.
    :raises ValueError: when it is no DID.
    :raises FileNotFoundError: when Rucio knows no such file, or none of its replicas is at a CS3 cloud.
    :raises IsADirectoryError: for a dataset or container.
    :raises CS3Error: when there are replicas, and none can be read: why not the first.
    """
    scope, colon, name = did.partition(":")
    if not (scope and colon and name):
        raise ValueError(f"{did!r} is no DID; write scope:name")
    entry = _entry(scope, name)
    failure: errors.CS3Error | None = None
    elsewhere: dict[str, str] = {}
    for pfn, at in _in_order(entry):
        if rse not in (None, at):
            elsewhere.setdefault(at, "")
            continue
        try:
            place = places.find(pfn, rse=at)
        except (errors.ConfigurationError, errors.InvalidReference) as error:
            elsewhere[at] = error.message
            continue
        try:
            info = place.storage.settled(place.reference)
            _compare(entry, info)
        except errors.CS3Error as error:
            failure = failure or error
            continue
        return place, info
    if failure is not None:
        raise failure
    where = "a CS3 cloud that can be used here" if rse is None else f"RSE {rse}"
    there = "; ".join(f"there is one at {at}{f': {why}' if why else ''}" for at, why in sorted(elsewhere.items()))
    raise FileNotFoundError(errno.ENOENT, f"{did} has no replica at {where}{'; ' if there else ''}{there}")


def _entry(scope: str, name: str) -> dict[str, Any]:
    # Late: Rucio reads its configuration when it is imported.
    from rucio.client import Client
    from rucio.common.exception import DataIdentifierNotFound

    did = f"{scope}:{name}"
    try:
        found = list(Client().list_replicas([{"scope": scope, "name": name}], schemes=sorted(SCHEMES)))
    except DataIdentifierNotFound:
        raise FileNotFoundError(errno.ENOENT, f"Rucio knows no {did}") from None
    for entry in found:
        if (entry["scope"], entry["name"]) == (scope, name):
            return dict(entry)
    if found:
        raise IsADirectoryError(errno.EISDIR, f"{did} is a dataset or container of {len(found)} files, not a file")
    raise FileNotFoundError(errno.ENOENT, f"Rucio knows no file {did} with replicas")


def _in_order(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """PFN and RSE of each replica, as Rucio would have them tried."""
    pfns = entry.get("pfns") or {}
    return [(pfn, pfns[pfn]["rse"]) for pfn in sorted(pfns, key=lambda pfn: pfns[pfn].get("priority") or 0)]


def _compare(entry: dict[str, Any], info: FileInfo) -> None:
    """
    :raises IntegrityError: when what is there is not what the catalogue means.
    """
    target = str(info.reference)
    if info.is_directory or info.size != entry["bytes"]:
        there = "a folder" if info.is_directory else f"{info.size} bytes"
        raise errors.SizeMismatch(f"there is {there}, but the catalogue says {entry['bytes']} bytes", target=target)
    for algorithm in info.checksums.keys() & {"adler32", "md5"}:
        if entry.get(algorithm) and entry[algorithm] != info.checksums[algorithm]:
            raise errors.ChecksumMismatch(
                f"{algorithm} is {info.checksums[algorithm]}, but the catalogue says {entry[algorithm]}", target=target
            )
