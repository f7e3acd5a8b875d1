"""Inputs and effects of one virtual router. Times are seconds from its start; its own priority is 100 by default."""

import itertools

import pytest

from relevo.errors import ImpossibleTransition
from relevo.machines.vrrp import (
    TIMERS,
    Announce,
    AskGroup,
    Claimed,
    HandOver,
    Log,
    LowerPriority,
    Order,
    Reconfigure,
    Restart,
    Restore,
    SendAdvert,
    SetPlaneReady,
    SetPriority,
    SetSynced,
    Start,
    State,
    Stop,
    Symbol,
    Transition,
    states,
)
from relevo.machines.vrrp.limits import MAX_SOURCES
from relevo.model import GarpPolicy, VirtualAddress
from tests.unit.machines.exerciser import assert_sound, force, walk
from tests.unit.machines.routers import (
    HIGH,
    LOW,
    OWN,
    REACH,
    VIP,
    acts,
    backup,
    failing,
    fault,
    handing_over,
    heard,
    instance,
    leaving,
    logs,
    master,
    router,
)

INIT, BACKUP, MASTER, FAULT, LEAVING = State.INIT, State.BACKUP, State.MASTER, State.FAULT, State.LEAVING
HANDING_OVER = State.HANDING_OVER

CLAIM = Claimed("10.0.0.240", bytes.fromhex("02005e000133"))

INPUTS = {
    Symbol.START: Start(),
    Symbol.STOP: Stop(),
    Symbol.FAIL: failing("eth0"),
    Symbol.RECOVER: failing(),
    Symbol.PRIORITY: SetPriority(120),
    Symbol.ADVERT_ZERO: heard(0),
    Symbol.ADVERT_HIGHER: heard(200),
    Symbol.ADVERT_LOWER: heard(50),
    Symbol.CLAIM: CLAIM,
    Symbol.GROUP_MASTER: Order(MASTER),
    Symbol.GROUP_BACKUP: Order(BACKUP),
    Symbol.HAND_OVER: HandOver(),
    Symbol.RESTORE: Restore(),
    Symbol.RECONFIGURE: Reconfigure(instance(), grouped=False),
    Symbol.RESTART: Restart("virtual_router_id changed"),
    Symbol.PLANE: SetPlaneReady(True),
}


def feed(machine, symbol):
    if symbol in TIMERS:
        return force(machine, symbol)
    machine.faults = failing("eth0").faults if symbol is Symbol.RECOVER else ()
    return machine.receive(INPUTS[symbol], 1.0)


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_sound():
    assert_sound(states, router(), {INIT}, State)


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, states, REACH, feed)


@pytest.mark.parametrize("state", [BACKUP, MASTER, FAULT, LEAVING, HANDING_OVER])
def test_a_router_starts_once(state):
    with pytest.raises(ImpossibleTransition, match="VI_1: no transition"):
        REACH[state]().receive(Start(), 1.0)


IGNORED = {
    INIT: (Stop(), failing("x"), SetPriority(9), heard(0), heard(200), heard(50), Order(MASTER), Order(BACKUP), HandOver()),
    BACKUP: (SetPriority(120), HandOver(), Restore()),
    MASTER: (SetPriority(120), Order(MASTER), Restore()),
    FAULT: (SetPriority(9), heard(0), heard(200), heard(50), Order(MASTER), Order(BACKUP), HandOver(), Restore()),
    LEAVING: (SetPriority(9), heard(0), Order(MASTER), Order(BACKUP), HandOver(), Restore()),
    HANDING_OVER: (SetPriority(9), heard(0), Order(MASTER), HandOver()),
}


@pytest.mark.parametrize(("state", "given"), [(state, given) for state, items in IGNORED.items() for given in items])
def test_what_a_state_ignores_changes_neither_state_nor_timers(state, given):
    machine = REACH[state]()
    before = machine.deadline()
    assert machine.receive(given, 0.25) == []
    assert (machine.state, machine.deadline()) == (state, before)


def test_an_input_of_no_known_kind_is_no_input():
    assert backup().receive(object(), 0.0) == []


# -- the start --------------------------------------------------------------------------------------------------------


def test_a_router_starts_as_backup_without_addresses_and_waits_for_a_master():
    machine = router()
    assert machine.receive(Start(), 5.0) == [
        Log("(VI_1) Entering BACKUP STATE (init)"),
        Transition(INIT, BACKUP, "started"),
    ]
    assert machine.deadline() == pytest.approx(5.0 + 3.609375)
    assert (machine.since, machine.reason) == (5.0, "started")


def test_a_router_declared_master_waits_one_interval_and_the_least_skew():
    machine = backup(starts_as_master=True)
    assert machine.state is BACKUP
    assert machine.deadline() == pytest.approx(1 + 1 / 256)


def test_a_member_of_a_sync_group_declared_master_waits_as_long_as_a_backup():
    machine = router(starts_as_master=True)
    machine.grouped = True
    machine.receive(Start(), 0.0)
    assert machine.deadline() == pytest.approx(3.609375)


def test_a_router_declared_master_stays_backup_after_an_advert_of_higher_priority():
    machine = backup(starts_as_master=True)
    machine.receive(heard(200), 0.5)
    assert machine.deadline() == pytest.approx(0.5 + 3.609375)


