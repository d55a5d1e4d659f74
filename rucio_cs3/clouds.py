"""A CS3 cloud that a person named, and a place in it; and the file in which people without Rucio name theirs.

Knows no Rucio: clouds that are RSEs come from :mod:`rucio_cs3.places`. docs/files.md is the page for people.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio_cs3 import rse_logins, settings
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import SCHEMES, MountRoot, Reference, has_userinfo

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage

#: Names the file with clouds.
CLOUDS_VARIABLE = "RUCIO_CS3_CLOUDS"


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A CS3 cloud as one identity sees it.

    :param name: by which people call it: an RSE, or a section of the clouds file.
    :param folder: what ``NAME:`` stands for; of an RSE the folder of its prefix.
    :param scheme: of its PFNs.
    :param rse: Rucio's description of the RSE; None where it is none.
    :param protocol: the one of the RSE's protocols that was taken.
    """

    name: str
    endpoint: Endpoint
    provider: CredentialProvider
    folder: Reference
    scheme: str
    rse: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    protocol: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def storage(self) -> CS3Storage:
        """The client, shared by the whole process; do not close it. Nothing is connected before its first call."""
        from rucio_cs3.cs3.pool import POOL  # late: gRPC takes a tenth of a second

        return POOL.get(self.endpoint, self.provider)

    def reference(self, path: str = "") -> Reference:
        """The place that a path names: ``a/b`` is below :attr:`folder`, ``/a/b`` a path of CS3.

        :raises InvalidReference: for ``..``, an over-long name, or a path of CS3 outside the endpoint's root.
        """
        if not path.startswith("/"):
            return self.folder.child(path) if path else self.folder
        root = self.endpoint.webdav.root
        if not isinstance(root, MountRoot):
            raise errors.InvalidReference(
                f"{self.name}: {path} is a path of CS3, but this cloud is a space; give a path below {self.name}:"
            )
        below = root.path.rstrip("/")
        if path.rstrip("/") != below and not path.startswith(f"{below}/"):
            raise errors.InvalidReference(f"{self.name}: {path} is not below {root.path}, which is all of this cloud")
        rest = path[len(below) :].strip("/")
        return Reference(root).child(rest) if rest else Reference(root)

    def url(self, reference: Reference) -> str:
        """The URL of a place: its PFN."""
        return f"{self.scheme}://{self.endpoint.webdav.url(reference).partition('://')[2]}"

    def shown(self, reference: Reference) -> str:
        """What a person would type for a place: ``NAME:a/b``, or the path of CS3 where it is outside the folder."""
        if reference == self.folder:
            return f"{self.name}:"
        prefix = f"{self.folder.path}/" if self.folder.path else ""
        if reference.root == self.folder.root and reference.path.startswith(prefix):
            return f"{self.name}:{reference.path[len(prefix) :]}"
        return f"{self.name}:{reference}"

    def place(self, path: str = "") -> Place:
        """See :meth:`reference`."""
        return Place(self, self.reference(path))


@dataclass(frozen=True)
class Place:
    """A file or folder of a cloud, there or not."""

    cloud: Cloud
    reference: Reference

    @property
    def storage(self) -> CS3Storage:
        """See :attr:`Cloud.storage`."""
        return self.cloud.storage

    @property
    def url(self) -> str:
        """Its PFN."""
        return self.cloud.url(self.reference)

    @property
    def shown(self) -> str:
        """What a person would type for it."""
        return self.cloud.shown(self.reference)

    def child(self, name: str) -> Place:
        """An entry of this folder; ``name`` may hold slashes.

        :raises InvalidReference: see :meth:`Reference.child`.
        """
        return Place(self.cloud, self.reference.child(name))

    def refuse_whole(self, deed: str) -> None:
        """
        :param deed: what is not done to it, such as ``deleted``.
        :raises InvalidRequest: when it is the folder that the cloud's name stands for, one above it, or the root.
        """
        folder = self.cloud.folder.path
        if self.reference.path and not f"{folder}/".startswith(f"{self.reference.path}/"):
            return
        what = f"the folder of {self.cloud.name}, or one above it" if self.reference.path else "the root of the storage"
        raise errors.InvalidRequest(f"is {what}, and is never {deed} here", target=self.shown)

    def __str__(self) -> str:
        return self.shown


def clouds_file() -> Path:
    """Where the clouds file is looked for: ``RUCIO_CS3_CLOUDS``, or ``rucio-cs3/clouds.cfg`` in the user's
    configuration (``XDG_CONFIG_HOME``, ``~/.config``).
    """
    if given := os.environ.get(CLOUDS_VARIABLE):
        return Path(given).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "rucio-cs3" / "clouds.cfg"


