"""Checks of third-party copies: asked without writing, then done with files of ours alone.

**A push is tried only where a probe has shown third-party copies**: elsewhere it is a copy within the server, which
with equal paths destroys the file (Reva v3.12.1). Here both are names in the scratch folder, and they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.webdav import tpc
from rucio_cs3.cs3.webdav.probes import TPCProbes
from rucio_cs3.doctor.findings import Check, Finding, Status, note, ok, weak
from rucio_cs3.doctor.subjects import Subject
from rucio_cs3.doctor.uploading import CONTENT, SIZE_BYTES, probe, scratch_of

_RELAY = "transfers to and from it pass through the agent (relay)"


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module."""
    return (
        Check(
            name="TPC",
            look=_asked,
            needs=("WebDAV folder",),
            severity=Status.WEAK,
            advice="Set cs3_transfer_mode to relay if the cloud's operator cannot tell why.",
        ),
        Check(name="TPC pull", look=_pull, needs=("TPC", "upload"), writes=True, severity=Status.WEAK),
        Check(name="TPC push", look=_push, needs=("TPC", "upload"), writes=True, severity=Status.WEAK),
    )


def _asked(subject: Subject) -> Finding:
    url = subject.place.webdav.url(subject.home)
    # Probes of its own: what this process believes otherwise may be an hour old.
    speaks = subject.copies = TPCProbes().ask(subject.storage.http, url, subject.authorization)
    wish = str(subject.settings.get("cs3_transfer_mode") or "auto")
    if speaks:
        return ok("the front end does third-party copies", tpc=True, mode=wish)
    if wish in ("pull", "push"):
        return weak(
            f"the front end does no third-party copies, and cs3_transfer_mode is {wish}",
            "Set cs3_transfer_mode to auto, or have enable_http_tpc switched on in ocdav.",
            tpc=False,
            mode=wish,
        )
    able = subject.place.stores_paths
    return note(
        f"the front end does no third-party copies; {_RELAY}",
        "Reva v3 does them with enable_http_tpc = true in ocdav." if able else "",
        tpc=False,
        mode=wish,
    )


def _pull(subject: Subject) -> Finding:
    return _copied(subject, "pull", tpc.pull)


def _push(subject: Subject) -> Finding:
    return _copied(subject, "push", tpc.push)


def _copied(subject: Subject, what: str, copy: Callable[..., None]) -> Finding:
    """Copy a file of ours from the server to itself, as if it were two."""
    if not subject.copies:
        return Finding(
            status=Status.NOT_TRIED,
            seen="not tried: without third-party copies "
            + ("a push would be a copy within the server" if what == "push" else "there is nothing to pull with"),
        )
    source = probe(subject, f"{what}-from", CONTENT)
    target = scratch_of(subject).file(f"{what}-to")
    place = subject.place
    copy(
        subject.storage.http,
        source_url=place.webdav.url(source),
        destination_url=place.webdav.url(target),
        source_authorization=subject.authorization,
        destination_authorization=subject.authorization,
    )
    return _proven(subject, what, source, target)


def _proven(subject: Subject, what: str, source: Reference, target: Reference) -> Finding:
    advice = "Leave cs3_transfer_mode at auto: such a copy is noticed, and the file relayed."
    try:
        size = subject.storage.settled(target).size
    except errors.NotFound:
        return weak(f"a {what} is said to be done, and nothing has come", advice)
    if size != SIZE_BYTES or subject.storage.checksum(target) != subject.storage.checksum(source):
        return weak(f"a {what} is said to be done, and other bytes have come", advice)
    return ok(f"a {what} of a file from the server to itself has brought it whole")
