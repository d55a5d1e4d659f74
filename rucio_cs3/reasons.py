"""Why a transfer failed, as Rucio keeps it: the essence first, because it shows only the beginning. Pure.

``requests.err_msg`` holds 4000 bytes, but ``rucio rule show`` has 245 characters of it (Rucio 41.5.1 core/lock.py:521),
Rucio's own prefix among them. What an operator needs there is what the server said, its code, and its trace id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    # Only a name here: Rucio's server imports this module, and needs no gRPC for it.
    from rucio_cs3.transfers.jobs import Outcome

#: Width of ``requests.err_msg`` (Rucio 41.5.1 db/sqla/models.py:1425). Oracle counts bytes, and Rucio does not
#: cut: a longer text would make the whole report fail.
ERR_MSG_MAX_BYTES = 4000

#: Characters of an error that Rucio keeps in a rule.
RULE_ERROR_CHARACTERS = 245

#: Most characters of code and trace id together; the rest is for words.
_DETAILS_CHARACTERS = 120

_ELLIPSIS = "…"


def reason(outcome: Outcome, room: int = RULE_ERROR_CHARACTERS) -> str:
    """The reason of an outcome, which makes sense also where only its first ``room`` characters are shown.

    Where it is longer than that it begins with message, code and trace, shortened to fit, and has the whole text after
    them.
    """
    whole = outcome.reason or "no reason is known"
    error = outcome.error
    if len(whole) <= room or error is None:
        return whole
    return f"{_essence(error, room)} | {whole}"


def bounded(text: str) -> str:
    """Cut to what ``requests.err_msg`` holds, never within a character; without those that no database takes."""
    # PostgreSQL refuses NUL in a text, and a terminal obeys some of the others.
    data = "".join(character if character.isprintable() else " " for character in text).encode("utf-8", "replace")
    if len(data) <= ERR_MSG_MAX_BYTES:
        return data.decode("utf-8")
    cut = data[: ERR_MSG_MAX_BYTES - len(_ELLIPSIS.encode("utf-8"))]
    return cut.decode("utf-8", "ignore") + _ELLIPSIS


def _essence(error: errors.CS3Error, room: int) -> str:
    details = ", ".join(part for part in (error.code, f"trace {error.trace}" if error.trace else None) if part)
    tail = f" ({_shortened(details, _DETAILS_CHARACTERS)})" if details else ""
    return _shortened(error.message, room - len(tail)) + tail


def _shortened(text: str, room: int) -> str:
    """Without its middle where it is too long: it begins with what happened, and ends with the server's words."""
    if len(text) <= room:
        return text
    end = (room - len(_ELLIPSIS)) * 2 // 3
    return text[: room - len(_ELLIPSIS) - end] + _ELLIPSIS + text[len(text) - end :]
