"""The rows of the table, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from rucio_cs3.doctor import copies, folders, identity, naming, network, uploading
from rucio_cs3.doctor.findings import Check
from rucio_cs3.doctor.subjects import Subject


def all_checks(subject: Subject, *, read_only: bool) -> Sequence[Check[Subject]]:
    """All that can be looked at; each comes after those that it needs."""
    rows = [
        *network.checks(),
        *identity.checks(),
        *folders.checks(),
        *uploading.checks(),
        *copies.checks(),
        *(check for check in naming.checks() if not (read_only and check.name == "recycle bin")),
    ]
    if read_only:
        rows.append(naming.bin_check())
    if subject.rse is not None:
        from rucio_cs3.doctor import rucio_side  # late: it wants Rucio

        rows += rucio_side.checks()
    return rows
