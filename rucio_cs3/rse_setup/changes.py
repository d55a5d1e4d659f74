"""What Rucio lacks for its RSEs to be as they are wanted, and doing it. Only adds and changes, unless told to prune."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rucio.client import Client
from rucio.common.exception import RSENotFound

from rucio_cs3 import rses
from rucio_cs3.cs3 import errors
from rucio_cs3.partners import is_ours
from rucio_cs3.rse_setup.wanted import DOMAINS, NO_LIMIT, WantedProtocol, WantedRSE


@dataclass(frozen=True)
class Change:
    """
    :param text: what it does, in one line.
    :param make: does it.
    """

    rse: str
    text: str
    make: Callable[[], object]


def check(rse: WantedRSE) -> None:
    """
    :raises ConfigurationError: when a protocol of ours would not take its settings, or there are some without it.
    """
    ours = [protocol for protocol in rse.protocols or () if is_ours(protocol.impl)]
    for protocol in ours:
        rses.endpoint({"rse": rse.name}, protocol.as_rucio(), lambda _: rse.attributes)


def changes(wanted: Sequence[WantedRSE], client: Client, *, prune: bool = False) -> Iterator[Change]:
    """What there is to do, in the order in which it has to be done: a distance needs both RSEs.

    :param prune: also protocols and ``cs3_`` attributes away that the file does not have.
    :raises ConfigurationError: when an RSE is there, and deterministic where it must not be, or the other way round.
    :raises RucioException: when Rucio cannot be asked.
    """
    # All are looked at before the first change.
    present = [_present(rse, client) for rse in wanted]
    for rse, (found, attributes) in zip(wanted, present, strict=True):
        if found is None:
            kind = "" if rse.deterministic else ", not deterministic"
            add = partial(client.add_rse, rse.name, deterministic=rse.deterministic)
            yield Change(rse.name, f"add it{kind}", add)
        yield from _protocols(rse, found, client, prune)
        yield from _attributes(rse, attributes, client, prune)
    for rse in wanted:
        yield from _distances(rse, client)
        yield from _limits(rse, client)


def _present(rse: WantedRSE, client: Client) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """What Rucio says of an RSE, and its attributes; None and nothing where it does not know it."""
    try:
        found: Mapping[str, Any] = client.get_rse(rse.name)
    except RSENotFound:
        return None, {}
    if bool(found["deterministic"]) != rse.deterministic:
        raise errors.ConfigurationError(
            f"RSE {rse.name} is {'' if found['deterministic'] else 'not '}deterministic, and its files are where "
            "that puts them; give the other kind another name"
        )
    return found, client.list_rse_attributes(rse.name)


def _protocols(rse: WantedRSE, present: Mapping[str, Any] | None, client: Client, prune: bool) -> Iterator[Change]:
    there = {(one["scheme"], one["hostname"], int(one["port"])): one for one in (present or {}).get("protocols", [])}
    for wanted in rse.protocols or ():
        name, found = _name(wanted.key), there.pop(wanted.key, None)
        if found is None:
            yield Change(rse.name, f"add protocol {name}", partial(client.add_protocol, rse.name, wanted.as_rucio()))
            continue
        new = _differences(wanted, found)
        if new:
            what = ", ".join(new)
            yield Change(
                rse.name,
                f"change protocol {name}: {what}",
                partial(client.update_protocols, rse.name, wanted.scheme, new, wanted.hostname, wanted.port),
            )
    for key in there if prune and rse.protocols is not None else ():
        yield Change(
            rse.name,
            f"remove protocol {_name(key)}",
            partial(client.delete_protocols, rse.name, *key),
        )


def _differences(wanted: WantedProtocol, found: Mapping[str, Any]) -> dict[str, Any]:
    new = {key: value for key, value in wanted.as_rucio().items() if key in ("prefix", "impl") and found[key] != value}
    # Rucio shows every operation, those that are off with 0 or None.
    if _used(wanted.domains) != _used(found["domains"]):
        # What is not named would stay as it is (Rucio 41.5.1, core/rse.py update_protocols).
        new["domains"] = {
            domain: {operation: wanted.domains.get(domain, {}).get(operation, 0) for operation in operations}
            for domain, operations in DOMAINS.items()
        }
    extended = found.get("extended_attributes") or {}
    if isinstance(extended, str):
        extended = json.loads(extended)
    if extended != wanted.extended_attributes:
        new["extended_attributes"] = dict(wanted.extended_attributes)
    return new


def _used(domains: Mapping[str, Mapping[str, int | None]]) -> dict[tuple[str, str], int]:
    return {(domain, name): rank for domain, ranks in domains.items() for name, rank in ranks.items() if rank}


def _attributes(rse: WantedRSE, present: Mapping[str, Any], client: Client, prune: bool) -> Iterator[Change]:
    for key, value in rse.attributes.items():
        # Rucio makes booleans and numbers of some texts.
        if str(present.get(key)) != value:
            yield Change(rse.name, f"set {key} = {value}", partial(client.add_rse_attribute, rse.name, key, value))
    for key in present.keys() - rse.attributes.keys() if prune else ():
        if key.startswith("cs3_"):
            yield Change(rse.name, f"remove {key}", partial(client.delete_rse_attribute, rse.name, key))


def _distances(rse: WantedRSE, client: Client) -> Iterator[Change]:
    for other, distance in rse.distances.items():
        try:
            found = client.get_distance(rse.name, other)
        except RSENotFound:
            found = []  # one of both is yet to be added
        if not found:
            yield Change(
                rse.name,
                f"distance {distance} to {other}",
                partial(client.add_distance, rse.name, other, {"distance": distance}),
            )
        elif found[0]["distance"] != distance:
            yield Change(
                rse.name,
                f"distance {distance} to {other}, not {found[0]['distance']}",
                partial(client.update_distance, rse.name, other, {"distance": distance}),
            )


def _limits(rse: WantedRSE, client: Client) -> Iterator[Change]:
    for account, limit in rse.limits.items():
        try:
            found = client.get_local_account_limit(account, rse.name).get(rse.name)
        except RSENotFound:
            found = None
        # Rucio gives back infinity as such.
        if found != (float("inf") if limit == NO_LIMIT else limit) and not (limit == NO_LIMIT and found == NO_LIMIT):
            text = "infinity" if limit == NO_LIMIT else f"{limit} bytes"
            yield Change(
                rse.name,
                f"limit of {account}: {text}",
                partial(client.set_local_account_limit, account, rse.name, limit),
            )


def _name(key: tuple[str, str, int]) -> str:
    return f"{key[0]}://{key[1]}:{key[2]}"
