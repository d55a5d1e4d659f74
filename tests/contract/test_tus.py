"""C10xx: resumable uploads by TUS. Bytes that the server has are not sent again, by this process or by the next."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rucio_cs3.cs3 import CS3Storage, Reference, errors, retry
from rucio_cs3.cs3.http.client import HTTPClient
from rucio_cs3.cs3.uploads import tus, tus_uploads, upload_state
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.cloud.traffic import Passed
from rucio_cs3.sandbox.reva import RevaSite
from tests.contract.child import Child
from tests.contract.conftest import fresh_place
from tests.contract.faces import RucioFace
from tests.contract.faulty_reva import FaultyReva
from tests.contract.place import Place, content

MIB = 1024 * 1024
SIZE = 5 * MIB + 17
OLD = b"what stood there"

both = pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])


@pytest.fixture(autouse=True)
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of state files. Pieces are short here, and so are pauses."""
    folder = tmp_path / "states"
    monkeypatch.setenv(upload_state.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(tus_uploads, "FIRST_PIECE_BYTES", 2 * MIB)
    monkeypatch.setattr(tus_uploads, "_PAUSES", retry.RetryPolicy(base_s=0.01, cap_s=0.05))
    monkeypatch.setattr(tus, "SETTLE_S", 0.1)
    monkeypatch.setattr("rucio_cs3.cs3.namespace._LOOK_AGAIN_S", 0.02)
    return folder


class Case:
    """One upload by TUS, and what must be so afterwards."""

    def __init__(self, place: Place, *, overwrite: bool = False, size: int = SIZE) -> None:
        self.place = place
        self.overwrite = overwrite
        self.storage = self.by_tus()
        self.target: Reference = place.file("target")
        if overwrite:
            place.put("target", OLD)
            place.cloud.traffic.clear()
        self.data = content(size)
        self.local = place.local_file(self.data)

    def by_tus(self) -> CS3Storage:
        return self.place.another(upload_protocol="tus")

    def upload(self, storage: CS3Storage | None = None, **options: Any) -> None:
        (storage or self.storage).upload(self.local, self.target, overwrite=self.overwrite, **options)

    def fails(self, kind: type[BaseException], **options: Any) -> None:
        with pytest.raises(kind):
            self.upload(**options)
        assert self.place.names() == (["target"] if self.overwrite else [])
        if self.overwrite:
            assert self.place.stored(self.target) == OLD

    def patches(self) -> list[Passed]:
        return self.place.passed("data.patch")

    def sent(self) -> int:
        """Bytes that the server has got in all."""
        return sum(patch.received for patch in self.patches())

    def assert_stored(self) -> None:
        assert self.place.pending() == []
        assert self.place.names() == ["target"]
        assert self.place.stored(self.target) == self.data
        assert not self.place.passed("data.put")


def states_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.exists() else []


@both
@pytest.mark.parametrize("size", [1, 2 * MIB, 2 * MIB + 1, SIZE])
def test_c1001_a_file_goes_in_pieces(place: Place, states: Path, overwrite: bool, size: int) -> None:
    case = Case(place, overwrite=overwrite, size=size)
    progress: list[int] = []
    case.upload(progress=progress.append)
    case.assert_stored()
    offsets = [patch.upload_offset for patch in case.patches()]
    assert offsets == [offset for offset in (0, 2 * MIB) if offset < size]
    assert (case.sent(), sum(progress)) == (size, size)
    assert list(states.iterdir()) == []


@both
@pytest.mark.parametrize("position", [0, 1, 4096, MIB, 2 * MIB - 1])
@pytest.mark.parametrize("piece", [0, 1], ids=["first", "last"])
def test_c1002_a_cut_is_survived_and_no_byte_is_sent_twice(
    place: Place, overwrite: bool, position: int, piece: int
) -> None:
    case = Case(place, overwrite=overwrite, size=4 * MIB)
    progress: list[int] = []
    for _ in range(piece):
        place.fault("data.patch", "delay:1")
    place.fault("data.patch", f"cut-after:{position}")
    case.upload(progress=progress.append)
    case.assert_stored()
    assert (case.sent(), sum(progress)) == (4 * MIB, 4 * MIB)
    offsets = [patch.upload_offset for patch in case.patches()]
    assert offsets[piece + 1] == piece * 2 * MIB + position


def test_c1003_many_cuts_are_survived(place: Place) -> None:
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}", times=5)
    case.upload()
    case.assert_stored()
    # Reva v3.12.1 may drop some of what it has read when the connection ends, and says so by its offset.
    again = case.sent() - SIZE
    assert 0 <= again <= (0 if isinstance(place.cloud, EmbeddedCloud) else MIB)