def test_the_owner_of_the_address_is_master_at_once():
    machine = router(priority=255)
    assert machine.receive(Start(), 0.0) == [
        SendAdvert(255),
        Announce(5),
        Log("(VI_1) Entering MASTER STATE"),
        Transition(INIT, MASTER, "owner of the address"),
        Log("(VI_1) setting VIPs."),
    ]


def test_a_resumed_router_goes_on_as_master():
    machine = router()
    effects = acts(machine.receive(Start(resume=True), 0.0))
    reason = "resumed after a restart of the worker"
    assert effects == [SendAdvert(100), Announce(5), Transition(INIT, MASTER, reason)]


@pytest.mark.parametrize("start", [Start(), Start(resume=True)])
@pytest.mark.parametrize("priority", [100, 255])
def test_a_router_with_a_fault_starts_in_fault(start, priority):
    machine = router(priority=priority)
    assert machine.receive(failing("interface eth0 is down"), 0.0) == []
    assert acts(machine.receive(start, 0.0)) == [Transition(INIT, FAULT, "interface eth0 is down")]
    assert machine.deadline() is None


def test_a_fault_that_is_over_before_the_start_does_not_count():
    machine = router()
    machine.receive(failing("eth0"), 0.0)
    assert machine.receive(failing(), 0.0) == []
    machine.receive(Start(), 1.0)
    assert machine.state is BACKUP


def test_a_priority_set_before_the_start_counts_from_the_start():
    machine = router()
    machine.receive(SetPriority(255), 0.0)
    machine.receive(Start(), 0.0)
    assert machine.state is MASTER


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "priority", "interval", "adverts", "skew", "down"),
    [
        (2, 100, 1.0, 3, 156 / 256, 3.609375),
        (2, 100, 3.0, 3, 156 / 256, 9.609375),  # version 2: the skew is a part of one second
        (2, 255, 1.0, 3, 1 / 256, 3.00390625),
        (2, 1, 1.0, 3, 255 / 256, 3.99609375),
        (2, 254, 1.0, 5, 2 / 256, 5.0078125),
        (3, 100, 1.0, 3, 156 / 256, 3.609375),
        (3, 100, 0.1, 3, 0.0609375, 0.3609375),
        (3, 100, 4.0, 3, 2.4375, 14.4375),  # version 3: of the interval
        (3, 1, 0.01, 1, 0.0099609375, 0.0199609375),
    ],
)
def test_skew_and_master_down_times(version, priority, interval, adverts, skew, down):
    machine = router(version=version, priority=priority, advert_interval_s=interval, down_timer_adverts=adverts)
    assert machine.skew_s() == pytest.approx(skew)
    assert machine.master_down_s() == pytest.approx(down)


def test_the_skew_follows_the_effective_priority():
    machine = backup()
    machine.receive(SetPriority(200), 0.0)
    assert machine.skew_s() == 56 / 256
    machine.receive(heard(250), 1.0)
    assert machine.deadline() == 1.0 + 3.0 + 56 / 256


def test_nothing_happens_before_the_deadline():
    assert backup().expire(3.6) == []


# -- taking over ------------------------------------------------------------------------------------------------------


def test_missing_adverts_make_a_backup_master():
    machine = backup()
    assert machine.expire(3.61) == [
        SendAdvert(100),
        Announce(5),
        Log("(VI_1) Receive advertisement timeout"),
        Log("(VI_1) Entering MASTER STATE"),
        Transition(BACKUP, MASTER, "no advert received for 3.61 s"),
        Log("(VI_1) setting VIPs."),
    ]
    assert (machine.master_address, machine.master_priority) == (OWN, 100)


def test_the_master_without_adverts_is_named():
    machine = backup()
    machine.receive(heard(200), 1.0)
    effects = machine.expire(5.0)
    assert Transition(BACKUP, MASTER, f"no more adverts from master {HIGH}") in effects


def test_priority_0_leaves_only_the_skew():
    machine = backup()
    machine.receive(heard(200), 10.0)
    assert machine.receive(heard(0), 10.5) == [Log("(VI_1) Backup received priority 0 advertisement")]
    assert machine.deadline() == 10.5 + 156 / 256


@pytest.mark.parametrize("priority", [100, 101, 255])
def test_a_backup_waits_again_after_each_advert_of_its_own_priority_or_above(priority):
    machine = backup()
    machine.receive(heard(priority, LOW), 2.0)
    assert machine.deadline() == pytest.approx(2.0 + 3.609375)
    assert (machine.master_address, machine.master_priority) == (LOW, priority)


def test_a_tie_is_warned_of_once_a_peer():
    machine = backup()
    warning = f"(VI_1) WARNING - equal priority 100 advert received from {LOW}: the higher address wins"
    assert machine.receive(heard(100, LOW), 1.0) == [Log(warning, warning=True)]
    assert machine.receive(heard(100, LOW), 2.0) == []
    assert len(machine.receive(heard(100, HIGH), 3.0)) == 1


# -- preemption -------------------------------------------------------------------------------------------------------


def test_a_backup_preempts_a_lower_master_by_ignoring_its_adverts():
    machine = backup()
    assert machine.receive(heard(50), 1.0) == [
        Log(f"(VI_1) received lower priority (50) advert from {HIGH} - discarding"),
    ]
    assert machine.receive(heard(50), 2.0) == []
    assert machine.deadline() == pytest.approx(3.609375)


def test_with_nopreempt_a_lower_master_stays():
    machine = backup(preempt=False)
    for second in range(1, 60):
        assert machine.receive(heard(50), float(second)) == []
    assert machine.deadline() == pytest.approx(59 + 3.609375)
    assert (machine.master_address, machine.master_priority) == (HIGH, 50)


def test_with_nopreempt_missing_adverts_still_make_it_master():
    machine = backup(preempt=False)
    machine.receive(heard(50), 1.0)
    machine.expire(4.7)
    assert machine.state is MASTER


def test_preempt_delay_tolerates_a_lower_master_for_that_long():
    machine = backup(preempt_delay_s=30.0)
    assert machine.receive(heard(50), 1.0) == [Log("(VI_1) start preempt delay (30 secs)")]
    for second in range(2, 31):
        assert machine.receive(heard(50), float(second)) == []
        assert machine.expire(second) == []
    assert machine.deadline() == pytest.approx(30 + 3.609375)
    assert logs(machine.receive(heard(50), 31.0)) == [f"(VI_1) received lower priority (50) advert from {HIGH} - discarding"]
    machine.expire(33.61)
    assert machine.state is MASTER


def test_a_higher_master_ends_the_preempt_delay():
    machine = backup(preempt_delay_s=30.0)
    machine.receive(heard(50), 1.0)
    machine.receive(heard(200), 20.0)
    assert logs(machine.receive(heard(50), 25.0)) == ["(VI_1) start preempt delay (30 secs)"]
    assert machine.receive(heard(50), 54.0) == []


def test_a_fault_ends_the_preempt_delay():
    machine = backup(preempt_delay_s=30.0)
    machine.receive(heard(50), 1.0)
    machine.receive(failing("eth0"), 2.0)
    machine.receive(failing(), 100.0)
    assert logs(machine.receive(heard(50), 101.0)) == ["(VI_1) start preempt delay (30 secs)"]
    assert machine.deadline() == pytest.approx(101 + 3.609375)


WAITS = f"(VI_1) waits for the connections of {HIGH}, at most 30 secs"


def test_a_lower_master_is_not_preempted_before_its_connections_are_synced():
    machine = backup(preempt_when_synced_s=30.0)
    assert logs(machine.receive(heard(50), 1.0)) == [WAITS]
    for second in range(2, 20):
        assert machine.receive(heard(50), float(second)) == []
        assert machine.expire(second) == []
    assert machine.receive(SetSynced(True), 19.5) == []
    assert logs(machine.receive(heard(50), 20.0)) == [f"(VI_1) received lower priority (50) advert from {HIGH} - discarding"]
    machine.expire(19.0 + 3.61)
    assert machine.state is MASTER


def test_a_router_that_is_in_sync_does_not_wait():
    machine = backup(preempt_when_synced_s=30.0)
    machine.receive(SetSynced(True), 0.5)
    machine.receive(heard(50), 1.0)
    machine.expire(3.61)
    assert machine.state is MASTER


def test_waiting_for_connections_has_an_end_and_begins_anew_with_another_master():
    machine = backup(preempt_when_synced_s=30.0)
    machine.receive(heard(50), 1.0)
    machine.receive(heard(200), 20.0)
    assert logs(machine.receive(heard(50), 21.0)) == [WAITS]
    assert machine.receive(heard(50), 50.9) == []
    machine.receive(heard(50), 51.0)
    machine.expire(50.9 + 3.61)
    assert machine.state is MASTER


def test_missing_adverts_make_it_master_whether_in_sync_or_not():
    machine = backup(preempt_when_synced_s=30.0)
    machine.receive(heard(50), 1.0)
    machine.expire(1.0 + 3.61)
    assert machine.state is MASTER


def test_a_preempting_router_does_not_report_missing_adverts():
    machine = backup()
    machine.receive(heard(50), 1.0)
    machine.expire(3.61)
    assert machine.state is MASTER
    assert "no advert received" not in machine.reason


@pytest.mark.parametrize(("priority", "followed"), [(1, False), (99, False), (100, True), (101, True), (255, True)])
def test_only_adverts_below_the_own_priority_are_discarded(priority, followed):
    machine = backup()
    machine.receive(heard(priority, LOW), 1.0)
    assert (machine.master_priority == priority) is followed


# -- being master -----------------------------------------------------------------------------------------------------


def test_a_master_advertises_every_interval():
    machine = master(garp=GarpPolicy(delay_s=0.0))
    for second in (1.0, 2.0, 3.0):
        assert machine.deadline() == second
        assert machine.expire(second) == [SendAdvert(100)]


def test_the_next_advert_carries_the_new_priority():
    machine = master()
    machine.receive(SetPriority(80), 0.5)
    assert machine.expire(1.0) == [SendAdvert(80)]


def test_a_stalled_master_advertises_once_and_not_in_a_burst():
    machine = master(garp=GarpPolicy(delay_s=0.0))
    assert machine.expire(9.5) == [SendAdvert(100)]
    assert machine.deadline() == 10.5


def test_a_master_answers_priority_0_with_an_advert():
    machine = master()
    assert machine.receive(heard(0), 0.7) == [SendAdvert(100)]
    assert machine.deadline() == 1.7


def test_a_second_burst_follows_the_first_after_the_delay():
    machine = master(advert_interval_s=60.0, garp=GarpPolicy(delay_s=5.0, repeat=3))
    assert machine.expire(5.0) == [Announce(3)]
    assert machine.deadline() == 60.0


