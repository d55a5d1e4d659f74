"""What scopes are worth at a real Reva: docs/security.md says that they narrow nothing there, and here that is seen."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from cs3.auth.applications.v1beta1 import applications_api_pb2
from cs3.auth.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, WebDAVBase
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.providers import AppPasswordProvider, BearerProvider, CredentialProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.cs3.reference import parse_root
from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.reva import RevaSite

pytestmark = pytest.mark.reva


def endpoint_of(site: RevaSite) -> Endpoint:
    webdav = WebDAVBase.parse(site.webdav_url, parse_root(site.root))
    return Endpoint(name=site.name, gateway=site.gateway, gateway_tls=site.gateway_tls, webdav=webdav)


def write_and_delete(site: RevaSite, provider: CredentialProvider, name: str, local: Path) -> None:
    (local / "up").write_text(name)
    with CS3Storage(endpoint_of(site), provider) as storage:
        file = Reference(storage.endpoint.root, f"scoped/{name}")
        storage.upload(local / "up", file)
        assert site.path_on_disk(file.path).read_text() == name
        storage.delete_file(file)
        assert not site.path_on_disk(file.path).exists()


def test_a_token_for_reading_alone_and_for_others_may_write(tmp_path: Path) -> None:
    """Reva v3.12.1 reads from it who somebody is, and neither its scope nor its audience."""
    with Issuer() as issuer, RevaSite("scoped", issuer=issuer.url) as site:
        user = next(iter(site.users))
        token = issuer.access_token(user, audience="somebody-else", scope="storage.read:/elsewhere")
        write_and_delete(site, BearerProvider(Secret(token)), "bearer", tmp_path)


def test_an_app_password_for_looking_alone_may_write(reva_sites: tuple[RevaSite, RevaSite], tmp_path: Path) -> None:
    site, _ = reva_sites
    below = types_pb2.OpaqueEntry(decoder="json", value=json.dumps({"path": "/"}).encode())
    request = applications_api_pb2.GenerateAppPasswordRequest(
        label="for looking", token_scope={"user": resources_pb2.Scope(resource=below, role=resources_pb2.ROLE_VIEWER)}
    )
    user = next(iter(site.users.values()))
    with contextlib.closing(Gateway(endpoint_of(site), BasicProvider(user.username, Secret(user.password)))) as gateway:
        password = gateway.ask("GenerateAppPassword", request, "for looking").app_password.password
    write_and_delete(site, AppPasswordProvider(user.username, Secret(password)), "appauth", tmp_path)
