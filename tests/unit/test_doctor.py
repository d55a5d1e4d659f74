"""Who of the doctor's checks may begin, and what becomes of those that do not end; no cloud, no Rucio."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cs3.storage.provider.v1beta1 import provider_api_pb2, resources_pb2

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import MountRoot, Reference
from rucio_cs3.doctor import examination as examination_module
from rucio_cs3.doctor import folders
from rucio_cs3.doctor.checks import all_checks
from rucio_cs3.doctor.deadlines import begin, within
from rucio_cs3.doctor.examination import Examination
from rucio_cs3.doctor.findings import (
    TEXT_MAX_CHARACTERS,
    Check,
    Finding,
    Status,
    Verdict,
    broken,
    not_tried,
    note,
    ok,
    verdict,
    weak,
)
from rucio_cs3.doctor.report import Report
from rucio_cs3.doctor.subjects import Subject


def check(name: str, look: Callable[[Any], Finding], *needs: str, **more: Any) -> Check[Any]:
    return Check(name=name, look=look, needs=needs, **more)


def run(*checks: Check[Any], **more: Any) -> dict[str, Finding]:
    return dict(Examination(None, checks, **more).run())


def test_the_order_of_the_table_stays() -> None:
    released = threading.Event()

    def slow(_: object) -> Finding:
        assert released.wait(20)
        return ok("late")

    def quick(_: object) -> Finding:
        released.set()
        return ok("soon")

    assert list(run(check("slow", slow), check("quick", quick))) == ["slow", "quick"]


@pytest.mark.parametrize(
    ("found", "goes_on"),
    [(ok("x"), True), (note("x"), True), (weak("x", "y"), True), (broken("x", "y"), False), (not_tried("x"), False)],
)
def test_what_needs_another_is_tried_only_after_its_success(found: Finding, goes_on: bool) -> None:
    results = run(
        check("first", lambda _: found),
        check("second", lambda _: ok("done"), "first"),
        check("third", lambda _: ok("done"), "second"),
    )
    expected = Status.OK if goes_on else Status.NOT_TRIED
    assert {results["second"].status, results["third"].status} == {expected}
    if not goes_on:
        assert "'first'" in results["second"].seen


def test_an_error_of_the_client_is_the_finding() -> None:
    def fails(_: object) -> Finding:
        raise errors.NoSpaceLeft("full", operation="PUT")

    found = run(check("upload", fails, advice="Make room.", severity=Status.WEAK))["upload"]
    assert (found.status, found.seen, found.advice) == (Status.WEAK, "PUT: full", "Make room.")
    assert found.facts == {"error": "NoSpaceLeft"}


@pytest.mark.parametrize("error", [ConnectionError("refused\n  by them"), SystemExit("refused by them")])
def test_whatever_else_is_raised_is_one_row(error: BaseException) -> None:
    """By requests below Rucio, or by a site's policy package."""

    def strange(_: object) -> Finding:
        raise error

    found = run(check("strange", strange, severity=Status.WEAK), check("other", lambda _: ok("done")))
    assert (found["strange"].status, found["strange"].seen) == (Status.WEAK, f"{type(error).__name__}: refused by them")
    assert found["strange"].advice
    assert found["other"].status is Status.OK


def test_who_is_silent_for_too_long_is_named() -> None:
    released = threading.Event()
    with pytest.raises(errors.DeadlineExceeded, match="Rucio has not answered within 0 s"):
        within(0.05, "Rucio", lambda: released.wait(20))
    released.set()
    assert within(20, "Rucio", lambda: "answer") == "answer"
    with pytest.raises(KeyError):
        within(20, "Rucio", lambda: {"a": 1}["nothing"])


def test_an_interrupted_wait_does_not_take_a_writer_for_ended() -> None:
    """On Python 3.11 a join that is interrupted does."""
    released = threading.Event()

    def writes(_: object) -> Finding:
        released.wait(20)
        return ok("written")

    examination: Examination[Any] = Examination(None, [check("writes", writes, writes=True, deadline_s=0.05)])
    examination.run()
    main = threading.main_thread()
    assert threading.current_thread() is main
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        threading.Timer(0.1, signal.pthread_kill, [main.ident, signal.SIGUSR1]).start()
        with pytest.raises(KeyboardInterrupt):
            examination.settle(20)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert examination.settle(0.05) is False
    released.set()
    assert examination.settle(20) is True