def test_refresh_announces_again_and_again():
    machine = master(advert_interval_s=60.0, garp=GarpPolicy(delay_s=0.0, refresh_s=10.0, refresh_repeat=2))
    for second in (10.0, 20.0, 30.0):
        assert machine.deadline() == second
        assert machine.expire(second) == [Announce(2)]


def test_timers_that_are_due_together_act_in_the_order_in_which_they_were_due():
    machine = master(advert_interval_s=4.0, garp=GarpPolicy(delay_s=5.0, repeat=5, refresh_s=3.0, refresh_repeat=1))
    assert machine.expire(5.0) == [Announce(1), SendAdvert(100), Announce(5)]


def test_a_master_outranks_a_lower_advert():
    machine = master(garp=GarpPolicy(delay_s=0.0, lower_prio_repeat=4))
    line = f"(VI_1) Received advert from {HIGH} with lower priority 50, ours 100, forcing new election"
    assert machine.receive(heard(50), 0.5) == [Log(line), LowerPriority(HIGH), SendAdvert(100), Announce(4)]
    assert machine.deadline() == 1.5, "the advert counts as the one of this interval"


def test_a_flood_of_lower_adverts_is_answered_once_in_an_interval_and_counted_in_the_log():
    machine = master(garp=GarpPolicy(delay_s=0.0))
    given = [at / 1000 for at in range(500, 20_500)]
    effects = [(at, effect) for at in given for effect in machine.receive(heard(50), at)]
    sent = [at for at, effect in effects if isinstance(effect, SendAdvert)]
    assert len(sent) == 20
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(sent))
    assert len([effect for _, effect in effects if isinstance(effect, (LowerPriority, Announce))]) == 40
    lines = [effect.message for _, effect in effects if isinstance(effect, Log)]
    assert len(lines) == 2
    assert lines[1] == f"{lines[0]} (9999 more since the last line)"
    assert machine.counters.unanswered == 20_000 - 20


def test_a_flood_of_adverts_of_priority_0_is_answered_once_in_an_interval():
    machine = master()
    effects = [effect for at in range(500, 3500) for effect in machine.receive(heard(0), at / 1000)]
    assert effects == [SendAdvert(100)] * 3


def test_a_flood_of_priority_0_writes_a_line_now_and_then_on_a_backup():
    machine = backup()
    lines = [line for at in range(2000) for line in logs(machine.receive(heard(0), at / 1000))]
    assert lines == ["(VI_1) Backup received priority 0 advertisement"]


def test_no_more_than_a_few_senders_are_warned_of():
    machine = backup()
    lines = [line for n in range(2000) for line in logs(machine.receive(heard(50, f"10.0.{n // 250}.{n % 250 + 1}"), n / 1000))]
    assert len(lines) == MAX_SOURCES


def test_a_second_burst_follows_a_lower_advert_after_its_own_delay():
    machine = master(advert_interval_s=60.0, garp=GarpPolicy(delay_s=0.0, lower_prio_delay_s=2.0))
    machine.receive(heard(50), 30.0)
    assert machine.deadline() == 32.0
    assert machine.expire(32.0) == [Announce(5)]
    assert machine.deadline() == 90.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lower_prio_no_advert": True}, [Announce(5)]),
        ({"garp": GarpPolicy(lower_prio_repeat=0)}, [SendAdvert(100)]),
        ({"lower_prio_no_advert": True, "garp": GarpPolicy(lower_prio_repeat=0)}, []),
    ],
)
def test_what_a_master_does_about_a_lower_advert_can_be_switched_off(changes, expected):
    assert acts(master(**changes).receive(heard(50), 0.5)) == [LowerPriority(HIGH), *expected]


def test_without_lower_prio_advert_the_own_adverts_keep_their_time():
    machine = master(lower_prio_no_advert=True, garp=GarpPolicy(delay_s=0.0, lower_prio_delay_s=0.0))
    machine.receive(heard(50), 0.5)
    assert machine.deadline() == 1.0


def test_the_second_burst_after_a_lower_advert_has_the_size_of_the_first():
    machine = master(advert_interval_s=60.0, garp=GarpPolicy(delay_s=0.0, lower_prio_repeat=2, lower_prio_delay_s=3.0))
    assert Announce(2) in machine.receive(heard(50), 30.0)
    assert machine.expire(33.0) == [Announce(2)]


# -- giving way -------------------------------------------------------------------------------------------------------


def test_a_master_gives_way_to_a_higher_priority():
    machine = master()
    assert machine.receive(heard(200), 0.5) == [
        Log(f"(VI_1) Master received advert from {HIGH} with higher priority 200, ours 100"),
        Log("(VI_1) Entering BACKUP STATE"),
        Transition(MASTER, BACKUP, f"{HIGH} has priority 200"),
    ]
    machine.receive(CLAIM, 0.501)  # the other one announces: there is no last word
    assert machine.deadline() == pytest.approx(0.5 + 3.609375)
    assert (machine.master_address, machine.master_priority) == (HIGH, 200)


def test_on_equal_priority_the_higher_address_wins():
    machine = master()
    effects = machine.receive(heard(100, HIGH), 0.5)
    assert effects[0] == Log(f"(VI_1) Master received advert from {HIGH} with same priority 100 but higher IP address than ours")
    assert machine.state is BACKUP


def test_on_equal_priority_the_lower_address_is_outranked():
    machine = master()
    assert acts(machine.receive(heard(100, LOW), 0.5)) == [LowerPriority(LOW), SendAdvert(100), Announce(5)]
    assert machine.state is MASTER


@pytest.mark.parametrize(("own", "other", "state"), [("10.0.0.9", "10.0.0.10", BACKUP), ("9.9.9.9", "10.0.0.1", BACKUP)])
def test_addresses_compare_as_numbers_not_as_text(own, other, state):
    machine = master()
    machine.own_address = own
    machine.receive(heard(100, other), 0.5)
    assert machine.state is state


def test_of_two_owners_the_lower_address_gives_way():
    machine = master(priority=255)
    machine.receive(heard(255, HIGH), 0.5)
    assert machine.state is BACKUP


@pytest.mark.parametrize(("priority", "state"), [(1, MASTER), (99, MASTER), (101, BACKUP), (255, BACKUP)])
@pytest.mark.parametrize("source", [LOW, HIGH])
def test_unequal_priorities_decide_whatever_the_addresses(priority, state, source):
    machine = master()
    machine.receive(heard(priority, source), 0.5)
    assert machine.state is state


def test_a_handing_over_master_may_send_one_more_advert():
    effects = acts(master(higher_prio_send_advert=True).receive(heard(200), 0.5))
    assert effects[:1] == [SendAdvert(100)]


def test_a_master_that_was_there_all_along_is_told_that_there_were_two():
    machine = master()
    assert SendAdvert(100) not in machine.receive(heard(200), 0.5)
    assert machine.receive(heard(200), 1.2) == []
    assert machine.expire(1.5) == [SendAdvert(100)]
    assert machine.state is BACKUP
    assert machine.receive(heard(200), 1.6) == []


def test_a_master_that_has_just_taken_over_needs_no_last_word():
    machine = master()
    machine.receive(heard(200), 0.5)
    assert machine.receive(CLAIM, 0.501) == []
    assert machine.receive(heard(200), 1.5) == []
    assert machine.expire(1.6) == []


def test_a_master_that_failed_tells_the_one_that_was_there_all_along_when_it_hears_it():
    machine = master()
    machine.receive(failing("eth0"), 1.0)
    machine.receive(failing(), 2.0)
    assert machine.receive(heard(200), 2.5) == []
    assert machine.receive(heard(200), 3.4) == []
    assert machine.expire(3.5) == [SendAdvert(100)]
    assert machine.receive(heard(200), 4.4) == []
    assert machine.expire(6.0) == []


def test_no_last_word_makes_a_master_give_way():
    machine = master()
    machine.receive(heard(200), 0.5)
    machine.receive(SetPriority(220), 0.6)
    assert machine.expire(2.0) == []


@pytest.mark.parametrize("at", [1.5, 2.2])
def test_a_master_that_failed_says_nothing_to_one_that_has_announced_itself(at):
    machine = master()
    machine.receive(failing("eth0"), 1.0)
    for now, given in sorted([(2.0, failing()), (2.5, heard(200)), (at, CLAIM)], key=lambda each: each[0]):
        machine.receive(given, now)
    assert machine.expire(4.0) == []


def test_an_address_that_is_used_is_not_announced():
    machine = master()
    machine.receive(heard(200), 0.5)
    machine.receive(Claimed("10.0.0.240", bytes(6), announced=False), 0.501)
    assert machine.expire(1.5) == [SendAdvert(100)]


def test_a_router_that_keeps_to_the_rfc_says_no_last_word():
    machine = master(lower_prio_no_advert=True)
    machine.receive(heard(200), 0.5)
    assert machine.expire(2.0) == []


def claims(machine, since, until):
    """Claim the address ten times a second; return the master's lines and announcements, with their times."""
    said, announced = [], []
    for tenth in range(round(since * 10), round(until * 10)):
        now = tenth / 10
        for effect in [*machine.receive(CLAIM, now), *machine.expire(now)]:
            if isinstance(effect, Log):
                assert effect.warning
                said.append((now, effect.message))
            elif isinstance(effect, Announce):
                announced.append(now)
    return said, announced


def test_a_master_whose_address_another_uses_says_so_and_announces_it_again_more_and_more_rarely():
    machine = master()
    machine.expire(5.0)  # the second announcement of the takeover
    said, announced = claims(machine, 6.0, 37.0)
    line = "(VI_1) 02:00:5e:00:01:33 uses 10.0.0.240 too"
    assert said == [(6.0, line), *((at, f"{line} (99 more since the last line)") for at in (16.0, 26.0, 36.0))]
    assert announced == [7.0, 8.1, 10.1, 14.1, 22.1]
    machine.expire(38.5)
    assert claims(machine, 100.0, 102.0)[1] == [101.0], "a new conflict"


def test_whoever_takes_over_behind_his_announcement_is_not_contested():
    machine = master()
    machine.receive(CLAIM, 0.5)
    machine.receive(heard(200), 0.501)
    assert not [effect for effect in machine.expire(3.0) if isinstance(effect, Announce)]


def test_a_router_that_gave_way_takes_over_again_when_the_other_leaves():
    machine = master()
    machine.receive(heard(200), 0.5)
    machine.receive(heard(0), 0.6)
    machine.expire(0.6 + 156 / 256)
    assert machine.state is MASTER
    assert machine.counters.became_master == 2


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_backup_with_a_fault_sends_nothing():
    machine = backup()
    assert machine.receive(failing("interface eth0 is down"), 1.0) == [
        Log("(VI_1) Entering FAULT STATE"),
        Transition(BACKUP, FAULT, "interface eth0 is down"),
    ]
    assert machine.deadline() is None


def test_a_fault_of_a_master_announces_its_end_and_takes_the_addresses_away():
    machine = master()
    assert acts(machine.receive(failing("script failed"), 1.0)) == [
        SendAdvert(0),
        Transition(MASTER, FAULT, "script failed"),
    ]
    assert machine.deadline() is None


def test_leaving_a_fault_leads_to_backup_and_a_full_wait():
    machine = fault()
    assert machine.receive(failing(), 10.0) == [
        Log("(VI_1) Entering BACKUP STATE"),
        Transition(FAULT, BACKUP, "recovered"),
    ]
    assert machine.deadline() == pytest.approx(10 + 3.609375)


def test_several_causes_make_one_fault_that_ends_with_the_last():
    machine = backup()
    assert acts(machine.receive(failing("a"), 1.0)) == [Transition(BACKUP, FAULT, "a")]
    assert machine.receive(failing("a", "b"), 2.0) == []
    assert machine.receive(failing("a", "b"), 2.0) == []
    assert machine.reason == "a; b"
    assert machine.receive(failing("b"), 3.0) == []
    assert (machine.state, machine.reason, machine.since) == (FAULT, "b", 1.0)
    assert acts(machine.receive(failing(), 4.0)) == [Transition(FAULT, BACKUP, "recovered")]


def test_causes_from_before_the_start_are_all_named():
    machine = router()
    machine.receive(failing("a", "b"), 0.0)
    assert Transition(INIT, FAULT, "a; b") in machine.receive(Start(), 0.0)


def test_a_recovery_without_a_fault_is_ignored():
    assert backup().receive(failing(), 1.0) == []


def test_a_former_master_in_fault_does_not_name_itself_as_master():
    machine = master()
    machine.receive(failing("eth0"), 1.0)
    assert machine.master_address == ""
    machine.receive(failing(), 2.0)
    machine.expire(6.0)
    assert machine.reason == "no advert received for 3.61 s"


def test_after_a_fault_the_wait_is_reckoned_with_the_own_interval():
    machine = backup(version=3)
    machine.receive(heard(200, version=3, interval=40.0), 1.0)
    machine.receive(failing("eth0"), 2.0)
    machine.receive(failing(), 3.0)
    assert machine.deadline() == pytest.approx(3 + 3.609375)


# -- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [backup, fault])
def test_a_router_without_addresses_stops_at_once(make):
    machine = make()
    before = machine.state
    assert machine.receive(Stop(), 1.0) == [Transition(before, INIT, "stopped")]
    assert machine.deadline() is None


def test_a_master_leaves_with_priority_0_and_keeps_answering():
    machine = master()
    assert machine.receive(Stop(), 0.5) == [SendAdvert(0), Log("(VI_1) sent 0 priority")]
    assert machine.state is LEAVING


@pytest.mark.parametrize(("interval", "wait"), [(1.0, 1.0), (0.1, 0.1), (30.0, 1.0)])
def test_it_waits_for_the_successor_one_interval_and_at_most_a_second(interval, wait):
    machine = leaving(advert_interval_s=interval)
    assert machine.deadline() == wait
    assert acts(machine.expire(wait)) == [Transition(MASTER, INIT, "stopped")]


@pytest.mark.parametrize("given", [heard(50), heard(100, LOW), heard(100, HIGH), heard(200), Stop(), failing("eth0")])
def test_a_successor_a_second_stop_or_a_fault_ends_the_wait(given):
    machine = leaving()
    assert machine.receive(given, 0.2) == [Transition(MASTER, INIT, "stopped")]
    assert (machine.state, machine.deadline()) == (INIT, None)


def test_a_stopped_router_may_start_again():
    machine = leaving()
    machine.expire(1.0)
    machine.receive(Start(), 2.0)
    assert machine.state is BACKUP


# -- planned hand-over ------------------------------------------------------------------------------------------------


def test_a_hand_over_keeps_the_addresses_until_the_successor_s_advert_and_ends_as_backup():
    machine = master()
    assert acts(machine.receive(HandOver(), 0.5)) == [SendAdvert(0)]
    assert machine.state is HANDING_OVER
    assert acts(machine.receive(heard(50), 0.6)) == [Transition(MASTER, BACKUP, "handed over to 192.168.6.9")]
    assert (machine.master_address, machine.master_priority) == ("192.168.6.9", 50)


def test_it_does_not_preempt_after_a_hand_over():
    machine = handing_over()
    machine.receive(heard(50), 0.2)
    for second in range(1, 20):
        assert machine.receive(heard(50), float(second)) == []
        assert machine.deadline() > second + 3
    assert machine.state is BACKUP


def test_it_takes_over_when_the_successor_falls_silent_and_then_preempts_as_ever():
    machine = handing_over()
    machine.receive(heard(50), 0.2)
    assert Transition(BACKUP, MASTER, "no more adverts from master 192.168.6.9") in machine.expire(machine.deadline())
    machine.receive(heard(200), 9.0)
    before = machine.deadline()
    machine.receive(heard(50), 9.5)
    assert machine.deadline() == before


