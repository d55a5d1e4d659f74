"""When a local file and one in a cloud count as the same, and what is read to find out."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, errors
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.files.sameness import Rule, same

REFERENCE = Reference(MountRoot("/"), "file")


class Remote:
    """A storage with one file, which counts how often it is read."""

    def __init__(self, content: bytes, mtime_s: float, sums: Mapping[str, str]) -> None:
        self.content = content
        self.info = FileInfo(
            reference=REFERENCE, size=len(content), is_directory=False, checksums=sums, etag="e", mtime_s=mtime_s
        )
        self.reads = 0
        self.kept: dict[str, str] = {}

    def stat(self, reference: Reference) -> FileInfo:
        return self.info

    settled = stat

    def open(self, reference: Reference) -> Remote:
        self.reads += 1
        self._left = memoryview(self.content)
        return self

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._left), 3)
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def keep_checksums(self, info: FileInfo, sums: Mapping[str, str]) -> None:
        self.kept = dict(sums)


def sums(content: bytes, *names: str) -> dict[str, str]:
    every = {
        "adler32": f"{zlib.adler32(content):08x}",
        "md5": hashlib.md5(content).hexdigest(),
        "sha1": hashlib.sha1(content).hexdigest(),
    }
    return {name: every[name] for name in names}


@pytest.mark.parametrize(
    ("here", "there", "stated", "same_time", "rule", "expected", "reads"),
    [
        (b"121", b"121", (), False, Rule.CONTENT, True, 1),
        (b"121", b"202", (), True, Rule.CONTENT, False, 1),
        (b"121", b"1210", (), True, Rule.TIME, False, 0),
        (b"121", b"202", (), True, Rule.TIME, True, 0),
        (b"121", b"202", (), False, Rule.TIME, False, 1),
        (b"121", b"121", (), False, Rule.TIME, True, 1),
        (b"", b"", (), False, Rule.CONTENT, True, 0),
        (b"121", b"121", ("md5",), False, Rule.CONTENT, True, 0),
        (b"121", b"202", ("md5",), True, Rule.CONTENT, False, 0),
        (b"121", b"121", ("sha1", "adler32"), False, Rule.CONTENT, True, 0),
        (b"121", b"202", ("sha1", "adler32"), True, Rule.CONTENT, False, 0),
        # One and the same adler32.
        (b"121", b"202", ("adler32",), False, Rule.CONTENT, False, 1),
        (b"121", b"121", ("adler32",), False, Rule.CONTENT, True, 1),
        (b"121", b"121", ("adler32",), True, Rule.CONTENT, True, 0),
        (b"121", b"122", ("adler32",), True, Rule.CONTENT, False, 0),
    ],
)
def test_the_rule(
    tmp_path: Path,
    here: bytes,
    there: bytes,
    stated: tuple[str, ...],
    same_time: bool,
    rule: Rule,
    expected: bool,
    reads: int,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(here)
    os.utime(path, (1000.7, 1000.7))
    remote: Any = Remote(there, 1000.2 if same_time else 2000.0, sums(there, *stated))
    assert same(remote, path, path.stat(), remote.info, rule=rule) is expected
    assert remote.reads == reads
    # Only what was read and is the same is known to have these sums.
    assert remote.kept == (sums(here, "adler32", "md5") if expected and reads else {})


def test_what_changes_while_it_is_read_is_not_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    remote: Any = Remote(b"123456", 0.0, {})
    status = path.stat()
    path.write_bytes(b"12345")
    assert not same(remote, path, status, remote.info)
    path.unlink()
    with pytest.raises(errors.LocalNotFound):
        same(remote, path, status, remote.info)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    info = FileInfo(reference=REFERENCE, size=0, is_directory=True)
    storage: CS3Storage = Remote(b"", 0.0, {})  # type: ignore[assignment]
    assert not same(storage, path, path.stat(), info)
