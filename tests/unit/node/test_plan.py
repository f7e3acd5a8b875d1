"""What a plan says. That a reload then does it is shown by every history of ``tests/sim``."""

from __future__ import annotations

import msgspec
import pytest

from relevo.model import (
    Configuration,
    Endpoint,
    Protocol,
    RealServer,
    Script,
    TcpCheck,
    Trackers,
    TrackFile,
    TrackProcess,
    VirtualAddress,
    VirtualServer,
    VrrpScript,
)
from relevo.model.checks import CheckTiming
from relevo.model.plan import Do
from relevo.model.table import ServerEntry
from relevo.node.plan import rehearse_balancer, tracker_steps
from relevo.observe.plan import line_of
from relevo.schedulers.moves import moved_share
from relevo.sim.services import ServiceHost
from tests.unit.node.test_director import file, instance, made, started, wait

TIMING = CheckTiming(delay_loop_s=5.0, retry=1, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)


def texts(steps):
    return [line_of(step) for step in steps]


# -- director ------------------------------------------------------------------------------------------------------------


def test_a_plan_of_the_same_file_is_empty():
    host = started()
    assert host.plan(file(instance())) == []


def test_addresses_that_come_and_go_are_said_with_what_clients_lose():
    host = started()
    other = VirtualAddress(address="10.0.0.10", prefix_length=24)
    assert texts(host.plan(file(instance(addresses=(other,))))) == [
        "add address 10.0.0.10/24 dev eth0",
        "remove address 10.0.0.9/24 dev eth0 (its clients lose it, unless another node takes it over)",
    ]


def test_an_address_that_changes_its_interface_is_not_lost():
    host = started()
    moved = VirtualAddress(address="10.0.0.9", prefix_length=24, device="eth1")
    steps = host.plan(file(instance(addresses=(moved,))))
    assert {step.do for step in steps} == {Do.ADD_ADDRESS, Do.REMOVE_ADDRESS}
    assert not any(step.breaks for step in steps)


def test_a_new_instance_is_shown_up_to_its_first_state():
    host = started()
    second = instance("W", virtual_router_id=52, addresses=(VirtualAddress(address="10.0.0.11", prefix_length=24),))
    assert texts(host.plan(file(instance(), second))) == [
        "open socket W: multicast 224.0.0.18 from 10.0.0.1 on eth0",
        "change state W: BACKUP: started",
    ]


def test_a_change_of_identity_gives_up_mastery():
    host = started()
    steps = host.plan(file(instance(virtual_router_id=60)))
    assert "change state V: BACKUP: virtual_router_id changed (no node is master until another takes over)" in texts(steps)


def test_a_priority_is_said_as_a_sum_of_before_and_after():
    host = started()
    assert texts(host.plan(file(instance(priority=90)))) == ["change priority V: 100 → 90"]


def test_a_rehearsal_changes_nothing():
    host = started()
    host.plan(file())
    host.plan(file(instance(virtual_router_id=60, priority=1)))
    wait(host, 5.0)
    assert host.director.routers["V"].machine.counters.became_master == 1
    assert host.plan(file(instance())) == []


def test_a_host_without_a_director_plans_nothing():
    assert made().plan(file(instance())) == []


# -- balancer ------------------------------------------------------------------------------------------------------------


def server(number, **changes):
    endpoint = Endpoint(f"10.0.0.{number}", 80)
    check = TcpCheck(timing=TIMING, connect=endpoint, connect_timeout_s=1.0)
    return RealServer(**{"endpoint": endpoint, "checks": (check,)} | changes)


def services(*servers, port=80, **changes):
    values = {"endpoint": Endpoint("192.0.2.1", port), "protocol": Protocol.TCP, "real_servers": servers}
    return Configuration(virtual_servers=(VirtualServer(**values | changes),))


def balancing(configuration, dead=()):
    host = ServiceHost(lambda check: check.connect.address not in dead)
    host.configure(configuration)
    host.run(10.0)
    return host


def test_servers_are_said_with_their_weights_and_their_connections():
    host = balancing(services(server(1), server(2), scheduler="rr"))
    key, state = next(iter(host.table.items()))
    busy = tuple(msgspec.structs.replace(each, active=3, inactive=2) for each in state.servers)
    host.table[key] = msgspec.structs.replace(state, servers=busy)
    assert texts(host.plan(services(server(1, weight=4), server(3), scheduler="wrr"))) == [
        "edit service TCP 192.0.2.1:80: scheduler rr → wrr",
        "delete server 10.0.0.2:80 of TCP 192.0.2.1:80 (5 connections)",
        "edit server 10.0.0.1:80 of TCP 192.0.2.1:80: weight 1 → 4",
        "add server 10.0.0.3:80 to TCP 192.0.2.1:80: weight 1",
        "delete check TCP_CHECK of 10.0.0.2:80 in [192.0.2.1]:tcp:80",
        "add check TCP_CHECK of 10.0.0.3:80 in [192.0.2.1]:tcp:80",
    ]
    assert texts(host.plan(Configuration()))[0] == "delete service TCP 192.0.2.1:80 (10 connections)"


