"""Places and PFNs: encoded exactly once, and leading nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import (
    MountRoot,
    Reference,
    SpaceRoot,
    WebDAVBase,
    base_of_prefix,
    encode_path,
    parse_root,
    root_of_base,
)

MOUNT = WebDAVBase.parse("davs://cernbox.test/remote.php/webdav", MountRoot("/eos"))
SPACE = WebDAVBase.parse("https://ocis.test:9200/dav/spaces/st-1$sp-2")

segments = st.text(min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..") and not set(text) & {"/", "\0"} and encodable(text)
)


def encodable(text: str) -> bool:
    try:
        return len(text.encode()) <= 255
    except UnicodeEncodeError:
        return False


@given(st.lists(segments, max_size=5), st.sampled_from([MOUNT, SPACE]))
def test_a_reference_survives_its_url(names: list[str], base: WebDAVBase) -> None:
    reference = Reference(base.root, "/".join(names))
    url = base.url(reference)
    assert url.isascii()
    assert not set(url) & set(' \t\r\n"<>?#')
    assert base.reference(url) == reference
    assert base.url(base.reference(url)) == url


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    for url in (text, f"davs://cernbox.test/remote.php/webdav/{text}"):
        try:
            reference = MOUNT.reference(url)
        except errors.InvalidReference:
            continue
        assert ".." not in reference.path.split("/")
        assert MOUNT.reference(MOUNT.url(reference)) == reference


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("davs://cernbox.test/remote.php/webdav/a/b", "a/b"),
        ("https://CERNbox.test:443/remote.php/webdav/a/b", "a/b"),
        ("cs3s://cernbox.test:0/remote.php/webdav/a/b", "a/b"),
        ("davs://cernbox.test//remote.php//webdav//a//b/", "a/b"),
        ("davs://cernbox.test/remote.php/webdav", ""),
        ("davs://cernbox.test/remote.php/webdav/a%20b%2541", "a b%41"),
        ("davs://cernbox.test/remote.php/webdav/100%", "100%"),
        ("davs://cernbox.test/remote.php/webdav/a%3Fb%23c", "a?b#c"),
        ("davs://cernbox.test/remote%2Ephp/webdav/a;b=c,d", "a;b=c,d"),
    ],
)
def test_pfns_of_a_mount(url: str, path: str) -> None:
    assert MOUNT.reference(url) == Reference(MountRoot("/eos"), path)


def test_pfns_of_a_space() -> None:
    reference = SPACE.reference("https://ocis.test:9200/dav/spaces/st-1%24sp-2/a")
    assert reference == Reference(SpaceRoot("st-1", "sp-2"), "a")
    assert SPACE.url(reference) == "https://ocis.test:9200/dav/spaces/st-1$sp-2/a"
    assert str(reference) == "st-1$sp-2/a"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("davs://cernbox.test/remote.php/webdav/../x", "'..'"),
        ("davs://cernbox.test/remote.php/webdav/a/%2e%2e/x", "'..'"),
        ("davs://cernbox.test/remote.php/webdav/a/.%2E", "'..'"),
        ("davs://cernbox.test/remote.php/webdav/./a", "'.'"),
        ("davs://cernbox.test/remote.php/webdav/a%2Fb", "%2F"),
        ("davs://cernbox.test/remote.php%2fwebdav/a", "%2F"),
        ("davs://cernbox.test/remote.php/webdavx/a", "outside"),
        ("davs://cernbox.test/remote.php", "outside"),
        ("davs://cernbox.test/remote.php/webdav/a?b", "query"),
        ("davs://cernbox.test/remote.php/webdav/a?", "query"),
        ("davs://cernbox.test/remote.php/webdav/a#", "fragment"),
        ("davs://cernbox.test/remote.php/webdav/a%00", "NUL"),
        ("davs://cernbox.test/remote.php/webdav/%C3", "UTF-8"),
        ("davs://cernbox.test/remote.php/webdav/\udc80", "surrogate"),
        ("davs://cernbox.test/remote.php/webdav/a\tb", "tab"),
        ("davs://cernbox.test/remote.php/webdav/" + "n" * 256, "255 bytes"),
        ("davs://cernbox.test:444/remote.php/webdav/a", ":444"),
        ("dav://cernbox.test/remote.php/webdav/a", "(http)"),
        ("davs://other.test/remote.php/webdav/a", "other.test"),
        ("davs:///remote.php/webdav/a", "no host"),
        ("root://cernbox.test/remote.php/webdav/a", "'root'"),
        ("davs://cernbox.test:port/remote.php/webdav/a", "no URL"),
        ("davs://[cernbox.test/remote.php/webdav/a", "no URL"),
    ],
)
def test_pfns_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(errors.InvalidReference) as caught:
        MOUNT.reference(url)
    assert words in str(caught.value)


def test_a_password_in_a_pfn_is_not_repeated() -> None:
    with pytest.raises(errors.InvalidReference, match=r"at cernbox\.test carries a user name or password") as caught:
        MOUNT.reference("davs://me:4711@cernbox.test/remote.php/webdav/a")
    assert "4711" not in str(caught.value)
    # Nor where the rest of it is none.
    for pfn in ("davs://me:4711@cernbox.test:port/a", "davs://me:4711@[cernbox.test/a"):
        with pytest.raises(errors.InvalidReference, match="user name or password") as caught:
            MOUNT.reference(pfn)
        assert "4711" not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("/", MountRoot("/")),
        ("/eos//project/", MountRoot("/eos/project")),
        ("st$sp", SpaceRoot("st", "sp")),
        ("st$sp!op", SpaceRoot("st", "sp")),
    ],
)
def test_roots(text: str, root: MountRoot | SpaceRoot) -> None:
    assert parse_root(text) == root


@pytest.mark.parametrize("text", ["", "eos", "$", "st$", "$sp", "st$sp/x", "/eos/../x", "/\0"])
def test_roots_that_are_none(text: str) -> None:
    with pytest.raises(errors.InvalidReference):
        parse_root(text)


@pytest.mark.parametrize(
    ("prefix", "base"),
    [
        ("/remote.php/webdav/eos/project", "/remote.php/webdav"),
        ("/remote.php/webdav", "/remote.php/webdav"),
        ("/cernbox/webdav/eos", "/cernbox/webdav"),
        ("/webdav/x", "/webdav"),
        ("/dav/spaces/a$b/x", "/dav/spaces/a$b"),
        ("/remote.php/dav/spaces/a%24b/x", "/remote.php/dav/spaces/a$b"),
        ("/dav/files/einstein/x", "/dav/files/einstein"),
        ("/webdavx/y", None),
        ("/eos/project", None),
        ("", None),
    ],
)
def test_the_base_in_a_prefix(prefix: str, base: str | None) -> None:
    assert base_of_prefix(prefix) == base


def test_the_root_of_a_base() -> None:
    assert root_of_base("/dav/spaces/a$b") == SpaceRoot("a", "b")
    assert root_of_base("/remote.php/webdav") == MountRoot("/")


@pytest.mark.parametrize(
    ("root", "path", "text"),
    [
        (MountRoot("/"), "", "/"),
        (MountRoot("/"), "a", "/a"),
        (MountRoot("/eos"), "", "/eos"),
        (MountRoot("/eos"), "a/b", "/eos/a/b"),
        (SpaceRoot("s", "t"), "", "s$t"),
    ],
)
def test_the_text_of_a_reference(root: MountRoot | SpaceRoot, path: str, text: str) -> None:
    assert str(Reference(root, path)) == text


def test_relatives() -> None:
    file = Reference(MountRoot("/eos"), "a/b")
    assert (file.name, file.parent.path, file.parent.parent.path, file.parent.parent.parent.path) == ("b", "a", "", "")
    assert file.child("c//d").path == "a/b/c/d"
    assert file.sibling("c").path == "a/c"
    for name in ("..", "a/../b", ".", "x\0", "n" * 256, "\ud800"):
        with pytest.raises(errors.InvalidReference):
            file.child(name)


def test_a_url_of_another_root_is_refused() -> None:
    with pytest.raises(errors.InvalidReference, match="not below"):
        MOUNT.url(Reference(MountRoot("/other"), "a"))


def test_ipv6() -> None:
    base = WebDAVBase.parse("http://[::1]:8080/webdav/", MountRoot("/"))
    reference = Reference(base.root, "a")
    assert base.url(reference) == "http://[::1]:8080/webdav/a"
    assert base.reference("dav://[::1]:8080/webdav/a") == reference


def test_encoding_is_done_once() -> None:
    assert encode_path("/a b/%41/ä") == "/a%20b/%2541/%C3%A4"
