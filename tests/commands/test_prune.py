"""``rucio-cs3 prune``, without a Rucio: at an embedded cloud of each line, and at a real Reva."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from rucio_cs3.cs3 import Reference, errors
from rucio_cs3.cs3.gateway import Gateway
from rucio_cs3.cs3.recycle import RecycleBin, RecycledItem
from rucio_cs3.cs3.resources import Entries
from rucio_cs3.cs3.server_clock import ClockOffset
from rucio_cs3.doctor import scratch
from tests.commands.clouds import CommandPlace
from tests.commands.running import Done

DAY_S = 86_400

#: The fixture at_delete.
AtDelete = Callable[[Callable[[Reference], object]], None]


def folders(site: CommandPlace, *names: str, days: float = 30) -> None:
    """Make folders; all that stand in the cloud by now are so old."""
    for name in names:
        site.storage.make_directories(site.file(name))
    at_s = time.time() - days * DAY_S
    for path in site.disk().rglob("*"):
        if path.is_dir():
            os.utime(path, (at_s, at_s))


def told(done: Done) -> tuple[dict[str, str], dict[str, int]]:
    """What is said of each folder, and the sums."""
    *lines, last = (json.loads(line) for line in done.out.splitlines())
    return {line["place"]: line["outcome"] for line in lines}, last["summary"]


def sums(**counts: int) -> dict[str, int]:
    """The sums; those that are not named are 0."""
    names = "removed removed_not_checked restored not_restored would_remove too_young changed_meanwhile failed"
    return {**dict.fromkeys(names.split(), 0), **counts}


def test_old_empty_folders_go(site: CommandPlace) -> None:
    """With those above that hold nothing else; all others stay."""
    site.put("data/0a/0b/file", b"x")
    folders(site, "data/0a/0c", "data/1a/1b", "empty/1/2", "empty/3", f"{scratch.PREFIX}x/y", ".hidden")
    # Newer: one that is empty, and one that something was taken out of just now.
    site.storage.delete(site.put("young/of-a-file/x", b"x"))
    site.storage.make_directories(site.file("young/new"))
    before = site.tree()

    dry = site.run("prune", site.at(), "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    *lines, last = dry.out.splitlines()
    gone = ["data/0a/0c", "data/1a", "data/1a/1b", "empty", "empty/1", "empty/1/2", "empty/3"]
    assert sorted(lines) == [f"would remove {site.at(name)}" for name in gone]
    assert last == "14 folders looked at: 7 would remove, 2 too young"
    assert site.tree() == before

    done = site.run("prune", site.at(), "--json")
    assert (done.code, done.err) == (0, "")
    outcomes, counts = told(done)
    young = {site.at(name): "too young" for name in ("young/new", "young/of-a-file")}
    assert outcomes == {**{site.at(name): "removed" for name in gone}, **young}
    assert counts == sums(looked_at=14, removed=7, too_young=2, all_well=True)
    assert site.tree() == {path: content for path, content in before.items() if path not in gone}

    again = site.run("prune", site.at())
    assert (again.code, again.out) == (0, "7 folders looked at: 2 too young\n")
    assert site.tree().keys() == before.keys() - set(gone)


def test_the_named_folder_stays(site: CommandPlace) -> None:
    folders(site, "a/b", "other/c")
    done = site.run("prune", site.url("a"), "--older-than", "2w")
    assert (done.code, done.out, done.err) == (0, "2 folders looked at: 1 removed\n", "")
    assert site.tree() == {"a": None, "other": None, "other/c": None}
    assert site.run("prune", site.at()).code == 0
    # What nothing was removed from by this run is as young as it says.
    assert site.tree() == {"a": None}


@pytest.fixture
def at_delete(monkeypatch: pytest.MonkeyPatch) -> AtDelete:
    """Has something done directly before each Delete."""
    delete = Gateway.delete

    def plan(act: Callable[[Reference], object]) -> None:
        def late(self: Gateway, reference: Reference, **options: Any) -> str | None:
            act(reference)
            return delete(self, reference, **options)

        monkeypatch.setattr(Gateway, "delete", late)

    return plan


def test_a_file_that_comes_at_the_last_moment_stays(site: CommandPlace, at_delete: AtDelete) -> None:
    folders(site, "a/b", "c/d", "e")
    arrivals = {"b": b"", "d": b"late"}

    def act(folder: Reference) -> None:
        if folder.name in arrivals:
            _arrive(site, folder, arrivals[folder.name])

    at_delete(act)
    done = site.run("prune", site.at(), "--json")
    outcomes, counts = told(done)
    assert done.code == 0
    assert {outcomes[site.at(name)] for name in ("a/b", "c/d")} == {"restored"}
    assert outcomes[site.at("e")] == "removed"
    assert counts["removed"] == 1
    # Where that is seen at once the folder above has something in it again; where it is seen later it comes back, too.
    assert {outcomes[site.at(name)] for name in ("a", "c")} <= {"restored", "changed meanwhile"}
    for name in ("a/b", "c/d"):
        assert f"{site.at(name)}: something had come into it, so it was restored with that" in done.err
    assert {path: content for path, content in site.tree().items() if content is not None} == {
        "a/b/late": b"",
        "c/d/late": b"late",
    }


def _arrive(site: CommandPlace, folder: Reference, content: bytes) -> int:
    """On the server's disk, as from somebody else."""
    return (site.cloud.path_on_disk(folder.path) / "late").write_bytes(content)


