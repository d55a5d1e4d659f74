"""Small files that let another process go on with an unfinished upload: one for each local file and place in a cloud.

What has to be kept is the ticket. Only InitiateFileUpload makes one, signed with a secret of the server's (Reva
``gateway/storageprovider.go:sign``), and each time for a new upload: an old upload is found by its own ticket or not at
all. A ticket is a secret, more than it looks: Reva v3.12.1 takes a PATCH with the transfer token alone. So it is kept
sealed with the account's own secret (:mod:`rucio_cs3.cs3.uploads.sealing`): who reads the file, and cannot log in,
learns where an upload goes and how large it is, and can do nothing. Where the account's secret is a token that changes,
an upload can be gone on with while it lives; where each login makes another one, nothing is kept.

Knows no network. That an upload cannot be kept is never its failure: it is logged, and the upload goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.config import Endpoint
from rucio_cs3.cs3.login.providers import CredentialProvider
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.uploads.sealing import NoSecret, Seal, Unreadable

_log = logging.getLogger(__name__)

#: Names the folder for state files; ``$XDG_STATE_HOME/rucio-cs3/uploads`` without it. Empty: nothing is kept.
FOLDER_VARIABLE = "RUCIO_CS3_STATE_DIR"

#: Older ones are removed, in seconds: a day, after which tickets of both lines have expired (Reva v3.12.1
#: ``transfer_expires`` 86400; OpenCloud the same), and OpenCloud has removed the upload.
STALE_S = 86_400.0

_VERSION = 1
_STATE = ".json"
_LOCK = ".lock"
#: What a name of ours looks like: the folder may be one that holds other people's files, too.
_OURS = re.compile(r"[0-9a-f]{32}(\.json|\.lock|\.[0-9a-f]{8}\.part)")
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """Which local file it is, and that it is still the same: device, inode, size in bytes, mtime in nanoseconds."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> LocalSource:
        return cls(
            path=str(path.absolute()),
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
        )


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """An upload that can be gone on with.

    :param landing: name in the target's folder that it puts the file at; the target's own, or a hidden sibling's.
    """

    landing: str
    ticket: Ticket


class Claim:
    """The right of one upload to the state file of its local file and target; made by :meth:`UploadStates.claim`.

    :param unfinished: what another process has left of the same upload; None where there is nothing to go on with.
    """

    unfinished: Unfinished | None = None

    def keep(self, unfinished: Unfinished) -> None:
        """Have other processes find this upload; the same one again costs nothing."""

    def forget(self) -> None:
        """The upload has ended, or is not to be gone on with."""


class UploadStates:
    """The state files of one identity at one endpoint; safe for many threads and processes."""

    def __init__(self, endpoint: Endpoint, provider: CredentialProvider) -> None:
        self._endpoint = endpoint
        self._seal = Seal(provider)

    @contextlib.contextmanager
    def claim(self, source: LocalSource | None, target: Reference, *, overwrite: bool) -> Iterator[Claim]:
        """Take the state of an upload for oneself; of several that want it, the first one gets it, and the others an
        empty claim that keeps nothing.

        :param source: None for what is no local file: an empty claim, too.
        """
        folder = _folder() if source is not None else None
        if source is None or folder is None:
            yield Claim()
            return
        _sweep(folder)
        # The account is not among it: its secret decides, and its name may be told by logging in only.
        identity = {
            "version": _VERSION,
            "gateway": self._endpoint.gateway,
            "target": str(target),
            "overwrite": overwrite,
            "source": vars(source),
        }
        key = {"gateway": self._endpoint.gateway, "target": str(target), "path": source.path}
        path = folder / f"{hashlib.sha256(_json(key)).hexdigest()[:32]}{_STATE}"
        lock = _lock(path.with_suffix(_LOCK))
        if lock is None:
            _log.info("%s: another upload of %s is under way; this one keeps no state", self._endpoint.name, target)
            yield Claim()
            return
        claim = _Held(path, identity, self._seal)
        try:
            claim.read()
            yield claim
        finally:
            try:
                with contextlib.suppress(OSError):
                    if not path.exists():
                        # Only who holds the lock may remove it; who waits for the name looks whether it is still the
                        # same.
                        path.with_suffix(_LOCK).unlink(missing_ok=True)
            finally:
                _unlock(lock)


