"""A client for CS3 clouds: gRPC for everything but bytes, HTTP for bytes. Knows no Rucio.

Begin reading at :mod:`rucio_cs3.cs3.storage`. The names below are imported when they are asked for: Rucio imports this
package in every process that has the RSE plugin, and gRPC is needed only in those that open a connection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rucio_cs3.cs3.config import Endpoint, Timeouts
    from rucio_cs3.cs3.errors import CS3Error
    from rucio_cs3.cs3.login.providers import BasicProvider, BearerProvider, CredentialProvider
    from rucio_cs3.cs3.login.secret import Secret
    from rucio_cs3.cs3.pool import POOL
    from rucio_cs3.cs3.reference import Reference, WebDAVBase, parse_root
    from rucio_cs3.cs3.resources import Entries, FileInfo, Quota
    from rucio_cs3.cs3.storage import CS3Storage, Moved

__all__ = [
    "POOL",
    "BasicProvider",
    "BearerProvider",
    "CS3Error",
    "CS3Storage",
    "CredentialProvider",
    "Endpoint",
    "Entries",
    "FileInfo",
    "Moved",
    "Quota",
    "Reference",
    "Secret",
    "Timeouts",
    "WebDAVBase",
    "parse_root",
]

_HOMES = {
    "config": ("Endpoint", "Timeouts"),
    "errors": ("CS3Error",),
    "pool": ("POOL",),
    "login.providers": ("BasicProvider", "BearerProvider", "CredentialProvider"),
    "reference": ("Reference", "WebDAVBase", "parse_root"),
    "resources": ("Entries", "FileInfo", "Quota"),
    "login.secret": ("Secret",),
    "storage": ("CS3Storage", "Moved"),
}


if not TYPE_CHECKING:  # with it, a type checker would believe in any name

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
