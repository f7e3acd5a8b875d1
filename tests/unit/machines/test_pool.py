import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.machines import pool
from relevo.machines.pool import (
    CheckChanged,
    CheckVerdict,
    PoolMachine,
    QuorumChanged,
    ServerChanged,
    SorryChanged,
    State,
    Symbol,
    WeightChanged,
)
from relevo.model import Endpoint, Forwarding, Protocol, RealServer, ServiceKey, VirtualServer
from relevo.model.table import ServerEntry, ServiceEntry
from tests.unit.machines.exerciser import assert_sound, walk

VIP = Endpoint("192.0.2.1", 80)
SORRY = Endpoint("127.0.0.1", 8080)
TCP, OTHER = ("TCP_CHECK", 0), ("TCP_CHECK", 1)
"""Names of two checks of a server."""


def at(number):
    return Endpoint(f"10.0.0.{number}", 80)


def server(number, weight=1, **changes):
    return RealServer(endpoint=at(number), weight=weight, **changes)


def service(*servers, **changes):
    return VirtualServer(endpoint=VIP, protocol=Protocol.TCP, real_servers=servers, **changes)


def four(down=(), **changes):
    """Four servers of weight 1 and one of weight 0; with quorum 2 ± 1: up at 3, down at 0."""
    servers = (*(server(n) for n in range(1, 5)), server(5, 0))
    return PoolMachine(service(*servers, quorum=2, hysteresis=1, **changes), 0.0, [(at(n), TCP, "starts down") for n in down])


def turn(machine, number, up, *, check=TCP, now=1.0, reason="timeout"):
    return machine.receive(CheckVerdict(at(number), check, up, "" if up else reason), now)


def weights(machine):
    return {entry.endpoint: entry.weight for entry in machine.desired()[0].servers}


def feed(machine, symbol):
    """Let one server after the other change until the live weight gives the symbol."""
    live = {Symbol.ENOUGH: 3, Symbol.BETWEEN: 2, Symbol.TOO_LITTLE: 0}[symbol]
    if machine.state is State.DOWN:
        turn(machine, 5, True)
    for number in range(1, 5):
        if machine.servers[at(number)].up is not (number <= live):
            turn(machine, number, number <= live)


REACH = {State.UP: four, State.DOWN: lambda: four(down=(1, 2, 3, 4, 5))}


def test_the_table_is_sound():
    assert_sound(pool, four(), {State.UP}, State)


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, pool, REACH, feed)


def test_nothing_happens_by_time_alone():
    assert four().deadline() is None
    assert four().expire(1e9) == []


# -- quorum -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("down", "quorum", "state"),
    [((), 1, State.UP), ((1, 2), 2, State.UP), ((1, 2), 3, State.DOWN), ((1, 2, 3, 4), 1, State.DOWN), ((), 4, State.UP)],
)
def test_a_start_with_the_quorum_met_is_up_whatever_the_hysteresis(down, quorum, state):
    servers = [server(n) for n in range(1, 5)]
    machine = PoolMachine(service(*servers, quorum=quorum, hysteresis=quorum - 1), 0.0, [(at(n), TCP, "") for n in down])
    assert machine.state is state


def test_a_pool_without_servers_is_down():
    assert PoolMachine(service(sorry_server=SORRY), 0.0).uses_sorry


def test_a_pool_of_weight_0_only_is_down():
    assert PoolMachine(service(server(1, 0), quorum=1), 0.0).state is State.DOWN


def test_a_verdict_on_a_removed_server_is_ignored():
    machine = PoolMachine(service(server(1)), 0.0, [(at(9), TCP, "timeout")])
    assert machine.state is State.UP


def test_hysteresis_keeps_the_quorum_between_the_two_limits():
    machine = four()
    story = [(1, False, []), (2, False, []), (3, False, []), (4, False, [False]), (1, True, []), (2, True, []), (3, True, [True])]
    for number, up, quorum in story:
        assert [e.up for e in turn(machine, number, up) if isinstance(e, QuorumChanged)] == quorum


