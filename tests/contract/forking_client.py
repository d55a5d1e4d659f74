"""A program of its own: uses a cloud in threads, and forks children that use it, too. Run by test_sharing.py.

The environment names the cloud: GATEWAY, WEBDAV, ROOT, USERNAME, PASSWORD, and FORKS children; the argument is a folder
of this machine. It ends with 0 when the parent and all children could look, upload and download.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from rucio_cs3.cs3 import POOL, BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, parse_root

#: Ends a child that hangs; nothing in it takes a second.
HANGS_S = 60
DATA = bytes(range(256)) * 1024


def endpoint() -> Endpoint:
    env = os.environ
    webdav = WebDAVBase.parse(env["WEBDAV"], parse_root(env["ROOT"]))
    return Endpoint(name="CLOUD", gateway=env["GATEWAY"], gateway_tls=False, webdav=webdav)


def pooled() -> CS3Storage:
    # Equal, but not the same: as each protocol object of Rucio makes them.
    return POOL.get(endpoint(), BasicProvider(os.environ["USERNAME"], Secret(os.environ["PASSWORD"])))


def use(storage: CS3Storage, folder: Reference, local: Path, name: str) -> None:
    source, back = local / f"{name}.source", local / f"{name}.back"
    source.write_bytes(DATA + name.encode())
    storage.upload(source, folder.child(name), read_back=True)
    storage.download(folder.child(name), back)
    if back.read_bytes() != source.read_bytes():
        raise SystemExit(f"{name} came back as something else")
    storage.stat(folder.child("parent"))


def main(local: Path) -> None:
    storage = pooled()
    if pooled() is not storage:
        raise SystemExit("two storages in one process")
    folder = Reference(endpoint().root, os.environ["FOLDER"])
    use(storage, folder, local, "parent")
    stopping = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not stopping.is_set():
                storage.stat(folder.child("parent"))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(int(os.environ["FORKS"])):
        child = os.fork()
        if not child:
            signal.alarm(HANGS_S)
            own = pooled()
            use(own, folder, local, f"child-{number}")
            # Both ends of a process: the interpreter tidies up, or is not asked.
            if number % 2:
                sys.exit(0 if own is not storage else "the child uses the parent's storage")
            os._exit(0 if own is not storage else 1)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    stopping.set()
    for thread in threads:
        thread.join()
    use(storage, folder, local, "parent-again")
    if any(ends) or failures:
        raise SystemExit(f"children ended with {ends}, the parent's threads with {failures}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
