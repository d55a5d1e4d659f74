"""``put-tree`` and ``get-tree`` at each kind of cloud: the layout, the second run, and what is never done."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, errors
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.files.copying import Wishes
from rucio_cs3.files.outcomes import Deed
from rucio_cs3.files.trees import get_tree, put_tree
from tests.commands.clouds import CommandPlace, tree_of

TREE: dict[str, bytes | None] = {
    "a.txt": b"first",
    "empty": None,
    "nothing": b"",
    "sub": None,
    "sub/100% Zürich #1?": b"odd",
    "sub/deep": None,
    "sub/deep/b.bin": bytes(range(256)) * 50,
}


def plant(folder: Path, tree: dict[str, bytes | None] = TREE) -> Path:
    """Make a local tree, with times in the past."""
    folder.mkdir(exist_ok=True)
    for number, (name, content) in enumerate(sorted(tree.items())):
        path = folder / name
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (1_700_000_000 + number,) * 2)
    return folder


def files(tree: dict[str, bytes | None] = TREE) -> int:
    return sum(content is not None for content in tree.values())


def test_a_tree_goes_up_and_comes_back(site: CommandPlace) -> None:
    source = plant(site.local / "source")
    done = site.run("put-tree", "--parallel", 3, source, site.at("new/tree"))
    assert (done.code, done.err, done.out) == (0, "", "4 copied (12.8 kB)\n")
    assert tree_of(site.disk("new/tree")) == TREE
    back = site.local / "back" / "here"
    done = site.run("get-tree", site.at("new/tree"), back)
    assert (done.code, done.err, done.out) == (0, "", "4 copied (12.8 kB)\n")
    assert tree_of(back) == TREE
    # Nothing moves in a second run of either.
    site.cloud.traffic.clear()
    for arguments in (("put-tree", source, site.at("new/tree")), ("get-tree", site.at("new/tree"), back)):
        done = site.run(*arguments)
        assert (done.code, done.err, done.out) == (0, "", "0 copied (0 B), 4 same\n")
    assert site.cloud.traffic.of("data.put") == []
    if site.kind == "spaces":
        assert site.cloud.traffic.of("data.get") == []  # it states checksums


def test_a_dry_run_says_what_would_be_copied_and_changes_nothing(site: CommandPlace) -> None:
    source = plant(site.local / "source")
    site.put("tree/a.txt", b"first")
    before = site.tree()
    done = site.run("put-tree", "--dry-run", source, site.at("tree"))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "0 copied (0 B), 3 would copy (12.8 kB), 1 same"
    assert "would copy sub/deep/b.bin (12.8 kB)" in done.out
    assert site.tree() == before
    done = site.run("get-tree", "--dry-run", "--json", site.at("tree"), site.local / "back")
    outcome, summary = (json.loads(line) for line in done.out.splitlines())
    assert outcome == {
        "name": "a.txt", "place": site.at("tree/a.txt"), "outcome": "would copy", "size": 5, "reason": None,
    }  # fmt: skip
    assert summary["summary"]["would_copy"] == 1
    assert not (site.local / "back").exists()


def test_what_differs_is_named_and_replaced_only_where_that_is_wished(site: CommandPlace) -> None:
    source = plant(site.local / "source")
    assert site.run("put-tree", source, site.at("tree")).code == 0
    # Changed on both sides; on one side; and so that size, time and adler32 say nothing of it.
    site.storage.delete(site.file("tree/a.txt"))
    site.put("tree/a.txt", b"changed in the cloud")
    (source / "a.txt").write_bytes(b"changed here")
    (source / "sub/deep/b.bin").write_bytes(b"longer" * 5000)
    site.put("tree/same size", b"121")
    (source / "same size").write_bytes(b"202")
    there, here = site.tree(), tree_of(source)
    for arguments in (("put-tree", source, site.at("tree")), ("get-tree", site.at("tree"), source)):
        done = site.run(*arguments)
        assert done.code == 1
        assert sorted(line.split(": ")[1] for line in done.err.splitlines()) == ["a.txt", "same size", "sub/deep/b.bin"]
        assert done.err.count("--overwrite replaces what is there") == 3
        assert done.out == "0 copied (0 B), 2 same, 3 failed\n"
        assert (site.tree(), tree_of(source)) == (there, here)
    assert site.run("put-tree", "--overwrite", source, site.at("tree")).out == "3 copied (30.0 kB), 2 same\n"
    assert tree_of(site.disk("tree")) == here


def test_by_time_a_second_run_reads_nothing(site: CommandPlace) -> None:
    source, back = plant(site.local / "source"), site.local / "back"
    assert site.run("put-tree", source, site.at("tree")).code == 0
    assert site.run("get-tree", site.at("tree"), back).code == 0
    # Same size and second, and another content: that is what is trusted.
    (back / "a.txt").write_bytes(b"FIRST")
    os.utime(back / "a.txt", (site.storage.stat(site.file("tree/a.txt")).mtime_s,) * 2)
    site.cloud.traffic.clear()
    for arguments in (("get-tree", site.at("tree"), back), ("put-tree", back, site.at("tree"))):
        assert site.run(*arguments, "--compare", "time").out == "0 copied (0 B), 4 same\n"
    assert site.cloud.traffic.of("data.get") == []
    assert site.run("put-tree", back, site.at("tree")).out == "0 copied (0 B), 3 same, 1 failed\n"


def test_what_was_verified_is_not_read_again(site: CommandPlace) -> None:
    source = plant(site.local / "source", {"large": b"x" * 1_500_000})
    assert site.run("put-tree", "--verify", source, site.at("tree")).code == 0
    site.cloud.traffic.clear()
    assert site.run("put-tree", source, site.at("tree")).out == "0 copied (0 B), 1 same\n"
    assert site.cloud.traffic.of("data.get") == []


def test_a_folder_that_is_too_large_to_list_is_looked_at_name_by_name(
    one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(*_: object) -> None:
        raise errors.Throttled("too many entries for one message")

    source = plant(one_site.local / "source")
    one_site.put("tree/a.txt", b"first")
    one_site.put("tree/nothing", b"something")
    one_site.put("tree/sub/deep/b.bin", TREE["sub/deep/b.bin"] or b"")
    monkeypatch.setattr(CS3Storage, "list", too_many)
    done = one_site.run("put-tree", source, one_site.at("tree"))
    assert (done.code, done.out) == (1, "1 copied (3 B), 2 same, 1 failed\n")
    assert tree_of(one_site.disk("tree")) == {**TREE, "nothing": b"something"}


def test_a_run_that_broke_off_is_gone_on_with(site: CommandPlace) -> None:
    source = plant(site.local / "source")
    site.fault("data.put", "return-403", 2)
    done = site.run("put-tree", "--parallel", 1, source, site.at("tree"))
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("Error: a.txt: ")
    assert done.out == "3 copied (12.8 kB), 1 failed\n"
    assert tree_of(site.disk("tree")) == {name: content for name, content in TREE.items() if name != "a.txt"}
    assert site.run("put-tree", source, site.at("tree")).out == "1 copied (5 B), 3 same\n"
    assert tree_of(site.disk("tree")) == TREE
    site.fault("data.get", "return-403", 2)
    done = site.run("get-tree", "--parallel", 1, site.at("tree"), site.local / "back")
    assert (done.code, done.out) == (1, "3 copied (12.8 kB), 1 failed\n")
    assert site.run("get-tree", site.at("tree"), site.local / "back").out == "1 copied (5 B), 3 same\n"
    assert tree_of(site.local / "back") == TREE


def test_what_no_cloud_has_is_named_and_left_out(site: CommandPlace) -> None:
    source = plant(site.local / "source", {"a": b"a", "sub": None})
    (source / "link").symlink_to("a")
    (source / "folder link").symlink_to(site.local)
    os.mkfifo(source / "sub" / "pipe")
    (source / ".rucio-cs3.0123.part").write_bytes(b"half")
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        previous = Path.cwd()
        os.chdir(source)  # names of sockets are short
        listener.bind("socket")
        os.chdir(previous)
    (source / os.fsdecode(b"no\xffutf8")).mkdir()
    done = site.run("put-tree", source, site.at("tree"))
    assert (done.code, done.out) == (1, "1 copied (1 B), 5 skipped, 1 failed\n")
    assert sorted(done.err.splitlines())[1:] == [
        "skipped .rucio-cs3.0123.part: an unfinished download",
        "skipped folder link: a symbolic link",
        "skipped link: a symbolic link",
        "skipped socket: a socket",
        "skipped sub/pipe: a pipe",
    ]
    assert "no\ufffdutf8" in done.err
    assert tree_of(site.disk("tree")) == {"a": b"a", "sub": None}


def test_files_and_folders_are_not_taken_for_each_other(site: CommandPlace) -> None:
    source = plant(site.local / "source", {"x": b"file", "y/inside": b"1", "z": b"z"})
    site.put("tree/x/inside", b"1")
    site.put("tree/y", b"file")
    before = site.tree()
    done = site.run("put-tree", "--overwrite", source, site.at("tree"))
    assert (done.code, done.out) == (1, "1 copied (1 B), 2 failed\n")
    assert site.tree() == {**before, "tree/z": b"z"}
    here = tree_of(source)
    done = site.run("get-tree", "--overwrite", site.at("tree"), source)
    assert (done.code, done.out) == (1, "0 copied (0 B), 1 same, 2 failed\n")
    assert tree_of(source) == here
    assert site.run("put-tree", source, site.at("tree/y")).code == 1
    assert site.run("get-tree", site.at("tree/y"), site.local / "back").code == 1
    assert not (site.local / "back").exists()


def test_nothing_is_written_outside_of_the_local_folder(site: CommandPlace) -> None:
    for name in ("escape/passwd", "file", "fine"):
        site.put(f"tree/{name}", b"theirs")
    outside = plant(site.local / "outside", {"passwd": b"mine"})
    target = plant(site.local / "target", {})
    (target / "escape").symlink_to(outside)
    (target / "file").symlink_to(outside / "passwd")
    done = site.run("get-tree", "--overwrite", site.at("tree"), target)
    assert (done.code, done.out) == (1, "1 copied (6 B), 2 failed\n")
    assert done.err.count("a symbolic link of this name is here") == 2
    assert tree_of(outside) == {"passwd": b"mine"}
    assert (target / "file").is_symlink()
    assert (target / "fine").read_bytes() == b"theirs"
    # The folder that a person names may be a link.
    (site.local / "named").symlink_to(outside)
    assert site.run("get-tree", site.at("tree/escape"), site.local / "named").code == 1
    assert site.run("get-tree", "--overwrite", site.at("tree/escape"), site.local / "named").code == 0
    assert tree_of(outside) == {"passwd": b"theirs"}


def test_names_that_lead_elsewhere_are_refused(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server might list them that means harm."""
    from rucio_cs3.cs3.gateway import Gateway
    from rucio_cs3.cs3.resources import listed

    one_site.put("tree/fine", b"1")
    list_folder = Gateway.list_folder

    def hostile(self: Gateway, reference: object) -> object:
        from cs3.storage.provider.v1beta1 import resources_pb2

        found: list[FileInfo] = list_folder(self, reference)  # type: ignore[arg-type]
        names = ["..", "/etc/passwd/..", "a/../../b", *(info.reference.name for info in found)]
        kind = resources_pb2.RESOURCE_TYPE_FILE
        infos = [resources_pb2.ResourceInfo(name=name, path=name, type=kind, size=1) for name in names]
        return listed(reference, infos)  # type: ignore[arg-type]

    monkeypatch.setattr(Gateway, "list_folder", hostile)
    done = one_site.run("get-tree", one_site.at("tree"), one_site.local / "back")
    assert (done.code, done.out) == (1, "1 copied (1 B), 1 failed\n")
    assert "names lead elsewhere" in done.err
    assert tree_of(one_site.local) == {"back": None, "back/fine": b"1"}


