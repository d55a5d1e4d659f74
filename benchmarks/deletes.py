"""Deletion of many small files: this package's protocol beside Rucio's own WebDAV protocol, on the same real Reva.

    python benchmarks/deletes.py --files 10000

Files are made on the server's disk, in folders by Rucio's hash, and deleted through ``rsemanager`` exactly as Rucio's
reaper does it: the PFNs of a chunk first, one call each, then one ``delete`` each by one protocol object, then
``close``. The protocols take turns, chunk by chunk, so that both meet the same machine; between them the recycle bin is
emptied from outside, because Reva's lists slow down as it grows. Each chunk's deletions are checked on the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SCOPE = "benchmark"
#: The RSE of ours that does not know which files come next, so that it looks at none ahead.
UNAWARE = "UNAWARE"
#: The folder of all contenders.
PREFIX = "deletes"


@dataclass
class Result:
    """Seconds of each chunk, and of each single deletion."""

    chunks_s: list[float] = field(default_factory=list)
    files: int = 0
    cpu_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Files of all chunks by the time of all."""
        return self.files / sum(self.chunks_s)


def settings(site: Any, impl: str, **cs3: Any) -> dict[str, Any]:
    """What ``get_rse_info`` says of an RSE with one protocol."""
    url = urlsplit(site.webdav_url)
    extended = {}
    if impl.startswith("rucio_cs3"):
        extended = {"cs3_gateway": site.gateway, "cs3_gateway_tls": False, "cs3_root": site.root, **cs3}
    domains = {domain: dict.fromkeys(("read", "write", "delete"), 1) for domain in ("lan", "wan")}
    protocol = {
        "scheme": "http",
        "hostname": url.hostname,
        "port": url.port,
        "prefix": f"{url.path}/{PREFIX}/",
        "impl": impl,
        "extended_attributes": extended,
        "domains": domains,
    }
    return {
        "id": "0" * 32,
        "rse": impl.rpartition(".")[0].replace(".", "-").upper(),
        "protocols": [protocol],
        "verify_checksum": True,
        "deterministic": True,
        "lfn2pfn_algorithm": "hash",
        "sign_url": None,
    }


def make_files(folder: Path, names: list[str]) -> None:
    """Small files where Rucio's hash puts them."""
    for name in names:
        digest = hashlib.md5(f"{SCOPE}:{name}".encode()).hexdigest()
        place = folder / SCOPE / digest[0:2] / digest[2:4]
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")


def count(folder: Path) -> int:
    """Files below a folder."""
    return sum(len(files) for _, _, files in os.walk(folder))


def reap(rse: dict[str, Any], names: list[str], connect: Callable[[Any], None]) -> None:
    """A chunk, as daemons/reaper/reaper.py of Rucio 41.5.1 deletes it."""
    from rucio.rse import rsemanager

    # Rucio puts each object's token into them for a moment, so threads must not share them.
    rse = copy.deepcopy(rse)
    protocol = rsemanager.create_protocol(rse, "delete")

    def make() -> list[str]:
        lfns = ({"scope": SCOPE, "name": name, "path": None} for name in names)
        return [pfn for lfn in lfns for pfn in rsemanager.lfns2pfns(rse, [lfn], operation="delete").values()]

    if rse["rse"] == UNAWARE:
        # Of the names that another thread makes, the one that deletes knows nothing.
        with ThreadPoolExecutor(1) as other:
            pfns = other.submit(make).result()
    else:
        pfns = make()
    if "webdav" in rse["protocols"][0]["impl"]:
        # Its path2pfn takes "https…" as it is, and puts scheme, host and prefix before everything else.
        start = protocol.path2pfn("")
        pfns = [pfn.removeprefix(start) for pfn in pfns]
    connect(protocol)
    try:
        for pfn in pfns:
            protocol.delete(pfn)
    finally:
        protocol.close()


