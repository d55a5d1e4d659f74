"""An existing folder of a cloud becomes replicas in place. **Read this module first.**

::

    Registration.rows                 here                   one row for each file
      walk                            files.walk             what is there
      Naming, Schema, Deterministic   naming, templates      which DIDs, and does Rucio take them
      Batches.register                batches                many at a time:
        Catalogue.look, plan.fault    catalogue, plan          what Rucio has of them; nothing of that is changed
        Reader.read                   reading                  checksums that the server has not, where asked for
        Catalogue.add                 rest, database           replicas, and what is in datasets
    Registration.rules                here                   afterwards, one rule for each dataset

Nothing is kept of how far a run came: what is in the catalogue is the state. A second run looks at each file in both
places, which costs a listing for each folder and one or two requests for each batch, and adds what is missing; so does
one after a run that was killed. The cloud is only listed and, where asked for, read.
"""

from __future__ import annotations

import fnmatch
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from rucio_cs3.clouds import Place
from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.hidden_names import PART_PREFIX
from rucio_cs3.cs3.team import Team
from rucio_cs3.files.walk import Entry, Trouble, walk
from rucio_cs3.registration.batches import Batches
from rucio_cs3.registration.catalogue import Catalogue, Refused
from rucio_cs3.registration.naming import PATH_MAX, Deterministic, Naming, Schema
from rucio_cs3.registration.neighbours import Neighbours
from rucio_cs3.registration.plan import File, Row, Status, row_of
from rucio_cs3.registration.reading import Reader
from rucio_cs3.registration.templates import Did, Located, TemplateError
from rucio_cs3.undelete import RUCIO_UPLOAD_SUFFIX

#: How many batches wait for Rucio beside the one that is being filled.
_AHEAD = 2

