"""What a listing in a notebook shows: plain values. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.listing.amounts import size as shown_size

#: 9999-12-31, the last day that Python knows; a server may say anything.
_LATEST_S = 253_402_300_799


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or folder.

    :param path: as the methods of :class:`~rucio_cs3.cloud_storage.CloudStorage` take it.
    :param size: bytes; of a folder what the server counts.
    :param modified: in UTC.
    :param checksums: algorithm -> hex digits, as far as they are known without a read.
    :param etag: changes with the content.
    """

    path: str
    name: str
    size: int
    is_folder: bool
    modified: datetime
    checksums: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""

    @classmethod
    def of(cls, path: str, info: FileInfo) -> Entry:
        return cls(
            path=path,
            name=info.reference.name,
            size=info.size,
            is_folder=info.is_directory,
            modified=datetime.fromtimestamp(min(max(info.mtime_s, 0), _LATEST_S), timezone.utc),
            checksums=dict(info.checksums),
            etag=info.etag,
        )


class Entries(list[Entry]):
    """A folder's entries; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(entry.name)}{'/' if entry.is_folder else ''}</td>"
            f"<td>{'' if entry.is_folder else html.escape(shown_size(entry.size))}</td>"
            f"<td>{entry.modified:%Y-%m-%d %H:%M:%S}</td></tr>"
            for entry in self
        )
        return f"<table><tr><th>name</th><th>size</th><th>modified (UTC)</th></tr>{rows}</table>"
