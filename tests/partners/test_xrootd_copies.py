"""The wire of a real XRootD: what a probe leaves there, and what the words of its reports become."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.cs3.webdav.markers import Marker
from rucio_cs3.cs3.webdav.probes import TPCProbes
from rucio_cs3.sandbox.ports import free_port
from rucio_cs3.sandbox.xrootd import XRootDSite
from tests.partners.ends import CONTENT, plain_site

pytestmark = pytest.mark.xrootd

_numbers = itertools.count(1)


@pytest.fixture
def http(xrootd_site: XRootDSite) -> Iterator[HTTPClient]:
    with contextlib.closing(HTTPClient(plain_site("XRD", xrootd_site.url, xrootd_site.ca_bundle))) as http:
        yield http


@pytest.fixture
def folder(xrootd_site: XRootDSite) -> str:
    """Name of a folder with one file in it."""
    name = f"copies-{next(_numbers)}"
    xrootd_site.write(f"{name}/file", CONTENT)
    return name


def names(site: XRootDSite, folder: str) -> list[str]:
    return sorted(path.name for path in site.path_on_disk(folder).iterdir())


def copy(mode: str, http: HTTPClient, site: XRootDSite, source: str, destination: str, **urls: str) -> list[int]:
    """A copy from the site to itself, by way of the network."""
    markers: list[Marker] = []
    token = f"Bearer {site.token()}"
    given = {"source_url": f"{site.url}/{source}", "destination_url": f"{site.url}/{destination}", **urls}
    {"pull": tpc.pull, "push": tpc.push}[mode](
        http,
        source_url=given["source_url"],
        destination_url=given["destination_url"],
        source_authorization=token,
        destination_authorization=token,
        on_marker=markers.append,
    )
    return [marker.transferred_bytes for marker in markers]


def everything(site: XRootDSite) -> set[Path]:
    return set(site.path_on_disk("").rglob("*"))


def test_a_probe_leaves_nothing(xrootd_site: XRootDSite, http: HTTPClient, folder: str) -> None:
    token = f"Bearer {xrootd_site.token()}"
    before = everything(xrootd_site)
    for base in (xrootd_site.url, f"{xrootd_site.url}/{folder}", f"{xrootd_site.url}/{folder}/"):
        assert TPCProbes().ask(http, base, token)
    with pytest.raises(errors.CS3Error, match="no such folder"):
        TPCProbes().ask(http, f"{xrootd_site.url}/{folder}/missing", token)
    with pytest.raises(errors.CS3Error):
        TPCProbes().ask(http, xrootd_site.url, "Bearer bad-token")
    assert everything(xrootd_site) == before
    assert xrootd_site.path_on_disk(f"{folder}/file").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_copy(xrootd_site: XRootDSite, http: HTTPClient, folder: str, mode: str) -> None:
    """It says 201, then reports: a 201 with a report is no bare one."""
    markers = copy(mode, http, xrootd_site, f"{folder}/file", f"{folder}/copy")
    assert markers
    assert markers == sorted(markers)
    assert xrootd_site.path_on_disk(f"{folder}/copy").read_bytes() == CONTENT


def test_overwrite_is_looked_at_in_a_pull_only(xrootd_site: XRootDSite, http: HTTPClient, folder: str) -> None:
    xrootd_site.write(f"{folder}/old", b"old")
    with pytest.raises(errors.AlreadyExists):
        copy("pull", http, xrootd_site, f"{folder}/file", f"{folder}/old")
    assert xrootd_site.path_on_disk(f"{folder}/old").read_bytes() == b"old"
    copy("push", http, xrootd_site, f"{folder}/file", f"{folder}/old")
    assert xrootd_site.path_on_disk(f"{folder}/old").read_bytes() == CONTENT


def test_a_failed_pull_leaves_an_empty_file(xrootd_site: XRootDSite, http: HTTPClient, folder: str) -> None:
    with pytest.raises(errors.ServerFault, match="status code 404") as caught:
        copy("pull", http, xrootd_site, f"{folder}/missing", f"{folder}/copy")
    assert caught.value.retryable
    assert xrootd_site.path_on_disk(f"{folder}/copy").stat().st_size == 0
    nowhere = f"https://127.0.0.1:{free_port()}/x"
    with pytest.raises(errors.ServerFault, match="reports a failed copy"):
        copy("pull", http, xrootd_site, "", f"{folder}/other", source_url=nowhere)
    assert xrootd_site.path_on_disk(f"{folder}/other").stat().st_size == 0


def test_a_push_that_fails_is_told(xrootd_site: XRootDSite, http: HTTPClient, folder: str) -> None:
    nowhere = f"https://127.0.0.1:{free_port()}/x"
    with pytest.raises(errors.ServerFault, match="reports a failed copy"):
        copy("push", http, xrootd_site, f"{folder}/file", "", destination_url=nowhere)
    # 400, which is as well what a server without third-party copies says.
    with pytest.raises(errors.Unsupported, match="no such file"):
        copy("push", http, xrootd_site, f"{folder}/missing", f"{folder}/copy")
    assert names(xrootd_site, folder) == ["file"]
