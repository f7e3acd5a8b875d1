import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.machines.tracker import InterfaceTracker
from relevo.machines.vrrp import Fail, Recover, SetPriority
from relevo.model import TrackedInterface, VrrpInstance

UP, DOWN = True, False


def tracker(*tracked, priority=100, track_primary=False, interface="eth0"):
    tracked = tuple(TrackedInterface(*item) for item in tracked)
    return InterfaceTracker(
        VrrpInstance(
            name="VI_1",
            interface=interface,
            virtual_router_id=51,
            priority=priority,
            track_primary=track_primary,
            track_interfaces=tracked,
        )
    )


@pytest.mark.parametrize(
    ("tracked", "track_primary", "interface", "names"),
    [
        ((), True, "eth0", {"eth0"}),
        ((("eth1",),), True, "eth0", {"eth0", "eth1"}),
        ((("eth1",), ("eth1", 5)), False, "eth0", {"eth1"}),
        ((), True, "", set()),
        ((), False, "eth0", set()),
    ],
)
def test_the_interfaces_that_matter(tracked, track_primary, interface, names):
    assert tracker(*tracked, track_primary=track_primary, interface=interface).interfaces() == names


def test_other_interfaces_and_unchanged_states_say_nothing():
    machine = tracker(("eth1", -10))
    assert machine.receive("eth7", DOWN) == []
    assert machine.receive("eth1", UP) == []
    assert machine.receive("eth1", DOWN) == [SetPriority(90)]
    assert machine.receive("eth1", DOWN) == []


def test_the_own_interface_down_is_a_fault_and_up_again_its_end():
    machine = tracker(track_primary=True)
    assert machine.receive("eth0", DOWN) == [Fail("interface eth0 is down")]
    assert machine.receive("eth0", UP) == [Recover("interface eth0 is down")]


def test_the_own_interface_may_go_down_with_dont_track_primary():
    assert tracker(track_primary=False).receive("eth0", DOWN) == []


def test_a_tracked_interface_without_weight_down_is_a_fault():
    machine = tracker(("eth1",))
    assert machine.receive("eth1", DOWN) == [Fail("interface eth1 is down")]
    assert machine.priority == 100


def test_every_interface_is_a_cause_of_its_own():
    machine = tracker(("eth1",), track_primary=True)
    assert machine.receive("eth1", DOWN) == [Fail("interface eth1 is down")]
    assert machine.receive("eth0", DOWN) == [Fail("interface eth0 is down")]
    assert machine.receive("eth1", UP) == [Recover("interface eth1 is down")]


@pytest.mark.parametrize(
    ("weight", "reverse", "up", "priority"),
    [
        (20, False, UP, 120),
        (20, False, DOWN, 100),
        (-20, False, UP, 100),
        (-20, False, DOWN, 80),
        (20, True, UP, 100),
        (20, True, DOWN, 120),
        (-20, True, UP, 80),
        (-20, True, DOWN, 100),
    ],
)
def test_a_positive_weight_is_added_while_good_and_a_negative_one_while_bad(weight, reverse, up, priority):
    machine = tracker(("eth1", weight, reverse))
    machine.receive("eth1", not up)
    machine.receive("eth1", up)
    assert machine.priority == priority


def test_weights_add_up():
    machine = tracker(("eth1", -20), ("eth2", -30), ("eth3", 5))
    assert machine.receive("eth1", DOWN) == [SetPriority(85)]
    assert machine.receive("eth2", DOWN) == [SetPriority(55)]
    assert machine.receive("eth3", DOWN) == [SetPriority(50)]
    assert machine.receive("eth1", UP) == [SetPriority(70)]


@pytest.mark.parametrize(("weight", "up", "priority"), [(-253, DOWN, 1), (253, UP, 254)])
def test_the_effective_priority_stays_in_1_to_254(weight, up, priority):
    assert tracker(("eth1", weight)).receive("eth1", up) == [SetPriority(priority)]


def test_an_owner_keeps_its_priority():
    machine = tracker(("eth1", -50), priority=255)
    assert machine.receive("eth1", DOWN) == []
    assert machine.priority == 255


def test_weight_and_fault_of_one_interface_come_together():
    machine = tracker(("eth1", 0), ("eth1", -10))
    assert machine.receive("eth1", DOWN) == [Fail("interface eth1 is down"), SetPriority(90)]


def test_a_weight_on_the_own_interface_replaces_the_fault():
    machine = tracker(("eth0", -10), track_primary=True)
    assert machine.receive("eth0", DOWN) == [SetPriority(90)]


def test_reverse_with_weight_0_is_a_fault_while_the_interface_is_up():
    machine = tracker(("eth1", 0, True))
    [fault] = machine.receive("eth1", UP)
    assert isinstance(fault, Fail)
    assert machine.receive("eth1", DOWN) == [Recover(fault.cause)]


LINKS = st.lists(st.tuples(st.sampled_from(("eth0", "eth1", "eth2")), st.booleans()), max_size=20)


@given(st.integers(1, 255), st.integers(-253, 253), st.booleans(), LINKS)
def test_the_priority_told_is_always_the_sum_of_what_holds_now(base, weight, reverse, links):
    machine, state, told = tracker(("eth1", weight, reverse), ("eth2", -3), priority=base), {}, base
    for name, up in links:
        state[name] = up
        for effect in machine.receive(name, up):
            told = effect.priority if isinstance(effect, SetPriority) else told
        if "eth1" not in state and "eth2" not in state:
            continue
        good = state.get("eth1", True) is not reverse
        added = max(weight, 0) if good else min(weight, 0)
        total = base + added - (0 if state.get("eth2", True) else 3)
        assert told == machine.priority == (255 if base == 255 else max(1, min(254, total)))
