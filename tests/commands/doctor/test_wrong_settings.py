"""``rucio-cs3 doctor`` finds what is wrong with settings, logins and certificates, and says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.ports import LOOPBACK, free_port
from tests.commands.clouds import CommandPlace
from tests.commands.doctor.seen import doctor, leftovers


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
    if what == "TLS where there is none":
        assert "set cs3_gateway_tls = false" in seen[row]["advice"]
    if what == "a folder that is not there":
        assert re.search(r"is, with commands-\d+.* in it", seen[row]["seen"])
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
        plain = doctor(place, name="PLAIN")
        assert plain.having("broken") == {"WebDAV"}
        assert "speaks TLS, and is asked without" in plain["WebDAV"]["seen"]
        assert "https" in plain["WebDAV"]["advice"]
        unknown = doctor(place, name="UNKNOWN")
        assert unknown.having("broken") == {"gateway", "WebDAV"}
        assert "cs3_ca_bundle" in unknown["gateway"]["advice"]
        known = doctor(place, "--rse-name", "NEW", name="KNOWN")
        assert known.code == 0, known.document
        # People write https, and Rucio's word for it is davs.
        assert any("--scheme davs --hostname " in line for line in known.document["commands"])
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
    plain = {**values, "url": values["url"].replace("https:", "http:")}
    place.add_entry("PLAIN", cs3_ca_bundle=cloud.ca_bundle, **plain)
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
    assert "recycle bin" in seen["upload"]["advice"]
    assert leftovers(place) == []
    assert place.tree() == {"full": b"0123456789"}
