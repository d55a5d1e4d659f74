"""Lost and dark by three lists, sorting beyond memory, and the forms of lines; beside Rucio's own reading of them."""

from __future__ import annotations

import bz2
import gzip
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.inventory import catalogue, comparison, lines, sorting
from rucio_cs3.inventory.catalogue import Replica
from rucio_cs3.inventory.comparison import Grace, Kind, Seen
from rucio_cs3.inventory.lines import Line, Misreading


def replica(path: str, state: str = "A", *, size: int = 5, adler32: str | None = None, made: str = "") -> Replica:
    name = path.rpartition("/")[2]
    return Replica(rse="R", scope="s", name=name, path=path, size=size, adler32=adler32, state=state, created_at=made)


def compared(
    before: Iterable[Replica], storage: Iterable[Line], after: Iterable[Replica], grace: Grace | None = None
) -> dict[str, Kind]:
    found = comparison.compare(before, storage, after, grace or Grace(), Seen())
    return {finding.path: finding.kind for finding in found}


#: State before (None: not there), in the storage, state after -> what it is.
_TABLE = [
    ("A", True, "A", None),
    ("A", False, "A", Kind.LOST),
    ("A", False, None, None),
    ("A", False, "B", None),
    ("C", False, "A", None),
    ("A", False, "D", None),
    ("U", False, "U", None),
    (None, True, None, Kind.DARK),
    (None, True, "A", None),
    (None, True, "C", None),
    ("B", True, None, None),
    (None, False, "A", None),
    ("D", True, "D", None),
]


@pytest.mark.parametrize(("before", "there", "after", "kind"), _TABLE)
def test_what_is_lost_and_what_is_dark(before: str | None, there: bool, after: str | None, kind: Kind | None) -> None:
    sides = [[replica("p", state)] if state else [] for state in (before, after)]
    # Neighbours that are fine, so that the three lists do not only have this one.
    fine = [replica("a"), replica("z")]
    storage = [Line(path=path) for path in (("a", "p", "z") if there else ("a", "z"))]
    earlier, later = ([fine[0], *side, fine[1]] for side in sides)
    assert compared(earlier, storage, later) == ({} if kind is None else {"p": kind})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (Line(path="p"), None),
        (Line(path="p", size=5, adler32="00000001"), None),
        (Line(path="p", size=4), Kind.DIFFERENT),
        (Line(path="p", size=5, adler32="00000002"), Kind.DIFFERENT),
        (Line(path="p", size=5), None),
    ],
)
def test_another_size_or_checksum_is_told(line: Line, kind: Kind | None) -> None:
    both = [replica("p", size=5, adler32="00000001")]
    assert compared(both, [line], both) == ({} if kind is None else {"p": kind})


def test_what_is_too_young_is_neither() -> None:
    grace = Grace(dark_from_s=100, lost_from="2026-11-21 10:00:00")
    early, late = "2026-11-21 09:59:59", "2026-11-21 10:00:00"
    both = [replica("lost-new", made=late), replica("lost-old", made=early)]
    storage = [Line(path="dark-new", mtime_s=101), Line(path="dark-old", mtime_s=100), Line(path="dark-undated")]
    assert compared(both, storage, both, grace) == {
        "dark-new": Kind.YOUNG,
        "dark-old": Kind.DARK,
        "dark-undated": Kind.DARK,
        "lost-new": Kind.YOUNG,
        "lost-old": Kind.LOST,
    }


def test_lists_that_are_not_sorted_are_refused() -> None:
    with pytest.raises(errors.LocalError, match="not sorted"):
        compared([replica("b"), replica("a")], [], [])


def test_one_path_twice_is_one_finding() -> None:
    seen = Seen()
    twice = [replica("p"), replica("p")]
    found = list(comparison.compare(twice, [], twice, Grace(), seen))
    assert [finding.path for finding in found] == ["p"]
    assert (seen.before, seen.storage, seen.after) == (1, 0, 1)


# -- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", lines.FORMS)
@pytest.mark.parametrize("path", ["a/b", "tab\tin/it", ' sp ace/"quoted"', "é/\U0001f600", "a,b", "{}"])
def test_a_line_reads_as_it_was_written(form: lines.Form, path: str) -> None:
    for adler32 in (None, "00000001"):
        line = Line(path=path, size=7, mtime_s=1_700_000_000, adler32=adler32)
        text = lines.written(line, form)
        assert text.endswith("\n")
        assert text.count("\n") == 1
        assert lines.read(text, form) == (Line(path=path) if form == "paths" else line)


