"""PFNs, prefixes and names from anybody: each is a place below the RSE's prefix, or refused."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.reference import (
    NAME_MAX_BYTES,
    PATH_MAX_BYTES,
    MountRoot,
    Reference,
    SpaceRoot,
    WebDAVBase,
    parse_root,
)
from tests.unit.hostile import BEGINNINGS, TRICKY

MOUNT = WebDAVBase.parse("davs://cloud.test/remote.php/webdav", MountRoot("/eos"))
SPACE = WebDAVBase.parse("davs://cloud.test/dav/spaces/st-1$sp-2")
BASES = st.sampled_from([MOUNT, SPACE])


def is_below(reference: Reference) -> bool:
    """Whether a place stays below its root also when somebody normalises its path, as Go's ``path.Clean`` does."""
    if posixpath.normpath(f"/{reference.path}") != f"/{reference.path}".rstrip("/") and reference.path:
        return False
    message = resources.to_message(reference)
    if isinstance(reference.root, MountRoot):
        root = reference.root.path.rstrip("/")
        clean: str = posixpath.normpath(message.path)
        return clean == message.path and (clean == (root or "/") or clean.startswith(f"{root}/"))
    assert (message.resource_id.storage_id, message.resource_id.space_id) == ("st-1", "sp-2")
    clean = posixpath.normpath(message.path)
    return clean == "." or not (clean.startswith(("/", "../")) or clean == "..")


@given(BASES, BEGINNINGS, TRICKY)
@example(MOUNT, "davs://cloud.test/remote.php/webdav/", "%2e%2e/%2e%2e/etc/passwd")
@example(MOUNT, "davs://cloud.test/remote.php/webdav/", "a/%2e%2e%2fb")
@example(MOUNT, "davs://cloud.test/remote.php/webdav/", "..%5c..%5cb")
@example(SPACE, "davs://cloud.test/dav/spaces/st-1$sp-2/", "../st-1$other/x")
@example(MOUNT, " davs://cloud.test/remote.php/webdav/", "x")
@example(MOUNT, "\x00davs://cloud.test/remote.php/webdav/", "x")
def test_a_pfn_leads_nowhere_else(base: WebDAVBase, beginning: str, rest: str) -> None:
    pfn = beginning + rest
    try:
        reference = base.reference(pfn)
    except errors.InvalidReference as error:
        str(error).encode()
        return
    assert reference.root == base.root
    assert is_below(reference)
    # What an HTTP server makes of it: decoded once, it is the same path below the same base.
    url = base.url(reference)
    assert url.isascii()
    decoded = unquote(urlsplit(url).path, errors="strict")
    assert posixpath.normpath(decoded) == decoded
    assert decoded == f"{base.path}/{reference.path}".rstrip("/")
    # There and back: one file has one reference, whatever its PFN looked like.
    assert base.reference(url) == reference
    assert base.url(base.reference(url)) == url


@pytest.mark.parametrize(
    "pfn",
    [
        " davs://cloud.test/remote.php/webdav/x",
        "\x00davs://cloud.test/remote.php/webdav/x",
        "\x1f davs://cloud.test/remote.php/webdav/x",
        "davs://cloud.test/remote.php/webdav/a\tb",
        "davs://cloud.test/remote.php/webdav/a\r\nb",
        "davs://cloud.test/remote.php/webdav/a%2Fb",
        "davs://cloud.test/remote.php/webdav/a%2fb",
        "davs://cloud.test/remote.php/webdav/%2e%2e/b",
        "davs://cloud.test/remote.php/webdav/a/%2E./b",
        "davs://cloud.test/remote.php/webdav/a/..",
        "davs://cloud.test/remote.php/webdav/./b",
        "davs://cloud.test/remote.php/webdav/a%00b",
        "davs://cloud.test/remote.php/webdav/%c0%ae%c0%ae/b",
        "davs://cloud.test/remote.php/webdav/%ff",
        "davs://cloud.test/remote.php/webdav/a?b",
        "davs://cloud.test/remote.php/webdav/a#",
        "davs://cloud.test/remote.php/webdav%2Fa",
        "davs://cloud.test/remote.php/%2e%2e/remote.php/webdav/a",
        "http://cloud.test/remote.php/webdav/a",
        "davs://cloud.test:8443/remote.php/webdav/a",
        "davs://me@cloud.test/remote.php/webdav/a",
    ],
)
def test_pfns_that_are_refused(pfn: str) -> None:
    """Each would be another file's, or the same file's second one."""
    with pytest.raises(errors.InvalidReference):
        MOUNT.reference(pfn)


@given(BASES, st.lists(TRICKY, min_size=1, max_size=4))
def test_a_name_leads_nowhere_else(base: WebDAVBase, names: list[str]) -> None:
    reference = Reference(base.root)
    for name in names:
        try:
            reference = reference.child(name)
        except errors.InvalidReference:
            continue
        assert reference.path
        assert is_below(reference)
        assert base.reference(base.url(reference)) == reference


@pytest.mark.parametrize("name", ["", "/", "//", ".", "..", "a/..", "../a", "a/./b", "\0", "a\0b", "\ud800", "x" * 256])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(errors.InvalidReference):
        Reference(MountRoot("/"), "folder").child(name)


def test_names_and_paths_have_a_limit() -> None:
    root = Reference(MountRoot("/"))
    longest = "é" * (NAME_MAX_BYTES // 2)
    assert root.child(longest).name == longest
    with pytest.raises(errors.InvalidReference, match="255 bytes"):
        root.child(longest + "éx")
    deep = "a/" * (PATH_MAX_BYTES // 2 - 1) + "aa"
    assert len(root.child(deep).path) == PATH_MAX_BYTES
    for path in (deep + "a", "a/" * 100_000):
        with pytest.raises(errors.InvalidReference, match="longer than 4096"):
            root.child(path)
        with pytest.raises(errors.InvalidReference, match="longer than"):
            MOUNT.reference(f"davs://cloud.test/remote.php/webdav/{path}")


@given(TRICKY)
def test_any_root_is_one_or_refused(text: str) -> None:
    try:
        root = parse_root(text)
    except errors.InvalidReference:
        return
    if isinstance(root, SpaceRoot):
        assert root.storage_id
        assert root.space_id
        assert "/" not in f"{root.storage_id}{root.space_id}"
    else:
        assert posixpath.normpath(root.path) == root.path
        assert parse_root(root.path) == root


@given(TRICKY)
def test_any_url_is_a_base_or_refused(text: str) -> None:
    for url in (text, f"davs://{text}", f"davs://cloud.test/{text}"):
        try:
            base = WebDAVBase.parse(url)
        except errors.InvalidReference:
            continue
        assert base.host
        assert 0 < base.port < 65536
        assert ".." not in base.path.split("/")
