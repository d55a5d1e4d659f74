"""Holds each packet that the kernel asks about for a while, and drops some: ``bad_cable.py QUEUE DELAY_MS LOSS``.

Speaks nfnetlink_queue (linux/netfilter/nfnetlink_queue.h) by itself, because the libraries for it want a compiler. It
sees numbers of packets and none of their bytes. Runs in the network namespace whose packets are meant, until SIGTERM.
"""

from __future__ import annotations

import collections
import random
import select
import signal
import socket
import struct
import sys
import time

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_QUEUE_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_REQUEST = 1

# Attributes of a configuration and of a packet; values and commands.
_CFG_CMD, _CFG_PARAMS, _CFG_QUEUE_MAXLEN = 1, 2, 3
_PACKET_HDR, _VERDICT_HDR = 1, 2
_BIND, _COPY_META = 1, 1
_DROP, _ACCEPT = 0, 1

_MOST_PACKETS = 100_000


def attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def message(kind: int, queue: int, body: bytes) -> bytes:
    generic = struct.pack("=BB", 0, 0) + struct.pack("!H", queue)
    length = 16 + len(generic) + len(body)
    return struct.pack("=IHHII", length, _QUEUE_SUBSYSTEM | kind, _REQUEST, 0, 0) + generic + body


def packets(data: bytes) -> list[int]:
    """The numbers of the packets that a datagram of the kernel's asks about."""
    numbers = []
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == _QUEUE_SUBSYSTEM | _PACKET:
            place = 20
            while place + 4 <= length:
                size, name = struct.unpack_from("=HH", data, place)
                if name == _PACKET_HDR:
                    numbers.append(struct.unpack_from("!I", data, place + 4)[0])
                    break
                place += size + -size % 4
        data = data[length + -length % 4 :]
    return numbers


def main(queue: int, delay_s: float, loss: float) -> None:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
    kernel.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
    kernel.bind((0, 0))
    kernel.send(message(_CONFIG, queue, attribute(_CFG_CMD, struct.pack("!BBH", _BIND, 0, socket.AF_INET))))
    kernel.send(message(_CONFIG, queue, attribute(_CFG_PARAMS, struct.pack("!IB", 0, _COPY_META))))
    kernel.send(message(_CONFIG, queue, attribute(_CFG_QUEUE_MAXLEN, struct.pack("!I", _MOST_PACKETS))))
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    chance = random.Random(1)
    waiting: collections.deque[tuple[float, int]] = collections.deque()
    seen = lost = 0
    print("ready", flush=True)
    while not ending:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.2
        if select.select([kernel], [], [], patience)[0]:
            now = time.monotonic()
            for number in packets(kernel.recv(65_536)):
                seen += 1
                if chance.random() < loss:
                    lost += 1
                    kernel.send(message(_VERDICT, queue, attribute(_VERDICT_HDR, struct.pack("!II", _DROP, number))))
                else:
                    waiting.append((now + delay_s, number))
        while waiting and (waiting[0][0] <= time.monotonic() or ending):
            _, number = waiting.popleft()
            kernel.send(message(_VERDICT, queue, attribute(_VERDICT_HDR, struct.pack("!II", _ACCEPT, number))))
    print(f"seen {seen}, lost {lost}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3]))
