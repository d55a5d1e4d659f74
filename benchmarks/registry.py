"""The names of all peers, and where they are; the order of tables."""

from __future__ import annotations

import importlib
import shutil

from peers import Peer

#: Name -> module and class. The yardstick first, ours last.
PEERS = {
    "curl": "commands:Curl",
    "curl-folder": "commands:CurlFolder",
    "rucio-webdav": "libraries:RucioWebDAV",
    "rucio-gfal": "libraries:RucioGfal",
    "gfal-copy": "commands:GfalCopy",
    "cs3client": "libraries:CS3Client",
    "rclone": "commands:Rclone",
    "rclone-folder": "commands:RcloneFolder",
    "davix": "commands:Davix",
    "bare": "libraries:BareCalls",
    "storage": "libraries:Storage",
    "protocol": "libraries:Protocol",
    "protocol-reads-back": "libraries:ProtocolReadingBack",
}

#: Those of this package.
OURS = ("storage", "protocol", "protocol-reads-back")


def peer_class(name: str) -> type[Peer]:
    module, _, attribute = PEERS[name].partition(":")
    found: type[Peer] = getattr(importlib.import_module(module), attribute)
    return found


def why_not(name: str) -> str | None:
    """Why a peer cannot be run on this machine; None where it can."""
    kind = peer_class(name)
    gone = [program for program in kind.programs if shutil.which(program) is None]
    return f"no {' and no '.join(gone)} on PATH" if gone else kind.missing()
