"""Inputs and effects of a sync group of three members."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import ImpossibleTransition
from relevo.machines import sync_group
from relevo.machines.sync_group import GroupTransition, OrderMember, Report, Symbol, SyncGroupMachine
from relevo.machines.vrrp import State
from tests.unit.machines.exerciser import assert_sound, walk

INIT, BACKUP, MASTER, FAULT = State.INIT, State.BACKUP, State.MASTER, State.FAULT


def give(machine, symbol, name=""):
    return machine.receive(Report(symbol, name), 0.0)


def made():
    return SyncGroupMachine("VG_1", ("a", "b", "c"))


def group():
    machine = made()
    give(machine, Symbol.START)
    return machine


def all_ask(machine):
    return [effect for name in machine.members for effect in give(machine, Symbol.ASK, name)]


def master():
    machine = group()
    all_ask(machine)
    return machine


def fault():
    machine = group()
    give(machine, Symbol.FAIL)
    return machine


def change(machine, members, masters):
    machine.set_members(members)
    return machine.unite(masters)


REACH = {INIT: made, BACKUP: group, MASTER: master, FAULT: fault}
ALL_MASTER = [OrderMember(name, MASTER) for name in "abc"]


def test_the_table_is_sound():
    assert_sound(sync_group, group(), {INIT}, set(REACH))


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, sync_group, REACH, lambda machine, symbol: give(machine, symbol, "a"))


@pytest.mark.parametrize("state", [State.LEAVING, State.HANDING_OVER])
def test_a_group_is_never_in_the_other_states_of_its_members(state):
    machine = group()
    machine.state = state
    with pytest.raises(ImpossibleTransition, match="VG_1"):
        give(machine, Symbol.ASK, "a")


def test_nothing_happens_by_time_alone():
    assert group().deadline() is None
    assert group().expire(1e9) == []


def test_the_start_as_backup_and_the_stop_are_transitions():
    machine = made()
    assert give(machine, Symbol.START) == [GroupTransition(INIT, BACKUP)]
    assert give(machine, Symbol.STOP) == [GroupTransition(BACKUP, INIT)]
    assert give(machine, Symbol.STOP) == []


def test_the_group_becomes_master_only_when_every_member_asks():
    machine = group()
    assert give(machine, Symbol.ASK, "a") == []
    assert give(machine, Symbol.ASK, "b") == []
    assert machine.state is BACKUP
    assert give(machine, Symbol.ASK, "c") == [*ALL_MASTER, GroupTransition(BACKUP, MASTER)]


def test_a_wish_that_is_withdrawn_does_not_count():
    machine = group()
    give(machine, Symbol.ASK, "a")
    give(machine, Symbol.WITHDRAW, "a")
    give(machine, Symbol.ASK, "b")
    assert give(machine, Symbol.ASK, "c") == []


def test_a_member_that_is_master_by_itself_makes_the_others_follow():
    assert give(group(), Symbol.MASTER, "a") == [*ALL_MASTER, GroupTransition(BACKUP, MASTER)]


def test_a_member_that_asks_again_is_ordered_again():
    assert give(master(), Symbol.ASK, "b") == ALL_MASTER


def test_the_first_member_to_become_backup_makes_the_others_follow():
    machine = master()
    assert give(machine, Symbol.BACKUP, "b") == [
        OrderMember("a", BACKUP),
        OrderMember("c", BACKUP),
        GroupTransition(MASTER, BACKUP),
    ]
    assert give(machine, Symbol.BACKUP, "a") == []


@pytest.mark.parametrize(("make", "before"), [(group, BACKUP), (master, MASTER)])
def test_a_fault_of_a_member_is_one_of_the_group_until_there_is_none(make, before):
    machine = make()
    assert give(machine, Symbol.FAIL) == [GroupTransition(before, FAULT)]
    assert give(machine, Symbol.FAIL) == []
    assert give(machine, Symbol.RECOVER) == [GroupTransition(FAULT, BACKUP)]


@pytest.mark.parametrize("symbol", [Symbol.ASK, Symbol.MASTER, Symbol.BACKUP])
def test_a_group_in_fault_gives_no_orders(symbol):
    assert give(fault(), symbol, "b") == []


# -- members change ---------------------------------------------------------------------------------------------------


def test_a_member_that_joins_a_master_group_becomes_master():
    machine = master()
    assert OrderMember("d", MASTER) in change(machine, ("a", "b", "c", "d"), ("a", "b", "c"))
    assert machine.state is MASTER


def test_a_master_that_joins_makes_the_group_follow():
    machine = group()
    assert change(machine, ("a", "b", "d"), ("d",))[-1] == GroupTransition(BACKUP, MASTER)


def test_without_any_master_a_group_that_changes_is_backup():
    machine = master()
    assert change(machine, ("d", "e"), ()) == [GroupTransition(MASTER, BACKUP)]


def test_a_wish_of_a_member_that_left_does_not_count():
    machine = group()
    give(machine, Symbol.ASK, "a")
    change(machine, ("b", "c"), ())
    change(machine, ("a", "b", "c"), ())
    give(machine, Symbol.ASK, "b")
    assert give(machine, Symbol.ASK, "c") == []


@pytest.mark.parametrize("make", [made, fault])
def test_a_group_that_is_stopped_or_at_fault_takes_members_without_orders(make):
    machine = make()
    assert change(machine, ("a",), ("a",)) == []
    assert machine.members == ("a",)


@given(st.lists(st.tuples(st.sampled_from(list(Symbol)), st.sampled_from("abc")), max_size=30))
def test_a_transition_is_reported_exactly_when_the_state_changes(reports):
    machine = group()
    for symbol, name in reports:
        if symbol is Symbol.START and machine.state is not INIT:
            continue
        before = machine.state
        transitions = [(e.before, e.after) for e in give(machine, symbol, name) if isinstance(e, GroupTransition)]
        assert transitions == ([(before, machine.state)] if machine.state is not before else [])
