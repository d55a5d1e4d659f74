"""Files in a cloud as Python's file objects: one to read at any position, and one that appears whole when it is closed.

All errors are OSErrors (:mod:`rucio_cs3.notebook.os_errors`).
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.cs3.checksums import Digests
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.spool import Spool
from rucio_cs3.cs3.streams import Progress, UploadBody
from rucio_cs3.files import looks
from rucio_cs3.notebook.os_errors import as_os_errors, is_a_folder, is_there
from rucio_cs3.notebook.shared_files import SHARED, SharedReader
from rucio_cs3.notebook.withheld import Withheld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from rucio_cs3.cs3.random_access import RandomAccessFile

#: What is read from the pages of a remote file at once, for lines and small pieces.
_BUFFER_BYTES = 256 * 1024


def open_file(
    place: Place,
    mode: str = "rb",
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    progress: Callable[[int], contextlib.AbstractContextManager[Progress | None]] | None = None,
) -> IO[Any]:
    """Open a file of a cloud as :func:`open` does.

    :param mode: ``r``, ``w`` (replaces) or ``x`` (new only), with ``b`` for bytes or without for text. Nothing can be
        appended to, and nothing changed in place.
    :param progress: gives what is told of the bytes that an upload moves, for so many in all.
    :raises ValueError: for another mode.
    :raises FileNotFoundError: when there is nothing to read.
    :raises FileExistsError: in mode ``x``, when something is there.
    :raises IsADirectoryError: when it is a folder.
    """
    kind, binary = _parsed(mode)
    if binary and (encoding, errors, newline) != (None, None, None):
        raise ValueError("encoding, errors and newline are for text")
    file: CloudReader | CloudWriter
    file = CloudReader.open(place) if kind == "r" else CloudWriter.open(place, exclusive=kind == "x", progress=progress)
    if binary:
        return cast("IO[bytes]", file)
    return CloudText(cast("IO[bytes]", file), encoding=encoding or "utf-8", errors=errors, newline=newline)


def _parsed(mode: str) -> tuple[str, bool]:
    kind = "".join(sorted(set(mode) - {"b", "t"}))
    if kind not in ("r", "w", "x") or len(set(mode)) != len(mode) or {"b", "t"} <= set(mode):
        raise ValueError(
            f"mode {mode!r} is not possible; a file of a cloud is read (r, rb), or written as a whole (w, wb, x, xb)"
        )
    return kind, "b" in mode


class CloudReader(io.BufferedReader):
    """A file of a cloud to read at any position; see :mod:`rucio_cs3.cs3.random_access`.

    Where the server has no ranges, those that are open at a time or one after the other share what was read: pyarrow
    opens a file twice.

    :param info: a look at the file, from a moment ago.
    """

    def __init__(self, place: Place, info: FileInfo) -> None:
        from rucio_cs3.cs3.random_access import WHOLE_BYTES  # late: gRPC takes a tenth of a second

        file: RandomAccessFile | SharedReader
        if info.size > WHOLE_BYTES and not place.storage.serves_ranges(info):
            file = SHARED.open(place, info)
        else:
            file = place.storage.open_seekable(info)
        super().__init__(_Translated(file, place.shown), _BUFFER_BYTES)
        self._file = file
        self._shown = place.shown
        #: Bytes of the file.
        self.size = info.size
        self.info = info

    @classmethod
    def open(cls, place: Place) -> CloudReader:
        """Look at the file, and be ready to read it; errors as those of :func:`open_file`."""
        with as_os_errors():
            info = there(place)
            if info.processing:
                info = place.storage.settled(place.reference)
            if info.is_directory:
                raise is_a_folder(place.shown)
            return cls(place, info)

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's. What is larger than the buffer passes it by: Python would fill the buffer behind it, too, and
        that is one request more for each column of a table.
        """
        if size is None or size < _BUFFER_BYTES:
            return super().read(size)
        position = self.tell()
        data = bytearray(min(size, max(self.size - position, 0)))
        try:
            with as_os_errors():
                self._file.readinto_at(position, memoryview(data))
        except BaseException:
            # What the buffer has may be as wrong as this; a seek to the end empties it, wherever it is.
            self.seek(0, io.SEEK_END)
            self.seek(position)
            raise
        self.seek(position + len(data))
        return bytes(data)

    def __repr__(self) -> str:
        return f"<CloudReader {self._shown}, {self.size} bytes{', closed' if self.closed else ''}>"


