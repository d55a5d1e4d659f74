"""How long the pieces of an upload by TUS are, learnt from those before; pure.

:mod:`rucio_cs3.cs3.uploads.tus` asks for them.
"""

from __future__ import annotations

MIB = 1024 * 1024


class PieceSizes:
    """How many bytes the next PATCH has: such that one takes some ten seconds.

    Short ones cost round trips; long ones meet the limits of proxies and outlive tokens. What came of a broken PATCH
    is kept by the server, so that its length costs nothing then.

    :param start: bytes of the first piece; 64 MiB are half a second at a fast site, and half a minute at 2 MiB/s.
    :param least: bytes that no piece goes below, but the last one of a file.
    :param most: bytes that no piece goes above.
    """

    #: A piece that took less is followed by one of twice the length, in seconds ...
    SHORT_S = 10.0
    #: ... and one that took longer by one of half the length: proxies end requests after a minute (nginx).
    LONG_S = 30.0

    def __init__(self, *, start: int = 64 * MIB, least: int = MIB, most: int = 1024 * MIB) -> None:
        self.current = start
        self._least = least
        self._most = most

    def took(self, count: int, seconds: float) -> None:
        """A piece went through."""
        if count < self.current:
            return  # the end of the file, which says nothing about whole pieces
        if seconds < self.SHORT_S:
            self.current = min(self.current * 2, self._most)
        elif seconds > self.LONG_S:
            self.halve()

    def halve(self) -> None:
        """A piece did not go through."""
        self.current = max(self.current // 2, self._least)

    def refuse(self, count: int) -> bool:
        """Pieces of this length are not taken, and never will be.

        :returns: whether shorter ones can be tried.
        """
        if count <= self._least:
            return False
        self._most = max(count // 2, self._least)
        self.current = min(self.current, self._most)
        return True