def test_ctrl_c_ends_it_between_two_folders(site: CommandPlace, at_delete: AtDelete) -> None:
    """What was removed by then is looked for in the bin all the same."""
    folders(site, "1", "2", "3", "4")

    def act(folder: Reference) -> None:
        if folder.name == "2":
            _arrive(site, folder, b"x")
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    at_delete(act)
    done = site.run("prune", site.at())
    assert done.code == 130
    assert "3 folders looked at: 1 removed, 1 restored" in done.out
    assert done.err.splitlines()[-1].startswith("Interrupted: ")
    assert site.tree() == {"2": None, "2/late": b"x", "3": None, "4": None}
    assert signal.getsignal(signal.SIGINT) is handler


def test_sigterm_ends_it_as_well(one_site: CommandPlace, at_delete: AtDelete) -> None:
    folders(one_site, "1", "2")

    def act(folder: Reference) -> None:
        if folder.name == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    at_delete(act)
    done = one_site.run("prune", one_site.at(), "--json")
    assert done.code == 143
    assert told(done) == ({one_site.at("1"): "removed"}, sums(looked_at=2, removed=1, all_well=False))
    assert one_site.tree() == {"2": None}


def test_a_second_signal_ends_it_at_once(one_site: CommandPlace, at_delete: AtDelete) -> None:
    for code, number in ((143, signal.SIGTERM), (130, signal.SIGINT)):
        folders(one_site, "1", "2")

        def act(folder: Reference, number: int = number) -> None:
            if folder.name == "1":
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), number)

        at_delete(act)
        done = one_site.run("prune", one_site.at(), "--json")
        assert done.code == code
        assert told(done) == ({}, sums(looked_at=2, all_well=False))
        assert one_site.tree() == {"1": None, "2": None}


def refused(self: RecycleBin, item: RecycledItem) -> Any:
    raise errors.AccessDenied("no")


