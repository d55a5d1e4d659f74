"""A dump of a folder: all its files, one in each line, or a failure. **Read this module first.**

::

    cli/dump.py                  options, progress, the sentence at the end
      Dump.run                   here: what is counted, what is left out, and when it is complete
        Crawl.events             crawl: files and folders in the order of their paths
        VersionCounter           versions: old versions, where they are wanted
        lines.written            lines: the forms
        Growing                  dump_files: the part, the note, the final name
        Manifest                 manifest: what stands beside it

A dump is no picture of one moment: a file that comes, goes or moves while it is made may be in it or not. Whoever
compares it with a catalogue takes the catalogue before and after it: :mod:`rucio_cs3.inventory.auditing`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rucio_cs3._version import __version__
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.inventory import manifest
from rucio_cs3.inventory.crawl import THREADS, Crawl, Entered, Found, Lister
from rucio_cs3.inventory.dump_files import Growing
from rucio_cs3.inventory.lines import Form, Line, Misreading, is_writable, written
from rucio_cs3.inventory.manifest import Counts, Manifest
from rucio_cs3.inventory.versions import Look, VersionCounter, VersionCounts

_log = logging.getLogger(__name__)

#: How often the state is kept, in seconds: so much work is done again after a kill.
_KEEP_S = 2.0

#: How often who watches is told, in events.
_TELL_EVERY = 500

#: Told how far a dump is: the counts so far, and the path.
Watcher = Callable[[Counts, str], None]


class Incomplete(errors.CS3Error):
    """Something in the folder cannot be told; a dump without it would look complete."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be dumped, and how.

    :param cloud: how people call the cloud.
    :param gateway: host and port.
    :param top: the folder.
    :param below: what its paths begin with in the dump: its own path below the RSE's prefix, or "".
    :param older_than_h: leave out files that were changed less than so many hours before it began.
    :param incomplete: go on without what cannot be told, and say so in the manifest.
    :param prefix: of the RSE, as Rucio's reader sees it.
    :param versions: count the old versions of all files, too, also of those that are left out.
    """

    cloud: str
    gateway: str
    top: Reference
    below: str = ""
    form: Form = "paths"
    older_than_h: float = 0.0
    incomplete: bool = False
    prefix: str = "/"
    versions: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What another run must have in common to go on."""
        return {
            "gateway": self.gateway,
            "top": str(self.top),
            "below": self.below,
            "form": self.form,
            "older_than_h": self.older_than_h,
            "incomplete": self.incomplete,
            "versions": self.versions,
        }


@dataclass
class _State:
    """All that a later run needs to go on."""

    began_at: float
    runs: int = 1
    position: str | None = None
    counts: Counts = field(default_factory=Counts)
    versions: VersionCounts = field(default_factory=VersionCounts)

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> _State:
        if kept is None:
            return cls(began_at=time.time())
        return cls(
            began_at=kept["began_at"],
            runs=kept["runs"] + 1,
            position=kept["position"],
            counts=Counts(**kept["counts"]),
            versions=VersionCounts(**kept["versions"]),
        )


