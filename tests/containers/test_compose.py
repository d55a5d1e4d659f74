"""The compose file that people use: its services, and that what ``configure`` writes starts the harness's own image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.types import Mount

from rucio_cs3.cs3 import BasicProvider, CS3Storage, Endpoint, Reference, Secret, WebDAVBase, parse_root
from rucio_cs3.sandbox import compose
from tests.containers.containers import DOCKER, USER_ID, ContainerProcess
from tests.containers.places import ContainerPlace

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    # Secrets are in files of volumes, never in an environment, which whoever may inspect a container sees.
    assert [key for key in service.get("environment", {}) if "PASSWORD" in key and not key.endswith("_FILE")] == []
    # What is reached from outside is reached from this machine only.
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.rucio
def test_commands_of_the_services_exist() -> None:
    import sys

    programs = Path(sys.executable).parent
    told = {service["command"][0] for service in SERVICES.values() if "command" in service}
    assert "rucio-cs3-agent" in told
    for program in told:
        assert (programs / program).is_file(), program
    work = {service["command"][3] for service in SERVICES.values() if "rucio_cs3.sandbox.compose" in str(service)}
    assert work | {"serve"} == set(compose._WORK)


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volumes of a first start, as the services mount them."""
    for name, attribute in (("rucio", "RUCIO_HOME"), ("sites", "SITES"), ("database", "DATABASE")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(compose, attribute, tmp_path / name)
    for name in ("site-a", "site-b"):
        (tmp_path / "sites" / name).mkdir()
    return tmp_path


@pytest.mark.rucio
def test_secrets_are_made_once_and_are_private(volumes: Path) -> None:
    compose.configure()
    files = {path: path.read_bytes() for path in volumes.rglob("*") if path.is_file()}
    holding = [path for path in files if path.suffix in (".toml", ".json", ".cfg", ".ini") or path.name == "password"]
    assert len(holding) > 8
    assert [path for path in holding if path.stat().st_mode & 0o077] == []
    passwords = {site.users["einstein"].password for site in (compose.SITE_A, compose.SITE_B)}
    assert len(passwords) == 2
    compose.configure()
    assert {path: path.read_bytes() for path in volumes.rglob("*") if path.is_file()} == files


@pytest.mark.docker
@pytest.mark.reva
@pytest.mark.rucio
def test_a_configured_site_starts(container_place: ContainerPlace, volumes: Path, tmp_path: Path) -> None:
    compose.configure()
    site = compose.SITE_A
    for path in (site.folder, *site.folder.rglob("*")):
        shutil.chown(path, USER_ID, USER_ID)
    address = container_place.address(container_place.network)
    box = ContainerProcess(
        container_place.engine,
        "composed",
        container_place.image,
        # As the image says.
        [],
        networks=[(container_place.network, address, [site.name])],
        log=tmp_path / "log",
        mounts=[Mount("/site", str(site.folder), type="bind")],
    )
    user = site.users["einstein"]
    endpoint = Endpoint(
        name=site.name,
        gateway=f"{address}:{compose.GRPC_PORT}",
        gateway_tls=False,
        webdav=WebDAVBase.parse(f"http://{address}:{compose.HTTP_PORT}/remote.php/webdav", parse_root(site.root)),
        allow_plaintext=True,
        # Tickets have the site's name, which is known within the network only.
        data_hosts=frozenset({site.name}),
    )
    try:
        box.start()
        box.wait_until(lambda: True, timeout_s=60)
        with CS3Storage(endpoint, BasicProvider(user.username, Secret(user.password))) as storage:
            box.wait_until(lambda: _exists(storage, Reference(endpoint.root, "")), timeout_s=60)
            storage.make_directories(Reference(endpoint.root, "rucio"))
        assert site.path_on_disk("rucio").is_dir()
    finally:
        box.stop()


def _exists(storage: CS3Storage, reference: Reference) -> bool:
    from rucio_cs3.cs3.errors import CS3Error

    try:
        return storage.exists(reference)
    except CS3Error:
        return False
