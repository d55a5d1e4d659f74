"""One large file between two real Reva sites: our pull, push and relay beside the same done by curl.

    python benchmarks/copies.py --size-mib 1024 --rounds 5

Rounds are interleaved, so that a noisy machine is noisy for all. For pull and push the peer is the bare ``COPY``
request; for relay it is the slower of curl's GET and PUT of the same ticket URLs, which no relay can beat, and both of
these at once, which is all that two servers on one machine can do. Closest to it is a GET piped into a PUT, which
compares and counts nothing. What the proof costs (Reva's local driver keeps no checksum, so the file is read back) is a
line of its own: nobody else does it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rounds import Case, Measured, interleaved, show

from rucio_cs3.cs3 import CS3Storage, Endpoint, Reference
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.login.providers import BasicProvider
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.cs3.reference import WebDAVBase, parse_root
from rucio_cs3.cs3.resources import pick_ticket
from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.transfers import copies
from rucio_cs3.transfers.ends import CS3End
from rucio_cs3.transfers.jobs import Job
from rucio_cs3.transfers.proof import find_fault

_MIB = 1024 * 1024
_FOLDER = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the sites keep their data; in memory (/dev/shm) a slow disk does not hide what is compared",
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        RevaSite("source", directory=Path(folder, "source")) as one,
        RevaSite("destination", directory=Path(folder, "destination")) as other,
        _Bench(one, other, options.size_mib * _MIB) as bench,
    ):
        measured = interleaved(bench.cases(), options.rounds)
    show(measured, size_bytes=options.size_mib * _MIB, json_path=options.json)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    _compare(measured, "pull", "curl COPY pull")
    _compare(measured, "push", "curl COPY push")
    slower = max(("curl GET", "curl PUT"), key=lambda name: measured[name].median_s)
    _compare(measured, "relay", slower)
    _compare(measured, "relay", "curl GET and PUT at once")
    _compare(measured, "relay", "curl GET | curl PUT")


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
            Case("curl COPY pull", lambda: self._curl_copy(pull=True), self._clean),
            Case("pull", lambda: self._ours(copies.pull), self._clean),
            Case("curl COPY push", lambda: self._curl_copy(pull=False), self._clean),
            Case("push", lambda: self._ours(copies.push), self._clean),
            Case("curl GET", self._curl_get),
            Case("curl PUT", self._curl_put, self._clean),
            Case("curl GET and PUT at once", self._curl_both, self._clean),
            Case("curl GET | curl PUT", self._curl_pipe, self._clean),
            Case("relay", lambda: self._ours(copies.relay), self._clean),
            Case("proof by reading back", self._proof),
        ]

    def _end(self, storage: CS3Storage, name: str = "file") -> CS3End:
        reference = Reference(storage.endpoint.root, f"{_FOLDER}/{name}")
        return CS3End(storage, reference, url=storage.endpoint.webdav.url(reference))

    def _ours(self, copy: copies.Copy) -> None:
        copy(self._size, self._checksums, self._end(self._source), self._end(self._destination), lambda _total: None)

    def _proof(self) -> None:
        end = self._end(self._source)
        if (fault := find_fault(self._job, end, end.stat())) is not None:
            raise fault

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

    def _curl_get(self) -> None:
        gateway = self._gateways[0]
        reference = Reference(self._source.endpoint.root, f"{_FOLDER}/file")
        ticket = pick_ticket(gateway.initiate_download(reference), ("simple",), reference)
        _curl(ticket.url, *self._headers(ticket.token, self._source), 'output = "/dev/null"')

    def _curl_put(self) -> None:
        gateway = self._gateways[1]
        reference = Reference(self._destination.endpoint.root, f"{_FOLDER}/file")
        ticket = pick_ticket(gateway.initiate_upload(reference, self._size), ("simple",), reference)
        body = self._sites[0].path_on_disk(f"{_FOLDER}/file")
        _curl(ticket.url, *self._headers(ticket.token, self._destination), f'upload-file = "{body}"')

    def _curl_both(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self._curl_get), pool.submit(self._curl_put)]:
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
    )


def _provider(site: RevaSite) -> BasicProvider:
    user = next(iter(site.users.values()))
    return BasicProvider(user.username, Secret(user.password))


def _storage(site: RevaSite) -> CS3Storage:
    return CS3Storage(_endpoint(site), _provider(site))


def _gateway(site: RevaSite) -> Gateway:
    return Gateway(_endpoint(site), _provider(site))


def _compare(measured: dict[str, Measured], ours: str, peer: str) -> None:
    ratio = measured[peer].median_s / measured[ours].median_s
    print(f"{ours}: {ratio:.2f} of the speed of {peer}")


if __name__ == "__main__":
    main()
