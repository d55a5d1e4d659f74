"""Many small files between two real Reva sites: the agent beside bare ``COPY`` requests sent by curl.

    python benchmarks/conveyor.py --files 200 --size-kib 4 --concurrency 4 --rounds 3

The agent works as it does at a site: rows in Rucio's database, claims, looks, proofs, reports; what is timed is from
the first claim to the last report, as the rows have them. curl does none of that: it only asks, for all files in one
process with ``--parallel``, and once more with a process for each request, as a script around curl would. What nobody
can do without who promises what the agent does, a read of each file at the destination, is a case of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rounds import Case, Measured, interleaved, show

from rucio_cs3.cs3 import CS3Storage, Endpoint
from rucio_cs3.cs3.login.providers import BasicProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.cs3.reference import WebDAVBase, parse_root
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioSite
from rucio_cs3.sandbox.story import Rse, hash_path

SCOPE = "bench"

_DATASET = """
import json, sys
from rucio.client import Client
client = Client()
source, destination, scope, dataset, files = json.load(open(sys.argv[1]))
client.add_replicas(source, files)
client.add_dataset(scope, dataset)
client.attach_dids(scope, dataset, [{"scope": scope, "name": f["name"]} for f in files])
client.add_replication_rule([{"scope": scope, "name": dataset}], 1, destination)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--size-kib", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--proof", choices=("read", "server", "size"), default="read", help="cs3_proof of the RSE")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where data are kept")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        RevaSite("source", directory=Path(folder, "source")) as one,
        RevaSite("destination", directory=Path(folder, "destination")) as other,
        RucioSite(Path(folder, "rucio"), policy_package=SANDBOX_POLICY) as rucio,
        _Bench(rucio, one, other, options) as bench,
    ):
        measured = interleaved(
            [
                Case("agent", bench.agent, bench.check, bench.submit),
                Case("curl, one process", bench.curl_parallel, bench.check, bench.bare),
                Case("curl, one process, and read back", bench.curl_and_back, bench.check, bench.bare),
                Case("curl, one for each", bench.curl_each, bench.check, bench.bare),
            ],
            options.rounds,
        )
        measured["agent, first claim to last report"] = bench.by_rows
        del bench.by_rows.seconds[:1]  # the round to warm up
    show(measured, size_bytes=options.files * options.size_kib * 1024, json_path=options.json)
    agent = bench.by_rows.median_s
    for peer in ("curl, one process", "curl, one process, and read back", "curl, one for each"):
        bare = measured[peer].median_s
        print(
            f"agent {options.files / agent:.0f} files/s, {peer} {options.files / bare:.0f} files/s: "
            f"{bare / agent:.2f} of the bare rate"
        )


