"""A running cloud with a clouds file for it, as someone without a Rucio uses it."""

from __future__ import annotations

import configparser
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rucio_cs3.cs3 import CS3Storage, Reference
from tests.commands.running import Done, Started, at_terminal, environment_of, run_here, started
from tests.contract.place import Cloud, endpoint_of, provider_of

#: Section of the clouds file.
NAME = "TEST"


@dataclass(kw_only=True)
class CommandPlace:
    """A fresh folder in a running cloud, a clouds file in which ``TEST:`` is that folder, and ways to run commands.

    :param kind: ``v3``, ``spaces`` or ``reva``.
    :param cloud: with ``faults`` and ``traffic``, also the real Reva (by relays).
    :param storage: as another program would use the cloud, beside the command.
    :param folder: what ``TEST:`` stands for; it exists.
    :param local: a fresh local folder.
    :param clouds_file: mode 0600.
    """

    kind: str
    cloud: Cloud
    storage: CS3Storage
    folder: Reference
    local: Path
    clouds_file: Path
    #: Environment of all commands.
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = {
            "RUCIO_CS3_CLOUDS": str(self.clouds_file),
            "RUCIO_HOME": str(self.local.parent / "no-rucio"),
            "HOME": str(self.local.parent),
            **self.settings,
        }
        self.add_entry(NAME)

    # -- the clouds file ------------------------------------------------------------------------------------------

    def add_entry(self, name: str, *, folder: str | None = None, **changes: Any) -> None:
        """One more section: this cloud with other values (None takes one away); ``folder`` is below the root."""
        user = next(iter(self.cloud.users.values()))
        below = self.folder.path if folder is None else folder
        values = {
            "url": f"{self.cloud.webdav_url}/{below}".rstrip("/"),
            "cs3_gateway": self.cloud.gateway,
            "cs3_gateway_tls": "false",
            "cs3_root": self.cloud.root,
            "cs3_call_timeout_s": "20",
            "cs3_idle_timeout_s": "20",
            "username": user.username,
            "password": user.password,
            **changes,
        }
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(self.clouds_file, "utf-8")
        parser[name] = {key: str(value) for key, value in values.items() if value is not None}
        self.clouds_file.touch(mode=0o600)
        with self.clouds_file.open("w", encoding="utf-8") as file:
            parser.write(file)

    # -- what is in the cloud, and on its disk --------------------------------------------------------------------

    def at(self, path: str = "", name: str = NAME) -> str:
        """How a command is told a place: ``TEST:path``."""
        return f"{name}:{path}"

    def file(self, path: str) -> Reference:
        return self.folder.child(path)

    def url(self, path: str) -> str:
        """The PFN of a place below the folder."""
        return self.storage.endpoint.webdav.url(self.file(path))

    def disk(self, path: str = "") -> Path:
        """Where the server keeps it."""
        return self.cloud.path_on_disk(f"{self.folder.path}/{path}".rstrip("/"))

    def tree(self) -> dict[str, bytes | None]:
        """All that is on the server's disk below the folder: path -> content, None for folders."""
        return tree_of(self.disk())

    def put(self, path: str, content: bytes) -> Reference:
        """A file that is there already."""
        source = self.local.parent / "put.bin"
        source.write_bytes(content)
        reference = self.file(path)
        self.storage.upload(source, reference)
        source.unlink()
        return reference

    def fault(self, point: str, script: str, times: int = 1) -> None:
        """Plan a fault (rucio_cs3/sandbox/cloud/faults.py); the fixture fails a test that did not meet it."""
        self.cloud.faults.add(point, script, times)

    # -- commands -------------------------------------------------------------------------------------------------

    def run(self, *arguments: object, typed: str | None = None, **settings: str) -> Done:
        """``rucio-cs3 ARGUMENTS`` in this process, without a terminal; ``settings`` are of its environment."""
        return run_here(arguments, {**self.settings, **settings}, typed)

    def process(self, *arguments: object, typed: bytes | None = None, **settings: str) -> Done:
        """The same as a process of its own; costs about a second of processor."""
        with self.started(*arguments, **settings) as running:
            return running.end(typed=typed)

    def started(self, *arguments: object, **settings: str) -> AbstractContextManager[Started]:
        """The same, and it goes on while the block runs."""
        return started(arguments, {**self.settings, **settings})

    def terminal(self, *arguments: object, columns: int = 80, typed: str = "", **settings: str) -> Done:
        """The same at a terminal of its own."""
        return at_terminal(arguments, {**self.settings, **settings}, columns=columns, typed=typed)

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a command, for tests that start one in a way of their own."""
        return environment_of({**self.settings, **settings})


def new_place(kind: str, cloud: Cloud, number: int, directory: Path) -> CommandPlace:
    """:param directory: a fresh one."""
    endpoint = endpoint_of(cloud)
    storage = CS3Storage(endpoint, provider_of(cloud))
    folder = Reference(endpoint.root, f"commands-{number}")
    storage.make_directories(folder)
    # The first absence makes the client find out how this server refuses tokens; no test's faults are for that.
    storage.exists(folder.child("nothing"))
    local = directory / "local"
    local.mkdir()
    return CommandPlace(
        kind=kind, cloud=cloud, storage=storage, folder=folder, local=local, clouds_file=directory / "clouds.cfg"
    )


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Path below a local folder -> content, None for folders; hidden files, too."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
