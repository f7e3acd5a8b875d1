"""Virtual routers under random inputs, and together on a simulated segment with a virtual clock."""

import heapq
import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines.vrrp import (
    AddAddresses,
    Fail,
    Heard,
    Order,
    Recover,
    RemoveAddresses,
    SendAdvert,
    SetPriority,
    Start,
    State,
    Stop,
    Symbol,
    VrrpMachine,
)
from relevo.model import GarpPolicy
from relevo.wire.vrrp import Advert
from tests.unit.machines.routers import HIGH, LOW, VIP, heard, instance, router

HOLDING = (State.MASTER, State.LEAVING)
LATENCY_S = 0.001

# -- one router, random inputs ----------------------------------------------------------------------------------------

SOURCES = st.sampled_from((LOW, HIGH))
ADVERTS = st.builds(
    lambda p, s, i: heard(p, s, interval=i, version=3), st.integers(0, 255), SOURCES, st.sampled_from((0, 0.01, 1, 40.95))
)
CAUSES = st.sampled_from(("eth0", "eth1"))
INPUTS = st.one_of(
    ADVERTS,
    ADVERTS,
    st.builds(Fail, CAUSES),
    st.builds(Recover, CAUSES),
    st.builds(Recover, CAUSES),
    st.builds(SetPriority, st.integers(1, 254)),
    st.builds(Order, st.sampled_from((State.MASTER, State.BACKUP))),
    st.builds(Stop),
    st.builds(Start, st.booleans()),
    st.none(),
)
STEPS = st.lists(st.tuples(INPUTS, st.sampled_from((0.0, 0.003, 0.4, 1.0, 3.7, 70.0)), st.booleans()), max_size=40)
ROUTERS = st.builds(
    lambda grouped, **changes: router(grouped=grouped, **changes),
    grouped=st.booleans(),
    version=st.sampled_from((2, 3)),
    priority=st.sampled_from((1, 100, 254, 255)),
    preempt=st.booleans(),
    preempt_delay_s=st.sampled_from((0.0, 5.0)),
    starts_as_master=st.booleans(),
    lower_prio_no_advert=st.booleans(),
    higher_prio_send_advert=st.booleans(),
    garp=st.builds(GarpPolicy, delay_s=st.sampled_from((0.0, 5.0)), refresh_s=st.sampled_from((0.0, 7.0))),
)


def assert_consistent(before, machine, holds, effects):
    """Assert what must hold after every step; return whether the addresses are held now."""
    for effect in effects:
        if isinstance(effect, AddAddresses):
            assert not holds
            holds = True
        elif isinstance(effect, RemoveAddresses):
            holds = False
        elif isinstance(effect, SendAdvert):
            assert State.MASTER in (before, machine.state)
            assert effect.priority or before is State.MASTER
    assert holds is (machine.state in HOLDING)
    assert (machine._timers.get(Symbol.ADVERT_TIMER) is not None) is (machine.state is State.MASTER)
    assert (machine._timers.get(Symbol.MASTER_DOWN_TIMER) is not None) is (machine.state is State.BACKUP)
    assert (machine._timers.get(Symbol.LEAVE_TIMER) is not None) is (machine.state is State.LEAVING)
    assert not machine.faults or machine.state in (State.INIT, State.FAULT)
    return holds


@settings(max_examples=400, deadline=None)
@given(ROUTERS, STEPS)
def test_no_sequence_of_inputs_at_any_times_confuses_a_router(machine, steps):
    now, holds = 0.0, False
    holds = assert_consistent(machine.state, machine, holds, machine.receive(Start(), now))
    for item, pause, looks_at_the_clock in steps:
        now += pause
        if looks_at_the_clock:
            before = machine.state
            holds = assert_consistent(before, machine, holds, machine.expire(now))
            assert machine.deadline() is None or machine.deadline() > now
        if item is None or (isinstance(item, Start) and machine.state is not State.INIT):
            continue
        before = machine.state
        holds = assert_consistent(before, machine, holds, machine.receive(item, now))


