"""Checks of what Rucio needs beside the endpoint: protocol, schemes, registration, attributes, conveyor, deletion.

Only for an RSE. What a client cannot see (the server's configuration, the daemons') is said not to have been tried.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rucio_cs3 import settings
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import SCHEMES
from rucio_cs3.doctor.deadlines import within
from rucio_cs3.doctor.findings import Check, Finding, Status, broken, few, not_tried, note, ok, weak
from rucio_cs3.doctor.rucio_words import Rucio
from rucio_cs3.doctor.subjects import Subject

_READ, _WRITE = "third_party_copy_read", "third_party_copy_write"

#: Longest wait for Rucio's own modules and the policy package, in seconds.
_PREPARE_S = 30.0

_POLICY_ADVICE = (
    "Set [policy] package = rucio_cs3.policy in rucio.cfg of server, daemons and clients, or call rucio_cs3.register() "
    "in the site's own policy package."
)


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module; imports Rucio."""
    package, fault = _prepared()
    return (
        Check(name="Rucio protocol", look=_protocol),
        Check(name="Rucio attributes", look=_attributes),
        Check(name="Rucio policy", look=lambda subject: _policy(subject, package, fault)),
        Check(name="Rucio account", look=_account, severity=Status.WEAK),
        Check(name="Rucio conveyor", look=_conveyor, severity=Status.WEAK),
        Check(name="Rucio agent", look=_agent, severity=Status.WEAK),
        Check(name="Rucio distances", look=_distances, severity=Status.WEAK),
        Check(name="Rucio deletion", look=_deletion, severity=Status.WEAK),
        Check(name="Rucio empty files", look=_empty_files, severity=Status.WEAK),
    )


def _prepared() -> tuple[str | None, str]:
    """The policy package, and why it cannot be used; the other rows say themselves what they miss."""
    try:
        return within(_PREPARE_S, "Rucio or its policy package", Rucio.prepare)
    except (Exception, SystemExit) as error:
        return Rucio.policy_package(), " ".join(str(error).split()) or type(error).__name__


def _domains(subject: Subject, domain: str) -> Mapping[str, Any]:
    found = (subject.protocol.get("domains") or {}).get(domain)
    return found if isinstance(found, Mapping) else {}


def _may(subject: Subject, operation: str, *domains: str) -> bool:
    return any(_domains(subject, domain).get(operation) for domain in domains)


def copies_wanted(subject: Subject) -> bool:
    """Whether Rucio would make transfers from or to the RSE."""
    return _may(subject, _READ, "wan") or _may(subject, _WRITE, "wan")


def _protocol(subject: Subject) -> Finding:
    name, protocol, rse = subject.name, subject.protocol, subject.rse or {}
    never = [operation for operation in ("read", "write", "delete") if not _may(subject, operation, "wan", "lan")]
    off = [what for what in ("read", "write", "delete") if rse.get(f"availability_{what}") is False]
    lacking = [operation for operation in (_READ, _WRITE) if not _may(subject, operation, "wan")]
    seen = f"{protocol['scheme']}, {protocol['impl']}"
    facts = {"scheme": protocol["scheme"], "impl": protocol["impl"], "never": never, "without_copies": lacking}
    if never:
        return weak(
            f"{seen}: Rucio never uses it to {' or '.join(never)}",
            f"Give priorities (1 is the best, 0 is never): rucio rse protocol remove {name} --scheme "
            f"{protocol['scheme']}, and add it anew with --domain-json as below.",
            **facts,
        )
    if off:
        return weak(
            f"{seen}; the RSE is switched off for {' and '.join(off)}",
            f"rucio rse update {name} --key availability_{off[0]} --value True",
            **facts,
        )
    if lacking:
        return note(
            f"{seen}; without {' and '.join(lacking)} in wan there are no transfers by rules "
            f"{'from and to' if len(lacking) == 2 else 'from' if lacking == [_READ] else 'to'} it",
            **facts,
        )
    return ok(f"{seen}, in all domains", **facts)


