"""A CS3 cloud for people who write Python, such as in a notebook::

    from rucio_cs3 import CloudStorage

    cloud = CloudStorage("CERNBOX")
    with cloud.open("results/fit.csv") as file: ...
    cloud.put("plot.png", "results/plot.png")

Paths are below the folder that the name stands for; one that begins with a slash is a path of CS3. All errors are
those of Python's own file functions (:mod:`rucio_cs3.notebook.os_errors`), except a
:class:`~rucio_cs3.cs3.errors.ConfigurationError` for a cloud that is described wrongly. docs/notebook.md is the page
for people; pandas and its like read by :mod:`rucio_cs3.filesystem`.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.cs3.resources import FileInfo, Quota
from rucio_cs3.cs3.streams import Progress
from rucio_cs3.notebook import files
from rucio_cs3.notebook.bars import bar
from rucio_cs3.notebook.connecting import connect
from rucio_cs3.notebook.entries import Entries, Entry
from rucio_cs3.notebook.os_errors import as_os_errors, is_a_file, is_a_folder, is_there


class CloudStorage:
    """A folder of a CS3 cloud, and all below it. Threads may share it; nothing has to be closed.

    :param where: the name of an RSE or of a section of the clouds file (``"CERNBOX"``, ``"CERNBOX:project/x"``), or a
        URL at one of them. With ``options`` it is the WebDAV URL of a folder.
    :param progress: whether uploads and downloads show a bar; None shows one of large files in a terminal or notebook.
    :param options: of a cloud that is in no file: ``gateway="host:port"``, ``username=``, ``password_file=`` or
        ``token_file=``, and so on; settings are those of docs/rse-setup.md, without ``cs3_``.
    :raises ConfigurationError: when there is no such cloud, or something about it is missing or wrong.
    """

    def __init__(self, where: str, *, progress: bool | None = None, **options: Any) -> None:
        self._cloud = connect(where, options)
        self._progress = progress

    @property
    def name(self) -> str:
        """By which the cloud is known."""
        return self._cloud.name

    @property
    def url(self) -> str:
        """The PFN of the folder."""
        return self._cloud.url(self._cloud.folder)

    def __repr__(self) -> str:
        return f"CloudStorage({self.name}: {self.url})"

    def _repr_html_(self) -> str:
        rows = {"name": self.name, "folder": self.url, "gateway": self._cloud.endpoint.gateway}
        cells = "".join(f"<tr><td>{key}</td><td>{html.escape(value)}</td></tr>" for key, value in rows.items())
        return f"<table><caption>CloudStorage</caption>{cells}</table>"

    # -- looks ---------------------------------------------------------------------------------------------

    def stat(self, path: str = "") -> Entry:
        """What is there.

        :raises FileNotFoundError: when nothing is.
        """
        place = self._place(path)
        return Entry.of(path, _look(place))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there; what keeps us from finding out is raised.

        :raises OSError: when it cannot be found out.
        """
        place = self._place(path)
        with as_os_errors():
            return files.look(place) is not None

    def list(self, path: str = "") -> Entries:
        """The entries of a folder, by name.

        :raises NotADirectoryError: when it is a file.
        """
        place = self._place(path)
        with as_os_errors():
            try:
                listed = place.storage.list(place.reference)
            except cs3_errors.InvalidRequest:
                if not _look(place).is_directory:
                    raise is_a_file(place.shown) from None
                raise
        return Entries(Entry.of(self._path(Place(self._cloud, info.reference)), info) for info in listed)

    def walk(self, path: str = "") -> Iterator[tuple[str, Entries, Entries]]:
        """A folder and all below it, from the top: the path, folders and files of each. Folders that are taken out of
        the second are not gone into. What cannot be listed is raised.
        """
        entries = self.list(path)
        folders = Entries(entry for entry in entries if entry.is_folder)
        yield path, folders, Entries(entry for entry in entries if not entry.is_folder)
        for folder in folders:
            yield from self.walk(folder.path)

    def usage(self, path: str = "") -> Quota:
        """Space of the quota or disk that holds a folder, in bytes."""
        place = self._place(path)
        with as_os_errors():
            return place.storage.quota(place.reference)

    # -- content -------------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a file as Python does, in a ``with`` block; text is UTF-8 where no ``encoding`` is given.

        What is read can be read at any position, and is all of the version that was there when it was opened: when the
        file is replaced meanwhile, reading raises. What is written appears as a whole when the file is closed, and not
        at all when the block raises.

        :param mode: ``r``, ``w`` (replaces) or ``x`` (new only), with ``b`` for bytes.
        :raises FileNotFoundError: when there is nothing to read.
        :raises FileExistsError: in mode ``x``, when something is there.
        :raises IsADirectoryError: when it is a folder.
        """
        place = self._place(path)
        return files.open_file(
            place, mode, encoding=encoding, errors=errors, newline=newline, progress=self._bars(place)
        )

    def read_bytes(self, path: str) -> bytes:
        """All bytes of a file."""
        with self.open(path) as file:
            return bytes(file.read())

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """All text of a file."""
        return self.read_bytes(path).decode(encoding)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Store bytes; replaces what is there, and makes missing folders."""
        with self.open(path, "wb") as file:
            file.write(data)

    def write_text(self, path: str, text: str, encoding: str = "utf-8") -> None:
        """Store text; replaces what is there, and makes missing folders."""
        self.write_bytes(path, text.encode(encoding))

    def put(self, local_path: str | os.PathLike[str], path: str | None = None, *, overwrite: bool = False) -> Entry:
        """Upload a local file; large ones go on where they were interrupted. Missing folders are made.

        :param path: where to; its own name by default.
        :param overwrite: replace what is there; otherwise that is an error.
        :raises FileExistsError: when something is there.
        :raises IsADirectoryError: when either is a folder.
        """
        source = Path(local_path).expanduser()
        place = self._place(source.name if path is None else path)
        if source.is_dir():
            raise is_a_folder(str(source))
        size = source.stat().st_size
        with as_os_errors(), bar(place.shown, size, wanted=self._progress) as moved:
            there = files.look(place)
            if there is not None and there.is_directory:
                raise is_a_folder(place.shown)
            if there is not None and not overwrite:
                raise is_there(place.shown)
            place.storage.upload(source, place.reference, overwrite=overwrite, progress=moved)
        return self.stat(self._path(place))

    def get(self, path: str, local_path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> Path:
        """Download a file, in several streams where that helps; it is compared with the server's checksum.

        :param local_path: where to; a folder, or the file's new name. The current folder by default.
        :param overwrite: replace what is there; otherwise that is an error.
        :returns: where it is now.
        :raises FileExistsError: when a local file is there.
        """
        place = self._place(path)
        target = Path("." if local_path is None else local_path).expanduser()
        if target.is_dir():
            target /= place.reference.name
        info = _look(place)
        if info.is_directory:
            raise is_a_folder(place.shown)
        if target.exists() and not overwrite:
            raise is_there(str(target))
        with as_os_errors(), bar(place.shown, info.size, wanted=self._progress) as moved:
            place.storage.download(place.reference, target, progress=moved)
        return target

    # -- changes -------------------------------------------------------------------------------------------

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it; what is there stays.

        :raises FileExistsError: when a file stands where a folder is needed.
        """
        place = self._place(path)
        with as_os_errors():
            place.storage.make_directories(place.reference)

    def move(self, source: str, destination: str) -> None:
        """Give a file or folder another name at the same cloud; folders of the new name are made.

        :raises FileExistsError: when the new name is taken; nothing is replaced.
        :raises OSError: for the folder that this object stands for, and those above it (EINVAL).
        """
        old, new = self._place(source), self._place(destination)
        with as_os_errors():
            old.refuse_whole("moved")
            old.storage.move(old.reference, new.reference)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file; most clouds keep it in a recycle bin for a while.

        :param recursive: or a folder, with all that is in it.
        :raises IsADirectoryError: for a folder otherwise.
        :raises OSError: for the folder that this object stands for, and those above it (EINVAL).
        """
        place = self._place(path)
        if not recursive:
            files.delete_file(place)
            return
        with as_os_errors():
            place.refuse_whole("deleted")
            place.storage.delete(place.reference)

    # -- Rucio ---------------------------------------------------------------------------------------------

    @staticmethod
    def open_replica(did: str, mode: str = "rb", *, rse: str | None = None, **text: Any) -> IO[Any]:
        """Open a file of Rucio's catalogue to read it from one of the CS3 clouds that have it. Its size, and its
        checksum where the cloud knows it, are compared with the catalogue's.

        :param did: ``scope:name``.
        :param mode: ``rb``, or ``r`` for text; then ``encoding``, ``errors`` and ``newline`` may be given.
        :param rse: read the replica there.
        :raises FileNotFoundError: when there is no such file, or no replica of it at a CS3 cloud.
        """
        from rucio_cs3.notebook.replicas import find_replica

        if "r" not in mode:
            raise ValueError("a replica is never changed; open it with mode rb or r")
        with as_os_errors():
            place, _ = find_replica(did, rse=rse)
        return files.open_file(place, mode, **text)

    def _place(self, path: str) -> Place:
        with as_os_errors():
            return self._cloud.place(str(path))

    def _path(self, place: Place) -> str:
        return place.shown.removeprefix(f"{self._cloud.name}:")

    def _bars(self, place: Place) -> Callable[[int], AbstractContextManager[Progress | None]]:
        return lambda total: bar(place.shown, total, wanted=self._progress)


def _look(place: Place) -> FileInfo:
    """
    :raises FileNotFoundError: when nothing is there.
    """
    with as_os_errors():
        return files.there(place)