def test_the_quorum_is_lost_below_quorum_minus_hysteresis():
    machine = PoolMachine(service(server(1, 3), server(2, 2), server(3, 1), quorum=4, hysteresis=1), 0.0)
    assert turn(machine, 2, False)[1:] == []  # 4 live
    assert turn(machine, 3, False)[1:] == []  # 3 live, 3 is the lower limit
    turn(machine, 3, True)
    assert turn(machine, 1, False)[1:] == [QuorumChanged(False, 1)]


def test_losing_the_last_server_reports_changes_in_order():
    machine = PoolMachine(service(server(1)), 0.0)
    effects = turn(machine, 1, False, now=7.0)
    assert effects == [ServerChanged(server(1), False, TCP, "timeout"), QuorumChanged(False, 0)]
    assert machine.since == machine.servers[at(1)].since == 7.0


def test_a_server_that_returns_reports_changes_in_order():
    machine = PoolMachine(service(server(1), sorry_server=SORRY), 0.0, [(at(1), TCP, "")])
    effects = turn(machine, 1, True)
    assert effects == [ServerChanged(server(1), True, TCP, ""), QuorumChanged(True, 1), SorryChanged(SORRY, False)]


# -- checks -----------------------------------------------------------------------------------------------------------


def test_a_server_with_several_checks_is_up_when_all_are():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    assert turn(machine, 1, False, check=TCP) == [ServerChanged(server(1), False, TCP, "timeout")]
    assert turn(machine, 1, False, check=OTHER, reason="tls") == [CheckChanged(server(1), False, OTHER, "tls")]
    assert machine.servers[at(1)].failing == {TCP: "timeout", OTHER: "tls"}
    assert turn(machine, 1, True, check=TCP) == [CheckChanged(server(1), True, TCP, "")]
    assert turn(machine, 1, True, check=OTHER) == [ServerChanged(server(1), True, OTHER, "")]


def test_a_second_failing_check_of_a_server_does_not_move_the_quorum():
    machine = PoolMachine(service(server(1)), 0.0)
    turn(machine, 1, False, check=TCP)
    assert turn(machine, 1, False, check=OTHER) == [CheckChanged(server(1), False, OTHER, "timeout")]


def test_since_is_kept_while_a_server_does_not_move():
    machine = PoolMachine(service(server(1)), 0.0)
    turn(machine, 1, False, check=TCP, now=2.0)
    turn(machine, 1, False, check=OTHER, now=3.0)
    assert machine.servers[at(1)].since == 2.0


# -- what the plane should hold ---------------------------------------------------------------------------------------


def test_the_service_is_passed_to_the_plane_as_declared():
    declared = service(
        server(1), scheduler="sh", scheduler_flags=("sh-port",), persistence_timeout_s=50, persistence_granularity=24
    )
    assert PoolMachine(declared, 0.0).desired()[0].service == ServiceEntry(
        key=ServiceKey(Protocol.TCP, VIP),
        scheduler="sh",
        scheduler_flags=("sh-port",),
        persistence_timeout_s=50,
        persistence_granularity=24,
    )


def test_a_server_is_passed_to_the_plane_as_declared():
    declared = server(1, 3, forwarding=Forwarding.DR, upper_threshold=9, lower_threshold=4, proxy_protocol=2)
    assert PoolMachine(service(declared), 0.0).desired()[0].servers == (
        ServerEntry(endpoint=at(1), weight=3, forwarding=Forwarding.DR, upper_threshold=9, lower_threshold=4, proxy_protocol=2),
    )


def test_servers_stand_in_the_declared_order():
    machine = PoolMachine(service(server(2), server(1), server(3)), 0.0)
    turn(machine, 2, False)
    turn(machine, 2, True)
    assert list(weights(machine)) == [at(2), at(1), at(3)]


def test_a_failing_server_is_taken_out():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    turn(machine, 1, False)
    assert weights(machine) == {at(2): 1}


def test_with_inhibit_on_failure_it_stays_at_weight_0():
    machine = PoolMachine(service(server(1, 5, inhibit_on_failure=True), server(2)), 0.0)
    turn(machine, 1, False)
    assert weights(machine) == {at(1): 0, at(2): 1}
    turn(machine, 1, True)
    assert weights(machine) == {at(1): 5, at(2): 1}


