"""Places in a CS3 cloud, and the WebDAV URLs (Rucio's PFNs) that name the same places.

Pure; knows no transport. A *root* is what a WebDAV base URL stands for: a mount path
(``/localfs``, ``/eos/project``; the CERNBox line) or a space (``<storage_id>$<space_id>``;
ownCloud Infinite Scale and OpenCloud). A :class:`Reference` is a root and a relative path;
:class:`WebDAVBase` turns URLs into references and back, percent-encoding exactly once.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from rucio_cs3.cs3 import errors

#: Longest name of a file or folder, in bytes of UTF-8: the NAME_MAX of the disks behind the servers
#: (Reva v3.12.1 local and OpenCloud decomposedfs both answer CODE_INTERNAL to 256).
NAME_MAX_BYTES = 255

#: Longest path below a root, in bytes of UTF-8: Linux's PATH_MAX. It bounds the folders that are looked for, too; Rucio
#: keeps URLs of at most 2048 characters.
PATH_MAX_BYTES = 4096

#: Longest URL that is read, in characters: such a path with every byte in percents, and what stands before it.
_URL_MAX_CHARACTERS = 4 * PATH_MAX_BYTES

#: URL schemes of PFNs, and whether the data travel over TLS. davix and gfal2 read ``cs3s`` and
#: ``cs3`` as WebDAV over https and http in the same way (davix#72).
SCHEMES = {"davs": True, "https": True, "cs3s": True, "dav": False, "http": False, "cs3": False}

#: Characters of a path segment that stay as they are; RFC 3986 lets more stand, but a space id needs
#: ``$`` and ``!``, and everything else is encoded so that URL and shell tools agree about it.
_SAFE = "$!~"

# Where WebDAV begins at the known servers (facts: Reva ocdav, oCIS, OpenCloud); the rest is the file's path.
_KNOWN_BASES = re.compile(
    r"^(?P<base>(?:/cernbox)?(?:/remote\.php)?(?:/dav/spaces/[^/]+|/dav/files/[^/]+|/webdav))(?:/|$)"
)
_SPACE_BASE = re.compile(r"/dav/spaces/(?P<storage>[^/$]+)\$(?P<space>[^/!]+)$")


@dataclass(frozen=True)
class MountRoot:
    """A path in the gateway's one name space; ``/`` is the whole of it."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class SpaceRoot:
    """A storage space. Both ids are opaque; ``opaque_id`` of the root equals ``space_id`` at OpenCloud."""

    storage_id: str
    space_id: str

    def __str__(self) -> str:
        return f"{self.storage_id}${self.space_id}"


Root = MountRoot | SpaceRoot


def parse_root(text: str) -> Root:
    """Read a root from a setting: ``/eos/project`` or ``<storage_id>$<space_id>``.

    :raises InvalidReference: when it is neither.
    """
    if text.startswith("/"):
        return MountRoot("/" + "/".join(_checked_segments(text, where=text)))
    storage_id, dollar, space_id = text.partition("$")
    if dollar and storage_id and space_id and "/" not in text:
        return SpaceRoot(storage_id, space_id.partition("!")[0])
    raise errors.InvalidReference(
        f"root {text!r} is neither an absolute path such as /eos/project nor a space such as <storage_id>$<space_id>"
    )


