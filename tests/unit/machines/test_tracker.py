import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.machines.faults import Fault, FaultKind
from relevo.machines.tracker import Standing, evaluate, share_of
from relevo.model import Tracked, TrackerKind

INTERFACE, SCRIPT, FILE, PROCESS, SERVICE = TrackerKind
UP, DOWN = 1, 0


def standing(*tracked, values=None, priority=100):
    """The standing of an instance; ``tracked`` are (name, weight, reverse) of scripts, ``values`` theirs by name."""
    known = values or {}
    return evaluate(priority, [Tracked(SCRIPT, *item) for item in tracked], lambda each: known.get(each.name))


def failed(name):
    return Fault(FaultKind.SCRIPT_FAILED, name)


def test_nothing_tracked_is_the_declared_priority():
    assert standing() == Standing((), 100)


@pytest.mark.parametrize(
    ("kind", "down", "up"),
    [
        (INTERFACE, FaultKind.INTERFACE_DOWN, FaultKind.INTERFACE_UP),
        (SCRIPT, FaultKind.SCRIPT_FAILED, FaultKind.SCRIPT_SUCCEEDED),
        (PROCESS, FaultKind.PROCESS_MISSING, FaultKind.PROCESS_RUNNING),
        (SERVICE, FaultKind.SERVICE_DOWN, FaultKind.SERVICE_UP),
    ],
)
def test_without_weight_a_source_that_is_down_is_a_fault_and_in_reverse_one_that_is_up(kind, down, up):
    assert share_of(Tracked(kind, "x"), DOWN).fault == Fault(down, "x")
    assert share_of(Tracked(kind, "x"), UP).fault is None
    assert share_of(Tracked(kind, "x", 0, True), UP).fault == Fault(up, "x")
    assert share_of(Tracked(kind, "x", 0, True), DOWN).fault is None


def test_every_source_is_a_cause_of_its_own_and_counts_once():
    found = standing(("a",), ("b",), ("a",), values={"a": DOWN, "b": DOWN})
    assert (found.faults, found.priority) == ((failed("a"), failed("b")), 100)


# keepalived adds the weight, in reverse minus the weight: a positive one while the source is up, a negative one while down.
@pytest.mark.parametrize(
    ("weight", "reverse", "value", "priority"),
    [
        (20, False, UP, 120),
        (20, False, DOWN, 100),
        (-20, False, UP, 100),
        (-20, False, DOWN, 80),
        (20, True, UP, 80),
        (20, True, DOWN, 100),
        (-20, True, UP, 100),
        (-20, True, DOWN, 120),
    ],
)
def test_a_positive_weight_counts_while_up_and_a_negative_one_while_down(weight, reverse, value, priority):
    assert standing(("x", weight, reverse), values={"x": value}) == Standing((), priority)


@pytest.mark.parametrize("kind", TrackerKind)
@pytest.mark.parametrize("weight", [0, 20, -20])
def test_what_is_not_known_changes_nothing(kind, weight):
    found = share_of(Tracked(kind, "x", weight), None)
    assert (found.weight, found.fault) == (0, None)


@pytest.mark.parametrize(
    ("weight", "reverse", "number", "contribution", "fault"),
    [
        (1, False, 30, 30, False),
        (-2, False, 10, -20, False),
        (2, True, 10, -20, False),
        (1, False, 5000, 253, False),
        (1, False, -253, -253, False),
        (1, False, -254, 0, True),
        (127, True, 2, 0, True),
        (-1, False, 2**31, 0, True),
        (0, False, 0, 0, False),
        (0, False, 7, 0, True),
        (0, True, 0, 0, True),
        (0, True, -3, 0, False),
    ],
)
def test_a_file_gives_its_number_times_the_weight(weight, reverse, number, contribution, fault):
    found = share_of(Tracked(FILE, "mode", weight, reverse), number)
    assert (found.weight, found.fault) == (contribution, Fault(FaultKind.FILE, "mode") if fault else None)


@pytest.mark.parametrize(("weight", "value", "priority"), [(-253, DOWN, 1), (253, UP, 254)])
def test_the_effective_priority_stays_in_1_to_254(weight, value, priority):
    assert standing(("x", weight), values={"x": value}).priority == priority


def test_an_owner_keeps_its_priority():
    assert standing(("x", -50), values={"x": DOWN}, priority=255).priority == 255


def test_weight_and_fault_of_one_source_come_together():
    assert standing(("x", 0), ("x", -10), values={"x": DOWN}) == Standing((failed("x"),), 90)


@given(st.integers(1, 255), st.lists(st.tuples(st.integers(-253, 253), st.booleans(), st.sampled_from((UP, DOWN, None)))))
def test_the_priority_is_the_sum_of_what_holds_now(base, sources):
    tracked = [(str(number), weight, reverse) for number, (weight, reverse, _) in enumerate(sources)]
    found = standing(*tracked, values={str(n): value for n, (*_, value) in enumerate(sources)}, priority=base)
    total = base
    for weight, reverse, value in sources:
        if value is not None and (weight > 0) == bool(value):
            total += -weight if reverse else weight
    assert found.priority == (255 if base == 255 else max(1, min(254, total)))
