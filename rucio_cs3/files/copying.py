"""One file up or down, unless it is there: the step that copies of many files and of trees are made of.

The promises of the copy itself are those of :class:`rucio_cs3.cs3.storage.CS3Storage`: whole and compared, or nothing.
What is there is replaced only where that is wished, and only where it was seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.files.local_tree import kind, present
from rucio_cs3.files.outcomes import Deed, Outcome, failed
from rucio_cs3.files.sameness import KEPT, Rule, difference, same
from rucio_cs3.files.workers import Watch

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How files are copied.

    :param overwrite: replace files of another content.
    :param skip_same: leave a file where the other side has the same content; otherwise what is there is an error
        whatever it contains.
    :param rule: what the same content is.
    :param dry_run: look and compare, and change nothing on either side.
    :param read_back: where the server keeps no checksum, fetch what was sent again and compare.
    :param threads: files at a time.
    """

    overwrite: bool = False
    skip_same: bool = False
    rule: Rule = Rule.CONTENT
    dry_run: bool = False
    read_back: bool = False
    threads: int = 4


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A piece of work: a local file to a place in a cloud.

    :param name: for its outcome.
    :param status: a look at the local file.
    :param there: what is known to stand under the name in the cloud; None is nothing.
    :param looked: whether ``there`` is known; it is looked at where not.
    """

    storage: CS3Storage
    wishes: Wishes
    name: str
    path: Path
    status: os.stat_result
    reference: Reference
    there: FileInfo | None = None
    looked: bool = True

    def __call__(self, watch: Watch) -> Outcome:
        try:
            return self._done(watch)
        except errors.CS3Error as error:
            return failed(self.name, error)

    def _done(self, watch: Watch) -> Outcome:
        wishes, there = self.wishes, self.there if self.looked else self._look()
        if there is not None:
            if there.is_directory:
                raise errors.AlreadyExists("a folder of this name is in the cloud")
            if wishes.skip_same and same(self.storage, self.path, self.status, there, rule=wishes.rule, tick=watch):
                return Outcome(deed=Deed.SAME, name=self.name, size=self.status.st_size)
            if not wishes.overwrite:
                raise _there(wishes, self.path, self.status, there)
        if wishes.dry_run:
            return Outcome(deed=Deed.WOULD_COPY, name=self.name, size=self.status.st_size)
        moved = self.storage.upload(
            self.path,
            self.reference,
            # What comes into being from now on is somebody else's.
            overwrite=there is not None,
            read_back=wishes.read_back,
            # What is read back is kept with the file, and md5 alone tells a later run that it is the same.
            algorithms=KEPT if wishes.read_back else ("adler32",),
            progress=watch,
        )
        return Outcome(deed=Deed.COPIED, name=self.name, size=moved.size)

    def _look(self) -> FileInfo | None:
        try:
            return self.storage.stat(self.reference)
        except errors.NotFound:
            return None


@dataclass(frozen=True, kw_only=True)
class Download:
    """A piece of work: a file in a cloud to a local place, whose folder is there. The local file gets its time, too.

    :param info: a look at the file in the cloud; it is looked at where None.
    """

    storage: CS3Storage
    wishes: Wishes
    name: str
    reference: Reference
    path: Path
    info: FileInfo | None = None

    def __call__(self, watch: Watch) -> Outcome:
        try:
            return self._done(watch)
        except errors.CS3Error as error:
            return failed(self.name, error)

    def _done(self, watch: Watch) -> Outcome:
        wishes = self.wishes
        info = self.info or self.storage.stat(self.reference)
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file; rucio-cs3 get-tree fetches it")
        status = present(self.path)
        if status is not None:
            if kind(status) != "a file":
                raise errors.AlreadyExists(f"{kind(status)} of this name is here: {self.path}")
            if wishes.skip_same and same(self.storage, self.path, status, info, rule=wishes.rule, tick=watch):
                return Outcome(deed=Deed.SAME, name=self.name, size=info.size)
            if not wishes.overwrite:
                raise _there(wishes, self.path, status, info)
        if wishes.dry_run:
            return Outcome(deed=Deed.WOULD_COPY, name=self.name, size=info.size)
        moved = self.storage.download(self.reference, self.path, progress=watch)
        if moved.size == info.size:
            with local_errors(self.path):
                os.utime(self.path, (info.mtime_s, info.mtime_s))
        return Outcome(deed=Deed.COPIED, name=self.name, size=moved.size)


def _there(wishes: Wishes, path: Path, status: os.stat_result, info: FileInfo) -> errors.CS3Error:
    if wishes.skip_same:
        return difference(path, status, info)
    return errors.AlreadyExists("a file of this name is there; --overwrite replaces it")
