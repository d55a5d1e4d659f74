"""What a dump is, in a JSON file beside it: from when, of what, and whether it is all. Pure, but for reading it.

It holds no secret: who logged in is not in it, and how neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors
from rucio_cs3.inventory.lines import FORMS, Form

#: The name of a dump's manifest is the dump's, and this.
SUFFIX = ".json"

#: Most places that are named one by one; of more only the number is kept.
NAMED_MAX = 100

#: Longest reason that is kept with a name, in characters: a server's words may be long, and notes are written often.
_WHY_MAX_CHARACTERS = 1000

_TIME = "%Y-%m-%dT%H:%M:%SZ"

_VERSION = 1


@dataclass(kw_only=True)
class Counts:
    """What a dump has found so far.

    :param files: lines of the dump.
    :param bytes: of those files.
    :param folders: the one where it began is not counted.
    :param without_adler32: files of which the server told none.
    :param younger_files: left out because of ``--older-than``.
    :param left_out: entries that the server listed, and nobody can name.
    :param unwritable: files with a line break in their path, which the form cannot hold.
    :param refused: folders that could not be listed.
    :param gone: folders that were removed while the dump went on.
    :param misread: files that Rucio's own reader takes for others; see :class:`~.lines.Misreading`.
    :param named: the first places of what is left out or refused: path, and why.
    """

    files: int = 0
    bytes: int = 0
    folders: int = 0
    without_adler32: int = 0
    younger_files: int = 0
    younger_bytes: int = 0
    left_out: int = 0
    unwritable: int = 0
    refused: int = 0
    gone: int = 0
    misread: int = 0
    named: list[list[str]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Entries and folders that should be in the dump, and are not."""
        return self.left_out + self.unwritable + self.refused

    def name(self, path: str, why: str) -> None:
        """Keep a place, where there are not many yet."""
        name_place(self.named, path, why)


def name_place(named: list[list[str]], path: str, why: str) -> None:
    """Keep a place in a list that stays short."""
    if len(named) < NAMED_MAX:
        named.append([path, why[:_WHY_MAX_CHARACTERS]])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """See the module.

    :param dump: name of the dump's file.
    :param cloud: RSE, or section of the clouds file.
    :param folder: the CS3 place that was crawled.
    :param below: what its paths begin with: of a dump of ``NAME:a/b`` it is ``a/b``; "" is all of the prefix.
    :param gateway: host and port.
    :param began_at: ISO 8601, UTC; of the first run, where it took several.
    :param runs: 1, and one more for each time that it was broken off and went on.
    :param complete: whether all is in it that the server has.
    :param older_than_h: files younger than so many hours when it began are left out; 0 leaves out none.
    :param dump_bytes: size of the dump's file.
    :param trash: entries and bytes in the recycle bin, not part of the dump; None where that is not known.
    :param versions: :class:`~rucio_cs3.inventory.versions.VersionCounts` of the files as a dictionary, whether they are
        in the dump or left out; None where they were not asked for.
    """

    dump: str
    form: Form
    cloud: str
    folder: str
    below: str
    gateway: str
    began_at: str
    ended_at: str
    runs: int
    complete: bool
    older_than_h: float
    dump_bytes: int
    sha256: str
    counts: Counts
    trash: Mapping[str, Any] | None
    versions: Mapping[str, Any] | None = None
    program: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {"version": _VERSION, "order": "path, bytes of UTF-8", **asdict(self)}


def iso(at_s: float) -> str:
    """Seconds since the epoch as a manifest has them: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(at_s, tz=timezone.utc).strftime(_TIME)


def seconds(text: str) -> float:
    """Seconds since the epoch from such a text.

    :raises LocalError: when it is none.
    """
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, TypeError) as exc:
        raise errors.LocalError(f"{text!r} of a manifest is no time such as 2026-11-21T16:00:00Z") from exc


def written(found: Manifest) -> str:
    """The text of the file."""
    return json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n"


def path_of(dump: Path) -> Path:
    """Where the manifest of a dump is."""
    return dump.with_name(dump.name + SUFFIX)


def read(dump: Path) -> Manifest | None:
    """The manifest of a dump; None where it has none.

    :raises LocalError: when it is none that this version reads, or says that the dump is another file.
    """
    path = path_of(dump)
    try:
        with local_errors(path):
            values = json.loads(path.read_text(encoding="utf-8"))
    except errors.LocalNotFound:
        return None
    except ValueError as exc:
        raise errors.LocalError(f"{path} is no JSON") from exc
    try:
        if values.pop("version") != _VERSION:
            raise errors.LocalError(f"{path} was written by another version of rucio-cs3")
        values.pop("order", None)
        counts = Counts(**values.pop("counts"))
        manifest = Manifest(counts=counts, **values)
        if manifest.form not in FORMS:
            raise ValueError(manifest.form)
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise errors.LocalError(f"{path} is no manifest of a dump") from exc
    with local_errors(dump):
        size = dump.stat().st_size
    if size != manifest.dump_bytes:
        raise errors.LocalError(
            f"{dump} has {size} bytes, its manifest says {manifest.dump_bytes}: it is another dump, or not all of it"
        )
    return manifest
