"""Which hop goes next: caps, order and pauses, also against a plain model of them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rucio_cs3.agent.scheduling import PROOFS, Candidate, Caps, Link, Schedule

START = datetime(2030, 1, 1)
A, B, C, D = "a:443", "b:443", "c:443", "d:443"


def hop(name: str, source: str = A, destination: str = B, *, priority: int = 3, age_s: int = 0) -> Candidate:
    return Candidate(
        request_id=name,
        link=Link(source, destination),
        priority=priority,
        since=START - timedelta(seconds=age_s),
    )


def schedule(*candidates: Candidate, total: int = 100, **caps: int) -> Schedule:
    found = Schedule(Caps(total=total, **caps))
    found.offer(candidates)
    return found


def started(of: Schedule, now: float = 0.0) -> list[str]:
    """All that may run now, in the order in which they are taken."""
    names = []
    while (candidate := of.next(now)) is not None:
        names.append(candidate.request_id)
    return names


def test_priority_then_age() -> None:
    found = schedule(hop("low", priority=1, age_s=99), hop("young"), hop("old", age_s=5), hop("high", priority=5))
    assert started(found) == ["high", "old", "young", "low"]


def test_order_holds_across_links() -> None:
    found = schedule(
        hop("one", A, B, priority=4), hop("two", C, D, priority=5), hop("three", A, B, priority=3), hop("four", C, D)
    )
    assert started(found)[:2] == ["two", "one"]


def test_equals_have_an_order_of_their_own() -> None:
    """Otherwise two agents, or two looks of one, would disagree."""
    assert started(schedule(hop("y"), hop("x"), hop("z"))) == ["x", "y", "z"]


def test_no_more_than_in_total() -> None:
    found = schedule(*(hop(str(number)) for number in range(5)), total=2)
    assert len(started(found)) == 2
    assert (found.running, found.room, found.waiting) == (2, 0, 3)


def test_each_end_counts_for_its_host() -> None:
    found = schedule(hop("1", A, B), hop("2", C, A), hop("3", B, D), hop("4", C, D), per_host=1)
    assert started(found) == ["1", "4"]


def test_a_host_that_is_both_ends_counts_once() -> None:
    """Twice, and a cap of one would hold it up for ever."""
    found = schedule(hop("1", A, A), hop("2", A, B), per_host=1)
    assert started(found) == ["1"]
    found.ended("1")
    assert started(found) == ["2"]


def test_a_proof_makes_room_for_another_copy() -> None:
    found = schedule(*(hop(str(number)) for number in range(5)), total=2, per_host=2, per_link=2, proofs=1)
    assert started(found) == ["0", "1"]
    found.proves("0")
    assert (found.running, found.room) == (2, 1)
    assert started(found) == ["2"]
    # One place for a proof, and it is taken.
    found.proves("1")
    assert started(found) == []
    found.ended("0")
    assert started(found) == ["3"]


def test_a_host_has_at_most_three_proofs_for_each_copy() -> None:
    found = schedule(*(hop(str(number)) for number in range(5)), hop("x", C, D), total=4, per_host=1, proofs=5)
    assert started(found) == ["0", "x"]
    for proving, following in (("0", ["1"]), ("1", ["2"]), ("2", ["3"])):
        found.proves(proving)
        assert started(found) == following
    found.proves("3")
    # The four that are proven meanwhile are of one host, which may have three beside its copy.
    assert started(found) == []
    found.ended("0")
    assert started(found) == ["4"]


def test_only_the_best_is_taken_and_only_where_it_may_be() -> None:
    found = schedule(hop("best", priority=5), hop("other", C, D))
    assert found.next(0.0, {"other"}) is None
    assert found.next(0.0, {"best"}) is not None
    assert (found.waiting, started(found)) == (1, ["other"])


def test_one_that_copies_again_counts_again() -> None:
    found = schedule(*(hop(str(number)) for number in range(3)), total=1, proofs=1)
    assert started(found) == ["0"]
    found.proves("0")
    assert started(found) == ["1"]
    found.copies_again("0")
    found.ended("1")
    assert (found.room, started(found)) == (0, [])
    found.ended("0")
    assert started(found) == ["2"]


def test_what_is_forgotten_waits_no_more() -> None:
    found = schedule(hop("1"), hop("2"), hop("3", C, D))
    found.forget(["1", "3", "unknown"])
    assert (found.waiting, started(found)) == (1, ["2"])


def test_per_link_is_of_a_direction() -> None:
    found = schedule(hop("1", A, B), hop("2", A, B), hop("3", B, A), per_link=1)
    assert started(found) == ["1", "3"]


def test_a_busy_host_holds_up_no_other() -> None:
    urgent = [hop(f"urgent{number}", A, B, priority=5) for number in range(50)]
    found = schedule(*urgent, hop("other", C, D, priority=1), per_link=2)
    assert started(found) == ["urgent0", "urgent1", "other"]


def test_what_ended_makes_room_once() -> None:
    found = schedule(hop("1"), hop("2"), hop("3"), per_link=1)
    assert started(found) == ["1"]
    found.ended("1")
    found.ended("1")
    found.ended("nobody")
    assert started(found) == ["2"]


def test_a_paused_link_waits_and_says_until_when() -> None:
    found = schedule(hop("1", A, B, priority=5), hop("2", C, D))
    found.pause(Link(A, B), 10.0)
    assert started(found, 9.9) == ["2"]
    assert found.next_change(9.9) == 10.0
    assert started(found, 10.0) == ["1"]
    assert found.next_change(10.0) is None


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    found = schedule(hop("1"))
    found.pause(Link(A, B), 10.0)
    found.pause(Link(A, B), 5.0)
    assert started(found, 7.0) == []
    assert started(found, 10.0) == ["1"]


def test_pauses_without_anybody_waiting_are_no_reason_to_wake() -> None:
    found = schedule(hop("1", C, D))
    found.pause(Link(A, B), 10.0)
    assert found.next_change(0.0) is None


def test_an_offer_replaces_what_waited_and_leaves_alone_what_runs() -> None:
    found = schedule(hop("1"), hop("2"), total=1)
    assert started(found) == ["1"]
    assert found.offer([hop("1"), hop("3", priority=1), hop("3", priority=5), hop("4")]) == 2
    found.ended("1")
    # The later word about a hop is the one that counts.
    assert started(found) == ["3"]


def test_withdrawing_leaves_what_runs() -> None:
    found = schedule(hop("1"), hop("2"), total=1)
    started(found)
    found.withdraw()
    assert (found.waiting, found.running) == (0, 1)


def test_ahead_looks_past_the_caps_but_not_at_paused_links() -> None:
    found = schedule(
        hop("1", A, B, priority=5), hop("2", A, B), hop("3", C, D, priority=4), hop("4", B, C, priority=5), total=1
    )
    found.pause(Link(B, C), 10.0)
    assert ahead(found, each=2) == ["1", "3"]
    assert ahead(found, each=9) == ["1", "3", "2"]
    assert ahead(found, each=9, most=1) == ["1"]
    assert found.waiting == 4


def ahead(found: Schedule, *, each: int, most: int = 100, slow: tuple[str, ...] = ()) -> list[str]:
    return [candidate.request_id for candidate in found.ahead(each, most, 0.0, slow=slow)]


@pytest.mark.parametrize("cap", [{"per_link": 1}, {"per_host": 1}])
def test_a_capped_link_leaves_room_ahead_for_others(cap: dict[str, int]) -> None:
    busy = [hop(f"{number}", A, B, priority=5) for number in range(9)]
    found = schedule(*busy, hop("other", C, D, priority=1), total=4, **cap)
    assert ahead(found, each=2) == ["0", "1", "other"]
    assert started(found) == ["0", "other"]
    assert ahead(found, each=2) == ["1", "2"]


def test_two_links_of_one_capped_host_share_what_is_ahead() -> None:
    found = schedule(hop("1", A, B), hop("2", A, C), hop("3", A, D), total=9, per_host=2)
    assert ahead(found, each=1) == ["1", "2"]


def test_nothing_is_ahead_of_what_does_not_end() -> None:
    ones = [hop(f"{number}", A, B, priority=5) for number in range(9)]
    found = schedule(*ones, hop("x", C, D, priority=1), hop("y", C, D, priority=1), total=3, per_link=2)
    assert started(found) == ["0", "1", "x"]
    assert ahead(found, each=2) == ["2", "3", "4", "5", "y"]
    assert ahead(found, each=2, slow=("0",)) == ["2", "3", "y"]
    # Nor has a link that is stuck the places of another.
    assert ahead(found, each=2, slow=("0", "1")) == ["y"]
    assert ahead(found, each=2, slow=("0", "1", "x")) == []
    # At its proof it is in no copy's way.
    found.proves("0")
    assert ahead(found, each=2, slow=("0", "1")) == ["2", "3", "y"]


HOSTS = st.sampled_from([A, B, C, D])
CANDIDATES = st.builds(
    hop,
    st.integers(0, 30).map(str),
    HOSTS,
    HOSTS,
    priority=st.integers(1, 5),
    age_s=st.integers(0, 3),
)


class AgainstAModel(RuleBasedStateMachine):
    """A schedule, and what it ought to be, worked out from all that is known each time."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, Candidate] = {}
        self.running: dict[str, Candidate] = {}
        self.proving: dict[str, Candidate] = {}
        self.paused: dict[Link, float] = {}
        self.now = 0.0

    @initialize(
        total=st.integers(1, 6),
        per_host=st.one_of(st.none(), st.integers(1, 4)),
        per_link=st.one_of(st.none(), st.integers(1, 3)),
        proofs=st.integers(0, 4),
    )
    def begin(self, total: int, per_host: int | None, per_link: int | None, proofs: int) -> None:
        self.caps = Caps(total=total, per_host=per_host, per_link=per_link, proofs=proofs)
        self.schedule = Schedule(self.caps)

    @rule(candidates=st.lists(CANDIDATES, max_size=20))
    def offer(self, candidates: list[Candidate]) -> None:
        self.schedule.offer(candidates)
        by_id = {candidate.request_id: candidate for candidate in candidates}
        begun = {**self.running, **self.proving}
        self.waiting = {name: found for name, found in by_id.items() if name not in begun}

    @rule(among=st.one_of(st.none(), st.sets(st.sampled_from("abcdefgh"))))
    def take(self, among: set[str] | None) -> None:
        taken = self.schedule.next(self.now, among)
        runnable = [candidate for candidate in self.waiting.values() if self.may_run(candidate)]
        best = min(runnable, key=lambda candidate: candidate.order, default=None)
        assert taken == (best if best is None or among is None or best.request_id in among else None)
        if taken is not None:
            self.running[taken.request_id] = self.waiting.pop(taken.request_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.schedule.ended(name)
        del self.running[name]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.schedule.proves(name)
        self.proving[name] = self.running.pop(name)

    @precondition(lambda self: self.proving)
    @rule(data=st.data(), again=st.booleans())
    def end_proof(self, data: st.DataObject, again: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.proving)))
        candidate = self.proving.pop(name)
        if again:
            self.schedule.copies_again(name)
            self.running[name] = candidate
        else:
            self.schedule.ended(name)

    @rule(source=HOSTS, destination=HOSTS, seconds=st.integers(0, 5))
    def pause(self, source: str, destination: str, seconds: int) -> None:
        link, until = Link(source, destination), self.now + seconds
        self.schedule.pause(link, until)
        self.paused[link] = max(until, self.paused.get(link, until))

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    def may_run(self, candidate: Candidate) -> bool:
        both = [*self.running.values(), *self.proving.values()]
        for under_way, beside in ((list(self.running.values()), 0), (both, self.caps.proofs)):
            links = Counter(one.link for one in under_way)
            hosts = Counter(host for one in under_way for host in set(one.link))
            most = self.caps.per_link
            if most is not None and links[candidate.link] >= most + min(PROOFS * most, beside):
                return False
            most = self.caps.per_host
            if most is not None and any(hosts[host] >= most + min(PROOFS * most, beside) for host in candidate.link):
                return False
        return (
            len(self.running) < self.caps.total
            and len(self.running) + len(self.proving) < self.caps.total + self.caps.proofs
            and self.paused.get(candidate.link, 0.0) <= self.now
        )

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "schedule"):
            assert self.schedule.waiting == len(self.waiting)
            assert self.schedule.running == len(self.running) + len(self.proving)

    @invariant()
    def somebody_wakes_up_for_those_that_a_pause_holds_up(self) -> None:
        if hasattr(self, "schedule"):
            held_up = [self.paused.get(candidate.link, 0.0) for candidate in self.waiting.values()]
            expected = min((until for until in held_up if until > self.now), default=None)
            assert self.schedule.next_change(self.now) == expected


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("number", [1, 3])
def test_all_run_in_the_end_however_small_the_caps(number: int) -> None:
    hosts = (A, B, C, D)
    candidates = [
        hop(f"{index:02}", hosts[index % 4], hosts[index * 3 % 4], priority=index % 5 + 1) for index in range(40)
    ]
    found = schedule(*candidates, total=number, per_host=1, per_link=1)
    done: list[str] = []
    while found.waiting:
        names = started(found)
        assert names
        for name in names:
            found.ended(name)
        done += names
    assert sorted(done) == sorted(candidate.request_id for candidate in candidates)