def configured() -> Mapping[str, Mapping[str, str]]:
    """The sections of the clouds file, by name; nothing where there is no file.

    :raises ConfigurationError: when it cannot be read, or others may do what only its owner should.
    """
    path = clouds_file()
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with path.open("rb") as file:
            status, data = os.fstat(file.fileno()), file.read()
    except FileNotFoundError:
        if os.environ.get(CLOUDS_VARIABLE):
            raise errors.ConfigurationError(f"{CLOUDS_VARIABLE} names {path}, which is not there") from None
        return {}
    except OSError as exc:
        raise errors.ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    line = None
    try:
        parser.read_string(data.decode())
    except (configparser.Error, UnicodeDecodeError) as exc:
        line = getattr(exc, "lineno", 0)
    if line is not None:
        # Outside of the block: the other error has pieces of the text, and those may be secret.
        where = f" (line {line})" if line else ""
        raise errors.ConfigurationError(f"{path} is no configuration file with sections and key = value{where}")
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    for section in sections.values():
        rse_logins.refuse_open(path, status, section)
    return sections


def from_file(name: str) -> Cloud | None:
    """The cloud of a section of the clouds file; None where there is no such section.

    :raises ConfigurationError: when something in it is missing or wrong.
    """
    section = configured().get(name)
    return None if section is None else from_settings(name, section, where=f"section [{name}] of {clouds_file()}")


def with_url(url: str, *, faults: list[errors.CS3Error] | None = None) -> Iterator[Cloud]:
    """Those clouds of the file that a URL may be in: on its host and port, and below its WebDAV base. A section with a
    mistake in it is passed over.

    :param faults: gets the mistakes.
    """
    for name, section in configured().items():
        if _server(section.get("url", "")) == _server(url):
            try:
                cloud = from_settings(name, section, where=f"section [{name}] of {clouds_file()}")
            except errors.CS3Error as error:
                if faults is not None:
                    faults.append(error)
                continue
            if holds(cloud.endpoint, url):
                yield cloud


def holds(endpoint: Endpoint, url: str) -> bool:
    """Whether a URL is below an endpoint's WebDAV base."""
    try:
        endpoint.webdav.reference(url)
    except errors.InvalidReference:
        return False
    return True


def from_settings(name: str, values: Mapping[str, Any], *, where: str) -> Cloud:
    """A cloud from what a person says of it.

    :param values: ``url`` is the WebDAV URL of the folder; settings by the names of
        :data:`rucio_cs3.settings.SETTINGS`; who we are by those of :data:`rucio_cs3.rse_logins.KEYS`.
    :param where: what messages call the place that they come from.
    :raises ConfigurationError: when something is missing, wrong or unknown.
    """
    known = {"url", *settings.SETTINGS, *rse_logins.KEYS}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise errors.ConfigurationError(f"{where}: there is no key {unknown[0]}; see docs/files.md")
    url = str(values.get("url") or "")
    refuse_userinfo(url, f"{where}: url")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 0
    except ValueError:
        host = None
    if not host:
        raise errors.ConfigurationError(
            f"{where}: url must be the WebDAV URL of a folder, such as "
            "https://cernbox.example.org/remote.php/webdav/eos/user/j/jdoe"
        )
    host = f"[{host}]" if ":" in host else host
    protocol = {"scheme": parts.scheme, "hostname": host, "port": port, "prefix": parts.path}
    chosen = settings.Settings(name, {key: values[key] for key in settings.SETTINGS if key in values})
    endpoint = settings.endpoint(chosen, protocol)
    try:
        provider = rse_logins.provider(values, _no_account)
        folder = endpoint.webdav.reference(folder_url(protocol))
    except (errors.ConfigurationError, errors.InvalidReference) as error:
        raise errors.ConfigurationError(f"{where}: {error.message}") from None
    return Cloud(name=name, endpoint=endpoint, provider=provider, folder=folder, scheme=parts.scheme)


def _no_account() -> str:
    raise errors.ConfigurationError("users needs a Rucio account, which only an RSE has; give a username")


def folder_url(protocol: Mapping[str, Any]) -> str:
    """The URL of what a protocol of an RSE has as its prefix.

    :param protocol: ``scheme``, ``hostname``, ``port`` and ``prefix``, as Rucio names them.
    """
    return f"{protocol['scheme']}://{protocol['hostname']}:{protocol['port']}{settings.prefix_path(protocol)}"


def refuse_userinfo(url: str, what: str) -> None:
    """
    :param what: what messages call the URL, which they do not repeat.
    :raises ConfigurationError: when it has a user name or password in it, as ``https://user:password@host/``.
    """
    if has_userinfo(url):
        raise errors.ConfigurationError(f"{what} has a user name or password in it; give the login apart")


def _server(url: str) -> tuple[str, int] | None:
    """Host and port that a URL is at; None where that cannot be told."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port or (443 if SCHEMES.get(parts.scheme, True) else 80)) if host else None
