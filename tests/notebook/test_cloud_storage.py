"""A cloud in Python, as somebody writes in a notebook; the server's disk says whether it is true."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import rucio_cs3
from rucio_cs3 import CloudStorage
from rucio_cs3.cs3 import errors as cs3_errors
from rucio_cs3.cs3.errors import CS3Error
from rucio_cs3.notebook.files import CloudReader, CloudWriter
from rucio_cs3.notebook.os_errors import NUMBERS, os_error
from tests.commands.clouds import CommandPlace
from tests.contract.place import content


def test_a_day_in_a_notebook(site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")
    assert cloud.list() == []
    cloud.write_text("notes/first.txt", "Grüße\n")
    cloud.write_bytes("notes/100% sure.bin", b"\0\1")
    cloud.make_folder("empty")
    assert site.tree() == {
        "empty": None,
        "notes": None,
        "notes/100% sure.bin": b"\0\1",
        "notes/first.txt": "Grüße\n".encode(),
    }
    assert [(entry.path, entry.is_folder) for entry in cloud.list()] == [("empty", True), ("notes", True)]
    first = cloud.list("notes")[1]
    assert (first.path, first.name, first.size) == ("notes/first.txt", "first.txt", 8)
    assert abs(first.modified - datetime.now(timezone.utc)) < timedelta(minutes=10)
    assert cloud.stat("notes/first.txt").etag == first.etag
    assert "first.txt" in cloud.list("notes")._repr_html_()
    assert [path for path, _, _ in cloud.walk()] == ["", "empty", "notes"]
    assert (cloud.exists("notes"), cloud.exists("notes/none"), cloud.exists("notes/first.txt/x")) == (
        True,
        False,
        False,
    )
    assert cloud.read_text("notes/first.txt") == "Grüße\n"
    with cloud.open("notes/first.txt", "r") as text:
        assert text.readlines() == ["Grüße\n"]
    Path("plot.png").write_bytes(content(10_000))
    assert cloud.put("plot.png").size == 10_000
    assert cloud.put(Path("plot.png"), "plots/1.png").path == "plots/1.png"
    assert cloud.get("plots/1.png", "back.png") == Path("back.png")
    assert Path("back.png").read_bytes() == content(10_000)
    cloud.move("plots/1.png", "plots/2.png")
    cloud.remove("plot.png")
    cloud.remove("notes", recursive=True)
    assert site.tree() == {"empty": None, "plots": None, "plots/2.png": content(10_000)}
    usage = cloud.usage()
    assert usage.used_bytes >= 0
    assert cloud.url in repr(cloud)
    assert site.cloud.gateway in cloud._repr_html_()
    password = next(iter(site.cloud.users.values())).password
    assert password not in repr(cloud) + cloud._repr_html_() + repr(vars(cloud))


def test_errors_are_those_of_python(site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")
    cloud.write_bytes("file", b"1")
    Path("local").write_bytes(b"2")
    for call, kind, words in (
        (lambda: cloud.open("none"), FileNotFoundError, "none"),
        (lambda: cloud.open("file/below"), FileNotFoundError, "below"),
        (lambda: cloud.stat("none"), FileNotFoundError, "none"),
        (lambda: cloud.list("none"), FileNotFoundError, "none"),
        (lambda: cloud.list("file"), NotADirectoryError, "TEST:file is a file"),
        (lambda: cloud.open(""), IsADirectoryError, "is a folder"),
        (lambda: cloud.open("", "wb"), IsADirectoryError, "is a folder"),
        (lambda: cloud.remove(""), IsADirectoryError, "is a folder"),
        (lambda: cloud.open("file", "xb"), FileExistsError, "TEST:file is there already"),
        (lambda: cloud.put("local", "file"), FileExistsError, "TEST:file is there already"),
        (lambda: cloud.get("file", "local"), FileExistsError, "local is there already"),
        (lambda: cloud.put(".", "file"), IsADirectoryError, "is a folder"),
        (lambda: cloud.make_folder("file"), FileExistsError, "a file stands where"),
        (lambda: cloud.get("../file"), OSError, "'..' segment"),
        (lambda: cloud.open("file", "ab"), ValueError, "written as a whole"),
        (lambda: cloud.open("file", "r+"), ValueError, "written as a whole"),
        (lambda: cloud.open("file", "rb", encoding="utf-8"), ValueError, "for text"),
    ):
        with pytest.raises(kind, match=words):
            call()
    assert site.tree() == {"file": b"1"}
    assert Path("local").read_bytes() == b"2"
    cloud.put("local", "file", overwrite=True)
    assert cloud.get("file", "local", overwrite=True).read_bytes() == b"2"


def test_no_rights(site: CommandPlace) -> None:
    site.add_entry("WRONG", password="not it")
    with pytest.raises(PermissionError, match="refuses to log in"):
        CloudStorage("WRONG").list()


def test_an_answer_that_says_nothing_is_no_absence(site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")
    cloud.list()
    site.fault("gateway.Stat", "code:INTERNAL")
    with pytest.raises(OSError, match="INTERNAL"):
        cloud.exists("none")


def test_a_file_appears_whole_or_not_at_all(site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")
    cloud.write_bytes("old", b"old")

    def fail() -> None:
        raise RuntimeError("on the way")

    for name in ("old", "new"):
        for mode, piece in (("wb", b"half"), ("w", "half")):
            with pytest.raises(RuntimeError, match="on the way"):  # noqa: PT012, SIM117  # it is about the inner block
                with cloud.open(name, mode) as file:
                    file.write(piece)
                    fail()
        with cloud.open(name, "wb") as given_up:
            assert isinstance(given_up, CloudWriter)
            given_up.write(b"never")
            given_up.discard()
        assert given_up.closed
    waiting = []
    for mode, piece in (("wb", b"left"), ("w", "left")):
        opened = cloud.open("new", mode)
        opened.write(piece)
        waiting.append(opened)
        del opened
        with pytest.warns(RuntimeWarning, match="TEST:new was not closed, so it was not stored"):
            waiting.clear()
    assert site.tree() == {"old": b"old"}

    with cloud.open("old", "wb") as file:
        file.write(b"n w")
        file.seek(1)
        file.write(b"e")
        assert site.tree() == {"old": b"old"}
        # An error that somebody else handles is none of this block's.
        try:
            fail()
        except RuntimeError:
            with cloud.open("log", "w") as log:
                log.write("it failed")
    assert site.tree() == {"log": b"it failed", "old": b"new"}


def test_readers_of_large_files(site: CommandPlace) -> None:
    """Beyond the sizes that are fetched as a whole, with Python's buffer in front; two readers at a time."""
    data = content(3_000_000)
    site.put("large", data)
    site.cloud.traffic.clear()
    cloud = CloudStorage("TEST")
    with cloud.open("large") as one, cloud.open("large") as other:
        local = io.BytesIO(data)
        for position, length in ((2_900_000, 200_000), (10, 5), (15, 700_000), (700_015, 100), (2_000_000, 300_000)):
            for file in (one, local):
                file.seek(position)
            assert one.read(length) == local.read(length)
            assert (one.tell(), one.read(3)) == (local.tell(), local.read(3))
        assert other.read() == data
        assert isinstance(one, CloudReader)
        assert one.size == 3_000_000
    whole = [passed for passed in site.cloud.traffic.of("data.get") if passed.status == 200]
    # Without ranges both read what passes once.
    assert len(whole) == 1
    with pytest.raises(ValueError, match="closed"):
        one.read(1_000_000)


