"""Files of a cloud that are compressed on the way: whoever closes the compressor closes the file, too."""

from __future__ import annotations

import contextlib
import io
from typing import IO, TYPE_CHECKING, Any

from rucio_cs3.notebook.withheld import Withheld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def compressed(file: IO[bytes], path: str, compression: str) -> IO[bytes]:
    """A file through one of fsspec's compressors, which leave it open when they are closed.

    :param file: a :class:`~rucio_cs3.notebook.files.CloudReader`, or a :class:`Withheld` one.
    :param compression: a name of fsspec's, or ``infer`` for what the path says.
    :raises ValueError: for a compression that fsspec does not know.
    """
    from fsspec.compression import compr
    from fsspec.core import get_compression

    kind = get_compression(path, compression)
    if kind is None:
        return file
    if isinstance(file, Withheld):
        return CompressedWriter(compr[kind](file, mode="w"), file)  # type: ignore[return-value]
    return io.BufferedReader(_CompressedReader(compr[kind](file, mode="r"), file))


class CompressedWriter(Withheld):
    """Compresses into a file that appears whole when this is closed.

    :param compressor: writes into ``file``.
    """

    def __init__(self, compressor: Any, file: Withheld) -> None:
        super().__init__()
        self._compressor = compressor
        self._file = file

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._compressor.tell())

    def write(self, data: ReadableBuffer, /) -> int:
        piece = memoryview(data).cast("B")
        self._compressor.write(piece)
        return len(piece)

    def finish(self) -> None:
        # Its end is written once, so that a second attempt to store the file does not write it again.
        if not self._compressor.closed:
            try:
                self._compressor.close()
            except BaseException:
                self.discard()
                raise
        self._file.finish()
        super(Withheld, self).close()

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            self._compressor.close()
        self._file.discard()
        super(Withheld, self).close()

    def __del__(self) -> None:
        # Python's own would store what nobody has closed. The file says so to whoever counts on it.
        pass


class _CompressedReader(io.RawIOBase):
    def __init__(self, decompressor: Any, file: IO[bytes]) -> None:
        super().__init__()
        self._decompressor = decompressor
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._decompressor.seekable())

    def tell(self) -> int:
        return int(self._decompressor.tell())

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._decompressor.seek(position, whence))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._decompressor.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._decompressor.close()
            self._file.close()
        super().close()
