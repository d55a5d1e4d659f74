"""``--json`` of the commands that change a cloud: an object for each place, of one family, and the same exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tests.commands.clouds import CommandPlace
from tests.commands.running import Done

#: What the object of every change has.
FAMILY = {"place", "outcome", "reason"}

ODD = "Zürich \x1b[31m\u202e\x9b.txt"


def told(done: Done, code: int = 0) -> list[dict[str, Any]]:
    """The objects; each failure is a sentence on standard error, too."""
    assert done.code == code, done
    assert done.out.isascii()
    found: list[dict[str, Any]] = [json.loads(line) for line in done.out.splitlines()]
    changes = [one for one in found if "summary" not in one]
    assert all(one.keys() >= FAMILY for one in changes), found
    failures = [one for one in changes if one["outcome"] == "failed"]
    assert all(one["reason"] for one in failures)
    assert [line[:7] for line in done.err.splitlines()] == ["Error: "] * len(failures), done.err
    assert bool(failures) == bool(code)
    return found


def test_of_folders_that_are_made(site: CommandPlace) -> None:
    made = told(site.run("mkdir", "--json", site.at("a"), site.at("a"), site.at("x/y"), "NOWHERE:z", site.at("b")), 1)
    assert [(one["place"], one["outcome"], one["type"]) for one in made] == [
        (site.at("a"), "made", "folder"),
        (site.at("a"), "failed", None),
        (site.at("x/y"), "failed", None),
        ("NOWHERE:z", "failed", None),
        (site.at("b"), "made", "folder"),
    ]
    assert "is there already" in made[1]["reason"]
    parents = told(site.run("mkdir", "-p", "--json", site.at("a"), site.at("c/d")))
    assert [(one["place"], one["outcome"]) for one in parents] == [(site.at("a"), "same"), (site.at("c/d"), "made")]
    assert site.tree() == dict.fromkeys(("a", "b", "c", "c/d"))


def test_of_what_gets_another_name(site: CommandPlace) -> None:
    site.put("a", b"a")
    site.put("folder/b", b"b")
    assert told(site.run("mv", "--json", site.at("a"), site.at("folder"))) == [
        {"place": site.at("folder/a"), "outcome": "moved", "source": site.at("a"), "reason": None}
    ]
    (failed,) = told(site.run("mv", "--json", site.at("folder/a"), site.at("folder/b")), 1)
    assert (failed["place"], failed["outcome"], failed["source"]) == (
        site.at("folder/b"), "failed", site.at("folder/a"),
    )  # fmt: skip
    wrong = site.run("mv", "--json", site.at("folder/a"), site.at("folder/a"))
    assert (wrong.code, wrong.out) == (2, "")
    assert site.tree() == {"folder": None, "folder/a": b"a", "folder/b": b"b"}


def test_of_what_is_deleted_and_comes_back(site: CommandPlace) -> None:
    for name, content in (("a", b"12"), ("folder/1", b"345"), ("folder/sub/2", b"6"), ("kept/x", b"x")):
        site.put(name, content)
    deleted = told(site.run("rm", "--json", "-r", "--yes", site.at("a"), site.at("none"), site.at("folder")), 1)
    assert deleted[0] == {
        "place": site.at("a"), "outcome": "deleted", "type": "file", "size": 2, "files": None, "folders": None,
        "reason": None,
    }  # fmt: skip
    assert (deleted[1]["place"], deleted[1]["outcome"], deleted[1]["type"]) == (site.at("none"), "failed", None)
    assert deleted[2] == {
        "place": site.at("folder"), "outcome": "deleted", "type": "folder", "size": 4, "files": 2, "folders": 1,
        "reason": None,
    }  # fmt: skip
    (refused,) = told(site.run("rm", "--json", site.at("kept")), 1)
    assert (refused["outcome"], refused["type"]) == ("failed", None)
    assert site.tree() == {"kept": None, "kept/x": b"x"}

    (back,) = told(site.run("undelete", "--json", site.at("a")))
    assert (back["place"], back["outcome"], back["type"], back["pfn"]) == (
        site.at("a"), "restored", "file", site.url("a"),
    )  # fmt: skip
    site.storage.delete(site.file("kept/x"))
    site.put("kept/x", b"there by now")
    (over,) = told(site.run("undelete", "--json", site.at("kept/x")), 1)
    assert (over["place"], over["outcome"]) == (site.at("kept/x"), "failed")
    (never,) = told(site.run("undelete", "--json", site.at("never")), 1)
    assert (never["place"], never["outcome"], never["deleted_at"]) == (site.at("never"), "failed", None)
    (unknown,) = told(site.run("undelete", "--json", "NOWHERE:x"), 1)
    assert (unknown["place"], unknown["outcome"], unknown["pfn"]) == ("NOWHERE:x", "failed", None)
    (nothing,) = told(site.run("undelete", "--json", "--all-below", site.at("never")), 1)
    assert (nothing["place"], nothing["outcome"], nothing["pfn"]) == (site.at("never"), "failed", site.url("never"))
    below = told(site.run("undelete", "--json", "--all-below", site.at("kept")), 1)
    assert [(one["place"], one["outcome"], one["type"]) for one in below] == [(site.at("kept/x"), "failed", "file")]
    assert site.tree() == {"a": b"12", "kept": None, "kept/x": b"there by now"}
    site.fault("gateway.ListRecycle", "code:CODE_PERMISSION_DENIED")
    (denied,) = told(site.run("undelete", "--json", site.at("kept/x")), 1)
    assert (denied["place"], denied["outcome"]) == (site.at("kept/x"), "failed")


def test_of_copies_has_the_place_in_the_cloud(site: CommandPlace) -> None:
    tree = site.local / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_bytes(b"12")
    (tree / "sub/b").write_bytes(b"345")
    there = {site.at("up/a"), site.at("up/sub/b")}
    up = told(site.run("put-tree", "--json", tree, site.at("up")))
    assert {(one["place"], one["outcome"]) for one in up[:-1]} == {(place, "copied") for place in there}
    down = told(site.run("get-tree", "--json", site.at("up"), site.local / "back"))
    assert {one["name"]: one["place"] for one in down[:-1]} == {"a": site.at("up/a"), "sub/b": site.at("up/sub/b")}
    put = told(site.run("put", "--json", tree / "a", tree / "none", site.at("flat/")), 1)
    assert {(one["place"], one["outcome"]) for one in put[:-1]} == {
        (site.at("flat/a"), "copied"), (site.at("flat/none"), "failed"),
    }  # fmt: skip
    (got, summary) = told(site.run("get", "--json", site.at("flat/a"), site.local / "got"))
    assert (got["place"], got["outcome"], got["size"]) == (site.at("flat/a"), "copied", 2)
    assert summary["summary"]["bytes"] == 2
    # What one command names another takes.
    assert {site.run("stat", place).code for place in there} == {0}


def test_keys_are_those_that_the_page_tells(one_site: CommandPlace) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    section = page.partition("\n## JSON\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    keys = {name: set(re.findall(r"`(\w+)`", row[-1])) for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    one_site.put("gone", b"1")
    one_site.storage.make_directories(one_site.file("old"))
    os.utime(one_site.disk("old"), (1e9, 1e9))
    source = one_site.local / "file"
    source.write_bytes(b"12")
    at = one_site.at
    for arguments in (
        ("mkdir", at("a")),
        ("put", source, at("a/")),
        ("mv", at("a/file"), at("a/other")),
        ("get", at("a/other"), one_site.local),
        ("ls", at("a")),
        ("stat", at("a/other")),
        ("du", at("a")),
        ("df", at()),
        ("rm", at("gone")),
        ("undelete --list", at()),
        ("undelete", at("gone")),
        ("prune --dry-run", at()),
    ):
        name, *rest = arguments
        done = one_site.run(*str(name).split(), "--json", *rest)
        assert (done.code, done.err) == (0, "")
        told_keys = json.loads(done.out.splitlines()[0]).keys()
        if str(name).startswith("prune"):
            assert told_keys == FAMILY
            assert json.loads(done.out.splitlines()[-1])["summary"].keys() == keys["prune"]
        elif "outcome" in told_keys:
            assert told_keys == FAMILY | keys[str(name)] - {"summary", "bytes", "all_well", "place"} | {"place"}, name
        else:
            assert told_keys == keys[str(name)] - {"file", "folder"}, name


def test_of_names_that_would_steer_a_terminal(one_site: CommandPlace) -> None:
    (made,) = told(one_site.run("mkdir", "--json", one_site.at(ODD)))
    assert made["place"] == one_site.at(ODD)
    (moved,) = told(one_site.run("mv", "--json", one_site.at(ODD), one_site.at("plain")))
    assert moved["source"] == one_site.at(ODD)
    said = one_site.run("doctor", "--json", "--read-only", one_site.at())
    assert said.out.isascii()


def test_of_what_somebody_does_not_want(one_site: CommandPlace) -> None:
    one_site.put("a", b"12")
    done = one_site.terminal("rm", "--json", one_site.at("a"), typed="n\n")
    assert done.code == 0, done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("{")]
    assert (json.loads(line)["outcome"], json.loads(line)["size"]) == ("skipped", 2)
    assert one_site.tree() == {"a": b"12"}
