"""``rucio-cs3 doctor`` calls right set-ups right, and leaves the cloud as it was."""

from __future__ import annotations

import json

from tests.commands.clouds import CommandPlace
from tests.commands.doctor.seen import Seen, doctor, leftovers, unfinished


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