@both
@pytest.mark.parametrize("script", ["lost-answer", f"cut-after:{SIZE}", "answer-502", "answer-504"])
def test_c1004_a_lost_last_answer_is_settled_by_a_look(
    place: Place, monkeypatch: pytest.MonkeyPatch, overwrite: bool, script: str
) -> None:
    """HEAD says 404 then: the upload is over, and the file is there."""
    monkeypatch.setattr(tus_uploads, "FIRST_PIECE_BYTES", 2 * SIZE)
    case = Case(place, overwrite=overwrite)
    place.fault("data.patch", script)
    case.upload()
    case.assert_stored()
    assert case.sent() == SIZE
    # A server that is still at the last bytes says 200 before.
    assert {200, 404} >= {head.status for head in place.passed("data.head")}
    assert place.passed("data.head")[-1].status == 404


@both
def test_c1005_bytes_that_were_sent_and_lost_are_sent_again(place: Place, overwrite: bool) -> None:
    """All of the last piece is read by somebody on the way, and the server gets part of it."""
    case = Case(place, overwrite=overwrite, size=4 * MIB)
    place.fault("data.patch", "delay:1")
    place.fault("data.patch", f"lose-after:{MIB}")
    case.upload()
    case.assert_stored()
    assert case.sent() == 5 * MIB


@both
def test_c1006_nothing_is_seen_under_the_name_before_the_end(place: Place, overwrite: bool) -> None:
    case = Case(place, overwrite=overwrite)
    seen: list[bytes | None] = []

    def look(_: int) -> None:
        on_disk = place.on_disk(case.target)
        seen.append(on_disk.read_bytes() if on_disk.exists() else None)

    place.fault("data.patch", f"cut-after:{MIB}")
    case.upload(progress=look)
    case.assert_stored()
    assert set(seen) == {OLD if overwrite else None}


@pytest.mark.parametrize("script", ["return-423", "return-429", "return-503,retry-after:1", "return-500", "return-408"])
@pytest.mark.parametrize("point", ["data.patch", "data.head"])
def test_c1007_a_busy_server_is_waited_for(place: Place, script: str, point: str) -> None:
    case = Case(place)
    if point == "data.head":
        place.fault("data.patch", f"cut-after:{MIB}")
    place.fault(point, script, times=2)
    started = time.monotonic()
    case.upload()
    case.assert_stored()
    if "retry-after" in script:
        assert time.monotonic() - started >= 2


@pytest.mark.parametrize("script", ["return-413,at:0", "return-413"])
def test_c1008_too_large_a_piece_is_halved(place: Place, script: str) -> None:
    case = Case(place)
    place.fault("data.patch", script)
    case.upload()
    case.assert_stored()
    assert [patch.length for patch in case.patches() if patch.upload_offset == 0] == [2 * MIB, MIB]
    assert max(patch.length or 0 for patch in case.patches()[1:]) == MIB


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("return-400", errors.InvalidRequest),
        ("return-412", errors.PreconditionFailed),
        ("return-501", errors.Unsupported),
        ("return-507", errors.NoSpaceLeft),
        ("return-503,retry-after:3000", errors.Unavailable),
    ],
)
@both
def test_c1009_refusals_mean_what_they_say(
    place: Place, overwrite: bool, script: str, kind: type[errors.CS3Error]
) -> None:
    case = Case(place, overwrite=overwrite)
    place.fault("data.patch", script)
    case.fails(kind)


@both
def test_c1019_who_may_not_write_is_told_so_soon(place: Place, overwrite: bool) -> None:
    """A new ticket that is refused at once, too, has not died of age."""
    case = Case(place, overwrite=overwrite)
    place.fault("data.patch", "return-403", times=2)
    case.fails(errors.AccessDenied)
    assert len(case.patches()) == 2