def test_who_begins_as_it_is_interrupted_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose thread has begun is waited for; one whose thread has not never begins."""
    released, written = threading.Event(), threading.Event()

    def writes(_: object) -> Finding:
        released.wait(20)
        written.set()
        return ok("written")

    for begun in (True, False):

        def interrupted(*arguments: Any, begun: bool = begun) -> None:
            if begun:
                begin(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(examination_module, "begin", interrupted)
        examination: Examination[Any] = Examination(None, [check("writes", writes, writes=True)])
        with pytest.raises(KeyboardInterrupt):
            examination.run()
        assert examination.settle(0.05) is not begun
        released.set()
        assert examination.settle(20) is True
        assert written.is_set() is begun
        released.clear()
        written.clear()


def test_who_does_not_end_is_given_up_and_not_believed_later() -> None:
    released = threading.Event()
    found_late = threading.Event()

    def silent(_: object) -> Finding:
        released.wait(20)
        found_late.set()
        return ok("after all")

    def other(_: object) -> Finding:
        return ok("done")

    examination: Examination[Any] = Examination(
        None, [check("silent", silent, writes=True, deadline_s=0.05), check("after", other, "silent")]
    )
    results = examination.run()
    assert results["silent"].status is Status.BROKEN
    assert "no end of it" in results["silent"].seen
    assert results["after"].status is Status.NOT_TRIED
    released.set()
    examination.settle(20)
    assert found_late.is_set()
    assert examination.found["silent"].status is Status.BROKEN


def test_read_only_leaves_out_what_writes() -> None:
    written = []
    results = run(
        check("write", lambda _: written.append(1) or ok("x"), writes=True),  # type: ignore[func-returns-value]
        check("look", lambda _: ok("x")),
        read_only=True,
    )
    assert (written, results["write"].status, results["look"].status) == ([], Status.NOT_TRIED, Status.OK)


@pytest.mark.parametrize(
    ("findings", "expected", "code"),
    [
        ([ok("x"), note("x"), not_tried("x")], Verdict.OK, 0),
        ([ok("x"), weak("x", "y")], Verdict.DEGRADED, 3),
        ([weak("x", "y"), broken("x", "y")], Verdict.BROKEN, 4),
    ],
)
def test_the_worst_decides(findings: list[Finding], expected: Verdict, code: int) -> None:
    found = {str(number): finding for number, finding in enumerate(findings)}
    assert (verdict(found), verdict(found).exit_code) == (expected, code)


def test_the_page_has_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text("utf-8").partition("## The checks")[2]
    told = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    subject = Subject(name="X", protocol={}, rse={})
    pytest.importorskip("rucio", reason="neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    made = [check.name for check in all_checks(subject, read_only=False)]
    assert told == made
    assert sorted(check.name for check in all_checks(subject, read_only=True)) == sorted(made)
    for check in all_checks(subject, read_only=False):
        assert set(check.needs) <= set(made[: made.index(check.name)])


@pytest.fixture
def rucio_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What asks Rucio, in a client without a server."""
    pytest.importorskip("rucio", reason="neither Rucio wheel is installed")
    from tests.unit.rucio_client import configure

    configure(tmp_path, monkeypatch)
    from rucio_cs3.doctor import rucio_words

    return rucio_words


def test_a_policy_package_that_raises_anything_is_one_row(
    rucio_words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rucio_cs3.doctor import rucio_side

    (tmp_path / "sites_own_policy.py").write_text("raise SystemExit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RUCIO_POLICY_PACKAGE", "sites_own_policy")
    subject = Subject(name="X", protocol={"scheme": "davs", "impl": "x"}, rse={"rse": "X"})
    (row,) = [one for one in rucio_side.checks() if one.name == "Rucio policy"]
    found = row.look(subject)
    assert found.status is Status.BROKEN
    assert "[policy] package sites_own_policy cannot be imported: SystemExit: no licence" in found.seen


def test_modules_of_rucio_that_do_not_come_are_one_row(rucio_words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rucio_cs3.doctor import rucio_side

    never = threading.Event()
    monkeypatch.setattr(rucio_side, "_PREPARE_S", 0.05)
    monkeypatch.setattr(rucio_words.Rucio, "prepare", lambda: never.wait(20))
    subject = Subject(name="X", protocol={"scheme": "davs", "impl": "x"}, rse={"rse": "X"})
    (row,) = [one for one in rucio_side.checks() if one.name == "Rucio policy"]
    found = row.look(subject)
    never.set()
    assert (found.status, "has not answered within" in found.seen) == (Status.BROKEN, True)


@pytest.mark.parametrize("failure", [ConnectionError("refused"), RuntimeError("refused")])
def test_a_rucio_that_cannot_be_asked_has_not_said_that_there_is_no_distance(
    rucio_words: Any, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fails(self: object, *pair: str) -> None:
        raise failure

    def none(self: object, *pair: str) -> None:
        raise StopIteration

    from rucio.client.rseclient import RSEClient

    monkeypatch.setattr(RSEClient, "__init__", lambda self: None)
    monkeypatch.setattr(RSEClient, "list_rses", lambda self: iter([{"rse": "OTHER"}]))
    monkeypatch.setattr(RSEClient, "get_distance", none)
    assert rucio_words.Rucio.distances({"rse": "X"}) == ([], None)
    monkeypatch.setattr(RSEClient, "get_distance", fails)
    with pytest.raises(errors.ConfigurationError, match="Rucio cannot be asked: refused"):
        rucio_words.Rucio.distances({"rse": "X"})


@pytest.mark.parametrize(
    ("size_mb", "status", "words"),
    [
        (4, Status.OK, "10.2 MB at most"),
        (4.5, Status.NOTE, "4 MiB"),
        (5.3, Status.WEAK, "Reva passes on"),
        (12, Status.NOTE, "this package takes 167.8 MB at most"),
    ],
)
def test_how_near_a_listing_is_to_the_limits(size_mb: float, status: Status, words: str) -> None:
    """Of whoever has the smallest one."""
    info = resources_pb2.ResourceInfo(path=f"/folder/{'x' * 989}")
    answer = provider_api_pb2.ListContainerResponse(infos=[info] * int(size_mb * 1000))
    assert abs(answer.ByteSize() - size_mb * 1e6) < 0.05e6
    subject: Any = SimpleNamespace(
        home=Reference(MountRoot("/"), "folder"),
        scratch=None,
        name="X",
        gateway=SimpleNamespace(ask=lambda *_, **__: answer),
    )
    found = folders._listing(subject)
    assert (found.status, words in found.seen) == (status, True), found


def test_something_left_behind_is_a_weakness() -> None:
    assert Report(name="X", findings={"a": ok("x")}, left=["folder"]).verdict is Verdict.DEGRADED
    assert Report(name="X", findings={"a": broken("x", "y")}, left=["folder"]).verdict is Verdict.BROKEN


def test_long_words_of_servers_are_cut() -> None:
    finding = broken("x" * 5000, "y" * 5000)
    assert (len(finding.seen), len(finding.advice)) == (TEXT_MAX_CHARACTERS, TEXT_MAX_CHARACTERS)
