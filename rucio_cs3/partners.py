"""Which protocol of an RSE one end of a transfer uses, and what that makes of the RSE: a CS3 cloud of ours, a plain
WebDAV site, or nobody that this package transfers with.

Looks at Rucio's description of the RSE alone: no protocol object is made, nothing is connected, and the classes of
foreign protocols (gfal's, say) are not imported. :mod:`rucio_cs3.transfertool` asks before a request is taken,
:mod:`rucio_cs3.agent.hops` when it is executed.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from rucio.common.exception import RSEProtocolNotSupported
from rucio.rse import rsemanager

from rucio_cs3.cs3 import errors

#: Schemes of a plain WebDAV site. ``cs3`` and ``cs3s`` are not among them: those say that it is a CS3 cloud.
PLAIN_SCHEMES = ("davs", "https", "dav", "http")

#: What the source of a hop is asked for, and the destination.
READ, WRITE = "third_party_copy_read", "third_party_copy_write"


class Kind(enum.Enum):
    """What an RSE is to a transfer."""

    CS3 = "cs3"
    """A CS3 cloud whose protocol is :mod:`rucio_cs3.protocol`'s."""
    PLAIN = "plain"
    """Any other site that may be reached over HTTP only."""


def kind_of(protocol: Mapping[str, Any]) -> Kind | None:
    """What one of an RSE's protocols makes of it; None where it is nothing to us.

    :param protocol: its ``impl`` and ``scheme``.
    """
    if is_ours(protocol["impl"]):
        return Kind.CS3
    return Kind.PLAIN if protocol["scheme"] in PLAIN_SCHEMES else None


def kinds(rse_info: Mapping[str, Any], operation: str, schemes: Sequence[str]) -> set[Kind | None]:
    """What the RSE may turn out to be, by those protocols that Rucio takes for an operation.

    Of protocols that Rucio ranks equal it takes a random one (rsemanager.select_protocol), hence a set; it is
    empty where there is no protocol.

    :param operation: :data:`READ` or :data:`WRITE`.
    """
    try:
        ranked = rsemanager.get_protocols_ordered(rse_info, operation, list(schemes), domain="wan")
    except RSEProtocolNotSupported:
        return set()
    best = ranked[0]["domains"]["wan"][operation]
    return {kind_of(protocol) for protocol in ranked if protocol["domains"]["wan"][operation] == best}


def protocol_of(rse_info: Mapping[str, Any], operation: str, pfn: str) -> Mapping[str, Any]:
    """The protocol that a PFN was made by: the best of those with its scheme, host, port and prefix.

    :raises ConfigurationError: when there is none, as after a change of the RSE since the submission.
    :raises InvalidReference: when the PFN is no URL.
    """
    try:
        parts = urlsplit(pfn)
        host, port = (parts.hostname or "").lower(), parts.port or 0
    except ValueError:
        # Rucio's users say what the URLs of their replicas are.
        raise errors.InvalidReference(f"{pfn!r} is no URL") from None
    where = f"RSE {rse_info['rse']}"
    try:
        ranked = rsemanager.get_protocols_ordered(rse_info, operation, [parts.scheme], domain="wan")
    except RSEProtocolNotSupported:
        ranked = []
    for protocol in ranked:
        # Port 0 is Rucio's "the default".
        if (host, port) == (protocol["hostname"].lower(), protocol["port"]):
            # Slashes may be doubled in either, and only CS3 protocols encode what they make a PFN of.
            prefix = [part for part in unquote(protocol["prefix"] or "").split("/") if part]
            if [part for part in unquote(parts.path).split("/") if part][: len(prefix)] == prefix:
                return protocol  # type: ignore[no-any-return]  # Rucio carries no types
    raise errors.ConfigurationError(
        f"{where} has no protocol (any more) with {operation} over wan for the host, port and prefix of {pfn}"
    )


def is_ours(impl: str) -> bool:
    """Whether a dotted path names a protocol of this package, or one made of it."""
    # Late, because the server imports the transfertool through the policy package and needs no gRPC for that.
    from rucio_cs3.protocol import Default

    module, _, name = impl.rpartition(".")
    if module.startswith("rucio.rse.protocols."):
        # Rucio's own are foreign; some of them import libraries, such as gfal2, at once.
        return False
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, Default)
