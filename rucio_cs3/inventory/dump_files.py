"""A dump on the local disk while it is written: a hidden part that grows, and a note of how far it is true.

The part is gzip in several members (RFC 1952, 2.2: a file may have any number), so that it can be cut off at the end of
one and go on. :meth:`Growing.keep` ends a member, puts it on the disk, and notes its end; what stands behind that is
cut off by the next run. The final name appears when all is there, and only then.

Both files are for their owner alone while they grow. Knows nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors, sync_folder
from rucio_cs3.inventory.lists import open_part, replace_text

#: A part that was begun so long ago is begun anew, in seconds: what it says is too old by then.
RESUME_WITHIN_S = 24 * 3600.0

#: Text that is gathered before it is compressed, in characters, and what is read at a time, in bytes.
_BLOCK_CHARACTERS = _BLOCK_BYTES = 1 << 20

#: Compression of one MiB of paths takes 10 ms at this level and gives a quarter of its size.
_LEVEL = 6

_VERSION = 1


class Growing:
    """A file that appears under its name when it is complete; use it as a context manager.

    :param path: the final name; compressed where it ends with ``.gz``.
    :param identity: what the dump is of, and how: a part with another one is begun anew.
    :param resume: go on with a part that is there.
    :raises LocalError: when another process writes the same, or the folder is missing.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.note = path.with_name(f".{path.name}.state")
        self._identity = dict(identity)
        self._resume = resume
        self._compressed = path.name.endswith(".gz")
        self._descriptor = -1
        self._text: list[str] = []
        self._characters = 0
        self._packer: Any = None
        self._began_at_s = time.time()
        #: What was noted at the last :meth:`keep`; None at a beginning.
        self.kept: dict[str, Any] | None = None

    def __enter__(self) -> Growing:
        with local_errors(self.path):
            if self.path.is_dir():
                raise errors.LocalError(f"local path {self.path} is a folder; give the name of a file")
            # The part is what is locked, and stays locked when it gets the final name.
            self._descriptor = open_part(self.part, mode=0o600, empty=False)
            try:
                self._begin()
            except BaseException:
                self._close()
                raise
        return self

    def _begin(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.LocalError(f"another process is writing {self.path}") from None
        if not self._is_part():
            # Another process has just finished it, and would find its dump emptied.
            raise errors.LocalError(f"another process has just written {self.path}")
        noted = self._noted() if self._resume else None
        offset = 0
        if noted is not None:
            self.kept, offset, self._began_at_s = noted["kept"], noted["offset"], noted["began_at"]
        os.ftruncate(self._descriptor, offset)
        os.lseek(self._descriptor, offset, os.SEEK_SET)

    def _is_part(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.part.stat())
        except FileNotFoundError:
            return False

    def _noted(self) -> dict[str, Any] | None:
        """The note of a part that can go on."""
        try:
            noted = json.loads(self.note.read_text(encoding="utf-8"))
            age_s = time.time() - noted["began_at"]
            fits = noted["version"] == _VERSION and noted["identity"] == self._identity
            whole = os.fstat(self._descriptor).st_size >= noted["offset"] >= 0
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return noted if fits and whole and age_s < RESUME_WITHIN_S else None

    def write(self, text: str) -> None:
        """Add some text. It is on the disk after :meth:`keep`, and no sooner.

        :raises LocalNoSpaceLeft: when the disk is full; what was kept stays.
        """
        self._text.append(text)
        self._characters += len(text)
        if self._characters >= _BLOCK_CHARACTERS:
            self._pack()

    def keep(self, state: Mapping[str, Any]) -> None:
        """Put all on the disk, and note how far it is; another process goes on from here. Not to be called after an
        interruption within :meth:`write`: some of the text may be lost by then.

        :raises LocalNoSpaceLeft: as :meth:`write`.
        """
        self._pack()
        with local_errors(self.path):
            if self._packer is not None:
                self._put(self._packer.flush())
                self._packer = None
            os.fsync(self._descriptor)
            offset = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self.kept = dict(state)
            noted = {
                "version": _VERSION,
                "identity": self._identity,
                "began_at": self._began_at_s,
                "offset": offset,
                "kept": self.kept,
            }
            replace_text(self.note, json.dumps(noted), mode=0o600)

    def finish(self, companion: Path, text: str) -> None:
        """Give it its name, and write the file that describes it. To be called after :meth:`keep`.

        The companion is there first: what is killed between leaves one that does not fit the file, and never a file
        that nothing describes.

        :param companion: the describing file's name.
        :raises LocalNoSpaceLeft: when there is no room for the companion; both names are as they were then.
        """
        with local_errors(companion):
            replace_text(companion, text)
        with local_errors(self.path):
            os.fchmod(self._descriptor, 0o666 & ~_umask())
            self.part.replace(self.path)
            # Both names are on the disk before anybody is told, and before the note goes.
            sync_folder(self.path.parent)
            self.note.unlink(missing_ok=True)

    def digest(self) -> tuple[int, str]:
        """Size in bytes, and SHA-256, of what was kept."""
        digest, size = hashlib.sha256(), 0
        with local_errors(self.path), self.part.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return size, digest.hexdigest()

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _pack(self) -> None:
        if not self._text:
            return
        data = "".join(self._text).encode()
        self._text.clear()
        self._characters = 0
        with local_errors(self.path):
            if self._compressed:
                if self._packer is None:
                    # 16: with gzip's head and tail.
                    self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
                data = self._packer.compress(data)
            self._put(data)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
