"""An RSE's public settings, read from the places where Rucio and its users keep them.

They come from the protocol's ``extended_attributes`` and the RSE's attributes (the first win) and become one
:class:`~rucio_cs3.cs3.config.Endpoint` for a CS3 cloud, and one :class:`~rucio_cs3.cs3.config.WebDAVSite` for any
other site; what their names mean is in :mod:`rucio_cs3.settings`. Secrets never stand there, because every Rucio client
can read them: :mod:`rucio_cs3.rse_credentials`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from rucio.common.config import get_config
from rucio.rse import rsemanager

from rucio_cs3 import settings
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint, WebDAVSite
from rucio_cs3.cs3.reference import MountRoot, WebDAVBase
from rucio_cs3.transfers.modes import Wish

#: Reads the RSE attributes of an RSE; :func:`rse_attributes` is the real one.
AttributeReader = Callable[[Mapping[str, Any]], Mapping[str, Any]]

#: RSE attributes hardly change, and in a client each look is a request; Rucio itself caches for 15 minutes.
_ATTRIBUTES_TTL_S = 300.0
_attributes: dict[tuple[int, str], tuple[float, Mapping[str, Any]]] = {}


def endpoint(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> Endpoint:
    """The endpoint of one protocol of an RSE.

    :param rse_settings: Rucio's RSE info (``rsemanager.get_rse_info``).
    :param protocol: one of its protocols: scheme, hostname, port, prefix, extended_attributes.
    :param read_attributes: gives the RSE's attributes; None asks Rucio.
    :raises ConfigurationError: naming RSE and key, for a missing, wrong or unknown setting.
    """
    return settings.endpoint(_RSESettings.of(rse_settings, protocol, read_attributes), protocol)


def webdav_site(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> WebDAVSite:
    """The site behind a protocol that is none of ours (``davs``, ``https``, ``dav``, ``http``), for HTTP from here.

    Parameters and errors as those of :func:`endpoint`; only :data:`~rucio_cs3.settings.PLAIN_SETTINGS` count, and
    none is needed.
    """
    reader = _RSESettings.of(rse_settings, protocol, read_attributes)
    with settings.naming(reader):
        server = f"{protocol['scheme']}://{protocol['hostname']}:{protocol['port']}"
        base = WebDAVBase.parse(f"{server}/", MountRoot("/"))
        return WebDAVSite(
            server=base,
            prefix=base.reference(f"{server}{settings.prefix_path(protocol)}"),
            timeouts=reader.timeouts("idle"),
            **reader.of_every_site(),
        )


def transfer_mode(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> Wish:
    """What an RSE asks for, CS3 cloud or not; parameters and errors as those of :func:`endpoint`."""
    return _RSESettings.of(rse_settings, protocol, read_attributes).wish()


def rucio_token_audience(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> str | None:
    """Which audience a token of Rucio's users has to be for, to be shown to the cloud; None where none ever is.

    Parameters and errors as those of :func:`endpoint`.
    """
    return _RSESettings.of(rse_settings, protocol, read_attributes).audience()


def given(
    rse_settings: Mapping[str, Any],
    protocol: Mapping[str, Any],
    read_attributes: AttributeReader | None = None,
) -> dict[str, Any]:
    """All that begins with ``cs3_``, as it stands in attributes and protocol, right or wrong.

    :raises ConfigurationError: where the protocol's extended attributes are no JSON object.
    """
    attributes = (read_attributes or rse_attributes)(rse_settings)
    values = {key: value for key, value in attributes.items() if key.startswith("cs3_")}
    values.update(_extended_attributes(str(rse_settings["rse"]), protocol))
    return values


def rse_attributes(rse_settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The RSE's attributes: from the database in a server or daemon, by one request in a client.

    :raises RucioException: when Rucio cannot be asked.
    """
    # By id: in a multi-VO Rucio two RSEs may have one name.
    key = (os.getpid(), str(rse_settings.get("id") or rse_settings["rse"]))
    known = _attributes.get(key)
    if known is not None and time.monotonic() - known[0] < _ATTRIBUTES_TTL_S:
        return known[1]
    attributes: Mapping[str, Any]
    if getattr(rsemanager, "SERVER_MODE", False):
        from rucio.core.rse import list_rse_attributes

        attributes = list_rse_attributes(rse_settings["id"])
    else:
        from rucio.client.rseclient import RSEClient

        attributes = RSEClient().list_rse_attributes(rse_settings["rse"])
    _attributes[key] = (time.monotonic(), attributes)
    return attributes


def _extended_attributes(rse: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    extended = protocol.get("extended_attributes") or {}
    if isinstance(extended, str):
        try:
            extended = json.loads(extended)
        except (ValueError, RecursionError):
            extended = None
    if not isinstance(extended, Mapping):
        raise errors.ConfigurationError(
            f"RSE {rse}: extended_attributes of scheme {protocol['scheme']} are no JSON object"
        )
    return {key: value for key, value in extended.items() if key.startswith("cs3_")}


class _RSESettings(settings.Settings):
    kind = "RSE"

    @classmethod
    def of(
        cls,
        rse_settings: Mapping[str, Any],
        protocol: Mapping[str, Any],
        read_attributes: AttributeReader | None,
    ) -> _RSESettings:
        """
        :raises ConfigurationError: for an unknown setting.
        """
        return cls(str(rse_settings["rse"]), given(rse_settings, protocol, read_attributes))

    def example(self, key: str, value: str) -> str:
        return f"rucio rse attribute set {self.name} --key {key} --value {value}"

    def local(self, name: str) -> str | None:
        parser = get_config()
        return str(parser.get("cs3", name, raw=True)) if parser.has_option("cs3", name) else None
