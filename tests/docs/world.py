"""What the examples of one page find: RSEs of its own in the shared playground, under the names that the pages use.

The pages name public hosts and RSEs. What of that is written differently in the sandbox is replaced in commands, and
replaced back in what they write.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from rucio_cs3 import clouds
from rucio_cs3.sandbox.playground import Playground, write_clouds_file
from rucio_cs3.sandbox.rucio_commands import clean_environment
from rucio_cs3.sandbox.story import Rse
from tests.docs.examples import Page, Step

#: RSE in the pages -> cloud of the playground.
RSES: Mapping[str, str] = {"CERNBOX": "cernbox", "OTHER": "other", "SPACE": "space"}

#: Further RSEs over the folder of CERNBOX, which pages make themselves.
MADE = ("PROJECTS", "HOMES")

#: RSE -> host, and CS3 path or space, by which the pages call its cloud.
_HOSTS: Mapping[str, tuple[str, str]] = {
    "CERNBOX": ("cernbox.example.org", "/eos/project/r/rucio"),
    "OTHER": ("other.example.org", "/eos/project/r/rucio"),
    "SPACE": (
        "opencloud.example.org",
        "1284d238-aa92-42ce-bdc4-0b0000009157$4c510ada-c86b-4815-8820-42cdf82c3d51",
    ),
}

SCOPE = "user.jdoe"


@dataclass
class World:
    """One page's part of the playground.

    :param folder: where its commands run; their HOME.
    """

    playground: Playground
    page: Page
    folder: Path
    rses: dict[str, Rse] = field(default_factory=dict)
    more: dict[str, Rse] = field(default_factory=dict)
    scope: str = SCOPE

    def make(self) -> None:
        """RSEs, a scope, a clouds file, passwords and local files."""
        tag = re.sub(r"[^a-z0-9]", "", self.page.name)
        for name, cloud in RSES.items():
            self.rses[name] = self.playground.rse(cloud, f"{name}-{tag.upper()}", f"{tag}/rucio")
        for name in MADE:
            self.more[name] = replace(self.rses["CERNBOX"], name=f"{name}-{tag.upper()}")
        self.scope = f"{SCOPE}.{tag}"
        self.playground.write_passwords(self.folder)
        for name in RSES:
            shutil.copy2(self.folder / "rucio.password", self.folder / f"{name.lower()}.password")
        sections = {
            name.lower(): self.playground.section(rse, self.folder / "jdoe.password") for name, rse in self.rses.items()
        }
        write_clouds_file(self.folder / ".config" / "rucio-cs3" / "clouds.cfg", sections)
        for name, section in sections.items():
            place = clouds.from_settings(name, section, where=name)
            place.storage.make_directories(place.folder)
        there = [rse for name, rse in self.rses.items() if name not in self.page.fresh]
        self.playground.add(rses=there, scopes={self.scope: "jdoe"})
        self._local_files()

    def _local_files(self) -> None:
        generator = random.Random(self.page.name)
        run = self.folder / "run7"
        run.mkdir()
        for path, size in ((self.folder / "data.root", 300_000), (run / "a.root", 50_000), (run / "b.root", 70_000)):
            path.write_bytes(generator.randbytes(size))
        (run / "notes.txt").write_text("seventh run\n")
        (self.folder / "results.csv").write_text("event,energy\n1,13.1\n2,13.5\n3,13.6\n")

    def accounts(self) -> dict[str, object]:
        """What rse-accounts.cfg says of all that the page itself does not give a login for."""
        rses = {name: rse for name, rse in {**self.rses, **self.more}.items() if name not in self.page.fresh}
        # A personal space is its owner's alone.
        users = {name: "jdoe" if name == "SPACE" else "rucio" for name in rses}
        return {
            rse.name: {"username": users[name], "password": rse.cloud.users[users[name]].password}
            for name, rse in rses.items()
        }

    # -- words -----------------------------------------------------------------------------------------------

    def real(self, text: str) -> str:
        """Commands of the page as they are here."""
        for public, here in self.page.replaced.items():
            text = text.replace(public, here)
        for name, rse in self.rses.items():
            host, place = _HOSTS[name]
            url = urlsplit(rse.cloud.webdav_url)
            gateway, inside = rse.cloud.gateway, f"{rse.cloud.root}/{rse.folder}"
            settings = json.dumps(rse.protocol()["extended_attributes"])[1:-1]
            base = url.path
            path = f"/dav/spaces/{place}" if name == "SPACE" else f"/remote.php/webdav{place}"
            section = self.playground.section(rse, Path())
            lines = "\n".join(f"{key} = {value}" for key, value in section.items() if key.startswith("cs3_"))
            for public, here in (
                (f"cs3_gateway = {host}:9142", lines),
                (f'"cs3_gateway": "{host}:9142"', settings),
                (f"{host}:9142", gateway),
                (f"{host}:443{path}", f"{url.netloc}{base}/{rse.folder}"),
                (f"{host}{path}", f"{url.netloc}{base}/{rse.folder}"),
                (f"--hostname {host} --port 443", f"--hostname {url.hostname} --port {url.port}"),
                (host, url.netloc),
            ):
                text = text.replace(public, here)
            if name == "CERNBOX":
                text = text.replace(path, f"{base}/{rse.folder}").replace(place, inside)
            elif name == "SPACE":
                text = text.replace(f"{path}/rucio", f"{base}/{rse.folder}").replace(path, base)
        text = text.replace("/etc/rucio/", f"{self.folder}/").replace(SCOPE, self.scope)
        rses = {**self.rses, **self.more}
        names = "|".join(rses)
        text = re.sub(rf"RUCIO_CS3_({names})_", lambda m: f"RUCIO_CS3_{self._variable(m[1])}_", text)
        return re.sub(rf"(?<![\w$-])({names})(?![\w-])", lambda m: rses[m[1]].name, text)

    def public(self, text: str) -> str:
        """What a command has written, as the page shows it."""
        for name, rse in self.rses.items():
            host, place = _HOSTS[name]
            url = urlsplit(rse.cloud.webdav_url)
            path = f"/dav/spaces/{place}/rucio" if name == "SPACE" else f"/remote.php/webdav{place}"
            for here, public in (
                (f"{url.netloc}{url.path}/{rse.folder}", f"{host}{path}"),
                (f"{rse.cloud.root}/{rse.folder}", place),
                (rse.cloud.gateway, f"{host}:9142"),
                (url.netloc, host),
            ):
                text = text.replace(here, public)
        for name, rse in {**self.rses, **self.more}.items():
            text = text.replace(rse.name, name)
        return text.replace(self.scope, SCOPE).replace(f"{self.folder}/", "")

    def _variable(self, name: str) -> str:
        return re.sub(r"[^A-Z0-9]", "_", self.rses[name].name.upper())

    # -- environments ----------------------------------------------------------------------------------------

    def environment(self, step: Step) -> dict[str, str]:
        """What a step begins with: for a shell, what earlier ones have exported comes on top."""
        rucio = self.playground.rucio
        own = {
            "person": rucio.environment,
            "operator": rucio.daemon_environment,
            "none": {},
        }[step.configuration]
        found = {name: value for name, value in clean_environment(own).items() if not name.startswith("XDG_")}
        found["HOME"] = str(self.folder)
        found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
        found["COLUMNS"] = "120"
        for name, rse in self.rses.items():
            found[f"{name}_ON_DISK"] = str(rse.cloud.path_on_disk(rse.folder))
            found[f"{name}_URL"] = f"{rse.cloud.webdav_url}/{rse.folder}"
        return found
