"""``rucio-cs3 demo``: the main job told on this machine, with real commands shown as they run.

The steps are those of :mod:`rucio_cs3.sandbox.story`, which the tests use, too; here is only the telling: what to
start, what to print, what was proved. Everything it starts stops with it, also on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rucio_cs3.cli.sandbox import clouds_option
from rucio_cs3.sandbox.cloud import Behaviour, EmbeddedCloud
from rucio_cs3.sandbox.playground import DAEMONS
from rucio_cs3.sandbox.policy.schema import NAME
from rucio_cs3.sandbox.processes import ProcessError
from rucio_cs3.sandbox.reva import RevaSite, RevaUnavailable, find_revad
from rucio_cs3.sandbox.rucio_site import SANDBOX_POLICY, RucioCommandError, RucioSite, RucioUnavailable
from rucio_cs3.sandbox.story import Cloud, Rse, Story, StoryError, make_files

#: Size of the largest of the files that are made where the user names none.
_LARGE_BYTES = 100_000_000

#: Pause between two looks at Rucio while its daemons work, in seconds.
_LOOK_S = 0.2

#: Rucio's daemons and ours, as they run at a site.
_DAEMONS: Sequence[tuple[str, ...]] = (*DAEMONS[:-1], (*DAEMONS[-1], "--include-rses", "CLOUD-A|CLOUD-B"))


@click.command(name="demo")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@clouds_option
@click.option("--keep", is_flag=True, help="Leave everything running, and say how to play with it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was proved as JSON, and the story to stderr.")
def command(directory: Path | None, clouds: str, keep: bool, as_json: bool) -> None:
    """Show the whole way: two clouds, one Rucio, upload to deletion.

    Starts two CS3 clouds and a real Rucio server with its daemons on this machine, uploads the files of
    DIRECTORY (or a few made ones, one of 100 MB) with `rucio upload` to the first cloud, lets a rule move them to
    the second, downloads them from there, compares every byte, and deletes everything again. The exit code is 0
    only if all of it was proved.

    \b
    Example:
      rucio-cs3 demo
      rucio-cs3 demo ~/photos --keep
    """
    # A terminated demo cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=as_json, highlight=False)
    telling = _Telling(console)
    chosen = _chosen_files(directory) if directory else None
    try:
        with tempfile.TemporaryDirectory(prefix="rucio-cs3-demo-") as work:
            _tell(telling, Path(work), chosen, clouds, keep=keep)
    except (StoryError, RucioCommandError, RucioUnavailable, RevaUnavailable, ProcessError) as error:
        telling.failed(str(error))
    except KeyboardInterrupt:
        telling.failed("interrupted")
        sys.exit(130)
    except SystemExit:
        telling.failed("terminated")
        raise
    finally:
        telling.summary()
        if as_json:
            click.echo(json.dumps(telling.as_dict(), indent=2))
    sys.exit(0 if telling.all_proved else 1)


class _Telling:
    """What the console shows, and what was proved."""

    #: What a run has to prove, in order.
    CLAIMS = ("set up", "uploaded", "transferred", "downloaded", "deleted", "secrets kept")

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._proved: dict[str, str] = {}
        self._failure: str | None = None
        self._step = 0

    @property
    def all_proved(self) -> bool:
        return self._failure is None and set(self._proved) == set(self.CLAIMS)

    def step(self, title: str) -> None:
        self._step += 1
        self.console.print()
        self.console.rule(f"[bold]{self._step}. {title}", align="left")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def command(self, line: str) -> None:
        self.console.print(f"  [bold cyan]$[/] {escape(line)}", soft_wrap=True)

    def proved(self, claim: str, how: str) -> None:
        self._proved[claim] = how
        self.console.print(f"  [green]proved:[/] {escape(how)}")

    def failed(self, reason: str) -> None:
        self._failure = reason
        self.console.print(f"\n[bold red]Failed:[/] {escape(reason)}")

    def summary(self) -> None:
        table = Table(title="What was proved", title_justify="left", show_lines=False)
        table.add_column("", width=3)
        table.add_column("step")
        table.add_column("how it was seen")
        for claim in self.CLAIMS:
            how = self._proved.get(claim)
            table.add_row("[green]yes" if how else "[red]no", claim, escape(how or "not reached"))
        self.console.print()
        self.console.print(table)
        self.console.print(f"  {time.monotonic() - self._started:.0f} s in all")

    def as_dict(self) -> dict[str, Any]:
        return {
            "proved": self.all_proved,
            "failure": self._failure,
            "steps": {claim: self._proved.get(claim) for claim in self.CLAIMS},
            "seconds": round(time.monotonic() - self._started, 1),
        }


def _tell(telling: _Telling, work: Path, chosen: list[Path] | None, clouds: str, *, keep: bool) -> None:
    revad = None if clouds == "embedded" else find_revad()
    if clouds == "reva" and revad is None:
        raise RevaUnavailable("there is no revad: set RUCIO_CS3_REVAD to one, or take --clouds embedded")
    kind = f"real Reva sites ({revad})" if revad else "embedded clouds, which answer as Reva v3.12.1 does"
    telling.console.print(
        Panel(
            f"Two CS3 clouds ({escape(kind)}) become storage elements of a real Rucio.\n"
            "Files go up to the first, a rule moves them to the second, they come back from there, and are deleted.",
            title="rucio-cs3 demo",
            border_style="cyan",
        )
    )
    with contextlib.ExitStack() as running:
        telling.step("Two clouds, and a Rucio with its daemons")
        both = [_cloud(name, revad) for name in ("cloud-a", "cloud-b")]
        for cloud in both:
            running.callback(cloud.stop)
            cloud.start()
            telling.say(f"{cloud.name}: gateway {cloud.gateway}, WebDAV {cloud.webdav_url}")
        rucio = running.enter_context(
            RucioSite(work / "rucio", policy_package=SANDBOX_POLICY, on_command=telling.command)
        )
        telling.say(f"rucio: {rucio.url}, SQLite database {rucio.database.name}")
        for daemon in _DAEMONS:
            rucio.loop(*daemon)
        story = Story(rucio, Rse("CLOUD-A", both[0], "davs"), Rse("CLOUD-B", both[1], "davs"))
        files = chosen or make_files(work / "files", large_bytes=_LARGE_BYTES)
        _story(telling, story, files, work)
        if keep:
            _play(telling, story)


def _cloud(name: str, revad: Path | None) -> Cloud:
    if revad is not None:
        return RevaSite(name, tls=True, revad=revad)
    return EmbeddedCloud(name=name, behaviour=Behaviour.V3, tls=True)


def _story(telling: _Telling, story: Story, files: Sequence[Path], work: Path) -> None:
    total = sum(file.stat().st_size for file in files)

    def wait() -> None:
        story.rucio.check_loops()
        time.sleep(_LOOK_S)

    amount = f"{len(files)} files, {total / 1e6:.1f} MB"

    telling.step("The clouds become RSEs")
    story.set_up()
    telling.proved("set up", "Rucio took two RSEs with protocol rucio_cs3.protocol.Default and scheme davs")

    telling.step(f"Upload to CLOUD-A: {amount}")
    started = time.monotonic()
    with telling.console.status("rucio upload …"):
        story.upload(files)
    seconds = time.monotonic() - started
    telling.proved("uploaded", f"{amount} are on the disk of CLOUD-A byte by byte ({seconds:.1f} s)")

    telling.step("A rule: one copy at CLOUD-B")
    story.add_rule()
    telling.say("Rucio's submitter hands over, the agent has CLOUD-B fetch from CLOUD-A, and proves each file there.")
    started = time.monotonic()
    with _bytes_shown(telling.console, story, files, total):
        story.transfer(wait)
    seconds = time.monotonic() - started
    largest = max(files, key=lambda file: file.stat().st_size)
    words = _words_of_the_agent(story.rucio.directory / "log" / "cs3-agent.log", largest.name)
    if words:
        telling.say(f"[dim]agent:[/] {escape(words)}")
    telling.proved("transferred", f"rule {story.rule_id} is OK: {len(files)} of {len(files)} files ({seconds:.1f} s)")

    telling.step("Download from CLOUD-B, and compare")
    folder = work / "downloaded"
    folder.mkdir()
    with telling.console.status("rucio download …"):
        story.download(folder)
    story.compare(files, folder)
    telling.proved("downloaded", f"all {len(files)} files came back from CLOUD-B identical, byte for byte")

    telling.step("Delete")
    telling.say("The rules go, Rucio's judge-cleaner and reaper do the rest.")
    story.lock_new_files(wait)
    story.delete(files, wait)
    telling.proved("deleted", "Rucio knows no replica any more, and no file is left on the disks of both clouds")

    telling.step("Secrets")
    where = story.search_secrets()
    if where:
        raise StoryError(f"a password was found in {', '.join(map(str, where))}")
    telling.proved("secrets kept", "no password is in Rucio's database or in any log of Rucio, its daemons and clouds")


def _chosen_files(directory: Path) -> list[Path]:
    """The files below a folder of the user's, as far as Rucio can name them.

    :raises click.UsageError: when there is none, or one has a name that Rucio's interfaces break.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise click.UsageError(f"there are no files in {directory}")
    for file in files:
        if not re.fullmatch(str(NAME["pattern"]), file.name):
            raise click.UsageError(f'Rucio cannot keep the name of {file} (it holds one of & < : " or begins with -)')
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.UsageError(f"two files in {directory} are called {twice[0]}; a dataset can hold one of a name")
    return files


