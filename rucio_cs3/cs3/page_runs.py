"""Pages of a remote file that come one after the other, and whether they belong to the version that was asked for.

Beneath :mod:`rucio_cs3.cs3.random_access`, which says which pages are wanted.
"""

from __future__ import annotations

from rucio_cs3.cs3.downloads.ranges import Block
from rucio_cs3.cs3.downloads.reading import Reading


def read_range(reading: Reading, first: int, end: int) -> bytes:
    """Some bytes of one version, by one request where nothing goes wrong.

    :param end: the first byte that is not wanted; ``first`` < ``end`` <= size.
    :raises NoRanges: when the server has no ranges.
    :raises VersionMoved: when the file is another one now.
    """
    proof = Proof(reading)
    data = bytearray(end - first)

    def write(position: int, piece: memoryview) -> None:
        data[position - first : position - first + len(piece)] = piece

    reading.fill(Block(first, end, ()), write)
    proof.check(at_end=True)
    return bytes(data)


class PageRun:
    """Pages that come one after the other.

    :param page_bytes: bytes of a page.
    :param block: begins with a page's first byte, and ends with a page's or the file's last.
    """

    def __init__(self, reading: Reading, block: Block, page_bytes: int) -> None:
        self._block = block
        self._page_bytes = page_bytes
        self._pieces = reading.pieces(block)
        self._rest = memoryview(b"")
        #: Where the next page begins, and where the last one ends.
        self.position = block.first
        self.end = block.end

    @property
    def is_over(self) -> bool:
        return self.position >= self.end

    def next_page(self) -> bytes:
        """
        :raises CS3Error: see :meth:`Reading.pieces`; the run is over then.
        """
        size = min(self._page_bytes, self.end - self.position)
        assert size > 0, "the run is over"
        page = bytearray()
        while len(page) < size:
            if not self._rest:
                position, piece = next(self._pieces)
                # Where the server had to begin again, what was here already passes once more.
                self._rest = piece[self.position + len(page) - position :]
                continue
            taken = self._rest[: size - len(page)]
            page += taken
            self._rest = self._rest[len(taken) :]
        self.position += size
        return bytes(page)

    def finish(self) -> dict[str, str]:
        """Let the answer end, so that its connection can be used again.

        :returns: the checksums of all that came.
        """
        for _ in self._pieces:
            pass
        return self._block.digests.hexdigests()

    def close(self) -> None:
        self._rest = memoryview(b"")
        self._pieces.close()


class Proof:
    """Whether what a reading brings belongs to the version that it is to be of.

    The etag of an answer tells where it is that of the look. Otherwise a look tells (Stat), after the server has begun
    to answer and before anybody gets a byte of it: both lines open a file before they answer, and replace files as a
    whole. Reva v3.12.1 gives its answers no etag; there one look more follows the last byte.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._heads = 0
        self._etags = {reading.info.etag} - {""}

    def check(self, *, at_end: bool) -> None:
        """
        :param at_end: the last byte of a run has come.
        :raises VersionMoved: when the file is another one now.
        """
        heads, etag = self._reading.latest
        if etag in self._etags or (heads == self._heads and not at_end):
            self._heads = heads
            return
        self._reading.look()
        self._heads = heads
        if etag:
            self._etags.add(etag)