def _attributes(subject: Subject) -> Finding:
    if subject.attributes is None:
        return not_tried("they could not be had")
    known = Rucio.attribute_names()
    by_spelling = {_plain(word): word for word in (*known, *settings.SETTINGS)}
    for key in subject.attributes:
        right = by_spelling.get(_plain(key))
        if key in known or key in settings.SETTINGS or right is None:
            continue
        return weak(
            f"attribute {key} means nothing to anybody",
            f"Name it {right}: rucio rse attribute unset {subject.name} --attribute {key}, then rucio rse attribute "
            f"set {subject.name} --key {right} --value VALUE",
            unknown=[key],
        )
    if subject.fault is not None and isinstance(subject.fault, errors.ConfigurationError):
        return not_tried("the settings are broken; see above")
    verify = subject.attributes.get("verify_checksum", True)
    if str(verify).lower() == "false":
        return note("verify_checksum is off: files are proven by their size alone", verify_checksum=False)
    ours = sorted(key for key in subject.attributes if key.startswith("cs3_"))
    return ok(f"settings among them: {', '.join(ours)}" if ours else "none is unknown", settings=ours)


def _plain(word: str) -> str:
    """How people misspell: capitals, dashes, and no prefix."""
    return word.lower().replace("-", "").replace("_", "").removeprefix("cs3")


def _policy(subject: Subject, package: str | None, fault: str) -> Finding:
    """In this process; Rucio imports the package by itself wherever it is used.

    :param fault: why it cannot be imported.
    """
    client = Rucio.is_client()
    registered = "rucio_cs3.policy" in sys.modules
    where = f"this {'client' if client else 'server'} ({Rucio.configuration()})"
    facts: dict[str, Any] = {"package": package, "registered": registered, "process": "client" if client else "server"}
    scheme = str(subject.protocol["scheme"])
    new = scheme in SCHEMES and scheme not in Rucio.schemes_of_its_own()
    elsewhere = "; server and daemons have configurations of their own" if client else ""
    if fault:
        what = f"[policy] package {package} cannot be imported" if package else "Rucio's modules cannot be imported"
        return broken(f"{where}: {what}: {fault}", _POLICY_ADVICE, **facts)
    if registered:
        from rucio_cs3 import policy

        try:
            policy.check()
        except errors.ConfigurationError as error:
            return broken(f"{where}: {error.message}", _POLICY_ADVICE, **facts)
        return ok(f"{where}: registered by {package or 'this program'}{elsewhere}", **facts)
    if new:
        return broken(
            f"{where}: nothing registers {scheme}, which Rucio does not know by itself", _POLICY_ADVICE, **facts
        )
    if copies_wanted(subject) and not client:
        return weak(f"{where}: transfertool cs3 is not registered", _POLICY_ADVICE, **facts)
    return note(f"{where}: not registered; Rucio knows {scheme} by itself{elsewhere}", **facts)


def _account(subject: Subject) -> Finding:
    """Without a limit nobody makes rules, and ``rucio upload`` makes one."""
    if not Rucio.is_client():
        return not_tried("it is a matter of each client's account")
    account, limit, has_others = Rucio.account_limits(subject.name)
    if limit is None and not has_others:
        return weak(
            f"account {account} has no limit here, so it can make no rules, and upload nothing",
            f"rucio account limit set {account} --rse {subject.name} --bytes infinity",
            account=account,
            limit=None,
        )
    return ok(f"account {account} may make rules here", account=account, limit=str(limit))


def _conveyor(subject: Subject) -> Finding:
    if not copies_wanted(subject):
        return not_tried("the protocol takes part in no transfers")
    if Rucio.is_client():
        return not_tried("only the server's configuration tells; run this with that of the daemons (RUCIO_CONFIG)")
    tools, schemes = Rucio.conveyor("transfertool"), Rucio.conveyor("scheme")
    facts = {"transfertool": tools, "scheme": schemes}
    scheme = str(subject.protocol["scheme"])
    if schemes and scheme not in schemes:
        return broken(
            f"[conveyor] scheme is {','.join(schemes)}, without {scheme}: nothing is transferred from or to it",
            f"Add {scheme} to scheme in section [conveyor] of the daemons' rucio.cfg.",
            **facts,
        )
    if "cs3" not in tools:
        return weak(
            f"[conveyor] transfertool is {','.join(tools) or 'not set'}: the transfertool of this package is not asked",
            "Set transfertool = cs3 (or cs3,fts3) in section [conveyor]; with FTS alone, follow docs/fts.md.",
            **facts,
        )
    return ok(f"transfertool {','.join(tools)}; scheme {','.join(schemes) or 'any'}", **facts)