class _Bench(contextlib.ExitStack):
    """The files of each case, made anew before it runs; names never repeat."""

    def __init__(self, rucio: RucioSite, one: RevaSite, other: RevaSite, options: argparse.Namespace) -> None:
        super().__init__()
        self._rucio, self._one, self._other, self._options = rucio, one, other, options
        self._storages = [self.enter_context(_storage(site)) for site in (one, other)]
        self._rses = Rse("SOURCE", one, "http"), Rse("DESTINATION", other, "http")
        self._number = 0
        self._arrived: list[Path] = []
        self._configs: list[str] = []
        self._reads: list[str] = []
        self.by_rows = Measured()
        rucio.set_rse_accounts({rse.name: rse.account() for rse in self._rses})
        for rse in self._rses:
            rucio.add_rse(rse.name, rse.protocol(), attributes={"cs3_proof": options.proof})
        rucio.set_distance("SOURCE", "DESTINATION")
        rucio.add_scope(SCOPE)

    def submit(self) -> None:
        """New files, a rule for them, and Rucio's submitter."""
        names = self._files()
        self._arrived = [self._other.path_on_disk(f"rucio/{hash_path(SCOPE, name)}") for name in names]
        files = []
        for name in names:
            content = self._one.path_on_disk(f"rucio/{hash_path(SCOPE, name)}").read_bytes()
            adler32 = f"{zlib.adler32(content):08x}"
            files.append({"scope": SCOPE, "name": name, "bytes": len(content), "adler32": adler32})
        told = self._rucio.directory / "told.json"
        told.write_text(json.dumps(["SOURCE", "DESTINATION", SCOPE, f"set-{self._number}", files]))
        subprocess.run(
            [sys.executable, "-c", _DATASET, str(told)], env={**os.environ, **self._rucio.environment}, check=True
        )
        while self._rows("state = 'Q'"):
            self._rucio.conveyor("submitter")

    def agent(self) -> None:
        threads = str(self._options.concurrency)
        self._rucio.cs3(
            "agent", "--run-once", "--threads", threads, "--per-host", threads, "--bulk", str(self._options.files)
        )
        (row,) = self._rucio.query(
            "SELECT (julianday(MAX(updated_at)) - julianday(MIN(started_at))) * 86400.0, COUNT(*) FROM requests "
            "WHERE scope = ? AND name LIKE ? AND state = 'D'",
            SCOPE,
            f"f{self._number}-%",
        )
        if row[1] != self._options.files:
            raise RuntimeError(f"{row[1]} of {self._options.files} requests are done")
        self.by_rows.seconds.append(row[0])
        self.by_rows.cpu_seconds.append(0.0)

    def curl_parallel(self) -> None:
        self._in_parallel(self._configs)

    def curl_and_back(self) -> None:
        self._in_parallel(self._configs)
        self._in_parallel(self._reads)

    def _in_parallel(self, configs: list[str]) -> None:
        self._curl("\nnext\n".join(configs), "--parallel", "--parallel-max", str(self._options.concurrency))

    def curl_each(self) -> None:
        with ThreadPoolExecutor(self._options.concurrency) as pool:
            list(pool.map(self._curl, self._configs))

    def check(self) -> None:
        size = self._options.size_kib * 1024
        wrong = [path for path in self._arrived if not path.exists() or path.stat().st_size != size]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(self._arrived)} files did not arrive, {wrong[0]} among them")

    def _files(self) -> list[str]:
        """Make new files at the source, and the folders at the destination."""
        self._number += 1
        names = [f"f{self._number}-{index}" for index in range(self._options.files)]
        for name in names:
            relative = f"rucio/{hash_path(SCOPE, name)}"
            for site in (self._one, self._other):
                site.path_on_disk(relative).parent.mkdir(parents=True, exist_ok=True)
            self._one.path_on_disk(relative).write_bytes(os.urandom(self._options.size_kib * 1024))
        return names

    def bare(self) -> None:
        """New files, and a curl configuration for each file; tokens go through standard input."""
        names = self._files()
        relative = [f"rucio/{hash_path(SCOPE, name)}" for name in names]
        self._arrived = [self._other.path_on_disk(path) for path in relative]
        source, destination = (storage.access_token() for storage in self._storages)
        self._configs = [
            "\n".join(
                (
                    f'url = "{self._other.webdav_url}/{path}"',
                    "request = COPY",
                    f'header = "Source: {self._one.webdav_url}/{path}"',
                    'header = "Overwrite: F"',
                    f'header = "Authorization: Bearer {destination}"',
                    f'header = "TransferHeaderAuthorization: Bearer {source}"',
                    'output = "/dev/null"',
                    "fail",
                )
            )
            for path in relative
        ]
        self._reads = [
            "\n".join(
                (
                    f'url = "{self._other.webdav_url}/{path}"',
                    f'header = "Authorization: Bearer {destination}"',
                    'output = "/dev/null"',
                    "fail",
                )
            )
            for path in relative
        ]

    @staticmethod
    def _curl(config: str, *options: str) -> None:
        command = ["curl", "--silent", "--show-error", *options, "--config", "-"]
        subprocess.run(command, input=config, text=True, check=True, stdout=subprocess.DEVNULL)

    def _rows(self, condition: str) -> int:
        return int(self._rucio.query(f"SELECT COUNT(*) FROM requests WHERE {condition}")[0][0])


def _storage(site: RevaSite) -> CS3Storage:
    user = next(iter(site.users.values()))
    endpoint = Endpoint(
        name=site.name,
        gateway=site.gateway,
        gateway_tls=False,
        webdav=WebDAVBase.parse(site.webdav_url, root=parse_root(site.root)),
    )
    return CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password)))


if __name__ == "__main__":
    main()
