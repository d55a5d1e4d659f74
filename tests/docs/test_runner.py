"""What runs the examples: that it notices what goes wrong, and what carries over from one block to the next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.examples import Step, parse
from tests.docs.runner import ExampleError, Runner


class Bare:
    """A page's world with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def real(self, text: str) -> str:
        return text.replace("PUBLIC", "private")

    def public(self, text: str) -> str:
        return text.replace("private", "PUBLIC")

    def environment(self, step: Step) -> dict[str, str]:
        own = {"RUCIO_HOME": str(self.folder)} if step.configuration != "none" else {}
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), **own}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    world: Any = Bare(tmp_path)
    with contextlib.closing(Runner(world)) as runner:
        yield runner


def run(runner: Runner, text: str) -> None:
    for step in parse(Path("some.md"), text).steps:
        runner.run(step)


def test_what_carries_over(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("word\n")
    run(
        runner,
        """
<!-- before: mkdir below; export WORD=PUBLIC -->
<!-- run: stdin given -->
```bash
cd below
read -r line
echo "$line" > file
```
<!-- run -->
```bash
echo "$WORD $(cat file) $(basename "$PWD")"
```
<!-- output -->
```text
PUBLIC word below
```
<!-- run: no rucio -->
```bash
echo "${RUCIO_HOME-none}"
```
<!-- output -->
```text
none
```
<!-- run: exit 3 or 4 -->
```bash
echo "$RUCIO_HOME" | grep -q /
exit 4
```
<!-- run -->
```python
number = 7
```
<!-- run -->
```python
print(number, "PUBLIC")
```
<!-- output -->
```text
7 PUBLIC
```
<!-- run: until Ctrl-C -->
```bash
sh -c 'echo begun; exec sleep 600'
```
""",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- run -->\n```bash\nfalse\n```\n", "exit code 1, not 0"),
        ("<!-- run -->\n```bash\nfalse\ntrue\n```\n", "exit code 1, not 0"),
        ("<!-- run -->\n```bash\nfalse | cat\n```\n", "exit code 1, not 0"),
        ("<!-- run -->\n```bash\necho $MISSING\n```\n", "MISSING"),
        ("<!-- run: exit 3 -->\n```bash\ntrue\n```\n", "exit code 0, not 3"),
        ("<!-- before: test -e nothing -->\n", "hidden commands"),
        ("<!-- run -->\n```bash\necho no\n```\n<!-- output -->\n```text\nyes\n```\n", "yes"),
        ("<!-- run -->\n```bash\necho no >&2\n```\n<!-- output: stderr -->\n```text\nyes\n```\n", "yes"),
        ("<!-- run -->\n```bash\nprintf '2024-01-01 00:00:00,001\\tERROR\\tit did not work\\n'\n```\n", "did not work"),
        ("<!-- run -->\n```python\nassert 0, 'wrong'\n```\n", "wrong"),
        ("<!-- run -->\n```python\nimport os\nos._exit(1)\n```\n", "exit code -1"),
    ],
)
def test_what_goes_wrong_is_noticed(runner: Runner, text: str, said: str) -> None:
    with pytest.raises(ExampleError, match=r"^some\.md:\d+: ") as raised:
        run(runner, text)
    assert said in str(raised.value)
