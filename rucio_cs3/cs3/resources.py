"""What the gateway's messages say about files, quotas and tickets, as plain values.

Pure: reads protobuf messages, calls nothing. The quirks of the two server lines that show up in
messages are settled here, so that no other module sees them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cs3.storage.provider.v1beta1 import resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import checksums, errors, kept_checksums
from rucio_cs3.cs3.confidential import Confidential
from rucio_cs3.cs3.reference import MountRoot, Reference

_log = logging.getLogger(__name__)

#: OpenCloud writes 2**64 - 1 into opaque ``remaining`` for "no limit".
_NO_LIMIT = str(2**64 - 1)

#: More digits are no room that a disk can have, and ``int`` raises ValueError for more than some thousands.
_BYTES = re.compile(r"[0-9]{1,18}")

#: Most bytes that a file can have: Rucio keeps sizes as signed 64-bit integers, and so do file systems. What is more is
#: a number below zero that a server has made a large one of.
SIZE_MAX_BYTES = 2**63 - 1

#: Longest etag, in characters; real ones have some 40. It is sent back to the server, and kept in notes.
ETAG_MAX_CHARACTERS = 1024

#: Only what data gateways of both lines write; all other codes (UNSET, INVALID) carry no sum.
_CHECKSUM_NAMES = {
    resources_pb2.RESOURCE_CHECKSUM_TYPE_ADLER32: "adler32",
    resources_pb2.RESOURCE_CHECKSUM_TYPE_MD5: "md5",
    resources_pb2.RESOURCE_CHECKSUM_TYPE_SHA1: "sha1",
}


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One file or folder.

    :param reference: the place it was asked for, or listed under.
    :param size: bytes; of a folder whatever the server counts.
    :param checksums: algorithm -> full-width lower-case hex digits: those of the server, and those kept beside this
        very content (:mod:`rucio_cs3.cs3.kept_checksums`); may be empty.
    :param etag: changes with the content; opaque.
    :param mtime_s: seconds since the epoch.
    :param processing: the server still works on the upload; the content cannot be read yet.
    :param summing: the server keeps an adler32 of such files, and has none of this one yet.
    """

    reference: Reference
    size: int
    is_directory: bool
    checksums: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    mtime_s: float = 0.0
    processing: bool = False
    summing: bool = False

    @property
    def content(self) -> tuple[str, int, float]:
        """What changes when the content does: etag, size, modification time."""
        return self.etag, self.size, self.mtime_s


class Entries(list[FileInfo]):
    """What is in a folder, as far as it can be told.

    *A name that is not among them may be there all the same* unless :attr:`left_out` is 0: who wants to know of one
    file looks at it.
    """

    #: How many entries the server listed that nothing here can name, or that have sizes which no file has.
    left_out = 0


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Space of the folder's owner or disk, in bytes; None is "no limit"."""

    total_bytes: int | None
    used_bytes: int
    remaining_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket(Confidential):
    """Where and how one file's bytes may be sent or fetched.

    :param protocol: ``simple``, ``spaces`` or ``tus``.
    :param url: a secret, too: some servers put the transfer token into it.
    :param token: the transfer token; a secret.
    """

    protocol: str
    url: str = field(repr=False)
    token: str = field(repr=False)


def to_message(reference: Reference) -> resources_pb2.Reference:
    """The Reference message of a place.

    A space's path is written ``./d/x``: the one form that both OpenCloud drivers take everywhere
    (a bare id without a path cannot be downloaded there).
    """
    if isinstance(reference.root, MountRoot):
        return resources_pb2.Reference(path=str(reference))
    root = reference.root
    return resources_pb2.Reference(
        resource_id=resources_pb2.ResourceId(
            storage_id=root.storage_id, space_id=root.space_id, opaque_id=root.space_id
        ),
        path=f"./{reference.path}" if reference.path else ".",
    )