def test_what_cannot_be_restored_is_told(
    one_site: CommandPlace, at_delete: AtDelete, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(one_site, "1")
    at_delete(lambda folder: folder.name == "1" and _arrive(one_site, folder, b"x"))
    with monkeypatch.context() as here:
        restore = RecycleBin.restore
        here.setattr(RecycleBin, "restore", lambda *a: (refused if a[1].reference.name == "1" else restore)(*a))
        done = one_site.run("prune", one_site.at(), "--json")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "is in the recycle bin with that, because it could not be restored" in done.err
    assert told(done) == ({one_site.at("1"): "not restored"}, sums(looked_at=2, not_restored=1, all_well=False))
    # Nothing is lost.
    assert one_site.tree() == {}
    assert one_site.run("undelete", one_site.at("1")).code == 0
    assert one_site.tree() == {"1": None, "1/late": b"x"}


def test_what_cannot_be_restored_above_is_told(
    one_site: CommandPlace, at_delete: AtDelete, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was made anew for what came back in it."""
    folders(one_site, "p/x")
    at_delete(lambda folder: folder.name in ("p", "x") and _arrive(one_site, folder, b"x"))
    restore = RecycleBin.restore
    monkeypatch.setattr(RecycleBin, "restore", lambda *a: (refused if a[1].reference.name == "p" else restore)(*a))
    done = one_site.run("prune", one_site.at(), "--json")
    assert done.code == 1
    assert told(done)[0] == {one_site.at("p"): "not restored", one_site.at("p/x"): "restored"}
    assert one_site.tree() == {"p": None, "p/x": None, "p/x/late": b"x"}


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("is_empty", lambda *_: None, "does not say what is in a folder"),
        ("is_empty", lambda *_: True, "that it is empty, or empties it"),
        ("is_empty", lambda *_: False, "that it is full"),
        ("is_empty", refused, "no"),
        ("restore", lambda *_: None, "does not restore"),
        ("restore", refused, "no"),
        ("items", lambda *_, **__: [], "no item there has its place"),
    ],
    ids=["unsaid", "always empty", "always full", "no look", "restores nothing", "no restoration", "no listing"],
)
def test_where_nobody_can_see_into_the_bin_nothing_is_removed(
    one_site: CommandPlace,
    at_delete: AtDelete,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    answer: Callable[..., Any],
    said: str,
) -> None:
    """Found out by a folder of our own, before anything is removed."""
    folders(one_site, "1", "2")
    monkeypatch.setattr(RecycleBin, method, answer)
    at_delete(lambda folder: folder.name == "1" and _arrive(one_site, folder, b"x"))
    done = one_site.run("prune", one_site.at(), "--json")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "nothing was removed" in done.err
    assert said in done.err
    assert "--unchecked" in done.err
    assert told(done) == ({}, sums(looked_at=2, all_well=False))
    assert {path for path in one_site.tree() if not path.startswith(".")} == {"1", "2"}

    done = one_site.run("prune", one_site.at(), "--unchecked")
    assert (done.code, done.out) == (0, "3 folders looked at: 2 removed, not checked\n")
    for name, line in zip(("1", "2"), done.err.splitlines(), strict=True):
        assert line.startswith(f"{one_site.at(name)}: removed, not checked: ")
        assert said in line
    monkeypatch.undo()
    assert one_site.run("undelete", one_site.at("1")).code == 0
    assert one_site.tree()["1/late"] == b"x"


def test_folders_of_a_killed_trial_go_and_never_come_back(one_site: CommandPlace) -> None:
    left = ".rucio-cs3.0123456789abcdef.part"
    folders(one_site, f"{left}/.rucio-cs3.inner.part")
    assert one_site.run("prune", one_site.at()).out == "3 folders looked at: 2 removed\n"
    one_site.storage.make_directories(one_site.file(left))
    one_site.storage.delete(one_site.file(left))
    assert "nothing was deleted below" in one_site.run("undelete", "--all-below", one_site.at()).err
    assert one_site.tree() == {}


def test_many_are_looked_for_together(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_cs3.pruning._TOGETHER", 4)
    folders(one_site, *(f"f/{number}" for number in range(10)))
    listings = 0
    ask = Gateway.ask

    def count(self: Gateway, method: str, *arguments: Any, **options: Any) -> Any:
        nonlocal listings
        listings += method == "ListRecycle"
        return ask(self, method, *arguments, **options)

    monkeypatch.setattr(Gateway, "ask", count)
    assert one_site.run("prune", one_site.at()).out == "12 folders looked at: 11 removed\n"
    # Eleven are three times four at most. Before, a trial removes three, and one purge of it fails.
    assert listings == 3 + 4
    assert one_site.tree() == {}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["AT:", "--older-than", "5m"], 2, "5m is too low"),
        (["AT:", "--older-than", "yesterday"], 2, "is no age"),
        (["AT:none"], 1, "CODE_NOT_FOUND"),
        (["AT:file"], 1, "is a file, not a folder"),
        (["AT:../other"], 1, "'..'"),
        (["BELOW:/localfs/elsewhere"], 1, "is not below the folder of BELOW"),
        (["WRONG:"], 1, "refuses to log in"),
        (["NOWHERE:"], 1, "NOWHERE"),
        ([], 2, "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_sentence(
    one_site: CommandPlace, arguments: list[str], code: int, said: str
) -> None:
    one_site.put("file", b"x")
    folders(one_site, "old")
    one_site.add_entry("WRONG", password="mistyped")
    one_site.add_entry("BELOW")
    done = one_site.run("prune", *(argument.replace("AT:", one_site.at()) for argument in arguments))
    assert done.code == code
    assert said in done.err
    assert "mistyped" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("Error")]) == 1
    assert one_site.tree() == {"file": b"x", "old": None}


@pytest.mark.parametrize("error", [errors.AccessDenied, errors.Unavailable, errors.DeadlineExceeded])
def test_what_cannot_be_removed_is_told(
    one_site: CommandPlace, at_delete: AtDelete, error: type[errors.CS3Error]
) -> None:
    """And the others go, unless the cloud is away; then those before it are told all the same."""
    folders(one_site, "0", "1", "2")

    def act(folder: Reference) -> None:
        if folder.name == "0":
            _arrive(one_site, folder, b"x")
        if folder.name == "1":
            raise error("no")

    at_delete(act)
    done = one_site.run("prune", one_site.at(), "--json")
    outcomes, counts = told(done)
    first, second = done.err.splitlines()
    assert (done.code, outcomes[one_site.at("0")], counts["all_well"]) == (1, "restored", False)
    assert one_site.tree().items() >= {"0": None, "0/late": b"x", "1": None}.items()
    assert ("2" in one_site.tree()) is (error is not errors.AccessDenied)
    # What the server was asked for it may do later.
    assert [line.startswith("Error: ") for line in (first, second)].count(True) == 1
    assert ("look at undelete --list" in done.err) is (error is not errors.AccessDenied)


def test_a_server_without_a_clock_is_left_alone(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_cs3.pruning.clock_offset", lambda *_: None)
    folders(one_site, "old")
    done = one_site.run("prune", one_site.at())
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "does not say what time it is" in done.err
    assert one_site.tree() == {"old": None}


def test_at_a_narrow_terminal(one_site: CommandPlace) -> None:
    """A line that says how far it is, within its width; and names are no markup."""
    folders(one_site, "a-[red]-name", "b")
    done = one_site.terminal("prune", one_site.at(), "--dry-run", columns=30, NO_COLOR="1", TERM="dumb")
    assert (done.code, "\x1b" in done.out) == (0, False)
    assert f"would remove {one_site.at('a-[red]-name')}" in done.out
    done = one_site.terminal("prune", one_site.at(), columns=30)
    *shown, last = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out.rstrip()))
    assert last == "3 folders looked at: 2 removed"
    assert any("folders looked at" in line for line in shown)
    assert {line for line in shown if len(line) > 30} == set()


# -- what a run goes by -----------------------------------------------------------------------------------------------


def test_a_file_in_a_folder_and_another_above_it(site: CommandPlace, at_delete: AtDelete) -> None:
    """What is above comes back first."""
    folders(site, "p/x")
    at_delete(lambda folder: folder.name in ("p", "x") and _arrive(site, folder, folder.name.encode()))
    done = site.run("prune", site.at(), "--json")
    assert done.code == 0
    # Where the first is seen at once, p is not empty any more, and no Delete of it is sent.
    late = {"p/late": b"p"} if site.storage.endpoint.stores_paths else {}
    assert site.tree() == {"p": None, **late, "p/x": None, "p/x/late": b"x"}


def test_a_cloud_that_is_silent_is_not_asked_of_each(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(one_site, "1", "2", "3")
    is_empty, asked = RecycleBin.is_empty, []

    def silent(self: RecycleBin, item: RecycledItem) -> bool | None:
        if item.reference.name.startswith(".rucio-cs3."):
            return is_empty(self, item)
        asked.append(item.reference.name)
        raise errors.DeadlineExceeded("no answer")

    monkeypatch.setattr(RecycleBin, "is_empty", silent)
    done = one_site.run("prune", one_site.at())
    assert asked == ["3"]
    assert done.out == "4 folders looked at: 3 removed, not checked\n"
    assert done.err.count("removed, not checked: no answer") == 3


@pytest.mark.parametrize("looks", [1, 2], ids=["the first look", "the last look"])
def test_entries_that_nobody_can_name_are_entries(
    one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    folders(one_site, "1")
    list_folder, seen = Gateway.list_folder, []

    def hiding(self: Gateway, reference: Reference) -> Entries:
        entries = list_folder(self, reference)
        if reference.name == "1":
            seen.append(reference)
            entries.left_out = len(seen) >= looks
        return entries

    monkeypatch.setattr(Gateway, "list_folder", hiding)
    done = one_site.run("prune", one_site.at())
    assert done.out == f"2 folders looked at: {'none is empty' if looks == 1 else '1 changed meanwhile'}\n"
    assert one_site.tree() == {"1": None}


def test_what_a_folder_says_of_itself(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a time, one with a name that the bin would not take, and one that is too large to be listed."""
    folders(one_site, "n" * 240, "n" * 241, "zero", "large/x")
    os.utime(one_site.disk("zero"), (0, 0))
    list_folder = Gateway.list_folder

    def limited(self: Gateway, reference: Reference) -> Entries:
        if reference.name == "large":
            raise errors.Throttled("too large", retryable=False)
        return list_folder(self, reference)

    monkeypatch.setattr(Gateway, "list_folder", limited)
    done = one_site.run("prune", one_site.at(), "--json")
    assert done.code == 0
    assert told(done)[0] == {one_site.at("n" * 240): "removed", one_site.at("zero"): "too young"}
    assert one_site.tree() == {"n" * 241: None, "zero": None, "large": None, "large/x": None}


def test_ages_are_by_the_clock_of_the_server(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = ClockOffset(least_s=-25.0 * DAY_S, most_s=0.0)
    monkeypatch.setattr("rucio_cs3.pruning.clock_offset", lambda *_: behind)
    folders(one_site, "1")
    assert one_site.run("prune", one_site.at()).out == "2 folders looked at: 1 too young\n"


@pytest.mark.parametrize("days", [30, 1], ids=["at the end", "before"])
def test_what_nobody_hears_of_is_in_the_log(
    one_site: CommandPlace,
    days: int,
    at_delete: AtDelete,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where a pipe is closed; also before it is known what has become of them."""
    folders(one_site, "1", "2", "3")
    at_s = time.time() - days * DAY_S
    os.utime(one_site.disk("3"), (at_s, at_s))
    at_delete(lambda folder: folder.name in "12" and _arrive(one_site, folder, b"x"))

    def closed(_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rucio_cs3.cli.prune.print_json", closed)
    one_site.run("prune", one_site.at(), "--json")
    said = [record.getMessage() for record in caplog.records if record.name == "rucio_cs3.pruning"]
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in said] == ["2", "1"]
    assert all("something had come into it: restored" in line for line in said)
    assert {"1/late", "2/late"} <= one_site.tree().keys()