def test_losing_the_quorum_without_a_sorry_server_leaves_the_remaining_servers():
    machine = PoolMachine(service(server(1), server(2), quorum=2), 0.0)
    assert turn(machine, 1, False)[1:] == [QuorumChanged(False, 1)]
    assert not machine.uses_sorry
    assert weights(machine) == {at(2): 1}


def test_losing_the_quorum_with_a_sorry_server_swaps_it_for_all_live_servers():
    machine = PoolMachine(service(server(1), server(2), quorum=2, sorry_server=SORRY, forwarding=Forwarding.DR), 0.0)
    assert turn(machine, 1, False)[1:] == [QuorumChanged(False, 1), SorryChanged(SORRY, True)]
    assert machine.desired()[0].servers == (ServerEntry(endpoint=SORRY, weight=1, forwarding=Forwarding.DR),)
    assert turn(machine, 1, True)[1:] == [QuorumChanged(True, 2), SorryChanged(SORRY, False)]
    assert weights(machine) == {at(1): 1, at(2): 1}


def test_inhibited_servers_keep_their_connections_beside_the_sorry_server():
    machine = PoolMachine(service(server(1, inhibit_on_failure=True), sorry_server=SORRY), 0.0)
    turn(machine, 1, False)
    assert weights(machine) == {at(1): 0, SORRY: 1}


def test_sorry_server_inhibit_keeps_it_at_weight_0():
    machine = PoolMachine(service(server(1), sorry_server=SORRY, sorry_server_inhibit=True), 0.0)
    assert weights(machine) == {at(1): 1, SORRY: 0}
    turn(machine, 1, False)
    assert weights(machine) == {SORRY: 1}


@pytest.mark.parametrize("inhibit", [True, False])
def test_a_sorry_server_that_is_also_a_real_server_is_listed_once(inhibit):
    declared = server(1, inhibit_on_failure=True)
    machine = PoolMachine(service(declared, server(2), sorry_server=at(1), sorry_server_inhibit=inhibit, quorum=2), 0.0)
    for number in (1, 2):
        turn(machine, number, False)
        endpoints = [entry.endpoint for entry in machine.desired()[0].servers]
        assert len(endpoints) == len(set(endpoints))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1), st.booleans()), max_size=30), st.integers(1, 4), st.booleans())
def test_the_plane_holds_what_the_checks_leave_or_the_sorry_server_alone(verdicts, quorum, sorry):
    machine = PoolMachine(service(*(server(n) for n in range(1, 5)), quorum=quorum, sorry_server=SORRY if sorry else None), 0.0)
    failing = set()
    for number, check, up in verdicts:
        was = machine.state
        effects = turn(machine, number, up, check=check)
        (failing.discard if up else failing.add)((number, check))
        live = {at(n) for n in range(1, 5)} - {at(n) for n, _ in failing}
        assert machine.live_weight() == len(live)
        assert (machine.state is State.UP) is (len(live) >= quorum)
        assert set(weights(machine)) == ({SORRY} if machine.uses_sorry else live)
        assert any(isinstance(e, QuorumChanged) for e in effects) is (machine.state is not was)
        assert machine.uses_sorry is (sorry and machine.state is State.DOWN)


def test_a_live_server_that_is_also_the_inhibited_sorry_server_keeps_its_weight():
    machine = PoolMachine(service(server(1, weight=3), server(2), sorry_server=at(1), sorry_server_inhibit=True), 0.0)
    held = {entry.endpoint: entry.weight for entry in machine.desired()[0].servers}
    assert held == {at(1): 3, at(2): 1}


def test_a_group_is_passed_to_the_plane_once_for_every_member():
    keys = (ServiceKey(Protocol.TCP, VIP), ServiceKey(Protocol.TCP, Endpoint("192.0.2.2", 8080)), ServiceKey.of_mark(4))
    anywhere = RealServer(endpoint=Endpoint("10.0.0.9"))
    machine = PoolMachine(service(server(1), anywhere, group="G", members=keys, sorry_server=Endpoint("10.0.0.99")), 0.0)
    handed = machine.desired()
    assert [item.service.key for item in handed] == list(keys)
    assert [[entry.endpoint.port for entry in item.servers] for item in handed] == [[80, 80], [80, 8080], [80, 0]]
    machine.receive(CheckVerdict(at(1), TCP, False, "gone"), 1.0)
    machine.receive(CheckVerdict(anywhere.endpoint, TCP, False, "gone"), 1.0)
    assert [[str(entry.endpoint) for entry in item.servers] for item in machine.desired()] == [
        ["10.0.0.99:80"],
        ["10.0.0.99:8080"],
        ["10.0.0.99:0"],
    ]


