"""C7xx: PFNs. A PFN is the file's WebDAV URL, and leads nowhere else."""

from __future__ import annotations

import pytest
import requests

from rucio_cs3.cs3 import errors
from tests.contract.place import Place
from tests.contract.test_uploads import NAMES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("/remote.php/", "/other.php/").replace("/dav/spaces/", "/dav/other/"), "outside"),
        (lambda url: url + "/../../x", "'..'"),
        (lambda url: url + "/%2e%2e/x", "'..'"),
        (lambda url: url + "/%2E%2e%2Fx", "%2F"),
        (lambda url: url + "/a%2Fb", "%2F"),
        (lambda url: url + "/%2fb", "%2F"),
        (lambda url: url + "/./x", "'.'"),
        (lambda url: url + "?x=1", "query"),
        (lambda url: url + "?", "query"),
        (lambda url: url + "#x", "fragment"),
        (lambda url: url + "/%FF", "UTF-8"),
        (lambda url: url + "/a%00b", "NUL"),
        (lambda url: url + "/a\nb", "line break"),
        (lambda url: url.replace("127.0.0.1", "127.0.0.2"), "127.0.0.2"),
        (lambda url: url.replace("127.0.0.1", "elsewhere.test"), "elsewhere.test"),
        (lambda url: url.replace("http:", "https:"), "https"),
        (lambda url: url.replace("http:", "ftp:"), "ftp"),
        (lambda url: url.replace("127.0.0.1", "user:secret@127.0.0.1"), "user name or password"),
        (lambda url: "relative/path", "scheme"),
    ],
)
def test_c701_a_pfn_that_leads_elsewhere_is_refused(place: Place, change: object, words: str) -> None:
    base = place.storage.endpoint.webdav
    url = change(base.url(place.file("file")))  # type: ignore[operator]
    with pytest.raises(errors.InvalidReference) as caught:
        base.reference(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_c702_a_pfn_is_the_files_url(place: Place, name: str) -> None:
    reference = place.put(name, name.encode())
    base = place.storage.endpoint.webdav
    url = base.url(reference)
    assert base.reference(url) == reference
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {place.storage.access_token()}"}
        answer = session.get(url, headers=headers, timeout=20)
    assert answer.status_code == 200
    assert answer.content == name.encode()


@pytest.mark.parametrize("scheme", ["dav", "http", "cs3"])
def test_c703_schemes_that_mean_the_same(place: Place, scheme: str) -> None:
    base = place.storage.endpoint.webdav
    url = base.url(place.file("file"))
    assert base.reference(url.replace("http:", f"{scheme}:")) == place.file("file")
