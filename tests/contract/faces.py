"""The two public faces of the data path: :class:`CS3Storage` for any program, and the protocol class for Rucio.

A case that is run on both says what is wanted once; each face says it in its own words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from rucio_cs3.cs3 import CS3Storage, Reference, errors
from tests.contract.place import TIMEOUTS, Place

#: What Rucio's own temporary names end with; the protocol replaces only such files.
_TEMPORARY = ".rucio.upload"


class Face(Protocol):
    """One way to move a file.

    :attr:`target` is the name that an upload goes to; :attr:`overwrite` whether a file stands there.
    """

    target: Reference
    overwrite: bool

    def upload(self, local: Path, *, progress: Callable[[int], None] | None = None) -> None: ...

    def download(self, reference: Reference, local: Path, *, progress: Callable[[int], None] | None = None) -> None: ...

    def reason(self, error: BaseException) -> errors.CS3Error:
        """What is behind an error that came out of here; fails the case where it is of the wrong kind."""
        ...


@dataclass
class StorageFace:
    """``CS3Storage`` itself; reads back what it has uploaded, as the protocol does."""

    place: Place
    overwrite: bool
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.storage: CS3Storage = self.place.another(**self.settings)
        self.target = self.place.file("target")

    def upload(self, local: Path, *, progress: Callable[[int], None] | None = None) -> None:
        self.storage.upload(local, self.target, overwrite=self.overwrite, read_back=True, progress=progress)

    def download(self, reference: Reference, local: Path, *, progress: Callable[[int], None] | None = None) -> None:
        self.storage.download(reference, local, progress=progress)

    def reason(self, error: BaseException) -> errors.CS3Error:
        assert isinstance(error, errors.CS3Error), repr(error)
        return error


class RucioFace:
    """The protocol class, as Rucio makes it for an RSE of this cloud. Knows no progress: it is not Rucio's."""

    overwrite = True

    def __init__(self, place: Place, settings: dict[str, Any] | None = None) -> None:
        from rucio.rse import rsemanager

        self.place = place
        self.target = place.file(f"target{_TEMPORARY}")
        self._protocol: Any = rsemanager.create_protocol(rse_of(place, settings or {}), "write")
        user = next(iter(place.cloud.users.values()))
        self._protocol.connect({"username": user.username, "password": user.password})

    def upload(self, local: Path, *, progress: Callable[[int], None] | None = None) -> None:
        self._protocol.put(local.name, self._pfn(self.target), source_dir=str(local.parent))

    def download(self, reference: Reference, local: Path, *, progress: Callable[[int], None] | None = None) -> None:
        self._protocol.get(self._pfn(reference), str(local))

    def reason(self, error: BaseException) -> errors.CS3Error:
        from rucio.common.exception import RucioException

        assert isinstance(error, RucioException), repr(error)
        cause = error.__cause__
        assert isinstance(cause, errors.CS3Error), repr(cause)
        # Rucio often keeps only the text, so it must be all there.
        assert str(cause) in str(error)
        return cause

    def _pfn(self, reference: Reference) -> str:
        return str(self._protocol.endpoint.webdav.url(reference))


def rse_of(place: Place, settings: dict[str, Any]) -> dict[str, Any]:
    """What Rucio's ``get_rse_info`` gives for an RSE whose files are below the folder of the case."""
    url = urlsplit(place.cloud.webdav_url)
    domains = {domain: dict.fromkeys(("read", "write", "delete"), 1) for domain in ("lan", "wan")}
    extended = {
        "cs3_gateway": place.cloud.gateway,
        "cs3_gateway_tls": False,
        "cs3_root": place.cloud.root,
        "cs3_idle_timeout_s": TIMEOUTS.idle_s,
        "cs3_call_timeout_s": TIMEOUTS.call_s,
        **settings,
    }
    protocol = {
        "scheme": "http",
        "hostname": url.hostname,
        "port": url.port,
        "prefix": f"{url.path}/{place.folder.path}/",
        "impl": "rucio_cs3.protocol.Default",
        "extended_attributes": extended,
        "domains": domains,
    }
    return {
        "id": "0123abcd",
        "rse": "CLOUD",
        "protocols": [protocol],
        "verify_checksum": True,
        "deterministic": True,
        "lfn2pfn_algorithm": "hash",
        "sign_url": None,
    }