def test_restore_allows_preemption_again():
    machine = handing_over()
    machine.receive(heard(50), 0.2)
    before = machine.deadline()
    machine.receive(Restore(), 0.3)
    machine.receive(heard(50), 1.2)
    assert machine.deadline() == before


@pytest.mark.parametrize("end", ["timer", "order"])
def test_without_a_successor_it_stays_master_with_a_warning(end):
    machine = handing_over()
    effects = machine.expire(1.0) if end == "timer" else machine.receive(Restore(), 0.5)
    assert acts(effects) == [SendAdvert(100)]
    assert "no other router takes over" in str(logs(effects))
    assert machine.state is MASTER
    assert machine.deadline() is not None


def test_a_fault_while_it_hands_over_takes_the_addresses_away():
    machine = handing_over()
    assert acts(machine.receive(failing("eth0"), 0.2)) == [Transition(MASTER, FAULT, "eth0")]


# -- version 3 --------------------------------------------------------------------------------------------------------


def test_a_version_3_backup_adopts_the_interval_of_its_master():
    machine = backup(version=3)
    machine.receive(heard(200, version=3, interval=0.1), 1.0)
    assert machine.master_interval_s == 0.1
    assert machine.deadline() == pytest.approx(1.0 + 0.3609375)
    machine.receive(heard(200, version=3, interval=2.0), 1.1)
    assert machine.deadline() == pytest.approx(1.1 + 2 * 3.609375)


def test_an_interval_of_0_does_not_stop_the_clock():
    machine = backup(version=3)
    machine.receive(heard(200, version=3, interval=0.0), 1.0)
    assert machine.deadline() > 1.0


def test_a_version_2_backup_keeps_its_own_interval():
    machine = backup()
    machine.receive(heard(200, interval=7.0), 1.0)
    assert machine.master_interval_s == 1.0


def test_a_new_master_advertises_with_its_own_interval():
    machine = backup(version=3)
    machine.receive(heard(200, version=3, interval=0.1), 1.0)
    machine.expire(2.0)
    assert (machine.state, machine.deadline(), machine.master_interval_s) == (MASTER, 3.0, 1.0)


def test_a_lower_advert_that_is_not_followed_is_not_adopted():
    machine = backup(version=3)
    machine.receive(heard(50, version=3, interval=0.1), 1.0)
    assert (machine.master_interval_s, machine.master_address) == (1.0, "")


# -- the sync group ---------------------------------------------------------------------------------------------------


def test_a_member_asks_its_group_and_waits_again():
    machine = backup(grouped=True)
    assert machine.expire(3.61) == [AskGroup()]
    assert (machine.state, machine.deadline()) == (BACKUP, pytest.approx(3.61 + 3.609375))


def test_a_member_takes_over_when_the_group_orders_it():
    machine = backup(grouped=True)
    effects = acts(machine.receive(Order(MASTER), 1.0))
    assert effects == [SendAdvert(100), Announce(5), Transition(BACKUP, MASTER, "with its sync group")]


def test_a_member_gives_way_when_the_group_orders_it():
    machine = master(grouped=True)
    effects = acts(machine.receive(Order(BACKUP), 1.0))
    assert effects == [Transition(MASTER, BACKUP, "with its sync group")]
    assert machine.deadline() == pytest.approx(1.0 + 3.609375)


def test_a_backup_that_is_ordered_to_be_one_waits_again():
    machine = backup(grouped=True)
    assert machine.receive(Order(BACKUP), 2.0) == []
    assert machine.deadline() == pytest.approx(2.0 + 3.609375)


@pytest.mark.parametrize("priority", [0, 50])
def test_a_member_that_yields_with_its_group_does_not_take_an_outranked_router_for_the_master(priority):
    machine = master(grouped=True, version=3)
    machine.receive(heard(priority, LOW, version=3, interval=40.0), 0.5)
    machine.receive(Order(BACKUP), 1.0)
    assert (machine.master_address, machine.master_interval_s) == ("", 1.0)


# -- counters ---------------------------------------------------------------------------------------------------------


def test_sent_and_received_adverts_are_counted():
    machine = backup()
    machine.receive(heard(200), 1.0)
    machine.receive(heard(0), 2.0)
    machine.expire(3.0)
    machine.expire(4.0)
    machine.receive(heard(200), 4.5)
    machine.receive(Stop(), 5.0)
    counted = machine.counters
    assert (counted.adverts_received, counted.priority_zero_received) == (3, 1)
    assert (counted.adverts_sent, counted.priority_zero_sent) == (2, 0)
    assert (counted.became_master, counted.released_master) == (1, 1)


def test_a_graceful_stop_counts_as_released_and_as_priority_0():
    counted = leaving().counters
    assert (counted.adverts_sent, counted.priority_zero_sent, counted.released_master) == (2, 1, 1)


def test_a_fault_of_a_master_counts_as_released():
    machine = master()
    machine.receive(failing("eth0"), 1.0)
    assert (machine.counters.became_master, machine.counters.released_master) == (1, 1)