def test_a_cloud_that_is_away_or_full_ends_the_run(one_site: CommandPlace) -> None:
    source = plant(one_site.local / "source", {f"{number:03}": b"x" for number in range(100)})
    one_site.fault("data.put", "return-507")
    done = one_site.run("put-tree", "--parallel", 1, source, one_site.at("tree"))
    assert done.code == 1
    assert [line.split(": ")[1] for line in done.err.splitlines()] == [
        "000",
        "given up, because the other files would fail as well",
    ]
    assert done.out == "0 copied (0 B), 1 failed\n"
    assert one_site.tree() == {"tree": None}


def test_other_threads_of_a_program_go_on(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a tree ends or is ended: who uses the same storage does not notice."""
    source = plant(one_site.local / "source")
    broken: list[int] = []
    monkeypatch.setattr(one_site.storage.http, "break_off", lambda: broken.append(1))
    assert len(list(put_tree(one_site.storage, source, one_site.file("t"), Wishes(skip_same=True)))) == files()
    for going in (
        put_tree(one_site.storage, source, one_site.file("u"), Wishes(skip_same=True)),
        get_tree(one_site.storage, one_site.file("t"), one_site.local / "back", Wishes(skip_same=True)),
    ):
        next(going)
        going.close()
    assert broken == []


def test_the_same_is_not_said_of_an_old_look(site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Any look is old.
    monkeypatch.setattr("rucio_cs3.files.copying.LOOK_S", -1.0)
    source = plant(site.local / "source", {"a": b"a", "b": b"bbbb", "c": b"cccc"})
    storage, top = site.storage, site.file("t")
    once = Wishes(skip_same=True, threads=1)

    def replaced(text: str) -> None:
        newer = site.local / "newer"
        newer.write_text(text)
        storage.upload(newer, top.child("b"), overwrite=True)

    assert [one.deed for one in put_tree(storage, source, top, once)] == [Deed.COPIED] * 3
    going = put_tree(storage, source, top, once)
    found = [next(going)]
    replaced("their")
    storage.delete_file(top.child("c"))
    found += going
    # What is there now counts: another content is not replaced, and what is gone is not said to be there.
    assert [one.deed for one in found[:2]] == [Deed.SAME, Deed.FAILED]
    assert "the content differs" in found[1].reason
    assert found[2].deed is (Deed.COPIED if site.kind == "spaces" else Deed.FAILED)
    replaced("bbbb")
    assert Deed.FAILED not in [one.deed for one in put_tree(storage, source, top, once)]
    coming = get_tree(storage, top, source, once)
    found = [next(coming)]
    replaced("their")
    found += coming
    assert [one.deed for one in found] == [Deed.SAME, Deed.FAILED, Deed.SAME]
    assert (source / "b").read_bytes() == b"bbbb"


def test_times_that_no_calendar_has_end_nothing(site: CommandPlace) -> None:
    """Reva v3.12.1 and the embedded clouds state a time before 1970 as an enormous one."""
    for name in ("a", "b", "c"):
        site.put(f"old/{name}", name.encode())
    os.utime(site.disk("old/b"), (-100, -100))
    done = site.run("get-tree", site.at("old"), site.local / "back")
    assert (done.code, done.err, done.out) == (0, "", "3 copied (3 B)\n")
    assert tree_of(site.local / "back") == {"a": b"a", "b": b"b", "c": b"c"}
    done = site.run("get", site.at("old/b"), site.local / "alone")
    assert (done.code, done.err) == (0, "")
    assert site.run("get-tree", site.at("old"), site.local / "back").out == "0 copied (0 B), 3 same\n"
