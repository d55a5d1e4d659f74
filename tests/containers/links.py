"""Bad links and slow disks for containers, made by the kernel of this machine; only root may.

A link is the network device of a container. Rules are made in the container's own network namespace, and end with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rucio_cs3.sandbox.processes import ChildProcess
from tests.containers.containers import ContainerProcess

_PROGRAMS = ("nsenter", "tc", "ip", "iptables")
_DELAYER = Path(__file__).with_name("bad_cable.py")
_QUEUE = "7"
_READY_S = 30.0


def links_missing() -> str | None:
    """Why links cannot be shaped here; None if they can."""
    if os.getuid() != 0:
        return "no right to shape links: only root may"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"no {missing[0]}: install Debian's iproute2, iptables and util-linux" if missing else None


def inside(box: ContainerProcess, *command: str) -> str:
    """Run a program of this machine in the container's network.

    :returns: what it wrote.
    """
    words = ["nsenter", "--target", str(box.pid), "--net", *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def device(box: ContainerProcess, address: str = "") -> str:
    """Name of the network device of a container, that with an address where it has several."""
    lines = inside(box, "ip", "-o", "-4", "address").splitlines()
    (name,) = [line.split()[1] for line in lines if " eth" in line and f" {address}" in line]
    return str(name)


def passed_bytes(box: ContainerProcess, address: str = "") -> int:
    """What a container's device has sent and received since its start."""
    name = device(box, address)
    (line,) = [line for line in inside(box, "cat", "/proc/net/dev").splitlines() if f"{name}:" in line]
    numbers = line.partition(":")[2].split()
    return int(numbers[0]) + int(numbers[8])


def throttle(box: ContainerProcess, bytes_per_s: int) -> None:
    """Limit what a container can send, and what it can receive; gone with its next start."""
    limit = ("root", "tbf", "rate", f"{bytes_per_s * 8}bit", "burst", "32kb", "latency", "200ms")
    inside(box, "tc", "qdisc", "replace", "dev", device(box), *limit)
    subprocess.run(["tc", "qdisc", "replace", "dev", _other_end(box), *limit], check=True, capture_output=True)


def unthrottle(box: ContainerProcess) -> None:
    """After :func:`throttle`; does nothing where the container has got another device since."""
    for prefix, name in ((["nsenter", "--target", str(box.pid), "--net"], device(box)), ([], _other_end(box))):
        subprocess.run([*prefix, "tc", "qdisc", "del", "dev", name, "root"], check=False, capture_output=True)


def _other_end(box: ContainerProcess) -> str:
    """The device of this machine that a container's device is connected to."""
    number = re.search(r"@if(\d+):", inside(box, "ip", "-o", "link", "show", device(box)))
    assert number is not None
    shown = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    name = re.search(rf"^{number[1]}: ([^@:]+)", shown, re.MULTILINE)
    assert name is not None
    return name[1]


@contextlib.contextmanager
def bad_cable(box: ContainerProcess, *, round_trip_ms: int, loss: float, log: Path) -> Iterator[None]:
    """Delay all packets of a container, and lose some of them; at the end some have to have been lost.

    Not by netem, which not every kernel has: the kernel asks a process of ours about each packet (NFQUEUE).

    :param loss: part of the packets of each direction, 0 to 1.
    """
    process = ChildProcess(
        "bad cable",
        [
            *("nsenter", "--target", str(box.pid), "--net"),
            *(sys.executable, _DELAYER, _QUEUE, str(round_trip_ms / 2), str(loss)),
        ],
        log=log,
    )
    rules = [("INPUT", "--in-interface"), ("OUTPUT", "--out-interface")]
    with process:
        process.wait_until(lambda: "ready" in process.output(), timeout_s=_READY_S)
        for chain, side in rules:
            inside(box, "iptables", "-I", chain, side, device(box), "-j", "NFQUEUE", "--queue-num", _QUEUE)
        try:
            yield
        finally:
            for chain, side in rules:
                inside(box, "iptables", "-D", chain, side, device(box), "-j", "NFQUEUE", "--queue-num", _QUEUE)
    counts = re.search(r"^seen (\d+), lost (\d+)$", process.output(), re.MULTILINE)
    assert counts is not None, process.output()
    assert int(counts[1]) > 100, "hardly anything came over the bad cable"
    assert int(counts[2]) > 0 or not loss, "nothing was lost"


@contextlib.contextmanager
def disk(folder: Path, *, megabytes: int) -> Iterator[str]:
    """A disk of its own under a folder, every write to which waits for the disk.

    :returns: its block device.
    """
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(megabytes * 1_000_000)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(image)], check=True, capture_output=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,sync", str(image), str(folder)], check=True, capture_output=True)
    try:
        found = subprocess.run(
            ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"],
            check=True,
            capture_output=True,
            text=True,
        )
        yield found.stdout.strip()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
