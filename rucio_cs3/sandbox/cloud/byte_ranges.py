"""The header ``Range`` as each server line reads it (``pkg/rhttp/datatx/utils/download/range.go`` of Reva v3.12.1, and
of the ``edge`` branch, from which OpenCloud's comes). Pure."""

from __future__ import annotations

import re


class Unsatisfiable(Exception):
    """There is no such range: HTTP 416.

    :param beyond: all ranges begin behind the last byte; the answer then tells the file's size.
    """

    def __init__(self, *, beyond: bool = False) -> None:
        super().__init__()
        self.beyond = beyond


def parse_ranges(header: str, size: int, *, v3: bool) -> list[tuple[int, int]]:
    """The ranges that are asked for, first and last byte included; empty where the whole file is to be sent.

    :raises Unsatisfiable: when there is none to send.
    """
    if not header:
        return []
    prefix, _, listed = header.partition("=")
    if prefix != "bytes":
        # v3.12.1 ignores units that it does not know; edge refuses them.
        return _ignored(v3)
    ranges = []
    beyond = False
    for one in filter(None, (part.strip(" \t") for part in listed.split(","))):
        if "-" not in one:
            return _ignored(v3)
        first, _, last = (part.strip(" \t") for part in one.partition("-"))
        if not re.fullmatch("[0-9]+", first or last) or not re.fullmatch("[0-9]*", last):
            raise Unsatisfiable
        if not first:
            ranges.append((max(size - int(last), 0), size - 1))
        elif int(first) >= size:
            beyond = True
        elif last and int(last) < int(first):
            raise Unsatisfiable
        else:
            ranges.append((int(first), min(int(last) if last else size - 1, size - 1)))
    if beyond and not ranges:
        raise Unsatisfiable(beyond=True)
    # More than the file in all: both lines take it for an attack, and send the file.
    return ranges if sum(last - first + 1 for first, last in ranges) <= size else []


def _ignored(v3: bool) -> list[tuple[int, int]]:
    if v3:
        return []
    raise Unsatisfiable
