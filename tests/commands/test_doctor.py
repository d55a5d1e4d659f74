"""``rucio-cs3 doctor``: right set-ups are called right, each kind of wrong one is found, and nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from rucio_cs3.cs3.config import Timeouts
from rucio_cs3.doctor import subjects
from rucio_cs3.doctor.scratch import PREFIX
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from tests.commands.clouds import CommandPlace, new_place
from tests.commands.running import Done, wait_until

FOREVER = 1000


class Seen:
    """What ``--json`` said."""

    def __init__(self, done: Done) -> None:
        self.code = done.code
        assert "eyJ" not in done.out, "a token"
        self.document: dict[str, Any] = json.loads(done.out)
        assert self.document["exit_code"] == done.code
        self._rows = {row["name"]: row for row in self.document["checks"]}
        for row in self._rows.values():
            assert row["advice"] or row["status"] not in ("weak", "broken"), row

    def __getitem__(self, name: str) -> Any:
        return self._rows[name]

    def having(self, *statuses: str) -> set[str]:
        return {name for name, row in self._rows.items() if row["status"] in statuses}


def doctor(place: CommandPlace, *arguments: object, name: str = "TEST", **settings: str) -> Seen:
    done = place.run("doctor", name, "--json", *arguments, **settings)
    assert done.err == ""
    return Seen(done)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., CommandPlace]]:
    """Makes a place in a new embedded cloud with options of its own."""
    opened: list[tuple[EmbeddedCloud, CommandPlace]] = []

    def make(**options: Any) -> CommandPlace:
        cloud = EmbeddedCloud(name="doctor", **options)
        cloud.start()
        directory = tmp_path / f"place-{len(opened)}"
        directory.mkdir()
        place = new_place(cloud.behaviour.value, cloud, len(opened), directory)
        opened.append((cloud, place))
        return place

    yield make
    for cloud, place in opened:
        place.storage.close()
        cloud.stop()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no silent server."""
    long = Timeouts(call_s=20.0, operation_s=40.0, connect_s=20.0, idle_s=20.0, processing_s=20.0)
    monkeypatch.setattr(subjects, "PATIENCE", long)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short, where somebody is silent on purpose."""
    short = Timeouts(call_s=1.0, operation_s=1.0, connect_s=1.0, idle_s=1.0, processing_s=1.0)
    monkeypatch.setattr(subjects, "PATIENCE", short)
    monkeypatch.setattr("rucio_cs3.cli.doctor._SETTLE_S", 1.0)
    monkeypatch.setattr("rucio_cs3.cli.doctor._REMOVAL_S", 2.0)


def leftovers(place: CommandPlace) -> list[str]:
    """What of an examination is on the server's disk, the recycle bin included."""
    return [str(path) for path in place.cloud.data_directory.parent.rglob(f"*{PREFIX}*")]


def unfinished(place: CommandPlace) -> set[Path]:
    """Uploads that an embedded cloud waits for."""
    folder = getattr(place.cloud, "uploads_directory", None)
    return set(folder.iterdir()) if folder else set()


# -- right ones -------------------------------------------------------------------------------------------------------


def test_a_right_cloud_is_called_right_and_left_as_it_was(site: CommandPlace) -> None:
    site.put("mine/data.bin", b"of somebody else")
    before, waiting = site.tree(), unfinished(site)
    seen = doctor(site, "--rse-name", "NEW")
    assert (seen.code, seen.document["verdict"], seen.having("weak", "broken")) == (0, "ok", set()), seen.document
    assert site.tree() == before
    assert leftovers(site) == []
    assert unfinished(site) == waiting
    assert seen.document["left"] == []

    spaces, tpc = site.kind == "spaces", site.kind != "spaces"
    kinds = {name: seen[name]["status"] for name in ("checksums", "wrong checksum", "ranges", "move", "locks", "TPC")}
    assert kinds == dict.fromkeys(kinds, "ok" if spaces else "note") | {"TPC": "ok" if tpc else "note"}
    assert {seen[name]["status"] for name in ("TPC pull", "TPC push")} == ({"ok"} if tpc else {"not tried"})
    assert seen["protocols"]["facts"] == {"offered": ["simple", "tus"], "failed": {}}
    assert seen["recycle bin"]["facts"]["purge"] is True
    assert seen["listing"]["facts"]["entries"] == 1
    assert seen["token"]["facts"]["life_s"] > 3600
    password = next(iter(site.cloud.users.values())).password
    assert password not in json.dumps(seen.document)
    (told,) = [line for line in seen.document["commands"] if line.startswith("rucio rse protocol add")]
    assert f"--impl rucio_cs3.protocol.{'NoRename' if spaces else 'Default'} " in told


