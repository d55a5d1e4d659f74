"""C122x: what all objects and threads of a process share, and what a forked child has of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rucio_cs3.cs3 import CS3Storage
from rucio_cs3.cs3.pool import StoragePool
from rucio_cs3.sandbox.cloud import EmbeddedCloud
from tests.contract.place import Place, endpoint_of, provider_of

PROGRAM = Path(__file__).with_name("forking_client.py")
PROJECT = PROGRAM.parents[2]


def logins(place: Place) -> int | None:
    """How often somebody has logged in; None where the cloud does not tell."""
    if not isinstance(place.cloud, EmbeddedCloud) or place.cloud.log is None:
        return None
    return place.cloud.log.read_text("utf-8").count("gRPC Authenticate ")


def test_c1221_all_threads_share_one_storage_and_one_login(place: Place) -> None:
    reference = place.put("file", b"shared")
    before = logins(place)
    pool = StoragePool()

    def use(_: int) -> CS3Storage:
        # As Rucio does for each file: a protocol object of its own, with settings read anew.
        storage = pool.get(endpoint_of(place.cloud), provider_of(place.cloud))
        assert storage.stat(reference).size == 6
        return storage

    try:
        with ThreadPoolExecutor(8) as threads:
            used = list(threads.map(use, range(64)))
        after = logins(place)
    finally:
        pool.get(endpoint_of(place.cloud), provider_of(place.cloud)).close()
    assert len({id(storage) for storage in used}) == 1
    assert before is None or after == before + 1


def test_c1222_a_process_may_fork_while_it_uses_a_cloud(place: Place) -> None:
    user = next(iter(place.cloud.users.values()))
    done = subprocess.run(
        [sys.executable, PROGRAM, place.local],
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "GATEWAY": place.cloud.gateway,
            "WEBDAV": place.cloud.webdav_url,
            "ROOT": place.cloud.root,
            "FOLDER": place.folder.path,
            "USERNAME": user.username,
            "PASSWORD": user.password,
            "FORKS": "20",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    children = {f"child-{number}" for number in range(20)}
    assert set(place.names()) == {"parent", "parent-again", *children}
