"""Rucio's own OIDC client, asked for tokens of RSEs; started by ``tests/rucio/test_oidc.py`` with an issuer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from rucio.core import rse as rse_core
from rucio.core.topology import Topology
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

from rucio_cs3 import partners, rse_credentials, rses
from rucio_cs3.agent import hops
from rucio_cs3.agent.sites import Sites
from rucio_cs3.cs3 import errors

if TYPE_CHECKING:
    from tests.rucio.inside.rucio_queue import Queue

WEBDAV = "rucio.rse.protocols.webdav.Default"
OURS = "rucio_cs3.protocol.Default"
PREFIX = "/remote.php/webdav/rucio/"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    rses._attributes.clear()
    yield
    rses._attributes.clear()


def set_attribute(queue: Queue, rse: str, key: str, value: Any) -> None:
    with db_session(DatabaseOperationType.WRITE) as session:
        rse_core.add_rse_attribute(queue.rse_ids[rse], key, value, session=session)


def claims_of(header: str) -> dict[str, Any]:
    """Unverified here: the test that started this has the issuer, and verifies."""
    kind, _, token = header.partition(" ")
    assert kind == "Bearer"
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    with Path(os.environ["TOKENS_SEEN"]).open("a") as file:
        file.write(json.dumps([token, found["aud"]]) + "\n")
    return found


def info_of(queue: Queue, rse: str) -> Any:
    topology = Topology(ignore_availability=True)
    return topology[queue.rse_ids[rse]].ensure_loaded(load_info=True).info


def test_a_plain_source_is_read_with_a_token_for_reading(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(impls=(WEBDAV, OURS))
    for key, value in (("cs3_gateway", "127.0.0.1:1"), ("cs3_gateway_tls", "false")):
        set_attribute(queue, queue.destination_rse, key, value)
    set_attribute(queue, queue.source_rse, "oidc_support", True)
    queue.ask("f")
    queue.submit()
    rse = Topology(ignore_availability=True)[queue.rse_ids[queue.source_rse]]
    pfn = hops.pfn_of(hops.pick_source(queue.row("f")))
    end = Sites().of(rse, partners.READ, pfn).end(pfn)
    reading = claims_of(end.authorization(write=False))
    assert reading["aud"] == f"{queue.source_rse.lower()}.test"
    assert reading["scope"] == f"storage.read:{PREFIX}"
    writing = claims_of(end.authorization(write=True))
    assert writing["scope"] == f"storage.modify:{PREFIX} storage.read:{PREFIX}"
    # Rucio itself keeps tokens in memcached only, and here is none.
    assert end.authorization(write=False) == end.authorization(write=False)


def test_a_cloud_is_logged_in_to_with_such_a_token(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(impls=(OURS, OURS))
    set_attribute(queue, queue.source_rse, "oidc_support", "true")
    login = rse_credentials.credentials(info_of(queue, queue.source_rse)).login()
    assert (login.type, login.client_id) == ("bearer", "")
    assert claims_of(f"Bearer {login.client_secret}")["scope"] == f"storage.modify:{PREFIX} storage.read:{PREFIX}"


def test_the_base_path_is_no_part_of_the_scope(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(impls=(WEBDAV, OURS))
    set_attribute(queue, queue.source_rse, "oidc_support", True)
    set_attribute(queue, queue.source_rse, "oidc_base_path", "/remote.php/webdav")
    provider = rse_credentials.credentials(info_of(queue, queue.source_rse), write=False)
    assert claims_of(f"Bearer {provider.login().client_secret}")["scope"] == "storage.read:/rucio/"


def test_what_is_configured_comes_first(make_queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make_queue(impls=(WEBDAV, OURS))
    set_attribute(queue, queue.source_rse, "oidc_support", True)
    monkeypatch.setenv(f"RUCIO_CS3_{queue.source_rse.replace('-', '_')}_TOKEN", "configured")
    assert rse_credentials.credentials(info_of(queue, queue.source_rse)).login().client_secret == "configured"


@pytest.mark.parametrize("value", [None, False, "no"])
def test_without_the_attribute_nobody_is_asked(make_queue: Callable[..., Queue], value: object) -> None:
    queue = make_queue(impls=(WEBDAV, OURS))
    if value is not None:
        set_attribute(queue, queue.source_rse, "oidc_support", value)
    with pytest.raises(errors.ConfigurationError, match="there are no credentials"):
        rse_credentials.credentials(info_of(queue, queue.source_rse))


def test_an_rse_without_davs_gets_none(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(impls=(WEBDAV, OURS), schemes=("https", "davs"))
    set_attribute(queue, queue.source_rse, "oidc_support", True)
    with pytest.raises(errors.ConfigurationError, match="no protocol has scheme davs"):
        rse_credentials.credentials(info_of(queue, queue.source_rse)).login()


def test_an_issuer_that_refuses_is_an_error_without_secrets(
    make_queue: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_queue(impls=(WEBDAV, OURS))
    set_attribute(queue, queue.source_rse, "oidc_support", True)
    set_attribute(queue, queue.source_rse, "oidc_base_path", "/remote.php/webdav/rucio/refuse")
    provider = rse_credentials.credentials(info_of(queue, queue.source_rse))
    # Not cached: the audience is this RSE's own. The issuer knows no such client any more.
    from rucio.core import oidc

    secret, oidc.OIDC_CLIENT_SECRET = oidc.OIDC_CLIENT_SECRET, "rotated"
    try:
        with pytest.raises(errors.Unavailable) as caught:
            provider.login()
    finally:
        oidc.OIDC_CLIENT_SECRET = secret
    assert queue.source_rse in str(caught.value)
    assert "rotated" not in str(caught.value)
