"""The sites of these tests, one of each kind for all of them; all of them speak TLS and trust one authority."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.xrootd import XRootDSite
from tests.partners.ends import Partner, of_cloud, of_cloud_as_plain, of_xrootd

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def xrootd_site() -> Iterator[XRootDSite]:
    """One where only the bearer of a token may do anything."""
    with XRootDSite("xrd") as site:
        yield site


@pytest.fixture(scope="session")
def xrootd(xrootd_site: XRootDSite) -> Partner:
    return of_xrootd(xrootd_site)


@pytest.fixture(scope="session")
def reva() -> Iterator[Partner]:
    """A Reva behind what speaks HTTP/1.1 with TLS, as Apache and Traefik can: Go's own server offers HTTP/2, to which
    XRootD 5.5.3 pushes no bytes; see ``reva_http2``.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GODEBUG", "http2server=0")
        site = RevaSite("reva-tls", tls=True)
        site.start()
    try:
        with of_cloud(site) as partner:
            yield partner
    finally:
        site.stop()


@pytest.fixture(scope="session")
def reva_http2() -> Iterator[Partner]:
    """A Reva as it comes."""
    with RevaSite("reva-http2", tls=True) as site, of_cloud(site) as partner:
        yield partner


@pytest.fixture(scope="session")
def reva_as_webdav() -> Iterator[Partner]:
    """Another Reva, over HTTP only."""
    with RevaSite("reva-plain", tls=True) as site, of_cloud_as_plain(site) as partner:
        yield partner


@pytest.fixture(scope="session")
def embedded() -> Iterator[Partner]:
    with EmbeddedCloud(name="embedded", tls=True) as cloud, of_cloud(cloud) as partner:
        yield partner


@pytest.fixture
def path() -> str:
    """Of a file that no other test has, in folders that are not there yet."""
    return f"rucio/t{next(_numbers)}/ab/cd/file"
