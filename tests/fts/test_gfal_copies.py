"""Copies that gfal2, the library under FTS, makes between two real Reva sites with this package's PFNs.

What goes wrong there is tested, too: it is what docs/fts.md warns of, and what the agent does better.
"""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from tests.contract.place import adler32, content
from tests.fts.gfal import NAMES, GfalMode, GfalRse, Grid

pytestmark = [pytest.mark.gfal, pytest.mark.reva]


def names_at(rse: GfalRse, name: str) -> list[str]:
    """What stands in a file's folder, hidden names included."""
    folder = rse.on_disk(name).parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("mode", ["pull", "push"])
@pytest.mark.parametrize("name", NAMES)
def test_third_party_copy_by_pfn(grid: Grid, mode: GfalMode, name: str) -> None:
    data = content(100_000, seed=len(name))
    grid.source.write(name, data)
    grid.destination.on_disk(name).unlink(missing_ok=True)
    outcome = grid.gfal.copy(
        grid.source.pfn(name), grid.destination.pfn(name), grid.source, grid.destination, only=mode
    )
    assert (outcome.code, outcome.message) == (0, "")
    assert grid.destination.on_disk(name).read_bytes() == data
    assert grid.source.on_disk(name).read_bytes() == data


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_rucios_choice_of_the_mode_in_the_url(grid: Grid, mode: GfalMode) -> None:
    # What [conveyor] webdav_transfer_mode makes Rucio append to source URLs (41.5.1 core/transfer.py:172).
    name = f"asked to {mode}"
    grid.source.write(name, b"content")
    source = f"{grid.source.pfn(name)}?copy_mode={mode}"
    assert grid.gfal.copy(source, grid.destination.pfn(name), grid.source, grid.destination).code == 0
    assert grid.destination.on_disk(name).read_bytes() == b"content"


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_scheme_of_cs3_gets_no_token_from_the_map(grid: Grid, mode: GfalMode) -> None:
    # davix reads cs3s and cs3 as WebDAV (davix#72), and gfal-stat takes them with BEARER_TOKEN. The tokens that FTS
    # gives for each end are not sent there, though: one more reason that FTS never gets such a hop.
    name = f"cs3 {mode}"
    pfns, tokens = [], {}
    for rse in (grid.source, grid.destination):
        scheme = "cs3s" if rse.scheme == "davs" else "cs3"
        pfns.append(rse.pfn(name).replace(rse.scheme, scheme, 1))
        tokens[rse.base.replace(rse.scheme, scheme, 1)] = rse.token
    grid.source.write(name, b"content")
    seen = grid.gfal.shell('gfal-stat "$PFN"', {"PFN": pfns[0], "BEARER_TOKEN": grid.source.token})
    assert seen.returncode == 0, seen.stderr
    outcome = grid.gfal.copy(pfns[0], pfns[1], grid.source, grid.destination, only=mode, wrong=tokens)
    assert outcome.code == errno.EACCES
    assert not grid.destination.on_disk(name).exists()
    assert grid.source.on_disk(name).read_bytes() == b"content"


@pytest.mark.parametrize("mode", ["pull", "push"])
@pytest.mark.parametrize("end", ["source", "destination"])
def test_each_token_opens_its_own_site_only(grid: Grid, mode: GfalMode, end: str) -> None:
    name = f"secret of the {end} for {mode}"
    grid.source.write(name, b"content")
    of, other = (grid.source, grid.destination) if end == "source" else (grid.destination, grid.source)
    outcome = grid.gfal.copy(
        *(grid.source.pfn(name), grid.destination.pfn(name), grid.source, grid.destination),
        only=mode,
        wrong={of.base: other.token},
    )
    assert outcome.code != 0
    assert not grid.destination.on_disk(name).exists()
    assert grid.source.on_disk(name).read_bytes() == b"content"


