"""Two real Reva sites, side by side on this machine or as far from it as from each other; and files at the one of them.

Far means that whoever is not the site itself reaches its gateway, its WebDAV front end and its data gateway over links
(:mod:`far_link`): the agent and curl both sites, and the destination the source. What a site asks of itself passes no
link.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from far_link import FarLink

from rucio_cs3.cs3 import CS3Storage, Endpoint
from rucio_cs3.cs3.login.providers import BasicProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.cs3.reference import WebDAVBase, parse_root
from rucio_cs3.sandbox.reva import RevaSite

#: What our own requests to a data gateway have in them; the site's front end, which uses the same tickets, is another.
_OURS = b"User-Agent: rucio-cs3"


class FarSite(contextlib.ExitStack):
    """A Reva site and the links to it; what else a :class:`~rucio_cs3.sandbox.story.Cloud` has is the site's own.

    :param round_trip_s: of each link; 0 for no links at all.
    """

    def __init__(self, name: str, directory: Path, round_trip_s: float) -> None:
        super().__init__()
        if not round_trip_s:
            self.site = self.enter_context(RevaSite(name, directory=directory))
            self.gateway, self.webdav_url = self.site.gateway, self.site.webdav_url
            return
        grpc, data, webdav = (self.enter_context(FarLink()) for _ in range(3))
        site = RevaSite(name, directory=directory, data_gateway_url=f"http://{data.address}/datagateway")
        grpc.lead_to(site.gateway)
        for link in (data, webdav):
            link.lead_to(urlsplit(site.http_url).netloc)
        for link in (grpc, webdav):
            link.behave(round_trip_s=round_trip_s)
        data.behave(round_trip_s=round_trip_s, only=_OURS)
        self.site = self.enter_context(site)
        self.gateway = grpc.address
        self.webdav_url = f"http://{webdav.address}{urlsplit(site.webdav_url).path}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.site, name)

    def storage(self) -> CS3Storage:
        """As a client reaches it; to be closed."""
        user = next(iter(self.site.users.values()))
        endpoint = Endpoint(
            name=self.site.name,
            gateway=self.gateway,
            gateway_tls=False,
            webdav=WebDAVBase.parse(self.webdav_url, root=parse_root(self.site.root)),
        )
        return CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password)))


class TwoSites(contextlib.ExitStack):
    """A context manager.

    :param folder: for all that the sites keep.
    :param round_trip_s: between any two of the sites and this machine.
    """

    def __init__(self, folder: Path, round_trip_s: float = 0.0) -> None:
        super().__init__()
        self.source, self.destination = (
            self.enter_context(FarSite(name, folder / name, round_trip_s)) for name in ("source", "destination")
        )
        self._storages = [self.enter_context(site.storage()) for site in (self.source, self.destination)]

    def make_files(self, paths: Sequence[str], size: int) -> list[str]:
        """New files at the source, and the folders at both sites.

        :param paths: relative to the WebDAV base.
        :returns: their adler32.
        """
        sums = []
        for path in paths:
            for site in (self.source, self.destination):
                site.path_on_disk(path).parent.mkdir(parents=True, exist_ok=True)
            content = os.urandom(size)
            self.source.path_on_disk(path).write_bytes(content)
            sums.append(f"{zlib.adler32(content):08x}")
        return sums

    def copies(self, paths: Sequence[str]) -> list[str]:
        """A configuration for curl for each file: the bare ``COPY``. With tokens, so it goes through standard input."""
        source, destination = (storage.access_token() for storage in self._storages)
        return [
            "\n".join(
                (
                    f'url = "{self.destination.webdav_url}/{path}"',
                    "request = COPY",
                    f'header = "Source: {self.source.webdav_url}/{path}"',
                    'header = "Overwrite: F"',
                    f'header = "Authorization: Bearer {destination}"',
                    f'header = "TransferHeaderAuthorization: Bearer {source}"',
                    'output = "/dev/null"',
                    "fail",
                )
            )
            for path in paths
        ]

    def reads(self, paths: Sequence[str]) -> list[str]:
        """The same for a read of each file at the destination."""
        token = self._storages[1].access_token()
        return [
            "\n".join(
                (
                    f'url = "{self.destination.webdav_url}/{path}"',
                    f'header = "Authorization: Bearer {token}"',
                    'output = "/dev/null"',
                    "fail",
                )
            )
            for path in paths
        ]

    def check(self, paths: Sequence[str], size: int) -> None:
        """
        :raises RuntimeError: unless all files are at the destination, whole.
        """
        arrived = [self.destination.path_on_disk(path) for path in paths]
        wrong = [path for path in arrived if not path.exists() or path.stat().st_size != size]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(paths)} files did not arrive, {wrong[0]} among them")
