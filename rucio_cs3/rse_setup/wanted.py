"""RSEs as somebody wants them: a YAML file, read and checked before anything is asked of Rucio.

etc/rses.example.yaml shows all of it; docs/deployment.md is the page for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rucio_cs3 import rse_logins
from rucio_cs3.cs3 import errors

#: What an RSE is used for where its file says nothing: all, by one protocol. Rucio's priorities: 1 is the best.
DOMAINS: Mapping[str, Mapping[str, int]] = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}

#: How Rucio writes "no limit" of an account (Rucio 41.5.1, client/accountlimitclient.py).
NO_LIMIT = -1

_IMPL = "rucio_cs3.protocol.Default"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGTP]?B)?")
_UNITS = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}


@dataclass(frozen=True, kw_only=True)
class WantedProtocol:
    """Names and values as Rucio's ``add_protocol`` takes them."""

    scheme: str
    hostname: str
    port: int
    prefix: str
    impl: str
    domains: Mapping[str, Mapping[str, int]]
    extended_attributes: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells the protocols of one RSE apart."""
        return self.scheme, self.hostname, self.port

    def as_rucio(self) -> dict[str, Any]:
        """What Rucio keeps of it."""
        return {
            "scheme": self.scheme,
            "hostname": self.hostname,
            "port": self.port,
            "prefix": self.prefix,
            "impl": self.impl,
            "domains": {domain: dict(operations) for domain, operations in self.domains.items()},
            "extended_attributes": dict(self.extended_attributes),
        }


@dataclass(frozen=True, kw_only=True)
class WantedRSE:
    """
    :param protocols: None where the file does not speak of them.
    :param distances: from this RSE to others; 1 is the nearest.
    :param limits: account -> bytes that it may have here, or :data:`NO_LIMIT`.
    """

    name: str
    deterministic: bool = True
    protocols: tuple[WantedProtocol, ...] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    distances: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


def read(path: Path) -> list[WantedRSE]:
    """The RSEs of a file.

    :raises ConfigurationError: naming file, RSE and key, when it cannot be read, or is not what it should be; also for
        a secret, because all that is in it can be read by every user of Rucio.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as exc:
        raise errors.ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise errors.ConfigurationError(f"{path} is no valid YAML{where}") from None
    if not isinstance(content, Mapping) or not content:
        raise errors.ConfigurationError(f"{path} must be a table of RSEs: name -> what it is to be")
    return [_rse(_Part(f"{path}: RSE {name}", value), str(name)) for name, value in content.items()]


class _Part:
    """A table of the file; what is taken from it is checked, and :meth:`end` refuses the rest."""

    def __init__(self, where: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise errors.ConfigurationError(f"{where} must be a table")
        self.where = where
        self._values = {str(key): one for key, one in value.items()}
        secrets = sorted(self._values.keys() & (set(rse_logins.SECRETS) | {"password_file", "token_file"}))
        if secrets:
            raise errors.ConfigurationError(
                f"{where}: {secrets[0]} does not belong here, where all users of Rucio can read it; put it into "
                "rse-accounts.cfg"
            )

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """
        :raises ConfigurationError: when it is missing and there is no default, or of another kind.
        """
        value = self._values.pop(key, default)
        # YAML's true is an int to Python.
        if value is None or not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise errors.ConfigurationError(
                f"{self.where}: {key} is {'missing' if value is None else 'of a wrong kind'}"
            )
        return value

    def part(self, key: str) -> _Part:
        return _Part(f"{self.where}: {key}", self._values.pop(key, None) or {})

    def items(self) -> Iterator[tuple[str, Any]]:
        """All that is left of it, which is taken by that."""
        values, self._values = self._values, {}
        yield from values.items()

    def end(self) -> None:
        if self._values:
            raise errors.ConfigurationError(f"{self.where}: there is no key {min(self._values)}")


def _rse(part: _Part, name: str) -> WantedRSE:
    given = part.take("protocols", list, [])
    protocols = tuple(_protocol(_Part(f"{part.where}: protocol {n}", one)) for n, one in enumerate(given, 1))
    if len({protocol.key for protocol in protocols}) < len(protocols):
        raise errors.ConfigurationError(f"{part.where}: two protocols have the same scheme, hostname and port")
    rse = WantedRSE(
        name=name,
        deterministic=part.take("deterministic", bool, True),
        protocols=protocols or None,
        attributes={key: _text(part.where, key, value) for key, value in part.part("attributes").items()},
        distances={key: _distance(part.where, key, value) for key, value in part.part("distances").items()},
        limits={key: _limit(part.where, key, value) for key, value in part.part("limits").items()},
    )
    part.end()
    return rse


def _protocol(part: _Part) -> WantedProtocol:
    domains = part.part("domains")
    given = {
        domain: {str(key): value for key, value in _Part(domains.where, one).items()} for domain, one in domains.items()
    }
    protocol = WantedProtocol(
        scheme=part.take("scheme", str, "davs"),
        hostname=part.take("hostname", str),
        port=part.take("port", int, 443),
        prefix=part.take("prefix", str),
        impl=part.take("impl", str, _IMPL),
        domains=given or DOMAINS,
        extended_attributes=dict(part.part("settings").items()),
    )
    part.end()
    return protocol


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise errors.ConfigurationError(f"{where}: attribute {key} must be a text, a number, true or false")
    # As Rucio's database gives them back.
    return str(value)


def _distance(where: str, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise errors.ConfigurationError(f"{where}: distance to {key} must be 1 or more")
    return value


def _limit(where: str, key: str, value: Any) -> int:
    if value == "infinity":
        return NO_LIMIT
    found = _SIZE.fullmatch(str(value))
    if not found or isinstance(value, bool):
        raise errors.ConfigurationError(f"{where}: limit of {key} must be infinity, or bytes such as 500 GB")
    return int(float(found[1]) * _UNITS[found[2]])
