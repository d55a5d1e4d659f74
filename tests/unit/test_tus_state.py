"""State files of unfinished uploads: who can read them, what is in them, who may go on, and when they go."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import BasicProvider, Endpoint, Reference, Secret, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.login.providers import Login
from rucio_cs3.cs3.resources import Ticket
from rucio_cs3.cs3.uploads import sealing, upload_state
from rucio_cs3.cs3.uploads.upload_state import Claim, LocalSource, Unfinished, UploadStates

PASSWORD = "relativity"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ0YXJnZXQiOiJodHRwOi8vIn0.c2lnbmF0dXJl"
URL = "https://cloud.example/datagateway/one-upload"
UNFINISHED = Unfinished(landing=".rucio-cs3.0123.part", ticket=Ticket(protocol="tus", url=URL, token=TOKEN))

ENDPOINT = Endpoint(
    name="CLOUD",
    gateway="127.0.0.1:9142",
    gateway_tls=False,
    webdav=WebDAVBase.parse("http://127.0.0.1:80/remote.php/webdav", parse_root("/localfs")),
)
TARGET = Reference(ENDPOINT.root, "folder/file")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "states"
    monkeypatch.setenv(upload_state.FOLDER_VARIABLE, str(folder))
    # The cost is for attackers; what is tested here does not depend on it.
    monkeypatch.setattr(sealing, "_COST", 2**4)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> LocalSource:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return LocalSource.of(path, path.stat())


def states(password: str = PASSWORD, endpoint: Endpoint = ENDPOINT) -> UploadStates:
    return UploadStates(endpoint, BasicProvider("einstein", Secret(password)))


@contextlib.contextmanager
def claimed(
    source: LocalSource | None, *, password: str = PASSWORD, target: Reference = TARGET, overwrite: bool = False
) -> Iterator[Claim]:
    with states(password).claim(source, target, overwrite=overwrite) as claim:
        yield claim


def leave(source: LocalSource) -> None:
    """Keep an upload, as a process does that is killed then."""
    with claimed(source) as claim:
        assert claim.unfinished is None
        claim.keep(UNFINISHED)


def state_file(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def test_another_process_finds_what_was_left(source: LocalSource) -> None:
    leave(source)
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "also for the third one"


def test_only_the_owner_may_look(source: LocalSource, folder: Path) -> None:
    before = os.umask(0)
    try:
        leave(source)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_secret_is_in_it(source: LocalSource, folder: Path) -> None:
    leave(source)
    content = b"".join(path.read_bytes() + path.name.encode() for path in folder.iterdir()).decode()
    for secret in (TOKEN, URL, PASSWORD, *TOKEN.split("."), "eyJ"):
        assert secret not in content
    assert TOKEN not in repr(UNFINISHED)
    # Nor is it there in another coding: what is sealed differs each time and tells nothing of what is in it.
    first = json.loads(state_file(folder).read_bytes())["sealed"]
    state_file(folder).unlink()
    leave(source)
    assert json.loads(state_file(folder).read_bytes())["sealed"] != first


def test_another_secret_opens_nothing(source: LocalSource, folder: Path) -> None:
    leave(source)
    with claimed(source, password="guess") as claim:
        assert claim.unfinished is None
    assert not list(folder.iterdir()), "nobody can use it any more"


@pytest.mark.parametrize("key", ["landing", "target", "gateway", "sealed", "overwrite", "version", "source"])
def test_what_was_tampered_with_is_not_used(source: LocalSource, folder: Path, key: str) -> None:
    leave(source)
    path = state_file(folder)
    state = json.loads(path.read_bytes())
    state[key] = {"landing": "other", "sealed": state["sealed"][:-8] + "AAAAAAA="}.get(key)
    path.write_text(json.dumps(state))
    with claimed(source) as claim:
        assert claim.unfinished is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_garbage_is_not_used(source: LocalSource, folder: Path, content: bytes) -> None:
    leave(source)
    state_file(folder).write_bytes(content)
    with claimed(source) as claim:
        assert claim.unfinished is None


def test_a_file_that_others_can_read_is_not_used(source: LocalSource, folder: Path) -> None:
    leave(source)
    state_file(folder).chmod(0o644)
    with claimed(source) as claim:
        assert claim.unfinished is None


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime_ns"])
def test_another_local_file_begins_anew(source: LocalSource, field: str) -> None:
    leave(source)
    changed = replace(source, **{field: getattr(source, field) + 1})
    with claimed(changed) as claim:
        assert claim.unfinished is None


def test_other_uploads_are_not_mixed_up(source: LocalSource) -> None:
    leave(source)
    with claimed(replace(source, path="/elsewhere")) as claim:
        assert claim.unfinished is None
    with claimed(source, target=TARGET.sibling("other")) as claim:
        assert claim.unfinished is None
    with states(endpoint=replace(ENDPOINT, gateway="127.0.0.1:1")).claim(source, TARGET, overwrite=False) as claim:
        assert claim.unfinished is None
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "and none of them took it away"
    with claimed(source, overwrite=True) as claim:
        assert claim.unfinished is None


def test_nothing_is_left_of_an_upload_that_has_ended(source: LocalSource, folder: Path) -> None:
    leave(source)
    with claimed(source) as claim:
        claim.forget()
    assert not list(folder.iterdir())
    with claimed(source):
        pass
    assert not list(folder.iterdir()), "nor of one that kept nothing"


def test_of_two_only_one_goes_on(source: LocalSource) -> None:
    leave(source)
    with claimed(source) as first:
        assert first.unfinished == UNFINISHED
        with claimed(source) as second:
            assert second.unfinished is None
            second.keep(replace(UNFINISHED, landing="second"))
            second.forget()
    with claimed(source) as third:
        assert third.unfinished == UNFINISHED, "the second one changed nothing"


def test_two_processes_do_not_go_on_at_once(source: LocalSource) -> None:
    leave(source)
    script = (
        "import sys, os\n"
        "from rucio_cs3.cs3.uploads import upload_state\n"
        "path = sys.argv[1]\n"
        "print('refused' if upload_state._lock(__import__('pathlib').Path(path)) is None else 'locked')\n"
    )
    with claimed(source):
        (lock,) = Path(os.environ[upload_state.FOLDER_VARIABLE]).glob("*.lock")
        done = subprocess.run([sys.executable, "-c", script, lock], capture_output=True, text=True, check=True)
        assert done.stdout == "refused\n"
    done = subprocess.run([sys.executable, "-c", script, lock], capture_output=True, text=True, check=True)
    assert done.stdout == "locked\n"


def test_many_threads_and_one_claim(source: LocalSource, folder: Path) -> None:
    leave(source)
    went_on: list[bool] = []
    start = threading.Barrier(8)
    end = threading.Barrier(8)

    def run() -> None:
        start.wait()
        with claimed(source) as claim:
            went_on.append(claim.unfinished is not None)
            end.wait()
            claim.forget()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(went_on) == [False] * 7 + [True]
    assert not list(folder.iterdir())


def test_what_is_older_than_a_day_is_removed(source: LocalSource, folder: Path) -> None:
    """And nothing else: the folder may be one that holds other people's files, too."""
    leave(source)
    theirs = {"notes.txt", "package.json", "poetry.lock", "movie.part", "0" * 32, "0" * 32 + ".part"}
    for name in ("0" * 32 + ".01234567.part", "1" * 32 + ".json", "2" * 32 + ".lock", *theirs):
        (folder / name).write_bytes(b"")
    for path in folder.iterdir():
        os.utime(path, (0, path.stat().st_mtime - upload_state.STALE_S - 60))
    other = replace(source, path="/elsewhere")
    with claimed(other):
        pass
    assert {path.name for path in folder.iterdir()} == theirs


