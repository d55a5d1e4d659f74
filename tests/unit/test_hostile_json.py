"""JSON from issuers, in tokens, in files of our own that others may have changed, and in Rucio's database."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rucio_cs3 import progress
from rucio_cs3.cs3 import BasicProvider, Endpoint, Reference, Secret, WebDAVBase, errors, parse_root
from rucio_cs3.cs3.downloads import part_files
from rucio_cs3.cs3.downloads.part_files import ResumableFile
from rucio_cs3.cs3.kept_checksums import KEY_PREFIX, believed, key_of, record_of
from rucio_cs3.cs3.login import oauth
from rucio_cs3.cs3.login.bearer_tokens import checked
from rucio_cs3.cs3.login.oauth import IssuedToken, IssuerSite
from rucio_cs3.cs3.login.secret import read_secret_file
from rucio_cs3.cs3.login.tokens import jwt_expiry, new_credential
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.cs3.retry import RetryPolicy
from rucio_cs3.cs3.uploads import sealing, upload_state
from rucio_cs3.cs3.uploads.upload_state import Claim, LocalSource, UploadStates
from rucio_cs3.listing.entries import Stage, Transfer, reason_of
from rucio_cs3.progress import Progress
from rucio_cs3.transfers.modes import Mode
from tests.unit.hostile import BOMBS, JSON, TEXT, TRICKY, is_told

# -- tokens ----------------------------------------------------------------------------------------------------------


def jwt(payload: str) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload.encode('utf-8', 'replace')).decode().rstrip('=')}.c2ln"


@given(
    st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "sub"]), JSON, max_size=3).map(json.dumps).map(jwt) | TRICKY
)
@example(jwt('{"exp": 1e999, "iat": -1e999}'))
@example(jwt('{"exp": NaN, "iat": NaN}'))
@example(jwt('{"exp": -Infinity}'))
@example(jwt('{"exp": 1' + "0" * 400 + "}"))
@example("." * 100_000)
def test_any_token_ends_some_time_or_does_not_say(token: str) -> None:
    end = jwt_expiry(token)
    assert end is None or math.isfinite(end)
    credential = new_credential(token)
    assert credential.expires_at is None or math.isfinite(credential.expires_at)
    assert credential.needs_renewal(0.0) in (True, False)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_token(bomb: str) -> None:
    for payload in (bomb, f'{{"exp": {bomb}}}', f'{{"exp": 5, "x": {bomb}'):
        assert jwt_expiry(jwt(payload)) in (None, 0.0, float(10**18))


@given(TRICKY)
@example("x" * 16_385)
@example("a\r\nX-Evil: 1")
def test_only_what_a_header_carries_is_a_bearer_token(text: str) -> None:
    try:
        token = checked(text, "here")
    except errors.ConfigurationError:
        return
    assert token == text
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token


# -- issuers ---------------------------------------------------------------------------------------------------------


class Answering:
    """An issuer's answers, one for each request."""

    def __init__(self, *bodies: tuple[int, bytes]) -> None:
        self._bodies = list(bodies)

    @contextlib.contextmanager
    def request(self, *_: object, **__: object) -> Iterator[Any]:
        status, body = self._bodies.pop(0)

        class Answer:
            status_code = status

            @staticmethod
            def read(size: int) -> bytes:
                return body[:size]

        yield Answer

    def close(self) -> None:
        """There is nothing to close."""


ISSUER = IssuerSite(name="issuer", url="https://login.test/realm")
METADATA = json.dumps({"issuer": ISSUER.url, "token_endpoint": "https://login.test/token"}).encode()


def ask(monkeypatch: pytest.MonkeyPatch, *bodies: tuple[int, bytes]) -> str:
    monkeypatch.setattr(oauth, "HTTPClient", lambda _: Answering(*bodies))
    monkeypatch.setattr(oauth, "_RETRY", RetryPolicy(attempts=1))
    return IssuedToken(
        issuer=ISSUER, grant="client_credentials", client_id="rucio", client_secret=Secret("secret-of-ours")
    ).get()


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
def test_an_issuer_that_answers_with_a_bomb(bomb: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body = bomb.encode("utf-8", "replace")
    for bodies in (((status, body),), ((200, METADATA), (status, body)), ((200, METADATA[:-1] + b', "x": ' + body),)):
        with pytest.raises(errors.CS3Error) as caught:
            ask(monkeypatch, *bodies)
        assert len(str(caught.value)) < 1000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, st.sampled_from(["issuer", "token_endpoint", "access_token", "token_type", "error", "refresh_token"]))
