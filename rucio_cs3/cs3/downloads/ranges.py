"""Ranges of a file: which are still to be fetched, what their answers must say, and when to give up. Pure.

A download is a row of blocks. One stream has one block, and asks for it without a ``Range``; several streams take the
blocks of a long row one after another, so that a slow stream holds up nobody. What moves the bytes is
:mod:`rucio_cs3.cs3.downloads.downloads`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.retry import RetryPolicy

#: Bytes of one block, at least and at most: the first so that asking for it (a ticket and a GET) is little beside
#: fetching it, the second so that streams of unequal speed end together.
BLOCK_BYTES = 64 * 1024 * 1024
BLOCK_MAX_BYTES = 1024 * 1024 * 1024

#: Blocks for each stream, where the limits above allow it.
_BLOCKS_PER_STREAM = 4

#: Most blocks of one file, whatever the server says how large it is; those of a larger file are longer.
BLOCKS_MAX = 4096

#: A connection that brings less than this before it breaks is no progress, in bytes: a server that lets one byte pass
#: at a time would be asked for ever.
_PROGRESS_BYTES = 1024 * 1024

#: Attempts in a row without progress, the first included.
FRUITLESS_MAX = 3

#: Beginnings of one download because the server has no ranges, the first included: each costs the whole file.
BEGINNINGS_MAX = 3

#: A server that asks for more time than this (``Retry-After``) is not waited for, in seconds: the caller is told.
_RETRY_AFTER_MAX_S = 60.0

#: What a server was seen to do with a range is believed for so long, in seconds. Its storage driver is a setting of
#: its operator.
_BELIEF_S = 3600.0

#: The largest prime below 2**16 (RFC 1950, 8.2).
_ADLER_BASE = 65521

#: 18 digits: more is no size, and ``int`` raises ValueError for more than some thousands.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)


def combine_adler32(first: int, second: int, second_bytes: int) -> int:
    """The Adler-32 of two pieces one behind the other, from the sums of each.

    RFC 1950, 8.2: the lower half is one more than the sum of all bytes, and the upper half the sum of all lower halves
    on the way there; each byte of the first piece is in those of the second piece once more.

    :param second_bytes: length of the second piece.
    """
    bytes_sum = (first & 0xFFFF) + (second & 0xFFFF) - 1
    halves_sum = (first >> 16) + (second >> 16) + second_bytes * ((first & 0xFFFF) - 1)
    return (halves_sum % _ADLER_BASE) << 16 | bytes_sum % _ADLER_BASE


class Block:
    """The bytes from ``first`` up to, not including, ``end``, and how many of them have come.

    :param algorithms: checksums to compute of it.
    """

    def __init__(self, first: int, end: int, algorithms: Iterable[str] = ("adler32",)) -> None:
        self.first = first
        self.end = end
        #: Of the bytes that have come.
        self.digests = Digests(algorithms)

    @property
    def position(self) -> int:
        """The first byte that has not come yet."""
        return self.first + self.digests.byte_count

    @property
    def complete(self) -> bool:
        return self.position >= self.end


class Row:
    """All blocks of one file, in order; safe for many threads.

    :param blocks: without gaps from byte 0.
    """

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        self._next = 0
        self._lock = threading.Lock()

    def take(self) -> Block | None:
        """The next block that nobody has; None where there is no other."""
        with self._lock:
            while self._next < len(self.blocks):
                block = self.blocks[self._next]
                self._next += 1
                if not block.complete or block.first == block.end:
                    # That of an empty file is asked for, too: the server may have something else.
                    return block
            return None

    @property
    def position(self) -> int:
        """How many bytes have come."""
        return sum(block.digests.byte_count for block in self.blocks)

    @property
    def front(self) -> int:
        """All bytes before this one have come."""
        for block in self.blocks:
            if not block.complete:
                return block.position
        return self.blocks[-1].end

    def hexdigests(self) -> dict[str, str]:
        """Checksums of the whole file; of more than one block only adler32 can be had."""
        first, *others = self.blocks
        if not others:
            return first.digests.hexdigests()
        whole = int(first.digests.hexdigests()["adler32"], 16)
        for block in others:
            part = int(block.digests.hexdigests()["adler32"], 16)
            whole = combine_adler32(whole, part, block.digests.byte_count)
        return {"adler32": f"{whole:08x}"}


def row_for(size: int, streams: int, algorithms: Iterable[str], done: Block | None = None) -> Row:
    """The blocks of a file for so many streams.

    :param done: what the local disk has of it already, from byte 0; with one stream it is gone on with.
    """
    front = done.end if done is not None else 0
    if streams == 1:
        only = Block(0, size, algorithms)
        if done is not None:
            only.digests = done.digests
        return Row([only])
    # Rounded up, so that the last block is never a few bytes.
    length = -(-(size - front) // (streams * _BLOCKS_PER_STREAM)) or 1
    length = max(min(max(length, BLOCK_BYTES), BLOCK_MAX_BYTES), -(-(size - front) // BLOCKS_MAX))
    blocks = [Block(first, min(first + length, size), algorithms) for first in range(front, size, length)]
    return Row([done, *blocks] if done is not None else blocks)


def worthwhile_streams(size: int, streams: int, algorithms: Iterable[str]) -> int:
    """How many of ``streams`` a file of ``size`` bytes is worth.

    One where anything but adler32 is asked for: only that can be put together from the sums of parts.
    """
    if set(algorithms) - {"adler32"}:
        return 1
    return max(min(streams, size // BLOCK_BYTES), 1)


@dataclass(frozen=True)
class ContentRange:
    """What an answer says it holds: bytes ``first`` to ``last``, both included, of ``size`` (None: not told)."""

    first: int
    last: int
    size: int | None

    @classmethod
    def parse(cls, text: str) -> ContentRange | None:
        """``Content-Range`` of a 206 (RFC 9110, 14.4); None where it is none."""
        found = _CONTENT_RANGE.fullmatch(text.strip())
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3]))


def is_strong(etag: str) -> bool:
    """Whether ``If-Range`` may name it (RFC 9110, 13.1.5)."""
    return len(etag) > 1 and etag.startswith('"') and etag.endswith('"')


class Patience:
    """Whether to go on after an error, and when; for one block.

    The counts begin anew with progress, so that a line which breaks every few minutes can bring a file of any size.
    """

    def __init__(self, position: int) -> None:
        self._furthest = position
        self._fruitless = 0
        self._beginnings = 1
        self._policy = RetryPolicy()

    def pause_s(self, error: errors.CS3Error, position: int) -> float | None:
        """Seconds to wait before the next attempt; None when there is to be none.

        :param position: how far this attempt came.
        """
        if position - self._furthest >= _PROGRESS_BYTES:
            self._furthest = position
            self._fruitless = 0
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_MAX:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= _RETRY_AFTER_MAX_S else None
        return self._policy.pause_s(self._fruitless)

    def may_begin_again(self) -> bool:
        """Whether the whole file may be asked for once more; counts as that."""
        self._beginnings += 1
        return self._beginnings <= BEGINNINGS_MAX


@dataclass
class RangeSupport:
    """What is known about a server's ranges; safe for many threads, whose looks may overlap.

    :param clock: seconds, monotonic.
    """

    clock: Callable[[], float] = time.monotonic
    _known: tuple[bool, float] | None = field(default=None, repr=False)

    @property
    def known(self) -> bool | None:
        """Whether it serves them; None where that is to be found out (again)."""
        known = self._known
        if known is None or self.clock() >= known[1]:
            return None
        return known[0]

    def seen(self, serves: bool) -> None:
        """It has just answered a range, or has not."""
        self._known = (serves, self.clock() + _BELIEF_S)
