"""The ways to bring a file over, and which of them to try in which order. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Literal

from rucio_cs3.cs3 import errors

#: What an RSE asks for; see :func:`agree`.
Wish = Literal["auto", "pull", "push", "relay"]


class Mode(enum.Enum):
    """Who moves the bytes."""

    PULL = "pull"
    """The destination fetches them from the source (COPY with ``Source``)."""
    PUSH = "push"
    """The source sends them to the destination (COPY with ``Destination``)."""
    RELAY = "relay"
    """They pass through the agent: one GET, one PUT, nothing on its disk."""


def agree(source: Wish, destination: Wish) -> Wish:
    """What both ends can agree upon; ``auto`` agrees with everything.

    :raises ConfigurationError: when both ask for something, and not for the same.
    """
    if "auto" in (source, destination) or source == destination:
        return destination if source == "auto" else source
    raise errors.ConfigurationError(
        f"the source asks for mode {source} and the destination for {destination}; "
        "set cs3_transfer_mode of one of the RSEs to auto"
    )


def in_order(
    wish: Wish,
    *,
    source_speaks_tpc: Callable[[], bool],
    destination_speaks_tpc: Callable[[], bool],
    attempt: int = 0,
) -> list[Mode]:
    """The modes to try, best first; the next is for a server that refuses the one before, nothing being written.

    Pull before push: a server without third-party copy refuses a pull in so many words, while a push becomes a copy
    within itself there (Reva v3.12.1). Relay is last, because all bytes pass through the agent.

    :param attempt: how often Rucio has tried before. Each attempt begins with the next mode, and the last with
        the last: sites that cannot reach each other are found out only by trying.
    :raises Unsupported: when a push is wished for, and the source does none.
    :raises CS3Error: when neither end can be asked, or one asks to be left alone for a while.
    """
    if wish == "push" and not source_speaks_tpc():
        # Asked even though nobody has a choice: such a source would make a copy within itself, where nobody looks
        # for it (Reva v3.12.1).
        raise errors.Unsupported("the source does no third-party copies, so it cannot push; see cs3_transfer_mode")
    if wish != "auto":
        return [Mode(wish)]
    modes: list[Mode] = []
    unknown: list[errors.CS3Error] = []
    for mode, speaks_tpc in ((Mode.PULL, destination_speaks_tpc), (Mode.PUSH, source_speaks_tpc)):
        try:
            if speaks_tpc():
                modes.append(mode)
        except errors.CS3Error as exc:
            # The other end, or a relay, may do without this one's front end.
            unknown.append(exc)
            if exc.retry_after_s is not None or len(unknown) == 2:
                raise
    modes.append(Mode.RELAY)
    first = min(attempt, len(modes) - 1)
    return modes[first:] + modes[:first]


def without_bytes(order: list[Mode]) -> list[Mode]:
    """The same for an empty file, which is never pushed.

    Reva v3.12.1 sends it without a Content-Length (ocdav/tpc.go, performHTTPPush: 0 means unknown in Go), and a Reva at
    the destination refuses what has none (ocdav/put.go, getContentLength); the COPY is a success all the same.
    """
    return [mode for mode in order if mode is not Mode.PUSH] or [Mode.RELAY]