def test_what_cannot_be_stored_is_not_lost(site: CommandPlace) -> None:
    cloud = CloudStorage("TEST")
    cloud.write_bytes("file", b"old")
    file = cloud.open("file", "wb")
    file.write(b"new")
    site.fault("gateway.InitiateFileUpload", "code:PERMISSION_DENIED")
    with pytest.raises(PermissionError):
        file.close()
    assert site.tree() == {"file": b"old"}
    file.close()
    assert site.tree() == {"file": b"new"}


def test_clouds_by_url(site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    user = next(iter(site.cloud.users.values()))
    secret = site.local / "password"
    secret.write_text(user.password)
    secret.chmod(0o600)
    CloudStorage("TEST:inner").write_bytes("file", b"1")
    url = site.url("inner")
    assert CloudStorage(url).read_bytes("file") == b"1"  # the clouds file knows who we are there
    monkeypatch.setenv("RUCIO_CS3_CLOUDS", str(site.local / "clouds.cfg"))
    (site.local / "clouds.cfg").touch()
    cloud = CloudStorage(
        url,
        gateway=site.cloud.gateway,
        gateway_tls=False,
        root=site.cloud.root,
        username=user.username,
        password_file=secret,
    )
    assert cloud.read_bytes("file") == b"1"
    assert str(secret) not in repr(cloud)
    for options, words in (
        ({"password": "made-up-secret"}, "password is a secret, and is not given to a program; give password_file"),
        ({"token": "made-up-secret"}, "token is a secret"),
        ({"gatway": "x:1"}, "there is no option gatway; there are"),
        ({"username": "x"}, "cs3_gateway is missing"),
    ):
        with pytest.raises(cs3_errors.ConfigurationError, match=words) as caught:
            CloudStorage(url, progress=None, **options)
        assert "made-up-secret" not in str(caught.value)
    with pytest.raises(cs3_errors.ConfigurationError, match="gateway go with a URL"):
        CloudStorage("TEST", gateway="x:1")
    with pytest.raises(cs3_errors.ConfigurationError, match="NOPE"):
        CloudStorage("NOPE")


def test_bars_only_where_somebody_looks(site: CommandPlace, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = CloudStorage("TEST", progress=True)
    Path("local").write_bytes(b"1")
    cloud.put("local")
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from rucio_cs3.notebook.bars import bar

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for term, shows in (("xterm", True), ("dumb", False)):
        terminal = Terminal()
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("COLUMNS", "40")
        monkeypatch.setattr("sys.stderr", terminal)
        with bar("[x] file", 100, wanted=True) as moved:
            assert (moved is not None) is shows
            if moved is not None:
                moved(60)
                moved(40)
        assert ("[x] file" in terminal.getvalue()) is shows


def test_every_error_has_a_number() -> None:
    def kinds(kind: type[CS3Error]) -> list[type[CS3Error]]:
        return [kind, *(one for below in kind.__subclasses__() for one in kinds(below))]

    known = [kind for kind in kinds(CS3Error) if kind.__module__ == cs3_errors.__name__]
    for kind in known:
        if kind not in (CS3Error, cs3_errors.ConfigurationError):
            assert any(base in NUMBERS for base in kind.__mro__), kind
    assert isinstance(os_error(cs3_errors.DeadlineExceeded("late")), TimeoutError)
    assert isinstance(os_error(cs3_errors.Unavailable("away")), ConnectionError)
    assert str(os_error(cs3_errors.NotFound("not there"))).endswith("not there")


def test_the_package_has_no_other_lazy_names() -> None:
    assert rucio_cs3.CloudStorage is CloudStorage
    with pytest.raises(AttributeError, match="CloudStorge"):
        _ = rucio_cs3.CloudStorge  # type: ignore[attr-defined]
