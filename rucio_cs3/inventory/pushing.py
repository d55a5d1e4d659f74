"""Tells Rucio how full an RSE is, where its daemons look for that. Imports Rucio.

Rucio's reaper (41.5.1 ``daemons/reaper/reaper.py``) takes total and used from the usage of source ``storage``, unless
the RSE's attributes ``source_for_total_space`` and ``source_for_used_space`` name others, and compares what is free
with the limit ``MinFreeSpace``. Without that source it deletes only what is marked obsolete.
"""

from __future__ import annotations

from rucio.common.config import is_client
from rucio.rse import rsemanager

from rucio_cs3 import partners
from rucio_cs3.cs3 import errors
from rucio_cs3.inventory.usage import Usage
from rucio_cs3.protocol import UNLIMITED_BYTES

#: Where Rucio's daemons look.
SOURCE = "storage"

#: For people: ``used`` is what is in the recycle bin, as far as the server tells; there is nothing free in it.
TRASH_SOURCE = "trash"


def push(usage: Usage) -> None:
    """Set the RSE's usage of :data:`SOURCE`, and of :data:`TRASH_SOURCE` where it is known.

    Numbers are those of ``get_space_usage``: a space without a limit has 2**62 bytes left.

    :raises ConfigurationError: when the cloud is no RSE.
    :raises RucioException: when Rucio refuses; over REST only root may do it.
    """
    cloud = usage.cloud
    if cloud.rse is None:
        raise errors.ConfigurationError(f"{cloud.name} is a section of the clouds file; only of RSEs Rucio is told")
    left = usage.quota.remaining_bytes
    free = UNLIMITED_BYTES if left is None else min(left, UNLIMITED_BYTES)
    told = [(SOURCE, min(usage.quota.used_bytes, UNLIMITED_BYTES - 1), free)]
    if usage.trash is not None:
        told.append((TRASH_SOURCE, min(usage.trash["bytes"], UNLIMITED_BYTES - 1), 0))
    if is_client():
        from rucio.client import Client

        client = Client()
        for source, used, free in told:
            client.set_rse_usage(cloud.name, source=source, used=used, free=free)
        return
    from rucio.core.rse import set_rse_usage

    for source, used, free in told:
        set_rse_usage(cloud.rse["id"], source=source, used=used, free=free)


def is_ours(name: str) -> bool:
    """Whether an RSE is a CS3 cloud.

    :raises RucioException: when Rucio cannot be asked.
    """
    return any(partners.is_ours(protocol["impl"]) for protocol in rsemanager.get_rse_info(rse=name)["protocols"])