def test_any_answer_of_an_issuer_is_a_token_or_an_error(monkeypatch: pytest.MonkeyPatch, value: Any, key: str) -> None:
    metadata = {"issuer": ISSUER.url, "token_endpoint": "https://login.test/token"}
    answer = {"access_token": "good", "token_type": "Bearer"}
    (metadata if key in metadata else answer)[key] = value
    told = token = ""
    for status in (200, 400):
        try:
            token = ask(monkeypatch, (200, json.dumps(metadata).encode()), (status, json.dumps(answer).encode()))
        except errors.CS3Error as error:
            told = str(error)
        assert is_told(told)
        assert "secret-of-ours" not in told
        assert token == "" or token == checked(token, "here")


def test_an_answer_of_an_issuer_is_read_no_further_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    long = json.dumps({"access_token": "good", "x": "x" * oauth._ANSWER_MAX_BYTES}).encode()
    with pytest.raises(errors.ProtocolViolation, match="no JSON object"):
        ask(monkeypatch, (200, METADATA), (200, long))


# -- files of ours that others may have changed ----------------------------------------------------------------------

ENDPOINT = Endpoint(
    name="CLOUD",
    gateway="127.0.0.1:9142",
    gateway_tls=False,
    webdav=WebDAVBase.parse("http://127.0.0.1:80/remote.php/webdav", parse_root("/localfs")),
)
TARGET = Reference(ENDPOINT.root, "folder/file")


class Opened:
    """A seal that says that everything was sealed by us."""

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self, *_: object) -> str:
        return self._text


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    path = tmp_path / f"{'0' * 32}.json"
    path.touch(mode=0o600)
    return path


def read_state(path: Path, content: str, sealed: str = '["tus", "https://c.test/d", "t"]') -> Claim:
    path.write_text(content, "utf-8", errors="replace")
    path.chmod(0o600)
    seal: Any = Opened(sealed)
    claim = upload_state._Held(path, {"version": 1, "target": "/x"}, seal)
    claim.read()
    return claim


def test_a_state_that_is_one(state_file: Path) -> None:
    found = read_state(state_file, '{"version": 1, "target": "/x", "landing": "l", "sealed": "s"}').unfinished
    assert found is not None
    assert (found.landing, found.ticket.protocol) == ("l", "tus")


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_state_that_is_a_bomb(bomb: str, state_file: Path) -> None:
    for content in (bomb, f'{{"version": 1, "target": "/x", "landing": "l", "sealed": "s", "x": {bomb}}}'):
        assert read_state(state_file, content).unfinished is None
    whole = '{"version": 1, "target": "/x", "landing": "l", "sealed": "s"}'
    assert read_state(state_file, whole, sealed=bomb).unfinished is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(JSON, JSON, JSON)
def test_any_state_is_one_or_none(state_file: Path, landing: Any, sealed: Any, ticket: Any) -> None:
    content = {"version": 1, "target": "/x", "landing": landing, "sealed": sealed}
    found = read_state(state_file, json.dumps(content), sealed=json.dumps(ticket)).unfinished
    assert found is None or all(isinstance(part, str) for part in vars(found.ticket).values())


def test_a_seal_that_is_none() -> None:
    seal = sealing.Seal(BasicProvider("me", Secret("password")))
    for text in ("", "x", "é", "A" * 40, "\ud800", "A" * 4000, "=" * 40):
        with pytest.raises(sealing.Unreadable):
            seal.open(text, b"label")


def test_a_landing_elsewhere_is_no_landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sealed with the rest, so only who knows the password can have made it; even so it leads nowhere else."""
    for landing in ("../../x", "..", "", "a/../../x", "\0", "x" * 256):
        with pytest.raises(errors.InvalidReference):
            TARGET.sibling(landing)
    monkeypatch.setenv(upload_state.FOLDER_VARIABLE, str(tmp_path / "states"))
    local = tmp_path / "f"
    local.touch()
    with UploadStates(ENDPOINT, BasicProvider("me", Secret("p"))).claim(
        LocalSource.of(local, local.stat()), TARGET, overwrite=False
    ) as claim:
        assert claim.unfinished is None


@pytest.fixture
def kept_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download that was left, whose note a test may write anew."""
    monkeypatch.setattr(part_files, "NOTED_EVERY_BYTES", 1)
    with ResumableFile(tmp_path / "f", {"size": 6}) as file:
        file.write(b"abc")
        file.note(3)
        assert file.keep()
    return tmp_path / "f"


def front_of(target: Path, note: str) -> int:
    (path,) = target.parent.glob("*.json")
    path.write_text(note, "utf-8", errors="replace")
    with ResumableFile(target, {"size": 6}) as file:
        front = file.front
        # As it was: a note that is not believed empties the part.
        if not front:
            file.write(b"abc")
        file.note(3)
        file.keep()
    return front


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_note_that_is_a_bomb(bomb: str, kept_part: Path) -> None:
    assert front_of(kept_part, bomb) == 0
    assert front_of(kept_part, f'{{"form": 1, "front": {bomb}}}') == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.sampled_from(["form", "boot", "part", "version", "front"]), JSON))
