"""The commands that make an endpoint an RSE, ready for a shell; pure but for what the subject holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from rucio_cs3 import settings
from rucio_cs3.cs3.reference import base_of_prefix
from rucio_cs3.doctor.findings import Finding, Status
from rucio_cs3.doctor.subjects import Subject

_BASIC = {"read": 1, "write": 1, "delete": 1}
_COPIES = {"third_party_copy_read": 1, "third_party_copy_write": 1}

#: Attributes of an RSE that decide how its files are named and proven, and when they go.
_KEPT = ("lfn2pfn_algorithm", "verify_checksum", "greedyDeletion", "naming_convention", "oidc_support")


def lines(subject: Subject, name: str, found: Mapping[str, Finding], *, account: str | None) -> list[str]:
    """Commands and remarks (``#``), in order; none where the settings make no endpoint.

    :param name: of the RSE to make.
    :param account: who may write there; None where nobody is known.
    """
    if subject.endpoint is None:
        return []
    protocol, rse = subject.protocol, subject.rse or {}
    rse_word = shlex.quote(name)
    made = ["rucio", "rse", "add", name]
    if rse.get("deterministic") is False:
        made.append("--non-deterministic")
    told = [
        *("rucio", "rse", "protocol", "add", name),
        *("--scheme", _scheme(subject), "--hostname", str(protocol["hostname"])),
        *("--port", str(protocol.get("port") or (443 if subject.endpoint.webdav.secure else 80))),
        *("--prefix", settings.prefix_path(_prefix(subject))),
        *("--impl", str(protocol.get("impl") or _impl(subject))),
        *("--domain-json", json.dumps(_domains(subject, found))),
        *("--extended-attributes-json", json.dumps(_extended(subject))),
    ]
    commands = [shlex.join(made), shlex.join(told)]
    attributes = {key: (subject.attributes or {})[key] for key in _KEPT if key in (subject.attributes or {})}
    for key, value in {**attributes, "skip_upload_stat": True}.items():
        commands.append(shlex.join(["rucio", "rse", "attribute", "set", name, "--key", key, "--value", str(value)]))
    if account:
        commands.append(shlex.join(["rucio", "account", "limit", "set", account, "--rse", name, "--bytes", "infinity"]))
    asked = found.get("TPC")
    relayed = asked is not None and asked.status is Status.NOTE and not protocol.get("domains")
    return [
        *commands,
        *(
            [f"# to relay transfers (transfertool cs3), add to wan in --domain-json: {json.dumps(_COPIES)[1:-1]}"]
            * relayed
        ),
        f"# login of {rse_word}: into rse-accounts.cfg under its name, on each machine that uses it",
        f"# transfers: rucio rse distance set {rse_word} OTHER --distance 1 --bidirectional",
    ]


def _scheme(subject: Subject) -> str:
    """That of an RSE stays; of a URL that people have in a browser it becomes what Rucio calls WebDAV over TLS."""
    scheme = str(subject.protocol["scheme"])
    return "davs" if scheme == "https" and subject.rse is None else scheme


def _prefix(subject: Subject) -> Mapping[str, Any]:
    """The prefix of the folder that was examined, which need not be that of the protocol."""
    assert subject.endpoint is not None
    if subject.folder is None:
        return subject.protocol
    from urllib.parse import urlsplit

    return {"prefix": urlsplit(subject.endpoint.webdav.url(subject.folder)).path}


def _impl(subject: Subject) -> str:
    """As docs/rse-setup.md adds such an RSE: where files land under their names, a rename would be for nothing."""
    direct = subject.place.upload_landing == "direct"
    return f"rucio_cs3.protocol.{'NoRename' if direct else 'Default'}"


def _domains(subject: Subject, found: Mapping[str, Finding]) -> Mapping[str, Any]:
    if given := subject.protocol.get("domains"):
        return {
            domain: {operation: priority for operation, priority in operations.items() if priority}
            for domain, operations in given.items()
        }
    # Without third-party copies the agent relays, which is worth it between clouds alone; so that is asked for.
    asked = found.get("TPC")
    copies = _COPIES if asked is not None and asked.status is Status.OK else {}
    return {"wan": {**_BASIC, **copies}, "lan": dict(_BASIC)}


def _extended(subject: Subject) -> Mapping[str, Any]:
    """The settings as they were given, and the WebDAV base where the prefix does not tell it."""
    assert subject.endpoint is not None
    given = {key: value for key, value in subject.settings.items() if key in settings.SETTINGS}
    base = subject.endpoint.webdav.path
    if "cs3_webdav_base" not in given and base_of_prefix(f"{base}/x") is None:
        given["cs3_webdav_base"] = base
    return given
