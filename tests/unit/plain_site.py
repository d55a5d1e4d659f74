"""A plain WebDAV site as an end of a transfer, for the tests of that."""

from __future__ import annotations

import io
from typing import Any

from rucio_cs3.cs3 import BearerProvider, Secret, Timeouts, WebDAVBase
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.config import WebDAVSite
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import MountRoot
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.transfers.site_tokens import SiteTokens
from rucio_cs3.transfers.webdav_end import WebDAVEnd
from tests.recording_site import RecordingSite

TOKEN = "configured-token"
CONTENT = bytes(range(256)) * 8192  # two pieces


def end_of(
    site: RecordingSite, path: str = "/rucio/f", provider: CredentialProvider | None = None, **changes: Any
) -> WebDAVEnd:
    server = WebDAVBase.parse(f"{site.url}/", MountRoot("/"))
    settings = {"name": "PLAIN", "timeouts": Timeouts(connect_s=5, idle_s=5), **changes}
    described = WebDAVSite(server=server, prefix=server.reference(f"{site.url}/rucio/"), **settings)
    provider = provider or BearerProvider(Secret(TOKEN))
    return WebDAVEnd(described, SiteTokens(described, provider, provider), f"{site.url}{path}")


def body_of(content: bytes) -> UploadBody:
    return UploadBody(io.BytesIO(content), len(content), Digests(), name="f")