def test_c1010_where_tus_is_not_understood_a_put_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tus_uploads, "FROM_BYTES", MIB)
    case = Case(place)
    place.fault("data.patch", "return-405")
    case.upload(place.another(upload_protocol="auto"))
    assert place.names() == ["target"]
    assert place.stored(case.target) == case.data
    assert len(place.passed("data.put")) == 1


@pytest.mark.parametrize("status", [404, 410, 403])
def test_c1011_a_lost_upload_is_begun_again(place: Place, status: int) -> None:
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", f"return-{status}")
    case.upload()
    case.assert_stored()
    assert [patch.upload_offset for patch in case.patches()][1] == 0
    assert case.sent() == SIZE + MIB


def test_c1012_dead_tokens_in_mid_upload(place: Place) -> None:
    """Reva needs no access token for this; where the ticket has died, too, another one is had."""
    case = Case(place)
    place.fault("data.patch", "delay:1")
    place.fault("data.patch", "expire-token")
    case.upload()
    case.assert_stored()


@pytest.mark.parametrize("behaviour", list(Behaviour), ids=lambda behaviour: str(behaviour.value))
def test_c1013_an_upload_outlives_many_access_tokens(behaviour: Behaviour, tmp_path: Path) -> None:
    """Tokens of 2 seconds (their exp has whole ones), and an upload of five."""
    with (
        EmbeddedCloud(name="brief", behaviour=behaviour, access_token_lifetime_s=2) as cloud,
        fresh_place(cloud, tmp_path / "local") as place,
    ):
        case = Case(place)
        place.fault("data.patch", f"throttle:{MIB}", times=2)
        case.upload()
        case.assert_stored()
        assert case.sent() == SIZE


def test_c1014_silence_is_survived(place: Place) -> None:
    case = Case(place)
    place.fault("data.patch", f"stall-after:{MIB}")
    place.fault("data.head", "stall")
    case.upload(idle_timeout_s=1.0)
    case.assert_stored()
    # However often a slow machine falls silent, too: what had come before the silence is not sent again.
    assert MIB in [patch.upload_offset for patch in case.patches()]


def test_c1015_a_wrong_byte_is_found_out(place: Place) -> None:
    case = Case(place)
    place.fault("data.patch", "flip-byte")
    if isinstance(place.cloud, EmbeddedCloud) and place.cloud.behaviour is Behaviour.SPACES:
        # The server compares before it shows anything, and says HTTP 500: all is sent once more.
        case.upload()
        case.assert_stored()
    else:
        case.fails(errors.ChecksumMismatch, read_back=True)


def test_c1016_what_was_put_together_is_proven(place: Place) -> None:
    """Also where nobody asked for it: nothing locks an upload at these servers."""
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.patch", "flip-byte")
    if isinstance(place.cloud, EmbeddedCloud) and place.cloud.behaviour is Behaviour.SPACES:
        case.upload()
        case.assert_stored()
    else:
        case.fails(errors.ChecksumMismatch)


def test_c1017_an_empty_file_does_not_go_by_tus(place: Place) -> None:
    case = Case(place, size=0)
    case.upload()
    assert not case.patches()
    assert place.stored(case.target) == b""


def test_c1018_a_large_file_goes_by_tus_and_a_small_one_does_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tus_uploads, "FROM_BYTES", SIZE)
    for name, size, protocol, method in (
        ("small", SIZE, "auto", "data.put"),
        ("large", SIZE + 1, "auto", "data.patch"),
        ("forced", 1, "tus", "data.patch"),
        ("forbidden", SIZE + 1, "simple", "data.put"),
    ):
        place.cloud.traffic.clear()
        place.another(upload_protocol=protocol).upload(place.local_file(content(size)), place.file(name))
        methods = {passed.point for passed in place.passed("data.put", "data.patch")}
        assert methods == {method}, name


# -- across processes ----------------------------------------------------------------------------------------


@both
def test_c1031_the_next_upload_goes_on(place: Place, states: Path, overwrite: bool) -> None:
    case = Case(place, overwrite=overwrite)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable)
    assert len(states_of(states)) == 1
    place.cloud.traffic.clear()
    case.upload(case.by_tus())
    case.assert_stored()
    assert case.sent() == SIZE - MIB
    assert list(states.iterdir()) == []