def file_info(reference: Reference, info: resources_pb2.ResourceInfo) -> FileInfo:
    """Read a ResourceInfo that answers a question about ``reference``.

    ``info.path`` is ignored: it is the full path on Reva v3, and a base name or a space-relative path on
    OpenCloud, depending on the form of the question. An over-long etag counts as none.

    :raises ProtocolViolation: for a file of more than :data:`SIZE_MAX_BYTES`.
    """
    opaque = plain_entries(info.opaque)
    is_directory = info.type == resources_pb2.RESOURCE_TYPE_CONTAINER
    size, mtime = info.size, info.mtime
    if size > SIZE_MAX_BYTES and not is_directory:
        raise errors.ProtocolViolation(f"the server says that the file has {size} bytes", target=str(reference))
    etag = info.etag if len(info.etag) <= ETAG_MAX_CHARACTERS else ""
    mtime_s = mtime.seconds + mtime.nanos / 1e9
    sums: dict[str, str] = {}
    summing = False
    if not is_directory:
        name = _CHECKSUM_NAMES.get(info.checksum.type)
        sums = checksums.from_server(size, typed=(name, info.checksum.sum) if name else None, opaque=opaque)
        # EOS says 000000 just after a transfer (xrootd#1314); Reva trims the zeros (v3.12.1 eosfs.go).
        summing = name == "adler32" and size > 0 and name not in sums and not info.checksum.sum.strip("0")
        metadata = info.arbitrary_metadata.metadata
        if metadata and "adler32" not in sums:
            # The server's own win: EOS keeps metadata of files, too, and sums what it stores.
            sums = {**kept_checksums.believed(metadata, size=size, mtime_s=mtime_s, etag=etag), **sums}
    return FileInfo(
        reference=reference,
        size=size,
        is_directory=is_directory,
        checksums=sums,
        etag=etag,
        mtime_s=mtime_s,
        processing=opaque.get("status") == "processing",
        summing=summing,
    )


def listed(folder: Reference, infos: Iterable[resources_pb2.ResourceInfo]) -> Entries:
    """Read the entries of a folder, in the server's order; of several with one name the first counts.

    Left out, with one warning for all, is what can be no entry of this folder, and must not keep anybody from the
    others: a name with a slash, ``..``, NUL and the like, which would be taken for a place elsewhere, and a file of
    more than :data:`SIZE_MAX_BYTES`.
    """
    found = Entries()
    seen: set[str] = set()
    fault = ""
    for info in infos:
        name = listed_name(info)
        if name in seen:
            continue
        seen.add(name)
        try:
            if "/" in name:
                raise errors.InvalidReference("its name has a slash")
            found.append(file_info(folder.child(name), info))
        except (errors.InvalidReference, errors.ProtocolViolation) as error:
            found.left_out += 1
            fault = fault or f"{name[:64]!r}: {error.message}"
    if found.left_out:
        _log.warning("%s: left out %d of its entries; the first is %s", folder, found.left_out, fault)
    return found


def listed_name(info: resources_pb2.ResourceInfo) -> str:
    """The name of a listed entry: ``name`` is empty on Reva v3, where ``path`` is the full path."""
    return str(info.name) or str(info.path).rstrip("/").rpartition("/")[2]


def quota(total_bytes: int, used_bytes: int, opaque: types_pb2.Opaque) -> Quota:
    """Read a GetQuotaResponse: Reva v3 answers the disk's numbers; OpenCloud's total of 0 is no limit.

    No number is more than :data:`SIZE_MAX_BYTES`.
    """
    total_bytes, used_bytes = min(total_bytes, SIZE_MAX_BYTES), min(used_bytes, SIZE_MAX_BYTES)
    if total_bytes == 0:
        return Quota(total_bytes=None, used_bytes=used_bytes, remaining_bytes=None)
    text = plain_entries(opaque).get("remaining", "")
    if text == _NO_LIMIT:
        return Quota(total_bytes=total_bytes, used_bytes=used_bytes, remaining_bytes=None)
    remaining = int(text) if _BYTES.fullmatch(text) else max(total_bytes - used_bytes, 0)
    return Quota(total_bytes=total_bytes, used_bytes=used_bytes, remaining_bytes=remaining)


def plain_entries(opaque: types_pb2.Opaque) -> dict[str, str]:
    """The entries of an Opaque whose decoder is ``plain``, as text; others are left out."""
    return {
        key: entry.value.decode("utf-8", "replace") for key, entry in opaque.map.items() if entry.decoder == "plain"
    }


def plain_opaque(entries: Mapping[str, str]) -> types_pb2.Opaque:
    """An Opaque of ``plain`` entries."""
    return types_pb2.Opaque(
        map={key: types_pb2.OpaqueEntry(decoder="plain", value=value.encode()) for key, value in entries.items()}
    )


def pick_ticket(tickets: Iterable[Ticket], protocols: tuple[str, ...], reference: Reference) -> Ticket:
    """The ticket of the first of ``protocols`` that the server offers.

    :raises Unsupported: when it offers none of them.
    """
    tickets = list(tickets)
    for protocol in protocols:
        for ticket in tickets:
            if ticket.protocol == protocol:
                return ticket
    offered = ", ".join(ticket.protocol[:32] for ticket in tickets[:8]) or "none"
    raise errors.Unsupported(
        f"the server offers {offered} where one of {', '.join(protocols)} is needed", target=str(reference)
    )
