"""How commands end that are interrupted, or that nobody reads any more; and how they look at odd terminals."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands.clouds import CommandPlace, tree_of
from tests.commands.running import CTRL_C, PROGRAM, wait_until

#: Large enough not to be on its way at once, in bytes.
_LARGE = 8_000_000

#: Slow enough that a file of that size is on its way for half a minute.
_SLOWLY = "throttle:250000"

#: What Ctrl-C may take on a machine that does much else, in seconds; the promise is a second or two.
_SOON_S = 20.0


def planted(folder: Path, number: int, size: int = _LARGE) -> Path:
    folder.mkdir()
    for one in range(number):
        (folder / f"{one}.bin").write_bytes(bytes([one]) * size)
    return folder


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0  # gone meanwhile


def hidden(site: CommandPlace) -> list[str]:
    return [name for name in site.tree() if ".rucio-cs3." in name]


def seen(site: CommandPlace) -> dict[str, bytes | None]:
    """What has a name of its own."""
    return {name: content for name, content in site.tree().items() if ".rucio-cs3." not in name}


@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupted_upload_of_a_tree_leaves_no_half_file(site: CommandPlace, threads: int) -> None:
    source = planted(site.local / "source", 3)
    site.fault("data.put", _SLOWLY, threads)
    with site.started("put-tree", "--parallel", threads, source, site.at("tree")) as running:
        wait_until(lambda: not site.cloud.faults.pending(), "the uploads")
        running.interrupt()
        began = time.monotonic()
        done = running.end()
    assert time.monotonic() - began < _SOON_S
    assert done.code == 130, done
    assert done.err == "Interrupted: 0 files copied; the same command goes on from there\n"
    assert done.out == ""
    assert seen(site) == {"tree": None}
    if threads == 1:
        # Several are removed in so far as two seconds allow.
        wait_until(lambda: not hidden(site), "nothing half there")
    assert site.run("put-tree", source, site.at("tree")).out.startswith("3 copied")
    assert seen(site) == {"tree": None, **{f"tree/{name}": content for name, content in tree_of(source).items()}}


def test_a_large_file_goes_on_where_it_was_interrupted(site: CommandPlace) -> None:
    source = planted(site.local / "source", 1, 60_000_000)
    site.add_entry("TUS", cs3_upload_protocol="tus")
    site.fault("data.patch", "throttle:10000000")
    server: Any = getattr(site.cloud, "site", site.cloud)

    def arrived() -> int:
        return max(size_of(path) for path in server.directory.rglob("*"))

    def is_at_rest() -> bool:
        before = arrived()
        time.sleep(0.5)
        return arrived() == before

    with site.started("put-tree", source, site.at("tree", "TUS")) as running:
        wait_until(lambda: arrived() > 10_000_000, "a part of the file")
        running.interrupt()
        done = running.end()
    assert (done.code, done.out) == (130, ""), done
    assert seen(site) == {"tree": None}
    # A server that still takes in what had been sent is not waited for for long: then all goes once more.
    wait_until(is_at_rest, "the end of the broken request")
    site.cloud.traffic.clear()
    assert site.run("put-tree", source, site.at("tree", "TUS")).out == "1 copied (60.0 MB)\n"
    assert site.disk("tree/0.bin").read_bytes() == (source / "0.bin").read_bytes()
    offsets = [passed.upload_offset or 0 for passed in site.cloud.traffic.of("data.patch")]
    assert min(offsets) > 10_000_000


def test_an_interrupted_download_of_a_tree_leaves_no_half_file(site: CommandPlace) -> None:
    for one in range(3):
        site.put(f"tree/{one}.bin", bytes([one]) * _LARGE)
    target = site.local / "target"
    site.fault("data.get", _SLOWLY, 2)
    with site.started("get-tree", "--parallel", 2, site.at("tree"), target) as running:
        wait_until(lambda: not site.cloud.faults.pending(), "the downloads")
        running.interrupt()
        done = running.end()
    assert (done.code, done.out) == (130, "")
    assert done.err.startswith("Interrupted: ")
    assert len(done.err.splitlines()) == 1
    assert tree_of(target) == {}
    assert site.run("get-tree", site.at("tree"), target).out.startswith("3 copied")
    assert tree_of(target) == tree_of(site.disk("tree"))


def test_a_server_that_is_silent_does_not_keep_a_command(site: CommandPlace) -> None:
    source = planted(site.local / "source", 2, 10)
    for arguments, point in (
        (("put", source / "0.bin", site.at("x")), "data.put"),
        (("put", source / "0.bin", source / "1.bin", site.at("y/")), "data.put"),
        (("ls", site.at()), "gateway.ListContainer"),
    ):
        site.fault(point, "stall", arguments.count(source / "1.bin") + 1)
        with site.started(*arguments) as running:
            wait_until(lambda: not site.cloud.faults.pending(), "the stall")
            running.interrupt()
            began = time.monotonic()
            done = running.end()
        assert time.monotonic() - began < _SOON_S
        assert (done.code, done.out) == (130, ""), done
        assert len(done.err.splitlines()) == 1
    assert not site.disk("x").exists()


def test_told_to_end_it_tidies_up_as_well(one_site: CommandPlace) -> None:
    source = planted(one_site.local / "source", 1)
    one_site.fault("data.put", _SLOWLY)
    with one_site.started("put", source / "0.bin", one_site.at("x")) as running:
        wait_until(lambda: not one_site.cloud.faults.pending(), "the upload")
        running.process.send_signal(signal.SIGTERM)
        done = running.end()
    assert (done.code, done.out, done.err) == (143, "", "")
    wait_until(lambda: one_site.tree() == {}, "nothing half there")


@pytest.mark.parametrize(
    "arguments",
    [("cat", "TEST:large"), ("ls", "-R", "TEST:"), ("du", "TEST:"), ("ls", "--help"), ("--help",)],
)
def test_a_pipe_that_nobody_reads_is_no_error(one_site: CommandPlace, arguments: tuple[str, ...]) -> None:
    one_site.put("large", b"x" * 1_000_000)
    if arguments[0] in ("ls", "du"):
        for number in range(40):
            (one_site.disk() / f"{number:02}{'x' * 200}").mkdir()
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    done = subprocess.run(
        [str(PROGRAM), *arguments],
        env=one_site.environment(),
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_narrow_and_plain_terminals(one_site: CommandPlace, term: str) -> None:
    source = planted(one_site.local / "source", 2, 2_000_000)
    settings = {"TERM": term, "NO_COLOR": "1"}
    one_site.fault("data.put", "throttle:2000000", 2)
    done = one_site.terminal("put-tree", source, one_site.at("tree"), columns=40, **settings)
    assert done.code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", done.out), "a colour"
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", done.out)]
    assert max(map(len, shown)) <= 40, shown
    assert shown[-2] == "2 copied (4.0 MB)"
    if term == "dumb":
        assert "\x1b" not in done.out
        assert shown == ["2 copied (4.0 MB)", ""]
    else:
        assert any(re.fullmatch(r"\d files? +\d.*", line.strip()) for line in shown), shown
    for arguments in (("ls", "-l"), ("stat",), ("df",), ("du",)):
        done = one_site.terminal(*arguments, one_site.at("tree"), columns=40, **settings)
        assert done.code == 0
        assert "\x1b" not in done.out


def test_at_a_terminal_rm_asks(one_site: CommandPlace) -> None:
    one_site.put("folder/a", b"1")
    done = one_site.terminal("rm", "-r", one_site.at("folder"), typed="n\n")
    assert done.code == 0
    assert "Delete TEST:folder with 1 file and 0 folders in it (1 B)? [y/N]" in done.out
    assert one_site.tree() == {"folder": None, "folder/a": b"1"}
    done = one_site.terminal("rm", one_site.at("folder/a"), typed=CTRL_C)
    assert done.code == 130
    assert one_site.tree() == {"folder": None, "folder/a": b"1"}
    assert one_site.terminal("rm", "-r", one_site.at("folder"), typed="y\n").code == 0
    assert one_site.tree() == {}