def interruption() -> Callable[[int], None]:
    """Ctrl-C, after more than half of the bytes."""
    handed_out = 0

    def interrupt(count: int) -> None:
        nonlocal handed_out
        handed_out += count
        if handed_out > 3 * MIB:
            raise KeyboardInterrupt

    return interrupt


@both
def test_c1032_ctrl_c_can_be_gone_on_with(place: Place, states: Path, overwrite: bool) -> None:
    case = Case(place, overwrite=overwrite)
    case.fails(KeyboardInterrupt, progress=interruption())
    place.cloud.traffic.clear()
    case.upload()
    case.assert_stored()
    assert case.sent() <= SIZE - 2 * MIB, "the first piece was confirmed"
    assert list(states.iterdir()) == []


_CHILD = """
import json, os
from pathlib import Path
from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, parse_root
from rucio_cs3.cs3.uploads import tus_uploads
given = json.loads(os.environ["GIVEN"])
webdav = WebDAVBase.parse(given["webdav"], parse_root(given["root"]))
endpoint = Endpoint(
    name="CHILD", gateway=given["gateway"], gateway_tls=False, webdav=webdav
)
tus_uploads.FROM_BYTES = given["from_bytes"]
with CS3Storage(endpoint, BasicProvider(given["user"], Secret(given["password"]))) as storage:
    storage.upload(Path(given["local"]), Reference(endpoint.root, given["path"]), overwrite=given["overwrite"])
print("stored", flush=True)
"""


@contextlib.contextmanager
def child(case: Case) -> Iterator[subprocess.Popen[str]]:
    """The same upload by another process, as its users have it; only the size that makes it worth while is less."""
    user = next(iter(case.place.cloud.users.values()))
    given = {
        "webdav": case.place.cloud.webdav_url,
        "root": str(case.place.cloud.root),
        "gateway": case.place.cloud.gateway,
        "from_bytes": MIB,
        "user": user.username,
        "password": user.password,
        "local": str(case.local),
        "path": case.target.path,
        "overwrite": case.overwrite,
    }
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "GIVEN": json.dumps(given)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(what: Callable[[], object], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it has not come so far"
        time.sleep(0.02)


@both
def test_c1033_a_killed_upload_is_gone_on_with_by_another_process(place: Place, states: Path, overwrite: bool) -> None:
    size = 24 * MIB  # more than the buffers of the kernels on the way take
    case = Case(place, overwrite=overwrite, size=size)
    place.fault("data.patch", f"throttle:{3 * MIB}")
    with child(case) as first:
        until(lambda: states_of(states) and case.sent() > 4 * MIB)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert place.names() == (["target"] if overwrite else [])
    (killed,) = case.patches()
    with child(case) as second:
        said, _ = second.communicate(timeout=60)
    assert (second.returncode, said) == (0, "stored\n")
    case.assert_stored()
    assert 4 * MIB < killed.received < size
    assert [patch.upload_offset for patch in case.patches()] == [0, killed.received]
    assert case.sent() == size
    assert list(states.iterdir()) == []


def test_c1034_a_killed_upload_that_had_ended_gets_its_name(place: Place, states: Path) -> None:
    """Killed after the last byte, before the file had its name: nothing is sent again."""
    if not place.storage.endpoint.stores_paths:
        pytest.skip("no last rename at this line")
    case = Case(place, size=4 * MIB)
    place.fault("data.patch", f"throttle:{MIB}")
    place.fault("gateway.Move", "stall")
    with child(case) as first:
        until(lambda: states_of(states) and not place.pending())
        first.kill()
    assert first.returncode == -signal.SIGKILL
    place.cloud.traffic.clear()
    case.upload()
    case.assert_stored()
    assert not case.patches()
    assert list(states.iterdir()) == []


@pytest.mark.parametrize("change", ["touched", "longer", "replaced"])
def test_c1035_another_local_file_is_sent_anew(place: Place, states: Path, change: str) -> None:
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable)
    assert states_of(states)
    if change == "touched":
        case.data = content(SIZE, seed=2)
        os.utime(place.local_file(case.data))
    elif change == "longer":
        case.data += b"more"
        place.local_file(case.data)
    else:
        case.data = content(SIZE, seed=3)
        place.local_file(case.data, "other").replace(case.local)
    place.cloud.traffic.clear()
    case.upload()
    case.assert_stored()
    assert case.sent() == len(case.data)
    assert list(states.iterdir()) == []


