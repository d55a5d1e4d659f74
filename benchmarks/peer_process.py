"""A peer's process, seen from the benchmark: start it, ask it, end it, and say what failed without any secret."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from peers import Operation, Site, Task
from registry import peer_class

_WORKER = Path(__file__).with_name("worker.py")

#: Texts in tables are to be read at a glance.
_ERROR_CHARACTERS = 160

# JSON Web Tokens: Reva's access and transfer tokens are such.
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.?[\w-]*")


class PeerFailed(RuntimeError):
    """A peer raised, ended or did not answer; the text holds no secret."""


class PeerProcess:
    """One peer in a process of its own. Ends with its ``with`` block, with all that it has started.

    :param python: its interpreter.
    :param variables: for its environment.
    :raises PeerFailed: it cannot be started, or cannot log in.
    """

    def __init__(
        self, name: str, site: Site, *, python: str, variables: Mapping[str, str], timeout_s: float = 60.0
    ) -> None:
        self.name = name
        self.kind = peer_class(name)
        self._site = site
        self._secrets = [site.token, site.password]
        self._process = subprocess.Popen(
            [python, str(_WORKER), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What peers log may hold tokens.
            stderr=subprocess.DEVNULL,
            env={**os.environ, **variables},
            text=True,
            # So that what it runs can be ended with it.
            start_new_session=True,
        )
        try:
            self._send(dataclasses.asdict(site))
            opened = self._answer(timeout_s)
        except BaseException:
            self.close()
            raise
        #: From the first import to being logged in, in seconds.
        self.open_s: float = opened["seconds"]
        #: Memory when it was ready, in KiB; 0 for commands, which begin with nothing.
        self.start_kib: int = 0 if self.kind.starts else opened["start_kib"]

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, operation: Operation, tasks: Sequence[Task], *, at_once: int = 1, profile: bool = False, timeout_s: float
    ) -> dict[str, Any]:
        """Have it do something.

        :raises PeerFailed: it did not; it has ended where it did not even answer.
        """
        self._secrets = [self._site.token, self._site.password, *(task.ticket_token for task in tasks)]
        request = {
            "operation": operation,
            "tasks": [dataclasses.asdict(task) for task in tasks],
            "concurrency": at_once,
            "profile": profile,
        }
        try:
            self._send(request)
            return self._answer(timeout_s)
        except BrokenPipeError:
            raise PeerFailed(f"ended with {self._process.wait()}") from None

    def close(self) -> None:
        """End it, and what it runs. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The end of its input is its sign to go.
                self._process.wait(5)
        if self._process.poll() is None:
            # Not waited for yet, so the id of its process group cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                raise PeerFailed(f"no answer within {timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(self._clean(answer["error"]))
        return answer

    def _clean(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "…")
        text = " ".join(_JWT.sub("…", text).split())
        return text if len(text) <= _ERROR_CHARACTERS else f"{text[:_ERROR_CHARACTERS]}…"