# -- several routers --------------------------------------------------------------------------------------------------


class Segment:
    """Routers on a LAN with a virtual clock. ``loss`` is the part of adverts lost; ``cut`` names routers that hear nothing."""

    def __init__(self, priorities, seed=0, loss=0.0, **changes):
        self.now = 0.0
        self.loss = loss
        self.cut = set()
        self.configurations = [instance(priority=p, **changes) for p in priorities]
        self.routers = {}
        self.history = [(0.0, 0, (frozenset(), 0))]  # (time, masters, (routers that could be one, starts and recoveries so far))
        self._recoveries = 0
        self._random = random.Random(seed)
        self._order = count()
        self._events = []

    def at(self, time, number, given):
        """Let a router get an input, ``"start"`` or ``"crash"`` at a time."""
        heapq.heappush(self._events, (time, next(self._order), number, given))

    def run(self, until):
        while (time := self._next()) <= until:
            self.now = time
            while self._events and self._events[0][0] <= time:
                _, _, number, given = heapq.heappop(self._events)
                self._give(number, given)
            for number, machine in list(self.routers.items()):
                self._execute(number, machine.expire(time))
            able = frozenset(n for n, m in self.routers.items() if m.state in (State.BACKUP, State.MASTER))
            self.history.append((time, len(self.masters()), (able, self._recoveries)))
        self.now = until
        return self

    def masters(self):
        return [number for number, machine in self.routers.items() if machine.state is State.MASTER]

    def stretches(self, of):
        """Lengths of the stretches of history during which ``of(masters)`` held and who was able did not change.

        A router that starts or recovers waits anew, even if it ended or failed in the same instant.
        """
        found, since, former = [], None, None
        for time, masters, able in [*self.history, (self.now, None, None)]:
            if since is not None and (masters is None or not of(masters) or able != former):
                found.append(time - since)
                since = None
            if masters is not None and able[0] and of(masters) and since is None:
                since, former = time, able
        return found

    def _next(self):
        due = [d for m in self.routers.values() if (d := m.deadline()) is not None]
        return min([*due, *(event[0] for event in self._events[:1])], default=float("inf"))

    def _give(self, number, given):
        if given == "start":
            if number not in self.routers:
                self._recoveries += 1
                self.routers[number] = VrrpMachine(self.configurations[number], f"10.0.0.{number + 1}")
                self._execute(number, self.routers[number].receive(Start(), self.now))
        elif given == "crash":
            self.routers.pop(number, None)
        elif number in self.routers and not (isinstance(given, Heard) and number in self.cut):
            self._recoveries += isinstance(given, Recover)
            self._execute(number, self.routers[number].receive(given, self.now))

    def _execute(self, number, effects):
        configuration = self.configurations[number]
        for effect in effects:
            if not isinstance(effect, SendAdvert) or number in self.cut:
                continue
            advert = Advert(configuration.version, 51, effect.priority, configuration.advert_interval_s, (VIP,))
            for other in range(len(self.configurations)):
                if other != number and self._random.random() >= self.loss:
                    self.at(self.now + LATENCY_S, other, Heard(advert, f"10.0.0.{number + 1}"))


def bounds(segment):
    """Longest time with two masters, and longest time without one, on a segment that loses nothing."""
    interval = segment.configurations[0].advert_interval_s
    skew = (256 - min(c.priority for c in segment.configurations)) / 256 * max(1.0, interval)
    return interval + skew + 3 * LATENCY_S, 3 * interval + 1 + skew + 3 * LATENCY_S


def started(priorities, **changes):
    segment = Segment(priorities, **changes)
    for number in range(len(priorities)):
        segment.at(0.0, number, "start")
    return segment