def test_read_only_writes_nothing(site: CommandPlace) -> None:
    site.put("mine/data.bin", b"of somebody else")
    before = site.tree()
    site.cloud.traffic.clear()
    seen = doctor(site, "--read-only")
    assert seen.code == 0, seen.document
    # The one COPY is the probe, which must be refused.
    assert {one.point for one in site.cloud.traffic.of()} <= {"webdav.options", "webdav.propfind", "webdav.copy"}
    assert site.tree() == before
    assert leftovers(site) == []
    assert {seen[name]["status"] for name in ("folder", "quota", "listing", "recycle bin")} == {"ok"}
    written = {"probe folder", "upload", "download", "WebDAV file", "checksums", "protocols", "ranges", "move", "locks"}
    assert written <= seen.having("not tried")
    assert all("--read-only" in seen[name]["seen"] for name in ("upload", "TPC push", "move"))


def test_a_url_that_stands_nowhere_yet(one_site: CommandPlace) -> None:
    user = next(iter(one_site.cloud.users.values()))
    one_site.clouds_file.write_text("")
    url = one_site.cloud.webdav_url + f"/{one_site.folder.path}"
    settings = [f"--set=cs3_{key}" for key in (f"gateway={one_site.cloud.gateway}", "gateway_tls=false")]
    settings.append(f"--set=cs3_root={one_site.cloud.root}")
    arguments = ("doctor", url, *settings, "--rse-name", "NEW RSE", "--login", user.username)
    done = one_site.run(*arguments, typed=f"{user.password}\n")
    assert done.code == 0, done.out + done.err
    lines = done.out.splitlines()
    assert "rucio rse add 'NEW RSE'" in lines
    (told,) = [line for line in lines if line.startswith("rucio rse protocol add")]
    assert f'"cs3_gateway": "{one_site.cloud.gateway}"' in told
    assert f"--prefix /remote.php/webdav/{one_site.folder.path}/ " in told
    assert '"third_party_copy_write": 1' in told
    assert user.password not in done.out + done.err

    without = Seen(one_site.run("doctor", url, *settings, "--json"))
    assert (without.code, without["gateway"]["status"], without["login"]["status"]) == (4, "ok", "broken")
    assert "username" in without["login"]["seen"]
    assert without["folder"]["status"] == "not tried"


# -- wrong ones -------------------------------------------------------------------------------------------------------


def _http_port(place: CommandPlace) -> dict[str, object]:
    return {"cs3_gateway": re.sub(r".*//([^/]*)/.*", r"\1", place.cloud.webdav_url)}


def _missing_root(place: CommandPlace) -> dict[str, object]:
    return {"cs3_root": f"{place.cloud.root}/nowhere"}


#: What is wrong -> values of the clouds file, the row that says so, and words there.
_WRONG: dict[str, tuple[Callable[[CommandPlace], dict[str, object]], str, str]] = {
    "a port where nobody is": (
        lambda _: {"cs3_gateway": f"{LOOPBACK}:{free_port()}"},
        "gateway",
        "cannot be reached",
    ),
    "the port of HTTP": (_http_port, "gateway", "is no gRPC server: a web server"),
    "TLS where there is none": (lambda _: {"cs3_gateway_tls": "true"}, "gateway", "speaks no TLS"),
    "a wrong password": (lambda _: {"password": "mistyped"}, "login", "refuses to log in einstein (basic)"),
    "no password": (lambda _: {"password": None}, "login", "password"),
    "a folder that is not there": (lambda _: {"folder": "not/there"}, "folder", "is not there"),
    "a root that is not there": (_missing_root, "folder", "which cs3_root names; this login can see /localfs"),
    "an unknown setting": (lambda _: {"cs3_gatewy": "x:1"}, "settings", "there is no key cs3_gatewy"),
    "a wrong setting": (lambda _: {"cs3_proof": "maybe"}, "settings", "setting cs3_proof is 'maybe'"),
    "a password in the URL": (
        lambda place: {"url": f"{place.cloud.webdav_url}/".replace("://", "://me:mistyped@")},
        "settings",
        "url has a user name or password in it",
    ),
    "no gateway": (lambda _: {"cs3_gateway": None}, "settings", "cs3_gateway is missing"),
}


