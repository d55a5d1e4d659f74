"""A secret, given as a value or as a file: read when it is needed, so that a rotated one is found; in no ``repr``."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.confidential import Confidential

#: A token or password file larger than this is no such file.
_SECRET_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Secret(Confidential):
    """A secret given as a value, or as a file that is read at each use.

    :raises ConfigurationError: unless exactly one of both is given; for a value that is no text.
    """

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.file is None):
            raise errors.ConfigurationError("a secret needs either a value or a file, and not both")
        # The environment may hold bytes that are no text, and whoever came upon them first would show them.
        if self.value is not None and self.value.encode("utf-8", "ignore").decode() != self.value:
            raise errors.ConfigurationError("a secret is not UTF-8 text")

    def get(self) -> str:
        """The secret without surrounding white space.

        :raises ConfigurationError: when the file is missing, empty, too large, or open to other users.
        """
        if self.file is None:
            return (self.value or "").strip()
        return read_secret_file(self.file)


def expanded(text: str) -> Path:
    """The path that a setting means; ``~`` stays where nobody's home is meant."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def refuse_open_file(path: Path, status: os.stat_result) -> None:
    """
    :param status: of the file; what was read belongs to it.
    :raises ConfigurationError: when others than the file's owner can read it.
    """
    # Root's files may be readable by a group, as PostgreSQL allows it, too: so Kubernetes mounts secrets.
    if status.st_mode & (0o037 if status.st_uid == 0 else 0o077):
        raise errors.ConfigurationError(f"secret file {path} can be read by other users; run: chmod 600 {path}")


def read_secret_file(path: Path, *, own: bool = False) -> str:
    """The content of a file that only its owner may read, without surrounding white space.

    :param own: whether it must belong to us, and be no link; for places where anybody may put a file.
    :raises ConfigurationError: when it is missing, empty, larger than 64 KiB, open to others, or not ours where asked.
    """
    # The open of a pipe that somebody else has put there would wait for its writer, and a link of his could lead to
    # another secret of ours.
    wary = os.O_NONBLOCK | os.O_NOFOLLOW if own else 0
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | wary), "rb") as file:
            status = os.fstat(file.fileno())
            if own and not stat.S_ISREG(status.st_mode):
                raise errors.ConfigurationError(f"secret file {path} is no file")
            content = file.read(_SECRET_MAX_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a path with NUL in it
        words = exc.strerror if isinstance(exc, OSError) else exc
        if own and getattr(exc, "errno", None) == errno.ELOOP:
            words = "it is a link, which anybody could have laid there"
        raise errors.ConfigurationError(f"secret file {path} cannot be read: {words}") from exc
    if own and status.st_uid != os.geteuid():
        # Otherwise anybody could tell us who we are.
        raise errors.ConfigurationError(f"secret file {path} belongs to another user")
    refuse_open_file(path, status)
    if len(content) > _SECRET_MAX_BYTES:
        raise errors.ConfigurationError(f"secret file {path} is larger than {_SECRET_MAX_BYTES} bytes")
    text = None
    with contextlib.suppress(UnicodeDecodeError):
        text = content.decode().strip()
    if text is None:
        # Outside of the block: the other error has all of the content.
        raise errors.ConfigurationError(f"secret file {path} is not UTF-8 text")
    if not text:
        raise errors.ConfigurationError(f"secret file {path} is empty")
    return text
