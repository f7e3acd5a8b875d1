import enum

import pytest

from relevo.errors import ImpossibleTransition
from relevo.machines.machine import Rule, Timers, diagram, find_rule


class Light(enum.Enum):
    RED = 1
    GREEN = 2


class Event(enum.Enum):
    PRESS = 1


TABLE = {(Light.RED, Event.PRESS): Rule("go", (Light.GREEN, Light.RED))}


def test_timers_give_the_earliest_deadline():
    timers = Timers()
    assert timers.deadline() is None
    timers.set("late", 9.0)
    timers.set("early", 3.0)
    assert timers.deadline() == 3.0
    assert timers.get("late") == 9.0
    assert timers.get("other") is None


def test_setting_a_timer_again_moves_it():
    timers = Timers()
    timers.set("a", 1.0)
    timers.set("a", 5.0)
    assert timers.pop_due(4.0) is None
    assert timers.pop_due(5.0) == "a"
    assert timers.deadline() is None


def test_due_timers_come_in_the_order_of_their_deadlines():
    timers = Timers()
    for name, at in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("later", 8.0)):
        timers.set(name, at)
    assert [timers.pop_due(4.0) for _ in range(4)] == ["a", "b", "c", None]
    assert timers.deadline() == 8.0


def test_cancelled_timers_do_not_fire_and_cancelling_an_unset_one_is_allowed():
    timers = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.cancel("a", "never set")
    assert timers.deadline() == 2.0
    timers.clear()
    assert timers.pop_due(100.0) is None


def test_an_absent_pair_is_a_programming_error_that_names_machine_state_and_symbol():
    assert find_rule(TABLE, Light.RED, Event.PRESS, "lamp").action == "go"
    with pytest.raises(ImpossibleTransition, match=r"lamp: no transition from Light.GREEN on Event.PRESS"):
        find_rule(TABLE, Light.GREEN, Event.PRESS, "lamp")


def test_the_diagram_is_mermaid_with_one_line_an_edge():
    assert diagram(TABLE, "Lamp") == (
        "---\ntitle: Lamp\n---\nstateDiagram-v2\n    RED --> GREEN: PRESS\n    RED --> RED: PRESS\n"
    )
