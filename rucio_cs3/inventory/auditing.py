"""An audit of an RSE: takes the dumps that nobody gave, compares, looks once more, writes lists. Deletes nothing.

What is lost and dark: :mod:`rucio_cs3.inventory.comparison`. Each finding is looked for in the storage once more:
:mod:`rucio_cs3.inventory.second_look`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rucio_cs3.clouds import Cloud
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.local_files import local_errors
from rucio_cs3.cs3.side_by_side import Aside
from rucio_cs3.inventory import catalogue, comparison, dumping, lines, manifest
from rucio_cs3.inventory.catalogue import Replica, is_plain
from rucio_cs3.inventory.comparison import Finding, Grace, Kind, Seen
from rucio_cs3.inventory.crawl import OF_ONE_PLACE
from rucio_cs3.inventory.dump import Watcher
from rucio_cs3.inventory.lines import Line
from rucio_cs3.inventory.lists import Lists, write_gz
from rucio_cs3.inventory.second_look import look
from rucio_cs3.inventory.sorting import lines_of, sorted_lines

_log = logging.getLogger(__name__)

#: Findings that are looked for at the same time.
_LOOKS = 8

#: Most findings that are looked for once more.
LOOKS_MAX = 10_000

#: A greater part of all that is lost or dark is taken for a mistake: Rucio's auditor's own limit (41.5.1).
PLAUSIBLE_PART = 0.1

#: Gives all replicas of the RSE, in any order.
Catalogue = Callable[[], Iterable[Replica]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be audited, and with what.

    :param rse: its name.
    :param folder: where lists, and the dumps that are taken, are written.
    :param cloud: the storage, for a dump, for looks and for PFNs; None where all is given, and not held against it.
    :param before: a dump of Rucio's replicas from before the storage was listed; None takes one now.
    :param storage: the list of the storage, a dump of ours or anybody's; None takes one then.
    :param after: a dump of Rucio's replicas from after that; None takes one at the end.
    :param grace_h: nothing is said of files that were changed in the last hours before the storage was looked at.
    :param looks_max: more findings than that are not looked for once more.
    """

    rse: str
    folder: Path
    cloud: Cloud | None
    before: Path | None = None
    storage: Path | None = None
    after: Path | None = None
    grace_h: float = 24.0
    looks_max: int = LOOKS_MAX


@dataclass(kw_only=True)
class Report:
    """What came out of it; counts of the lists.

    :param pfns: lost files whose PFNs were written: all but those that could not be looked for.
    :param gone: findings that a second look did not confirm.
    :param not_looked_at: findings that nobody looked for once more.
    :param untold: findings of which nothing is said, because a tab or a line break is in the path, scope or name.
    :param unlisted: replicas whose path no dump of Rucio can hold, for the same reason.
    :param plausible: False where so much is lost or dark that a mistake is likelier.
    """

    rse: str
    folder: str
    began_at: str
    ended_at: str = ""
    seen: Seen = field(default_factory=Seen)
    lost: int = 0
    lost_bytes: int = 0
    dark: int = 0
    dark_bytes: int = 0
    different: int = 0
    young: int = 0
    gone: int = 0
    not_looked_at: int = 0
    pfns: int = 0
    untold: int = 0
    unlisted: int = 0
    plausible: bool = True

    @property
    def looked(self) -> bool:
        """Whether all findings were looked for once more."""
        return not self.not_looked_at

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "looked": self.looked}


