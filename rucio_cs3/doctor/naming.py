"""Checks of what a server does with names: replaces, throws away, locks, and keeps words about them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2
from cs3.types.v1beta1 import types_pb2

from rucio_cs3.cs3 import errors, resources
from rucio_cs3.cs3.recycle import RecycledItem
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.doctor.findings import REFUSED, Check, Finding, Status, broken, note, ok, weak
from rucio_cs3.doctor.subjects import Subject
from rucio_cs3.doctor.uploading import probe, scratch_of

#: What the metadata are called that are tried with.
_KEY = "rucio.cs3.doctor"

#: After so many seconds a lock ends by itself, should this process be killed.
_LOCK_S = 60

#: How far back the recycle bin is looked into, in seconds: a server that takes time windows is asked week by week.
_LOOK_BACK_S = 14 * 86_400

#: What a server says that does not know a call.
_UNKNOWN = (errors.Unsupported,)


def checks() -> Sequence[Check[Subject]]:
    """The rows of this module."""
    return (
        Check(name="move", look=_move, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="recycle bin", look=_bin, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="metadata", look=_metadata, needs=("upload",), writes=True, severity=Status.WEAK),
        Check(name="locks", look=_locks, needs=("upload",), writes=True, severity=Status.WEAK),
    )


def bin_check() -> Check[Subject]:
    """The recycle bin, only looked into: where nothing may be written."""
    return Check(name="recycle bin", look=_look_into_bin, needs=("folder",), severity=Status.WEAK)


def _move(subject: Subject) -> Finding:
    """A raw Move onto a name that is taken; both files are ours."""
    source, taken = probe(subject, "move-from", b"new"), probe(subject, "move-to", b"older")
    try:
        subject.gateway.move(source, taken)
    except errors.AlreadyExists:
        return ok("a move onto a name that is taken is refused", replaces=False)
    except REFUSED as error:
        return note(f"a move onto a name that is taken is refused, as {error.code}", replaces=False)
    if subject.gateway.stat(taken).size != len(b"new"):
        return broken("a move onto a name that is taken is said to be done, and is not", "Tell the cloud's operator.")
    return note("a move replaces what stands there; this package looks before each", replaces=True)


def _bin(subject: Subject) -> Finding:
    scratch = scratch_of(subject)
    file = probe(subject, "thrown-away", b"thrown away")
    subject.gateway.delete(file)
    found = _listed(subject)
    if isinstance(found, Finding):
        return found
    mine = [item for item in found if item.reference == file]
    others = sum(not scratch.holds(item) for item in found)
    facts: dict[str, Any] = {"listed": True, "items": others, "deleted_file": bool(mine)}
    if not mine:
        return note(f"a deleted file is gone: it is not in the recycle bin {_things(others)}", **facts)
    kept = f"a deleted file goes to the recycle bin {_things(others)}"
    try:
        for item in mine:
            subject.storage.recycle_bin.purge(item)
    except REFUSED as error:
        return weak(
            f"{kept}, and it cannot be purged: {error.message}",
            "Let the account purge its bin; until then deletion frees no space.",
            purge=False,
            **facts,
        )
    return ok(f"{kept}; it can be purged (cs3_delete)", purge=True, **facts)


def _look_into_bin(subject: Subject) -> Finding:
    found = _listed(subject)
    if isinstance(found, Finding):
        return found
    return ok(f"it can be listed {_things(len(found))}", listed=True, items=len(found))


def _listed(subject: Subject) -> list[RecycledItem] | Finding:
    """What is in the bin of late, or what there is to say where that cannot be told."""
    try:
        return list(subject.storage.recycle_bin.items(subject.home, since_s=time.time() - _LOOK_BACK_S))
    except _UNKNOWN:
        return note("there is no recycle bin to look into: what is deleted is gone", listed=False)
    except errors.Throttled as error:
        if error.retryable:
            raise  # it is busy
        return weak(f"the recycle bin is too large to be listed: {error.message}", "Empty it.", listed=False)


def _things(number: int) -> str:
    return f"(which has {number} more from this folder, of the last {_LOOK_BACK_S // 86_400} days)"


def _metadata(subject: Subject) -> Finding:
    file = probe(subject, "metadata", b"metadata")
    value = secrets.token_hex(8)
    without = "checksums are not kept beside files, so larger ones without a server's are read for each stat"
    try:
        subject.gateway.set_metadata(file, {_KEY: value})
        request = provider_api_pb2.StatRequest(ref=resources.to_message(file))
        info = subject.gateway.ask("Stat", request, str(file), idempotent=True).info
        came = dict(info.arbitrary_metadata.metadata).get(_KEY)
        # At the CERNBox line they belong to the path, and outlive the file (Reva v3.12.1).
        unset = provider_api_pb2.UnsetArbitraryMetadataRequest(
            ref=resources.to_message(file), arbitrary_metadata_keys=[_KEY]
        )
        subject.gateway.ask("UnsetArbitraryMetadata", unset, str(file))
    except _UNKNOWN:
        return note(f"the server takes no metadata: {without}", kept=False)
    except REFUSED as error:
        return note(f"the server takes no metadata ({error.code}): {without}", kept=False)
    if came != value:
        return note(f"the server takes metadata, and loses them: {without}", kept=False)
    return ok("the server keeps metadata of files", kept=True)


def _locks(subject: Subject) -> Finding:
    file = probe(subject, "locked", b"locked")
    lock = resources_pb2.Lock(
        lock_id=secrets.token_hex(16),
        type=resources_pb2.LOCK_TYPE_EXCL,
        app_name="rucio-cs3 doctor",
        expiration=types_pb2.Timestamp(seconds=int(time.time()) + _LOCK_S),
    )
    reference = resources.to_message(file)
    try:
        subject.gateway.ask("SetLock", provider_api_pb2.SetLockRequest(ref=reference, lock=lock), str(file))
    except REFUSED as error:
        return note(f"the server knows no locks ({error.code})", locks=False)
    try:
        return _delete_locked(subject, file)
    finally:
        # Where the file is gone, there is nothing to unlock; else the lock ends by itself.
        with contextlib.suppress(errors.CS3Error):
            subject.gateway.ask("Unlock", provider_api_pb2.UnlockRequest(ref=reference, lock=lock), str(file))


def _delete_locked(subject: Subject, file: Reference) -> Finding:
    try:
        subject.gateway.delete(file)
    except (errors.Locked, errors.PreconditionFailed) as error:
        return ok(f"a locked file is not deleted ({error.code})", locks=True, code=error.code)
    except REFUSED as error:
        return note(f"a locked file is not deleted, as {error.code}", locks=True, code=error.code)
    return note("a file can be locked, and is deleted all the same", locks=True, code=None)
