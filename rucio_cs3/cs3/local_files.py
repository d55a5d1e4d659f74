"""Files on the local disk: one that is read for an upload, and one that appears only when it is whole.

Knows no network; every failure of the disk becomes a :class:`~.errors.LocalError` here, which names the path. Files
that outlive a broken download are in :mod:`rucio_cs3.cs3.downloads.part_files`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import part_name

#: From this size on room is reserved before the first byte, in bytes; smaller files meet a full disk soon enough.
_RESERVED_FROM_BYTES = 1024 * 1024

#: So much is reserved first, in bytes, and the rest only where that took no longer than this, in seconds. A disk notes
#: it in microseconds; tmpfs takes each page (3.7 GB/s), and network file systems may write. There the bytes of the file
#: do the same work while others are on their way, so to reserve room before them makes a download slower.
_TRIED_BYTES = 16 * 1024 * 1024
_TRIED_S = 0.002

#: FALLOC_FL_KEEP_SIZE of linux/falloc.h.
_KEEP_SIZE = 1


class PartWriter:
    """A descriptor of a part's own, for a thread that writes to its places in it; close it in the end.

    A thread that is late, after the part was given up, then writes into a file that has no name any more, and never
    into another one that got the same descriptor.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write_at(self, position: int, data: memoryview) -> None:
        """Write all of ``data``, the first byte at ``position``.

        :raises LocalNoSpaceLeft: when the disk is full.
        """
        try:
            while data:
                count = os.pwrite(self._descriptor, data, position)
                position += count
                data = data[count:]
        except OSError as exc:
            raise local_error(exc, self._path) from exc

    def close(self) -> None:
        """May be called twice.

        :raises LocalError: when the disk says only now that it has not taken what was written.
        """
        # The number first: it may be another file's as soon as it is free.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with local_errors(self._path):
                os.close(descriptor)


class SafeFile:
    """A download's target: bytes go to a hidden sibling, which takes the final name only in :meth:`commit`.

    Leaving the ``with`` block without a commit removes the sibling and touches nothing else.

    :param path: final name; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = hidden_sibling(path)
        self._descriptor = -1
        self._position = 0

    def __enter__(self) -> SafeFile:
        self._open()
        return self

    def _open(self) -> None:
        self._part = hidden_sibling(self._path)
        with local_errors(self._path):
            self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def reserve(self, size: int) -> None:
        """Have the disk keep room for the file, so that a full one is said before anything is fetched.

        Nothing is written, and the file's length stays: ``posix_fallocate`` would write to every block where the file
        system cannot reserve (NFS before 4.2, FUSE), which takes hours for a large file. Where it is as slow to reserve
        as to write, only the room that is there is looked at.

        :param size: bytes of the whole file.
        :raises LocalNoSpaceLeft: when there is not so much room.
        """
        if size < _RESERVED_FROM_BYTES:
            return
        with local_errors(self._path):
            # First: a file system that has not enough room is filled up by the attempt to reserve it.
            self._look_for_room(size)
            began = time.perf_counter()
            _fallocate(self._descriptor, min(size, _TRIED_BYTES))
            if size > _TRIED_BYTES and time.perf_counter() - began <= _TRIED_S:
                _fallocate(self._descriptor, size)

    def _look_for_room(self, size: int) -> None:
        disk = os.fstatvfs(self._descriptor)
        needed = size - os.fstat(self._descriptor).st_blocks * 512
        # Some network file systems know no numbers, and give 0 for all of them.
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: bytes | memoryview) -> None:
        """Write behind what was written so far.

        :raises LocalNoSpaceLeft: when the disk is full.
        """
        view = memoryview(data)
        PartWriter(self._path, self._descriptor).write_at(self._position, view)
        self._position += len(view)

    def writer(self) -> PartWriter:
        """One more way to write, which is to be closed by whoever gets it."""
        with local_errors(self._path):
            return PartWriter(self._path, os.dup(self._descriptor))

    def clear(self) -> None:
        """Begin anew, with another sibling: a thread that is late writes into the old one, which has no name any more.

        :raises LocalError: when there can be none.
        """
        self._position = 0
        self._drop()
        self._open()

    def commit(self, size: int) -> None:
        """Put the bytes on the disk and give them the final name, replacing what stood there.

        :param size: how many bytes there must be.
        :raises LocalError: when there are others, or the sibling was taken away.
        """
        with local_errors(self._path):
            os.fsync(self._descriptor)
            held = os.fstat(self._descriptor).st_size
            if held != size:
                raise errors.LocalError(
                    f"local path {self._path} was not written: its part has {held} bytes instead of {size},"
                    " so somebody else has changed it"
                )
            self._part.replace(self._path)
        self._let_go()
        sync_folder(self._path.parent)

    def __exit__(self, *_: object) -> None:
        self._drop()

    def _drop(self) -> None:
        """Remove the sibling, where there is one."""
        if self._descriptor < 0:
            return
        if self._is_ours():
            with contextlib.suppress(OSError):
                self._part.unlink()
        self._let_go()

    def _is_ours(self) -> bool:
        """Whether what stands under the sibling's name is our sibling, or nothing; nobody else knows the name."""
        return True

    def _let_go(self) -> None:
        # The number first: if something comes between, one file stays open, and no other thread's file is closed.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # What fails here has nothing to say: the file is given up, or synced.
            with contextlib.suppress(OSError):
                os.close(descriptor)


