"""This process as a Rucio client with a configuration of its own, and RSEs made by hand.

Rucio decides at the first import of its RSE code, once and for all, whether it is a client or a server. Import this
module before any of that, and not where Rucio is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

os.environ["RUCIO_CLIENT_MODE"] = "1"

from rucio.common import config
from rucio.rse import rsemanager

from rucio_cs3 import rses
from rucio_cs3.protocol import Default
from rucio_cs3.sandbox.cloud import EmbeddedCloud

OPERATIONS = ("read", "write", "delete", "third_party_copy_read", "third_party_copy_write")

_RUCIO_CFG = """
[client]
rucio_host = http://127.0.0.1:1
auth_host = http://127.0.0.1:1
[policy]
lfn2pfn_algorithm_default = hash
"""


def configure(home: Path, monkeypatch: pytest.MonkeyPatch, *, more: str = "", write: bool = True) -> Path:
    """Give Rucio a home, and this package an environment, in which nothing of this machine is seen.

    :param more: appended to rucio.cfg.
    :param write: whether there is a rucio.cfg at all.
    :returns: the folder of rucio.cfg and rse-accounts.cfg.
    """
    for name in os.environ:
        if name.startswith("RUCIO_") and name != "RUCIO_CLIENT_MODE":
            monkeypatch.delenv(name)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    folder = home / "etc"
    folder.mkdir(exist_ok=True)
    if write:
        (folder / "rucio.cfg").write_text(_RUCIO_CFG + more)
        # It may have credentials in it, and is refused then where others can read it.
        (folder / "rucio.cfg").chmod(0o600)
    monkeypatch.setenv("RUCIO_HOME", str(home))
    monkeypatch.setenv("RUCIO_CS3_STATE_DIR", str(home / "uploads"))
    config.clean_cached_config()
    return folder


def rse_info(
    *,
    rse: str = "CLOUD",
    scheme: str = "davs",
    hostname: str = "cloud.test",
    port: int = 443,
    prefix: str = "/remote.php/webdav/rucio/",
    impl: str = "rucio_cs3.protocol.Default",
    extended: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """What ``rsemanager.get_rse_info`` gives, as far as anybody looks at it; ``more`` are RSE settings."""
    protocol = {
        "scheme": scheme,
        "hostname": hostname,
        "port": port,
        "prefix": prefix,
        "impl": impl,
        "extended_attributes": extended,
        "domains": {domain: dict.fromkeys(OPERATIONS, 1) for domain in ("lan", "wan")},
    }
    settings = {"verify_checksum": True, "deterministic": True, "lfn2pfn_algorithm": "hash", "sign_url": None}
    return {"id": "0123abcd", "rse": rse, "protocols": [protocol], **settings, **more}


def rse_of(cloud: EmbeddedCloud, *, folder: str, settings: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """The RSE whose files are below ``folder`` of an embedded cloud without TLS."""
    url = urlsplit(cloud.webdav_url)
    extended = {"cs3_gateway": cloud.gateway, "cs3_gateway_tls": False, "cs3_root": cloud.root, **(settings or {})}
    assert url.hostname is not None
    assert url.port is not None
    return rse_info(
        scheme="http", hostname=url.hostname, port=url.port, prefix=f"{url.path}/{folder}/", extended=extended, **more
    )


def protocol_of(info: Any, operation: str = "write") -> Default:
    """The protocol object as Rucio makes it; not connected."""
    protocol = rsemanager.create_protocol(info, operation)
    assert isinstance(protocol, Default)
    return protocol


def connected(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, info: Any) -> Default:
    """A connected protocol object of an RSE whose attributes are all in its protocol."""
    monkeypatch.setattr(rses, "rse_attributes", lambda _settings: {})
    protocol = protocol_of(info)
    user = cloud.first_user
    protocol.connect({"username": user.username, "password": user.password})
    return protocol
