"""Imported by every Python process of a story: writes down what it runs, what it writes to, and what it deletes.

``LEAKS_WITNESS`` names the folder for that. Of a small file that is deleted a copy is kept, for what was in it was
written, too. :mod:`tests.leaks.witnesses` reads it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from typing import Any

_FOLDER = os.environ.get("LEAKS_WITNESS", "")
_COPIED_BYTES = 1 << 20
_WRITES = os.O_WRONLY | os.O_RDWR
_EVENTS = {"open", "os.remove", "os.rename", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}
_busy = threading.local()


def _note(kind: str, *what: object) -> None:
    line = json.dumps([kind, os.getpid(), *(str(one) for one in what)]) + "\n"
    descriptor = os.open(f"{_FOLDER}/notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


def _place(path: Any, folder: int | None = -1) -> str:
    name = os.fsdecode(os.fspath(path))
    within = "" if folder in (-1, None) else os.readlink(f"/proc/self/fd/{folder}")
    return os.path.abspath(os.path.join(within, name))


def _keep(path: str) -> None:
    status = os.lstat(path)
    if status.st_size > _COPIED_BYTES or not stat.S_ISREG(status.st_mode):
        return
    with open(path, "rb") as file:
        content = file.read()
    copy = f"{_FOLDER}/deleted/{os.getpid()}-{os.urandom(8).hex()}"
    with open(copy, "wb") as file:
        file.write(content)
    _note("deletes", path, oct(stat.S_IMODE(status.st_mode)), copy)


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        # A descriptor was opened by its path before, or is a pipe.
        if not isinstance(path, int) and (any(one in (mode or "") for one in "wax+") or (flags or 0) & _WRITES):
            _note("writes", _place(path))
    elif event == "os.remove":
        _keep(_place(*arguments))
    elif event == "os.rename":
        _note("writes", _place(arguments[1], arguments[3]))
    elif event == "os.system":
        _note("runs", arguments[0])
    else:
        _note("runs", arguments[0], *arguments[1])


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or getattr(_busy, "now", False):
        return
    _busy.now = True
    try:
        _see(event, arguments)
    except (OSError, TypeError):
        pass  # gone already, or nothing that has a name; a program must not fail for being watched
    finally:
        _busy.now = False


if _FOLDER:
    with open("/proc/self/cmdline", "rb") as _file:
        _note("is", *_file.read().decode("utf-8", "replace").split("\0"))
    sys.addaudithook(_hook)
