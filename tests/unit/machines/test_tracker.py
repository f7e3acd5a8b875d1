import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.machines.faults import Fault, FaultKind
from relevo.machines.tracker import evaluate
from relevo.model import TrackedInterface

UP, DOWN = True, False


def standing(*tracked, up=(), priority=100):
    """The standing with these interfaces up and all others down."""
    return evaluate(priority, [TrackedInterface(*item) for item in tracked], lambda name: name in up)


def down(name):
    return Fault(FaultKind.INTERFACE_DOWN, name)


def test_nothing_tracked_is_the_declared_priority():
    assert standing() == evaluate(100, (), lambda name: False)
    assert (standing().faults, standing().priority) == ((), 100)


def test_a_tracked_interface_without_weight_down_is_a_fault():
    assert standing(("eth1",)).faults == (down("eth1"),)
    assert standing(("eth1",)).priority == 100
    assert standing(("eth1",), up=("eth1",)).faults == ()


def test_every_interface_is_a_cause_of_its_own():
    assert standing(("eth1",), ("eth2",)).faults == (down("eth1"), down("eth2"))


def test_an_interface_that_is_tracked_twice_is_one_cause():
    assert standing(("eth1",), ("eth1",)).faults == (down("eth1"),)


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
    found = standing(("eth1", weight, reverse), up=("eth1",) if up else ())
    assert (found.priority, found.faults) == (priority, ())


def test_weights_add_up():
    tracked = (("eth1", -20), ("eth2", -30), ("eth3", 5))
    assert standing(*tracked, up=("eth2", "eth3")).priority == 85
    assert standing(*tracked).priority == 50


@pytest.mark.parametrize(("weight", "up", "priority"), [(-253, (), 1), (253, ("eth1",), 254)])
def test_the_effective_priority_stays_in_1_to_254(weight, up, priority):
    assert standing(("eth1", weight), up=up).priority == priority


def test_an_owner_keeps_its_priority():
    assert standing(("eth1", -50), priority=255).priority == 255


def test_weight_and_fault_of_one_interface_come_together():
    found = standing(("eth1", 0), ("eth1", -10))
    assert (found.faults, found.priority) == ((down("eth1"),), 90)


def test_reverse_with_weight_0_is_a_fault_while_the_interface_is_up():
    assert standing(("eth1", 0, True), up=("eth1",)).faults == (Fault(FaultKind.INTERFACE_UP, "eth1"),)
    assert standing(("eth1", 0, True)).faults == ()


@given(st.integers(1, 255), st.integers(-253, 253), st.booleans(), st.sets(st.sampled_from(("eth1", "eth2"))))
def test_the_priority_is_the_sum_of_what_holds_now(base, weight, reverse, up):
    found = standing(("eth1", weight, reverse), ("eth2", -3), up=up, priority=base)
    good = ("eth1" in up) is not reverse
    total = base + (max(weight, 0) if good else min(weight, 0)) - (0 if "eth2" in up else 3)
    assert found.priority == (255 if base == 255 else max(1, min(254, total)))