class Dump:
    """One dump; see the module.

    :param lister: see :data:`~rucio_cs3.inventory.crawl.Lister`.
    :param trash: tells what is in the recycle bin, once the files are all there; None is "not known".
    :param look: see :data:`~rucio_cs3.inventory.versions.Look`; needed where versions are wanted.
    """

    def __init__(
        self,
        wanted: Wanted,
        lister: Lister,
        *,
        threads: int = THREADS,
        watcher: Watcher | None = None,
        trash: Callable[[], Mapping[str, Any] | None] | None = None,
        look: Look | None = None,
    ) -> None:
        self._wanted = wanted
        self._threads = threads
        self._look = look
        self._crawl = Crawl(lister, wanted.top, threads=threads)
        self._watcher = watcher or (lambda _counts, _path: None)
        self._trash = trash or (lambda: None)
        self._misreading = Misreading(wanted.prefix)

    def run(self, path: Path, *, resume: bool = True) -> Manifest:
        """Write the dump, and its manifest beside it.

        :param path: compressed where it ends with ``.gz``. It and its manifest appear when all is there; before that
            whatever stands under the name stays as it is.
        :param resume: go on where a run of the last 24 hours with the same wishes was broken off.
        :raises Incomplete: when something cannot be told, and is not to be left out.
        :raises CS3Error: when the server cannot be asked; another run goes on.
        :raises LocalError: when the disk is full, or another process writes the same.
        """
        with Growing(path, self._wanted.identity, resume=resume) as growing:
            state = _State.of(growing.kept)
            if state.position is not None:
                _log.info("%s: going on after %r", path, state.position)
            try:
                self._write(growing, state)
            except (errors.LocalError, Incomplete):
                # What was kept last is what is true: versions of what is missing are counted already.
                raise
            except errors.CS3Error:
                growing.keep(_as_kept(state))
                raise
            if state.counts.missing and not self._wanted.incomplete:
                raise Incomplete(
                    f"{state.counts.missing} entries or folders are missing", operation="dump", target=str(path)
                )
            trash = self._trash()
            growing.keep(_as_kept(state))
            found = self._manifest(path, state, growing, trash)
            growing.finish(manifest.path_of(path), manifest.written(found))
        return found

    def _write(self, growing: Growing, state: _State) -> None:
        wanted, counts = self._wanted, state.counts
        cutoff = state.began_at - wanted.older_than_h * 3600 if wanted.older_than_h else None
        kept_at = 0.0
        for number, event in enumerate(self._events(state)):
            if isinstance(event, Found):
                self._add(growing, event, counts, cutoff)
            else:
                self._enter(event, counts)
            state.position = event.position
            if number % _TELL_EVERY == 0:
                self._watcher(counts, event.path)
            if time.monotonic() - kept_at > _KEEP_S:
                growing.keep(_as_kept(state))
                kept_at = time.monotonic()

    def _events(self, state: _State) -> Iterator[Found | Entered]:
        """What comes after the state's position; each when its versions are in the state, where they are wanted."""
        events = self._crawl.events(state.position)
        if not self._wanted.versions:
            return events
        assert self._look is not None
        return VersionCounter(self._look, state.versions, threads=self._threads).through(events)

    def _add(self, growing: Growing, found: Found, counts: Counts, cutoff: float | None) -> None:
        info, wanted = found.info, self._wanted
        if cutoff is not None and info.mtime_s > cutoff:
            counts.younger_files += 1
            counts.younger_bytes += info.size
            return
        path = f"{wanted.below}/{found.path}" if wanted.below else found.path
        if not is_writable(path, wanted.form):
            self._miss(found.path, f"its path has a line break, which the form {wanted.form} cannot hold; take jsonl")
            counts.unwritable += 1
            counts.name(path, "a line break in its path")
            return
        adler32 = info.checksums.get("adler32")
        growing.write(written(Line(path=path, size=info.size, mtime_s=int(info.mtime_s), adler32=adler32), wanted.form))
        counts.files += 1
        counts.bytes += info.size
        counts.without_adler32 += adler32 is None
        counts.misread += self._misreading.of(path)

    def _enter(self, entered: Entered, counts: Counts) -> None:
        shown = entered.path or "the folder itself"
        if entered.refused is not None:
            self._miss(entered.path, f"it cannot be listed: {entered.refused}")
            counts.refused += 1
            counts.name(shown, str(entered.refused))
        if entered.left_out:
            self._miss(entered.path, f"the server lists {entered.left_out} entries in it that nobody can name")
            counts.left_out += entered.left_out
            counts.name(shown, f"{entered.left_out} entries that nobody can name")
        counts.gone += entered.gone
        counts.folders += bool(entered.path)

    def _miss(self, path: str, why: str) -> None:
        if not self._wanted.incomplete:
            raise Incomplete(
                why,
                operation="dump",
                target=str(self._wanted.top.child(path) if path else self._wanted.top),
            )

    def _manifest(self, path: Path, state: _State, growing: Growing, trash: Mapping[str, Any] | None) -> Manifest:
        wanted = self._wanted
        size, sha256 = growing.digest()
        return Manifest(
            dump=path.name,
            form=wanted.form,
            cloud=wanted.cloud,
            folder=str(wanted.top),
            below=wanted.below,
            gateway=wanted.gateway,
            began_at=manifest.iso(state.began_at),
            ended_at=manifest.iso(time.time()),
            runs=state.runs,
            complete=state.counts.missing == 0,
            older_than_h=wanted.older_than_h,
            dump_bytes=size,
            sha256=sha256,
            counts=state.counts,
            trash=trash,
            versions=state.versions.as_dict() if wanted.versions else None,
            program=f"rucio-cs3 {__version__}",
        )


def _as_kept(state: _State) -> dict[str, Any]:
    return {
        "began_at": state.began_at,
        "runs": state.runs,
        "position": state.position,
        "counts": asdict(state.counts),
        "versions": asdict(state.versions),
    }
