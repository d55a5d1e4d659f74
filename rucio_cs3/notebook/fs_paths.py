"""Paths and URLs as fsspec wants them, and the places that they name.

The table of them is in :mod:`rucio_cs3.filesystem`, whose lower half this is: it knows clouds, and asks no server.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.utils import stringify_path

from rucio_cs3 import clouds, places
from rucio_cs3.clouds import Cloud, Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference, encode_path
from rucio_cs3.notebook.connecting import checked, connect
from rucio_cs3.notebook.os_errors import as_os_errors, is_a_folder

#: An authority that is a host, because it has a port: ``host:8443``, ``[::1]:8443``.
_HOST_WITH_PORT = re.compile(r".*:[0-9]+")

#: Which cloud a path belongs to is believed for so long, in seconds; settings of RSEs hardly change.
_KNOWN_S = 300.0

#: Most of them; of PFNs each folder is one.
_KNOWN_MAX = 1000

#: Options of fsspec itself, which are none of a cloud's.
_FSSPEC_OPTIONS = ("use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop", "batch_size")


class CloudPaths(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """See :class:`rucio_cs3.filesystem.CS3FileSystem`, which adds what is done at a place."""

    protocol: str | tuple[str, ...] = "cs3"
    root_marker = ""
    cachable = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        own = {key: value for key, value in options.items() if key not in _FSSPEC_OPTIONS}
        self._rse: str | None = own.pop("rse", None)
        self._options = own
        checked(own)
        self._known: dict[tuple[str, object], tuple[float, Cloud]] = {}

    # -- paths ---------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(stringify_path(path))
        for separator in ("://", "::"):
            prefix = f"{cls.protocol}{separator}"
            if text.startswith(prefix):
                text = text[len(prefix) :]
                if cls._is_url(text):
                    text = unquote(text)
                break
        return text.rstrip("/")

    def unstrip_protocol(self, name: str) -> str:
        if name.startswith(f"{self.protocol}://"):
            return name
        authority, slash, path = name.partition("/")
        return f"{self.protocol}://{authority}{slash}{encode_path(path) if self._is_url(name) else path}"

    @classmethod
    def _parent(cls, path: str) -> str:
        return str(cls._strip_protocol(path)).rpartition("/")[0].rstrip("/")

    @classmethod
    def _is_url(cls, path: str) -> bool:
        """Whether a path without protocol begins with a host, and not with a name."""
        return _HOST_WITH_PORT.fullmatch(path.partition("/")[0]) is not None

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> list[str]:
        """As fsspec's own; but what is there under just this name is no pattern, as ``data[1].csv``."""
        rest: list[Any] = []
        found: set[str] = set()
        for one in path if isinstance(path, (list, tuple, set)) else [path]:
            name = self._strip_protocol(one)
            if has_magic(name) and self.exists(name):
                found |= {name, *(self.find(name, maxdepth=maxdepth, withdirs=True) if recursive else ())}
            else:
                rest.append(one)
        if rest or not found:
            found |= set(super().expand_path(rest or path, recursive=recursive, maxdepth=maxdepth, **kwargs))
        return sorted(found)

    def _place(self, path: str) -> Place:
        """The place of a path, with or without protocol."""
        path = self._strip_protocol(path)
        authority, _, below = path.partition("/")
        if not authority:
            raise is_a_folder(f"{self.protocol}://")
        if self._is_url(path) or ":" in authority.partition("@")[0]:
            clouds.refuse_userinfo(f"{self.protocol}://{authority}", "the URL")
        with as_os_errors():
            if not self._is_url(path):
                return self._cloud(authority, lambda: self._named(authority)).place(below)
            url = self.unstrip_protocol(path)
            cloud = self._cloud(url.rpartition("/")[0] if below else url, lambda: self._at(url))
            return Place(cloud, cloud.endpoint.webdav.reference(url))

    def _named(self, name: str) -> Cloud:
        if self._options or self._rse:
            given = ", ".join(sorted([*self._options, *(["rse"] if self._rse else [])]))
            raise errors.ConfigurationError(
                f"{self.protocol}://{name} is a name, and what it stands for is in the clouds file or in Rucio; "
                f"{given} go with PFNs such as cs3s://host/remote.php/webdav/…"
            )
        return places.find_cloud(name)

    def _at(self, url: str) -> Cloud:
        if self._options:
            # Of a cloud that is in no file, no folder but its root is more than the others.
            cloud = connect(url, self._options)
            return replace(cloud, folder=Reference(cloud.folder.root))
        return places.find(url, rse=self._rse).cloud

    def _cloud(self, name: str, find: Callable[[], Cloud]) -> Cloud:
        # What somebody changes in the clouds file counts at once.
        key = (name, _stamp(clouds.clouds_file()))
        known = self._known.get(key)
        now = time.monotonic()
        if known is None or now - known[0] > _KNOWN_S:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[key] = (now, find())
        return known[1]


def _stamp(path: Path) -> object:
    """What changes when a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns
