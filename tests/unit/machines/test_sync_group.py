import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import ImpossibleTransition
from relevo.machines import sync_group
from relevo.machines.sync_group import (
    FailMember,
    GroupTransition,
    OrderMember,
    RecoverMember,
    Report,
    Symbol,
    SyncGroupMachine,
)
from relevo.machines.vrrp import State
from tests.unit.machines.exerciser import assert_sound, walk

BACKUP, MASTER, FAULT = State.BACKUP, State.MASTER, State.FAULT


def group(*reports):
    machine = SyncGroupMachine("VG_1", ("a", "b", "c"))
    for name, symbol in reports:
        tell(machine, name, symbol)
    return machine


def tell(machine, name, symbol):
    return machine.receive(Report(name, symbol), 0.0)


def all_ask(machine):
    return [effect for name in machine.members for effect in tell(machine, name, Symbol.ASK)]


def master():
    machine = group()
    all_ask(machine)
    return machine


REACH = {BACKUP: group, MASTER: master, FAULT: lambda: group(("a", Symbol.FAULT))}


def feed(machine, symbol):
    tell(machine, "a", symbol)


def test_the_table_is_sound():
    assert_sound(sync_group, group(), {BACKUP}, {BACKUP, MASTER, FAULT})


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, sync_group, REACH, feed)


@pytest.mark.parametrize("state", [State.INIT, State.LEAVING])
def test_a_group_is_never_in_the_other_states_of_its_members(state):
    machine = group()
    machine.state = state
    with pytest.raises(ImpossibleTransition, match="VG_1"):
        tell(machine, "a", Symbol.ASK)


def test_nothing_happens_by_time_alone():
    assert group().deadline() is None
    assert group().expire(1e9) == []


def test_when_all_ask_all_are_ordered_to_be_master():
    machine = group()
    effects = all_ask(machine)
    assert [OrderMember(name, MASTER) for name in "abc"] == [e for e in effects if isinstance(e, OrderMember)][:3]
    assert [e for e in effects if isinstance(e, GroupTransition)] == [GroupTransition(BACKUP, MASTER)]
    assert machine.state is MASTER


def test_the_group_becomes_master_only_when_every_member_wants_it():
    machine = group()
    assert tell(machine, "a", Symbol.ASK) == []
    assert tell(machine, "b", Symbol.ASK) == []
    assert machine.state is BACKUP
    orders = [OrderMember(name, MASTER) for name in "abc"]
    assert tell(machine, "c", Symbol.ASK) == [*orders, GroupTransition(BACKUP, MASTER)]


def test_a_member_that_is_master_by_itself_takes_the_others_along():
    machine = group()
    orders = [OrderMember(name, MASTER) for name in "abc"]
    assert tell(machine, "a", Symbol.MASTER) == [*orders, GroupTransition(BACKUP, MASTER)]


def test_a_member_that_asks_again_is_ordered_again():
    assert tell(master(), "b", Symbol.ASK) == [OrderMember(name, MASTER) for name in "abc"]


def test_the_first_member_to_yield_takes_the_others_along():
    machine = master()
    assert tell(machine, "b", Symbol.BACKUP) == [
        OrderMember("a", BACKUP),
        OrderMember("c", BACKUP),
        GroupTransition(MASTER, BACKUP),
    ]
    assert tell(machine, "a", Symbol.BACKUP) == []


@pytest.mark.parametrize(("make", "before"), [(group, BACKUP), (master, MASTER)])
def test_any_fault_puts_all_in_fault(make, before):
    machine = make()
    assert tell(machine, "a", Symbol.FAULT) == [FailMember("b"), FailMember("c"), GroupTransition(before, FAULT)]


def test_the_fault_ends_when_the_last_failed_member_recovers():
    machine = group(("a", Symbol.FAULT))
    assert tell(machine, "b", Symbol.FAULT) == [FailMember("a"), FailMember("c")]
    assert tell(machine, "a", Symbol.RECOVER) == []
    assert machine.state is FAULT
    assert tell(machine, "b", Symbol.RECOVER) == [*map(RecoverMember, "abc"), GroupTransition(FAULT, BACKUP)]


@pytest.mark.parametrize("symbol", [Symbol.ASK, Symbol.MASTER, Symbol.BACKUP])
def test_a_group_in_fault_gives_no_orders(symbol):
    assert tell(group(("a", Symbol.FAULT)), "b", symbol) == []


@pytest.mark.parametrize("make", [group, master])
def test_a_recovery_outside_a_fault_changes_nothing(make):
    assert tell(make(), "a", Symbol.RECOVER) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Symbol))), max_size=30))
def test_the_group_is_in_fault_exactly_while_a_member_is(reports):
    machine, failed = group(), set()
    for name, symbol in reports:
        before = machine.state
        effects = tell(machine, name, symbol)
        failed = failed | {name} if symbol is Symbol.FAULT else failed - {name} if symbol is Symbol.RECOVER else failed
        assert (machine.state is FAULT) is bool(failed)
        told = [(e.before, e.after) for e in effects if isinstance(e, GroupTransition)]
        assert told == ([(before, machine.state)] if machine.state is not before else [])
