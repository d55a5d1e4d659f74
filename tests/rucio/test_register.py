"""Registration in real processes: what server, daemons and clients end up with, in any order of imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rucio

# Imports what its arguments name, in that order, and tells what is then in force. type() looks at the module
# without touching its attributes, so it shows whether registration still waits for the first use.
_TELL = """
import importlib, json, sys
for name in sys.argv[1:]:
    module, _, function = name.partition(":")
    module = importlib.import_module(module)
    if function:
        getattr(module, function)()
transfer = sys.modules.get("rucio.core.transfer")
waiting = type(transfer).__name__ == "_PartialTransferModule"
policy = sys.modules.get("rucio_cs3.policy")
told = {"waiting": waiting, "registered": policy.registered() if policy else None}
if transfer is not None:
    from rucio.core.transfer import TRANSFERTOOL_CLASSES_BY_NAME as tools
    told["tool"] = getattr(tools.get("cs3"), "__name__", None)
    told["fts"] = sorted({"cs3s", "cs3", "dav"} & set(tools["fts3"].supported_schemes))
    told["traces"] = [
        type(transfer).__name__ != "module",
        type(transfer.__loader__).__name__,
        type(transfer.__spec__.loader).__name__,
        sum(type(finder).__name__ == "_TransferFinder" for finder in sys.meta_path),
    ]
print(json.dumps(told))
"""

_CFG = """
[common]
loglevel = INFO
[database]
default = sqlite:///{home}/rucio.db
[policy]
{package}permission = generic
schema = generic
[conveyor]
transfertool = cs3
"""

_CLIENT_CFG = """
[client]
rucio_host = http://127.0.0.1:1
auth_host = http://127.0.0.1:1
auth_type = userpass
[policy]
{package}
"""

SERVER_PROCESSES = (
    "rucio.web.rest.main",
    "rucio.daemons.conveyor.submitter",
    "rucio.daemons.conveyor.poller",
    "rucio.daemons.conveyor.preparer",
    "rucio.daemons.conveyor.finisher",
    "rucio.daemons.conveyor.throttler",
    "rucio.daemons.reaper.reaper",
    "rucio.daemons.judge.evaluator",
)
CLIENT_PROCESSES = ("rucio.client.client", "rucio.client.uploadclient", "rucio.client.downloadclient")
# A client imports the policy package when it needs an algorithm, such as that of a file's path at an RSE.
FIRST_ALGORITHM = "rucio.rse.translation:RSEDeterministicTranslation"
ALL = {"schemes": True, "scheme_map": True, "transfertool": True}


def run(
    home: Path, code: str, *arguments: str, client: bool = False, package: str | None = "rucio_cs3.policy"
) -> subprocess.CompletedProcess[str]:
    (home / "etc").mkdir(exist_ok=True)
    line = f"package = {package}\n" if package else ""
    template = _CLIENT_CFG if client else _CFG
    (home / "etc" / "rucio.cfg").write_text(template.format(home=home, package=line))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUCIO_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, "RUCIO_HOME": str(home), "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def tell(
    home: Path, *modules: str, client: bool = False, package: str | None = "rucio_cs3.policy"
) -> dict[str, object]:
    finished = run(home, _TELL, *modules, client=client, package=package)
    told: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return told


def assert_complete(told: dict[str, object]) -> None:
    assert told["registered"] == ALL
    assert told["tool"] == "CS3Transfertool"
    assert told["fts"] == []
    assert told["traces"] == [False, "SourceFileLoader", "SourceFileLoader", 0]


@pytest.mark.parametrize("module", SERVER_PROCESSES)
def test_server_and_daemons_know_all(tmp_path: Path, module: str) -> None:
    assert_complete(tell(tmp_path, module))


@pytest.mark.parametrize("module", CLIENT_PROCESSES)
def test_clients_know_the_schemes_and_load_no_server(tmp_path: Path, module: str) -> None:
    told = tell(tmp_path, module, FIRST_ALGORITHM, client=True)
    assert told["registered"] == {"schemes": True, "scheme_map": True}
    assert "tool" not in told


@pytest.mark.parametrize(
    ("modules", "waiting"),
    [
        # The module's own import leads to the policy package: nothing runs after its body, so the first use registers.
        (("rucio.core.transfer",), True),
        (("rucio.core.transfer", "rucio_cs3.policy"), True),
        # The policy package is there first: the import hook registers.
        (("rucio_cs3.policy", "rucio.core.transfer"), False),
        (("rucio_cs3.transfertool", "rucio.core.transfer"), False),
        (("rucio.transfertool.fts3", "rucio.core.transfer"), False),
        (("rucio.common.schema", "rucio.core.rule"), False),
        (("rucio.core.permission", "rucio.core.transfer"), False),
    ],
)
def test_every_order_of_imports(tmp_path: Path, modules: tuple[str, ...], waiting: bool) -> None:
    told = tell(tmp_path, *modules)
    assert told["waiting"] is waiting
    assert_complete(told)


def test_after_everything_is_loaded(tmp_path: Path) -> None:
    told = tell(tmp_path, "rucio.core.transfer", "rucio_cs3.policy", package=None)
    assert told["waiting"] is False
    assert_complete(told)


def test_without_the_setting_nothing_happens(tmp_path: Path) -> None:
    told = tell(tmp_path, "rucio.daemons.conveyor.submitter", package=None)
    assert told["registered"] is None
    assert told["tool"] is None


def test_own_policy_package_of_a_site(tmp_path: Path) -> None:
    package = tmp_path / "site_policy"
    package.mkdir()
    (package / "__init__.py").write_text("import rucio_cs3\n\nSUPPORTED_VERSION = ['>=38']\nrucio_cs3.register()\n")
    assert_complete(tell(tmp_path, "rucio.daemons.conveyor.submitter", package="site_policy"))


def test_many_threads_see_the_transfertool_at_first_use(tmp_path: Path) -> None:
    code = """
