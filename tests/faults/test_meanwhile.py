"""What stands at the destination before a transfer, and what others do at either site while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rucio_cs3.cs3 import errors
from rucio_cs3.cs3.reference import Reference
from rucio_cs3.cs3.resources import FileInfo
from rucio_cs3.transfers.ladder import State
from rucio_cs3.transfers.modes import Mode, Wish
from tests.contract.place import content
from tests.faults.conftest import MakeScene
from tests.faults.pairs import in_every_way
from tests.faults.scene import SIZE, Scene, Side

Kinds = tuple[str, str]

# -- before -------------------------------------------------------------------------------------------------------


@in_every_way()
def test_the_right_file_is_there_already(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.destination.write(scene.data)
    outcome = scene.run()
    scene.check(outcome)
    assert (outcome.state, outcome.copied) == (State.DONE, False)
    # A first pull is asked for before anybody has looked; what it has brought in vain goes.
    assert scene.watch.modes == ([Mode.PULL] if mode == "pull" else [])
    scene.check_next(outcome)


@pytest.mark.parametrize("size", [0, 1000, SIZE, SIZE + 1])
@in_every_way()
def test_a_leftover_is_replaced(make_scene: MakeScene, kinds: Kinds, mode: Wish, size: int) -> None:
    scene = make_scene(*kinds, mode)
    scene.destination.write(content(size, seed=99))
    outcome = scene.run()
    scene.check(outcome)
    assert (outcome.state, outcome.copied) == (State.DONE, True)
    scene.check_next(outcome)


@in_every_way()
def test_a_good_replica_of_another_content_stays(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.destination.write(b"what Rucio takes for good")
    scene.claim.removal = errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = scene.run()
    scene.check(outcome, foreign=b"what Rucio takes for good")
    assert outcome.state is State.FAILED
    assert "AVAILABLE" in (outcome.reason or "")
    scene.check_next(outcome)


@in_every_way()
def test_a_leftover_stays_while_the_source_is_missing(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.destination.write(b"better than nothing")
    scene.source.on_disk.unlink()
    outcome = scene.run()
    scene.source.write(scene.data)
    scene.check(outcome, foreign=b"better than nothing")
    assert f"the source {scene.source.storage.endpoint.name} has no such file" in (outcome.reason or "")
    scene.check_next(outcome)


# -- meanwhile ----------------------------------------------------------------------------------------------------


@in_every_way()
def test_the_source_is_deleted_meanwhile(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.watch.on_begin = scene.source.on_disk.unlink
    outcome = scene.run()
    assert scene.watch.on_begin is None
    assert not scene.source.on_disk.exists()
    scene.source.write(scene.data)
    scene.check(outcome)
    assert outcome.state is State.FAILED
    scene.check_next(outcome)


@pytest.mark.parametrize("size", [1000, SIZE, SIZE + 1])
@in_every_way()
def test_the_source_is_changed_meanwhile(make_scene: MakeScene, kinds: Kinds, mode: Wish, size: int) -> None:
    scene = make_scene(*kinds, mode)
    scene.watch.on_begin = lambda: scene.source.write(content(size, seed=7))
    outcome = scene.run()
    assert scene.source.on_disk.read_bytes() == content(size, seed=7)
    scene.source.write(scene.data)
    scene.check(outcome)
    assert outcome.state is State.FAILED
    scene.check_next(outcome)


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("leave", [True, False], ids=["nobodys", "somebodys"])
@in_every_way()
def test_what_takes_the_name_meanwhile_goes_only_by_leave(
    make_scene: MakeScene, kinds: Kinds, mode: Wish, leave: bool, attempt: int
) -> None:
    # It may be a file that Rucio takes for good, or has stood there for a year where nobody has looked before.
    theirs = b"somebody else's"
    scene = make_scene(*kinds, mode)
    scene.watch.on_begin = lambda: scene.destination.write(theirs)
    scene.claim.removal = None if leave else errors.AlreadyExists("Rucio's replica there is in state AVAILABLE")
    outcome = scene.run(attempt=attempt)
    scene.check(outcome, foreign=theirs)
    if leave:
        assert (outcome.state, outcome.copied) == (State.DONE, True)
    else:
        assert outcome.state is State.FAILED
        assert isinstance(outcome.error, errors.AlreadyExists)
    scene.check_next(outcome)


@in_every_way()
def test_another_agent_brings_the_same_file_meanwhile(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.watch.on_begin = lambda: scene.destination.write(scene.data)
    outcome = scene.run()
    scene.check(outcome)
    assert outcome.state is State.DONE
    scene.check_next(outcome)


@in_every_way()
def test_the_destinations_folder_vanishes_meanwhile(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.watch.on_begin = scene.destination.on_disk.parent.rmdir
    outcome = scene.run()
    scene.check(outcome)
    # The relay makes folders by itself; a front end claims a success that is none. After a first pull the folder is
    # made anew, and the copy, too.
    assert outcome.state is (State.FAILED if mode == "push" else State.DONE)
    scene.check_next(outcome)


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("side", ["source", "destination"])
@in_every_way()
def test_a_token_expires_when_the_copy_begins(
    make_scene: MakeScene, kinds: Kinds, mode: Wish, side: Side, attempt: int
) -> None:
    # In a pull and a push the source is not looked at again by us, so there the front ends are the first to see it.
    scene = make_scene(*kinds, mode)
    seen_by_us = side == "destination" or mode == "relay"
    point = "gateway.Stat" if seen_by_us else "webdav.get" if mode == "pull" else "webdav.copy"
    scene.watch.on_begin = lambda: scene.site(side).cloud.faults.add(point, "expire-token")
    outcome = scene.run(attempt=attempt)
    scene.check(outcome)
    assert outcome.state is State.DONE, outcome.reason
    scene.check_next(outcome)


@in_every_way(lambda kinds, mode: mode != "relay" and kinds != ("reva", "reva"))
def test_half_a_file_appears_only_after_the_copy_was_given_up(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, kinds: Kinds, mode: Wish
) -> None:
    # As Reva v3.12.1 does on a loaded machine when its source broke off.
    scene = make_scene(*kinds, mode)
    acting = scene.destination if mode == "pull" else scene.source
    # The question is a copy, too.
    assert acting.end(mode).speaks_tpc()
    acting.cloud.faults.add("webdav.copy", "say:nothing that ends a report")
    settled = scene.destination.storage.settled
    appeared: list[Path] = []

    def looked_at(reference: Reference) -> FileInfo:
        try:
            return settled(reference)
        except errors.NotFound:
            if not appeared and reference != scene.destination.reference:
                appeared.append(scene.destination.on_disk.with_name(reference.name))
                appeared[0].write_bytes(scene.data[:1000])
            raise

    monkeypatch.setattr(scene.destination.storage, "settled", looked_at)
    outcome = scene.run()
    assert appeared
    scene.check(outcome)
    assert outcome.state is State.FAILED
    scene.check_next(outcome)


def _lie_once(scene: Scene, total_bytes: int) -> None:
    """The destination's next look at the file states another checksum."""
    if total_bytes == SIZE:
        scene.destination.cloud.faults.add("gateway.Stat", "wrong-checksum")
        scene.watch.on_bytes = None


@in_every_way(lambda kinds, mode: kinds[1] == "spaces")
def test_the_server_states_another_checksum(make_scene: MakeScene, kinds: Kinds, mode: Wish) -> None:
    scene = make_scene(*kinds, mode)
    scene.watch.on_bytes = lambda total: _lie_once(scene, total)
    outcome = scene.run()
    assert scene.watch.on_bytes is None
    scene.check(outcome)
    assert outcome.state is State.FAILED
    assert isinstance(outcome.error, errors.ChecksumMismatch)
    scene.check_next(outcome)
