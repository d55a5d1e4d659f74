"""What keeps Rucio from deleting files that people have put into a cloud by themselves. Pure.

A replica has no lock before there is a rule, and Rucio's reaper deletes replicas without locks; but only those that
have a tombstone, whether it is greedy or not (Rucio 41.5.1 ``core/replica.py``: ``list_and_mark_unlocked_replicas``,
where a tombstone that is null is older than no time). ``add_replicas`` gives none, unless the RSE has the attribute
``tombstone_delay``. Later a replica gets one when the last rule on it ends (``core/rule.py``:
``__delete_lock_and_update_replica``), when somebody sets it, and when it is declared bad without a lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The RSE attribute, in seconds.
TOMBSTONE_DELAY = "tombstone_delay"


def danger(rse: str, attributes: Mapping[str, Any]) -> str | None:
    """Why replicas that are registered at an RSE would be deleted by themselves; None where they would not.

    :param attributes: of the RSE.
    """
    delay = attributes.get(TOMBSTONE_DELAY)
    try:
        # As Rucio 41.5.1 reads it (core/replica.py: tombstone_from_delay): nothing and 0 seconds are no tombstone.
        harmless = not delay or int(delay) == 0
    except (TypeError, ValueError):
        harmless = False
    if harmless:
        return None
    return (
        f"RSE {rse} has {TOMBSTONE_DELAY} {delay}: Rucio's reaper deletes what is registered there and has no rule. "
        f"Remove it (rucio rse attribute unset {rse} --attribute {TOMBSTONE_DELAY}), or say --reaper-may-delete"
    )
