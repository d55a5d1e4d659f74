"""One large file between two real Reva sites: our pull, push and relay beside the same done by curl.

    python benchmarks/copies.py --size-mib 1024 --rounds 10 --directory /dev/shm --json FILE --write

All cases take turns, each round from another one on, so that a noisy machine is noisy for all; of each the fastest
counts, because what disturbs a copy only makes it slower, and with memory that its host gives late a virtual machine
takes twice as long, now for the one and now for the other. The middle half of the rounds' own ratios stands beside it.

Ours land on a hidden name, and are given their own within the time. For pull and push the peer is the bare ``COPY``
request, straight to the name; for relay it is the slower of curl's GET and PUT of the same ticket URLs, which no relay
can beat, and both of these at once, which is all that two servers on one machine can do. Closest to it is a GET piped
into a PUT, which compares and counts nothing. The proof is that of a site that keeps no checksum, and of a file whose
checksum nobody has kept: it is read as a whole, as curl's GET does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import readme
from rich.console import Console
from rounds import Case, in_turn
from tables import NONE, Table, size_text

from rucio_cs3.cs3 import CS3Storage, Endpoint, Reference
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.providers import BasicProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.cs3.reference import WebDAVBase, parse_root
from rucio_cs3.cs3.resources import FileInfo, pick_ticket
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers import copies
from rucio_cs3.transfers.cs3_end import CS3End, CS3Landing
from rucio_cs3.transfers.jobs import Job
from rucio_cs3.transfers.proof import find_fault

_MIB = 1024 * 1024
_FOLDER = "bench"

#: Ours, what it is beside, and the least share of that speed which was wanted.
_ROWS: tuple[tuple[str, str, float | None], ...] = (
    ("pull", "`COPY` by curl, pulled", 0.95),
    ("push", "`COPY` by curl, pushed", 0.95),
    ("relay", "the slower of GET and PUT by curl", 0.9),
    ("relay", "GET and PUT by curl at once", None),
    ("relay", "GET by curl into a PUT by curl", None),
    ("proof by reading back", "GET by curl alone", None),
    ("pull and proof", "`COPY` by curl, then a GET", None),
)


@dataclass
class Figures:
    """
    :param seconds: case -> of each round.
    :param peak_mib: highest memory of the process that pulled, pushed and relayed.
    """

    size_bytes: int
    peak_mib: int = 0
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the sites keep their data; in memory (/dev/shm) a slow disk does not hide what is compared",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from-json", type=Path, help="measure nothing, take these figures")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    figures = Figures(**json.loads(options.from_json.read_text())) if options.from_json else measure(options)
    table = table_of(figures)
    Console(width=150).print(table.rich())
    shown = f"{words_of(figures)}\n\n{table.markdown()}"
    print(shown)
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    if options.write:
        readme.put("copies", shown)


def measure(options: argparse.Namespace) -> Figures:
    figures = Figures(options.size_mib * _MIB, machine={"cores": os.cpu_count(), "python": platform.python_version()})
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        RevaSite("source", directory=Path(folder, "source")) as one,
        RevaSite("destination", directory=Path(folder, "destination")) as other,
        _Bench(one, other, figures.size_bytes) as bench,
    ):
        cases = bench.cases()
        figures.seconds = {case.name: [] for case in cases}
        for number, case in in_turn(cases, options.rounds):
            began = time.perf_counter()
            case.run()
            taken = time.perf_counter() - began
            case.after()
            if number >= 0:  # the round before warms up
                figures.seconds[case.name].append(taken)
    figures.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return figures


def table_of(figures: Figures) -> Table:
    table = Table(
        f"One file of {size_text(figures.size_bytes)}",
        ["ours", "beside", "s, fastest (median)", "s beside", "of its speed", "middle half", "wanted"],
        names=2,
    )
    for ours, beside, wanted in _ROWS:
        mine, other = figures.seconds[ours], _beside(figures, beside)
        share = min(other) / min(mine)
        ratios = [theirs / taken for theirs, taken in zip(other, mine, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (*ratios, 0.0, *ratios)
        goal = NONE if wanted is None else f"{wanted:.2f}: {'yes' if round(share, 2) >= wanted else 'no'}"
        both = [f"{min(one):.3f} ({statistics.median(one):.3f})" for one in (mine, other)]
        table.rows.append([ours, beside, *both, f"{share:.2f}", f"{low:.2f} to {high:.2f}", goal])
    return table


def _beside(figures: Figures, name: str) -> list[float]:
    if name != "the slower of GET and PUT by curl":
        return figures.seconds[name]
    return max((figures.seconds[one] for one in ("GET by curl alone", "PUT by curl alone")), key=min)


def words_of(figures: Figures) -> str:
    rounds = len(next(iter(figures.seconds.values())))
    return (
        f"{size_text(figures.size_bytes)}, {rounds} rounds, on {figures.machine['cores']} cores that both sites, this "
        f"process and curl share; the fastest of each are compared. Peak memory of the process: {figures.peak_mib} MiB."
    )


class _Bench(contextlib.ExitStack):
    """Two sites, one file at the source, and all ways to bring it over."""

    def __init__(self, one: RevaSite, other: RevaSite, size: int) -> None:
        super().__init__()
        self._sites = one, other
        self._source, self._destination = (self.enter_context(_storage(site)) for site in (one, other))
        self._gateways = [self.enter_context(contextlib.closing(_gateway(site))) for site in (one, other)]
        self._size = size
        path = one.path_on_disk(f"{_FOLDER}/file")
        path.parent.mkdir(parents=True)
        other.path_on_disk(_FOLDER).mkdir(parents=True)
        adler32 = 1
        with path.open("wb") as file:
            for _ in range(size // _MIB):
                block = os.urandom(_MIB)
                adler32 = zlib.adler32(block, adler32)
                file.write(block)
        self._checksums = {"adler32": f"{adler32:08x}"}
        self._job = Job(request_id="benchmark", size_bytes=size, adler32=self._checksums["adler32"])

    def cases(self) -> list[Case]:
        return [
            Case("`COPY` by curl, pulled", lambda: self._curl_copy(pull=True), self._clean),
            Case("pull", lambda: self._ours(copies.pull), self._clean),
            Case("`COPY` by curl, pushed", lambda: self._curl_copy(pull=False), self._clean),
            Case("push", lambda: self._ours(copies.push), self._clean),
            Case("GET by curl alone", lambda: self._curl_get(0)),
            Case("PUT by curl alone", self._curl_put, self._clean),
            Case("GET and PUT by curl at once", self._curl_both, self._clean),
            Case("GET by curl into a PUT by curl", self._curl_pipe, self._clean),
            Case("relay", lambda: self._ours(copies.relay), self._clean),
            Case("proof by reading back", lambda: self._proven(self._end(self._source))),
            Case("`COPY` by curl, then a GET", self._curl_copy_and_get, self._clean),
            Case("pull and proof", self._pull_and_proof, self._clean),
        ]

    def _end(self, storage: CS3Storage, name: str = "file") -> CS3End:
        reference = Reference(storage.endpoint.root, f"{_FOLDER}/{name}")
        return CS3End(storage, reference, url=storage.endpoint.webdav.url(reference))

    def _ours(self, copy: copies.Copy) -> None:
        """To a hidden name, and then its own."""
        landing = self._landed(copy)
        landing.take_name(landing.stat())

    def _landed(self, copy: copies.Copy) -> CS3Landing:
        landing = self._end(self._destination).landing()
        copy(self._size, self._checksums, self._end(self._source), landing, lambda _total: None)
        return landing

    def _pull_and_proof(self) -> None:
        landing = self._landed(copies.pull)
        landing.take_name(self._proven(landing))

    def _curl_copy_and_get(self) -> None:
        self._curl_copy(pull=True)
        self._curl_get(1)

    def _proven(self, end: CS3End) -> FileInfo:
        info = end.stat()
        if (fault := find_fault(self._job, end, info)) is not None:
            raise fault
        return info

    def _curl_copy(self, *, pull: bool) -> None:
        source, destination = self._end(self._source), self._end(self._destination)
        actor, other = (destination, source) if pull else (source, destination)
        header = "Source" if pull else "Destination"
        _curl(
            actor.url,
            "request = COPY",
            f'header = "{header}: {other.url}"',
            'header = "Overwrite: F"',
            f'header = "Authorization: {actor.authorization(write=pull)}"',
            f'header = "TransferHeaderAuthorization: {other.authorization(write=not pull)}"',
        )

    def _curl_get(self, side: int) -> None:
        storage = (self._source, self._destination)[side]
        reference = Reference(storage.endpoint.root, f"{_FOLDER}/file")
        ticket = pick_ticket(self._gateways[side].initiate_download(reference), ("simple",), reference)
        _curl(ticket.url, *self._headers(ticket.token, storage), 'output = "/dev/null"')

    def _curl_put(self) -> None:
        gateway = self._gateways[1]
        reference = Reference(self._destination.endpoint.root, f"{_FOLDER}/file")
        ticket = pick_ticket(gateway.initiate_upload(reference, self._size), ("simple",), reference)
        body = self._sites[0].path_on_disk(f"{_FOLDER}/file")
        _curl(ticket.url, *self._headers(ticket.token, self._destination), f'upload-file = "{body}"')

    def _curl_both(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self._curl_get, 0), pool.submit(self._curl_put)]:
                future.result()

    def _curl_pipe(self) -> None:
        reference = Reference(self._source.endpoint.root, f"{_FOLDER}/file")
        get = pick_ticket(self._gateways[0].initiate_download(reference), ("simple",), reference)
        reference = Reference(self._destination.endpoint.root, f"{_FOLDER}/file")
        put = pick_ticket(self._gateways[1].initiate_upload(reference, self._size), ("simple",), reference)
        with tempfile.TemporaryDirectory() as folder:
            pipe = Path(folder, "pipe")
            os.mkfifo(pipe)
            fetch = (*self._headers(get.token, self._source), f'output = "{pipe}"')
            # Of a pipe curl does not know the length, and Reva wants it.
            send = (*self._headers(put.token, self._destination), f'upload-file = "{pipe}"')
            send += (f'header = "Content-Length: {self._size}"', 'header = "Transfer-Encoding:"')
            with ThreadPoolExecutor(2) as pool:
                for future in [pool.submit(_curl, get.url, *fetch), pool.submit(_curl, put.url, *send)]:
                    future.result()

    def _headers(self, token: str, storage: CS3Storage) -> Iterator[str]:
        yield f'header = "X-Reva-Transfer: {token}"'
        yield f'header = "X-Access-Token: {storage.access_token()}"'

    def _clean(self) -> None:
        path = self._sites[1].path_on_disk(f"{_FOLDER}/file")
        if path.stat().st_size != self._size:
            raise RuntimeError(f"{path.stat().st_size} bytes arrived instead of {self._size}")
        path.unlink()


def _curl(url: str, *lines: str) -> None:
    """One request; the headers go through standard input, where no other user of the machine sees the tokens."""
    config = "\n".join((f'url = "{url}"', "silent", "show-error", "fail", *lines))
    subprocess.run(["curl", "--config", "-"], input=config, text=True, check=True, stdout=subprocess.DEVNULL)


def _endpoint(site: RevaSite) -> Endpoint:
    return Endpoint(
        name=site.name,
        gateway=site.gateway,
        gateway_tls=False,
        webdav=WebDAVBase.parse(site.webdav_url, root=parse_root(site.root)),
        # Kept since the last round, they would leave nothing to read.
        keep_checksums=False,
    )


def _provider(site: RevaSite) -> BasicProvider:
    user = next(iter(site.users.values()))
    return BasicProvider(user.username, Secret(user.password))


def _storage(site: RevaSite) -> CS3Storage:
    return CS3Storage(_endpoint(site), _provider(site))


def _gateway(site: RevaSite) -> Gateway:
    return Gateway(_endpoint(site), _provider(site))


if __name__ == "__main__":
    main()
