"""Tokens of an issuer: each grant, what it sees and refuses, and the refresh token that must not be lost."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from werkzeug.wrappers import Request, Response

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.login.oauth import Grant, IssuedToken, IssuerSite, _kept
from rucio_cs3.cs3.login.providers import TokenGiver
from rucio_cs3.cs3.login.secret import Secret
from rucio_cs3.sandbox.issuer import Issuer

AUDIENCE = "https://cloud.test"
SCOPE = "storage.read:/ storage.modify:/rucio"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def giver(
    issuer: Issuer,
    grant: Grant = "client_credentials",
    *,
    secret: str | None = None,
    refresh_token: Path | None = None,
    subject: TokenGiver | None = None,
    url: str | None = None,
) -> IssuedToken:
    return IssuedToken(
        issuer=IssuerSite(name="issuer", url=url or issuer.url),
        grant=grant,
        client_id=issuer.client_id,
        client_secret=Secret(issuer.client_secret if secret is None else secret),
        refresh_token=refresh_token,
        subject=subject,
        audience=AUDIENCE,
        scope=SCOPE,
    )


def test_client_credentials(issuer: Issuer) -> None:
    token = giver(issuer).get()
    claims = issuer.claims(token, AUDIENCE)
    assert (claims["sub"], claims["scope"]) == ("rucio", SCOPE)
    assert issuer.requests == [(AUDIENCE, SCOPE)]
    with pytest.raises(jwt.InvalidAudienceError):
        issuer.claims(token, "https://another.test")


def test_client_id_and_secret_are_encoded_as_the_standard_wants(issuer: Issuer) -> None:
    issuer.client_id, issuer.client_secret = "robot:1/é", "50% & more+"
    seen: list[tuple[str | None, str | None]] = []
    answer = issuer._token

    def noted(request: Request) -> Response:
        assert request.authorization is not None
        seen.append((request.authorization.username, request.authorization.password))
        return answer(request)

    issuer._token = noted  # type: ignore[method-assign]
    with pytest.raises(errors.Unauthenticated, match="invalid_client"):
        # The sandbox's issuer decodes no form, as several real ones do not.
        giver(issuer).get()
    assert seen == [("robot%3A1%2F%C3%A9", "50%25+%26+more%2B")]


def test_a_token_stands_in_for_another(issuer: Issuer) -> None:
    subject = Secret(issuer.access_token("jdoe", audience="rucio"))
    token = giver(issuer, "token_exchange", subject=subject).get()
    assert issuer.claims(token, AUDIENCE)["sub"] == "jdoe"
    ended = Secret(issuer.access_token("jdoe", audience="rucio", life_s=-10))
    with pytest.raises(errors.Unauthenticated, match="invalid_grant") as caught:
        giver(issuer, "token_exchange", subject=ended).get()
    assert ended.get() not in str(caught.value)


def test_a_refresh_token_is_kept_when_it_changes(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text(issuer.refresh_token("jdoe"))
    kept.chmod(0o600)
    refreshed = giver(issuer, "refresh_token", refresh_token=kept)
    for _ in range(3):
        before = kept.read_text()
        assert issuer.claims(refreshed.get(), AUDIENCE)["sub"] == "jdoe"
        assert kept.read_text() != before
        assert kept.stat().st_mode & 0o777 == 0o600
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


def test_two_that_refresh_at_once_lose_nothing(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text(issuer.refresh_token("jdoe"))
    kept.chmod(0o600)
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(5):
                giver(issuer, "refresh_token", refresh_token=kept).get()
        except errors.CS3Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


def kept_token(issuer: Issuer, folder: Path) -> Path:
    path = folder / "refresh"
    path.touch(0o600)
    path.write_text(issuer.refresh_token("jdoe"))
    return path


def test_processes_that_refresh_at_once_lose_nothing(issuer: Issuer, tmp_path: Path) -> None:
    kept = kept_token(issuer, tmp_path)
    script = """
import sys
from pathlib import Path
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.secret import Secret
url, client, path = sys.argv[1:]
site = IssuerSite(name="issuer", url=url)
secret = Secret(sys.stdin.read())
token = IssuedToken(
    issuer=site, grant="refresh_token", client_id=client, client_secret=secret, refresh_token=Path(path)
)
for _ in range(5):
    assert token.get()
"""
    command = [sys.executable, "-c", script, issuer.url, issuer.client_id, str(kept)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        process.communicate(issuer.client_secret, timeout=120)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(issuer.requests) == 15
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


@pytest.mark.parametrize("step", ["os.fsync", "Path.replace"])
def test_a_new_refresh_token_that_cannot_be_written(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    kept = kept_token(issuer, tmp_path)
    before = kept.read_text()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"rucio_cs3.cs3.login.oauth.{step}", full)
    with pytest.raises(errors.ConfigurationError, match=r"refresh cannot be written: No space left") as caught:
        giver(issuer, "refresh_token", refresh_token=kept).get()
    assert kept.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"refresh", ".refresh.lock"}
    (renewed,) = issuer.refresh_tokens
    assert renewed not in str(caught.value)


def test_a_folder_that_cannot_be_synced(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE says EINVAL; the new token stands there all the same."""
    kept = kept_token(issuer, tmp_path)
    real, synced = os.fsync, []

    def of_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr("rucio_cs3.cs3.login.oauth.os.fsync", of_files_only)
    assert giver(issuer, "refresh_token", refresh_token=kept).get()
    assert synced
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


