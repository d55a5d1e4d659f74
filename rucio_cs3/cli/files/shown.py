"""How files, folders and amounts look: in lines for people, and in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from rucio_cs3.cli.transfers_table import printable
from rucio_cs3.listing.amounts import size

if TYPE_CHECKING:
    from rucio_cs3.clouds import Cloud
    from rucio_cs3.cs3.resources import FileInfo


def as_dict(cloud: Cloud, info: FileInfo) -> dict[str, Any]:
    """A file or folder for JSON. Folders have no size, because servers do not agree what that would be."""
    return {
        "name": info.reference.name,
        "place": cloud.shown(info.reference),
        "type": "folder" if info.is_directory else "file",
        "size": None if info.is_directory else info.size,
        "mtime": _iso(info.mtime_s),
        "etag": info.etag,
        "checksums": dict(info.checksums),
        "cs3_path": str(info.reference),
        "pfn": cloud.url(info.reference),
    }


def amount(count: int, *, exact: bool = False) -> str:
    """So many bytes, for people or to the byte."""
    return str(count) if exact else size(count)


def long_line(info: FileInfo, name: str, *, exact: bool) -> str:
    """Size, time of this machine's zone, and name."""
    much = "-" if info.is_directory else amount(info.size, exact=exact)
    return f"{much:>{14 if exact else 9}}  {_local(info.mtime_s, '%Y-%m-%d %H:%M'):16}  {name}"


def name_of(info: FileInfo, name: str) -> str:
    """A name without what a terminal would obey, and with a slash where it is a folder's."""
    return printable(name) + ("/" if info.is_directory else "")


def details(cloud: Cloud, info: FileInfo) -> list[tuple[str, str]]:
    """All that is known, as names and values."""
    rows = [
        ("name", cloud.shown(info.reference)),
        ("type", "folder" if info.is_directory else "file"),
    ]
    if not info.is_directory:
        rows.append(("size", f"{size(info.size)} ({info.size} bytes)" if info.size > 999 else size(info.size)))
    rows.append(("modified", _local(info.mtime_s, "%Y-%m-%d %H:%M:%S %z")))
    rows.append(("etag", info.etag or "-"))
    if not info.is_directory:
        rows += sorted(info.checksums.items()) or [("checksum", "none is known here")]
        if info.processing:
            rows.append(("state", "the server still works on the upload; it cannot be read yet"))
    rows += [("CS3 path", str(info.reference)), ("PFN", cloud.url(info.reference))]
    return [(name, printable(value)) for name, value in rows]


def print_json(value: Mapping[str, Any]) -> None:
    """One object in one line, of ASCII only: nothing in it steers a terminal."""
    click.echo(json.dumps(value))


def _iso(seconds: float) -> str | None:
    moment = _moment(seconds)
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(seconds: float, form: str) -> str:
    moment = _moment(seconds)
    return "-" if moment is None else moment.astimezone().strftime(form)


def _moment(seconds: float) -> datetime | None:
    """None for what no calendar has: a server may say anything."""
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
