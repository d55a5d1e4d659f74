"""One way to speak of the two kinds of sites in these tests: where their files are, and how they become ends."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import BasicProvider, BearerProvider, CS3Storage, Endpoint, Secret, Timeouts, WebDAVBase, parse_root
from rucio_cs3.cs3.config import Proof, WebDAVSite
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.xrootd import XRootDSite
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.ladder import Job, Outcome, transfer_one
from rucio_cs3.transfers.modes import Mode, Wish
from rucio_cs3.transfers.site_tokens import SiteTokens
from rucio_cs3.transfers.webdav_end import WebDAVEnd

#: Long enough for a loaded machine, short enough that a case which hangs is seen.
TIMEOUTS = Timeouts(call_s=20.0, operation_s=40.0, connect_s=10.0, idle_s=30.0, processing_s=20.0)

CONTENT = secrets.token_bytes(3 * 1024 * 1024 + 17)

MODES: tuple[Wish, ...] = ("pull", "push", "relay")


@dataclass(frozen=True)
class Partner:
    """A site under test.

    :param end: makes an end of a relative path.
    :param on_disk: where a file is, for looking.
    :param write: puts a file there.
    """

    name: str
    end: Callable[[str, Wish], End]
    on_disk: Callable[[str], Path]
    write: Callable[[str, bytes], Path]

    def read(self, path: str) -> bytes | None:
        """What stands there; None where nothing does."""
        place = self.on_disk(path)
        return place.read_bytes() if place.is_file() else None


def names_beside(place: Path) -> list[str]:
    """All that stands in a file's folder, hidden or not, and the file."""
    return sorted(path.name for path in place.parent.iterdir()) if place.parent.is_dir() else []


def _write(place: Path, content: bytes) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def plain_site(name: str, url: str, ca_bundle: Path | None, *, proof: Proof = "read") -> WebDAVSite:
    """A site as :func:`rucio_cs3.rses.webdav_site` would describe it; ``url`` is the prefix."""
    server = WebDAVBase.parse(url[: url.index("/", len("https://"))] + "/", MountRoot("/"))
    return WebDAVSite(
        name=name, server=server, prefix=server.reference(url), ca_bundle=ca_bundle, timeouts=TIMEOUTS, proof=proof
    )


def webdav_end(site: WebDAVSite, provider: CredentialProvider, url: str, wish: Wish = "auto") -> WebDAVEnd:
    return WebDAVEnd(site, SiteTokens(site, provider, provider), url, wish=wish)


def of_xrootd(site: XRootDSite, token: str | None = None) -> Partner:
    """The plain site that all of this is about."""
    described = plain_site(site.name, site.url, site.ca_bundle)
    provider = BearerProvider(Secret(token or site.token()))
    return Partner(
        site.name,
        lambda path, wish: webdav_end(described, provider, f"{site.url}/{path}", wish),
        site.path_on_disk,
        site.write,
    )


def _storage_of(cloud: RevaSite | EmbeddedCloud) -> CS3Storage:
    user = next(iter(cloud.users.values()))
    endpoint = Endpoint(
        name=cloud.name,
        gateway=cloud.gateway,
        gateway_tls=cloud.gateway_tls,
        webdav=WebDAVBase.parse(cloud.webdav_url, parse_root(cloud.root)),
        ca_bundle=cloud.ca_bundle,
        timeouts=TIMEOUTS,
    )
    return CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password)))


@contextmanager
def of_cloud(cloud: RevaSite | EmbeddedCloud) -> Iterator[Partner]:
    """A CS3 cloud as itself: gRPC and HTTP."""
    with _storage_of(cloud) as storage:
        endpoint = storage.endpoint

        def end(path: str, wish: Wish) -> End:
            reference = endpoint.webdav.reference(f"{cloud.webdav_url}/{path}")
            return CS3End(storage, reference, url=endpoint.webdav.url(reference), wish=wish)

        yield Partner(
            cloud.name, end, cloud.path_on_disk, lambda path, content: _write(cloud.path_on_disk(path), content)
        )


@contextmanager
def of_cloud_as_plain(cloud: RevaSite | EmbeddedCloud) -> Iterator[Partner]:
    """A CS3 cloud that we know as a WebDAV site only: HTTP, with a token that somebody else got for us."""
    with _storage_of(cloud) as storage:
        provider = BearerProvider(Secret(storage.access_token()))
    described = plain_site(cloud.name, cloud.webdav_url + "/", cloud.ca_bundle)
    yield Partner(
        f"{cloud.name}-as-webdav",
        lambda path, wish: webdav_end(described, provider, f"{cloud.webdav_url}/{path}", wish),
        cloud.path_on_disk,
        lambda path, content: _write(cloud.path_on_disk(path), content),
    )


def job_of(content: bytes = CONTENT, *, attempt: int = 0) -> Job:
    return Job(
        request_id=secrets.token_hex(16),
        size_bytes=len(content),
        adler32=f"{zlib.adler32(content):08x}",
        attempt=attempt,
    )


class Free:
    """A claim that nobody contests."""

    def check(self) -> None: ...

    def confirm(self) -> None: ...

    def allow_removal(self) -> None: ...


@dataclass
class Seen:
    """Watches."""

    modes: list[Mode] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)

    def began(self, mode: Mode) -> None:
        self.modes.append(mode)

    def moved(self, total_bytes: int) -> None:
        self.amounts.append(total_bytes)

    def copied(self) -> None: ...


def transfer(
    source: End, destination: End, content: bytes = CONTENT, *, attempt: int = 0, watch: Seen | None = None
) -> Outcome:
    return transfer_one(job_of(content, attempt=attempt), source, destination, Free(), watch or Seen())
