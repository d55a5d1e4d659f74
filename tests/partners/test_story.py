"""A plain site as an RSE of a real Rucio, with its own protocol as ``impl``: to it, from it, and through a cloud.

The files go through Rucio's submitter and finisher and our agent; the plain sites are two folders of a real XRootD,
reached over HTTP only, and the cloud between them is a real Reva.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rucio_cs3.sandbox.reva import RevaSite
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY
from rucio_cs3.sandbox.story import Rse, hash_path
from rucio_cs3.sandbox.xrootd import XRootDSite
from tests.rucio.recorded_rucio import RecordedRucio

pytestmark = [pytest.mark.rucio, pytest.mark.reva, pytest.mark.xrootd]

SCOPE = "partners"
SIZE = 300_000

_REGISTER_AND_ASK = """
import json, sys
from rucio.client import Client
client = Client()
told = json.load(sys.stdin)
for rse, files in told["there"].items():
    client.add_replicas(rse, files)
for key, value in told["multihop"].items():
    client.add_rse_attribute(key, "available_for_multihop", value)
rules = {}
for name, rse in told["wanted"].items():
    rules[name] = client.add_replication_rule([{"scope": told["scope"], "name": name}], 1, rse)[0]
print(json.dumps(rules))
"""


@dataclass(frozen=True)
class PlainRse:
    """A folder of an XRootD as an RSE, by a protocol that is none of ours."""

    name: str
    site: XRootDSite
    folder: str

    def protocol(self) -> dict[str, object]:
        url = urlsplit(self.site.url)
        return {
            "scheme": "davs",
            "hostname": str(url.hostname),
            "port": str(url.port),
            "prefix": f"{url.path}/{self.folder}/",
            "impl": "rucio.rse.protocols.webdav.Default",
            "extended_attributes": {"cs3_ca_bundle": str(self.site.ca_bundle)},
        }

    def account(self) -> dict[str, str]:
        return {"token": self.site.token(self.folder)}

    def on_disk(self, name: str) -> Path:
        return self.site.path_on_disk(f"{self.folder}/{hash_path(SCOPE, name)}")


@dataclass
class Told:
    """How it ended."""

    rucio: RecordedRucio
    contents: dict[str, bytes]
    plain: tuple[PlainRse, PlainRse]
    cloud: Rse
    rules: dict[str, str]
    log: str

    def rule(self, name: str) -> tuple[str, str | None]:
        ((state, error),) = self.rucio.query("SELECT state, error FROM rules WHERE id = ?", self.rules[name])
        return state, error

    def in_cloud(self, name: str) -> Path:
        return self.cloud.cloud.path_on_disk(f"{self.cloud.folder}/{hash_path(SCOPE, name)}")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    generator = random.Random(7)
    contents = {name: generator.randbytes(SIZE) for name in ("from-plain", "to-plain", "through")}
    with pytest.MonkeyPatch.context() as environment:
        # As for the other tests with XRootD: what it pushes to speaks HTTP/1.1.
        environment.setenv("GODEBUG", "http2server=0")
        reva = RevaSite("story", tls=True)
        with XRootDSite("plain") as xrootd, reva, RecordedRucio(policy_package=SANDBOX_POLICY) as rucio:
            one, other = PlainRse("PLAIN-ONE", xrootd, "one"), PlainRse("PLAIN-OTHER", xrootd, "other")
            cloud = Rse("CLOUD", reva, "davs")
            for folder in ("one", "other"):
                xrootd.write(f"{folder}/.keep", b"")
            rses: list[Any] = [one, other, cloud]
            rucio.add_rses(*rses)
            rucio.set_distance("PLAIN-ONE", "CLOUD")
            rucio.set_distance("CLOUD", "PLAIN-OTHER")
            rucio.add_scope(SCOPE)
            # One that was there before Rucio, two that are written by people.
            local = tmp_path_factory.mktemp("partners")
            (local / "to-plain").write_bytes(contents["to-plain"])
            rucio.rucio("upload", "--rse", "CLOUD", "--scope", SCOPE, local / "to-plain")
            files = []
            for name in ("from-plain", "through"):
                xrootd.write(f"one/{hash_path(SCOPE, name)}", contents[name])
                adler32 = f"{zlib.adler32(contents[name]):08x}"
                files.append({"scope": SCOPE, "name": name, "bytes": SIZE, "adler32": adler32})
            asked = {
                "scope": SCOPE,
                "there": {"PLAIN-ONE": files},
                "multihop": {"CLOUD": True},
                "wanted": {"from-plain": "CLOUD", "to-plain": "PLAIN-OTHER", "through": "PLAIN-OTHER"},
            }
            answer = rucio._run(
                [sys.executable, "-c", _REGISTER_AND_ASK], rucio.environment, timeout_s=60.0, given=json.dumps(asked)
            )
            log = ""
            for _ in range(2):
                log += rucio.conveyor("submitter")
                log += rucio.cs3("agent", "--run-once")
                log += rucio.conveyor("finisher")
            yield Told(rucio, contents, (one, other), cloud, json.loads(answer.stdout), log)


def test_from_a_plain_site_to_a_cloud(told: Told) -> None:
    assert told.rule("from-plain") == ("O", None), told.log
    assert told.in_cloud("from-plain").read_bytes() == told.contents["from-plain"]
    assert told.plain[0].on_disk("from-plain").read_bytes() == told.contents["from-plain"]


def test_from_a_cloud_to_a_plain_site(told: Told) -> None:
    assert told.rule("to-plain") == ("O", None), told.log
    assert told.plain[1].on_disk("to-plain").read_bytes() == told.contents["to-plain"]


def test_a_path_of_two_hops_that_rucio_built(told: Told) -> None:
    """There is no distance between the two plain sites, and between two of them a copy would be none of ours."""
    assert told.rule("through") == ("O", None), told.log
    assert told.plain[1].on_disk("through").read_bytes() == told.contents["through"]
    # The intermediate replica: Rucio made it, and its reaper removes it later.
    assert told.in_cloud("through").read_bytes() == told.contents["through"]
    states = told.rucio.replica_states(SCOPE)
    assert {rse: states[rse, "through"] for rse in ("PLAIN-ONE", "CLOUD", "PLAIN-OTHER")} == dict.fromkeys(
        ("PLAIN-ONE", "CLOUD", "PLAIN-OTHER"), "A"
    )
    hops = told.rucio.query(
        "SELECT s.rse, d.rse, h.state, h.transfertool FROM requests_history h "
        "JOIN rses s ON s.id = h.source_rse_id JOIN rses d ON d.id = h.dest_rse_id WHERE h.name = ? ORDER BY d.rse",
        "through",
    )
    assert hops == [("PLAIN-ONE", "CLOUD", "D", "cs3"), ("CLOUD", "PLAIN-OTHER", "D", "cs3")]
    assert told.rucio.query("SELECT * FROM transfer_hops") == []


def test_no_request_is_left_and_no_secret_is_kept(told: Told) -> None:
    assert told.rucio.query("SELECT name FROM requests WHERE scope = ?", SCOPE) == []
    rows = told.rucio.query("SELECT err_msg, dest_url, attributes FROM requests_history WHERE scope = ?", SCOPE)
    assert len(rows) == 4
    text = repr([*rows, *told.rucio.query("SELECT payload FROM messages")]) + told.log
    tokens = [str(account["token"]) for account in told.rucio.accounts.values() if "token" in account]  # type: ignore[operator,index]
    assert len(tokens) == 2
    for token in tokens:
        assert token not in text