def _agent(subject: Subject) -> Finding:
    if not copies_wanted(subject):
        return not_tried("the protocol takes part in no transfers")
    if Rucio.is_client():
        return not_tried("only the server's database tells")
    if "cs3" not in Rucio.conveyor("transfertool"):
        return not_tried("transfertool cs3 is not in use")
    alive = Rucio.agents()
    if not alive:
        return weak(
            "no agent has a heartbeat: transfers wait until one runs",
            "Start it: rucio-cs3 agent, on a machine with the credentials of both RSEs.",
            agents=[],
        )
    return ok(f"agents run on {', '.join(sorted(set(alive)))}", agents=alive)


def _distances(subject: Subject) -> Finding:
    if not copies_wanted(subject):
        return not_tried("the protocol takes part in no transfers")
    found, asked = Rucio.distances(subject.rse or {})
    to_it, from_it = (
        sorted({one for one, two in found if two == subject.name}),
        sorted({two for one, two in found if one == subject.name}),
    )
    facts = {"from": to_it, "to": from_it, "asked": asked}
    if not found:
        return note(
            "there is no distance to or from another RSE" + ("" if asked is None else f" (of {asked} asked for)"),
            f"For transfers: rucio rse distance set {subject.name} OTHER --distance 1 --bidirectional",
            **facts,
        )
    return ok(f"from {few(to_it)}, to {few(from_it)}", **facts)


def _deletion(subject: Subject) -> Finding:
    """What makes the reaper delete (Rucio 41.5.1 daemons/reaper/reaper.py, __check_rse_usage)."""
    rse, attributes = subject.rse or {}, subject.attributes or {}
    if not _may(subject, "delete", "wan", "lan"):
        return not_tried("the protocol never deletes")
    if str(attributes.get("greedyDeletion", "")).lower() == "true":
        return ok("greedyDeletion: what no rule holds is deleted as soon as it may", greedy=True)
    limits, sources = Rucio.limits(rse), Rucio.usage_sources(rse)
    wanted = {str(attributes.get(key) or "storage") for key in ("source_for_total_space", "source_for_used_space")}
    least = limits.get("MinFreeSpace")
    facts = {"greedy": False, "MinFreeSpace": least, "usage": sorted(sources)}
    if least and wanted <= sources:
        return ok(f"files are deleted while less than {least} bytes are free (MinFreeSpace)", **facts)
    greedy = f"rucio rse attribute set {subject.name} --key greedyDeletion --value True"
    if least:
        return weak(
            f"MinFreeSpace is set, but Rucio is told no usage from {', '.join(sorted(wanted - sources))}, so nothing "
            "is deleted for it",
            f"Push usage (rucio-cs3 usage), or delete at once: {greedy}",
            **facts,
        )
    return note(
        "neither greedyDeletion nor MinFreeSpace is set: only what is obsolete is deleted, and the rest stays",
        f"Delete as soon as may be: {greedy} — or set MinFreeSpace: rucio rse limit set {subject.name} "
        "--limit MinFreeSpace BYTES",
        **facts,
    )


def _empty_files(subject: Subject) -> Finding:
    """63 s for each (Rucio 41.5.1 client/uploadclient.py, _retry_protocol_stat)."""
    attributes = subject.attributes or {}
    if str(attributes.get("skip_upload_stat", "")).lower() == "true":
        return ok("skip_upload_stat: uploads of empty files do not wait", seconds=0)
    retries = Rucio.option("client", "protocol_stat_retries")
    if retries is not None and retries.strip() == "0":
        return ok("protocol_stat_retries is 0 here: uploads of empty files do not wait", seconds=0)
    return note(
        "rucio upload waits 63 s for each empty file",
        f"rucio rse attribute set {subject.name} --key skip_upload_stat --value True",
        seconds=63,
    )
