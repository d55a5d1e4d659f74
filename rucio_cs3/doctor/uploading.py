"""Checks that send a few bytes and fetch them again: how, how right, and what the server says of them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.http.client import drain, http_error
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Ticket, pick_ticket
from rucio_cs3.cs3.streams import UploadBody
from rucio_cs3.doctor.findings import Check, Finding, Status, broken, note, ok, weak
from rucio_cs3.doctor.folders import shown_by_webdav
from rucio_cs3.doctor.scratch import Scratch
from rucio_cs3.doctor.subjects import Subject

#: Bytes of a file that is tried with.
SIZE_BYTES = 4096
CONTENT = bytes(range(256)) * (SIZE_BYTES // 256)

#: How bytes may be sent.
_PROTOCOLS = ("simple", "tus")

_UPLOAD_ADVICE = "Try rucio-cs3 put by hand; if the cloud's web page can upload, check cs3_data_hosts."


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module; all write in the scratch folder."""
    advice = "The login may read only: give it an account that may write there."
    return (
        Check(name="probe folder", look=_make, needs=("folder",), writes=True, advice=advice),
        Check(name="upload", look=_upload, needs=("probe folder",), writes=True, advice=_UPLOAD_ADVICE),
        Check(name="download", look=_download, needs=("upload",), writes=True, advice=_UPLOAD_ADVICE),
        Check(name="WebDAV file", look=_same, needs=("upload", "WebDAV folder"), writes=True),
        Check(name="checksums", look=_given, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="wrong checksum", look=_refused, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="protocols", look=_protocols, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="ranges", look=_ranges, needs=("upload",), writes=True, severity=Status.WEAK),
    )


def scratch_of(subject: Subject) -> Scratch:
    """The folder to write in.

    :raises ConfigurationError: before it is made.
    """
    if subject.scratch is None:
        raise errors.ConfigurationError("there is no folder to write in")
    return subject.scratch


def probe(subject: Subject, name: str, content: bytes) -> Reference:
    """A file in the scratch folder, by the package's own ladder; it is whole and proven."""
    reference = scratch_of(subject).file(name)
    with tempfile.TemporaryDirectory(prefix="rucio-cs3-doctor-") as folder:
        local = Path(folder) / "probe"
        local.write_bytes(content)
        subject.storage.upload(local, reference, read_back=subject.place.proof == "read", resume=False)
    return reference


#: The file that several checks look at.
_NAME = "upload"


def _make(subject: Subject) -> Finding:
    subject.scratch = Scratch(subject.storage, subject.home)
    subject.scratch.make()
    return ok(f"{subject.scratch.folder.name} is made, and removed in the end")


def _upload(subject: Subject) -> Finding:
    try:
        probe(subject, _NAME, CONTENT)
    except errors.NoSpaceLeft as error:
        return broken(str(error), "There is no room: empty the recycle bin, delete files, or ask for more.")
    how = "and read back" if subject.place.proof == "read" else "not read back (cs3_proof)"
    return ok(f"{SIZE_BYTES} bytes went up, {how}")


def _download(subject: Subject) -> Finding:
    reference = scratch_of(subject).file(_NAME)
    with subject.storage.open(reference) as file:
        came = b"".join(iter(lambda: file.read(SIZE_BYTES + 1), b""))
    if came != CONTENT:
        return broken("other bytes came back than were sent", "Trust nothing that is stored there.")
    return ok(f"the same {SIZE_BYTES} bytes came back")


def _same(subject: Subject) -> Finding:
    return shown_by_webdav(subject, scratch_of(subject).file(_NAME), "the uploaded file")


def _given(subject: Subject) -> Finding:
    info = subject.storage.settled(scratch_of(subject).file(_NAME))
    given = sorted(info.checksums)
    digests = Digests(["adler32", "md5"])
    digests.update(memoryview(CONTENT))
    for algorithm, right in digests.hexdigests().items():
        if info.checksums.get(algorithm, right) != right:
            return broken(
                f"the server says {algorithm} {info.checksums[algorithm]} of a file that has {right}",
                "Report it to the cloud's operator; no file can be proven there.",
            )
    if "adler32" in given:
        return ok(f"the server keeps {', '.join(given)}", algorithms=given)
    kept = f"keeps {', '.join(given)}, but no adler32" if given else "keeps none"
    without = {
        "read": "each upload is read back once (cs3_proof read)",
        "server": "uploads are proven by their size alone (cs3_proof server)",
        "size": "uploads are proven by their size alone (cs3_proof size)",
    }[subject.place.proof]
    return note(f"the server {kept}; {without}", algorithms=given)


