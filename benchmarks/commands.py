"""The peers that are commands: curl, davix, gfal2's and rclone. Secrets reach them by input or environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from measuring import Command
from peers import CommandPeer, FolderPeer, Operation, Site, Task


class Curl(CommandPeer):
    """The yardstick: nothing but the request that moves the bytes, to where a ticket says."""

    label = "curl, by ticket"
    operations = ("put", "get")
    tickets = True
    programs = ("curl",)

    def command(self, operation: Operation, task: Task) -> Command:
        return Command(
            ["curl", "--config", "-"], given="\n".join([*_curl_options(), *_curl_one(self, operation, task)])
        )


class CurlFolder(FolderPeer):
    """Many files by one curl, which keeps its connections."""

    label = "curl, by tickets, one process"
    tickets = True
    programs = ("curl",)

    def folder_command(self, operation: Operation, tasks: Sequence[Task], at_once: int) -> Command:
        lines = [*_curl_options()]
        if at_once > 1:
            lines += ["parallel", f"parallel-max = {at_once}"]
        for number, task in enumerate(tasks):
            if number:
                lines += ["next", *_curl_options()]
            lines += _curl_one(self, operation, task)
        return Command(["curl", "--config", "-"], given="\n".join(lines))


def _curl_options() -> list[str]:
    # -q would have to be the first word of the command line: a ~/.curlrc of the user counts, as it does for users.
    return ["silent", "show-error", "fail", "globoff"]


def _curl_one(peer: CommandPeer, operation: Operation, task: Task) -> Iterator[str]:
    yield f'url = "{task.ticket_url}"'
    yield f'header = "X-Reva-Transfer: {task.ticket_token}"'
    yield f'header = "X-Access-Token: {peer.site.token}"'
    if operation == "put":
        yield f'upload-file = "{task.local_path}"'
        # Sent without asking first; curl asks for bodies of 1 MiB and more, and waits for the answer.
        yield 'header = "Expect:"'
    else:
        yield f'output = "{task.local_path}"'


class _Rclone:
    """What both ways to call rclone share: its configuration, from the environment alone."""

    # By itself rclone 1.60.1 fetches files from 250 MB on by several ranges at once. Reva's local driver (3.12.1)
    # answers 416 to ranges, and the copy fails.
    WORDS = ("rclone", "--retries", "1", "--multi-thread-streams", "0")

    @staticmethod
    def variables(site: Site) -> dict[str, str]:
        return {
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_WEBDAV_URL": site.webdav_url,
            "RCLONE_WEBDAV_VENDOR": "owncloud",
            "RCLONE_WEBDAV_BEARER_TOKEN": site.token,
        }


class Rclone(CommandPeer):
    label = "rclone copyto"
    speaks = "WebDAV"
    programs = ("rclone",)

    def command(self, operation: Operation, task: Task) -> Command:
        remote = f":webdav:{task.name}"
        words = {
            "put": ["copyto", task.local_path, remote],
            "get": ["copyto", remote, task.local_path],
            "stat": ["lsl", remote],
        }[operation]
        return Command([*_Rclone.WORDS, *words], variables=_Rclone.variables(self.site))


class RcloneFolder(FolderPeer):
    label = "rclone copy, one process"
    speaks = "WebDAV"
    programs = ("rclone",)

    def folder_command(self, operation: Operation, tasks: Sequence[Task], at_once: int) -> Command:
        remote = f":webdav:{PurePosixPath(tasks[0].name).parent}"
        local = str(PurePosixPath(tasks[0].local_path).parent)
        ends = [local, remote] if operation == "put" else [remote, local]
        words = [*_Rclone.WORDS, "--transfers", str(at_once), "--checkers", str(at_once), "copy", *ends]
        return Command(words, variables=_Rclone.variables(self.site))


class Davix(CommandPeer):
    """davix 0.8.4 takes a token by ``-H`` alone, so it is in a command line, which all users of the machine can read.
    It opens a cloud that ends with the benchmark, and whose password stands in this repository.
    """

    label = "davix-put, davix-get"
    operations = ("put", "get")
    speaks = "WebDAV"
    programs = ("davix-put", "davix-get")

    def command(self, operation: Operation, task: Task) -> Command:
        url = self.site.url(task.name)
        ends = [task.local_path, url] if operation == "put" else [url, task.local_path]
        header = f"Authorization: Bearer {self.site.token}"
        return Command([f"davix-{operation}", "--retry", "0", "-H", header, *ends])


class GfalCopy(CommandPeer):
    label = "gfal-copy"
    speaks = "WebDAV"
    programs = ("gfal-copy", "gfal-stat")

    def command(self, operation: Operation, task: Task) -> Command:
        remote, local = self.site.url(task.name, "dav"), f"file://{task.local_path}"
        words = {
            "put": ["gfal-copy", "-f", local, remote],
            "get": ["gfal-copy", "-f", remote, local],
            "stat": ["gfal-stat", remote],
        }[operation]
        # Its programs try one Python after the other until one has gfal2, and believe this.
        python = shutil.which("python3", path="/usr/bin:/bin") or "python3"
        return Command(words, variables={"BEARER_TOKEN": self.site.token, "GFAL_PYTHONBIN": python})
