"""Fixtures of the tests that run *as* a Rucio daemon: RSEs, rules and requests made by Rucio's own code.

Rucio's configuration, database engine and client-or-server mode are fixed at its first import, so these tests cannot
share a process with others. ``tests/rucio/test_inside.py`` starts one for each file; their names keep a plain run of
pytest from collecting them.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

IMPL = "rucio_cs3.protocol.Default"
OPERATIONS = ("read", "write", "delete", "third_party_copy_read", "third_party_copy_write")
CONTENT = b"physics" * 100


def writing() -> AbstractContextManager[Any]:
    """A session that is committed at the end."""
    from rucio.db.sqla.constants import DatabaseOperationType
    from rucio.db.sqla.session import db_session

    session: AbstractContextManager[Any] = db_session(DatabaseOperationType.WRITE)
    return session


@dataclass
class Queue:
    """Two RSEs of one test, and requests from the first to the second through Rucio's own code."""

    scope: Any
    account: Any
    source_rse: str
    destination_rse: str
    rse_ids: dict[str, str]

    def ask(self, name: str, *, content: bytes = CONTENT, priority: int = 3) -> str:
        """Register a file at the source and make a rule for the destination.

        :returns: the rule's id.
        """
        from rucio.core import replica as replica_core
        from rucio.core import rule as rule_core

        with writing() as session:
            replica_core.add_replica(
                rse_id=self.rse_ids[self.source_rse],
                scope=self.scope,
                name=name,
                bytes_=len(content),
                account=self.account,
                adler32=f"{zlib.adler32(content):08x}",
                session=session,
            )
            rule_ids = rule_core.add_rule(
                dids=[{"scope": self.scope, "name": name}],
                account=self.account,
                copies=1,
                rse_expression=self.destination_rse,
                grouping="NONE",
                weight=None,
                lifetime=None,
                locked=False,
                subscription_id=None,
                priority=priority,
                session=session,
            )
        return str(rule_ids[0])

    def submit(self) -> None:
        """One pass of Rucio's own submitter, for this test's destination alone."""
        from rucio.daemons.conveyor import submitter

        submitter.submitter(
            once=True,
            partition_wait_time=0,
            transfertools=["cs3"],
            rses=[{"id": self.rse_ids[self.destination_rse]}],
        )

    def row(self, name: str) -> dict[str, Any]:
        """The request of a file, as ``get_and_mark_next`` would give it."""
        from rucio.core import request as request_core

        row = request_core.get_request_by_did(self.scope, name, self.rse_ids[self.destination_rse])
        found: dict[str, Any] = request_core.get_request(row["id"])
        found["request_id"] = found["id"]
        return found

    def replica_state(self, name: str) -> str:
        from rucio.core import replica as replica_core

        found = replica_core.get_replica(self.rse_ids[self.destination_rse], self.scope, name)
        return str(found["state"].name)


@pytest.fixture
def make_queue() -> Callable[..., Queue]:
    """Makes RSEs, scope, limits and distance; ``impls`` and ``schemes`` are of source and destination."""
    from rucio.common.types import InternalAccount, InternalScope
    from rucio.core import account_limit, distance, scope
    from rucio.core import rse as rse_core

    def make(
        *, impls: tuple[str, str] = (IMPL, IMPL), schemes: tuple[str, str] = ("davs", "davs"), **kwargs: Any
    ) -> Queue:
        tag = uuid.uuid4().hex[:8]
        account = InternalAccount("root")
        queue = Queue(InternalScope(f"s{tag}"), account, f"SRC-{tag.upper()}", f"DST-{tag.upper()}", {})
        with writing() as session:
            scope.add_scope(queue.scope, account, session=session)
            for name, impl, scheme in zip((queue.source_rse, queue.destination_rse), impls, schemes, strict=True):
                rse_id = rse_core.add_rse(name, session=session, **kwargs)
                queue.rse_ids[name] = rse_id
                rse_core.add_protocol(
                    rse_id,
                    {
                        "scheme": scheme,
                        "hostname": f"{name.lower()}.test",
                        "port": 443,
                        "prefix": "/remote.php/webdav/rucio/",
                        "impl": impl,
                        "domains": {domain: dict.fromkeys(OPERATIONS, 1) for domain in ("lan", "wan")},
                    },
                    session=session,
                )
                account_limit.set_local_account_limit(account, rse_id, -1, session=session)
            ids = [queue.rse_ids[name] for name in (queue.source_rse, queue.destination_rse)]
            distance.add_distance(ids[0], ids[1], distance=1, session=session)
        return queue

    return make


@pytest.fixture
def queue(make_queue: Callable[..., Queue]) -> Queue:
    return make_queue()
