"""Upload sessions: what InitiateFileUpload opens and a PUT on the data gateway (or WebDAV) fills.

Bytes are appended to a file beside the tree and become visible at once when the session is finished. When that
is, differs between the two servers: ``data_gateway.py`` decides. Read next: ``tree.py``.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.sandbox.cloud.tree import Digests, Tree


class SessionOver(Exception):
    """The session does not exist, or no longer."""


@dataclass(kw_only=True)
class UploadSession:
    """One upload.

    :param declared_size: ``Upload-Length`` in bytes; None where none was declared.
    :param checksum: algorithm and digits that the client declared.
    :param mtime_s: modification time to set, in seconds.
    :param made_empty_file: the target was made an empty file at once, and no PUT is expected.
    """

    tree: Tree
    relative: str
    file: Path
    declared_size: int | None = None
    checksum: tuple[str, str] | None = None
    mtime_s: float | None = None
    made_empty_file: bool = False
    # What a TUS client has to send before the upload is finished; PUT does not look at it.
    tus_length: int = 0
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def offset(self) -> int:
        return self.file.stat().st_size

    def append(self, blocks: Iterable[bytes | memoryview], *, flip_byte: bool = False) -> None:
        """Append bytes as they come.

        :param flip_byte: store the first of them with one bit changed.
        """
        with self.file.open("ab", buffering=0) as file:
            for block in blocks:
                if flip_byte and len(block):
                    # A copy: the block belongs to whoever reads the stream.
                    block = bytes((block[0] ^ 1,)) + bytes(block[1:])
                    flip_byte = False
                file.write(block)

    def grow(self, count: int) -> None:
        """Append ``count`` zeros that take no room on the disk."""
        os.truncate(self.file, self.offset + count)

    def checksum_matches(self) -> bool:
        if self.checksum is None:
            return True
        algorithm, expected = self.checksum
        return Digests.of_file(self.file)[algorithm] == expected


class UploadSessions:
    """All sessions of a cloud; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._sessions: dict[str, UploadSession] = {}
        # Finished ones that can still be asked about: until when, and how long they are in bytes.
        self._lingering: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def open(
        self,
        tree: Tree,
        relative: str,
        *,
        declared_size: int | None = None,
        checksum: tuple[str, str] | None = None,
        mtime_s: float | None = None,
        made_empty_file: bool = False,
    ) -> UploadSession:
        session_id = str(uuid.uuid4())
        session = UploadSession(
            tree=tree,
            relative=relative,
            file=self._directory / session_id,
            declared_size=declared_size,
            checksum=checksum,
            mtime_s=mtime_s,
            made_empty_file=made_empty_file,
            tus_length=declared_size or 0,
            session_id=session_id,
        )
        session.file.touch()
        with self._lock:
            self._sessions[session_id] = session
        return session

    def get(self, session_id: str) -> UploadSession:
        """:raises SessionOver: it is finished, dropped, or never was."""
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None:
            raise SessionOver(session_id)
        return session

    def finish(self, session: UploadSession) -> None:
        """Make the bytes the content of the target; the session is over then.

        :raises OSError: the target cannot be written, see :meth:`Tree.commit`; the session stays.
        """
        session.tree.commit(
            session.file, session.relative, mtime_s=session.mtime_s, declared_size=session.declared_size
        )
        with self._lock:
            self._sessions.pop(session.session_id, None)

    def linger(self, session: UploadSession, seconds: float) -> None:
        """Have a finished session be asked about for a while."""
        with self._lock:
            self._lingering[session.session_id] = (time.monotonic() + seconds, session.tus_length)

    def lingering(self, session_id: str) -> int | None:
        """Length in bytes of a finished session that can be asked about; None for any other."""
        with self._lock:
            until, length = self._lingering.get(session_id, (0.0, 0))
            return length if time.monotonic() < until else None

    def drop(self, session: UploadSession) -> None:
        """Give a session up, with its bytes."""
        with self._lock:
            self._sessions.pop(session.session_id, None)
        session.file.unlink(missing_ok=True)
