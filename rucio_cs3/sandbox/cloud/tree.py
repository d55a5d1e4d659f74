"""One name space of an embedded cloud on disk: files, folders, their metadata, and the recycle bin.

Files lie under their own names, so that a test can look at them, and can put some there itself. It knows no CS3:
what is wrong is told by ``OSError`` subclasses, and the gateways translate them, each in its server's manner.
Read next: ``uploads.py`` (how bytes come in), ``gateway_v3.py``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rucio_cs3.sandbox.cloud.old_versions import OldVersion, OldVersions

BLOCK_BYTES = 1 << 20


class OutsideTree(Exception):
    """A path leads out of the tree."""


class MetadataClash(OSError):
    """A resource has moved to a path that has metadata of the same key left from another."""


class Digests:
    """SHA1, MD5 and adler32 of a stream of bytes, in one pass."""

    def __init__(self) -> None:
        self._sha1 = hashlib.sha1()
        self._md5 = hashlib.md5()
        self._adler32 = 1

    def update(self, block: bytes | memoryview) -> None:
        self._sha1.update(block)
        self._md5.update(block)
        self._adler32 = zlib.adler32(block, self._adler32)

    def results(self) -> dict[str, str]:
        """Lower-case hexadecimal digits by algorithm; adler32 always has 8 of them."""
        return {
            "sha1": self._sha1.hexdigest(),
            "md5": self._md5.hexdigest(),
            "adler32": f"{self._adler32:08x}",
        }

    @classmethod
    def of_file(cls, path: Path) -> dict[str, str]:
        digests = cls()
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digests.update(block)
        return digests.results()


@dataclass
class Attributes:
    """What is known of a resource beside its bytes."""

    node_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # The size that an upload declared, where the server believes it (OpenCloud decomposedfs) and it is not true.
    declared_size: int | None = None
    # Monotonic time until which post-processing holds the file.
    busy_until: float = 0.0
    # OpenCloud decomposedfs: a file made by TouchFile has no checksums.
    without_checksums: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or folder; ``relative`` has no slash at either end, the root is the empty string."""

    relative: str
    path: Path
    is_directory: bool
    size: int
    mtime_ns: int
    etag: str
    node_id: str
    busy: bool
    metadata: dict[str, str]
    without_checksums: bool

    @property
    def name(self) -> str:
        return self.relative.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class RecycledItem:
    key: str
    relative: str
    is_directory: bool
    size: int
    deleted_ms: int