import sys, threading
import rucio.core.transfer
transfer = sys.modules["rucio.core.transfer"]
assert type(transfer).__name__ == "_PartialTransferModule"
barrier, seen = threading.Barrier(16), []
def look():
    barrier.wait()
    seen.append("cs3" in transfer.TRANSFERTOOL_CLASSES_BY_NAME)
threads = [threading.Thread(target=look) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert seen == [True] * 16, seen
assert type(transfer).__name__ == "module"
"""
    run(tmp_path, code)


def test_check_passes_only_with_everything_in_force(tmp_path: Path) -> None:
    code = """
from rucio_cs3 import policy
from rucio_cs3.cs3.errors import ConfigurationError
policy.check()
from rucio.core import transfer
transfer.TRANSFERTOOL_CLASSES_BY_NAME.pop("cs3")
try:
    policy.check()
except ConfigurationError as exc:
    assert "transfertool missing" in str(exc), exc
else:
    raise SystemExit("half-registered, and check() said nothing")
policy.register()
policy.check()
"""
    run(tmp_path, code)


def test_commands_start_without_warnings_about_this_package(tmp_path: Path) -> None:
    for client, code in (
        (True, "from rucio.rse.translation import RSEDeterministicTranslation as a; a()"),
        (False, "import rucio.core.permission"),
    ):
        finished = run(tmp_path, code, client=client)
        assert "rucio_cs3" not in finished.stderr + finished.stdout


def test_cancel_and_priority_do_not_go_to_fts(tmp_path: Path) -> None:
    code = """
from rucio.core import transfer
from rucio_cs3.transfertool import EXTERNAL_HOST
calls = []
class FTS:
    def __init__(self, external_host):
        self.external_host = external_host
    def cancel(self, transfer_ids):
        calls.append(("cancel", self.external_host, transfer_ids))
    def update_priority(self, transfer_id, priority):
        calls.append(("priority", self.external_host, transfer_id, priority))
        return {"http_message": "ok"}
transfer.FTS3Transfertool = FTS
transfer.cancel_transfers({EXTERNAL_HOST: {"a", "b"}})
transfer.update_transfer_priority({EXTERNAL_HOST: {"a": 5}})
assert calls == [], calls
transfer.cancel_transfers({EXTERNAL_HOST: {"a"}, "https://fts": {"c"}})
transfer.update_transfer_priority({EXTERNAL_HOST: {"a": 5}, "https://fts": {"c": 4}})
assert calls == [("cancel", "https://fts", ["c"]), ("priority", "https://fts", "c", 4)], calls
"""
    run(tmp_path, code)