@pytest.mark.parametrize("what", _WRONG)
def test_what_is_wrong_is_found_and_the_rest_not_tried(one_site: CommandPlace, what: str) -> None:
    values, row, words = _WRONG[what]
    one_site.add_entry("WRONG", **values(one_site))  # type: ignore[arg-type]
    before = one_site.tree()
    seen = doctor(one_site, name="WRONG")
    assert (seen.code, seen.having("broken")) == (4, {row}), seen.document
    assert words in seen[row]["seen"]
    assert seen[row]["advice"]
    assert {"upload", "move", "TPC push"} <= seen.having("not tried")
    assert one_site.tree() == before
    assert "mistyped" not in json.dumps(seen.document)


def test_webdav_urls_that_lead_elsewhere(one_site: CommandPlace) -> None:
    """Uploads through CS3 that no URL shows: everything else would work."""
    elsewhere = "elsewhere"
    one_site.storage.make_directories(one_site.storage.endpoint.webdav.reference(one_site.url(elsewhere)))
    one_site.storage.make_directories(one_site.file(f"{elsewhere}/{one_site.folder.path}"))
    root = f"{one_site.cloud.root}/{one_site.folder.path}/{elsewhere}"
    one_site.add_entry("ROOT", cs3_root=root)
    before = one_site.tree()
    seen = doctor(one_site, name="ROOT")
    assert seen.code == 4
    # The folder of that name is there by both, so only the file tells.
    assert (seen["WebDAV folder"]["status"], seen["upload"]["status"]) == ("ok", "ok")
    assert seen.having("broken") == {"WebDAV file"}
    assert "nobody finds files by their URLs" in seen["WebDAV file"]["seen"]
    assert "cs3_root" in seen["WebDAV file"]["advice"]
    assert one_site.tree() == before
    assert leftovers(one_site) == []