class Audit:
    """One audit.

    :param catalogue: see :data:`Catalogue`; called for each dump of Rucio that is not given.
    """

    def __init__(self, wanted: Wanted, catalogue: Catalogue, *, watcher: Watcher | None = None) -> None:
        self._wanted = wanted
        self._catalogue = catalogue
        self._watcher = watcher

    def run(self) -> Report:
        """Take what is missing, compare, and write the lists, which appear when all is done.

        :raises LocalError: when a file cannot be read or written, is no dump, or does not fit the others.
        :raises Incomplete: (of the dump), and whatever else a dump raises.
        """
        wanted = self._wanted
        report = Report(rse=wanted.rse, folder=str(wanted.folder), began_at=manifest.iso(time.time()))
        with local_errors(wanted.folder):
            wanted.folder.mkdir(parents=True, exist_ok=True)
        before = wanted.before
        if before is None:
            before, report.unlisted = self._take("before.gz")
        storage, form, made, when_s = self._storage()
        after = wanted.after or self._take("after.gz")[0]
        below = f"{made.below}/" if made is not None and made.below else ""
        grace = Grace(dark_from_s=when_s - wanted.grace_h * 3600, lost_from=_cutoff(made))
        with contextlib.ExitStack() as stack:
            # Closed early, the iterators remove their files.
            earlier, later = (
                stack.enter_context(contextlib.closing(self._replicas(path, below))) for path in (before, after)
            )
            now = stack.enter_context(contextlib.closing(self._lines(storage, form, made)))
            self._write(comparison.compare(earlier, now, later, grace, report.seen), grace, report)
        return report

    # -- the three dumps -------------------------------------------------------------------------------------

    def _take(self, name: str) -> tuple[Path, int]:
        """A dump of Rucio, and how many replicas could not be written."""
        path, unlisted = self._wanted.folder / name, 0

        def texts() -> Iterator[str]:
            nonlocal unlisted
            for replica in self._catalogue():
                if is_plain(replica.path):
                    yield catalogue.written(replica)
                else:
                    unlisted += 1

        with contextlib.closing(sorted_lines(texts(), catalogue.path_of, self._wanted.folder)) as ordered:
            write_gz(path, ordered)
        return path, unlisted

    def _storage(self) -> tuple[Path, lines.Form, manifest.Manifest | None, float]:
        """The dump of the storage, its form, its manifest, and from when it is."""
        given = self._wanted.storage
        if given is None:
            assert self._wanted.cloud is not None
            path = self._wanted.folder / "storage.gz"
            # Not resumed: the replicas before were taken just now. In JSON any name can stand.
            options = dumping.Options(form="jsonl", resume=False)
            made = dumping.dump(self._wanted.cloud.place(), path, options, watcher=self._watcher)
            return path, made.form, made, manifest.seconds(made.began_at)
        found = manifest.read(given)
        if found is not None:
            self._check(given, found)
            return given, found.form, found, manifest.seconds(found.began_at)
        with local_errors(given):
            return given, "paths", None, given.stat().st_mtime

    def _check(self, given: Path, made: manifest.Manifest) -> None:
        """Whether a dump of the storage that is given is all of this RSE's, and between those of Rucio."""
        wanted, cloud = self._wanted, self._wanted.cloud
        if not made.complete:
            raise errors.LocalError(f"{given} is not complete, as its manifest says, so nothing can be said to be lost")
        if cloud is not None:
            gateway, folder = cloud.endpoint.gateway, cloud.reference(made.below.strip("/"))
            if (gateway, str(folder)) != (made.gateway, made.folder):
                raise errors.LocalError(
                    f"{given} is a dump of {made.folder} at {made.gateway}, not of {cloud.name}: {folder} at {gateway}"
                )
        advice = "; where it is a copy, give it the time of the original, as cp -p does"
        # Whole seconds, as in the manifest.
        if wanted.before is not None and int(_changed_s(wanted.before)) > manifest.seconds(made.began_at):
            raise errors.LocalError(
                f"{wanted.before} must be older than {given}, which was begun at {made.began_at}{advice}"
            )
        if wanted.after is not None and int(_changed_s(wanted.after)) < manifest.seconds(made.ended_at):
            raise errors.LocalError(
                f"{wanted.after} must be younger than {given}, which was ended at {made.ended_at}{advice}"
            )

    def _replicas(self, path: Path, below: str) -> Generator[Replica, None, None]:
        with contextlib.closing(sorted_lines(lines_of(path), catalogue.path_of, self._wanted.folder)) as ordered:
            for text in ordered:
                replica = catalogue.read(text)
                if replica.path.startswith(below):
                    yield replica

    def _lines(self, path: Path, form: lines.Form, made: manifest.Manifest | None) -> Generator[Line, None, None]:
        texts = lines_of(path)
        if made is not None:  # ours are sorted
            yield from (lines.read(text, form) for text in texts)
            return
        prefix = _prefix_of(self._wanted.cloud)
        key = _path_of_line(prefix)
        with contextlib.closing(sorted_lines(texts, key, self._wanted.folder)) as ordered:
            for text in ordered:
                yield Line(path=key(text))

    # -- findings --------------------------------------------------------------------------------------------

    def _write(self, found: Iterable[Finding], grace: Grace, report: Report) -> None:
        wanted = self._wanted
        day = datetime.now(timezone.utc).strftime("%Y%m%d")
        names = ("lost.tsv", "lost.pfns", "dark.tsv", "different.tsv", f"{wanted.rse}_{day}")
        with Lists(wanted.folder, names) as lists:
            for finding, sure in self._looked_at(_tellable(found, report), grace, report):
                self._add(finding, lists, report, names[-1], sure=sure)
            report.plausible = (
                report.lost <= PLAUSIBLE_PART * report.seen.before
                and report.dark <= PLAUSIBLE_PART * report.seen.storage
            )
            report.ended_at = manifest.iso(time.time())
            lists.add("summary.json", json.dumps(report.as_dict(), indent=2) + "\n")
            lists.commit()

    def _add(self, finding: Finding, lists: Lists, report: Report, results: str, *, sure: bool) -> None:
        replica, line = finding.replica, finding.line
        if finding.kind is Kind.YOUNG:
            report.young += 1
        elif finding.kind is Kind.LOST and replica is not None:
            report.lost += 1
            report.lost_bytes += replica.size or 0
            lists.add("lost.tsv", f"{replica.path}\t{replica.scope}\t{replica.name}\t{_or(replica.size)}\n")
            lists.add(results, f"LOST,{replica.path}\n")
            if sure and self._wanted.cloud is not None:
                cloud = self._wanted.cloud
                with contextlib.suppress(errors.InvalidReference):
                    lists.add("lost.pfns", f"{cloud.url(cloud.reference(replica.path))}\n")
                    report.pfns += 1
        elif finding.kind is Kind.DARK and line is not None:
            report.dark += 1
            report.dark_bytes += line.size or 0
            lists.add("dark.tsv", f"{line.path}\t{_or(line.size)}\t{_or(line.mtime_s)}\n")
            lists.add(results, f"DARK,{line.path}\n")
        elif replica is not None and line is not None:
            report.different += 1
            one = f"{_or(replica.size)}\t{_or(replica.adler32)}"
            other = f"{_or(line.size)}\t{_or(line.adler32)}"
            lists.add("different.tsv", f"{replica.path}\t{replica.scope}\t{replica.name}\t{one}\t{other}\n")

    def _looked_at(self, found: Iterable[Finding], grace: Grace, report: Report) -> Iterator[tuple[Finding, bool]]:
        """Those findings that a second look confirms, and whether nothing kept it from being made."""
        cloud, left, sure = self._wanted.cloud, self._wanted.looks_max, True
        found = iter(found)
        while some := list(itertools.islice(found, _LOOKS)):
            asked = sum(finding.kind is not Kind.YOUNG for finding in some)
            if cloud is None or left <= 0:
                report.not_looked_at += asked
                yield from ((finding, sure) for finding in some)
                continue
            left -= asked
            looks = [Aside(look(cloud, finding, grace)) for finding in some]
            for finding, aside in zip(some, looks, strict=True):
                try:
                    now = aside.result()
                except errors.CS3Error as error:
                    _log.info("%s is not looked at: %s", finding.path, error)
                    report.not_looked_at += 1
                    if not isinstance(error, (*OF_ONE_PLACE, errors.InvalidRequest)):
                        # Of a server that cannot be asked nobody asks on; what was found is true all the same.
                        left, sure = 0, False
                    yield finding, False
                    continue
                if now is None:
                    report.gone += 1
                else:
                    yield now, True


