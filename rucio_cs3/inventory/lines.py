"""The lines of a dump: written, and read again. Pure.

=========  =======================================================================================================
``paths``  the path, as ``rucio.common.dumper.consistency`` of Rucio 41.5.1 reads storage dumps; UTF-8, nothing else
``long``   path, bytes, seconds since the epoch, adler32 or ``-``, with tabs between
``jsonl``  an object with ``path``, ``bytes``, ``mtime`` and ``adler32`` (null where the server keeps none)
=========  =======================================================================================================

Paths are below the prefix of the RSE, without a leading slash. Rucio strips one more part of a path where it has the
name of the prefix' last folder, or is ``rucio``: see :class:`Misreading`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, get_args

from rucio_cs3.cs3 import errors

Form = Literal["paths", "long", "jsonl"]
FORMS: tuple[Form, ...] = get_args(Form)

#: json.dumps would make one for each line, which takes as long as the line.
_JSON = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A file in a storage; what the form of its dump does not tell is None.

    :param path: below the prefix.
    :param mtime_s: seconds since the epoch.
    """

    path: str
    size: int | None = None
    mtime_s: int | None = None
    adler32: str | None = None


def is_writable(path: str, form: Form) -> bool:
    """Whether a path can stand in a line: not with a line break, of which Rucio's reader knows two kinds."""
    return form == "jsonl" or not ("\n" in path or "\r" in path)


def written(line: Line, form: Form) -> str:
    """The text of a line, with its end."""
    if form == "paths":
        return f"{line.path}\n"
    if form == "long":
        return f"{line.path}\t{line.size}\t{line.mtime_s}\t{line.adler32 or '-'}\n"
    fields = {"path": line.path, "bytes": line.size, "mtime": line.mtime_s, "adler32": line.adler32}
    return _JSON.encode(fields) + "\n"


def read(text: str, form: Form) -> Line:
    """A line from its text.

    :raises LocalError: when it is none of this form.
    """
    text = text.rstrip("\n")
    if form == "paths":
        return Line(path=text.strip("/"))
    try:
        if form == "jsonl":
            fields = json.loads(text)
            return Line(
                path=str(fields["path"]),
                size=int(fields["bytes"]),
                mtime_s=int(fields["mtime"]),
                adler32=fields["adler32"] or None,
            )
        path, size, mtime, adler32 = text.rsplit("\t", 3)
        return Line(
            path=path.strip("/"),
            size=int(size),
            mtime_s=int(mtime),
            adler32=None if adler32 == "-" else adler32,
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise errors.LocalError(f"{text[:80]!r} is no line of a dump of the form {form}") from exc


class Misreading:
    """Which paths Rucio's own reader takes for others.

    From Rucio 41.5.1, ``common/dumper/path_parsing.py`` and ``consistency.py``: a path that begins with the end of the
    prefix loses that beginning, one that is a piece of the prefix ends the audit, and a first part ``rucio`` is lost.

    :param prefix: of the RSE's protocol.
    """

    def __init__(self, prefix: str) -> None:
        self._base = [part for part in re.sub(r"rucio/$", "", prefix).split("/") if part]
        self._firsts = {"rucio", *self._base}

    def of(self, path: str) -> bool:
        """Whether this path is one of them."""
        first = path.partition("/")[0]
        if first not in self._firsts:
            return False
        if first == "rucio":
            return True
        parts, base = path.split("/"), self._base[self._base.index(first) :]
        alike = 0
        while alike < len(parts) and alike < len(base) and parts[alike] == base[alike]:
            alike += 1
        return alike in (len(parts), len(base))
