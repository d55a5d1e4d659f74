"""A fresh folder in a cloud under test, and what a case does there: local files, fault scripts, looks at the disk."""

from __future__ import annotations

import random
import time
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, Timeouts, WebDAVBase, parse_root
from rucio_cs3.sandbox.cloud.faults import Faults
from rucio_cs3.sandbox.cloud.traffic import Passed, Traffic
from rucio_cs3.sandbox.reva import User

#: Long enough for a loaded machine, short enough that a case which hangs is seen.
TIMEOUTS = Timeouts(call_s=20.0, operation_s=40.0, connect_s=10.0, idle_s=20.0, processing_s=20.0)

#: A silence that a case waits for; nothing else in it takes long.
SHORT_S = 0.4

#: How long a server may take to tidy up after a connection that broke.
SETTLE_S = 5.0


class Cloud(Protocol):
    """What every cloud under test offers; the embedded ones and :class:`tests.contract.faulty_reva.FaultyReva` do."""

    @property
    def name(self) -> str: ...
    @property
    def gateway(self) -> str: ...
    @property
    def webdav_url(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def users(self) -> dict[str, User]: ...
    @property
    def data_directory(self) -> Path: ...
    @property
    def faults(self) -> Faults: ...
    @property
    def traffic(self) -> Traffic: ...
    def path_on_disk(self, relative: str) -> Path: ...


def endpoint_of(cloud: Cloud, **changes: Any) -> Endpoint:
    """The endpoint of a cloud, as a user would set it up."""
    endpoint = Endpoint(
        name=cloud.name,
        gateway=cloud.gateway,
        gateway_tls=False,
        webdav=WebDAVBase.parse(cloud.webdav_url, parse_root(cloud.root)),
        timeouts=TIMEOUTS,
    )
    return replace(endpoint, **changes)


def provider_of(cloud: Cloud) -> BasicProvider:
    """The first user's login."""
    user = next(iter(cloud.users.values()))
    return BasicProvider(user.username, Secret(user.password))


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that look random, and are the same each time."""
    return random.Random(seed).randbytes(size)


def adler32(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


@dataclass(kw_only=True)
class Place:
    """A fresh folder.

    :param folder: the folder in the cloud; it exists.
    :param local: a folder on the local disk.
    """

    cloud: Cloud
    storage: CS3Storage
    folder: Reference
    local: Path
    _storages: list[CS3Storage] = field(default_factory=list)

    @property
    def provider(self) -> BasicProvider:
        """The first user's login."""
        return provider_of(self.cloud)

    @property
    def endpoint(self) -> Endpoint:
        """The settings of :attr:`storage`."""
        return self.storage.endpoint

    def file(self, name: str) -> Reference:
        """The place ``name`` below the folder."""
        return self.folder.child(name)

    def local_file(self, data: bytes, name: str = "local.bin") -> Path:
        path = self.local / name
        path.write_bytes(data)
        return path

    def put(self, name: str, data: bytes) -> Reference:
        """Upload bytes under a name, in the plain way."""
        reference = self.file(name)
        self.storage.upload(self.local_file(data, "put.bin"), reference)
        return reference

    def fault(self, point: str, script: str, times: int = 1) -> None:
        """Plan a fault; the fixture fails the case where it did not happen."""
        self.cloud.faults.add(point, script, times)

    def pending(self) -> list[str]:
        """Fault scripts that have not happened yet."""
        return self.cloud.faults.pending()

    def passed(self, *points: str) -> list[Passed]:
        """The HTTP requests of this case at these fault points, or all, oldest first."""
        return self.cloud.traffic.of(*points)

    def on_disk(self, reference: Reference) -> Path:
        """Where the server keeps a file."""
        return self.cloud.path_on_disk(reference.path)

    def stored(self, reference: Reference) -> bytes:
        """The bytes on the server's disk."""
        return self.on_disk(reference).read_bytes()

    def names(self) -> list[str]:
        """What is in the folder, as the cloud lists it; its disk must say the same.

        A server may need a moment to tidy up after a broken connection, so both are looked at until they agree.
        """
        deadline = time.monotonic() + SETTLE_S
        while True:
            listed = [info.reference.name for info in self.storage.list(self.folder)]
            there = sorted(path.name for path in self.on_disk(self.folder).iterdir())
            if sorted(listed) == there or time.monotonic() > deadline:
                assert sorted(listed) == there
                return listed
            time.sleep(0.05)

    def local_names(self) -> list[str]:
        """What is in the local folder."""
        return sorted(path.name for path in self.local.iterdir())

    def another(self, provider: BasicProvider | None = None, **changes: Any) -> CS3Storage:
        """One more storage for this cloud, with other settings or another login; closed by the fixture."""
        storage = CS3Storage(endpoint_of(self.cloud, **changes), provider or provider_of(self.cloud))
        self._storages.append(storage)
        return storage

    def impatient(self) -> CS3Storage:
        """A storage that waits for a silent data connection only shortly."""
        return self.another(timeouts=replace(TIMEOUTS, idle_s=SHORT_S))

    def close(self) -> None:
        for storage in (self.storage, *self._storages):
            storage.close()
