"""A cloud and a catalogue in memory, for tests of registering."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rucio_cs3.clouds import Cloud, Place
from rucio_cs3.cs3 import BasicProvider, Endpoint, Secret, WebDAVBase, errors
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.cs3.resources import Entries, FileInfo
from rucio_cs3.registration.catalogue import MOST, Known, NewFile, Refused
from rucio_cs3.registration.naming import Naming
from rucio_cs3.registration.plan import Row
from rucio_cs3.registration.registration import Options, Registration
from rucio_cs3.registration.templates import Did

ROOT = MountRoot("/")


class Storage:
    """Folders in memory; what is asked beside lists and reads fails, as there are no such methods.

    :param sums: whether listings have checksums.
    """

    def __init__(self, files: Mapping[str, bytes], *, sums: bool = True) -> None:
        self.files = dict(files)
        self.sums = sums
        self.processing: set[str] = set()
        self.unlistable: set[str] = set()
        self.reads: list[str] = []
        self.broken: set[str] = set()

    def info(self, path: str) -> FileInfo:
        data = self.files[path]
        return FileInfo(
            reference=Reference(ROOT, f"base/{path}"),
            size=len(data),
            is_directory=False,
            checksums={"adler32": f"{zlib.adler32(data):08x}", "sha1": "0" * 40} if self.sums else {},
            etag=str(hash(data)),
            processing=path in self.processing,
        )

    def list(self, folder: Reference, **_: Any) -> Entries:
        below = folder.path.removeprefix("base").strip("/")
        if below in self.unlistable:
            raise errors.AccessDenied("no", operation="ListContainer", target=str(folder))
        prefix = f"{below}/" if below else ""
        inside = sorted(path for path in self.files if path.startswith(prefix))
        found = Entries()
        for name in sorted({path[len(prefix) :].partition("/")[0] for path in inside}):
            if prefix + name in self.files:
                found.append(self.info(prefix + name))
            else:
                found.append(FileInfo(reference=folder.child(name), size=0, is_directory=True))
        return found

    def digests(self, reference: Reference, _: Collection[str], **__: Any) -> dict[str, str]:
        path = reference.path.removeprefix("base/")
        self.reads.append(path)
        if path in self.broken:
            raise errors.TransferInterrupted("the line broke", operation="GET", target=str(reference))
        return {"adler32": f"{zlib.adler32(self.files[path]):08x}"}

    def stat(self, reference: Reference) -> FileInfo:
        return self.info(reference.path.removeprefix("base/"))


class MemoryCloud(Cloud):
    """A cloud whose storage is :class:`Storage`."""

    memory: Storage

    @property
    def storage(self) -> Any:
        return self.memory


def cloud_of(storage: Storage) -> MemoryCloud:
    made = MemoryCloud(
        name="CLOUD",
        endpoint=Endpoint(
            name="CLOUD",
            gateway="127.0.0.1:1",
            gateway_tls=False,
            webdav=WebDAVBase.parse("http://127.0.0.1:1/webdav", ROOT),
        ),
        provider=BasicProvider("jdoe", Secret("not-a-secret")),
        folder=Reference(ROOT, "base"),
        scheme="http",
    )
    object.__setattr__(made, "memory", storage)
    return made


@dataclass
class Catalogue:
    """Rucio in memory: DIDs, the replicas of one RSE, what is in what, and rules; and how often it was asked."""

    vo: str = "def"
    most: int = MOST
    described: str = "memory"
    remark: str = ""
    dids: dict[Did, Known] = field(default_factory=dict)
    content: set[tuple[Did, Did]] = field(default_factory=set)
    rules: set[Did] = field(default_factory=set)
    #: DIDs that this Rucio takes for no reason that anybody could know before.
    disliked: set[Did] = field(default_factory=set)
    #: Names that this Rucio does not even look up.
    disallowed: set[Did] = field(default_factory=set)
    writes: list[str] = field(default_factory=list)
    #: What was said to be unknown to Rucio.
    unknown: set[Did] = field(default_factory=set)

    def scopes(self) -> Collection[str]:
        return {"jdoe", "projects", "group"}

    def look(self, dids: Collection[Did], *, parents: Collection[Did] = ()) -> Mapping[Did, Known]:
        if self.disallowed & set(dids):
            raise Refused("against the schema")
        return {
            did: replace(self.dids[did], parents=frozenset(p for p in parents if (p, did) in self.content))
            for did in dids
            if did in self.dids
        }

    def others(self, paths: Collection[str]) -> Mapping[str, Did]:
        # A copy: another thread may register meanwhile.
        known = list(self.dids.items())
        return {one.path: did for did, one in known if one.path is not None and one.path in paths}

    def make(self, collections: Collection[Did], kind: str) -> None:
        self.writes.append("make")
        for did in collections:
            self.dids.setdefault(did, Known(kind=kind, is_open=True))

    def add(self, files: Sequence[NewFile], attachments: Mapping[Did, Collection[Did]]) -> None:
        self.writes.append("add")
        if self.disliked & {file.did for file in files}:
            raise Refused("no such names here")
        for file in files:
            path = file.pfn.partition("/base/")[2]
            if file.is_unknown:
                self.unknown.add(file.did)
            self.dids[file.did] = Known(
                kind="FILE", size=file.size, checksums=file.checksums, state="AVAILABLE", path=path
            )
        self.attach(attachments)

    def attach(self, attachments: Mapping[Did, Collection[Did]]) -> None:
        for parent, children in attachments.items():
            self.writes.append("attach")
            self.content |= {(parent, child) for child in children}

    def add_rule(self, dataset: Did, *, locked: bool) -> bool:
        if dataset in self.disliked:
            raise Refused("no quota")
        new = dataset not in self.rules
        self.rules.add(dataset)
        return new


@dataclass
class World:
    """One cloud and one catalogue."""

    storage: Storage
    catalogue: Catalogue = field(default_factory=Catalogue)

    def place(self, folder: str = "") -> Place:
        return cloud_of(self.storage).place(folder)

    def registration(
        self,
        folder: str = "",
        *,
        scope: str = "jdoe",
        name: str = "{path}",
        dataset: str | None = None,
        container: str | None = None,
        **more: Any,
    ) -> Registration:
        naming = Naming.parse(scope=scope, name=name, dataset=dataset, container=container)
        wanted = {"schema": None, "deterministic": None, **more}
        options = {key: wanted.pop(key) for key in ("exclude", "size_only", "dry_run") if key in wanted}
        return Registration(self.place(folder), self.catalogue, Options(naming=naming, **options), **wanted)

    def run(self, folder: str = "", **more: Any) -> dict[str, Row]:
        """Place without the cloud's name -> row."""
        return {row.place.removeprefix("CLOUD:"): row for row in self.registration(folder, **more).rows()}
