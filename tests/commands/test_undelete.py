"""``rucio-cs3 undelete``, without a Rucio: at an embedded cloud of each line, and at a real Reva."""

from __future__ import annotations

import json
import time

import pytest

from rucio_cs3.undelete import moment, shown_moment
from tests.commands.clouds import CommandPlace


def test_a_file_comes_back(site: CommandPlace) -> None:
    """The newest of two; then that of a time; never over another."""
    for content in (b"first", b"second one"):
        site.put("a/b/file #1", content)
        site.storage.delete(site.file("a/b/file #1"))
        time.sleep(1.0)  # OpenCloud tells deletions apart by whole seconds
    site.put("kept", b"k")
    found = site.run("undelete", "--list", "--json", site.at()).out.splitlines()
    listed = sorted((json.loads(line) for line in found), key=lambda one: str(one["deleted_at"]))
    assert [one["place"] for one in listed] == [site.at("a/b/file #1")] * 2
    assert [one["pfn"] for one in listed] == [site.url("a/b/file #1")] * 2
    assert {one["type"] for one in listed} == {"file"}
    if site.kind != "spaces":
        assert [one["size"] for one in listed] == [5, 10]

    done = site.run("undelete", site.at("a/b/file #1"))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"restored {site.at('a/b/file #1')}, deleted {listed[1]['deleted_at']}")
    assert site.disk("a/b/file #1").read_bytes() == b"second one"

    over = site.run("undelete", site.url("a/b/file #1"))
    assert over.code == 1
    assert over.err.count("\n") == 1
    assert "something stands there, and stays" in over.err
    assert site.disk("a/b/file #1").read_bytes() == b"second one"

    site.storage.delete(site.file("a"))
    older = site.run("undelete", site.at("a/b/file #1"), "--deleted-at", listed[0]["deleted_at"], "--json")
    assert older.code == 0
    assert json.loads(older.out) == {**listed[0], "outcome": "restored", "reason": None}
    assert site.tree() == {"a": None, "a/b": None, "a/b/file #1": b"first", "kept": b"k"}


def test_a_folder_comes_back(site: CommandPlace) -> None:
    for name in ("one", "two", "deep/three"):
        site.put(f"data/{name}", name.encode())
        site.storage.delete(site.file(f"data/{name}"))
    site.put("other", b"o")
    site.storage.delete(site.file("other"))
    for name in (".rucio-cs3.0123456789abcdef.part", "four.rucio.upload"):
        site.put(f"data/{name}", b"half of")
        site.storage.delete(site.file(f"data/{name}"))
    site.put("data/two", b"there by now")
    done = site.run("undelete", "--all-below", site.at("data"), "--since", "1h")
    assert done.code == 1
    assert sorted(line.split(",")[0] for line in done.out.splitlines()) == [
        f"restored {site.at('data/deep/three')}",
        f"restored {site.at('data/one')}",
    ]
    assert done.err.count("Error: ") == done.err.count("\n") == 1
    assert "something stands there, and stays" in done.err
    assert {name: content for name, content in site.tree().items() if content is not None} == {
        "data/one": b"one",
        "data/two": b"there by now",
        "data/deep/three": b"deep/three",
    }


def test_what_was_in_a_deleted_folder_is_said_so(site: CommandPlace) -> None:
    site.put("folder/file", b"x")
    site.storage.delete(site.file("folder"))
    done = site.run("undelete", site.at("folder/file"))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"the folder {site.at('folder')}, deleted " in done.err
    assert site.run("undelete", site.at("folder")).code == 0
    assert site.disk("folder/file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["AT:none"], 1, "is not in the recycle bin"),
        (["--all-below", "AT:none"], 1, "nothing was deleted below"),
        (["--list", "AT:none"], 0, "nothing deleted at or below"),
        (["AT:file", "--deleted-at", "2020-01-01T00:00:00Z"], 1, "was not deleted at 2020-01-01T00:00:00Z, but at "),
        (["AT:file", "--since", "yesterday"], 2, "is no time"),
        (["AT:../file"], 1, "'..'"),
        (["NOWHERE:file"], 1, "NOWHERE"),
        (["--list", "--all-below", "AT:"], 2, "use one of them"),
        (["--all-below", "AT:", "--deleted-at", "2h"], 2, "--deleted-at is for one file"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    one_site: CommandPlace, arguments: list[str], code: int, said: str
) -> None:
    one_site.put("file", b"x")
    one_site.storage.delete(one_site.file("file"))
    done = one_site.run("undelete", *(argument.replace("AT:", one_site.at()) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("Error") or code == 0]) == 1
    assert not one_site.disk("file").exists()


def test_no_rights_and_a_bin_that_is_away(one_site: CommandPlace) -> None:
    one_site.put("file", b"x")
    one_site.storage.delete(one_site.file("file"))
    one_site.add_entry("WRONG", password="mistyped")
    one_site.fault("gateway.ListRecycle", "code:PERMISSION_DENIED")
    for place in (one_site.at("file", "WRONG"), one_site.at("file")):
        done = one_site.run("undelete", place)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert "mistyped" not in done.err
    assert one_site.run("undelete", one_site.at("file")).code == 0


def test_the_table_fits_a_narrow_terminal(one_site: CommandPlace) -> None:
    name = "a-rather-long-name-[red]-with-\x1b[31m-in-it.root"
    one_site.put(name, b"12345")
    one_site.storage.delete(one_site.file(name))
    done = one_site.terminal("undelete", "--list", one_site.at(), columns=40, NO_COLOR="1", TERM="dumb")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert all(len(line.rstrip("\r")) <= 40 for line in done.out.splitlines())
    assert "5 B" in done.out


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("90s", 910.0),
        ("2h", 1000.0 - 7200),
        ("1w", 1000.0 - 604_800),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:01.250+01:00", 1.25),
    ],
)
def test_times_as_people_write_them(text: str, at_s: float) -> None:
    assert moment(text, now_s=1000.0) == at_s


@pytest.mark.parametrize("text", ["", "2", "h", "2y", "-2h", "tomorrow", "99999999999h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        moment(text, now_s=1000.0)


@pytest.mark.parametrize("at_s", [0.0, 1.5, 1795281390.661, 1e18])
def test_a_time_that_is_shown_can_be_given_back(at_s: float) -> None:
    text = shown_moment(at_s)
    if at_s < 1e12:
        assert moment(text, now_s=0.0) == pytest.approx(at_s, abs=0.0005)
    else:
        assert text == "1e+18"
