"""The two views that need a link: a user far from the cloud, and what peers notice of a damage on the way."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clouds import Cloud, LinkedReva, Sources
from far_link import Damage, flip_a_bit, shorten, untouched
from figures import FarRow, Figures, Notice
from peer_process import PeerFailed, PeerProcess
from peers import Operation, Site, Task
from registry import peer_class

#: 20 ms is Geneva to Warsaw; 1 Gbit/s what an institute has.
ROUND_TRIP_S = 0.020
BYTES_PER_S = 125e6

SMALL = 4096
LARGE = 64 * 1024 * 1024
DAMAGED = 1024 * 1024

#: Small files at each site; peers that move whole folders move them all.
FILES = 8
_FURTHER = 4
_TIMEOUT_S = 60.0

_OPERATIONS: tuple[Operation, ...] = ("put", "get", "stat", "upload")

#: Opens a peer at a site.
Opener = Callable[[str, Site], PeerProcess]


def far_user(
    figures: Figures, linked: LinkedReva, sources: Sources, folder: Path, peers: list[str], open_: Opener
) -> None:
    """Each peer at the far end of a link, alone."""
    figures.far_link = {"round_trip_ms": ROUND_TRIP_S * 1000, "mbit_per_s": BYTES_PER_S * 8 / 1e6}
    for link in linked.links:
        link.behave(round_trip_s=ROUND_TRIP_S, bytes_per_s=BYTES_PER_S)
    for name in peers:
        row = FarRow(name)
        kind = peer_class(name)
        for operation in [one for one in _OPERATIONS if one in kind.operations]:
            try:
                # A new process for each operation: its first file is what a user's command does.
                with open_(name, linked.site(kind)) as process:
                    _far_operation(row, process, operation, linked, sources, folder)
            except PeerFailed as error:
                row.errors.append(f"{operation}: {error}")
        figures.far.append(row)


def _far_operation(
    row: FarRow, process: PeerProcess, operation: Operation, linked: LinkedReva, sources: Sources, folder: Path
) -> None:
    kind = process.kind
    cloud = linked.cloud(kind)
    count = FILES if kind.whole_folders else 1 + _FURTHER
    tasks = cloud.tasks(kind, operation, sources, SMALL, count, folder, f"far-{process.name}-{operation}")
    try:
        answer = process.ask(operation, tasks, timeout_s=_TIMEOUT_S)
        if wrong := cloud.check(operation, tasks, sources):
            raise PeerFailed(wrong)
    finally:
        cloud.discard(operation, tasks)
    each = answer["each_s"]
    if kind.whole_folders:
        row.next_s[operation] = answer["seconds"] / count
    elif kind.starts:
        row.first_s[operation] = statistics.median(each)
    else:
        row.first_s[operation] = process.open_s + each[0]
        row.next_s[operation] = statistics.median(each[1:])
    if operation not in ("put", "get") or kind.whole_folders:
        return
    tasks = cloud.tasks(kind, operation, sources, LARGE, 1, folder, f"far-large-{process.name}")
    try:
        row.large_s[operation] = process.ask(operation, tasks, timeout_s=_TIMEOUT_S)["seconds"]
        if wrong := cloud.check(operation, tasks, sources):
            raise PeerFailed(wrong)
    finally:
        cloud.discard(operation, tasks)


@dataclass(frozen=True)
class _Damage:
    """
    :param name: what tables call it.
    :param up: what happens to what is sent; likewise ``down``. TCP notices nothing of either.
    """

    name: str
    operation: Operation
    up: Damage = untouched
    down: Damage = untouched


DAMAGES = (
    _Damage("upload, fewer bytes", "put", up=shorten(DAMAGED)),
    _Damage("upload, a flipped bit", "put", up=flip_a_bit),
    _Damage("download, fewer bytes", "get", down=shorten(DAMAGED)),
    _Damage("download, a flipped bit", "get", down=flip_a_bit),
)


def damages(
    figures: Figures, linked: LinkedReva, sources: Sources, folder: Path, peers: list[str], open_: Opener
) -> None:
    """What each peer does when something else arrives than was sent, and head and status say that all is well."""
    for link in linked.links:
        link.behave()
    for damage in DAMAGES:
        for link in linked.http_links:
            link.behave(up=damage.up, down=damage.down)
        for name in peers:
            kind = peer_class(name)
            if damage.operation in kind.operations and not kind.whole_folders:
                case = f"damage-{name}-{len(figures.notices)}"
                tasks = linked.cloud(kind).tasks(kind, damage.operation, sources, DAMAGED, 1, folder, case)
                try:
                    with open_(name, linked.site(kind)) as process:
                        result = _what_it_did(process, damage.operation, linked.cloud(kind), tasks, sources)
                except PeerFailed as error:
                    result = str(error)
                finally:
                    linked.cloud(kind).discard(damage.operation, tasks)
                figures.notices.append(Notice(name, damage.name, result))


def _what_it_did(
    process: PeerProcess, operation: Operation, cloud: Cloud, tasks: Sequence[Task], sources: Sources
) -> str:
    try:
        process.ask(operation, tasks, timeout_s=_TIMEOUT_S)
    except PeerFailed:
        # Every failure counts as one about the damage: without it all of this works, as the other tables show.
        return "noticed, left there" if cloud.arrived(operation, tasks[0]).is_file() else "noticed"
    return "not noticed" if cloud.check(operation, tasks, sources) else "repaired"
