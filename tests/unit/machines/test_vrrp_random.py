"""One virtual router under random inputs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines.vrrp import (
    Claimed,
    Order,
    Reconfigure,
    Restart,
    SendAdvert,
    SetPlaneReady,
    SetPriority,
    Start,
    State,
    Stop,
    Symbol,
    Transition,
)
from relevo.model import GarpPolicy
from tests.unit.machines.routers import HIGH, LOW, failing, heard, instance, router

SOURCES = st.sampled_from((LOW, HIGH))
ADVERTS = st.builds(
    lambda p, s, i: heard(p, s, interval=i, version=3), st.integers(0, 255), SOURCES, st.sampled_from((0, 0.01, 1, 40.95))
)
FAULTS = st.builds(lambda causes: failing(*sorted(causes)), st.sets(st.sampled_from(("eth0", "eth1"))))
INPUTS = st.one_of(
    ADVERTS,
    ADVERTS,
    FAULTS,
    FAULTS,
    st.builds(Claimed, st.just("10.0.0.240"), st.just(bytes(6)), st.booleans()),
    st.builds(SetPriority, st.integers(1, 254)),
    st.builds(Order, st.sampled_from((State.MASTER, State.BACKUP))),
    st.builds(Stop),
    st.builds(Start, st.booleans()),
    st.builds(SetPlaneReady, st.booleans()),
    st.builds(Reconfigure, st.builds(lambda i: instance(advert_interval_s=i), st.sampled_from((0.1, 1.0, 5.0))), st.booleans()),
    st.builds(Restart, st.just("interface changed")),
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


def assert_consistent(before, machine, effects):
    """What must hold after every step."""
    for effect in effects:
        if isinstance(effect, SendAdvert):
            last_word = before is machine.state is State.BACKUP and effect.priority == machine.priority
            assert State.MASTER in (before, machine.state) or last_word
            assert effect.priority or before is State.MASTER
    moved = [effect for effect in effects if isinstance(effect, Transition)]
    assert not moved or moved[-1].after is machine.state
    assert (machine._timers.get(Symbol.ADVERT_TIMER) is not None) is (machine.state is State.MASTER)
    assert (machine._timers.get(Symbol.MASTER_DOWN_TIMER) is not None) is (machine.state is State.BACKUP)
    assert (machine._timers.get(Symbol.LEAVE_TIMER) is not None) is (machine.state is State.LEAVING)
    assert not machine.faults or machine.state in (State.INIT, State.FAULT)


@settings(max_examples=400)
@given(ROUTERS, STEPS)
def test_no_sequence_of_inputs_at_any_times_confuses_a_router(machine, steps):
    now = 0.0
    assert_consistent(machine.state, machine, machine.receive(Start(), now))
    for item, pause, looks_at_the_clock in steps:
        now += pause
        if looks_at_the_clock:
            before = machine.state
            assert_consistent(before, machine, machine.expire(now))
            assert machine.deadline() is None or machine.deadline() > now
        if item is None or (isinstance(item, Start) and machine.state is not State.INIT):
            continue
        before = machine.state
        assert_consistent(before, machine, machine.receive(item, now))