def _words_of_the_agent(log: Path, name: str) -> str | None:
    """What its log says of a file that it copied: mode, size, time and rate."""
    found = re.search(rf": (copied and proven by .*):{re.escape(name)}, ", log.read_text("utf-8", "replace"))
    return f"{found[1]}:{name}" if found else None


@contextlib.contextmanager
def _bytes_shown(console: Console, story: Story, files: Sequence[Path], total: int) -> Iterator[None]:
    """A bar of the bytes that have arrived at the destination's disk, while the block runs."""
    columns = (TextColumn("  CLOUD-A → CLOUD-B"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    over = threading.Event()

    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)

        def watch() -> None:
            while not over.wait(_LOOK_S):
                progress.update(task, completed=arrived())

        def arrived() -> int:
            sizes = 0
            for file in files:
                path = story.on_disk(story.destination, file.name)
                with contextlib.suppress(OSError):  # gone between the look and the stat
                    sizes += path.stat().st_size if path else 0
            return sizes

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            progress.update(task, completed=arrived())


def _play(telling: _Telling, story: Story) -> None:
    """Say how to go on by hand, and wait."""
    lines: list[str] = [f"export {name}={shlex.quote(value)}" for name, value in story.rucio.environment.items()]
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    telling.step("Yours now")
    telling.say("In another terminal:\n")
    telling.console.print("\n".join(lines), soft_wrap=True, markup=False)
    telling.say("")
    for line in (
        "rucio whoami",
        f"rucio upload --rse CLOUD-A --scope {story.scope} FILE",
        f"rucio rule add {story.scope}:FILE --copies 1 --rses CLOUD-B",
        "rucio-cs3 transfers --watch",
        f"rucio replica list file {story.scope}:FILE --pfns",
    ):
        telling.command(line)
    for rse in (story.source, story.destination):
        users = ", ".join(f"{name} / {user.password}" for name, user in rse.cloud.users.items())
        telling.say(f"{rse.name}: WebDAV {rse.cloud.webdav_url}, CA {rse.cloud.ca_bundle}, users {users}")
    telling.say("\nCtrl-C ends it all.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