def assert_within_bounds(segment):
    two, none = bounds(segment)
    assert max(segment.stretches(lambda masters: masters > 1), default=0.0) <= two
    assert max(segment.stretches(lambda masters: masters == 0), default=0.0) <= none


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("priorities", "winner"), [((100, 150), 1), ((150, 100, 50), 0), ((100, 100, 100), 2), ((100, 255), 1)])
def test_the_best_of_a_segment_becomes_its_only_master(priorities, winner, version):
    segment = started(priorities, version=version).run(10.0)
    assert segment.masters() == [winner]
    assert_within_bounds(segment)


def test_a_crash_is_noticed_after_the_master_down_time():
    segment = started((150, 100)).run(10.0)
    segment.at(10.5, 0, "crash")
    assert segment.run(12.5).masters() == []
    assert segment.run(14.5).masters() == [1]
    assert_within_bounds(segment)


@pytest.mark.parametrize("given", [Stop(), Fail("eth0")])
def test_a_master_that_says_goodbye_is_succeeded_after_the_skew(given):
    segment = started((150, 100)).run(10.0)
    segment.at(10.2, 0, given)
    assert segment.run(10.2 + 156 / 256 + 2 * LATENCY_S).masters() == [1]


def test_while_a_master_leaves_somebody_always_has_the_addresses():
    segment = started((150, 100)).run(10.0)
    segment.at(10.2, 0, Stop())
    for step in range(1, 2000):
        segment.run(10.2 + step / 1000)
        assert any(m.state in HOLDING for m in segment.routers.values())
    assert [m.state for m in segment.routers.values()] == [State.INIT, State.MASTER]


@pytest.mark.parametrize(("preempt", "winner"), [(True, 0), (False, 1)])
def test_a_higher_router_that_returns_preempts_unless_told_not_to(preempt, winner):
    segment = started((150, 100), preempt=preempt)
    segment.at(8.0, 0, "crash")
    segment.at(20.0, 0, "start")
    assert segment.run(40.0).masters() == [winner]
    assert_within_bounds(segment)


def test_two_masters_of_a_healed_segment_settle_within_an_interval_and_the_skew():
    segment = started((150, 100, 90)).run(10.0)
    segment.cut = {1}
    assert segment.run(20.0).masters() == [0, 1]
    segment.cut = set()
    two, _ = bounds(segment)
    assert segment.run(20.0 + two).masters() == [0]


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 40.0),
        st.integers(0, 2),
        st.sampled_from(("start", "start", "crash", Fail("eth0"), Recover("eth0"), Recover("eth0"))),
    ),
    max_size=12,
)
PRIORITIES = st.lists(st.integers(1, 254), min_size=2, max_size=3)


@settings(max_examples=120, deadline=None)
@given(PRIORITIES, EVENTS, st.sampled_from((2, 3)), st.sampled_from((1.0, 3.0)), st.booleans())
def test_a_segment_that_loses_nothing_has_one_master_within_the_bounds(priorities, events, version, interval, preempt):
    segment = started(priorities, version=version, advert_interval_s=interval, preempt=preempt)
    for time, number, what in events:
        if number < len(priorities):
            segment.at(time, number, what)
    segment.run(80.0)
    assert_within_bounds(segment)
    able = segment.history[-1][2][0]
    assert len(segment.masters()) == (1 if able else 0)
    if preempt and able:
        best = max(able, key=lambda n: priorities[n])
        assert priorities[segment.masters()[0]] == priorities[best]


@settings(max_examples=60, deadline=None)
@given(PRIORITIES, st.integers(0, 2**32), st.floats(0.0, 0.6), st.sampled_from((2, 3)))
def test_a_lossy_segment_has_one_master_again_soon_after_it_loses_nothing(priorities, seed, loss, version):
    segment = started(priorities, seed=seed, loss=loss, version=version).run(60.0)
    two, none = bounds(segment)
    assert max(segment.stretches(lambda masters: masters == 0), default=0.0) <= none
    segment.loss = 0.0
    segment.run(60.0 + none)
    [winner] = segment.run(60.0 + none + two).masters()
    assert priorities[winner] == max(priorities)