def test_one_that_is_in_use_is_not_removed_however_old(source: LocalSource, folder: Path) -> None:
    leave(source)
    with claimed(source) as claim:
        for path in folder.iterdir():
            os.utime(path, (0, path.stat().st_mtime - upload_state.STALE_S - 60))
        with claimed(replace(source, path="/elsewhere")):
            assert state_file(folder).exists()
        assert claim.unfinished == UNFINISHED


def test_a_folder_that_others_can_enter_is_not_used(source: LocalSource, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    leave(source)
    assert not list(folder.iterdir())


def test_a_link_is_no_folder(source: LocalSource, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    leave(source)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_where_nothing_can_be_written_nothing_is_kept(
    source: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named in ("", str(tmp_path / "file" / "below")):
        monkeypatch.setenv(upload_state.FOLDER_VARIABLE, named)
        with claimed(source) as claim:
            claim.keep(UNFINISHED)
            claim.forget()


def test_the_folder_is_that_of_the_users_state(
    source: LocalSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(upload_state.FOLDER_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    leave(source)
    assert list((tmp_path / "home" / ".local" / "state" / "rucio-cs3" / "uploads").glob("*.json"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    leave(source)
    assert list((tmp_path / "xdg" / "rucio-cs3" / "uploads").glob("*.json"))


def test_a_failed_write_is_no_failure_of_the_upload(
    source: LocalSource, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class NoLogin(BasicProvider):
        def lasting_secret(self) -> str | None:
            raise errors.ConfigurationError("the secret file is gone")

    gone = UploadStates(ENDPOINT, NoLogin("einstein", Secret(PASSWORD)))
    with gone.claim(source, TARGET, overwrite=False) as claim:
        claim.keep(UNFINISHED)
    assert "the secret file is gone" in caplog.text
    assert not list(folder.iterdir())
    leave(source)
    with gone.claim(source, TARGET, overwrite=False) as claim:
        assert claim.unfinished is None
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "who cannot log in now may do so later"


def _in_fips_mode(*_: object, **__: object) -> bytes:
    raise ValueError("[digital envelope routines] unsupported")


@pytest.mark.parametrize("scrypt", [_in_fips_mode, None], ids=["refused", "missing"])
def test_where_no_key_can_be_made_nothing_is_kept(
    source: LocalSource,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scrypt: object,
) -> None:
    leave(source)
    with monkeypatch.context() as patch:
        if scrypt is None:
            patch.delattr(hashlib, "scrypt")
        else:
            patch.setattr(hashlib, "scrypt", scrypt)
        with claimed(source) as claim:
            assert claim.unfinished is None
            claim.keep(UNFINISHED)
    assert "scrypt" in caplog.text
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "whose Python can read it may go on"


def test_a_folder_that_cannot_be_written_to_any_more_is_no_failure_of_the_upload(
    source: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    leave(source)
    with claimed(source) as claim:
        claim.forget()
    leave(source)
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "and the lock was given back"


def test_a_child_that_was_forked_meanwhile_keeps_no_lock(source: LocalSource, folder: Path) -> None:
    leave(source)
    with claimed(source):
        (lock,) = folder.glob("*.lock")
        # What a fork shares is the open file itself, as a duplicate does.
        (held,) = [int(path.name) for path in Path("/proc/self/fd").iterdir() if _is_same(path, lock)]
        childs = os.dup(held)
    try:
        with claimed(source) as claim:
            assert claim.unfinished == UNFINISHED
    finally:
        os.close(childs)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False  # the descriptor that lists them


def test_an_account_without_a_lasting_secret_keeps_nothing_and_is_not_logged_in(
    source: LocalSource, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its login may ask an issuer, or use up a token that rotates."""
    caplog.set_level("DEBUG")

    class Rotating:
        def login(self) -> Login:
            raise AssertionError("nobody may log in for a state file")

        def lasting_secret(self) -> str | None:
            return None

    states = UploadStates(ENDPOINT, Rotating())
    with states.claim(source, TARGET, overwrite=False) as claim:
        claim.keep(UNFINISHED)
    assert not list(folder.iterdir())
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    leave(source)
    with states.claim(source, TARGET, overwrite=False) as claim:
        assert claim.unfinished is None
    with claimed(source) as claim:
        assert claim.unfinished == UNFINISHED, "it was another account's"


def test_what_is_sealed_is_for_one_secret_and_one_label() -> None:
    seal = sealing.Seal(BasicProvider("einstein", Secret(PASSWORD)))
    sealed = seal.close("text", b"label")
    assert seal.open(sealed, b"label") == "text"
    other = sealing.Seal(BasicProvider("marie", Secret(PASSWORD)))
    for opener, text, label in (
        (seal, sealed, b"other"),
        (other, sealed, b"label"),
        (seal, sealed[:-4], b"label"),
        (seal, "", b"label"),
        (seal, "no base64 ü", b"label"),
        (seal, "AAAA", b"label"),
    ):
        with pytest.raises(sealing.Unreadable):
            opener.open(text, label)
