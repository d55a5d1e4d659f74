"""CS3 clouds for fsspec, and so for pandas, dask, xarray, uproot and all that reads through it.

===================================  =======================================================================
``cs3://NAME/a/b.csv``               below the folder of an RSE, or of a section of the clouds file
``cs3://NAME//eos/project/r/b.csv``  a path of CS3 at the same cloud
``cs3s://host[:port]/dav/a%20b``     a PFN, percent-encoded as all PFNs are; over TLS
``cs3://host:port/dav/a%20b``        the same without TLS: a port makes a host of a name
===================================  =======================================================================

Within fsspec paths have no protocol and are never encoded: ``NAME/a/b.csv``, ``host/dav/a b``. Nothing is cached but
which cloud a path belongs to. Errors are OSErrors, see :mod:`rucio_cs3.notebook.os_errors`; docs/notebook.md is the
page for people.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import isfilelike

from rucio_cs3 import clouds
from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.streams import Progress
from rucio_cs3.notebook import copying, files
from rucio_cs3.notebook.compressed import compressed
from rucio_cs3.notebook.fs_paths import CloudPaths
from rucio_cs3.notebook.os_errors import as_os_errors, is_a_file, is_a_folder, is_there
from rucio_cs3.notebook.shared_files import SHARED


class CS3FileSystem(CloudPaths):
    """All clouds that this user knows, by ``cs3://``.

    :param options: what :class:`~rucio_cs3.cloud_storage.CloudStorage` takes beside a URL, for clouds that are in no
        file: they go with PFNs. ``rse`` is the RSE that PFNs belong to. No secret is an option: dask and others write
        them into what they send to their workers.
    :raises ConfigurationError: for a secret, or an option that nobody knows.
    """

    # -- looks ---------------------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """
        :raises FileNotFoundError: when nothing is there.
        """
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        return _told(path, self._look(self._place(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a folder, or a file itself. Of the root: the sections of the clouds file."""
        path = self._strip_protocol(path)
        if not path:
            found = [{"name": name, "size": 0, "type": "directory"} for name in sorted(clouds.configured())]
        else:
            place = self._place(path)
            info = self._look(place)
            with as_os_errors():
                if info.is_directory:
                    listed = place.storage.list(place.reference, is_folder=True)
                    found = [_told(f"{path}/{one.reference.name}", one) for one in listed]
                else:
                    found = [_told(path, info)]
        return found if detail else [one["name"] for one in found]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], Any] = "omit",
        **kwargs: Any,
    ) -> Iterator[Any]:
        """As fsspec's own, but ``omit`` omits only what is not there: a listing that fails in the middle is no shorter
        listing.
        """
        if on_error == "omit":
            on_error = _raise_unless_gone
        yield from super().walk(path, maxdepth=maxdepth, topdown=topdown, on_error=on_error, **kwargs)

    def exists(self, path: str, **_: Any) -> bool:
        """
        :raises OSError: when it cannot be found out.
        """
        return self._seen(path) is not None

    def isdir(self, path: str) -> bool:
        """
        :raises OSError: when it cannot be found out.
        """
        return self._seen(path) == "directory"

    def isfile(self, path: str) -> bool:
        """
        :raises OSError: when it cannot be found out.
        """
        return self._seen(path) == "file"

    def modified(self, path: str) -> Any:
        """Time of the last change, in UTC."""
        from rucio_cs3.notebook.entries import Entry

        return Entry.of(path, self._look(self._place(path))).modified

    def created(self, path: str) -> NoReturn:
        """
        :raises NotImplementedError: always: no CS3 server tells it.
        """
        raise NotImplementedError("CS3 servers do not tell when a file was created; modified() they do")

    def checksum(self, path: str) -> int:
        """A number that changes with the content."""
        return int(self.ukey(path), 16)

    def ukey(self, path: str) -> str:
        """A text that changes with the content: of etag, size and time of the last change."""
        place = self._place(path)
        return hashlib.sha256(repr((place.url, self._look(place).content)).encode()).hexdigest()

    def _seen(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _look(self, place: Place) -> FileInfo:
        with as_os_errors():
            return files.there(place)

    # -- content -------------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> IO[Any]:
        """See :meth:`rucio_cs3.cloud_storage.CloudStorage.open`; ``block_size`` and ``cache_options`` mean nothing."""
        text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
        file: IO[bytes] = super().open(path, mode if "b" in mode else f"{mode.replace('t', '')}b", **kwargs)
        if compression is not None:
            file = compressed(file, path, compression)
        return file if "b" in mode else files.CloudText(file, **{"encoding": "utf-8", **text})

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **_: Any) -> IO[Any]:
        file = files.open_file(self._place(path), mode)
        if isinstance(file, files.CloudWriter):
            file.autocommit = autocommit
        return file

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file's bytes from ``start`` up to, not including, ``end``; of what is there now. Where the server has no
        ranges, a temporary copy serves further calls for a while.
        """
        place = self._place(path)
        with as_os_errors():
            info = files.there(place)
            if info.is_directory:
                raise is_a_folder(place.shown)
            if info.processing:
                info = place.storage.settled(place.reference)
            first, behind, _step = slice(start, end).indices(info.size)
            return SHARED.read(place, info, first, behind)

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any
    ) -> list[Any]:
        """Ranges of files, as fsspec's own; ``max_gap`` means nothing, for gaps are read over anyway."""
        return super().cat_ranges(paths, starts, ends, on_error=on_error)  # type: ignore[no-any-return]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Store bytes; in mode ``create`` only where nothing is."""
        with self.open(path, "xb" if mode == "create" else "wb", **kwargs) as file:
            file.write(value)

    def put_file(
        self, lpath: str, rpath: str, callback: Callback = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        """Upload a local file; in mode ``create`` only where nothing is. Of a folder only the folder is made."""
        source = Path(lpath)
        if source.is_dir():
            self.makedirs(rpath, exist_ok=True)
            return
        place = self._place(rpath)
        callback.set_size(source.stat().st_size)
        with as_os_errors():
            there = files.look(place)
            if there is not None and there.is_directory:
                raise is_a_folder(place.shown)
            if there is not None and mode == "create":
                raise is_there(place.shown)
            place.storage.upload(source, place.reference, overwrite=mode != "create", progress=_progress_of(callback))

    def get_file(
        self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Download a file, compared with the server's checksum. Of a folder only the folder is made."""
        place = self._place(rpath)
        info = self._look(place)
        if outfile is not None or isfilelike(lpath):
            super().get_file(rpath, lpath, callback=callback, outfile=outfile, **kwargs)
            return
        target = Path(lpath)
        if info.is_directory:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        callback.set_size(info.size)
        with as_os_errors():
            place.storage.download(place.reference, target, progress=_progress_of(callback))

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file through this machine, for CS3 has no copy; compared on the way. Of a folder only the folder is
        made.
        """
        source, target = self._place(path1), self._place(path2)
        info = self._look(source)
        if info.is_directory:
            self.makedirs(path2, exist_ok=True)
            return
        with as_os_errors():
            if (source.cloud.endpoint, source.reference) == (target.cloud.endpoint, target.reference):
                raise errors.InvalidRequest("is copied onto itself", target=source.shown)
            copying.copy(source, info, target, overwrite=True)

    # -- changes -------------------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """
        :raises FileExistsError: when something is there.
        :raises FileNotFoundError: when the folder above is missing, and is not to be made.
        """
        place = self._place(path)
        with as_os_errors():
            if files.look(place) is not None:
                raise is_there(place.shown)
        if not create_parents:
            self._look(Place(place.cloud, place.reference.parent))
        with as_os_errors():
            place.storage.make_directories(place.reference)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """
        :raises FileExistsError: when a file is there; or a folder, without ``exist_ok``.
        """
        place = self._place(path)
        with as_os_errors():
            if not place.storage.make_directories(place.reference) and not exist_ok:
                raise is_there(place.shown)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, also by patterns; most clouds keep them in a recycle bin for a while.

        :param recursive: or folders, each with all that is in it by one call.
        :raises IsADirectoryError: for a folder otherwise.
        :raises OSError: for the folder of a cloud, and those above it (EINVAL).
        :raises NotImplementedError: for ``maxdepth``: CS3 deletes a folder as a whole.
        """
        if maxdepth is not None:
            raise NotImplementedError("CS3 deletes a folder as a whole; there is no maxdepth")
        for one in self.expand_path(path):
            if not recursive:
                self.rm_file(one)
                continue
            place = self._place(one)
            with as_os_errors():
                place.refuse_whole("deleted")
                place.storage.delete(place.reference)

    def rm_file(self, path: str) -> None:
        """
        :raises IsADirectoryError: for a folder.
        """
        files.delete_file(self._place(path))

    _rm = rm_file

    def rmdir(self, path: str) -> None:
        """Delete an empty folder. CS3 knows no such condition: what somebody stores in it between the look and the
        deletion goes into the recycle bin with it.

        :raises OSError: when it is not empty (ENOTEMPTY), or a file.
        """
        place = self._place(path)
        if not self._look(place).is_directory:
            raise is_a_file(place.shown)
        with as_os_errors():
            place.refuse_whole("deleted")
            listed = place.storage.list(place.reference, is_folder=True)
            if listed or listed.left_out:
                raise OSError(errno.ENOTEMPTY, f"{place.shown} is not empty")
            place.storage.delete(place.reference)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Give a file or folder another name; between clouds a file is copied, and then deleted. No folder is moved
        between clouds: what somebody stores in it meanwhile would be deleted with it.

        :raises FileExistsError: when the new name is taken; nothing is replaced.
        :raises OSError: for the folder of a cloud, and those above it (EINVAL); for a folder and another cloud
            (ENOTSUP); for a file that is replaced while it is copied (ESTALE), and both stay then.
        """
        source, target = self._place(path1), self._place(path2)
        with as_os_errors():
            source.refuse_whole("moved")
            if source.storage is target.storage:
                source.storage.move(source.reference, target.reference)
            else:
                copying.move(source, target)


class CS3SecureFileSystem(CS3FileSystem):
    """PFNs over TLS, by ``cs3s://``; otherwise as :class:`CS3FileSystem`."""

    protocol = "cs3s"

    @classmethod
    def _is_url(cls, path: str) -> bool:
        return True


def _told(path: str, info: FileInfo) -> dict[str, Any]:
    """A file as fsspec wants it."""
    return {
        "name": path,
        "size": info.size,
        "type": "directory" if info.is_directory else "file",
        "mtime": info.mtime_s,
        "etag": info.etag,
        "checksums": dict(info.checksums),
    }


def _progress_of(callback: Callback) -> Progress | None:
    return None if callback is DEFAULT_CALLBACK else callback.relative_update


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