def test_a_space_that_is_not_there_and_those_that_are(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh(behaviour=Behaviour.SPACES)
    storage_id, _, space_id = place.cloud.root.partition("$")
    place.add_entry("OTHER", cs3_root=f"{storage_id}${space_id[::-1]}")
    seen = doctor(place, name="OTHER")
    assert (seen.code, seen.having("broken")) == (4, {"folder"})
    assert seen["folder"]["facts"]["roots"] == [f"{place.cloud.root} (Albert Einstein)"]


def test_certificates(fresh: Callable[..., CommandPlace]) -> None:
    with EmbeddedCloud(name="tls", tls=True) as cloud:
        place = _by_tls(cloud, fresh)
        unknown = doctor(place, name="UNKNOWN")
        assert unknown.having("broken") == {"gateway", "WebDAV"}
        assert "cs3_ca_bundle" in unknown["gateway"]["advice"]
        known = doctor(place, name="KNOWN")
        assert known.code == 0, known.document
        for row in ("gateway TLS", "WebDAV TLS"):
            assert known[row]["facts"]["verified"] is True
            assert "the certificate ends on" in known[row]["seen"]
        insecure = doctor(place, name="INSECURE")
        assert (insecure.code, insecure.having("weak")) == (3, {"gateway TLS", "WebDAV TLS"})
        assert "NOT VERIFIED" in insecure["gateway TLS"]["seen"]
        for_tests = doctor(place, name="RENAMED")
        assert for_tests.having("weak") == {"gateway TLS", "WebDAV TLS"}


def _by_tls(cloud: EmbeddedCloud, fresh: Callable[..., CommandPlace]) -> CommandPlace:
    """Entries for a cloud with TLS, in the clouds file of another one."""
    place = fresh()
    values = {
        "url": f"{cloud.webdav_url}/",
        "cs3_gateway": cloud.gateway,
        "cs3_gateway_tls": "true",
        "cs3_root": cloud.root,
    }
    place.add_entry("UNKNOWN", **values)
    place.add_entry("KNOWN", cs3_ca_bundle=cloud.ca_bundle, **values)
    place.add_entry("INSECURE", cs3_insecure="true", **values)
    place.add_entry("RENAMED", cs3_ca_bundle=cloud.ca_bundle, cs3_tls_name_for_tests="localhost", **values)
    return place


def test_without_third_party_copies_no_push_is_ever_sent(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh(http_tpc=False)
    place.cloud.traffic.clear()
    seen = doctor(place)
    assert (seen.code, seen["TPC"]["status"], seen["TPC push"]["status"]) == (0, "note", "not tried")
    assert "enable_http_tpc" in seen["TPC"]["advice"]
    # The probe: one request that writes nothing.
    assert [one.status for one in place.cloud.traffic.of("webdav.copy")] == [400]
    assert leftovers(place) == []
    place.add_entry("PUSHES", cs3_transfer_mode="push")
    wished = doctor(place, name="PUSHES")
    assert (wished.code, wished.having("weak")) == (3, {"TPC"})
    assert len(place.cloud.traffic.of("webdav.copy")) == 2


def test_a_token_that_dies_at_once(fresh: Callable[..., CommandPlace]) -> None:
    seen = doctor(fresh(access_token_lifetime_s=1))
    assert (seen.code, seen["login"]["status"], seen.having("broken")) == (4, "ok", {"token"})
    assert "dies at once" in seen["token"]["seen"]


def test_tokens_that_live_for_minutes_are_weak(fresh: Callable[..., CommandPlace]) -> None:
    seen = doctor(fresh(access_token_lifetime_s=120))
    assert (seen.code, seen.having("weak", "broken")) == (3, {"token"})


def test_a_full_quota(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh(behaviour=Behaviour.SPACES, quota_bytes=10)
    place.put("full", b"0123456789")
    seen = doctor(place)
    assert (seen.code, seen.having("broken")) == (4, {"quota", "upload"})
    assert "full" in seen["quota"]["seen"]
    assert leftovers(place) == []
    assert place.tree() == {"full": b"0123456789"}


# -- servers in trouble -----------------------------------------------------------------------------------------------


def test_a_silent_rucio_ends_it(one_site: CommandPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = threading.Event()
    monkeypatch.setattr("rucio_cs3.cli.doctor._FIND_S", 0.05)
    monkeypatch.setattr(subjects, "_of_rse", lambda name: spoken.wait(60))
    done = one_site.run("doctor", "CERNBOX")
    spoken.set()
    assert (done.code, done.out) == (1, "")
    assert "Rucio has not answered within" in done.err


def test_a_silent_gateway_ends_it(one_site: CommandPlace, impatient: None) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        one_site.add_entry("SILENT", cs3_gateway=f"{LOOPBACK}:{silent.getsockname()[1]}")
        seen = doctor(one_site, name="SILENT")
    assert (seen.code, seen.having("broken")) == (4, {"gateway"})
    assert "silent" in seen["gateway"]["seen"]


def test_a_gateway_that_wants_to_know_who_we_are(one_site: CommandPlace, tmp_path: Path, impatient: None) -> None:
    """TLS 1.3 tells only after the client's handshake is over."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=_refuse, args=(server, context), daemon=True)
        thread.start()
        address = f"{LOOPBACK}:{server.getsockname()[1]}"
        one_site.add_entry("ASKS", cs3_gateway=address, cs3_gateway_tls="true", cs3_ca_bundle=tmp_path / "ca.pem")
        seen = doctor(one_site, name="ASKS")
        thread.join(20)
    assert seen.having("broken") == {"gateway"}
    assert "wants another client certificate" in seen["gateway"]["seen"]
    assert "cs3_client_certificate" in seen["gateway"]["advice"]


def _refuse(server: socket.socket, context: ssl.SSLContext) -> None:
    """Take one connection, end it at its handshake, and wait for the other side to leave."""
    connection, _ = server.accept()
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
        with contextlib.suppress(ssl.SSLError):
            secured.do_handshake()
        # An end with something unread would be a reset, and that may overtake the reason.
        with contextlib.suppress(OSError):
            while socket.socket.recv(secured, 1000):
                pass


@pytest.mark.parametrize(
    ("point", "script", "row"),
    [
        ("gateway.Authenticate", "stall", "login"),
        ("gateway.Stat", "stall", "folder"),
        ("gateway.CreateContainer", "code:CODE_PERMISSION_DENIED", "probe folder"),
        ("data.put", "return-500", "upload"),
        ("data.put", "stall", "upload"),
        ("data.get", "flip-byte", "upload"),
        ("webdav.propfind", "return-401", "WebDAV folder"),
        ("gateway.GetQuota", "code:CODE_INTERNAL", "quota"),
    ],
)
def test_what_fails_is_named_and_nothing_stays(
    fresh: Callable[..., CommandPlace], impatient: None, point: str, script: str, row: str
) -> None:
    place = fresh()
    place.fault(point, script, FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    assert seen.code == (3 if row in ("WebDAV folder", "quota") else 4)
    assert row in seen.having("weak", "broken"), seen.document
    assert seen[row]["advice"]
    assert place.tree() == {}
    assert seen.document["left"] == []


def test_wrong_checksums_of_the_server(fresh: Callable[..., CommandPlace]) -> None:
    place = fresh(behaviour=Behaviour.SPACES)
    place.fault("gateway.Stat", "wrong-checksum", FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    # The upload finds out first.
    assert seen["upload"]["status"] == "broken"
    assert "but the server says" in seen["upload"]["seen"]
    assert leftovers(place) == []


def test_what_could_not_be_removed_is_said(fresh: Callable[..., CommandPlace], impatient: None) -> None:
    place = fresh()
    place.fault("gateway.Delete", "stall", FOREVER)
    seen = doctor(place)
    place.cloud.faults.clear()
    (left,) = seen.document["left"]
    (folder,) = [name for name in place.tree() if name.startswith(PREFIX) and "/" not in name]
    assert f"/{folder} " in left
    assert seen.code in (3, 4)
    # The next one finds it.
    again = doctor(place)
    assert (again.code, again.having("weak")) == (3, {"listing"})
    assert f"rucio-cs3 rm -r TEST:{folder}" in again["listing"]["advice"]


@pytest.mark.parametrize(
    ("point", "by", "code"), [("data.put", signal.SIGINT, 130), ("gateway.GetQuota", signal.SIGTERM, 143)]
)
def test_who_ends_it_early_finds_nothing_left(
    fresh: Callable[..., CommandPlace], point: str, by: signal.Signals, code: int
) -> None:
    place = fresh()
    place.fault(point, "stall")
    with place.started("doctor", "TEST") as running:
        wait_until(lambda: not place.cloud.faults.pending(), "the stall")
        wait_until(lambda: any(name.startswith(PREFIX) for name in place.tree()), "the folder")
        running.process.send_signal(by)
        done = running.end()
    _ended_clean(place, done, code)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_it_while_several_write_finds_nothing_left(
    fresh: Callable[..., CommandPlace], by: signal.Signals, code: int
) -> None:
    place = fresh()
    # Bytes are there at once, and each writer goes on a while later.
    place.fault("data.put", "delay:1000", FOREVER)
    with place.started("doctor", "TEST") as running:
        wait_until(lambda: len(place.cloud.traffic.of("data.put")) >= 4, "several uploads")
        running.process.send_signal(by)
        done = running.end()
    _ended_clean(place, done, code)


def _ended_clean(place: CommandPlace, done: Done, code: int) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "could not be removed" not in done.err
    assert place.tree() == {}
    assert leftovers(place) == []


def test_a_bin_that_cannot_be_looked_into_is_said(fresh: Callable[..., CommandPlace], impatient: None) -> None:
    place = fresh()
    place.fault("gateway.ListRecycle", "grpc:UNAVAILABLE", FOREVER)
    seen = doctor(place)
    (left,) = seen.document["left"]
    assert "in the recycle bin, which could not be looked into" in left
    assert seen["recycle bin"]["status"] == "weak"
    place.cloud.faults.clear()
    assert leftovers(place) != []
    # Where there is none, nothing is left.
    place.fault("gateway.ListRecycle", "code:CODE_UNIMPLEMENTED", FOREVER)
    seen = doctor(place)
    assert (seen.document["left"], seen["recycle bin"]["status"]) == ([], "note")


@pytest.mark.parametrize("trouble", ["grpc:UNAVAILABLE", "code:CODE_UNAUTHENTICATED", "code:CODE_RESOURCE_EXHAUSTED"])
def test_trouble_on_the_way_is_no_fact_about_the_server(
    fresh: Callable[..., CommandPlace], impatient: None, trouble: str
) -> None:
    place = fresh(behaviour=Behaviour.SPACES)
    for point in ("gateway.SetLock", "gateway.SetArbitraryMetadata"):
        place.fault(point, trouble, FOREVER)
    seen = doctor(place)
    assert {"locks", "metadata"} <= seen.having("weak"), seen.document
    assert seen.code == 3
    place.cloud.faults.clear()
    for point in ("gateway.SetLock", "gateway.SetArbitraryMetadata"):
        place.fault(point, "code:CODE_INTERNAL", FOREVER)
    seen = doctor(place)
    assert {"locks", "metadata"} <= seen.having("note"), seen.document


# -- how it looks -----------------------------------------------------------------------------------------------------


def test_forty_columns_and_no_colour(one_site: CommandPlace) -> None:
    """Names that other people give steer nothing, either."""
    one_site.disk(f"{PREFIX}\x1b[31mred").mkdir()
    done = one_site.terminal("doctor", "TEST", "--read-only", columns=40, NO_COLOR="1", TERM="dumb")
    assert done.code == 3, done.out
    assert "\x1b" not in done.out
    lines = done.out.replace("\r", "").splitlines()
    assert max(len(line) for line in lines) <= 40
    assert "ok folder" in [line.strip() for line in lines]
    assert "weak listing" in [line.strip() for line in lines]
    assert any(line.startswith("TEST: degraded (") for line in lines)


def test_a_terminal_shows_what_is_waited_for(one_site: CommandPlace) -> None:
    done = one_site.terminal("doctor", "TEST", columns=120)
    assert done.code == 0, done.out
    assert "\x1b[" in done.out
    assert re.search(r"\d+ of \d+ done; ", done.out)
    # The table comes once.
    assert done.out.count("4096 bytes went up") == 1
    assert re.search(r"ok.*upload.*4096 bytes went up", done.out)
    assert one_site.tree() == {}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("doctor", "NOBODY"), 1, "NOBODY"),
        (("doctor", "TEST", "--set", "cs3_nothing=1"), 2, "is no KEY=VALUE"),
        (("doctor", "TEST", "--set", "cs3_proof=read"), 2, "--set and --login go with a URL"),
        (("doctor", "TEST", "--login", "somebody"), 2, "--set and --login go with a URL"),
        (("doctor", "https://x/", "--rse", "TEST", "--set", "cs3_proof=read"), 2, "leave --set and --login out"),
        (("doctor", "https://me:mistyped@x/"), 1, "the URL has a user name or password in it"),
        (("doctor", "https://me:mistyped@x/", "--set", "cs3_proof=read"), 1, "the URL has a user name or password"),
        (("doctor", "TEST", "--rse", "OTHER"), 2, "--rse goes with a URL"),
        (("doctor",), 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_one_sentence(one_site: CommandPlace, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = one_site.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err
    assert "mistyped" not in done.err


def test_advice_is_given_for_whatever_is_not_well(one_site: CommandPlace) -> None:
    """Advice goes with the table, too."""
    one_site.add_entry("WRONG", password="mistyped")
    done = one_site.run("doctor", "WRONG")
    assert done.code == 4
    lines = done.out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("broken")]
    assert "refuses to log in" in lines[number]
    assert lines[number + 1].strip().startswith("→ Check user name and secret")
