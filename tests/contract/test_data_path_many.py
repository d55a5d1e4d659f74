"""C138x: many threads, many operations, and faults that hit whom they hit."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rucio_cs3.cs3 import CS3Storage, errors
from tests.contract.place import TIMEOUTS, Place, content

KIB = 1024
THREADS = 16
OPERATIONS = 200
SIZES = (0, 1, 4 * KIB, 300 * KIB, 1024 * KIB + 1)

FAULTS = (
    ("data.put", "cut-after:1000"),
    ("data.put", "lost-answer"),
    ("data.put", "lose-after:100"),
    ("data.put", "return-503,at:0"),
    ("data.put", "answer-504"),
    ("data.put", "stall-after:1"),
    ("data.patch", "cut-after:1000"),
    ("data.patch", "lost-answer"),
    ("data.patch", "return-507"),
    ("data.get", "cut-after:1000"),
    ("data.get", "return-503"),
    ("data.get", "short-body:1"),
    ("gateway.Stat", "grpc:UNAVAILABLE"),
    ("gateway.Move", "lost-answer"),
    ("gateway.Delete", "grpc:UNAVAILABLE"),
    ("gateway.Delete", "lost-answer"),
    ("gateway.InitiateFileUpload", "code:INTERNAL"),
    ("gateway.InitiateFileDownload", "lost-answer"),
)

pytestmark = pytest.mark.usefixtures("no_late_commit", "short_pauses", "quick_tus")


class Worker:
    """One thread's files, and what must be in each of them."""

    def __init__(self, place: Place, storage: CS3Storage, number: int) -> None:
        self.place = place
        self.storage = storage
        self.random = random.Random(number)
        self.number = number
        self.files: dict[str, bytes] = {}
        self.done = self.failed = 0
        self.wrong: list[str] = []
        self.local = place.local / f"thread-{number}"
        self.local.mkdir()

    def run(self) -> None:
        for step in range(OPERATIONS // THREADS + 1):
            name = f"{self.number}-{self.random.randrange(3)}"
            operation = self.random.choice([self.upload, self.upload, self.download, self.delete, self.move])
            if self.random.random() < 0.4:
                point, script = self.random.choice(FAULTS)
                self.place.fault(point, script)
            try:
                operation(name, step)
                self.done += 1
            except errors.CS3Error as error:
                self.failed += 1
                if isinstance(error, errors.NotFound) != (name not in self.files and operation != self.upload):
                    self.wrong.append(f"{operation.__name__} {name}: {error}")

    def upload(self, name: str, step: int) -> None:
        data = content(self.random.choice(SIZES), seed=1000 * self.number + step)
        source = self.local / "source"
        source.write_bytes(data)
        self.storage.upload(source, self.place.file(name), overwrite=name in self.files, read_back=True)
        self.files[name] = data

    def download(self, name: str, step: int) -> None:
        target = self.local / f"down-{step}"
        try:
            self.storage.download(self.place.file(name), target)
        finally:
            if target.exists() and target.read_bytes() != self.files.get(name):
                self.wrong.append(f"download {name}")
            target.unlink(missing_ok=True)

    def delete(self, name: str, step: int) -> None:
        self.storage.delete_file(self.place.file(name))
        del self.files[name]

    def move(self, name: str, step: int) -> None:
        other = f"{self.number}-moved-{step}"
        self.storage.move(self.place.file(name), self.place.file(other))
        self.files[other] = self.files.pop(name)


def test_c1381_threads_with_faults_do_not_mix_or_lose_anything(place: Place) -> None:
    """Through two storages, one of which uploads in pieces; what each was told is what is there at the end."""
    impatient = replace(TIMEOUTS, idle_s=2.0)
    storages = [place.another(timeouts=impatient, upload_protocol=protocol) for protocol in ("simple", "tus")]
    workers = [Worker(place, storages[number % 2], number) for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(worker.run) for worker in workers]:
            future.result()
    # What nobody has met any more, because of the order of things.
    place.cloud.faults.clear()
    expected = {name: data for worker in workers for name, data in worker.files.items()}
    assert [wrong for worker in workers for wrong in worker.wrong] == []
    assert place.names() == sorted(expected)
    for name, data in expected.items():
        assert place.stored(place.file(name)) == data, name
    assert [list(_left(worker.local)) for worker in workers] == [[]] * THREADS
    assert sum(worker.done for worker in workers) > OPERATIONS // 4
    assert sum(worker.failed for worker in workers) > 0


def _left(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "source"]
