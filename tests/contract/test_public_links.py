"""C1408 to C1412: public links, at an embedded cloud and at a real Reva. What is promised: docs/contract.md."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cs3.sharing.link.v1beta1 import link_api_pb2
from cs3.sharing.link.v1beta1 import resources_pb2 as link_pb2
from cs3.storage.provider.v1beta1 import provider_api_pb2
from cs3.storage.provider.v1beta1 import resources_pb2 as storage_pb2

from rucio_cs3.cs3 import CS3Storage, Reference, errors, resources
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.providers import PublicLinkProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers.cs3_end import CS3End
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Wish
from tests.contract.place import adler32, content, endpoint_of, provider_of
from tests.partners.ends import transfer

LOOK = {"stat": True, "initiate_file_download": True, "list_container": True, "get_path": True}
EDIT = {**LOOK, "create_container": True, "delete": True, "initiate_file_upload": True, "move": True}
PASSWORD = "a-word-of-the-link"
DATA = content(5000)


@dataclass(frozen=True, kw_only=True)
class Sharer:
    """Somebody who shows a folder of a cloud.

    :param cloud: an EmbeddedCloud or a RevaSite.
    :param folder: what is shown; new, with one file ``first``.
    """

    cloud: Any
    gateway: Gateway
    folder: Reference

    def file(self, name: str) -> Reference:
        return self.folder.child(name)

    def disk(self, reference: Reference) -> Path:
        return Path(self.cloud.path_on_disk(reference.path))

    def names(self) -> list[str]:
        """All files that are shown."""
        return sorted(path.name for path in self.disk(self.folder).rglob("*") if path.is_file())

    def link(self, permissions: dict[str, bool], password: str = "", ends_at: int = 0) -> str:
        stat = provider_api_pb2.StatRequest(ref=resources.to_message(self.folder))
        grant = link_pb2.Grant(password=password)
        grant.permissions.permissions.CopyFrom(storage_pb2.ResourcePermissions(**permissions))
        if ends_at:
            grant.expiration.seconds = ends_at
        request = link_api_pb2.CreatePublicShareRequest(
            resource_info=self.gateway.ask("Stat", stat, "").info, grant=grant
        )
        return str(self.gateway.ask("CreatePublicShare", request, "").share.token)

    def remove(self, link: str) -> None:
        reference = link_pb2.PublicShareReference(token=link)
        self.gateway.ask("RemovePublicShare", link_api_pb2.RemovePublicShareRequest(ref=reference), "")

    def opened(self, link: str, password: str | None = None, **changes: Any) -> CS3Storage:
        provider = PublicLinkProvider(Secret(link), None if password is None else Secret(password))
        return CS3Storage(endpoint_of(self.cloud, **changes), provider)


@pytest.fixture(scope="module", params=["v3", pytest.param("reva", marks=pytest.mark.reva)])
def cloud(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "reva":
        request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
        with RevaSite("links") as site:
            yield site
    else:
        with EmbeddedCloud(name="links") as embedded:
            yield embedded


@pytest.fixture
def sharer(cloud: Any, tmp_path: Path) -> Iterator[Sharer]:
    endpoint, provider = endpoint_of(cloud), provider_of(cloud)
    folder = Reference(endpoint.root, f"{uuid.uuid4().hex[:8]}/shown")
    (tmp_path / "up").write_bytes(DATA)
    with CS3Storage(endpoint, provider) as storage, contextlib.closing(Gateway(endpoint, provider)) as gateway:
        for place in (folder.child("first"), folder.parent.child("hidden")):
            storage.upload(tmp_path / "up", place)
        yield Sharer(cloud=cloud, gateway=gateway, folder=folder)


@pytest.mark.parametrize(("password", "protocol"), [("", "simple"), (PASSWORD, "tus")])
def test_c1408_a_link_to_edit_is_a_way_to_log_in(sharer: Sharer, password: str, protocol: str, tmp_path: Path) -> None:
    link = sharer.link(EDIT, password)
    file, missing = sharer.file("a").child("new"), sharer.file("b").child("missing")
    with sharer.opened(link, password or None, upload_protocol=protocol) as storage:
        storage.upload(tmp_path / "up", file, read_back=True)
        assert sharer.disk(file).read_bytes() == DATA
        assert storage.stat(file).size == len(DATA)
        assert storage.checksum(file) == adler32(DATA)
        storage.download(file, tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == DATA
        assert {info.reference.name for info in storage.list(sharer.folder)} == {"a", "first"}
        # That nothing is there is believed, though nobody can be asked about such a token.
        assert not storage.exists(missing)
        with pytest.raises(errors.NotFound):
            storage.delete_file(missing)
        storage.delete_file(file)
        assert not storage.exists(file)
    assert sharer.names() == ["first"]


def test_c1409_what_a_link_does_not_reach_is_not_missing(sharer: Sharer, tmp_path: Path) -> None:
    outside = sharer.folder.parent
    with sharer.opened(sharer.link(EDIT)) as storage:
        assert storage.exists(sharer.file("first"))
        for place in (outside.child("hidden"), outside.child("missing"), outside, Reference(outside.root, "nothing")):
            with pytest.raises(errors.Unauthenticated, match="public link"):
                storage.exists(place)
        with pytest.raises(errors.Unauthenticated):
            storage.delete_file(outside.child("hidden"))
        with pytest.raises(errors.Unauthenticated):
            storage.upload(tmp_path / "up", outside.child("intruder"))
        with pytest.raises(errors.Unauthenticated):
            storage.move(sharer.file("first"), outside.child("moved"))
        with pytest.raises(errors.Unauthenticated):
            storage.quota(sharer.folder)
        assert sorted(path.name for path in sharer.disk(outside).iterdir()) == ["hidden", "shown"]
        # The folder gets another name: what the link showed is not gone.
        sharer.gateway.move(sharer.folder, outside.child("renamed"))
        with pytest.raises(errors.Unauthenticated):
            storage.exists(sharer.file("never asked before"))


def test_c1410_a_link_to_look_at_and_links_that_are_refused(
    sharer: Sharer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    texts = []
    look = sharer.link(LOOK, PASSWORD)
    with sharer.opened(look, PASSWORD) as storage:
        storage.download(sharer.file("first"), tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == DATA
        for change in (
            lambda: storage.upload(tmp_path / "up", sharer.file("new")),
            lambda: storage.delete_file(sharer.file("first")),
        ):
            with pytest.raises(errors.Unauthenticated) as caught:
                change()
            texts.append(f"{caught.value!r} {caught.value}")
    assert sharer.names() == ["first"]
    ended, removed = sharer.link(EDIT, ends_at=int(time.time()) - 10), sharer.link(EDIT)
    sharer.remove(removed)
    refused = [(look, "wrong-word"), (look, None), (ended, None), (removed, None), ("no-such-link", None)]
    for link, password in refused:
        with sharer.opened(link, password) as storage, pytest.raises(errors.Unauthenticated) as caught:
            storage.exists(sharer.file("first"))
        texts.append(f"{caught.value!r} {caught.value}")
        assert "refuses to log in the public link (publicshares)" in texts[-1]
    everything = " ".join(texts) + caplog.text
    for secret in (look, ended, removed, "no-such-link", PASSWORD, "wrong-word"):
        assert secret not in everything


def test_c1411_a_space_is_not_opened_by_a_link(spaces_cloud: EmbeddedCloud) -> None:
    endpoint = endpoint_of(spaces_cloud)
    log, file = Path(str(spaces_cloud.log)), Reference(endpoint.root, "file")
    with CS3Storage(endpoint, provider_of(spaces_cloud)) as storage:
        assert not storage.exists(file)
    before = log.read_text().count("Authenticate")
    assert before > 0
    with (
        CS3Storage(endpoint, PublicLinkProvider(Secret("a-link"))) as storage,
        pytest.raises(errors.ConfigurationError, match="public links are for clouds whose files have paths"),
    ):
        storage.exists(file)
    assert log.read_text().count("Authenticate") == before


@pytest.mark.parametrize("direction", ["to the link", "from the link"])
def test_c1412_a_transfer_of_what_a_link_shows_is_relayed(sharer: Sharer, direction: str) -> None:
    copied = sharer.folder.parent.child("copied")
    endpoint = endpoint_of(sharer.cloud)

    def end(storage: CS3Storage, reference: Reference, wish: Wish) -> CS3End:
        return CS3End(storage, reference, url=endpoint.webdav.url(reference), wish=wish)

    with CS3Storage(endpoint, provider_of(sharer.cloud)) as own, sharer.opened(sharer.link(EDIT)) as shown:
        wishes: tuple[Wish, ...] = ("auto", "relay")
        for wish in wishes:
            if direction == "to the link":
                copied = sharer.file("copied")
                ends = end(own, sharer.folder.parent.child("hidden"), "auto"), end(shown, copied, wish)
            else:
                ends = end(shown, sharer.file("first"), wish), end(own, copied, "auto")
            outcome = transfer(*ends, DATA)
            if wish == "auto":
                # WebDAV takes no tokens of links: a pull is refused, and a push only claims to have succeeded.
                assert outcome.state is State.FAILED
                assert not sharer.disk(copied).exists()
    assert outcome.state is State.DONE, outcome.reason
    assert sharer.disk(copied).read_bytes() == DATA
