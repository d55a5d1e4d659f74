"""A link between a client and a server of this machine: with latency, a bandwidth, and damage where it is asked for.

Knows nothing of what it carries. Each direction of the link has one bandwidth that all connections share; each byte
comes half a round trip after it was sent, and a new connection costs a round trip before its first byte, as TCP's
handshake does. Lost packets and TCP's slow start are not acted.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rucio_cs3.sandbox.lifecycle import Startable
from rucio_cs3.sandbox.ports import LOOPBACK

_BLOCK_BYTES = 64 * 1024

#: What may be on the way beside what bandwidth and latency make necessary.
_SPARE_BYTES = 256 * 1024

#: A damage happens here, counted from a connection's first byte: behind every head of a request or an answer.
DAMAGE_AT = 500_000

#: As many bytes a shortened body lacks. The length keeps its number of digits for bodies of 1 MiB.
SHORT_BY = 1000

Damage = Callable[[bytes, int], bytes]


def flip_a_bit(data: bytes, start: int) -> bytes:
    """Make one byte wrong.

    :param start: how many bytes of the connection came before ``data``.
    """
    place = DAMAGE_AT - start
    if not 0 <= place < len(data):
        return data
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def shorten(size: int) -> Damage:
    """Leave out bytes of a body, and say so in its head: what comes looks complete.

    :param size: of the body that is meant.
    """
    length = re.compile(rb"(\r\ncontent-length: )%d(\r\n)" % size, re.IGNORECASE)

    def damage(data: bytes, start: int) -> bytes:
        keep = max(0, min(len(data), DAMAGE_AT - start)), max(0, min(len(data), DAMAGE_AT + SHORT_BY - start))
        return length.sub(rb"\g<1>%d\g<2>" % (size - SHORT_BY), data[: keep[0]] + data[keep[1] :])

    return damage


def untouched(data: bytes, _start: int) -> bytes:
    return data


@dataclass
class _Direction:
    """
    :param bytes_per_s: None for no limit.
    """

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    damage: Damage = untouched
    free_at: float = 0.0

    def due(self, size: int, now: float) -> float:
        """When bytes that are sent now are there."""
        self.free_at = max(self.free_at, now) + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        return self.free_at + self.delay_s


class FarLink(Startable):
    """Listens at a port of its own once started; passes on once it knows where to, as :meth:`behave` says."""

    def __init__(self) -> None:
        self._target: tuple[str, int] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="far link", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._port = 0
        self.behave()

    def behave(
        self,
        *,
        round_trip_s: float = 0.0,
        bytes_per_s: float | None = None,
        up: Damage = untouched,
        down: Damage = untouched,
        only: bytes = b"",
    ) -> None:
        """How connections that begin from now on are treated.

        :param round_trip_s: there and back.
        :param bytes_per_s: of each direction; None for no limit.
        :param up: what happens to what the client sends.
        :param down: what happens to what the server sends.
        :param only: connections whose first bytes do not have this in them are passed on as if there were no link: a
            server may use the address of its own that it gives to clients.
        """
        self._only = only
        self._round_trip_s = round_trip_s
        self._window = int((bytes_per_s or 0.0) * round_trip_s) + _SPARE_BYTES
        self._up = _Direction(round_trip_s / 2, bytes_per_s, up)
        self._down = _Direction(round_trip_s / 2, bytes_per_s, down)

    @property
    def address(self) -> str:
        """``host:port`` for the client."""
        return f"{LOOPBACK}:{self._port}"

    def lead_to(self, address: str) -> None:
        """
        :param address: ``host:port`` of the server.
        """
        host, _, port = address.rpartition(":")
        self._target = host, int(port)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connect, LOOPBACK, 0, limit=_BLOCK_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._target is None:
                return
            up, down, round_trip_s, first = self._up, self._down, self._round_trip_s, b""
            if self._only:
                only, first = self._only, await reader.read(_BLOCK_BYTES)
                if only not in first:
                    up, down, round_trip_s = _Direction(), _Direction(), 0.0
            await asyncio.sleep(round_trip_s)
            there, back = await asyncio.open_connection(*self._target, limit=_BLOCK_BYTES)
            try:
                await asyncio.gather(self._carry(reader, back, up, first), self._carry(there, writer, down))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            # Either end may go at any time; the other is closed then, too.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction, first: bytes = b""
    ) -> None:
        """Take from one side at once, and give to the other when it is due.

        :param first: what was taken already.
        """
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        room = _Room(self._window)
        delivery = asyncio.ensure_future(_deliver(under_way, writer, room))
        start = 0
        try:
            while data := first or await reader.read(_BLOCK_BYTES):
                first = b""
                under_way.put_nowait((way.due(len(data), self._loop.time()), way.damage(data, start)))
                start += len(data)
                await room.take(len(data))
            under_way.put_nowait((way.due(0, self._loop.time()), b""))
            await delivery
        finally:
            delivery.cancel()


class _Room:
    """How much may be under way."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._changed = asyncio.Event()

    async def take(self, size: int) -> None:
        self._left -= size
        while self._left < 0:
            self._changed.clear()
            await self._changed.wait()

    def give(self, size: int) -> None:
        self._left += size
        self._changed.set()


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, room: _Room) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await under_way.get()
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        if not data:
            with contextlib.suppress(OSError):
                writer.write_eof()
            return
        writer.write(data)
        await writer.drain()
        room.give(len(data))