def measure(
    site: Any, contenders: dict[str, tuple[dict[str, Any], Callable[[Any], None]]], options: Any
) -> dict[str, Result]:
    """Let the contenders take turns."""
    results = {name: Result() for name in contenders}
    disk = site.path_on_disk(PREFIX)
    disk.mkdir(exist_ok=True)
    bin_ = next(site.data_directory.parent.rglob("recycle_bin"))
    rounds = options.files // (options.chunk * options.threads)
    for number in range(rounds + 1):
        order = list(contenders.items())
        for contender, (rse, connect) in order if number % 2 else reversed(order):
            chunks = [
                [f"{contender}-{number}-{thread}-{one}" for one in range(options.chunk)]
                for thread in range(options.threads)
            ]
            for names in chunks:
                make_files(disk, names)
            threads = [threading.Thread(target=reap, args=(rse, names, connect)) for names in chunks]
            began_s, cpu_s = time.perf_counter(), time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took_s = time.perf_counter() - began_s
            left = count(disk)
            if left:
                raise SystemExit(f"{contender} has left {left} files")
            # The first round makes connections, and teaches who learns.
            if number:
                results[contender].chunks_s.append(took_s)
                results[contender].cpu_s += time.process_time() - cpu_s
                results[contender].files += options.chunk * options.threads
            for path in bin_.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return results


@contextlib.contextmanager
def rucio_client() -> Iterator[None]:
    """This process as a Rucio client that knows no server, and RSE attributes that nobody is asked for."""
    with tempfile.TemporaryDirectory() as home:
        etc = Path(home, "etc")
        etc.mkdir()
        (etc / "rucio.cfg").write_text("[common]\n[client]\nrucio_host = x\nauth_host = x\nauth_type = userpass\n")
        os.environ["RUCIO_HOME"] = home
        from rucio_cs3 import rses

        rses.rse_attributes = lambda rse_settings: {}
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="deleted by each contender")
    parser.add_argument("--chunk", type=int, default=100, help="files that a thread deletes at once, as the reaper's")
    parser.add_argument("--threads", type=int, default=1, help="as the reaper's")
    parser.add_argument("--purge", action="store_true", help="with cs3_delete = purge as a third contender")
    parser.add_argument("--never", action="store_true", help="with cs3_delete_look = never as one more contender")
    parser.add_argument("--unaware", action="store_true", help="without looks ahead as one more contender")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()

    from rucio_cs3.sandbox.reva import RevaSite

    with rucio_client(), RevaSite("deletes") as site:
        user = next(iter(site.users.values()))

        def ours(protocol: Any) -> None:
            protocol.connect({"username": user.username, "password": user.password})

        def webdav(protocol: Any) -> None:
            # Rucio gives it a token (or it has a certificate); here it gets one of Reva's.
            protocol.auth_token = token
            protocol.connect({})

        from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Secret, WebDAVBase, parse_root

        endpoint = Endpoint(
            name="deletes",
            gateway=site.gateway,
            gateway_tls=False,
            webdav=WebDAVBase.parse(site.webdav_url, root=parse_root(site.root)),
        )
        with CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password))) as storage:
            token = storage.access_token()
        contenders: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
            "rucio_cs3": (settings(site, "rucio_cs3.protocol.NoRename"), ours),
            "webdav": (settings(site, "rucio.rse.protocols.webdav.Default"), webdav),
        }
        if options.never:
            never = settings(site, "rucio_cs3.protocol.NoRename", cs3_delete_look="never")
            contenders["cs3_delete_look = never"] = (never, ours)
        if options.unaware:
            contenders["without looks ahead"] = (
                {**settings(site, "rucio_cs3.protocol.NoRename", cs3_call_timeout_s=31), "rse": UNAWARE},
                ours,
            )
        if options.purge:
            contenders["cs3_delete = purge"] = (settings(site, "rucio_cs3.protocol.Default", cs3_delete="purge"), ours)
        results = measure(site, contenders, options)
    for name, result in results.items():
        chunks = sorted(result.chunks_s)
        print(
            f"{name:23} {result.files} files, {options.threads} threads: {result.per_second:7.0f}/s; a chunk "
            f"{statistics.median(chunks):.3f} s (of {chunks[0]:.3f} to {chunks[-1]:.3f}); "
            f"{1e6 * result.cpu_s / result.files:.0f} us of processor for each file here"
        )
    print(f"ratio {results['rucio_cs3'].per_second / results['webdav'].per_second:.2f}")
    if options.json:
        options.json.write_text(json.dumps({name: vars(result) for name, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
