"""The programs of gfal2 and davix on PFNs that this package makes: looks, downloads and uploads at a real Reva."""

from __future__ import annotations

import configparser
import errno
import re
import subprocess
from collections.abc import Mapping

import pytest

pytest.importorskip("rucio.rse", reason="neither Rucio wheel is installed")

from tests.contract.place import content
from tests.fts.gfal import NAMES, GfalRse, Grid
from tests.unit.test_docs import DOCS, blocks, section

pytestmark = [pytest.mark.gfal, pytest.mark.reva]

# davix 0.8.4 takes a token by -H alone, so it is in a command line here, where every user of the machine can read
# it. This one is good for a site that ends with the tests.
_DAVIX = 'davix-{what} ${{X509_CERT_DIR:+--capath "$X509_CERT_DIR"}} -H "Authorization: Bearer $BEARER_TOKEN" '


def shell(grid: Grid, script: str, pfn: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return grid.gfal.shell(script, {"PFN": pfn, "BEARER_TOKEN": grid.source.token, **variables})


@pytest.mark.parametrize("name", NAMES)
def test_gfal_stat(grid: Grid, name: str) -> None:
    grid.source.write(name, content(4321))
    done = shell(grid, 'gfal-stat "$PFN"', grid.source.pfn(name))
    assert done.returncode == 0, done.stderr
    assert "Size: 4321" in done.stdout
    assert "regular file" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_davix_get_and_put(grid: Grid, name: str) -> None:
    data = content(50_000, seed=len(name))
    grid.source.write(name, data)
    done = shell(grid, _DAVIX.format(what="get") + '"$PFN" fetched', grid.source.pfn(name))
    assert done.returncode == 0, done.stderr
    assert (grid.gfal.home / "fetched").read_bytes() == data
    grid.source.on_disk(name).unlink()
    done = shell(grid, _DAVIX.format(what="put") + 'fetched "$PFN"', grid.source.pfn(name))
    assert done.returncode == 0, done.stderr
    assert grid.source.on_disk(name).read_bytes() == data


def test_gfal_copy_down_and_up(grid: Grid) -> None:
    data = content(70_000)
    grid.source.write("a b", data)
    done = shell(grid, 'gfal-copy -f "$PFN" "file://$HOME/down"', grid.source.pfn("a b"))
    assert done.returncode == 0, done.stderr
    assert (grid.gfal.home / "down").read_bytes() == data
    done = shell(grid, 'gfal-copy -p -f "file://$HOME/down" "$PFN"', grid.source.pfn("ü p"))
    assert done.returncode == 0, done.stderr
    assert grid.source.on_disk("ü p").read_bytes() == data


def test_a_token_in_a_file(grid: Grid) -> None:
    # gfal2 2.21.3 reads the variable BEARER_TOKEN, and not BEARER_TOKEN_FILE; a configuration folder does as well.
    grid.source.write("filed", b"content")
    folder = grid.gfal.home / "gfal2.d"
    folder.mkdir(exist_ok=True)
    (folder / "token.conf").write_text(f"[BEARER]\nTOKEN={grid.source.token}\n")
    (folder / "token").write_text(grid.source.token)
    script = 'cp -n /etc/gfal2.d/*.conf gfal2.d/\ngfal-stat "$PFN"'
    pfn = grid.source.pfn("filed")
    told: list[Mapping[str, str]] = [
        {"GFAL_CONFIG_DIR": str(folder)},
        {"BEARER_TOKEN_FILE": str(folder / "token")},
    ]
    codes = [grid.gfal.shell(script, {"PFN": pfn, **variables}).returncode for variables in told]
    assert codes == [0, errno.EACCES]


def folder_of(rse: GfalRse, name: str) -> str:
    return rse.pfn(name).rpartition("/")[0]


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ('gfal-ls "$FOLDER"', errno.EHOSTDOWN, "HTTP 400"),
        ('gfal-ls "$ROOT"', errno.EHOSTDOWN, "HTTP 400"),
        ('gfal-sum "$PFN" ADLER32', errno.ENOSYS, "checksum calculation for ADLER32 not supported"),
        (_DAVIX.format(what="ls") + '"$FOLDER"', 255, "HTTP 400"),
    ],
)
def test_what_fails_at_reva(grid: Grid, script: str, code: int, words: str) -> None:
    # No harm to transfers, and no promise: should one of these begin to work, docs/fts.md is to say so.
    grid.source.write("seen", b"content")
    pfn = grid.source.pfn("seen")
    done = shell(grid, script, pfn, FOLDER=folder_of(grid.source, "seen"), ROOT=grid.source.base + "remote.php/webdav/")
    assert done.returncode == code
    assert words in done.stderr


# -- what docs/fts.md shows ----------------------------------------------------------------------------------------


def test_commands_of_the_page(grid: Grid) -> None:
    (script,) = [code for code in blocks(DOCS / "fts.md", "bash") if "gfal" in code]
    data = content(5000)
    grid.source.write("tried out", data)
    (grid.gfal.home / "fetched").unlink(missing_ok=True)
    done = shell(grid, script, grid.source.pfn("tried out"))
    assert done.returncode == 0, done.stderr
    assert (grid.gfal.home / "fetched").read_bytes() == data


def test_configuration_of_the_page_keeps_gfal2_from_pushing(grid: Grid) -> None:
    (example,) = re.findall(r"```ini\n(.*?)```", section(DOCS / "fts.md", "What fails"), re.DOTALL)
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # configparser's documented way
    parser.read_string(example)
    options = {
        name: value if name == "DEFAULT_COPY_MODE" else value == "true" for name, value in parser["HTTP PLUGIN"].items()
    }
    grid.without_tpc.write("safe", b"precious")
    outcome = grid.gfal.copy(
        *(grid.without_tpc.pfn("safe"), grid.also_without_tpc.pfn("safe"), grid.without_tpc, grid.also_without_tpc),
        options=options,
    )
    assert outcome.code != 0
    assert grid.without_tpc.on_disk("safe").read_bytes() == b"precious"
