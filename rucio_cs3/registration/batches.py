"""Up to a thousand named files: looked up in Rucio, compared, read where that is asked for, and registered."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rucio_cs3.registration.catalogue import Catalogue, CatalogueError, Known, NewFile, Overtaken, Refused
from rucio_cs3.registration.plan import File, Row, Status, comparable, fault, row_of
from rucio_cs3.registration.reading import Reader
from rucio_cs3.registration.templates import Did

#: Rucio has refused so many files one after the other, each alone: something is wrong with all.
_PATIENCE = 20


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A file that the catalogue is to be told of.

    :param is_new: that it is a replica; otherwise only that it is in its dataset.
    :param is_unknown: Rucio has no DID of its name.
    """

    file: File
    checksums: Mapping[str, str]
    is_new: bool
    is_unknown: bool = False

    @property
    def dataset(self) -> Did | None:
        return self.file.dataset


class Batches:
    """What becomes of batches of files at one RSE; several threads may each have one.

    :param keeps_paths: the RSE is non-deterministic.
    :param reader: reads files that come without a checksum; None leaves them out.
    :param size_only: register what has no checksum all the same.
    :param dry_run: change nothing, and read no file.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        keeps_paths: bool,
        reader: Reader | None,
        size_only: bool,
        dry_run: bool,
    ) -> None:
        self._catalogue = catalogue
        self._keeps_paths = keeps_paths
        self._reader = reader
        self._size_only = size_only
        self._dry_run = dry_run
        self._lock = threading.Lock()
        #: Collections that were looked at: why nothing can be put into one, None where it can. One entry for each
        #: dataset of the run, as everything here that grows.
        self._collections: dict[Did, str | None] = {}
        self._contained: set[tuple[Did, Did]] = set()
        #: What batches of this moment are about to register.
        self._in_work: dict[Did, File] = {}
        self._refused = 0
        #: Datasets that the files are in, and how many this run has put there.
        self.datasets: Counter[Did] = Counter()
        #: Datasets and containers that were made, or would be, by kind.
        self.made: Counter[str] = Counter()

    def register(self, files: Sequence[File]) -> list[Row]:
        """Register files, at most :attr:`~.catalogue.Catalogue.most`.

        :raises CatalogueError: when Rucio cannot be asked, or refuses one file after the other.
        """
        rows: list[Row] = []
        mine = list(_doubles_apart(files, rows))
        with self._lock:
            # Before Rucio is asked: what another batch has done with is in the catalogue by then.
            taken = [(file, self._in_work[file.did]) for file in mine if file.did in self._in_work]
            rows += [_double(file, first) for file, first in taken]
            later = {file.did for file, _ in taken}
            mine = [file for file in mine if file.did not in later]
            self._in_work.update((file.did, file) for file in mine)
        try:
            rows += self._registered(mine)
        finally:
            with self._lock:
                for file in mine:
                    del self._in_work[file.did]
        return rows

    def _registered(self, files: Sequence[File]) -> list[Row]:
        if not files:
            return []
        rows: list[Row] = []
        try:
            wanted = self._compared(list(files), rows)
        except Refused as refused:
            if len(files) == 1:
                return [row_of(files[0], Status.REFUSED, str(refused))]
            middle = len(files) // 2
            return self._registered(files[:middle]) + self._registered(files[middle:])
        wanted = list(self._into_collections(wanted, rows))
        if self._dry_run:
            status = {True: Status.PLANNED, False: Status.ALREADY}
            rows += [_done(one, status[one.is_new]) for one in wanted]
        else:
            rows += self._add(wanted)
        self._count(rows)
        return rows

    # -- which of them are new -----------------------------------------------------------------------------

    def _compared(self, files: list[File], rows: list[Row]) -> list[_Wanted]:
        known = self._catalogue.look([file.did for file in files], parents=_datasets(files))
        others = self._catalogue.others([file.path for file in files]) if self._keeps_paths else {}
        wanted: list[_Wanted] = []
        new: list[File] = []
        for file in files:
            there, other = known.get(file.did), others.get(file.path, file.did)
            wrong = there and fault(file, there, file.checksums, kept_path=self._keeps_paths)
            if not wrong and other != file.did:
                wrong = f"it is registered as {other} at this RSE"
            if wrong:
                rows.append(row_of(file, Status.CONFLICT, wrong))
            elif there is None or there.state is None:
                new.append(file)
            elif file.dataset is None or file.dataset in there.parents:
                rows.append(row_of(file, Status.ALREADY))
            else:
                wanted.append(_Wanted(file=file, checksums=file.checksums, is_new=False))
        for file, sums in self._with_checksums(new, rows):
            there = known.get(file.did)
            wrong = there and fault(file, there, sums, kept_path=self._keeps_paths)
            # What a dry run would have to read is not known here.
            unread = self._dry_run and self._reader is not None and not sums
            if there is not None and not wrong and not unread and not comparable(there, sums):
                wrong = f"Rucio has {file.did} elsewhere, and no checksum that this file could be compared by"
            if wrong:
                rows.append(row_of(file, Status.CONFLICT, wrong, checksums=sums))
            else:
                wanted.append(_Wanted(file=file, checksums=sums, is_new=True, is_unknown=there is None))
        return wanted

    def _with_checksums(self, files: list[File], rows: list[Row]) -> Iterator[tuple[File, Mapping[str, str]]]:
        unread: list[File] = []
        for file in files:
            if file.info.processing:
                rows.append(row_of(file, Status.UNREADABLE, "the server still works on its upload; try again later"))
            elif file.checksums:
                yield file, file.checksums
            elif self._reader is not None:
                unread.append(file)
            elif self._size_only:
                yield file, {}
            else:
                rows.append(row_of(file, Status.NO_CHECKSUM, "the server has no adler32 and no md5 of it"))
        if self._dry_run:
            yield from ((file, {}) for file in unread)
        elif unread and self._reader is not None:
            found = self._reader.read([file.info for file in unread])
            for file, sums in zip(unread, found, strict=True):
                if isinstance(sums, str):
                    rows.append(row_of(file, Status.UNREADABLE, sums))
                else:
                    yield file, sums

    # -- datasets and containers ---------------------------------------------------------------------------

    def _into_collections(self, wanted: list[_Wanted], rows: list[Row]) -> Iterator[_Wanted]:
        """Those whose dataset and container are there, or were made now."""
        pairs = {(one.file.dataset, one.file.container) for one in wanted if one.file.dataset is not None}
        with self._lock:
            # One thread at a time, so that nothing is made twice.
            self._make_ready({dataset for dataset, _ in pairs if dataset is not None}, "DATASET")
            self._make_ready({container for _, container in pairs if container is not None}, "CONTAINER")
            self._contain(pairs)
        for one in wanted:
            collections = [did for did in (one.file.dataset, one.file.container) if did is not None]
            wrong = next((why for why in map(self._collections.get, collections) if why), None)
            if wrong is None:
                yield one
            else:
                rows.append(row_of(one.file, Status.CONFLICT, wrong))

    def _make_ready(self, dids: Collection[Did], kind: str) -> None:
        unseen = sorted(set(dids) - self._collections.keys())
        if not unseen:
            return
        there: dict[Did, Known] = {}
        try:
            there.update(self._catalogue.look(unseen))
        except Refused:
            for did in unseen:
                try:
                    there.update(self._catalogue.look([did]))
                except Refused as refused:
                    self._collections[did] = str(refused)
        unseen = [did for did in unseen if did not in self._collections]
        missing = [did for did in unseen if did not in there]
        if missing and not self._dry_run:
            self._catalogue.make(missing, kind)
        self.made[kind] += len(missing)
        for did in unseen:
            known = there.get(did)
            self._collections[did] = None if known is None else _why_not(did, known, kind)

    def _contain(self, pairs: Iterable[tuple[Did | None, Did | None]]) -> None:
        children: dict[Did, list[Did]] = defaultdict(list)
        for dataset, container in pairs:
            if dataset is None or container is None or (dataset, container) in self._contained:
                continue
            if self._collections[dataset] is None and self._collections[container] is None:
                children[container].append(dataset)
            self._contained.add((dataset, container))
        if children and not self._dry_run:
            self._catalogue.attach(children)

    # -- what Rucio is told --------------------------------------------------------------------------------

    def _add(self, wanted: list[_Wanted], *, again: bool = False) -> list[Row]:
        if not wanted:
            return []
        attachments: dict[Did, list[Did]] = defaultdict(list)
        for one in wanted:
            if one.dataset is not None:
                attachments[one.dataset].append(one.file.did)
        new = [
            NewFile(
                did=one.file.did,
                size=one.file.info.size,
                checksums=one.checksums,
                pfn=one.file.pfn,
                is_unknown=one.is_unknown,
            )
            for one in wanted
            if one.is_new
        ]
        try:
            self._catalogue.add(new, attachments)
        except Refused as refused:
            if isinstance(refused, Overtaken) and not again:
                return self._add_again(wanted)
            if len(wanted) > 1:
                # Somewhere in there is one that Rucio does not take.
                middle = len(wanted) // 2
                return self._add(wanted[:middle]) + self._add(wanted[middle:])
            return [self._refusal(wanted[0], refused)]
        self._refused = 0
        return [_done(one, Status.REGISTERED if one.is_new else Status.ALREADY) for one in wanted]

    def _add_again(self, wanted: list[_Wanted]) -> list[Row]:
        rows: list[Row] = []
        # With what was read, so that it is not read once more.
        files = [replace(one.file, info=replace(one.file.info, checksums=one.checksums)) for one in wanted]
        compared = self._compared(files, rows)
        return rows + self._add(compared, again=True)

    def _refusal(self, one: _Wanted, refused: Refused) -> Row:
        file = one.file
        known = self._catalogue.look([file.did], parents=_datasets([file])).get(file.did)
        # Somebody else may register the same files at the same moment, and by REST the first half may have been done.
        if (
            known is not None
            and known.state is not None
            and fault(file, known, one.checksums, kept_path=self._keeps_paths) is None
            and (file.dataset is None or file.dataset in known.parents)
        ):
            return row_of(file, Status.ALREADY, checksums=one.checksums)
        self._refused += 1
        if self._refused >= _PATIENCE:
            raise CatalogueError(f"Rucio refuses one file after the other; the last, {file.did}: {refused}")
        return row_of(file, Status.FAILED, str(refused), checksums=one.checksums)

    def _count(self, rows: Iterable[Row]) -> None:
        with self._lock:
            for row in rows:
                if row.dataset is not None and row.status in (Status.REGISTERED, Status.PLANNED, Status.ALREADY):
                    self.datasets[row.dataset] += row.attached


def _datasets(files: Iterable[File]) -> set[Did]:
    return {file.dataset for file in files if file.dataset is not None}


def _doubles_apart(files: Sequence[File], rows: list[Row]) -> Iterator[File]:
    """The files, but of several with one DID only the first: the template has given two of them the same name."""
    seen: dict[Did, File] = {}
    for file in files:
        first = seen.setdefault(file.did, file)
        if first is file:
            yield file
        else:
            rows.append(_double(file, first))


def _double(file: File, first: File) -> Row:
    return row_of(file, Status.CONFLICT, f"{file.did} is another file as well: {first.shown}")


def _why_not(did: Did, known: Known, kind: str) -> str | None:
    if known.kind != kind:
        return f"{did} is to be a {kind.lower()}, and is a {known.kind.lower()} in Rucio"
    return None if known.is_open else f"{kind.lower()} {did} is closed in Rucio, and takes nothing more"


def _done(one: _Wanted, status: Status) -> Row:
    return row_of(one.file, status, checksums=one.checksums, attached=one.dataset is not None)