#: Bytes to be read in one batch: what was read is lost where the run ends before its batch is registered.
_READ_BATCH_BYTES = 4 * 1024**3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for.

    :param exclude: patterns of paths below the folder, as a shell has them; ``*`` goes beyond slashes.
    :param size_only: register what has no checksum all the same.
    :param dry_run: change nothing in Rucio, and read no file.
    :param batches: how many are with Rucio at a time; at least 1.
    """

    naming: Naming
    exclude: Sequence[str] = ()
    size_only: bool = False
    dry_run: bool = False
    batches: int = 2


@dataclass
class _Batch:
    most: int
    files: list[File] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    to_read_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.files) + len(self.rows) >= self.most or self.to_read_bytes >= _READ_BATCH_BYTES


class Registration:
    """One run over one folder; use it once.

    :param schema: what Rucio lets things be called; None where nobody knows that here, and Rucio itself will tell.
    :param deterministic: where a deterministic RSE has its files; None for a non-deterministic one.
    :param reader: reads files that come without a checksum; None leaves them out.
    :param neighbours: other RSEs whose files are no replicas here.
    :raises InvalidReference: when the place is outside of the RSE's folder.
    :raises CatalogueError: when Rucio cannot be asked for its scopes.
    """

    def __init__(
        self,
        place: Place,
        catalogue: Catalogue,
        options: Options,
        *,
        schema: Schema | None,
        deterministic: Deterministic | None,
        reader: Reader | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._place = place
        self._catalogue = catalogue
        self._options = options
        self._schema = schema
        self._deterministic = deterministic
        self._reader = reader
        self._neighbours = neighbours
        self._above = _path_below(place)
        self._top = place.reference.name or place.cloud.name
        self._scopes = frozenset(catalogue.scopes())
        #: Datasets and containers that were met, and why Rucio takes none of that name; None where it does.
        self._named_collections: dict[Did, str | None] = {}
        self._batches = Batches(
            catalogue,
            keeps_paths=deterministic is None,
            reader=reader,
            size_only=options.size_only,
            dry_run=options.dry_run,
        )
        #: Templates for scope and name that would fit a deterministic RSE, found with the first file that did not.
        self.suggestion: tuple[str, str] | None = None

    @property
    def datasets(self) -> Mapping[Did, int]:
        """Datasets that the files are in, or would be, and how many this run has put there."""
        return self._batches.datasets

    @property
    def made(self) -> Counter[str]:
        """How many collections were made, or would be, by kind: ``DATASET``, ``CONTAINER``."""
        return self._batches.made

    def rows(self) -> Generator[Row, None, None]:
        """Register, and say of each file what has become of it. Close the iterator to end early: nothing more is begun,
        and what Rucio is just told of is in the catalogue as a whole, or not.

        :raises CS3Error: when the folder itself cannot be listed.
        :raises CatalogueError: when Rucio cannot be asked, or refuses one file after the other.
        """
        most = self._options.batches
        team = Team(most, "cs3-register")
        pending: deque[Future[list[Row]]] = deque()
        try:
            for batch in self._filled():
                pending.append(team.submit(partial(self._work, batch)))
                while pending and (len(pending) > most + _AHEAD or pending[0].done()):
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            if self._reader is not None:
                self._reader.stop()
            team.stop()

    def rules(self, *, locked: bool) -> Iterator[tuple[Did, bool | str]]:
        """A rule for each dataset that :meth:`rows` has met: True where it is new, False where there was one, or why
        Rucio takes none.

        :raises CatalogueError: when Rucio cannot be asked.
        """
        for dataset in sorted(self.datasets):
            try:
                yield dataset, self._catalogue.add_rule(dataset, locked=locked)
            except Refused as refused:
                yield dataset, str(refused)

    def _work(self, batch: _Batch) -> list[Row]:
        return batch.rows + self._batches.register(batch.files)

    def _filled(self) -> Iterator[_Batch]:
        batch = _Batch(self._catalogue.most)
        for found in walk(self._place.storage, self._place.reference):
            if isinstance(found, Entry) and found.info.is_directory:
                continue
            named = self._named(found)
            if isinstance(named, Row):
                batch.rows.append(named)
            else:
                batch.files.append(named)
                if self._reader is not None and not named.checksums:
                    batch.to_read_bytes += named.info.size
            if batch.is_full:
                yield batch
                batch = _Batch(self._catalogue.most)
        yield batch

    def _named(self, found: Entry | Trouble) -> File | Row:
        shown = self._shown(found.relative)
        if isinstance(found, Trouble):
            return Row(status=Status.UNREADABLE, place=shown, reason=str(found.error))
        info = found.info
        name = info.reference.name
        if name.startswith(PART_PREFIX) or name.endswith(RUCIO_UPLOAD_SUFFIX):
            return Row(status=Status.PARTIAL, place=shown, size=info.size)
        if any(fnmatch.fnmatchcase(found.relative, pattern) for pattern in self._options.exclude):
            return Row(status=Status.EXCLUDED, place=shown, size=info.size)
        path = (*self._above, *found.relative.split("/"))
        located = Located(path, len(self._above), self._top)
        naming = self._options.naming
        try:
            did = naming.file.of(located)
            dataset = naming.dataset.of(located) if naming.dataset is not None else None
            container = naming.container.of(located) if naming.container is not None else None
        except TemplateError as error:
            return Row(status=Status.REFUSED, place=shown, size=info.size, reason=str(error))
        if dataset is not None and not dataset.name:
            # Such as {folder:.} of what is right below the RSE's folder.
            dataset = container = None
        file = File(
            info=info,
            path="/".join(path),
            shown=shown,
            pfn=self._place.cloud.url(info.reference),
            did=did,
            dataset=dataset,
            container=container,
        )
        return self._refused(file, located) or file

    def _refused(self, file: File, located: Located) -> Row | None:
        for did in filter(None, (file.did, file.dataset, file.container)):
            wrong = self._misnamed(did) if did is file.did else self._misnamed_collection(did)
            if wrong is not None:
                return row_of(file, Status.REFUSED, wrong)
        if self._deterministic is None:
            if len(file.path) >= PATH_MAX:
                wrong = f"its path has {len(file.path)} characters, and Rucio keeps {PATH_MAX - 1} of one"
                return row_of(file, Status.REFUSED, wrong)
            wrong = self._neighbours.fault(file.pfn) if self._neighbours is not None else None
            return row_of(file, Status.CONFLICT, wrong) if wrong is not None else None
        wrong = self._deterministic.fault(file.did, file.info.reference)
        if wrong is None:
            return None
        if self.suggestion is None:
            self.suggestion = self._deterministic.fitting(located, file.info.reference)
        return row_of(file, Status.MISPLACED, wrong)

    def _misnamed_collection(self, did: Did) -> str | None:
        # The files of a dataset come one after the other.
        if did not in self._named_collections:
            self._named_collections[did] = self._misnamed(did)
        return self._named_collections[did]

    def _misnamed(self, did: Did) -> str | None:
        wrong = self._schema.fault(did) if self._schema is not None else None
        if wrong is None and did.scope not in self._scopes:
            wrong = f"Rucio has no scope {did.scope!r}; rucio scope add makes one"
        return wrong

    def _shown(self, relative: str) -> str:
        above = self._place.shown
        return f"{above}{'' if above.endswith(':') else '/'}{relative}" if relative else above


def _path_below(place: Place) -> tuple[str, ...]:
    """The names from the RSE's folder to a place."""
    path, above = place.reference.path, place.cloud.folder.path
    prefix = f"{above}/" if above else ""
    if place.reference.root != place.cloud.folder.root or not f"{path}/".startswith(prefix):
        raise errors.InvalidReference(
            f"{place.shown} is outside of the folder of RSE {place.cloud.name}, where its replicas are"
        )
    return tuple(name for name in path[len(prefix) :].split("/") if name)
