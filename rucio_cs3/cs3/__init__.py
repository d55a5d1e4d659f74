"""A client for CS3 clouds: gRPC for everything but bytes, HTTP for bytes. Knows no Rucio.

Begin reading at :mod:`rucio_cs3.cs3.storage`.
"""

from rucio_cs3.cs3.auth import BasicProvider, BearerProvider, CredentialProvider, Secret
from rucio_cs3.cs3.config import Endpoint, Timeouts
from rucio_cs3.cs3.errors import CS3Error
from rucio_cs3.cs3.pool import POOL
from rucio_cs3.cs3.reference import Reference, WebDAVBase, parse_root
from rucio_cs3.cs3.resources import FileInfo, Quota
from rucio_cs3.cs3.storage import CS3Storage, Moved

__all__ = [
    "POOL",
    "BasicProvider",
    "BearerProvider",
    "CS3Error",
    "CS3Storage",
    "CredentialProvider",
    "Endpoint",
    "FileInfo",
    "Moved",
    "Quota",
    "Reference",
    "Secret",
    "Timeouts",
    "WebDAVBase",
    "parse_root",
]
