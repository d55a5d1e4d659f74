"""The starter of real Reva sites: login, data on disk, two sites at once, TPC between them, TLS, clear failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import requests
from cs3.gateway.v1beta1 import gateway_api_pb2, gateway_api_pb2_grpc
from cs3.rpc.v1beta1 import code_pb2

from rucio_cs3.sandbox.processes import ChildProcess, ProcessError
from rucio_cs3.sandbox.reva import REVAD_VARIABLE, RevaSite, RevaUnavailable, User, find_revad

CONTENT = b"somewhere, something incredible\n" * 1000


def _token(site: RevaSite, user: User) -> str:
    request = gateway_api_pb2.AuthenticateRequest(type="basic", client_id=user.username, client_secret=user.password)
    with grpc.insecure_channel(site.gateway) as channel:
        answer = gateway_api_pb2_grpc.GatewayAPIStub(channel).Authenticate(request, timeout=10)
    assert answer.status.code == code_pb2.CODE_OK, answer.status.message
    return str(answer.token)


def _request(method: str, site: RevaSite, relative: str, *, headers: dict[str, str], data: bytes = b"") -> int:
    verify: str | bool = str(site.ca_bundle) if site.ca_bundle else True
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(
            method, f"{site.webdav_url}/{relative}", headers=headers, data=data, verify=verify, timeout=30
        )
        return answer.status_code


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _becomes_true(condition: Callable[[], bool], *, within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan that has ended but that init has not collected yet.
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture(scope="module")
def tls_sites() -> Iterator[tuple[RevaSite, RevaSite]]:
    with RevaSite("a", tls=True) as a, RevaSite("b", tls=True) as b:
        yield a, b


@pytest.fixture(params=["plain", "tls"])
def sites(request: pytest.FixtureRequest) -> tuple[RevaSite, RevaSite]:
    name = "reva_sites" if request.param == "plain" else "tls_sites"
    pair: tuple[RevaSite, RevaSite] = request.getfixturevalue(name)
    return pair


@pytest.mark.reva
def test_two_sites_are_two_sites(sites: tuple[RevaSite, RevaSite]) -> None:
    a, b = sites
    token = _token(a, a.users["einstein"])

    assert _request("PUT", a, "only-a.bin", headers=_bearer(token), data=CONTENT) == 201
    assert a.path_on_disk("only-a.bin").read_bytes() == CONTENT
    assert not b.path_on_disk("only-a.bin").exists()
    assert _request("GET", b, "only-a.bin", headers=_bearer(token)) == 401


@pytest.mark.reva
def test_every_user_can_log_in(reva_sites: tuple[RevaSite, RevaSite]) -> None:
    site, _ = reva_sites
    tokens = {_token(site, user) for user in site.users.values()}
    assert len(tokens) == len(site.users) >= 2


@pytest.mark.reva
def test_third_party_copy_between_sites(sites: tuple[RevaSite, RevaSite]) -> None:
    a, b = sites
    token_a, token_b = _token(a, a.users["einstein"]), _token(b, b.users["marie"])
    assert _request("PUT", a, "tpc source.bin", headers=_bearer(token_a), data=CONTENT) == 201

    pull = {
        **_bearer(token_b),
        "Source": f"{a.webdav_url}/tpc%20source.bin",
        "TransferHeaderAuthorization": f"Bearer {token_a}",
        "Overwrite": "F",
    }
    assert _request("COPY", b, "pulled.bin", headers=pull) == 202
    assert b.path_on_disk("pulled.bin").read_bytes() == CONTENT

    push = {
        **_bearer(token_a),
        "Destination": f"{b.webdav_url}/pushed.bin",
        "TransferHeaderAuthorization": f"Bearer {token_b}",
        "Overwrite": "F",
    }
    assert _request("COPY", a, "tpc source.bin", headers=push) == 202
    assert b.path_on_disk("pushed.bin").read_bytes() == CONTENT


@pytest.mark.reva
def test_a_stranger_does_not_trust_the_certificate(tls_sites: tuple[RevaSite, RevaSite]) -> None:
    site, _ = tls_sites
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(site.webdav_url, timeout=30)


@pytest.mark.reva
def test_without_http_tpc_a_pull_is_refused(reva_sites: tuple[RevaSite, RevaSite], tmp_path: Path) -> None:
    source, _ = reva_sites
    with RevaSite("no-tpc", directory=tmp_path / "site", http_tpc=False) as site:
        headers = {
            **_bearer(_token(site, site.users["einstein"])),
            "Source": f"{source.webdav_url}/whatever",
            "Overwrite": "F",
        }
        assert _request("COPY", site, "target", headers=headers) == 400


@pytest.mark.reva
def test_a_restart_keeps_address_data_and_tokens(tmp_path: Path) -> None:
    site = RevaSite("again", directory=tmp_path / "site")
    with site:
        gateway, token = site.gateway, _token(site, site.users["einstein"])
        assert _request("PUT", site, "kept", headers=_bearer(token), data=CONTENT) == 201
    assert not site.running
    with site:
        assert site.gateway == gateway
        assert _request("GET", site, "kept", headers=_bearer(token)) == 200
    assert site.path_on_disk("kept").exists()


@pytest.mark.reva
def test_stop_removes_a_temporary_directory() -> None:
    with RevaSite("short") as site:
        directory = site.directory
        assert (directory / "revad.toml").stat().st_mode & 0o077 == 0
    assert not directory.exists()


def test_a_wrong_revad_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(REVAD_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(RevaUnavailable, match=f"{REVAD_VARIABLE} names .*absent"):
        find_revad()


def test_revad_is_found_by_variable_before_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("named", "on-path"):
        (tmp_path / place).mkdir()
        program = tmp_path / place / "revad"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "on-path"))
    monkeypatch.delenv(REVAD_VARIABLE, raising=False)
    assert find_revad() == tmp_path / "on-path" / "revad"
    monkeypatch.setenv(REVAD_VARIABLE, str(tmp_path / "named" / "revad"))
    assert find_revad() == tmp_path / "named" / "revad"


def test_a_revad_that_dies_is_reported_with_its_log(tmp_path: Path) -> None:
    program = tmp_path / "revad"
    program.write_text("#!/bin/sh\necho 'the disk is full of eels'\nexit 3\n")
    program.chmod(0o755)
    site = RevaSite("broken", directory=tmp_path / "site", revad=program)
    with pytest.raises(ProcessError, match=r"'broken' ended with exit code 3(.|\n)*full of eels"):
        site.start()


def test_a_process_that_is_late_is_stopped_and_reported(tmp_path: Path) -> None:
    # Deaf to SIGTERM, so that stopping it needs SIGKILL.
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    child = ChildProcess("sleeper", [sys.executable, "-c", program], log=tmp_path / "log")
    child.start()
    try:
        child.wait_until(lambda: "up" in child.output(), timeout_s=30)
        pid = child.pid
        assert pid is not None
        child.stop(grace_s=0.1)
        assert not child.running
        assert child.wait(timeout_s=1) == -signal.SIGKILL
        assert _is_gone(pid)
    finally:
        child.stop(grace_s=0.1)
    child = ChildProcess("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], log=tmp_path / "log")
    child.start()
    with pytest.raises(ProcessError, match=r"not ready after 0\.2 s"):
        child.wait_until(lambda: False, timeout_s=0.2)
    assert not child.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from rucio_cs3.sandbox.processes import ChildProcess
child = ChildProcess("orphan", [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"],
                     log=Path({str(tmp_path / "log")!r}))
child.start()
child.wait_until(lambda: "up" in child.output(), timeout_s=30)
print(child.pid, flush=True)
os._exit(1)
"""
    parent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    orphan = int(parent.stdout)
    assert _becomes_true(lambda: _is_gone(orphan))
