"""Two clouds of one kind, and RSEs at them that log in in every way that these clouds know."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from rucio_cs3.sandbox.cloud import EmbeddedCloud
from rucio_cs3.sandbox.issuer import Issuer
from rucio_cs3.sandbox.private import write_private
from rucio_cs3.sandbox.reva import RevaSite, User
from rucio_cs3.sandbox.story import Rse
from tests.contract.faulty_reva import FaultyReva
from tests.leaks.known import Known

#: What other formats have to write in another way.
_AWKWARD = '/"wört% +&7'


@dataclass
class Stage:
    """
    :param folder: where secrets are kept that are given as files; never searched.
    :param source: of everything; faults happen at both.
    """

    kind: str
    folder: Path
    known: Known
    source: Any
    destination: Any
    accounts: dict[str, dict[str, str]]
    logs: list[Path]
    rses: dict[str, Rse] = field(default_factory=dict)

    def rse(self, role: str, *, at: Any, impl: str = "rucio_cs3.protocol.Default") -> Rse:
        """An RSE with a folder of its own."""
        rse = self.rses[role] = Rse(f"{self.kind}-{role}".upper(), at, "http", impl, folder=f"{self.kind}-{role}")
        return rse


def password(known: Known, name: str) -> str:
    """A new one, which is not easily found."""
    made = f"{secrets.token_hex(8)}{_AWKWARD}"
    known.add(name, made)
    return made


@contextlib.contextmanager
def embedded(known: Known, folder: Path) -> Iterator[Stage]:
    users = [User(username="einstein", password=password(known, "the password of einstein"))]
    key = secrets.token_hex(32)
    with (
        EmbeddedCloud(name="leaks-a", users=users, marker_interval_s=0) as a,
        EmbeddedCloud(name="leaks-b", users=users, marker_interval_s=0, bearer_secret=key) as b,
    ):
        for cloud in (a, b):
            known.add("a machine key", cloud.machine_key)
        token = jwt.encode({"sub": "einstein", "exp": int(time.time()) + 3600}, key, algorithm="HS256")
        known.add("a bearer token", token)
        bearer = write_private(folder / "bearer-token", token)
        accounts = {
            "push": {"token_file": str(bearer)},
            "relay": {"type": "bearer", "token_command": f"cat {bearer}"},
            "tus": {"type": "machine", "username": "einstein", "api_key": b.machine_key},
        }
        logs = [cloud.log for cloud in (a, b) if cloud.log is not None]
        yield Stage("embedded", folder, known, a, b, accounts, logs)


@contextlib.contextmanager
def reva(known: Known, folder: Path) -> Iterator[Stage]:
    users = [User(username="einstein", password=password(known, "the password of einstein"))]
    with (
        Issuer("einstein") as issuer,
        RevaSite("leaks-a", users=users, issuer=issuer.url) as a_site,
        RevaSite("leaks-b", users=users, issuer=issuer.url) as b_site,
        FaultyReva(a_site) as a,
        FaultyReva(b_site) as b,
    ):
        known.add("a client secret", issuer.client_secret)
        for site in (a_site, b_site):
            known.add("a machine key", site.machine_key)
        refresh = write_private(folder / "refresh-token", issuer.refresh_token("einstein"))
        client = {"issuer": issuer.url, "client_id": issuer.client_id, "audience": "cloud"}
        secret = write_private(folder / "client-secret", issuer.client_secret)
        accounts = {
            "push": {**client, "client_secret_file": str(secret)},
            "relay": {
                **client,
                "client_secret": issuer.client_secret,
                "grant": "refresh_token",
                "refresh_token_file": str(refresh),
            },
            "tus": {"type": "machine", "username": "einstein", "api_key": b_site.machine_key},
        }
        logs = [site.log for site in (a_site, b_site) if site.log is not None]
        yield Stage("reva", folder, known, a, b, accounts, logs)


def accounts_of(stage: Stage) -> dict[str, dict[str, str]]:
    """The entries of rse-accounts.cfg: first users' passwords where nothing else is said."""
    found = {}
    for role, rse in stage.rses.items():
        found[rse.name] = stage.accounts.get(role, rse.account())
    return found