@dataclass(frozen=True)
class Reference:
    """A file or folder: a root, and the path below it without a leading slash; ``""`` is the root itself."""

    root: Root
    path: str = ""

    @property
    def name(self) -> str:
        """The last segment; empty for the root."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Reference:
        """The folder that holds it; the root is its own parent."""
        return Reference(self.root, self.path.rpartition("/")[0])

    def child(self, name: str) -> Reference:
        """The entry ``name`` of this folder; ``name`` may hold slashes.

        :raises InvalidReference: for ``..``, an empty or an over-long name.
        """
        if not name.strip("/"):
            raise errors.InvalidReference(f"{name!r} is no name of a file or folder", target=str(self))
        joined = f"{self.path}/{name}" if self.path else name
        return Reference(self.root, "/".join(_checked_segments(joined, where=joined)))

    def sibling(self, name: str) -> Reference:
        """The entry ``name`` of the same folder."""
        return self.parent.child(name)

    def __str__(self) -> str:
        if isinstance(self.root, MountRoot):
            return f"{self.root.path.rstrip('/')}/{self.path}".rstrip("/") or "/"
        return f"{self.root}/{self.path}".rstrip("/")


@dataclass(frozen=True)
class WebDAVBase:
    """The WebDAV front end of an endpoint, and the root that its base URL stands for.

    :param secure: whether the URL is https.
    :param host: host name in lower case.
    :param port: TCP port.
    :param path: decoded path of the base, with a leading and without a trailing slash.
    """

    secure: bool
    host: str
    port: int
    path: str
    root: Root

    @classmethod
    def parse(cls, url: str, root: Root | None = None) -> WebDAVBase:
        """Read a base URL of any of the schemes in :data:`SCHEMES`.

        :param root: what it stands for; None reads a space from ``…/dav/spaces/<storage>$<space>``
            and takes the whole name space otherwise.
        :raises InvalidReference: for a URL that is none, or a scheme that is not known.
        """
        secure, host, port, path = _split(url)
        base = "/" + "/".join(_checked_segments(unquote(path), where=url))
        return cls(secure, host, port, base.rstrip("/"), root or root_of_base(base))

    def reference(self, pfn: str) -> Reference:
        """The place that a PFN names.

        :raises InvalidReference: when the PFN names another host, port or prefix, is encrypted where
            this base is not (or the other way round), or holds ``..``, ``%2F`` or an over-long name.
        """
        secure, host, port, path = _split(pfn)
        if (secure, host, port) != (self.secure, self.host, self.port):
            raise errors.InvalidReference(
                f"PFN {pfn} is at {host}:{port} ({'https' if secure else 'http'}), but this storage is at "
                f"{self.host}:{self.port} ({'https' if self.secure else 'http'})"
            )
        segments = [_decoded(segment, pfn) for segment in path.split("/") if segment]
        base = [segment for segment in self.path.split("/") if segment]
        if segments[: len(base)] != base:
            raise errors.InvalidReference(f"PFN {pfn} is outside this storage's WebDAV base {self.path or '/'}")
        relative = "/".join(segments[len(base) :])
        return Reference(self.root, "/".join(_checked_segments(relative, where=pfn)))

    def url(self, reference: Reference) -> str:
        """The ``http`` or ``https`` URL of a reference under the same root.

        :raises InvalidReference: for a reference under another root.
        """
        if reference.root != self.root:
            raise errors.InvalidReference(f"{reference} is not below {self.root}")
        path = encode_path(f"{self.path}/{reference.path}".rstrip("/"))
        return f"{'https' if self.secure else 'http'}://{_netloc(self.host)}:{self.port}{path}"


def base_of_prefix(prefix: str) -> str | None:
    """The WebDAV base at the start of an RSE's prefix, or None where no known server has it.

    >>> base_of_prefix("/remote.php/webdav/eos/project/rucio")
    '/remote.php/webdav'
    """
    match = _KNOWN_BASES.match(unquote(prefix))
    return match["base"] if match else None


def root_of_base(base: str) -> Root:
    """The root that a WebDAV base path stands for where nobody configured another."""
    match = _SPACE_BASE.search(base)
    return SpaceRoot(match["storage"], match["space"]) if match else MountRoot("/")


def encode_path(path: str) -> str:
    """Percent-encode a decoded path once; slashes stay."""
    return quote(path, safe="/" + _SAFE)


def has_userinfo(url: str) -> bool:
    """Whether a text that may be no URL at all has a user name or password in it."""
    # By hand: the errors of a parser repeat what they do not understand.
    return "@" in url.partition("://")[2].partition("/")[0]


def _split(url: str) -> tuple[bool, str, int, str]:
    if len(url) > _URL_MAX_CHARACTERS:
        raise errors.InvalidReference(f"a URL of {len(url)} characters is longer than {_URL_MAX_CHARACTERS}")
    if any(character in url for character in "\t\r\n") or "" < url[:1] <= " ":
        # urlsplit drops them silently, and what is left names another file.
        raise errors.InvalidReference(
            f"{url!r} holds a tab or line break, or begins with a space or control character; percent-encode it"
        )
    try:
        parts = urlsplit(url)
        scheme, path = parts.scheme, parts.path
        user, _, server = parts.netloc.rpartition("@")
        host, port = _server(server)
    except ValueError as exc:
        if has_userinfo(url):
            raise errors.InvalidReference("a URL with a user name or password in it is none; remove them") from None
        raise errors.InvalidReference(f"{url!r} is no URL: {exc}") from exc
    if scheme not in SCHEMES:
        raise errors.InvalidReference(f"{url!r} has scheme {scheme!r}; known are {', '.join(SCHEMES)}")
    if not host:
        raise errors.InvalidReference(f"{url!r} names no host")
    if user:
        # The URL itself is not repeated: it carries a secret.
        raise errors.InvalidReference(f"a URL at {host} carries a user name or password; remove them")
    if "?" in url or "#" in url:  # an empty query or fragment, too: the name may end in '?' or '#'
        raise errors.InvalidReference(f"{url!r} has a query or fragment; encode '?' as %3F and '#' as %23")
    secure = SCHEMES[scheme]
    # Rucio writes port 0 for "the default" (rsemanager.parse_pfns).
    return secure, host, port or (443 if secure else 80), path


# All PFNs of an RSE have one; urllib takes it apart anew for each of its properties.
@functools.lru_cache(maxsize=256)
def _server(text: str) -> tuple[str, int | None]:
    """Host in lower case, and port where there is one.

    :raises ValueError: for a port that is none.
    """
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port


def _decoded(segment: str, where: str) -> str:
    try:
        decoded = unquote(segment, errors="strict")
    except UnicodeDecodeError as exc:
        raise errors.InvalidReference(f"{where!r} is not UTF-8 after percent-decoding") from exc
    if "/" in decoded:
        # No file name holds a slash; taking it for a separator would give one file two PFNs.
        raise errors.InvalidReference(f"{where!r} holds an encoded slash (%2F)")
    return decoded


def _checked_segments(path: str, where: str) -> list[str]:
    """Split a decoded path and refuse what no storage path may hold; double slashes collapse."""
    segments = [segment for segment in path.split("/") if segment]
    for segment in segments:
        if segment in (".", ".."):
            raise errors.InvalidReference(f"{where!r} holds a {segment!r} segment")
        if "\0" in segment:
            raise errors.InvalidReference(f"{where!r} holds a NUL character")
        try:
            size = len(segment.encode())
        except UnicodeEncodeError as exc:
            raise errors.InvalidReference(f"{where!r} holds half a surrogate pair, which is no UTF-8") from exc
        if size > NAME_MAX_BYTES:
            raise errors.InvalidReference(
                f"name {segment[:32]!r}… is longer than the {NAME_MAX_BYTES} bytes that a file name may have"
            )
    if len("/".join(segments).encode()) > PATH_MAX_BYTES:
        raise errors.InvalidReference(f"path {path[:32]!r}… is longer than {PATH_MAX_BYTES} bytes")
    return segments


def _netloc(host: str) -> str:
    return f"[{host}]" if ":" in host else host
