"""Programs that end by a bug: their tracebacks show source lines and messages, never the values of variables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.leaks.known import Known
from tests.leaks.search import Place, search

PASSWORD = "the-password-of-this-test"

#: The command, with a bug behind one of its subcommands; what it runs with holds a secret.
_COMMAND = """
import os, sys, types
import click
from rucio_cs3.cli import main
from rucio_cs3.cs3 import BasicProvider, Secret
from rucio_cs3.cs3.login.tokens import Credential

@click.command()
def command():
    password = os.environ["PLANTED"]
    provider, headers = BasicProvider("me", Secret(password)), {"X-Access-Token": password}
    login, credential = provider.login(), Credential(password)
    raise RuntimeError(f"nobody has foreseen this: {provider} {login} {credential} {sorted(headers)}")

sys.modules["rucio_cs3.cli.transfers"] = types.SimpleNamespace(command=command)
"""

_COUNTED = "\nmain.main()\n"

#: What nobody should switch on, and what a crash reporter is like that does.
_WITH_LOCALS = "\nfrom rich.traceback import install\ninstall(show_locals=True)\nmain.main()\n"


def run(program: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", program, "transfers"],
        env={**os.environ, "PLANTED": PASSWORD},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 1
    return finished.stdout + finished.stderr


@pytest.fixture
def known() -> Known:
    known = Known()
    known.add("the password", PASSWORD)
    return known


def test_our_command_shows_no_local_variables(known: Known) -> None:
    said = run(_COMMAND + _COUNTED)
    assert "Traceback (most recent call last)" in said
    assert "nobody has foreseen this: BasicProvider(username='me'" in said
    assert search(known, [Place("the traceback", said.encode())]) == []


def test_one_that_shows_them_shows_secrets(known: Known) -> None:
    """Which docs/security.md says, too: values of variables must be switched off in crash reporters."""
    assert search(known, [Place("the traceback", run(_COMMAND + _WITH_LOCALS).encode())])