class _Held(Claim):
    def __init__(self, path: Path, identity: Mapping[str, Any], seal: Seal) -> None:
        self._path = path
        self._identity = identity
        self._seal = seal
        self._kept: Unfinished | None = None

    def read(self) -> None:
        """Find out what was left; what cannot be used is removed."""
        state = _read(self._path)
        if state is None:
            return
        try:
            plain = {name: value for name, value in state.items() if name not in ("sealed", "landing")}
            if plain != self._identity:
                _log.info("the local file of %s has changed since: uploading it anew", self._identity["target"])
                raise Unreadable
            landing = str(state["landing"])
            ticket = json.loads(self._seal.open(str(state["sealed"]), self._label(landing)))
            if not (isinstance(ticket, list) and len(ticket) == 3 and all(isinstance(part, str) for part in ticket)):
                raise Unreadable
            protocol, url, token = ticket
            self.unfinished = self._kept = Unfinished(
                landing=landing, ticket=Ticket(protocol=protocol, url=url, token=token)
            )
        except (Unreadable, ValueError, KeyError, RecursionError, ImportError):
            self.forget()
        except NoSecret:
            _log.debug(
                "%s: what is left of an upload cannot be opened without a lasting secret", self._identity["target"]
            )
        except errors.CS3Error as error:
            # No login now; the upload itself will say so.
            _log.info("what is left of an upload to %s is not used: %s", self._identity["target"], error)

    def keep(self, unfinished: Unfinished) -> None:
        if unfinished == self._kept:
            return
        self._kept = unfinished
        ticket = unfinished.ticket
        try:
            sealed = self._seal.close(
                json.dumps([ticket.protocol, ticket.url, ticket.token]), self._label(unfinished.landing)
            )
            _write(self._path, _json({**self._identity, "landing": unfinished.landing, "sealed": sealed}))
        except NoSecret:
            _log.debug("%s: not kept, because the account has no secret that lasts", self._identity["target"])
        except (errors.CS3Error, OSError, ImportError) as error:
            # Without it the upload is begun again if this process dies, and nothing else.
            _log.warning("%s: cannot be gone on with by another process: %s", self._identity["target"], error)

    def forget(self) -> None:
        self.unfinished = self._kept = None
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _label(self, landing: str) -> bytes:
        # Whoever changes any of it makes the rest unreadable.
        return _json({**self._identity, "landing": landing})


def _folder() -> Path | None:
    """The folder of state files, made where it is missing; None where there is none that is ours alone."""
    named = os.environ.get(FOLDER_VARIABLE)
    try:
        if named is not None:
            folder = Path(named).expanduser()
            if not named:
                return None
        else:
            base = os.environ.get("XDG_STATE_HOME", "")
            # XDG base directory specification 0.8: a relative path is to be ignored.
            folder = (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "rucio-cs3/uploads"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError) as error:
        # Containers often have no home that can be written to.
        _log.debug("unfinished uploads are not kept: %s", error)
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        _log.warning("unfinished uploads are not kept: folder %s is not this user's alone (chmod 700)", folder)
        return None
    return folder


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of this name until :func:`_unlock`; None where another one has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        while True:
            descriptor = os.open(path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            except FileNotFoundError:
                pass  # its holder has removed it between our open and our lock
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    except OSError as error:
        # Held by another one; or a file system without locks, where nothing is kept.
        _log.debug("no lock on %s: %s", path, error)
        return None


def _unlock(descriptor: int) -> None:
    """Give a lock back, also where a process that was forked meanwhile has the descriptor, too."""
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                return None
            state = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) else None


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step. Not synced to the disk: it has to outlive the process, not the machine."""
    part = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Remove state files that are older than a day and nobody's; whatever else is in the folder is not ours."""
    oldest = time.time() - STALE_S
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if not _OURS.fullmatch(path.name) or path.stat().st_mtime >= oldest:
                    continue
                if path.suffix == ".part":
                    path.unlink()
                    continue
                lock = _lock(path.with_suffix(_LOCK))
                if lock is not None:
                    try:
                        path.with_suffix(_STATE).unlink(missing_ok=True)
                        path.with_suffix(_LOCK).unlink(missing_ok=True)
                    finally:
                        _unlock(lock)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
