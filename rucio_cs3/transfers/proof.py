"""Whether a file at a site is the one that Rucio's catalogue means; knows no Rucio.

A server's "success" is only a claim. Size first, then the checksum, as far as the end's ``proof`` asks for it.
"""

from __future__ import annotations

import time

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.ends import End
from rucio_cs3.transfers.jobs import Job

#: Pauses before another look at a file that does not fit yet, in seconds: some servers answer late. EOS gives the
#: adler32 of a file that a third-party copy has just written as 000000 for a moment (xrootd#1314).
_LATE_S = (0.2, 0.4, 0.8, 1.6, 3.0)


class NothingThere(errors.ServerFault):
    """A copy was claimed to be done, and there is no file."""


def prove(job: Job, destination: End) -> FileInfo:
    """Look until the file is the right one.

    :returns: what was found.
    :raises NothingThere: when there is no file, though the destination claimed success.
    :raises CS3Error: saying what is wrong, after as many looks as :data:`_LATE_S` allows.
    """
    file = _read_at_once(job, destination)
    if file is not None:
        return file
    for pause_s in _LATE_S:
        info = _landed(destination)
        if not _comes_late(job, destination, info):
            fault = find_fault(job, destination, info)
            if fault is None:
                return info
            if not isinstance(fault, errors.SizeMismatch):
                raise fault
        time.sleep(pause_s)
    info = _landed(destination)
    fault = find_fault(job, destination, info)
    if fault is not None:
        raise fault
    return info


def _read_at_once(job: Job, destination: End) -> FileInfo | None:
    """The file, proven by reading it: content that has the catalogue's checksum and size leaves nothing to look for.

    :returns: None where it has to be looked at; what is wrong with it is found out then.
    """
    wanted = job.checksums
    if destination.proof != "read" or not job.read_back or not wanted:
        return None
    name = next(iter(wanted))
    try:
        file = destination.read_back(job.size_bytes, name)
    except errors.CS3Error:
        return None
    return file if file is not None and file.checksums[name] == wanted[name] else None


def _landed(destination: End) -> FileInfo:
    try:
        return destination.settled()
    except errors.NotFound as exc:
        # Reva v3.12.1 claims success after a failed inner PUT. NotFound would blame the source.
        raise NothingThere(
            "the destination claimed success, but there is no file", operation="Proof", target=destination.place
        ) from exc


def _comes_late(job: Job, destination: End, info: FileInfo) -> bool:
    """Whether the server has not made the checksum yet that is to be compared."""
    if destination.proof == "size" or "adler32" not in job.checksums:
        return False
    # A CS3 cloud says that it has none yet; any other site's "000000" stands among the checksums.
    return "adler32" not in _server_sums(job, info) and (info.summing or "adler32" in info.checksums)


def find_fault(job: Job, end: End, info: FileInfo) -> errors.CS3Error | None:
    """What is wrong with a file that ought to be the job's; None when it is proven right.

    Size first, then the checksum as the end's ``proof`` says: the server's own where it has one, and for
    ``read`` otherwise that of the whole file as it reads.

    :raises CS3Error: when it cannot be found out.
    """
    if info.is_directory:
        return errors.AlreadyExists("a folder stands where the file belongs", operation="Stat", target=end.place)
    if info.size != job.size_bytes:
        return errors.SizeMismatch(
            f"{info.size} bytes are at the destination, {job.size_bytes} are in Rucio's catalogue",
            operation="Stat",
            target=end.place,
        )
    if not compares_content(job, end, info):
        return None
    wanted = job.checksums
    found = _server_sums(job, info)
    if not found:
        name = next(iter(wanted))
        found = {name: end.checksum(name)}
        if found[name] == wanted[name]:
            # The next who asks for it need not read the file.
            end.keep(info, found)
    for name, value in found.items():
        if value != wanted[name]:
            return errors.ChecksumMismatch(
                f"{name} at the destination is {value}, Rucio's catalogue says {wanted[name]}",
                operation="Proof",
                target=end.place,
            )
    return None


def compares_content(job: Job, end: End, info: FileInfo) -> bool:
    """Whether the end's ``proof`` looks at more than the size of a file."""
    if not job.checksums or end.proof == "size":
        return False
    return bool(_server_sums(job, info)) or (end.proof == "read" and job.read_back)


def _server_sums(job: Job, info: FileInfo) -> dict[str, str]:
    """The server's checksums of those that the catalogue has, too, without what stands for "not known yet"."""
    return {
        name: value
        for name, value in info.checksums.items()
        # No file has adler32 0 but those whose bytes add up to exactly 65520 modulo 65521; EOS means "not yet".
        if name in job.checksums and not (name == "adler32" and value == "00000000")
    }
