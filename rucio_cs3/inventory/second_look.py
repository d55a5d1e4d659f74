"""A finding of an audit, looked for in the storage once more: lists may be older than a file, or have left it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.inventory.comparison import Finding, Grace, Kind, differs, is_young
from rucio_cs3.inventory.lines import Line


def look(cloud: Cloud, finding: Finding, grace: Grace) -> Callable[[], Finding | None]:
    """A call that tells what a finding is by now; None where there is nothing to find any more.

    It raises the CS3Error because of which the storage cannot say.
    """

    def looked() -> Finding | None:
        if finding.kind is Kind.YOUNG:
            return finding
        there = _file(cloud, finding.path)
        if finding.kind is Kind.LOST:
            return finding if there is None else None
        return None if there is None else _now(finding, there, grace)

    return looked


def _now(finding: Finding, there: FileInfo, grace: Grace) -> Finding | None:
    was, replica = finding.line, finding.replica
    line = Line(
        path=finding.path,
        size=there.size,
        mtime_s=int(there.mtime_s),
        adler32=there.checksums.get("adler32"),
    )
    if replica is None:
        # Some dumps have no times; this look has.
        return Finding(Kind.YOUNG if is_young(line, grace) else Kind.DARK, finding.path, None, line)
    if was is not None and line.adler32 is None and line.size == was.size:
        line = replace(line, adler32=was.adler32)
    return replace(finding, line=line) if differs(replica, line) else None


def _file(cloud: Cloud, path: str) -> FileInfo | None:
    try:
        there = cloud.storage.stat(cloud.reference(path))
    except errors.NotFound:
        return None
    return None if there.is_directory else there