def test_a_server_that_is_down_is_not_added():
    host = balancing(services(server(1), server(2)), dead={"10.0.0.2"})
    steps = host.plan(services(server(1), server(2, weight=3)))
    assert not [step for step in steps if step.do in (Do.ADD_SERVER, Do.EDIT_SERVER)]


def test_a_check_is_said_with_what_changes():
    host = balancing(services(server(1)))
    endpoint = Endpoint("10.0.0.1", 80)
    slower = (TcpCheck(timing=TIMING, connect=endpoint, connect_timeout_s=2.5),)
    assert texts(host.plan(services(server(1, checks=slower)))) == [
        "edit check TCP_CHECK of 10.0.0.1:80 in [192.0.2.1]:tcp:80: connect_timeout_s 1 → 2.5"
    ]


def test_a_quorum_that_a_reload_loses_is_said():
    host = balancing(services(server(1), server(2)))
    steps = host.plan(services(server(1), quorum=2))
    assert "change quorum [192.0.2.1]:tcp:80: lost with weight 1" in texts(steps)


def test_services_of_other_programs_are_no_part_of_a_plan():
    host = balancing(services(server(1)))
    foreign = balancing(services(server(9), port=99)).table
    observed = [*host.table.values(), *foreign.values()]
    assert rehearse_balancer(host.balancer, services(server(1)), observed, host.now, shared=True) == []


def test_clients_that_a_hash_moves_are_counted():
    host = balancing(services(server(1), server(2), scheduler="sh"))
    steps = host.plan(services(server(1), scheduler="sh"))
    assert "edit service TCP 192.0.2.1:80: hash table (about 50.0% of its clients get another server)" in texts(steps)


# -- trackers ------------------------------------------------------------------------------------------------------------


def script(name, **changes):
    return VrrpScript(name=name, script=Script(("/bin/true",)), **changes)


def test_trackers_that_come_go_and_change_are_said():
    former = Trackers(scripts=(script("a"), script("b")), files=(TrackFile(name="f", path="/f"),))
    new = Trackers(scripts=(script("b", rise=3), script("c")), processes=(TrackProcess(name="p", process="nginx"),))
    assert texts(tracker_steps(former, new)) == [
        "delete tracker vrrp_script a",
        "add tracker vrrp_script c",
        "edit tracker vrrp_script b: rise 1 → 3",
        "delete tracker track_file f",
        "add tracker vrrp_track_process p",
    ]
    assert tracker_steps(new, new) == []


# -- moves ---------------------------------------------------------------------------------------------------------------


def entries(*numbers, weight=1):
    return [ServerEntry(endpoint=Endpoint(f"10.0.0.{number}", 80), weight=weight) for number in numbers]


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_the_same_servers_move_nobody(scheduler):
    assert moved_share(scheduler, entries(1, 2, 3), entries(1, 2, 3)) == 0.0


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_all_clients_move_where_the_first_server_comes_or_the_last_one_goes(scheduler):
    assert moved_share(scheduler, entries(1), []) == 1.0
    assert moved_share(scheduler, [], entries(1)) == 1.0
    assert moved_share(scheduler, [], []) == 0.0


def test_maglev_moves_little_more_than_the_clients_of_the_server_that_goes():
    assert 0.1 < moved_share("mh", entries(*range(1, 11)), entries(*range(1, 10))) < 0.15


def test_maglev_moves_all_or_none_without_a_weight():
    assert moved_share("mh", entries(1, 2, weight=0), entries(1, 2)) == 1.0


def test_a_server_that_maglev_drains_keeps_its_slots():
    assert moved_share("mh", entries(1, 2), [*entries(1, weight=0), *entries(2)]) == 0.0


@pytest.mark.parametrize("scheduler", ["rr", "wlc", "fo"])
def test_other_schedulers_move_nobody(scheduler):
    host = balancing(services(server(1), server(2), scheduler=scheduler))
    assert not [step for step in host.plan(services(server(1), scheduler=scheduler)) if "another server" in step.breaks]