def test_any_note_is_believed_only_of_this_part(kept_part: Path, note: dict[str, Any]) -> None:
    assert front_of(kept_part, json.dumps(note)) == 0


def test_a_pipe_in_a_place_for_everybody_is_no_token(tmp_path: Path) -> None:
    """Its open would wait for whoever made it."""
    pipe = tmp_path / "bt_u1000"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(errors.ConfigurationError, match="is no file"):
        read_secret_file(pipe, own=True)


# -- metadata that a file's users may write ----------------------------------------------------------------------------

FILE = FileInfo(reference=TARGET, size=2**21, is_directory=False, etag='"an etag" of 5 1.0 words', mtime_s=1.5)


@given(TEXT, TEXT, st.integers(0, 2**64), st.floats(0, 2**65))
def test_only_the_record_of_this_very_content_is_believed(key: str, record: str, size: int, mtime_s: float) -> None:
    for text in (record, f"1 adler32:00000001 {record}", f"1 {record} {size} {mtime_s!r} {FILE.etag}"):
        found = believed({KEY_PREFIX + key: text}, size=FILE.size, mtime_s=FILE.mtime_s, etag=FILE.etag)
        assert not found or text.endswith(f" {FILE.size} {FILE.mtime_s!r} {FILE.etag}")


@given(
    st.text(st.sampled_from("0123456789abcdefg"), min_size=0, max_size=41),
    st.sampled_from(["adler32", "md5", "sha1", "x"]),
)
def test_a_checksum_of_the_wrong_length_is_none(value: str, name: str) -> None:
    record = record_of(FILE, {name: value})
    found = believed({key_of(FILE): record}, size=FILE.size, mtime_s=FILE.mtime_s, etag=FILE.etag)
    assert found in ({}, {name: value})
    assert not found or len(value) == {"adler32": 8, "md5": 32, "sha1": 40}[name]


# -- Rucio's database --------------------------------------------------------------------------------------------------

NOW = datetime(2024, 5, 1, 10, 0, 2)


@given(JSON | TEXT | st.sampled_from(BOMBS) | JSON.map(lambda value: {"cs3": value, "cs3_postponed": value}))
@example(
    '{"cs3": {"mode": "pull", "bytes": 1'
    + "0" * 3800
    + ', "rate": 1, "at": "2024-05-01T10:00:02Z", "started": "2024-05-01T10:00:00Z"}}'
)
def test_any_attributes_of_a_request_are_read(attributes: Any) -> None:
    found = progress.read(attributes)
    assert isinstance(progress.times_put_off(attributes, "id"), int)
    reason_of(Stage.WAITING, None, attributes, "id")
    transfer = Transfer(
        stage=Stage.RUNNING, request_id="id", scope="s", name="n", source=None, destination="D", size_bytes=5,
        progress=found, started_at=NOW,
    )  # fmt: skip
    json.dumps(transfer.as_dict(NOW + timedelta(seconds=1)))


@pytest.mark.parametrize("key", ["bytes", "rate"])
@pytest.mark.parametrize("count", ["1" + "0" * 3800, str(2**63), "-1", "1.5", "true", '"5"'])
def test_a_count_that_nobody_can_reckon_with_is_none(key: str, count: str) -> None:
    counts = {"bytes": "5", "rate": "5", key: count}
    times = '"at": "2024-05-01T10:00:02Z", "started": "2024-05-01T10:00:00Z"'
    text = f'{{"cs3": {{"mode": "pull", "bytes": {counts["bytes"]}, "rate": {counts["rate"]}, {times}}}}}'
    assert progress.read(text) is None
    assert progress.read(text.replace(count, "5")) is not None


MODES = st.sampled_from(list(Mode))
COUNTS = st.integers(0, 2**63 - 1)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0))


@given(
    st.builds(Progress, mode=MODES, bytes_moved=COUNTS, rate=COUNTS, at=MOMENTS, started=MOMENTS),
    st.dictionaries(TEXT, JSON, max_size=3),
)
def test_progress_is_read_as_it_was_written(made: Progress, others: dict[str, Any]) -> None:
    text = progress.written(others, made)
    if text is None:
        return  # no room
    assert progress.read(text) == made
    assert progress.written(text, made) == text
    without = progress.written(text, None)
    assert without is not None
    assert progress.read(without) is None
    others.pop("cs3", None)
    assert without == json.dumps(others)