def _tellable(found: Iterable[Finding], report: Report) -> Iterator[Finding]:
    """Those that can stand in lines. Of others nothing is said: a line break in a name would make lines of its own."""
    for finding in found:
        replica = finding.replica
        named = replica is None or (replica.name != "" and is_plain(replica.scope + replica.name))
        if named and is_plain(finding.path):
            yield finding
        else:
            report.untold += 1


def _cutoff(made: manifest.Manifest | None) -> str:
    """From when on replicas are too young to be called lost: those that the dump has left out."""
    if made is None or not made.older_than_h:
        return ""
    at = manifest.seconds(made.began_at) - made.older_than_h * 3600
    return datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _changed_s(path: Path) -> float:
    with local_errors(path):
        return path.stat().st_mtime


def _path_of_line(prefix: tuple[str, ...]) -> Callable[[str], str]:
    """How a path below the RSE's prefix is read from a line of anybody's dump: a URL, a path with the prefix, or one
    below it."""

    def path(text: str) -> str:
        # Anybody's lines may end as Windows has them; names may begin and end with spaces.
        text = text.rstrip("\r\n")
        for one in prefix:
            if text.startswith(one):
                return text[len(one) :].strip("/")
        return text.strip("/")

    return path


def _prefix_of(cloud: Cloud | None) -> tuple[str, ...]:
    if cloud is None:
        return ()
    url = cloud.url(cloud.folder)
    rest = url.partition("://")[2]
    return (f"{url}/", f"/{rest.partition('/')[2]}/", f"{str(cloud.folder).rstrip('/')}/")


def _or(value: object) -> str:
    return "-" if value is None else str(value)
