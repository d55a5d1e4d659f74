"""One file up or down, unless it is there: the step that copies of many files and of trees are made of.

The promises of the copy itself are those of :class:`rucio_cs3.cs3.storage.CS3Storage`: whole and compared, or nothing.
What is there is replaced only where that is wished, and only where it was seen.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.files import looks
from rucio_cs3.files.local_tree import kind, present
from rucio_cs3.files.outcomes import Deed, Outcome, failed
from rucio_cs3.files.sameness import KEPT, Rule, difference, same
from rucio_cs3.files.workers import Watch

if TYPE_CHECKING:
    from rucio_cs3.cs3.storage import CS3Storage

#: A look at the cloud that is older, in seconds, does not say that a file there is still the same: it is looked at once
#: more. A listing of a large folder is minutes old when its last file has its turn.
LOOK_S = 5.0

#: Times that every file system takes, in seconds: 1970 to 2106. Reva v3.12.1 states one before 1970 as about 1.8e19.
_TIMES_S = (0, 2**32)


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
class _Copying:
    """What both pieces of work are: one file, and an outcome in any case."""

    storage: CS3Storage
    wishes: Wishes
    name: str
    path: Path
    reference: Reference
    seen_s: float = field(default_factory=time.monotonic)

    def __call__(self, watch: Watch) -> Outcome:
        try:
            return self._done(watch)
        except errors.CS3Error as error:
            return failed(self.name, error)

    def _done(self, watch: Watch) -> Outcome:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Upload(_Copying):
    """A piece of work: a local file to a place in a cloud.

    :param name: for its outcome.
    :param status: a look at the local file.
    :param there: what is known to stand under the name in the cloud; None is nothing.
    :param looked: whether ``there`` is known; it is looked at where not.
    :param seen_s: when ``there`` was looked at, on the monotonic clock.
    """

    status: os.stat_result
    there: FileInfo | None = None
    looked: bool = True

    def _done(self, watch: Watch) -> Outcome:
        wishes = self.wishes
        there, seen_s = (self.there, self.seen_s) if self.looked else self._look()
        while there is not None:
            if there.is_directory:
                raise errors.AlreadyExists("a folder of this name is in the cloud")
            if wishes.skip_same and same(self.storage, self.path, self.status, there, rule=wishes.rule, tick=watch):
                before = there
                if time.monotonic() - seen_s > LOOK_S:
                    there, seen_s = self._look()
                if there is not None and there.content == before.content:
                    return Outcome(deed=Deed.SAME, name=self.name, size=self.status.st_size)
                continue
            if not wishes.overwrite:
                raise _taken(wishes, self.path, self.status, there)
            break
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

    def _look(self) -> tuple[FileInfo | None, float]:
        seen_s = time.monotonic()
        return looks.look(self.storage, self.reference), seen_s


@dataclass(frozen=True, kw_only=True)
class Download(_Copying):
    """A piece of work: a file in a cloud to a local place, whose folder is there. The local file gets its time, too.

    :param info: a look at the file in the cloud; it is looked at where None.
    :param seen_s: when that was, on the monotonic clock.
    """

    info: FileInfo | None = None

    def _done(self, watch: Watch) -> Outcome:
        wishes = self.wishes
        info, seen_s = (self.info, self.seen_s) if self.info is not None else self._look()
        if info.is_directory:
            raise errors.InvalidRequest("is a folder, not a file; rucio-cs3 get-tree fetches it")
        status = present(self.path)
        if status is not None:
            if kind(status) != "a file":
                raise errors.AlreadyExists(f"{kind(status)} of this name is here: {self.path}")
            while wishes.skip_same and same(self.storage, self.path, status, info, rule=wishes.rule, tick=watch):
                before = info
                if time.monotonic() - seen_s > LOOK_S:
                    info, seen_s = self._look()
                if info.content == before.content:
                    return Outcome(deed=Deed.SAME, name=self.name, size=info.size)
            if not wishes.overwrite:
                raise _taken(wishes, self.path, status, info)
        if wishes.dry_run:
            return Outcome(deed=Deed.WOULD_COPY, name=self.name, size=info.size)
        moved = self.storage.download(self.reference, self.path, progress=watch)
        if moved.size == info.size and _TIMES_S[0] <= info.mtime_s < _TIMES_S[1]:
            with local_errors(self.path):
                os.utime(self.path, (info.mtime_s, info.mtime_s))
        return Outcome(deed=Deed.COPIED, name=self.name, size=moved.size)

    def _look(self) -> tuple[FileInfo, float]:
        seen_s = time.monotonic()
        return self.storage.stat(self.reference), seen_s


def _taken(wishes: Wishes, path: Path, status: os.stat_result, info: FileInfo) -> errors.CS3Error:
    if wishes.skip_same:
        return difference(path, status, info)
    return errors.AlreadyExists("a file of this name is there; --overwrite replaces it")