def test_c1036_of_two_that_go_on_only_one_does(place: Place, states: Path) -> None:
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable)
    place.cloud.traffic.clear()
    going_on, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def wait(_: int) -> None:
        going_on.set()
        assert done.wait(60)

    def run() -> None:
        try:
            case.upload(case.by_tus(), progress=wait)
        except errors.CS3Error as error:
            failures.append(error)

    first = threading.Thread(target=run)
    first.start()
    assert going_on.wait(60)
    try:
        case.upload(case.by_tus())  # the other one: from the first byte on
        assert place.stored(case.target) == case.data
    finally:
        done.set()
        first.join()
    case.assert_stored()
    starts = [patch.upload_offset for patch in case.patches()]
    assert 0 in starts
    if place.storage.endpoint.stores_paths:
        assert [type(failure) for failure in failures] == [errors.AlreadyExists]
    else:
        # The condition that the name is free was looked at when the first one began; the content is the same.
        assert failures == []


def test_c1037_no_secret_is_in_a_state_file(
    place: Place, states: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    tokens: set[str] = set()
    request = HTTPClient.request

    def spy(self: HTTPClient, method: str, url: str, **given: object) -> object:
        headers = given["headers"]
        assert isinstance(headers, dict)
        tokens.update({headers["X-Reva-Transfer"], headers["X-Access-Token"], url})
        return request(self, method, url, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(HTTPClient, "request", spy)
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable)
    assert stat.S_IMODE(states.stat().st_mode) == 0o700
    assert states_of(states)
    secrets = {*tokens, *(user.password for user in place.cloud.users.values())}
    assert len(secrets) >= 5
    for path in states.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_bytes().decode()
        assert not [secret for secret in secrets if secret in text]
        assert "eyJ" not in text
    assert not [secret for secret in tokens if secret in caplog.text and not secret.startswith("http")]
    case.upload()
    case.assert_stored()


def test_c1038_what_nobody_can_mend_is_not_kept(place: Place, states: Path) -> None:
    case = Case(place)

    def shorten(_: int) -> None:
        with case.local.open("r+b") as file:
            file.truncate(MIB)

    case.fails(errors.LocalChanged, progress=shorten)
    assert list(states.iterdir()) == []


def test_c1039_nothing_is_kept_where_it_is_not_wanted(place: Place, states: Path) -> None:
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable, resume=False)
    assert not states.exists()


def test_c1040_a_ticket_that_leads_nowhere_any_more_is_given_up(place: Place, states: Path) -> None:
    """What the server has forgotten, or cannot read any more, is begun anew."""
    case = Case(place)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    case.fails(errors.Unavailable)
    place.cloud.traffic.clear()
    place.fault("data.head", "return-404", times=2)
    case.upload()
    case.assert_stored()
    assert case.sent() == SIZE
    assert list(states.iterdir()) == []


def interrupted(case: Case) -> None:
    """Leave the upload unfinished."""
    with pytest.raises(KeyboardInterrupt):
        case.upload(progress=interruption())


def test_c1044_what_is_gone_on_with_gets_its_folder_back(place: Place, states: Path) -> None:
    """Somebody has removed the empty folder since; without it Reva takes all bytes, and fails at the end."""
    case = Case(place)
    case.target = place.file("folder/target")
    interrupted(case)
    place.another().delete(case.target.parent)
    place.cloud.traffic.clear()
    case.upload(case.by_tus())
    assert place.stored(case.target) == case.data
    # Where an upload belongs to the very folder, it is lost with it.
    assert case.sent() <= (SIZE if place.storage.endpoint.stores_paths else 2 * SIZE)
    assert list(states.iterdir()) == []