@pytest.mark.parametrize(
    ("form", "text"), [("long", "a/b\n"), ("long", "a\tb\tc\td\n"), ("jsonl", "a\n"), ("jsonl", "[]")]
)
def test_what_is_no_line_is_said(form: lines.Form, text: str) -> None:
    with pytest.raises(errors.LocalError, match="no line of a dump"):
        lines.read(text, form)


def test_a_replica_reads_as_it_was_written() -> None:
    one = replica("a/b", size=3, adler32="00000001", made="2026-11-21 10:00:00")
    assert catalogue.read(catalogue.written(one)) == one
    with pytest.raises(errors.LocalError, match="replica dump"):
        catalogue.read("a/b\n")


def test_rucio_reads_our_replicas() -> None:
    data_models = pytest.importorskip("rucio.common.dumper.data_models", reason="no Rucio server")
    text = catalogue.written(replica("a/b", size=3, adler32="00000001", made="2026-11-21 10:00:00"))
    read = data_models.Replica.parse_line(text)
    assert (read.path, read.size, read.state, read.scope, read.name) == ("a/b", 3, "A", "s", "b")


def test_which_paths_rucio_misreads_is_known() -> None:
    parsing = pytest.importorskip("rucio.common.dumper.path_parsing", reason="no Rucio server")
    parts = ["a", "b", "rucio", "data", "c"]
    dice = random.Random(7)
    wrong = right = 0
    for _ in range(4000):
        prefix = "/" + "".join(f"{dice.choice(parts)}/" for _ in range(dice.randint(0, 4)))
        path = "/".join(dice.choice(parts) for _ in range(dice.randint(1, 4)))
        # As rucio.common.dumper.ddmendpoint_url and consistency.strip_storage_dump have it.
        base = parsing.components(f"davs://host:443{prefix}".removesuffix("rucio/"))
        read = parsing.remove_prefix(base, parsing.components(path))
        misread = not read or "/".join(read[1:] if read[0] == "rucio" else read) != path
        assert Misreading(prefix).of(path) is misread, (prefix, path)
        wrong, right = wrong + misread, right + (not misread)
    assert wrong > 100
    assert right > 100


# -- sorting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "most"), [("_CHUNK_LINES", 10), ("_CHUNK_CHARACTERS", 50)])
def test_more_lines_than_fit_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int) -> None:
    chunks: list[int] = []
    chunk = sorting._chunk

    def counted(*arguments: Any) -> list[str]:
        taken = chunk(*arguments)
        chunks.append(len(taken))
        return taken

    monkeypatch.setattr(sorting, limit, most)
    monkeypatch.setattr(sorting, "_MERGED_MAX", 4)
    monkeypatch.setattr(sorting, "_chunk", counted)
    texts = [f"{number:04}\n" for number in range(537)]
    shuffled = random.Random(1).sample(texts, len(texts))
    shuffled[-1] = shuffled[-1].rstrip("\n")
    ordered = list(sorting.sorted_lines(shuffled, str.strip, tmp_path))
    assert [text.strip() for text in ordered] == [text.strip() for text in texts]
    assert list(tmp_path.iterdir()) == []
    assert chunks[:53] == [10] * 53


def test_the_key_decides_and_not_the_line(tmp_path: Path) -> None:
    texts = ["1\ta/b\n", "2\ta\n", "0\ta b\n"]
    ordered = list(sorting.sorted_lines(texts, lambda text: text.split("\t")[1], tmp_path))
    assert ordered == [texts[1], texts[2], texts[0]]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_CHUNK_LINES", 1)
    with pytest.raises(errors.LocalNotFound, match="nowhere"):
        list(sorting.sorted_lines(["b\n", "a\n"], str.strip, tmp_path / "nowhere"))


def test_a_file_without_lines_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "dump.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x" * 2**20))
    lines = sorting.lines_of(path)
    assert next(lines) == "a\n"
    with pytest.raises(errors.LocalError, match="is no list"):
        next(lines)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_files_are_read_however_they_are_compressed(tmp_path: Path, pack: type[bytes]) -> None:
    path = tmp_path / "dump"
    path.write_bytes(pack("a\n\ne\rf\né\nlast".encode()))
    assert list(sorting.lines_of(path)) == ["a\n", "e\rf\n", "é\n", "last"]


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b"a\n" * 9999)[:-20], b"\xff\xfe\n", b"\x1f\x8bnothing"],
    ids=["cut", "no text", "no gzip"],  # gzip has the time in it
)
def test_a_broken_file_is_said(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "dump"
    path.write_bytes(data)
    with pytest.raises(errors.LocalError, match="broken or cut off"):
        list(sorting.lines_of(path))