class Tree:
    """One tree; thread-safe for the operations of one file at a time, as a file system is.

    :param root: folder of the tree; made when it is missing.
    :param bin_directory: where deleted resources go; on the same file system.
    :param by_path: as the ``local`` driver of Reva v3.12.1 does it: arbitrary metadata belong to a path, whatever
        stands there, and etags are made of modification times in whole seconds. Otherwise they belong to a resource.
    :param versions: where files go that are overwritten.
    """

    def __init__(self, root: Path, bin_directory: Path, *, by_path: bool = False, versions: OldVersions) -> None:
        self.root = root
        self._bin = bin_directory
        self._by_path = by_path
        self._versions = versions
        self._metadata: dict[str, dict[str, str]] = {}
        root.mkdir(parents=True, exist_ok=True)
        bin_directory.mkdir(parents=True, exist_ok=True)
        self._attributes: dict[str, Attributes] = {}
        self._recycled: dict[str, RecycledItem] = {}
        self._digests: dict[Path, tuple[tuple[int, int, int], dict[str, str]]] = {}
        self.lock = threading.RLock()

    def clean(self, relative: str) -> str:
        """Normal form of a path below the root.

        :raises OutsideTree: ``..`` leads out of it.
        """
        parts: list[str] = []
        for part in relative.split("/"):
            if part == "..":
                if not parts:
                    raise OutsideTree(relative)
                parts.pop()
            elif part not in {"", "."}:
                parts.append(part)
        return "/".join(parts)

    def on_disk(self, relative: str) -> Path:
        return self.root / self.clean(relative)

    def attributes(self, relative: str) -> Attributes:
        with self.lock:
            return self._attributes.setdefault(self.clean(relative), Attributes())

    def entry(self, relative: str) -> Entry:
        """Look at a resource.

        :raises OSError: FileNotFoundError, NotADirectoryError (below a file), ENAMETOOLONG.
        """
        relative = self.clean(relative)
        path = self.root / relative
        status = path.stat()
        directory = path.is_dir()
        known = self.attributes(relative)
        size = status.st_size if known.declared_size is None or directory else known.declared_size
        mtime = status.st_mtime_ns // 1_000_000_000 if self._by_path else status.st_mtime_ns
        version = f"{status.st_ino}:{mtime}:{status.st_size}"
        return Entry(
            relative=relative,
            path=path,
            is_directory=directory,
            size=size,
            mtime_ns=status.st_mtime_ns,
            etag=f'"{hashlib.md5(version.encode()).hexdigest()}"',
            node_id=known.node_id,
            busy=known.busy_until > time.monotonic(),
            metadata=dict(self._metadata.get(relative, {})),
            without_checksums=known.without_checksums,
        )

    def exists(self, relative: str) -> bool:
        try:
            self.entry(relative)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def children(self, relative: str) -> list[Entry]:
        """What is in a folder, by name.

        :raises OSError: as :meth:`entry`; NotADirectoryError for a file.
        """
        relative = self.clean(relative)
        names = sorted(path.name for path in (self.root / relative).iterdir())
        return [self.entry(f"{relative}/{name}") for name in names]

    def walk(self, relative: str) -> Iterator[Entry]:
        """A resource and everything below it."""
        top = self.entry(relative)
        yield top
        if top.is_directory:
            for child in self.children(relative):
                yield from self.walk(child.relative)

    def used_bytes(self, relative: str = "") -> int:
        return sum(entry.size for entry in self.walk(relative) if not entry.is_directory)

    def find_node(self, node_id: str) -> str | None:
        """Path of the resource with this id."""
        with self.lock:
            found = [path for path, known in self._attributes.items() if known.node_id == node_id]
        return next((path for path in found if self.exists(path)), None)

    def digests(self, entry: Entry) -> dict[str, str]:
        """Checksums of the bytes on disk, remembered until the file changes."""
        status = entry.path.stat()
        # With the inode: two files of a test may be made within one tick of the kernel's clock.
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self.lock:
            known = self._digests.get(entry.path)
        if known is not None and known[0] == version:
            return known[1]
        results = Digests.of_file(entry.path)
        with self.lock:
            self._digests[entry.path] = (version, results)
        return results

    def make_directory(self, relative: str) -> None:
        """:raises OSError: FileExistsError; FileNotFoundError for a missing parent; and as :meth:`entry`."""
        self.on_disk(relative).mkdir()

    def touch(self, relative: str) -> None:
        """:raises OSError: as :meth:`make_directory`."""
        self.on_disk(relative).open("xb").close()
        self.attributes(relative).without_checksums = True

    def set_metadata(self, relative: str, metadata: dict[str, str]) -> None:
        """Add or replace arbitrary metadata of what is there.

        :raises OSError: as :meth:`entry`.
        """
        with self.lock:
            self._metadata.setdefault(self.entry(relative).relative, {}).update(metadata)

    def unset_metadata(self, relative: str, keys: Iterable[str]) -> None:
        """Remove arbitrary metadata of what is there; those that are not there, too.

        :raises OSError: as :meth:`entry`.
        """
        with self.lock:
            known = self._metadata.get(self.entry(relative).relative, {})
            for key in keys:
                known.pop(key, None)

    def commit(self, file: Path, relative: str, *, mtime_s: float | None, declared_size: int | None) -> None:
        """Make ``file`` the content of a path, in place of what is there.

        :raises OSError: FileNotFoundError for a missing parent, IsADirectoryError, ENAMETOOLONG.
        """
        target = self.on_disk(relative)
        if mtime_s is not None:
            os.utime(file, (mtime_s, mtime_s))
        with self.lock:
            if target.is_file():
                # Its inode stays in use, so that the successor's etag is another within the same second, too.
                self._keep_version(relative)
            file.replace(target)
            known = self.attributes(relative)
            known.declared_size = None if declared_size == target.stat().st_size else declared_size
            known.without_checksums = False

    def set_aside(self, relative: str) -> None:
        """Move a resource out of the tree, with all below it, to the versions of its path."""
        with self.lock:
            self._keep_version(relative)
            self._forget(self.clean(relative))

    def old_versions(self, relative: str) -> list[OldVersion]:
        """What was overwritten at a place, or of the file that is there; newest first.

        :raises OSError: as :meth:`entry`, but where trees go by path: there nobody looks whether a file is there.
        """
        relative = self.clean(relative)
        with self.lock:
            node_id = "" if self._by_path else self.entry(relative).node_id
            return sorted(self._versions.of(relative, node_id), key=lambda version: version.mtime, reverse=True)

    def _keep_version(self, relative: str) -> None:
        entry = self.entry(relative)
        self._versions.keep(entry.relative, entry.node_id, entry.path, entry.size)

    def move(self, source: str, destination: str) -> None:
        """Rename; a file at the destination is replaced.

        :raises OSError: FileNotFoundError, and FileExistsError for a folder at the destination.
        :raises MetadataClash: after the move.
        """
        source, destination = self.clean(source), self.clean(destination)
        target = self.root / destination
        with self.lock:
            if source == destination and self.exists(source):
                return
            if target.is_dir():
                raise FileExistsError(destination)
            (self.root / source).rename(target)
            self._forget(destination)
            for path in self._below(source):
                self._attributes[destination + path[len(source) :]] = self._attributes.pop(path)
            self._move_metadata(source, destination)

    def _move_metadata(self, source: str, destination: str) -> None:
        if not self._by_path:
            for path in [path for path in self._metadata if path == source or path.startswith(f"{source}/")]:
                self._metadata[destination + path[len(source) :]] = self._metadata.pop(path)
            return
        # Reva v3.12.1 local, in its database: those of the path itself, none of what is below it, and nothing at all
        # where that would give one key twice (Move is INTERNAL then, and done).
        moving = self._metadata.get(source, {})
        standing = self._metadata.get(destination, {})
        if moving.keys() & standing.keys():
            raise MetadataClash(destination)
        if moving:
            self._metadata[destination] = {**standing, **self._metadata.pop(source)}

    def delete(self, relative: str, *, key: str, deleted_ms: int) -> None:
        """Move a resource, with all below it, to the recycle bin.

        :raises OSError: as :meth:`entry`; FileExistsError after it was done, where the key was taken.
        """
        relative = self.clean(relative)
        with self.lock:
            entry = self.entry(relative)
            entry.path.rename(self._bin / key)
            self._forget(relative)
            standing = self._recycled.get(key)
            if standing is not None:
                # Reva v3.12.1 local: two of one name within a millisecond have one key. The later takes the earlier's
                # place, under the earlier's path, and the answer is INTERNAL.
                self._recycled[key] = replace(standing, size=entry.size)
                raise FileExistsError(errno.EEXIST, key)
            self._recycled[key] = RecycledItem(
                key=key,
                relative=relative,
                is_directory=entry.is_directory,
                size=entry.size,
                deleted_ms=deleted_ms,
            )

    def recycled(self) -> list[RecycledItem]:
        with self.lock:
            return list(self._recycled.values())

    def restore(self, key: str, relative: str | None = None) -> None:
        """Move an item of the recycle bin back, to where it was or to ``relative``.

        :raises KeyError: no such item.
        :raises OSError: FileExistsError, FileNotFoundError for a missing parent.
        """
        with self.lock:
            item = self._recycled[key]
            target = self.on_disk(item.relative if relative is None else relative)
            if target.exists():
                raise FileExistsError(str(target))
            (self._bin / key).rename(target)
            del self._recycled[key]
            if not self._by_path:
                # It is the same resource as before.
                self.attributes(item.relative if relative is None else relative).node_id = key

    def recycled_bytes(self, key: str) -> int:
        """Bytes of a file in the recycle bin, or of all files in a folder there.

        :raises KeyError: no such item.
        """
        with self.lock:
            place = self._bin / self._recycled[key].key
            files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
            return sum(path.stat().st_size for path in files)

    def recycled_content(self, key: str) -> list[Path]:
        """What is in a folder in the recycle bin.

        :raises KeyError: no such item.
        :raises OSError: it is a file.
        """
        with self.lock:
            return sorted((self._bin / self._recycled[key].key).iterdir())

    def purge(self, key: str | None) -> None:
        """Remove one item of the recycle bin for good, or all.

        :raises KeyError: no such item.
        :raises OSError: as the ``local`` driver of Reva v3.12.1 where trees go by path: a folder that is not empty.
        """
        with self.lock:
            keys = list(self._recycled) if key is None else [key]
            for one in keys:
                item = self._recycled[one]
                place = self._bin / one
                if not item.is_directory:
                    place.unlink()
                elif self._by_path and key is not None:
                    place.rmdir()
                else:
                    shutil.rmtree(place)
                del self._recycled[one]
                self._versions.forget(one)

    def _below(self, relative: str) -> list[str]:
        return [path for path in self._attributes if path == relative or path.startswith(f"{relative}/")]

    def _forget(self, relative: str) -> None:
        for path in self._below(relative):
            del self._attributes[path]
            if not self._by_path:
                self._metadata.pop(path, None)
