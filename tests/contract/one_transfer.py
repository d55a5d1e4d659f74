"""One upload in a process of its own, for cases that kill it or look at its memory.

``python -m tests.contract.one_transfer``: what to do as JSON on standard input (a password is in it), what has been
done as JSON lines on standard output: how far it is, then the most memory it had.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, errors, parse_root


def _most_memory_bytes() -> int:
    """The most memory that this process had, in bytes (VmHWM of proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    wish = json.load(sys.stdin)
    root = parse_root(wish["root"])
    endpoint = Endpoint(
        name="child",
        gateway=wish["gateway"],
        gateway_tls=False,
        webdav=WebDAVBase.parse(wish["webdav_url"], root),
        **wish["settings"],
    )
    reference = Reference(root, wish["path"])
    with CS3Storage(endpoint, BasicProvider(wish["username"], Secret(wish["password"]))) as storage:
        storage.exists(reference)
        before, moved = _most_memory_bytes(), 0

        def progress(count: int) -> None:
            nonlocal moved
            moved += count
            if wish["tell"]:
                _tell(moved=moved)

        error = checksum = ""
        try:
            if wish["down"]:
                checksum = storage.checksum(reference)
            else:
                storage.upload(Path(wish["local"]), reference, overwrite=wish["overwrite"], progress=progress)
        except errors.CS3Error as exc:
            error = f"{type(exc).__name__}: {exc}"
        _tell(moved=moved, error=error, checksum=checksum, memory_bytes=_most_memory_bytes() - before)


if __name__ == "__main__":
    main()