STEPS = ["tempfile.NamedTemporaryFile", "os.posix_fallocate", "fcntl.flock"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOLCK])
def test_a_refresh_token_is_not_used_up_where_a_new_one_could_not_be_kept(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    kept = kept_token(issuer, tmp_path)
    before = kept.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"rucio_cs3.cs3.login.oauth.{step}", fail)
    with pytest.raises(errors.ConfigurationError, match="so it is not used"):
        giver(issuer, "refresh_token", refresh_token=kept).get()
    assert issuer.requests == []
    assert kept.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"refresh", ".refresh.lock"}


@pytest.mark.parametrize(("number", "used"), [(errno.EROFS, True), (errno.EACCES, True), (errno.EMFILE, False)])
def test_a_lock_that_cannot_be_made(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, used: bool
) -> None:
    """Whose folder it is renews the token; any other reason is none to go on without."""
    kept = kept_token(issuer, tmp_path)
    real = os.open

    def fail(path: object, *arguments: Any, **more: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("rucio_cs3.cs3.login.oauth.os.open", fail)
    token = giver(issuer, "refresh_token", refresh_token=kept)
    if used:
        assert token.get()
        return
    with pytest.raises(errors.ConfigurationError, match="cannot be locked, so it is not used"):
        token.get()
    assert issuer.requests == []


def test_a_folder_of_somebody_else(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good as long as the issuer gives no new refresh token."""
    kept = kept_token(issuer, tmp_path)

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("rucio_cs3.cs3.login.oauth.tempfile.NamedTemporaryFile", closed)
    token = giver(issuer, "refresh_token", refresh_token=kept)
    with pytest.raises(errors.ConfigurationError, match="cannot be written: Permission denied"):
        token.get()
    issuer._of_refresh = lambda form: ("jdoe", {})  # type: ignore[method-assign]
    assert token.get()


def test_a_refresh_token_stays_its_owners(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When root renews it."""
    kept = kept_token(issuer, tmp_path)
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("rucio_cs3.cs3.login.oauth.os.fchown", lambda _, uid, gid: given.append((uid, gid)))
    token = giver(issuer, "refresh_token", refresh_token=kept)
    assert token.get()
    assert given == []
    monkeypatch.setattr("rucio_cs3.cs3.login.oauth.os.geteuid", lambda: kept.stat().st_uid + 1)
    assert token.get()
    assert given == [(kept.stat().st_uid, kept.stat().st_gid)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads
def test_a_child_that_is_forked_meanwhile_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rucio_cs3.cs3.login.oauth._LOCK_S", 0.1)
    read, write = os.pipe()
    with _kept(tmp_path / "refresh"):
        child = os.fork()
        if not child:
            signal.alarm(60)
            os.close(write)
            os.read(read, 1)  # until the parent is through
            os._exit(0)
    try:
        with _kept(tmp_path / "refresh"):
            pass
    finally:
        os.close(write)
        os.close(read)
        assert os.waitpid(child, 0)[1] == 0


def test_a_link_to_a_refresh_token_stays_a_link(issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    kept, link = kept_token(issuer, tmp_path / "real"), tmp_path / "link"
    link.symlink_to(kept)
    assert giver(issuer, "refresh_token", refresh_token=link).get()
    assert link.is_symlink()
    assert list(issuer.refresh_tokens) == [kept.read_text().strip()]


def test_a_refresh_token_that_another_process_never_lets_go(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = kept_token(issuer, tmp_path)
    monkeypatch.setattr("rucio_cs3.cs3.login.oauth._LOCK_S", 0.1)
    with (tmp_path / ".refresh.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.Unavailable, match="another process has used the refresh token"):
            giver(issuer, "refresh_token", refresh_token=kept).get()
    assert issuer.requests == []
    assert giver(issuer, "refresh_token", refresh_token=kept).get()


def test_a_refresh_token_that_others_can_read_is_refused(issuer: Issuer, tmp_path: Path) -> None:
    kept = kept_token(issuer, tmp_path)
    kept.chmod(0o644)
    with pytest.raises(errors.ConfigurationError, match="chmod 600"):
        giver(issuer, "refresh_token", refresh_token=kept).get()
    assert issuer.requests == []


def test_a_refresh_token_that_is_refused_stays_as_it_is(issuer: Issuer, tmp_path: Path) -> None:
    kept = tmp_path / "refresh"
    kept.write_text("worth-nothing")
    kept.chmod(0o600)
    with pytest.raises(errors.Unauthenticated, match="invalid_grant") as caught:
        giver(issuer, "refresh_token", refresh_token=kept).get()
    assert kept.read_text() == "worth-nothing"
    assert "worth-nothing" not in str(caught.value)


def test_a_wrong_client_secret(issuer: Issuer) -> None:
    with pytest.raises(errors.Unauthenticated, match=r"invalid_client.*check client, grant") as caught:
        giver(issuer, secret="secret-word").get()
    assert "secret-word" not in f"{caught.value!r} {caught.value}"
    assert caught.value.code == "HTTP 401"


def test_metadata_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    with Issuer() as other:
        other._discovery = issuer._discovery  # type: ignore[method-assign]
        with pytest.raises(errors.ProtocolViolation, match="not the metadata of this issuer"):
            giver(other).get()
    assert issuer.requests == []


@pytest.mark.parametrize(
    "endpoint", ["http://another.test/token", "file:///etc/passwd", "http://169.254.169.254/token", 7, None]
)
def test_a_token_endpoint_elsewhere_gets_no_secret(issuer: Issuer, endpoint: object) -> None:
    from rucio_cs3.sandbox.issuer import _json

    issuer._discovery = lambda _: _json({"issuer": issuer.url, "token_endpoint": endpoint})  # type: ignore[method-assign]
    with pytest.raises(errors.ProtocolViolation):
        giver(issuer).get()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", errors.ProtocolViolation),
        (b"[]", errors.ProtocolViolation),
        (b"[" * 100_000, errors.ProtocolViolation),
        (b'{"access_token": 7}', errors.ProtocolViolation),
        (b'{"access_token": "t", "token_type": "mac"}', errors.ProtocolViolation),
        (b'{"access_token": "t\\nX-Injected: 1"}', errors.ConfigurationError),
        (b'{"access_token": "t", "padding": "' + b"x" * 1_000_000 + b'"}', errors.ProtocolViolation),
    ],
)
def test_nonsense_for_an_answer(issuer: Issuer, body: bytes, kind: type[errors.CS3Error]) -> None:
    issuer._token = lambda request: Response(body, content_type="application/json")  # type: ignore[method-assign]
    with pytest.raises(kind):
        giver(issuer).get()


@pytest.mark.parametrize("status", [404, 410])
def test_an_issuer_that_is_not_found_says_nothing_of_a_file(issuer: Issuer, status: int) -> None:
    """Whoever wants a token wants to look at a file, and would take NotFound for its loss."""
    issuer._token = lambda request: Response(status=status)  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable, match=f"HTTP {status}"):
        giver(issuer).get()


def test_an_issuer_that_is_down(issuer: Issuer) -> None:
    token = giver(issuer)
    issuer.stop()
    with pytest.raises(errors.Unavailable) as caught:
        token.get()
    assert caught.value.retryable
    assert issuer.url.split("/")[2] in str(caught.value)
    assert issuer.client_secret not in str(caught.value)


def test_an_issuer_is_not_waited_for_as_a_disk_is(issuer: Issuer) -> None:
    assert giver(issuer).issuer.timeouts.idle_s <= 30


def fail_once(issuer: Issuer) -> list[Request]:
    """503 to the first request for a token."""
    asked: list[Request] = []
    answer = issuer._token

    def failing(request: Request) -> Response:
        asked.append(request)
        return Response(status=503) if len(asked) == 1 else answer(request)

    issuer._token = failing  # type: ignore[method-assign]
    return asked


def test_an_issuer_that_is_away_for_a_moment(issuer: Issuer) -> None:
    asked = fail_once(issuer)
    assert issuer.claims(giver(issuer).get(), AUDIENCE)
    assert len(asked) == 2


def test_a_refresh_token_is_not_sent_twice(issuer: Issuer, tmp_path: Path) -> None:
    """It may have been used before the answer was lost."""
    asked = fail_once(issuer)
    with pytest.raises(errors.Unavailable, match="503"):
        giver(issuer, "refresh_token", refresh_token=kept_token(issuer, tmp_path)).get()
    assert len(asked) == 1


@pytest.mark.parametrize(
    "url", ["https://[::1", "me:hunter2@issuer.test", "https://me:hunter2@issuer.test/", "ftp://x"]
)
def test_what_is_no_issuer(url: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        IssuerSite(name="issuer", url=url)
    assert "hunter2" not in str(caught.value)


def test_a_redirect_takes_no_secret_elsewhere(issuer: Issuer) -> None:
    with Issuer() as other:
        issuer._token = lambda request: Response(status=307, headers={"Location": f"{other.url}token"})  # type: ignore[method-assign]
        with pytest.raises(errors.CS3Error, match="307"):
            giver(issuer).get()
        assert other.requests == []