def hidden_sibling(path: Path, word: str | None = None) -> Path:
    """The name of a part of ``path``; without ``word`` one that nobody else has.

    Short and without the final name, so that a name of 255 bytes has a sibling, too.
    """
    return path.with_name(part_name(word))


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[tuple[FileIO, os.stat_result]]:
    """Open a local file for an upload, with its status.

    :raises LocalNotFound: when it does not exist.
    :raises LocalError: when it is no regular file, or cannot be read.
    """
    with local_errors(path):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            # Checked before it is opened: the open of a pipe waits for its writer.
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise errors.LocalError(f"local path {path} is {kind}, not a file")
        file = path.open("rb", buffering=0)
    with file:
        yield file, os.fstat(file.fileno())


@contextlib.contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Turn the failures of a block that works on ``path`` into ours."""
    try:
        yield
    except OSError as exc:
        raise local_error(exc, path) from exc


def local_error(exc: OSError, path: Path) -> errors.LocalError:
    """What a failure of the disk means."""
    text = exc.strerror or str(exc)
    if exc.errno == errno.ENOENT:
        return errors.LocalNotFound(f"local path {path} or its folder does not exist")
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.LocalNoSpaceLeft(f"local disk is full while writing {path}: {text}")
    return errors.LocalError(f"local path {path} cannot be used: {text}")


def _fallocate(descriptor: int, size: int) -> None:
    """Reserve room with Linux' ``fallocate(2)``, which Python has only in the form of posix_fallocate.

    What cannot be reserved (EOPNOTSUPP and the like of file systems, EFBIG of limits) may still be written.

    :raises OSError: ENOSPC or EDQUOT.
    """
    call = _fallocate_call()
    if call is not None and call(descriptor, _KEEP_SIZE, 0, size) != 0:
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(code, os.strerror(code))


@functools.lru_cache(maxsize=1)
def _fallocate_call() -> Callable[..., Any] | None:
    """The C library's function; None where it has none (macOS)."""
    library = ctypes.CDLL(None, use_errno=True)
    # glibc's plain name takes 32-bit offsets on 32-bit machines; musl has the plain name only, with 64 bits.
    call: Any = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call  # type: ignore[no-any-return]


def sync_folder(folder: Path) -> None:
    """Make the new name durable, where that can be done.

    A folder that may be written to and not read cannot be opened, and some file systems sync none (EINVAL): the file
    is whole under its name all the same.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
