"""Large downloads that outlive their process: a part under a name that can be found again, and a note beside it.

The part of ``target`` is ``.rucio-cs3.<hash of its name and of this run of the machine>.part``; the note, with the same
name and ``.json``, says of which remote file and version it is, and how many of its bytes from the beginning may be
trusted. Both are kept when a process is killed, the network stays away, or somebody presses Ctrl-C, and the next
download of the same file to the same place goes on from there.

Why nobody gets another's bytes:

- A lock on the part keeps two processes of a machine from writing to it: the second takes a part of its own, which is
  not kept. Where locks hold only within each machine (NFS with ``local_lock``, Lustre with ``localflock``) two machines
  do not meet, because each has names of its own.
- A part is trusted only where it was written since the machine was started, because what had not reached the disk when
  the power went is lost without a trace. Parts of earlier runs are swept after a week.
- The lock does not keep the name: whoever removes the part lets another process make a new one there. So a note names
  the inode of its part, nothing that stands under the name is removed unless it is ours, and before the final name the
  part gets one that nobody else knows: if it is not the file that was written to, or not of the right length, the
  download fails.

Knows no network; what one has of a file that is begun anew is in :mod:`rucio_cs3.cs3.local_files`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import PART_PREFIX, PART_SUFFIX
from rucio_cs3.cs3.local_files import SafeFile, hidden_sibling, local_errors

_log = logging.getLogger(__name__)

#: Smaller downloads are not worth two more files.
KEPT_FROM_BYTES = 64 * 1024 * 1024

#: The note is written anew whenever so many more bytes have come, and so many are lost at most.
NOTED_EVERY_BYTES = 64 * 1024 * 1024

#: Parts that nobody has touched for so long are removed, in seconds: a week.
STALE_S = 7 * 24 * 3600.0

_REREAD_BYTES = 1024 * 1024

#: A part that is another file each time it was locked is tried so often; there are file systems without stable inode
#: numbers, where it always is.
_LOCK_TRIES = 10

_NOTE_SUFFIX = ".json"
_NOTE_MAX_BYTES = 64 * 1024


class ResumableFile(SafeFile):
    """A :class:`SafeFile` that may go on where an earlier one was left.

    :param version: what tells this version of the remote file from all others, and holds no secret; compared as JSON.
    """

    def __init__(self, path: Path, version: Mapping[str, Any]) -> None:
        super().__init__(path)
        self._version = dict(version)
        self._note = -1
        self._note_path: Path | None = None
        self._noted = 0
        self._keep = False
        #: So many bytes from the beginning are there and may be trusted.
        self.front = 0

    def __enter__(self) -> ResumableFile:
        self._open()
        return self

    def _open(self) -> None:
        self.front = self._noted = 0
        boot, descriptor = _boot(), -1
        if boot:
            told = hashlib.sha256(boot.encode() + b"/" + os.fsencode(self._path.name)).hexdigest()[:16]
            part = hidden_sibling(self._path, told)
            with local_errors(self._path):
                descriptor = _locked(part)
        if descriptor < 0:
            # Somebody is at it, or it is not ours: a part that only we know.
            super()._open()
            return
        self._part, self._descriptor = part, descriptor
        self._note_path = part.with_suffix(_NOTE_SUFFIX)
        try:
            self._note = _open_note(self._note_path)
            self.front = self._trusted_bytes()
            if not self.front:
                self._write_note(0)
                with local_errors(self._path):
                    os.ftruncate(self._descriptor, 0)
        except BaseException:
            self._drop()
            raise

    def keep(self) -> bool:
        """Leave the part and its note where they are when the block is left without a commit.

        :returns: whether there is anything to leave.
        """
        self._keep = self._note >= 0 and self._noted > 0 and self._is_ours()
        return self._keep

    def reread(self, take: Callable[[memoryview], None]) -> None:
        """Hand out the bytes before :attr:`front`, piece by piece; each is valid only until the next.

        :raises LocalError: when they cannot be read.
        """
        buffer = memoryview(bytearray(_REREAD_BYTES))
        position = 0
        with local_errors(self._path):
            while position < self.front:
                count = os.preadv(self._descriptor, [buffer[: self.front - position]], position)
                if not count:
                    raise OSError(errno.EIO, "the part has become shorter")
                take(buffer[:count])
                position += count

    def begin(self, version: Mapping[str, Any]) -> None:
        """Begin anew, with this version of the remote file, and another part."""
        self._version = dict(version)
        self.clear()

    def note(self, front: int) -> None:
        """All bytes before ``front`` have been written. Cheap where the last note is not much older."""
        if front - self._noted >= NOTED_EVERY_BYTES:
            self._write_note(front)

    def commit(self, size: int) -> None:
        with local_errors(self._path):
            self._take_away()
        super().commit(size)

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self._let_go()
        else:
            self._drop()

    def _take_away(self) -> None:
        """Give the part a name that nobody else knows, so that no other gets the final name.

        :raises LocalError: when what stands under the part's name is not what was written to.
        """
        if self._note_path is None:
            return
        if self._is_ours():
            # The note first: without it a part is nobody's, and with it but no part there is nothing to go on with.
            self._remove_note()
            shared, own = self._part, hidden_sibling(self._path)
            shared.rename(own)
            self._part = own
            if self._is_ours():
                self._note_path = None
                return
            # It came this very moment, and goes back to whoever is writing to it.
            self._part = shared
            own.rename(shared)
        raise errors.LocalError(
            f"local path {self._path} was not written: somebody else took its part away while it was fetched"
        )

    def _drop(self) -> None:
        if self._descriptor >= 0 and self._is_ours():
            self._remove_note()
        super()._drop()

    def _let_go(self) -> None:
        super()._let_go()
        self._note_path = None
        descriptor, self._note = self._note, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _is_ours(self) -> bool:
        if self._note_path is None:
            return super()._is_ours()
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._part.lstat())
        except OSError:
            return False

    def _remove_note(self) -> None:
        if self._note_path is not None:
            with contextlib.suppress(OSError):
                self._note_path.unlink()

    def _trusted_bytes(self) -> int:
        """What the note says of this version; 0 where it says nothing that can be believed."""
        if self._note < 0:
            return 0
        try:
            said = json.loads(os.pread(self._note, _NOTE_MAX_BYTES, 0))
            front = said.pop("front")
            there = os.fstat(self._descriptor).st_size
            expected = json.loads(json.dumps(self._content()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return 0
        if said != expected or not isinstance(front, int) or not 0 < front <= there:
            return 0
        self._noted = front
        return front

    def _content(self) -> dict[str, Any]:
        part = os.fstat(self._descriptor).st_ino
        return {"form": 1, "boot": _boot(), "part": part, "version": self._version}

    def _write_note(self, front: int) -> None:
        """One write; its length only grows as long as ``front`` does."""
        self._noted = front
        if self._note < 0:
            self._noted = 0
            return
        # A note that cannot be written costs the next download its beginning, and this one nothing.
        try:
            if not front:
                os.ftruncate(self._note, 0)
            else:
                os.pwrite(self._note, json.dumps({**self._content(), "front": front}).encode(), 0)
        except OSError as exc:
            self._noted = 0
            _log.info("%s cannot be written: %s", self._note_path, exc.strerror)


def sweep(folder: Path) -> None:
    """Remove parts and notes that nobody has touched for a week and nobody holds; a look at the whole folder."""
    oldest = time.time() - STALE_S
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PART_PREFIX) and entry.name.endswith((PART_SUFFIX, _NOTE_SUFFIX)):
                _remove_stale(Path(entry.path), oldest)


def _remove_stale(path: Path, oldest: float) -> None:
    with contextlib.suppress(OSError):
        if path.lstat().st_mtime > oldest:
            return
        descriptor = _open_own(path, 0o600, create=False)
        if descriptor < 0:
            return
        try:
            if _lock(descriptor):
                path.unlink()
                _log.info("removed %s, which a killed download had left", path)
        finally:
            os.close(descriptor)


def _locked(part: Path) -> int:
    """The descriptor of a part that nobody else holds; -1 where that cannot be had.

    :raises OSError: when the folder is missing, or cannot be written to.
    """
    for _ in range(_LOCK_TRIES):
        descriptor = _open_own(part, 0o666)
        if descriptor < 0:
            return -1
        if not _lock(descriptor):
            os.close(descriptor)
            return -1
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), part.lstat()):
                return descriptor
        # Whoever held it has just finished, so what is locked now is a file by another name.
        os.close(descriptor)
    return -1


def _open_note(path: Path) -> int:
    """The descriptor of a note; -1 where there can be none, which costs the next download its beginning."""
    try:
        return _open_own(path, 0o600)
    except OSError as exc:
        _log.info("%s cannot be made: %s", path, exc.strerror)
        return -1


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Taken, or a file system that has no locks: both mean that a part cannot be shared.
        return False
    return True


def _open_own(path: Path, mode: int, *, create: bool = True) -> int:
    """A descriptor of a plain file that is ours alone; -1 for anything else that stands there.

    In a folder that others may write to (/tmp) somebody could have put a link there.

    :raises OSError: when the folder is missing, or cannot be written to.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, mode)
    except (IsADirectoryError, PermissionError) as exc:
        if isinstance(exc, PermissionError) and not os.path.lexists(path):
            raise
        return -1
    except OSError:
        if path.is_symlink():
            return -1
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    return -1


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    """What tells this run of the machine from all others; empty where that cannot be told (no Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
