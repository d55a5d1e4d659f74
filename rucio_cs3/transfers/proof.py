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


def prove(job: Job, destination: End) -> FileInfo:
    """Look until the file is the right one.

    :returns: what was found.
    :raises CS3Error: saying what is wrong, after as many looks as :data:`_LATE_S` allows.
    """
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


def _landed(destination: End) -> FileInfo:
    try:
        return destination.settled()
    except errors.NotFound as exc:
        # Reva v3.12.1 claims success after a failed inner PUT. NotFound would blame the source.
        raise errors.ServerFault(
            "the destination claimed success, but there is no file", operation="Proof", target=destination.place
        ) from exc


def _comes_late(job: Job, destination: End, info: FileInfo) -> bool:
    """Whether the server has not made the checksum yet that is to be compared."""
    if destination.proof == "size" or "adler32" not in job.checksums:
        return False
    return "adler32" in info.checksums and "adler32" not in _server_sums(job, info)


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
