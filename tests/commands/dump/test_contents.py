"""``rucio-cs3 dump``: all files below a folder, as they are on the server's disk."""

from __future__ import annotations

import json
import os
import zlib

import pytest

from tests.commands.clouds import CommandPlace
from tests.commands.dump.contents import TREE, names, paths_on_disk, text_of


def test_all_that_is_on_the_disk_is_in_the_dump(filled: CommandPlace) -> None:
    out = filled.local / "dump.gz"
    done = filled.run("dump", "TEST", "-o", out)
    assert (done.code, done.err) == (0, "")
    assert text_of(out).splitlines() == paths_on_disk(filled) == sorted(TREE, key=str.encode)
    assert done.out.startswith(f"dump.gz: {len(TREE)} files, 3.0 kB, in 8 folders\n")
    assert names(filled.local) == ["dump.gz", "dump.gz.json"]
    made = json.loads((filled.local / "dump.gz.json").read_text())
    assert (made["complete"], made["counts"]["files"], made["runs"]) == (True, len(TREE), 1)
    assert made["gateway"] == filled.cloud.gateway
    user = next(iter(filled.cloud.users.values()))
    assert user.password not in (filled.local / "dump.gz.json").read_text() + done.out


def test_columns_and_json_tell_more(filled: CommandPlace) -> None:
    sums = filled.kind == "spaces"  # Reva's local driver keeps none
    filled.run("dump", "TEST", "--long", "-o", filled.local / "long")
    rows = [line.rsplit("\t", 3) for line in text_of(filled.local / "long").splitlines()]
    assert [row[0] for row in rows] == sorted(TREE, key=str.encode)
    for path, size, mtime, adler32 in rows:
        on_disk = filled.disk(path)
        assert (int(size), int(mtime)) == (len(TREE[path]), int(on_disk.stat().st_mtime))
        assert adler32 == (f"{zlib.adler32(TREE[path]):08x}" if sums or not TREE[path] else "-")

    done = filled.run("dump", "TEST", "--jsonl", "--json", "-o", filled.local / "lines.gz")
    objects = [json.loads(line) for line in text_of(filled.local / "lines.gz").splitlines()]
    assert [(one["path"], one["bytes"]) for one in objects] == [(row[0], int(row[1])) for row in rows]
    assert json.loads(done.out)["form"] == "jsonl"


def test_of_a_folder_the_paths_are_still_below_the_prefix(filled: CommandPlace) -> None:
    for place in (["TEST:scope/ab"], [filled.url("scope/ab")], ["--rse", "TEST", "scope/ab"]):
        assert filled.run("dump", *place, "-o", filled.local / "dump").code == 0
        assert text_of(filled.local / "dump").splitlines() == [
            "scope/ab/cd-more/with space",
            "scope/ab/cd.d/pct%23#?",
            "scope/ab/cd/data-01.root",
        ]


def test_what_was_deleted_is_counted_apart(filled: CommandPlace) -> None:
    filled.storage.delete(filled.file("scope/ab/cd/data-01.root"))
    done = filled.run("dump", "TEST", "--json", "-o", filled.local / "dump")
    assert done.code == 0
    made = json.loads(done.out)
    assert made["counts"]["files"] == len(TREE) - 1
    assert made["trash"]["items"] == 1
    # OpenCloud lists no sizes of what is in its bins.
    unknown = filled.kind == "spaces"
    assert (made["trash"]["bytes"], made["trash"]["of_unknown_size"]) == ((0, 1) if unknown else (3000, 0))


#: Entries of one folder; a gRPC message of 4 MiB takes some 6,000.
LARGE = 30_000


def test_a_folder_of_thirty_thousand_files(site: CommandPlace) -> None:
    folder = site.disk("large")
    folder.mkdir()
    for number in range(LARGE):
        os.close(os.open(folder / f"n{number:05}", os.O_CREAT | os.O_WRONLY, 0o644))
    done = site.run("dump", "TEST", "-o", site.local / "dump.gz", cs3_call_timeout_s="60")
    assert (done.code, done.err) == (0, "")
    assert text_of(site.local / "dump.gz").splitlines() == [f"large/n{number:05}" for number in range(LARGE)]


@pytest.mark.parametrize(("age", "hours", "left_out"), [("2w", 336.0, 1), ("24", 24.0, 1), ("0h", 0.0, 0)])
def test_an_age_has_a_unit_or_is_in_hours(one_site: CommandPlace, age: str, hours: float, left_out: int) -> None:
    one_site.put("new", b"1")
    told = json.loads(one_site.run("dump", "TEST", "--json", "-o", one_site.local / "dump", "--older-than", age).out)
    assert (told["older_than_h"], told["counts"]["younger_files"]) == (hours, left_out)
