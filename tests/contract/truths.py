"""What must be so whatever befalls a transfer, in one place: :class:`Truths` runs an upload or a download, looks all
the time, and compares.

- No instant shows anything else under the final name than all of the old content or all of the new.
- What failed has changed nothing; what was said to be done is there, byte for byte.
- Nothing else is left: no hidden sibling in the cloud, listed or on its disk, and none in the local folder.
- The source is untouched.
- The error is of the class that is named, and its text names the place.
- No secret is in any text that was made: messages, their chain, logs at DEBUG.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rucio_cs3.cs3 import Reference, errors
from tests.contract.faces import Face
from tests.contract.place import SETTLE_S, Place, content

OLD = b"what stood there"
NEIGHBOUR = b"neighbour"

#: Between two looks at a disk, in seconds.
_LOOK_S = 0.0005

#: How every access and transfer token of these clouds begins: a JWT's header, {"alg": or {"typ":.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}")

Progress = Callable[[int], None]


class Watch:
    """Looks at a file all the time, from a thread of its own.

    :param path: the final name, on the disk of the server or on the local one.
    :param allowed: whole contents that may be seen there; None is for no file.
    """

    def __init__(self, path: Path, *allowed: bytes | None) -> None:
        self.path = path
        self.wrong: list[str] = []
        self.looks = 0
        self._allowed = allowed
        self._known: tuple[int, int, int] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        self.looks += 1
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_ino, status.st_size, status.st_mtime_ns)
                if seen == self._known:
                    return
                data: bytes | None = file.read()
        except FileNotFoundError:
            seen, data = None, None
        self._known = seen
        if data not in self._allowed and len(self.wrong) < 10:
            self.wrong.append(f"{self.path}: {'nothing' if data is None else f'{len(data)} bytes'}")


class Truths:
    """One case: a fresh folder, a face, and what is known about both ends.

    :param size: bytes of the file that is moved.
    """

    def __init__(self, place: Place, face: Face, caplog: pytest.LogCaptureFixture, *, size: int) -> None:
        caplog.set_level("DEBUG")
        self.place = place
        self.face = face
        self.new = content(size)
        self.target = face.target
        self._caplog = caplog
        place.put("neighbour", NEIGHBOUR)
        self.local = place.local / "moved"

    # -- uploads -----------------------------------------------------------------------------------------------

    def prepare_upload(self, old: bytes = OLD) -> Truths:
        """Write the local file, and where the face replaces one the old one in the cloud."""
        self._old: bytes | None = None
        if self.face.overwrite:
            self._old = old
            self.place.put(self.target.name, old)
            (self.place.local / "put.bin").unlink()
        self.local.write_bytes(self.new)
        return self

    def upload(self, *, progress: Progress | None = None) -> BaseException | None:
        """Run it under a watch.

        :param progress: may change the local file.
        :returns: the error, None where it is said to be done.
        """
        before = self._state_of(self.local)
        with Watch(self.place.on_disk(self.target), self._old, self.new) as watch:
            error = self._run(lambda: self.face.upload(self.local, progress=progress))
        self._assert_common(watch, error)
        if progress is None:
            assert self._state_of(self.local) == before, "the source is never touched"
        expected = self._old if error is not None else self.new
        names = {"neighbour": NEIGHBOUR} | ({} if expected is None else {self.target.name: expected})
        assert self.place.names() == sorted(names)
        for name, data in names.items():
            assert self.place.stored(self.place.file(name)) == data, name
        return error

    # -- downloads ---------------------------------------------------------------------------------------------

    def prepare_download(self) -> Truths:
        """Put the file into the cloud, and an old one under the local name."""
        self.file: Reference = self.place.put("file", self.new)
        for path in self.place.local.iterdir():
            path.unlink()
        self.local.write_bytes(OLD)
        return self

    def download(self, *, progress: Progress | None = None, also: tuple[bytes, ...] = ()) -> BaseException | None:
        """Run it under a watch.

        :param also: other contents that may arrive, where the file is replaced meanwhile.
        :returns: the error, None where it is said to be done.
        """
        server = self.place.on_disk(self.file)
        before = self._state_of(server)
        with Watch(self.local, OLD, self.new, *also) as watch:
            error = self._run(lambda: self.face.download(self.file, self.local, progress=progress))
        self._assert_common(watch, error)
        assert self.place.local_names() == [self.local.name]
        if error is not None:
            assert self.local.read_bytes() == OLD
        else:
            assert self.local.read_bytes() in (self.new, *also)
        if not also:
            assert self._state_of(server) == before, "the source is never touched"
            assert self.place.names() == ["file", "neighbour"]
        return error

    # -- outcomes ----------------------------------------------------------------------------------------------

    def fails(self, error: BaseException | None, *kinds: type[errors.CS3Error], words: tuple[str, ...] = ()) -> None:
        """The transfer has failed, in one of these ways, and says where."""
        assert error is not None, "said to be done"
        reason = self.face.reason(error)
        assert isinstance(reason, kinds), repr(reason)
        assert not isinstance(reason, errors.NotFound)
        text = str(error)
        for word in words:
            assert word in text
        if not isinstance(reason, errors.LocalError):
            assert str(self.place.folder) in text

    def is_refused(self, error: BaseException | None, kind: type[errors.CS3Error], script: str, *, method: str) -> None:
        """The transfer has failed by what an HTTP server said, and keeps it: status, and seconds until it may be asked.

        :param script: ``return-<status>``, maybe with ``retry-after:3000``.
        """
        self.fails(error, kind, words=(f"HTTP {script[7:10]}", method))
        assert error is not None
        assert self.face.reason(error).retry_after_s == (3000 if "retry-after" in script else None)

    def _run(self, transfer: Callable[[], None]) -> BaseException | None:
        try:
            transfer()
        except Exception as error:
            return error
        return None

    def _assert_common(self, watch: Watch, error: BaseException | None) -> None:
        assert watch.wrong == []
        assert watch.looks > 1
        assert self.place.pending() == []
        told = [self._caplog.text]
        if error is not None:
            told += traceback.format_exception(error)
            while error is not None:
                told += [repr(error), repr(vars(error)), str(error)]
                error = error.__cause__ or error.__context__
        secrets = [user.password for user in self.place.cloud.users.values()]
        for text in told:
            assert not _TOKEN.search(text)
            assert not any(secret in text for secret in secrets)

    @staticmethod
    def _state_of(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns


def until(condition: Callable[[], bool], *, within_s: float = SETTLE_S) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def at_progress(count: int, action: Callable[[], object]) -> Iterator[Progress]:
    """A progress callback that acts once, as soon as ``count`` bytes have moved; it must have."""
    moved = 0
    done: list[bool] = []

    def progress(step: int) -> None:
        nonlocal moved
        moved += step
        if moved >= count and not done:
            done.append(True)
            action()

    yield progress
    assert done, "the transfer never came so far"
