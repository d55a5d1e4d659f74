"""Requests in every state, as they stand in the tables of a Rucio at work; made by Rucio's own models.

Run as a program with the configuration of a Rucio's daemons, or called from the tests in ``inside/``. Progress is
written by the package's own writer.
"""

from __future__ import annotations

import datetime
import sys
import uuid
from typing import Any

SIZE = 4_000_000_000
REASON = "COPY https://b.test/failed: the quota is used up (HTTP 507, trace 4711aa)"
RATE = 120_000_000

#: Name of the file -> the stage in which it is to be seen.
EXPECTED = {
    "running-pull": "running",
    "running-relay": "running",
    "running-silent": "running",
    "waiting-urgent": "waiting",
    "waiting-old": "waiting",
    "waiting-orphan": "waiting",
    "waiting-claimed": "waiting",
    "waiting-put-off": "waiting",
    "waiting-retried": "waiting",
    "throttled": "throttled",
    "preparing": "throttled",
    "queued": "queued",
    "submitting": "queued",
    "failed": "failed",
    "failed-archived": "failed",
    "no-sources": "failed",
    "done": "done",
    "done-archived": "done",
}


def fill(tag: str) -> tuple[str, str]:
    """Make two RSEs and the scope ``s<tag>`` with all the files of :data:`EXPECTED`, and others that are not ours.

    :returns: names of source and destination.
    """
    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core import rse as rse_core
    from rucio.core import scope as scope_core
    from rucio.db.sqla import models
    from rucio.db.sqla.constants import DatabaseOperationType, DIDType, RequestState, RequestType
    from rucio.db.sqla.session import db_session
    from sqlalchemy import insert

    from rucio_cs3.progress import POSTPONED_KEY, Progress, written
    from rucio_cs3.transfers.modes import Mode

    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    account, scope = InternalAccount("root"), InternalScope(f"s{tag}")
    source, destination = f"SRC-{tag.upper()}", f"DST-{tag.upper()}"

    def ago(seconds: float) -> datetime.datetime:
        return now - datetime.timedelta(seconds=seconds)

    def progress(mode: Mode, moved: int, rate: int, started: float, at: float = 1) -> str | None:
        was = Progress(mode=mode, bytes_moved=moved, rate=rate, at=ago(at), started=ago(started))
        return written({"activity": "User Subscriptions", "bytes": SIZE}, was)

    with db_session(DatabaseOperationType.WRITE) as session:
        scope_core.add_scope(scope, account, session=session)
        ids = {}
        for name in (source, destination, f"TAPE-{tag.upper()}"):
            ids[name] = rse_core.add_rse(name, session=session)
            impl = "rucio.rse.protocols.gfal.Default" if name.startswith("TAPE") else "rucio_cs3.protocol.Default"
            rse_core.add_protocol(
                ids[name],
                {
                    "scheme": "davs",
                    "hostname": f"{name.lower()}.test",
                    "port": 443,
                    "prefix": "/x/",
                    "impl": impl,
                    "domains": {"lan": {"read": 1}, "wan": {"read": 1, "third_party_copy_read": 1}},
                },
                session=session,
            )

        def row(name: str, state: RequestState, *, archived: bool = False, **more: Any) -> None:
            values = {
                "id": uuid.uuid4().hex,
                "request_type": RequestType.TRANSFER,
                "scope": scope,
                "name": name,
                "did_type": DIDType.FILE,
                "state": state,
                "source_rse_id": ids[source],
                "dest_rse_id": ids[destination],
                "attributes": written({"activity": "User Subscriptions", "bytes": SIZE}, None),
                "bytes": SIZE,
                "account": account,
                "activity": "User Subscriptions",
                "transfertool": "cs3",
                "retry_count": 0,
                "priority": 3,
                "created_at": ago(900),
                "submitted_at": ago(600),
                "updated_at": ago(5),
                **more,
            }
            if archived:
                session.execute(insert(models.RequestHistory).values(**values))
                return
            did = {"scope": scope, "name": name, "account": account, "did_type": DIDType.FILE, "bytes": SIZE}
            session.execute(insert(models.DataIdentifier).values(**did))
            session.execute(insert(models.Request).values(**values))

        lease = now + datetime.timedelta(seconds=500)
        submitted = RequestState.SUBMITTED
        taken: dict[str, Any] = {"estimated_transferred_at": lease, "started_at": ago(20)}
        first = {**taken, "started_at": ago(25)}
        row("running-pull", submitted, attributes=progress(Mode.PULL, SIZE // 4, RATE, 25), **first)
        row("running-relay", submitted, attributes=progress(Mode.RELAY, 7, RATE, 20, at=90), **taken)
        row("running-silent", submitted, **taken)
        row("waiting-old", submitted, submitted_at=ago(700))
        row("waiting-urgent", submitted, priority=5)
        # Its agent died.
        row("waiting-orphan", submitted, estimated_transferred_at=ago(1), started_at=ago(800))
        # Its turn comes in a moment.
        row("waiting-claimed", submitted, estimated_transferred_at=lease)
        put_off = {"request": "f" * 24 + tag, "since": "2024-05-01T10:00:00", "times": 2}
        attributes = written({"activity": "User Subscriptions", POSTPONED_KEY: put_off}, None)
        row("waiting-put-off", submitted, id=put_off["request"], attributes=attributes)
        # Rucio copies the attributes into a new attempt.
        row("waiting-retried", submitted, retry_count=1, attributes=progress(Mode.PULL, 5, 5, 2000))
        before: dict[str, Any] = {"transfertool": None, "source_rse_id": None, "submitted_at": None}
        row("throttled", RequestState.WAITING, **before)
        row("preparing", RequestState.PREPARING, **before)
        row("queued", RequestState.QUEUED, **before)
        row("submitting", RequestState.SUBMITTING)
        failed: dict[str, Any] = {"err_msg": f"RequestErrMsg.TRANSFER_FAILED:{REASON}", "started_at": ago(100)}
        row("failed", RequestState.FAILED, attributes=progress(Mode.PUSH, 9, 0, 100), **failed)
        row("failed-archived", RequestState.FAILED, archived=True, updated_at=ago(60), **failed)
        no_sources: dict[str, Any] = {
            "err_msg": "RequestErrMsg.NO_SOURCES:RequestState.NO_SOURCES",
            "updated_at": ago(70),
        }
        row("no-sources", RequestState.NO_SOURCES, archived=True, **{**before, **no_sources})
        done: dict[str, Any] = {"started_at": ago(60), "transferred_at": ago(20)}
        row("done", RequestState.DONE, attributes=progress(Mode.PULL, SIZE, 0, 60), **done)
        row("done-archived", RequestState.DONE, archived=True, updated_at=ago(1000), activity="Staging", **done)
        # What is not to be seen: of long ago, of another tool, and not for this package's RSEs.
        row("done-long-ago", RequestState.DONE, archived=True, updated_at=ago(4000), **done)
        row("other-tool", submitted, transfertool="fts3")
        row("other-rse", RequestState.QUEUED, **{**before, "dest_rse_id": ids[f"TAPE-{tag.upper()}"]})
        row("stage-in", submitted, request_type=RequestType.STAGEIN)
    return source, destination


if __name__ == "__main__":
    fill(sys.argv[1])
