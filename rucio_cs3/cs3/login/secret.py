"""A secret, given as a value or as a file: read when it is needed, so that a rotated one is found; in no ``repr``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from rucio_cs3.cs3 import errors

#: A token or password file larger than this is no such file.
_SECRET_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Secret:
    """A secret given as a value, or as a file that is read at each use.

    :raises ConfigurationError: unless exactly one of both is given.
    """

    value: str | None = field(default=None, repr=False)
    file: Path | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.file is None):
            raise errors.ConfigurationError("a secret needs either a value or a file, and not both")

    def get(self) -> str:
        """The secret without surrounding white space.

        :raises ConfigurationError: when the file is missing, empty, too large, or open to other users.
        """
        if self.file is None:
            return self.value or ""
        return read_secret_file(self.file)


def read_secret_file(path: Path, *, own: bool = False) -> str:
    """The content of a file that only its owner may read, without surrounding white space.

    :param own: whether it must belong to us; for places where anybody may put a file.
    :raises ConfigurationError: when it is missing, empty, larger than 64 KiB, open to others, or not ours where asked.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_SECRET_MAX_BYTES + 1)
    except OSError as exc:
        raise errors.ConfigurationError(f"secret file {path} cannot be read: {exc.strerror}") from exc
    if own and status.st_uid != os.geteuid():
        # Otherwise anybody could tell us who we are.
        raise errors.ConfigurationError(f"secret file {path} belongs to another user")
    mode = status.st_mode
    # Root's files may be readable by a group, as PostgreSQL allows it, too: so Kubernetes mounts secrets.
    if mode & (0o037 if status.st_uid == 0 else 0o077):
        raise errors.ConfigurationError(f"secret file {path} can be read by other users; run: chmod 600 {path}")
    if len(content) > _SECRET_MAX_BYTES:
        raise errors.ConfigurationError(f"secret file {path} is larger than {_SECRET_MAX_BYTES} bytes")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as exc:
        raise errors.ConfigurationError(f"secret file {path} is not UTF-8 text") from exc
    if not text:
        raise errors.ConfigurationError(f"secret file {path} is empty")
    return text