@pytest.mark.parametrize(
    ("addresses", "mismatches"), [((VIP,), 0), ((VIP, VIP), 0), ((), 1), ((VIP, "10.0.0.1"), 1), (("10.0.0.1",), 1)]
)
def test_an_address_list_that_differs_is_counted_and_the_advert_followed(addresses, mismatches):
    machine = backup()
    machine.receive(heard(200, addresses=addresses), 1.0)
    assert machine.counters.address_list_mismatches == mismatches
    assert machine.deadline() == pytest.approx(1.0 + 3.609375)


def test_excluded_addresses_are_not_expected_in_adverts():
    machine = backup(excluded_addresses=(VirtualAddress(address="10.9.9.9"),))
    machine.receive(heard(200), 1.0)
    assert machine.counters.address_list_mismatches == 0


def test_with_skip_check_adv_addr_only_the_first_advert_of_a_master_is_compared():
    machine = backup(skip_check_adv_addr=True)
    for second in (1.0, 2.0, 3.0):
        machine.receive(heard(200, LOW, addresses=()), second)
    assert machine.counters.address_list_mismatches == 1
    machine.receive(heard(200, HIGH, addresses=()), 4.0)
    assert machine.counters.address_list_mismatches == 2


# -- the data plane ---------------------------------------------------------------------------------------------------


def without_plane(**changes):
    machine = router(**changes)
    machine.receive(SetPlaneReady(False), 0.0)
    machine.receive(Start(), 0.0)
    return machine


@pytest.mark.parametrize("changes", [{}, {"priority": 255}, {"starts_as_master": True}])
def test_while_its_plane_is_not_ready_a_router_leaves_a_lower_master_alone_however_long_that_lasts(changes):
    machine = without_plane(**changes)
    lines = [line for second in range(1, 100) for line in logs(machine.receive(heard(50), float(second)))]
    assert lines == [f"(VI_1) waits for its data plane before it takes over from {HIGH}"]
    assert (machine.state, machine.waiting) == (BACKUP, "data_plane")
    machine.receive(SetPlaneReady(True), 99.5)
    machine.receive(heard(50), 100.0)
    machine.expire(103.0)
    assert (machine.state, machine.waiting) == (MASTER, None)


@pytest.mark.parametrize(("changes", "wait_s"), [({}, 3.609375), ({"starts_as_master": True}, 1 + 1 / 256)])
def test_a_router_declared_master_waits_no_longer_for_its_plane_than_it_does_at_a_start(changes, wait_s):
    machine = without_plane(**changes)
    machine.receive(heard(50), 1.0)
    machine.receive(SetPlaneReady(True), 1.0)
    assert machine.deadline() == pytest.approx(1.0 + wait_s)
    machine.receive(heard(200), 1.1)
    machine.receive(SetPlaneReady(True), 1.1)
    assert machine.deadline() == pytest.approx(1.1 + 3.609375), "a better master is followed as ever"


@pytest.mark.parametrize("changes", [{}, {"priority": 255}, {"starts_as_master": True}])
def test_without_any_other_master_it_takes_over_whether_its_plane_is_ready_or_not(changes):
    machine = without_plane(**changes)
    machine.expire(2.9)
    assert machine.state is BACKUP
    machine.expire(3.7)
    assert machine.state is MASTER


# -- reloads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(REACH))
def test_a_changed_declaration_changes_no_state(state):
    machine = REACH[state]()
    changed = instance(advert_interval_s=2.0, garp=GarpPolicy(refresh_s=3.0), addresses=())
    effects = machine.receive(Reconfigure(changed, grouped=True), 0.25)
    assert (machine.state, machine.instance, machine.grouped) == (state, changed, True)
    assert effects == ([SendAdvert(100)] if state is MASTER else [])


def test_a_master_uses_new_intervals_at_once():
    machine = master(garp=GarpPolicy(delay_s=0.0, refresh_s=7.0))
    machine.receive(Reconfigure(instance(advert_interval_s=3.0, garp=GarpPolicy(refresh_s=5.0)), grouped=False), 0.5)
    assert machine.expire(3.5) == [SendAdvert(100)]
    assert machine.expire(5.5) == [Announce(1)]


def test_reloads_in_a_row_do_not_keep_a_dead_master_alive():
    machine = backup()
    machine.receive(heard(200), 1.0)
    for tenth in range(11, 46):
        machine.receive(Reconfigure(instance(advert_interval_s=1.0 + tenth % 2), grouped=False), tenth / 10)
    machine.expire(4.61)
    assert machine.state is MASTER


def test_a_new_identity_begins_as_backup_after_priority_0_of_the_old_one():
    machine = master()
    assert acts(machine.receive(Restart("interface changed"), 2.0)) == [
        SendAdvert(0),
        Transition(MASTER, BACKUP, "interface changed"),
    ]
    assert machine.deadline() == pytest.approx(2 + 3.609375)


@pytest.mark.parametrize("make", [router, backup, fault, leaving])
def test_a_new_identity_of_a_router_that_is_not_master_is_no_change_of_state(make):
    machine = make()
    before = machine.state
    assert machine.receive(Restart("interface changed"), 0.5) == []
    assert machine.state is before


HAS_ADDRESSES = {INIT: False, BACKUP: False, MASTER: True, FAULT: False, LEAVING: True, HANDING_OVER: True}


@pytest.mark.parametrize("state", list(REACH))
def test_addresses_stay_from_mastery_until_the_successor_s_advert(state):
    assert REACH[state]().has_addresses is HAS_ADDRESSES[state]
