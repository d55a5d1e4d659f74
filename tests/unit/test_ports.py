"""Ports for servers of the sandbox: nobody else gets them, in this process or another."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from rucio_cs3.sandbox.ports import LOOPBACK, free_ports

#: Takes all that eight blocks hold, says which, and keeps them until it may end.
_ALL = """
import sys
from rucio_cs3.sandbox import ports
ports._BLOCKS = range(int(sys.argv[1]), int(sys.argv[1]) + 8 * ports._BLOCK, ports._BLOCK)
taken = []
try:
    while len(taken) < 8 * ports._BLOCK:
        taken.append(ports.free_port())
except OSError:
    pass
print(*taken, flush=True)
sys.stdin.read()
"""

#: A port of the parent's before a fork, the child's, and another one of the parent's.
_FORKED = """
import os
from rucio_cs3.sandbox.ports import free_port
print(free_port(), flush=True)
child = os.fork()
if child:
    os.waitpid(child, 0)
print(free_port(), flush=True)
"""

#: The child's port, while another thread of the parent is in the middle of choosing one.
_FORKED_MEANWHILE = """
import os, signal
from rucio_cs3.sandbox import ports
with ports._unused_lock:
    child = os.fork()
    if not child:
        signal.alarm(20)
        print(ports.free_port(), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_ports_are_different_free_and_not_ephemeral() -> None:
    with ThreadPoolExecutor(4) as pool:
        chosen = [port for some in pool.map(free_ports, [50] * 4) for port in some]
    assert len(set(chosen)) == 200
    assert all(10_240 <= port < 32_768 for port in chosen)
    for port in chosen:
        with socket.create_server((LOOPBACK, port)):
            pass


def test_no_other_process_gets_them() -> None:
    # Anywhere below those that tests use, so that this takes nothing from tests that run beside it.
    command = [sys.executable, "-c", _ALL, str(5_000 + 64 * secrets.randbelow(70))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        mine = set(first.stdout.readline().split())
        second = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
        first.communicate()
    assert mine
    assert not mine & set(second.stdout.split())
    # And when the process is gone they are there for others.
    third = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
    assert mine & set(third.stdout.split())


def test_nor_does_a_forked_child() -> None:
    told = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=60, check=True)
    ports = told.stdout.split()
    assert len(set(ports)) == 3 == len(ports)


def test_a_child_does_not_wait_for_a_thread_of_its_parents() -> None:
    subprocess.run([sys.executable, "-c", _FORKED_MEANWHILE], capture_output=True, timeout=60, check=True)
