"""The replicas of an RSE as Rucio's REST interface shows them: scope by scope, a thousand files in a request.

For whoever has no database. Rucio has no request for "all of an RSE" (41.5.1), so each file of each scope is asked
for, also where most of them are elsewhere: name the scopes that are at the RSE. It tells no times of replicas.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rucio.client import Client

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.inventory.catalogue import Replica

#: Files in one request.
_FILES = 1000

#: Names of states in REST -> letters in dumps (rucio.db.sqla.constants.ReplicaState, 41.5.1).
_STATES: Mapping[str, str] = {
    "AVAILABLE": "A",
    "UNAVAILABLE": "U",
    "COPYING": "C",
    "BEING_DELETED": "B",
    "BAD": "D",
    "TEMPORARY_UNAVAILABLE": "T",
}


def replicas(cloud: Cloud, scopes: Collection[str] = ()) -> Iterator[Replica]:
    """All replicas of an RSE, in no order.

    :param scopes: only these; all of Rucio by default.
    :raises RucioException: when the server cannot be asked.
    """
    client = Client()
    for scope in scopes or client.list_scopes():
        names = iter(client.list_dids(scope, filters=[{}], did_type="file"))
        while some := list(itertools.islice(names, _FILES)):
            dids = [{"scope": scope, "name": name} for name in some]
            found = client.list_replicas(
                dids, rse_expression=cloud.name, all_states=True, ignore_availability=True, resolve_archives=False
            )
            for entry in found:
                yield from _replicas(cloud, entry)


def _replicas(cloud: Cloud, entry: Mapping[str, Any]) -> Iterator[Replica]:
    for pfn in entry.get("rses", {}).get(cloud.name, ()):
        try:
            reference = cloud.endpoint.webdav.reference(pfn)
        except errors.InvalidReference:
            continue  # of another protocol of this RSE
        above = f"{cloud.folder.path}/" if cloud.folder.path else ""
        yield Replica(
            rse=cloud.name,
            scope=entry["scope"],
            name=entry["name"],
            path=reference.path.removeprefix(above),
            size=entry.get("bytes"),
            adler32=entry.get("adler32"),
            state=_STATES.get(entry.get("states", {}).get(cloud.name, ""), "U"),
        )
        return