def test_a_missing_source(grid: Grid) -> None:
    outcome = grid.gfal.copy(
        grid.source.pfn("gone"), grid.destination.pfn("gone"), grid.source, grid.destination, only="pull"
    )
    assert outcome.code == errno.ENOENT
    assert names_at(grid.destination, "gone") == []


def test_a_file_at_the_destination_stays_unless_overwriting_was_asked_for(grid: Grid) -> None:
    grid.source.write("taken", b"new")
    grid.destination.write("taken", b"old")
    ends = (grid.source.pfn("taken"), grid.destination.pfn("taken"), grid.source, grid.destination)
    assert grid.gfal.copy(*ends).code == errno.EEXIST
    assert grid.destination.on_disk("taken").read_bytes() == b"old"
    # Rucio asks FTS for this wherever the destination is a disk (41.5.1 transfertool/fts3.py:341).
    assert grid.gfal.copy(*ends, overwrite=True).code == 0
    assert grid.destination.on_disk("taken").read_bytes() == b"new"


def test_checksums_cannot_be_compared_at_reva(grid: Grid) -> None:
    data = content(1000)
    grid.source.write("summed", data)
    outcome = grid.gfal.copy(
        *(grid.source.pfn("summed"), grid.destination.pfn("summed"), grid.source, grid.destination),
        checksum=adler32(data),
    )
    assert outcome.code == errno.ENOSYS
    assert "checksum calculation for ADLER32 not supported" in outcome.message


# -- sites without third-party copy ------------------------------------------------------------------------------


def test_a_source_without_tpc_can_be_pulled_from(grid: Grid) -> None:
    grid.without_tpc.write("pulled", b"content")
    outcome = grid.gfal.copy(
        *(grid.without_tpc.pfn("pulled"), grid.destination.pfn("pulled"), grid.without_tpc, grid.destination),
        only="pull",
    )
    assert outcome.code == 0
    assert grid.destination.on_disk("pulled").read_bytes() == b"content"


def test_a_destination_without_tpc_can_be_pushed_to(grid: Grid) -> None:
    grid.source.write("pushed", b"content")
    # gfal2 begins with a pull, which the destination refuses.
    outcome = grid.gfal.copy(grid.source.pfn("pushed"), grid.without_tpc.pfn("pushed"), grid.source, grid.without_tpc)
    assert outcome.code == 0
    assert grid.without_tpc.on_disk("pushed").read_bytes() == b"content"


@pytest.mark.parametrize("only", [None, "push"])
def test_a_push_from_a_site_without_tpc_destroys_the_source(grid: Grid, only: GfalMode | None) -> None:
    # Reva v3.12.1 without enable_http_tpc copies within itself, the host of Destination ignored, and removes what
    # stands at its path first: equal paths, and Rucio's are equal, make that the source. davix sends no Overwrite: F.
    # gfal2 pushes by itself after a pull that failed. Should this test fail, docs/fts.md may warn less.
    name = f"doomed {only}"
    grid.without_tpc.write(name, b"precious")
    outcome = grid.gfal.copy(
        *(grid.without_tpc.pfn(name), grid.also_without_tpc.pfn(name), grid.without_tpc, grid.also_without_tpc),
        only=only,
    )
    assert outcome.code != 0
    assert not grid.without_tpc.on_disk(name).exists()
    assert not grid.also_without_tpc.on_disk(name).exists()


# -- a destination that is full ----------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """One MiB under a folder; a skip by name where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_full_disk_is_success_to_gfal(grid: Grid, mode: GfalMode) -> None:
    # Reva v3.12.1 ends the answer to COPY with "success: Created" although its inner PUT failed.
    name = f"too much for {mode}"
    grid.source.write(name, content(3_000_000))
    with small_disk(grid.destination.on_disk(name).parent):
        outcome = grid.gfal.copy(
            grid.source.pfn(name), grid.destination.pfn(name), grid.source, grid.destination, only=mode
        )
        assert outcome.code == 0
        assert names_at(grid.destination, name) == []
    assert grid.source.on_disk(name).read_bytes() == content(3_000_000)