class CloudWriter(Withheld):
    """A new file of a cloud. It is kept on this machine, can be written at any position, and appears under its name, as
    a whole, when it is closed. It never does when a ``with`` block around it raises, or when nobody closes it.

    A file that cannot be stored when it is closed stays open: close it again for another attempt, or :meth:`discard`
    it.
    """

    def __init__(
        self,
        place: Place,
        *,
        overwrite: bool = True,
        progress: Callable[[int], contextlib.AbstractContextManager[Progress | None]] | None = None,
    ) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._place = place
        self._overwrite = overwrite
        self._progress = progress
        self._spool = Spool()
        self._failed = False
        #: False keeps the file back until :meth:`commit`, as a transaction of fsspec wants it.
        self.autocommit = True
        self.name = place.shown
        self.mode = "wb" if overwrite else "xb"

    @classmethod
    def open(
        cls,
        place: Place,
        *,
        exclusive: bool = False,
        progress: Callable[[int], contextlib.AbstractContextManager[Progress | None]] | None = None,
    ) -> CloudWriter:
        """Look whether there may be such a file; errors as those of :func:`open_file`."""
        with as_os_errors():
            if not place.reference.path:
                raise is_a_folder(place.shown)
            taken = look(place)
        if taken is not None and taken.is_directory:
            raise is_a_folder(place.shown)
        if taken is not None and exclusive:
            raise is_there(place.shown)
        return cls(place, overwrite=not exclusive, progress=progress)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._living().tell()

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        return self._living().seek(position, whence)

    def truncate(self, size: int | None = None, /) -> int:
        spool = self._living()
        size = spool.tell() if size is None else size
        with as_os_errors():
            spool.truncate(size)
        return size

    def write(self, data: ReadableBuffer, /) -> int:
        spool = self._living()
        with as_os_errors():
            return spool.write(memoryview(data).cast("B"))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """What was written can be read again; h5py does."""
        spool = self._living()
        with as_os_errors():
            return spool.readinto(memoryview(buffer).cast("B"))

    def finish(self) -> None:
        """Store the file and close it, unless a transaction does that later.

        :raises OSError: when it cannot be stored; what stood under the name stays, and the file stays open.
        """
        if self.autocommit and not self.closed:
            self.commit()

    def commit(self) -> None:
        """Store the file, and close it. Errors as those of :meth:`finish`."""
        spool = self._living()
        self._failed = True
        with as_os_errors(), contextlib.ExitStack() as stack:
            moved = stack.enter_context(self._progress(spool.size)) if self._progress is not None else None
            spool.seek(0)
            body = UploadBody(spool, spool.size, Digests(("adler32",)), name=self.name, progress=moved)
            self._place.storage.store(body, self._place.reference, overwrite=self._overwrite, restarts=True)
        self.discard()

    def discard(self) -> None:
        """Give up what was written, and close. Idempotent."""
        self._spool.close()
        super(Withheld, self).close()

    def __del__(self) -> None:
        if self.closed or self._pid != os.getpid():
            return
        if not self._failed and self.autocommit:
            # Visible, as a ResourceWarning is not: somebody counts on the file.
            warnings.warn(
                f"{self.name} was not closed, so it was not stored; close it, or use it in a with block",
                RuntimeWarning,
                stacklevel=2,
            )
        self.discard()

    def __repr__(self) -> str:
        return f"<CloudWriter {self.name}{', closed' if self.closed else ''}>"

    def _living(self) -> Spool:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._spool


class CloudText(io.TextIOWrapper):
    """Text in front of a :class:`CloudReader` or :class:`Withheld` file."""

    def close(self) -> None:
        """As that of the file; what cannot be written into it any more is no half of a file, either."""
        self._flush()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(self.buffer, Withheld):
            self.close()
            return
        if kind is None:
            self._flush()
        self.buffer.__exit__(kind, error, traceback)

    def __del__(self) -> None:
        # Python's own would close it, and so store what nobody has closed.
        if not isinstance(self.buffer, Withheld):
            self.close()

    def _flush(self) -> None:
        if isinstance(self.buffer, Withheld) and not self.closed:
            try:
                self.flush()
            except BaseException:
                # Python would go on and close the file, and so store what has come until now.
                self.buffer.discard()
                raise


class _Translated(io.RawIOBase):
    """A file that is read, with OSErrors."""

    def __init__(self, file: RandomAccessFile | SharedReader, name: str) -> None:
        super().__init__()
        self._file = file
        self.name = name
        self.mode = "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        with as_os_errors():
            return self._file.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        with as_os_errors():
            return self._file.seek(position, whence)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with as_os_errors():
            return self._file.readinto(buffer)

    def readall(self) -> bytes:
        with as_os_errors():
            return self._file.readall()

    def close(self) -> None:
        self._file.close()
        super().close()


def look(place: Place) -> FileInfo | None:
    """What is at a place; None where nothing is, also because a file stands where a folder would have to be.

    :raises CS3Error: when it cannot be found out.
    """
    return looks.look(place.storage, place.reference)


def delete_file(place: Place) -> None:
    """Delete a file, and never a folder; errors are Python's own.

    :raises FileNotFoundError: when nothing is there; also where a file stands in place of a folder.
    :raises IsADirectoryError: for a folder.
    """
    with as_os_errors():
        try:
            place.storage.delete_file(place.reference)
        except (cs3_errors.InvalidRequest, cs3_errors.ServerFault):
            if there(place).is_directory:
                raise is_a_folder(place.shown) from None
            raise


def there(place: Place) -> FileInfo:
    """What is at a place.

    :raises NotFound: when nothing is; also where a file stands in place of a folder.
    :raises CS3Error: when it cannot be found out.
    """
    info = look(place)
    if info is None:
        raise cs3_errors.NotFound("no such file or folder", target=place.shown)
    return info