def test_c1045_a_folder_that_was_removed_meanwhile_costs_one_more_sending(place: Place) -> None:
    """A folder that was there a moment ago is not looked at beforehand."""
    case = Case(place)
    place.put("folder/first", b"first")
    case.storage.upload(place.local_file(b"x", "other"), place.file("folder/second"))
    place.another().delete(place.file("folder"))
    place.cloud.traffic.clear()
    case.target = place.file("folder/target")
    case.upload()
    assert place.stored(case.target) == case.data
    assert case.sent() <= 2 * SIZE


@pytest.mark.parametrize("looks", [1, 2])
def test_c1046_a_commit_that_comes_late_is_no_other_file(place: Place, looks: int) -> None:
    """The last answer is lost, the upload is over, and the file shows only later."""
    if place.storage.endpoint.stores_paths and looks > 1:
        pytest.skip("a hidden sibling is nobody else's name")
    case = Case(place, size=4 * MIB)
    place.fault("data.patch", "delay:1")
    place.fault("data.patch", "lost-answer")
    late: list[bool] = []

    def soon(_: int) -> None:
        # Not before all looks that come before the last piece.
        if not late:
            late.append(True)
            place.fault("gateway.Stat", "code:NOT_FOUND", times=looks)

    case.upload(progress=soon)
    case.assert_stored()
    assert case.sent() == 4 * MIB


def test_c1047_what_another_process_spoiled_is_begun_again(place: Place, states: Path) -> None:
    case = Case(place)
    place.fault("data.patch", "flip-byte")
    interrupted(case)
    assert states_of(states)
    case.upload(case.by_tus())
    case.assert_stored()
    assert list(states.iterdir()) == []


@pytest.mark.usefixtures("rucio_client")
def test_c1042_the_next_upload_by_rucio_goes_on(place: Place, states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(upload_state.FOLDER_VARIABLE, str(states))  # Rucio's tests forget the environment
    data = content(SIZE)
    local = place.local_file(data)
    place.fault("data.patch", f"cut-after:{MIB}")
    place.fault("data.head", "return-503", times=tus.ATTEMPTS - 1)
    first = RucioFace(place, {"cs3_upload_protocol": "tus"})
    with pytest.raises(Exception, match="HTTP 503") as caught:
        first.upload(local)
    assert isinstance(first.reason(caught.value), errors.Unavailable)
    assert len(states_of(states)) == 1
    place.cloud.traffic.clear()
    RucioFace(place, {"cs3_upload_protocol": "tus"}).upload(local)
    assert place.stored(first.target) == data
    assert sum(patch.received for patch in place.passed("data.patch")) == SIZE - MIB
    assert list(states.iterdir()) == []


def test_c1043_memory_does_not_grow_with_the_file(place: Place, states: Path) -> None:
    local = place.local / "large"
    local.touch()
    os.truncate(local, 30_000_000_000)
    place.fault("data.patch", f"return-507,at:{48 * MIB}")
    told = Child(place, place.file("large"), local, upload_protocol="tus").wait()
    assert told["error"].startswith("NoSpaceLeft: ")
    assert told["memory_bytes"] < 64 * MIB
    assert place.passed("data.patch")[-1].received == 48 * MIB
    assert len(states_of(states)) == 1, "with all that this takes"
    assert place.names() == []


@pytest.fixture
def restarting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RevaSite, Place]]:
    """A Reva of one's own, which may be ended and started again."""
    request.getfixturevalue("reva_sites")  # skips or fails where there is no revad
    with RevaSite("restarting") as site, FaultyReva(site) as reva, fresh_place(reva, tmp_path / "local") as place:
        yield site, place


@pytest.mark.reva
def test_c1041_a_server_that_is_started_again_is_gone_on_with(
    restarting: tuple[RevaSite, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, place = restarting
    monkeypatch.setattr(tus_uploads, "_PAUSES", retry.RetryPolicy(base_s=0.5, cap_s=10.0))
    case = Case(place)
    moved, killed = 0, False

    def kill(count: int) -> None:
        nonlocal moved, killed
        moved += count
        if moved > 2 * MIB and not killed:
            killed = True
            site.kill()
            site.start()

    case.upload(progress=kill)
    case.assert_stored()
    assert killed
    assert case.sent() < SIZE + 3 * MIB, "and not from the beginning"
