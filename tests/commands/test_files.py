"""``ls``, ``stat``, ``put``, ``get``, ``cat``, ``rm``, ``mv``, ``mkdir``, ``du`` and ``df`` at each kind of cloud."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference
from rucio_cs3.cs3.resources import FileInfo
from tests.commands.clouds import CommandPlace, tree_of
from tests.commands.running import Done

CONTENT = b"physics" * 1000

#: What names may hold, and terminals, shells and URLs fall over.
ODD = "100% Zürich #1? $a 'b'.txt"


def lines(done: Done) -> list[str]:
    assert (done.code, done.err) == (0, ""), done.err
    return done.out.splitlines()


def objects(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(done)]


def said(done: Done) -> str:
    """The one sentence of a failed command."""
    assert done.code == 1, done
    assert done.err.startswith("Error: "), done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert "Traceback" not in done.err
    return done.err


def local(site: CommandPlace, name: str, content: bytes = CONTENT) -> Path:
    path = site.local / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_goes_up_and_comes_back(site: CommandPlace) -> None:
    source = local(site, ODD)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    done = site.run("put", source, site.at("new/sub/"))
    assert lines(done) == ["1 copied (7.0 kB)"]
    assert site.tree() == {"new": None, "new/sub": None, f"new/sub/{ODD}": CONTENT}
    # By name, by PFN, and where there are such, by path of CS3.
    places = [site.at(f"new/sub/{ODD}"), site.url(f"new/sub/{ODD}")]
    if site.kind != "spaces":
        places.append(f"TEST:{site.file(f'new/sub/{ODD}')}")
    for number, place in enumerate(places):
        target = site.local / str(number)
        assert lines(site.run("get", place, target)) == ["1 copied (7.0 kB)"]
        assert target.read_bytes() == CONTENT
        assert int(target.stat().st_mtime) == int(site.storage.stat(site.file(f"new/sub/{ODD}")).mtime_s)
        assert site.run("cat", place).stdout == CONTENT


def test_several_go_into_a_folder_beside_each_other(site: CommandPlace) -> None:
    sources = [local(site, f"{number}.bin", bytes([number]) * 5000) for number in range(7)]
    assert lines(site.run("put", "--parallel", 3, *sources, site.at("many/"))) == ["7 copied (35.0 kB)"]
    assert set(site.tree()) == {"many", *(f"many/{path.name}" for path in sources)}
    done = site.run("get", *(site.at(f"many/{path.name}") for path in sources), f"{site.local}/back/")
    assert lines(done) == ["7 copied (35.0 kB)"]
    assert tree_of(site.local / "back") == {path.name: path.read_bytes() for path in sources}


def test_nothing_is_replaced_unless_that_is_wished(site: CommandPlace) -> None:
    source = local(site, "a", b"new")
    site.put("a", b"old")
    assert "--overwrite replaces it" in said(site.run("put", source, site.at("a")))
    assert site.disk("a").read_bytes() == b"old"
    assert "--overwrite replaces it" in said(site.run("get", site.at("a"), site.local))
    assert source.read_bytes() == b"new"
    # One of several fails, and the others come all the same.
    other = local(site, "b")
    done = site.run("put", source, other, site.at())
    assert "TEST:a: " in said(done)
    assert done.out == "1 copied (7.0 kB), 1 failed\n"
    assert site.tree() == {"a": b"old", "b": CONTENT}
    assert lines(site.run("put", "--overwrite", source, site.at("a"))) == ["1 copied (3 B)"]
    assert site.tree() == {"a": b"new", "b": CONTENT}
    source.write_bytes(b"newer here")
    assert lines(site.run("get", "--overwrite", site.at("a"), source)) == ["1 copied (3 B)"]
    assert source.read_bytes() == b"new"


def test_a_file_that_breaks_on_the_way_is_whole_or_not_there(site: CommandPlace) -> None:
    site.fault("data.put", "return-403", 2)
    assert "TEST:a: " in said(site.run("put", local(site, "a"), site.at("a")))
    assert site.tree() == {}
    site.put("b", CONTENT)
    site.fault("data.get", "return-403", 2)
    said(site.run("get", site.at("b"), site.local / "b"))
    assert not (site.local / "b").exists()
    # A bit that flips on the way up is found where the server states checksums, and with --verify everywhere.
    site.fault("data.put", "flip-byte")
    done = site.run("put", "--verify", local(site, "c"), site.at("c"))
    assert "of what passed is" in said(done) or "419" in said(done)
    assert site.tree() == {"b": CONTENT}


def test_listings(site: CommandPlace) -> None:
    site.put("b/sub/deep.txt", b"123")
    site.put("b/z", CONTENT)
    site.put("a file", b"")
    site.storage.make_directories(site.file("empty"))
    assert lines(site.run("ls", site.at())) == ["a file", "b/", "empty/"]
    assert lines(site.run("ls", "-R", "TEST")) == ["a file", "b/", "b/sub/", "b/sub/deep.txt", "b/z", "empty/"]
    assert lines(site.run("ls", site.at("b/z"))) == ["z"]
    assert lines(site.run("ls", site.at("empty"))) == []
    assert lines(site.run("ls", site.at("empty"), site.at("b"))) == ["TEST:empty:", "TEST:b:", "sub/", "z"]
    long = [line.split() for line in lines(site.run("ls", "-l", site.at("b")))]
    assert [(words[0], words[-1]) for words in long] == [("-", "sub/"), ("7.0", "z")]
    assert " 7000 " in site.run("ls", "-l", "--bytes", site.at("b/z")).out
    found = objects(site.run("ls", "-R", "--json", site.at("b")))
    assert [(one["place"], one["type"], one["size"]) for one in found] == [
        ("TEST:b/sub", "folder", None),
        ("TEST:b/sub/deep.txt", "file", 3),
        ("TEST:b/z", "file", 7000),
    ]
    assert found[2]["pfn"] == site.url("b/z")


def test_stat(site: CommandPlace) -> None:
    site.put("file", CONTENT)
    (found,) = objects(site.run("stat", "--json", site.at("file")))
    info = site.storage.stat(site.file("file"))
    assert (found["size"], found["etag"], found["cs3_path"]) == (7000, info.etag, str(info.reference))
    assert found["checksums"] == dict(info.checksums)
    if site.kind == "spaces":
        assert found["checksums"]["md5"] == hashlib.md5(CONTENT).hexdigest()
        assert found["checksums"]["adler32"] == f"{zlib.adler32(CONTENT):08x}"
    rows = dict(line.strip().split(": ", 1) for line in lines(site.run("stat", site.at("file"))))
    assert (rows["size"], rows["PFN"], rows["type"]) == ("7.0 kB (7000 bytes)", site.url("file"), "file")
    assert dict(line.strip().split(": ", 1) for line in lines(site.run("stat", site.at())))["type"] == "folder"


def test_folders_are_made_and_counted(site: CommandPlace) -> None:
    assert lines(site.run("mkdir", site.at("a"), site.at("a/b"))) == []
    assert lines(site.run("mkdir", "-p", site.at("a/b/c/d"), site.at("a"))) == []
    assert "is there already" in said(site.run("mkdir", site.at("a")))
    assert "folder above is missing" in said(site.run("mkdir", site.at("x/y")))
    assert set(site.tree()) == {"a", "a/b", "a/b/c", "a/b/c/d"}
    site.put("a/1", b"1" * 1500)
    site.put("a/b/2", b"2" * 500)
    assert [line.split() for line in lines(site.run("du", site.at("a")))] == [
        ["0", "B", "0", "TEST:a/b/c/d"],
        ["0", "B", "0", "TEST:a/b/c"],
        ["500", "B", "1", "TEST:a/b"],
        ["2.0", "kB", "2", "TEST:a"],
    ]
    assert objects(site.run("du", "--json", "--depth", 1, site.at("a"))) == [
        {"place": "TEST:a/b", "bytes": 500, "files": 1, "folders": 2},
        {"place": "TEST:a", "bytes": 2000, "files": 2, "folders": 3},
    ]


def test_room(site: CommandPlace) -> None:
    (found,) = objects(site.run("df", "--json", site.at()))
    quota = site.storage.quota(site.folder)
    assert (found["total"], found["unlimited"]) == (quota.total_bytes, quota.remaining_bytes is None)
    shown = lines(site.run("df", site.at()))
    assert [line.split()[0] for line in shown] == ["TEST:", "used", "total", "remaining"]
    assert ("no limit" in shown[3]) == (quota.remaining_bytes is None)


def test_names_are_changed_and_nothing_is_replaced(site: CommandPlace) -> None:
    site.put("a", b"a")
    site.put("b", b"b")
    site.put("folder/x", b"x")
    assert lines(site.run("mv", site.at("a"), site.at("folder"))) == []
    assert lines(site.run("mv", site.at("folder/x"), site.at("new/sub/y"))) == []
    said(site.run("mv", site.at("b"), site.at("folder/a")))
    assert "into itself" in said(site.run("mv", site.at("new"), site.at("new/sub/")))
    said(site.run("mv", site.at("nothing"), site.at("something")))
    assert site.run("mv", site.at("b"), site.at("b")).code == 2
    assert site.tree() == {
        "b": b"b", "folder": None, "folder/a": b"a", "new": None, "new/sub": None, "new/sub/y": b"x",
    }  # fmt: skip


def test_the_folder_of_a_cloud_is_not_moved(site: CommandPlace) -> None:
    site.put("folder/sub/x", b"x")
    site.add_entry("DEEP", folder=f"{site.folder.path}/folder/sub")
    assert "never moved here" in said(site.run("mv", "DEEP:", "DEEP:x"))
    if site.kind != "spaces":
        for old in (site.folder.child("folder/sub"), site.folder.child("folder"), site.folder):
            assert "never moved here" in said(site.run("mv", f"DEEP:{old}", f"DEEP:{site.folder.parent}/elsewhere"))
    assert site.tree() == {"folder": None, "folder/sub": None, "folder/sub/x": b"x"}


def test_below_a_file_there_is_nothing(site: CommandPlace) -> None:
    site.put("file", b"1")
    source = local(site, "a")
    for arguments in (
        ("put", source, site.at("file/below")),
        ("put", source, site.at("file/below/deeper/")),
        ("put-tree", plain_tree(site), site.at("file/below")),
        ("mv", site.at("file"), site.at("file/x")),
    ):
        words = said(site.run(*arguments))
        assert "CODE_" not in words, words
        assert "a file stands where a folder is needed" in words or "into itself" in words, words
    assert site.tree() == {"file": b"1"}


def plain_tree(site: CommandPlace) -> Path:
    return local(site, "tree/x").parent


def test_nothing_is_made_here_for_what_is_not_there(one_site: CommandPlace) -> None:
    one_site.put("folder/x", b"1")
    for missing in ("none", "folder"):
        said(one_site.run("get", one_site.at(missing), f"{one_site.local}/made/"))
        assert not (one_site.local / "made").exists()
    one_site.run("get", one_site.at("none"), one_site.at("folder/x"), f"{one_site.local}/made/")
    assert tree_of(one_site.local / "made") == {"x": b"1"}


def test_cat_compares_what_is_replaced_before_it_comes(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    one_site.put("file", b"a" * 1_100_000)
    settled = CS3Storage.settled
    versions: list[dict[str, str]] = []

    def replaced(self: CS3Storage, reference: Reference) -> FileInfo:
        info = settled(self, reference)
        newer = local(one_site, "newer", bytes([ord("b") + len(versions)]) * 1_100_000)
        one_site.storage.upload(newer, reference, overwrite=True)
        sums = {"adler32": f"{zlib.adler32(newer.read_bytes()):08x}"}
        assert one_site.storage.keep_checksums(one_site.storage.stat(reference), sums)
        versions.append(sums)
        return info

    monkeypatch.setattr(CS3Storage, "settled", replaced)
    done = one_site.run("cat", one_site.at("file"))
    assert (done.code, done.err, done.stdout) == (0, "", b"b" * 1_100_000)
    one_site.fault("data.get", "flip-byte")
    assert "adler32 of what passed" in said(one_site.run("cat", one_site.at("file")))


def test_deletion(site: CommandPlace) -> None:
    for name in ("a", "b", "folder/1", "folder/sub/2"):
        site.put(name, b"12")
    assert lines(site.run("rm", site.at("a"))) == []
    assert "--recursive deletes it" in said(site.run("rm", site.at("folder")))
    assert "nobody can be asked here" in said(site.run("rm", "-r", site.at("folder")))
    said(site.run("rm", site.at("nothing")))
    for root in (site.at(), "TEST"):
        assert "never deleted here" in said(site.run("rm", "-r", "--yes", root))
    site.add_entry("DEEP", folder=f"{site.folder.path}/folder/sub")
    if site.kind != "spaces":
        above = f"DEEP:{site.file('folder')}"
        assert "never deleted here" in said(site.run("rm", "-r", "--yes", above))
    assert "never deleted here" in said(site.run("rm", "-r", "--yes", "--rse", "DEEP", site.url("folder")))
    assert set(site.tree()) == {"b", "folder", "folder/1", "folder/sub", "folder/sub/2"}
    done = site.run("rm", "-r", "--yes", site.at("folder"))
    assert (done.code, done.err) == (0, "deleted TEST:folder with 2 files and 1 folder in it (4 B)\n")
    assert site.tree() == {"b": b"12"}


def test_what_is_wrong_is_said_in_one_sentence(site: CommandPlace) -> None:
    site.put("folder/file", b"1")
    user = next(iter(site.cloud.users))
    site.add_entry("WRONG", password="mistyped-word")
    for arguments, words in (
        (("ls", site.at("nothing")), "nothing"),
        (("stat", site.at("nothing")), "nothing"),
        (("cat", site.at("nothing")), "nothing"),
        (("get", site.at("nothing"), site.local), "nothing"),
        (("du", site.at("nothing")), "nothing"),
        (("cat", site.at("folder")), "is a folder"),
        (("get", site.at("folder"), site.local), "is a folder"),
        (("put", site.local / "nothing", site.at("x")), "does not exist"),
        (("du", site.at("folder/file")), "is a file"),
        (("ls", site.at("../outside")), ".."),
        (("ls", "NOWHERE:x"), "no section [NOWHERE]"),
        (("ls", "no-cloud-at-all/x"), "names no cloud"),
        (("ls", "davs://elsewhere.test/remote.php/webdav/x"), "elsewhere.test"),
        (("ls", "WRONG:"), f"refuses to log in {user}"),
        (("put", __file__, "WRONG:x"), f"refuses to log in {user}"),
    ):
        done = site.run(*arguments)
        assert words in said(done), (arguments, done)
        assert "mistyped-word" not in done.err + done.out
        assert "copied (" not in done.out or done.out.startswith("0 copied (0 B)")
    assert site.tree() == {"folder": None, "folder/file": b"1"}
    assert tree_of(site.local) == {}


def test_without_the_right_to_nothing_happens(site: CommandPlace) -> None:
    site.put("folder/file", b"1")
    before = site.tree()
    for method, arguments in (
        ("CreateContainer", ("mkdir", site.at("new"))),
        ("InitiateFileUpload", ("put", __file__, site.at("folder/x"))),
        ("Move", ("mv", site.at("folder/file"), site.at("folder/y"))),
        ("Delete", ("rm", site.at("folder/file"))),
        ("ListContainer", ("ls", site.at("folder"))),
        ("Stat", ("stat", site.at("folder/file"))),
        *([] if site.kind == "spaces" else [("GetQuota", ("df", site.at()))]),
    ):
        site.fault(f"gateway.{method}", "code:CODE_PERMISSION_DENIED")
        assert "CODE_PERMISSION_DENIED" in said(site.run(*arguments))
        assert site.cloud.faults.pending() == []
        assert site.tree() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("put", "LOCAL/a", "LOCAL/b/a", "TEST:x/"), "two of the files are called a"),
        (("get", "TEST:p/a", "TEST:q/a", "LOCAL"), "two of the files are called a"),
        (("put", "LOCAL/a", "LOCAL/b/c", "TEST:x"), "no folder; end it with a slash"),
        (("get", "TEST:p/a", "TEST:q/c", "LOCAL/x"), "no folder; end it with a slash"),
        (("put", "LOCAL/b", "TEST:"), "put-tree copies folders"),
        (("get", "TEST:", "LOCAL"), "is a folder"),
        (("mv", "TEST:a", "OTHER:a"), "of one cloud"),
        (("put-tree", "LOCAL/nothing", "TEST:"), "does not exist"),
        (("ls",), "PLACE"),
        (("put", "--parallel", "0", "LOCAL/a", "TEST:"), "--parallel"),
    ],
)
def test_wrong_usage(one_site: CommandPlace, arguments: tuple[str, ...], words: str) -> None:
    local(one_site, "a")
    local(one_site, "b/a")
    local(one_site, "b/c")
    one_site.add_entry("OTHER", username="marie", password="radioactivity")
    done = one_site.run(*(word.replace("LOCAL", str(one_site.local)) for word in arguments))
    assert done.code in (1, 2)
    assert words in done.err
    assert one_site.tree() == {}


def test_names_of_others_do_not_steer_the_terminal(one_site: CommandPlace) -> None:
    bad = "a\x1b[31m\nb"
    (one_site.disk() / bad).write_bytes(b"1")
    for arguments in (("ls",), ("ls", "-l"), ("ls", "--json"), ("du",)):
        done = one_site.run(*arguments, one_site.at())
        assert "\x1b" not in done.out
        assert len(done.out.splitlines()) == 1, done.out
    (found,) = objects(one_site.run("ls", "--json", one_site.at()))
    assert found["name"] == bad
    done = one_site.run("get-tree", "-v", one_site.at(), one_site.local)
    assert "\x1b" not in done.out + done.err
    assert tree_of(one_site.local) == {bad: b"1"}
