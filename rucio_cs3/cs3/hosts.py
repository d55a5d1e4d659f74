"""Which hosts a server may send us to: by the names that the settings allow, and some never. Pure; looks nothing up.

Tickets, redirects and gateways are checked with it (:mod:`rucio_cs3.cs3.config`), and the other end of each connection
by HTTP (:mod:`rucio_cs3.cs3.http.dialling`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Where clouds tell each machine its secrets over IPv6 beside the link-local addresses: AWS (its documentation has
#: fd00:ec2::254 and fd00:ec2::23) and Google.
_SECRETS = ipaddress.IPv6Network("fd00:ec2::/32"), ipaddress.IPv6Network("fd20:ce::254")

#: What stands for an IPv4 address in a network that has none (RFC 6052, 2.1).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_off_limits(host: str) -> bool:
    """Whether nothing is ever to be sent to a host, whatever the settings say: an address that is link-local (169.254
    and fe80, where clouds tell each machine its secrets) or another of that use, unspecified, or a group's.

    :param host: a name, or an address in any way of writing that resolvers take; of a name nothing is known.
    """
    address = _address(host)
    return address is not None and (
        address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or any(address in network for network in _SECRETS)
    )


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine by its name or address alone, in any way of writing that resolvers take."""
    address = _address(host)
    if address is None:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")  # RFC 6761, 6.3
    return address.is_loopback


def is_named(host: str, port: int, names: Iterable[str]) -> bool:
    """Whether one of the names is this very host, or this host and port.

    :param host: in lower case, an IPv6 address without brackets.
    :param names: ``host``, ``host:port`` or ``[ipv6]:port``, in any case; without a port any will do.
    """
    return any(split_name(name) in ((host, None), (host, port)) for name in names)


def split_name(name: str) -> tuple[str, int | None]:
    """Read ``host`` or ``host:port``; an IPv6 address needs brackets where a port follows.

    :returns: the host in lower case, and the port where there is one.
    :raises ValueError: when it is neither.
    """
    host, colon, port = name.lower(), "", ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f"{name!r} is no host")
    elif host.count(":") == 1:
        host, colon, port = host.partition(":")
    if not host or any(character in "/@?#\\[]%" or character.isspace() for character in host):
        raise ValueError(f"{name!r} is no host")
    if not colon:
        return host, None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{name!r} has no port behind its colon")
    return host, int(port)


def _address(host: str) -> _Address | None:
    """The address that a host is by itself; None for a name."""
    text = host.partition("%")[0]  # a zone of IPv6: fe80::1%eth0
    found: _Address
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        try:
            # What the resolver takes, too: 2852039166, 0xa9.0xfe.43518, 0251.0376.0251.0376.
            found = ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):  # ValueError: NUL, or what is no ASCII
            return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    if found in _NAT64:
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found