def test_source_addresses_go_to_servers_behind_fullnat_alone():
    both = (server(1, forwarding=Forwarding.FULLNAT), server(2))
    entries = PoolMachine(service(*both, local_addresses=("10.0.0.7",)), 0.0).desired()[0].servers
    assert [entry.local_addresses for entry in entries] == [("10.0.0.7",), ()]


# -- reloads ----------------------------------------------------------------------------------------------------------


def reconfigure(machine, *servers, down=(), now=5.0, **changes):
    return machine.reconfigure(service(*servers, **changes), {at(n): {TCP: "timeout"} for n in down}, now)


def test_an_equal_declaration_changes_nothing():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    turn(machine, 2, False)
    assert reconfigure(machine, server(1), server(2), down=(2,)) == []
    assert [health.since for health in machine.servers.values()] == [0.0, 1.0]


def test_removing_the_last_live_server_loses_the_quorum():
    machine = PoolMachine(service(server(1), server(2), sorry_server=SORRY), 0.0)
    turn(machine, 2, False)
    assert reconfigure(machine, server(2), down=(2,), sorry_server=SORRY) == [
        ServerChanged(server(1), False, None, "removed from the configuration"),
        QuorumChanged(False, 0),
        SorryChanged(SORRY, True),
    ]


def test_adding_a_live_server_gains_it():
    machine = PoolMachine(service(server(1)), 0.0)
    turn(machine, 1, False)
    assert reconfigure(machine, server(1), server(2), down=(1,)) == [
        ServerChanged(server(2), True, None, "added to the configuration"),
        QuorumChanged(True, 1),
    ]


def test_hysteresis_outlives_a_reload():
    machine = PoolMachine(service(server(1), server(2), server(3), quorum=2, hysteresis=1), 0.0)
    turn(machine, 2, False)
    turn(machine, 3, False)
    assert reconfigure(machine, server(1), server(2), server(3, 2), down=(2, 3), quorum=2, hysteresis=1) == []
    assert machine.state is State.UP


def test_a_quorum_that_is_raised_beyond_what_lives_is_lost():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    assert reconfigure(machine, server(1), server(2), quorum=3) == [QuorumChanged(False, 2)]


def test_a_changed_weight_of_a_server_in_service_is_reported():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    turn(machine, 2, False)
    assert reconfigure(machine, server(1, 3), server(2, 3), down=(2,)) == [WeightChanged(server(1, 3), 1, 3)]


def test_a_server_whose_failed_check_is_removed_returns():
    machine = PoolMachine(service(server(1), server(2)), 0.0)
    turn(machine, 2, False)
    assert reconfigure(machine, server(1), server(2)) == [ServerChanged(server(2), True, None, "its failed check was removed")]
    assert machine.servers[at(2)].since == 5.0


OTHER_SORRY = Endpoint("127.0.0.1", 9090)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (SORRY, OTHER_SORRY, [SorryChanged(SORRY, False), SorryChanged(OTHER_SORRY, True)]),
        (SORRY, None, [SorryChanged(SORRY, False)]),
        (None, SORRY, [SorryChanged(SORRY, True)]),
        (SORRY, SORRY, []),
    ],
)
def test_a_replaced_sorry_server_in_service_is_reported(before, after, changes):
    machine = PoolMachine(service(server(1), sorry_server=before), 0.0)
    turn(machine, 1, False)
    assert reconfigure(machine, server(1), down=(1,), sorry_server=after) == changes


def test_a_quorum_gained_by_the_reload_that_exchanges_the_sorry_server_removes_the_former_one():
    machine = PoolMachine(service(server(1), sorry_server=SORRY), 0.0)
    turn(machine, 1, False)
    effects = reconfigure(machine, server(1), server(2), down=(1,), sorry_server=OTHER_SORRY)
    assert effects[-2:] == [QuorumChanged(True, 1), SorryChanged(SORRY, False)]
