"""What the parts of one embedded cloud share: its settings, trees, tokens, uploads and faults.

It does nothing by itself. Read next: ``cloud.py``, which puts it together.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from rucio_cs3.sandbox.cloud.faults import Faults
from rucio_cs3.sandbox.cloud.tokens import TokenMint
from rucio_cs3.sandbox.cloud.traffic import Traffic
from rucio_cs3.sandbox.cloud.tree import Entry, Tree
from rucio_cs3.sandbox.cloud.uploads import UploadSessions
from rucio_cs3.sandbox.reva import User

# The mount path and the storage id of the Reva v3.12.1 example site (`local` driver).
V3_MOUNT = "/localfs"
V3_STORAGE_ID = "localfs"
# What the example site's gateway makes of the mount path.
V3_SPACE_ID = "F5WG6Y3BNRTHG==="
# The ids of the `local` driver are paths behind this prefix.
V3_ID_PREFIX = "fileid-"

# OpenCloud hands user ids out at random; ours follow from the name, so that a restarted cloud keeps them.
_USER_ID_NAMESPACE = uuid.UUID("6f0d9fd4-3c0e-4f7f-9d0f-0c1f6a3d2b11")


class Behaviour(Enum):
    """Which line of CS3 servers a cloud answers like."""

    V3 = "v3"
    """Reva v3.12.1 with the ``local`` driver (CERNBox's line): mount paths, no checksums, HTTP-TPC."""

    SPACES = "spaces"
    """OpenCloud (Reva's v2 line) with decomposedfs: spaces, checksums, post-processing, no HTTP-TPC."""


def user_id(user: User, behaviour: Behaviour) -> str:
    """``opaque_id`` of a user; in a SPACES cloud also the space_id of the personal space."""
    if behaviour is Behaviour.V3:
        return user.username
    return str(uuid.uuid5(_USER_ID_NAMESPACE, user.username))


@dataclass(kw_only=True)
class CloudState:
    """Shared by all services of one cloud.

    :param trees: by space_id; in a V3 cloud only one, under the empty string.
    :param quota_bytes: size of a space (SPACES) or of the disk (V3); None for no limit of ours.
    :param processing_delay_s: how long post-processing holds a new file, in seconds.
    :param marker_interval_s: seconds between the performance markers of HTTP-TPC.
    :param machine_key: secret of logins of type ``machine``.
    :param service_accounts: SPACES: id -> secret.
    :param peers: TLS context for requests to other sites.
    """

    behaviour: Behaviour
    users: Mapping[str, User]
    mint: TokenMint
    trees: Mapping[str, Tree]
    uploads: UploadSessions
    faults: Faults
    storage_id: str
    http_tpc: bool
    ranges: bool
    quota_bytes: int | None
    processing_delay_s: float
    marker_interval_s: float
    machine_key: str = field(repr=False)
    service_accounts: Mapping[str, str] = field(repr=False)
    peers: ssl.SSLContext | None = None
    http_url: str = ""
    log_path: Path | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    traffic: Traffic = field(default_factory=Traffic)
    _log_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def v3(self) -> bool:
        return self.behaviour is Behaviour.V3

    @property
    def data_url(self) -> str:
        # Reva v3.12.1 example site: /datagateway. OpenCloud: <OC_URL>/data.
        return f"{self.http_url}/datagateway" if self.v3 else f"{self.http_url}/data"

    def id_of(self, user: User) -> str:
        return user_id(user, self.behaviour)

    def tree_of(self, user: User) -> Tree:
        """The tree a user works in: the common one, or the personal space."""
        return self.trees["" if self.v3 else self.id_of(user)]

    def node_id(self, entry: Entry) -> str:
        """``opaque_id`` of a resource."""
        return V3_ID_PREFIX + urllib.parse.quote_plus(f"/{entry.relative}") if self.v3 else entry.node_id

    def file_id(self, tree: Tree, entry: Entry) -> str:
        """The whole id of a resource in one text, as HTTP headers give it."""
        spaces = [space_id for space_id, one in self.trees.items() if one is tree]
        return f"{self.storage_id}${V3_SPACE_ID if self.v3 else spaces[0]}!{self.node_id(entry)}"

    def user_claim(self, user: User) -> dict[str, Any]:
        return {
            "id": {"idp": self.http_url, "opaque_id": self.id_of(user), "type": 1},
            "username": user.username,
            "mail": f"{user.username}@sandbox.test",
            "mail_verified": True,
            "display_name": user.display_name or user.username,
        }

    def password_matches(self, username: str, password: str) -> User | None:
        user = self.users.get(username)
        return user if user is not None and user.password == password else None

    def log(self, line: str) -> None:
        """One line into the cloud's log; never a token, and the query part of no URL."""
        if self.log_path is None:
            return
        with self._log_lock, self.log_path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