def _refused(subject: Subject) -> Finding:
    """Send right bytes and say a wrong checksum: who compares refuses them."""
    try:
        _send_with(subject, "wrong-checksum", "00000001")
    except (errors.ChecksumMismatch, errors.InvalidRequest, errors.PreconditionFailed) as error:
        return ok(f"the server refuses a file with a wrong checksum ({error.code})", code=error.code)
    except errors.ServerFault as error:
        # Only where it takes the same with the right one.
        digests = Digests(["adler32"])
        digests.update(memoryview(CONTENT))
        _send_with(subject, "right-checksum", digests.hexdigests()["adler32"])
        return ok(
            f"the server refuses a file with a wrong checksum, as its own failure ({error.code})", code=error.code
        )
    return note("the server takes a file with a wrong checksum; this package compares by itself", code=None)


def _send_with(subject: Subject, name: str, adler32: str) -> None:
    """Send the content as one that has this checksum."""
    reference = scratch_of(subject).file(name)
    tickets = subject.gateway.initiate_upload(reference, SIZE_BYTES, headers={"Upload-Checksum": f"adler32 {adler32}"})
    _send(subject, pick_ticket(tickets, ("simple", "tus"), reference), reference)


def _protocols(subject: Subject) -> Finding:
    """What is offered, and whether each works; nothing is asked for that is not used then."""
    offered: set[str] = set()
    failed = {}
    for protocol in _PROTOCOLS:
        reference = scratch_of(subject).file(f"by-{protocol}")
        tickets = subject.gateway.initiate_upload(reference, SIZE_BYTES)
        offered |= {ticket.protocol for ticket in tickets}
        ticket = next((one for one in tickets if one.protocol == protocol), None)
        if ticket is None:
            break
        try:
            _send(subject, ticket, reference)
            size = subject.storage.settled(reference).size
            if size != SIZE_BYTES:
                failed[protocol] = f"{size} bytes arrived instead of {SIZE_BYTES}"
        except errors.CS3Error as error:
            failed[protocol] = error.message
    facts: dict[str, Any] = {"offered": sorted(offered), "failed": failed}
    if failed:
        protocol, why = next(iter(failed.items()))
        working = [one for one in _PROTOCOLS if one in offered and one not in failed]
        return weak(
            f"{protocol} is offered and fails: {why}",
            f"Set cs3_upload_protocol to {working[0]}, and tell the cloud's operator."
            if working
            else "Tell the cloud's operator; proxies that refuse PUT or PATCH are the usual cause.",
            **facts,
        )
    if "tus" not in offered:
        wanted = subject.place.upload_protocol == "tus"
        return note(
            f"{', '.join(sorted(offered))}, and no tus: an upload that breaks off begins again"
            + (" (cs3_upload_protocol is tus)" if wanted else ""),
            **facts,
        )
    return ok(f"{' and '.join(one for one in _PROTOCOLS if one in offered)} work", **facts)


def _ranges(subject: Subject) -> Finding:
    reference = scratch_of(subject).file(_NAME)
    ticket = pick_ticket(subject.gateway.initiate_download(reference), ("simple", "spaces"), reference)
    first, last = 1000, 1999
    with subject.data.open(ticket, target=str(reference), conditions={"Range": f"bytes={first}-{last}"}) as answer:
        status = answer.status_code
        came = answer.read(SIZE_BYTES) if status == 206 else b""
        drain(answer)
        if status not in (200, 206, 416):
            raise http_error(answer, "GET", str(reference))
    if status == 206:
        if came != CONTENT[first : last + 1]:
            return broken(
                "a range came with other bytes than were asked for",
                "Set cs3_download_streams to 1, and tell the cloud's operator.",
                status=status,
            )
        return ok("ranges come (206): downloads go on where they broke off, in several streams", status=status)
    return note(f"no ranges ({status}): a download that breaks off begins again, in one stream", status=status)


def _send(subject: Subject, ticket: Ticket, reference: Reference) -> None:
    """Send the content as a ticket says, once."""
    if ticket.protocol == "tus":
        _patch(subject, ticket, reference)
        return
    body = UploadBody(io.BytesIO(CONTENT), SIZE_BYTES, Digests(["adler32"]), name="probe")
    subject.data.put(ticket, body, target=str(reference))


def _patch(subject: Subject, ticket: Ticket, reference: Reference) -> None:
    """All bytes in one piece (TUS 1.0.0)."""
    headers = {
        "X-Reva-Transfer": ticket.token,
        "X-Access-Token": subject.storage.access_token(),
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    }
    url = subject.place.check_data_url(ticket.url)
    with subject.storage.http.request("PATCH", url, headers=headers, body=CONTENT, target=str(reference)) as answer:
        if answer.status_code != 204:
            raise http_error(answer, "PATCH", str(reference))
