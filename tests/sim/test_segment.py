"""Several directors on a simulated segment: who is master, and for how long there are two or none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines.vrrp import State
from relevo.model import Authentication, AuthenticationType, Configuration, VirtualAddress, VrrpInstance
from relevo.node.observation import SetAddress
from relevo.sim.host import Host
from relevo.sim.lan import LATENCY_S, Simulation

VIP = VirtualAddress(address="10.0.0.240", prefix_length=24)


class Cluster:
    """Directors of these priorities on one segment, with one virtual router."""

    def __init__(self, priorities, seed=0, loss=0.0, **changes):
        self.simulation = Simulation(seed)
        self.lan = self.simulation.segment("lan")
        self.lan.loss = loss
        self.instances = [
            VrrpInstance(
                **{"name": "VI_1", "interface": "eth0", "virtual_router_id": 51, "priority": p, "addresses": (VIP,)} | changes
            )
            for p in priorities
        ]
        self.hosts = []
        self.history = [(0.0, 0, (frozenset(), 0))]  # (time, masters, (routers that could be one, starts and recoveries so far))
        self._recoveries = 0
        for number in range(len(priorities)):
            host = Host(f"n{number}", self.simulation)
            link = host.kernel.add_link("eth0")
            host.kernel.add(SetAddress(link.index, f"10.0.0.{number + 1}", 24))
            host.kernel.add(SetAddress(link.index, f"fe80::{number + 1}", 64))
            host.kernel.add(SetAddress(link.index, f"2001:db8::{number + 1}", 64))
            host.attach("eth0", "lan")
            self.hosts.append(host)

    def at(self, time, number, what):
        """Let a director ``start``, ``stop``, ``crash``, or its link go ``down`` or ``up`` at a time."""
        self.simulation.at(time, lambda: self._do(number, what))

    def run(self, until):
        while (time := self.simulation.next_event()) <= until:
            self.simulation.run(max(time, self.simulation.now))
            able = frozenset(n for n in range(len(self.hosts)) if self.state(n) in (State.BACKUP, State.MASTER))
            self.history.append((self.simulation.now, len(self.masters()), (able, self._recoveries)))
        self.simulation.run(until)
        return self

    def machine(self, number):
        director = self.hosts[number].director
        return None if director is None else director.routers["VI_1"].machine

    def state(self, number):
        machine = self.machine(number)
        return None if machine is None else machine.state

    def masters(self):
        return [number for number in range(len(self.hosts)) if self.state(number) is State.MASTER]

    def answering(self):
        """Directors that have the virtual address on their interface, and are there."""
        return [h for h in self.hosts if h.director and any(a.set.address == VIP.address for a in h.kernel.addresses)]

    def stretches(self, of):
        """Lengths of the stretches of history during which ``of(masters)`` held and who was able did not change.

        A router that starts or recovers waits anew, even if it ended or failed in the same instant.
        """
        found, since, former = [], None, None
        for time, masters, able in [*self.history, (self.simulation.now, None, None)]:
            if since is not None and (masters is None or not of(masters) or able != former):
                found.append(time - since)
                since = None
            if masters is not None and able[0] and of(masters) and since is None:
                since, former = time, able
        return found

    def _do(self, number, what):
        host = self.hosts[number]
        match what:
            case "start":
                if host.director is None:
                    self._recoveries += 1
                    host.start(Configuration(vrrp_instances=(self.instances[number],)))
            case "crash":
                host.crash()
                host.kernel.remove(SetAddress(1, VIP.address, 24))  # its machine is gone with its addresses
            case "stop":
                host.stop()
            case "down" | "up":
                self._recoveries += what == "up"
                host.kernel.set_up("eth0", what == "up")
                host.observe()


def bounds(cluster):
    """Longest time with two masters, and longest time without one, on a segment that loses nothing."""
    interval = cluster.instances[0].advert_interval_s
    skew = (256 - min(i.priority for i in cluster.instances)) / 256 * max(1.0, interval)
    return interval + skew + 3 * LATENCY_S, 3 * interval + 1 + skew + 3 * LATENCY_S


def started(priorities, **changes):
    cluster = Cluster(priorities, **changes)
    for number in range(len(priorities)):
        cluster.at(0.0, number, "start")
    return cluster


def assert_within_bounds(cluster):
    two, none = bounds(cluster)
    assert max(cluster.stretches(lambda masters: masters > 1), default=0.0) <= two
    assert max(cluster.stretches(lambda masters: masters == 0), default=0.0) <= none


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("priorities", "winner"), [((100, 150), 1), ((150, 100, 50), 0), ((100, 100, 100), 2), ((100, 255), 1)])
def test_the_best_of_a_segment_becomes_its_only_master(priorities, winner, version):
    cluster = started(priorities, version=version).run(10.0)
    assert cluster.masters() == [winner]
    assert cluster.answering() == [cluster.hosts[winner]]
    assert_within_bounds(cluster)


def test_a_crash_is_noticed_after_the_master_down_time():
    cluster = started((150, 100)).run(10.0)
    cluster.at(10.5, 0, "crash")
    assert cluster.run(12.5).masters() == []
    assert cluster.run(14.5).masters() == [1]
    assert_within_bounds(cluster)


def test_a_master_that_stops_is_succeeded_after_the_skew():
    cluster = started((150, 100)).run(10.0)
    cluster.at(10.2, 0, "stop")
    assert cluster.run(10.2 + 156 / 256 + 2 * LATENCY_S).masters() == [1]


def test_a_master_whose_link_goes_down_is_succeeded_after_the_master_down_time():
    cluster = started((150, 100)).run(10.0)
    cluster.at(10.2, 0, "down")
    assert cluster.run(10.3).state(0) is State.FAULT
    assert cluster.run(13.9).masters() == [1]
    assert cluster.answering() == [cluster.hosts[1]]


def test_the_addresses_are_always_on_a_node_while_a_master_leaves():
    cluster = started((150, 100)).run(10.0)
    cluster.at(10.2, 0, "stop")
    for step in range(1, 2000):
        cluster.run(10.2 + step / 1000)
        assert cluster.answering()
    assert [cluster.state(0), cluster.state(1)] == [State.INIT, State.MASTER]


@pytest.mark.parametrize(("preempt", "winner"), [(True, 0), (False, 1)])
def test_a_higher_router_that_returns_preempts_unless_nopreempt_is_set(preempt, winner):
    cluster = started((150, 100), preempt=preempt)
    cluster.at(8.0, 0, "crash")
    cluster.at(20.0, 0, "start")
    assert cluster.run(40.0).masters() == [winner]
    assert_within_bounds(cluster)


def test_two_masters_of_a_healed_segment_settle_within_an_interval_and_the_skew():
    cluster = started((150, 100, 90)).run(10.0)
    cluster.lan.cut = {"n1"}
    assert cluster.run(20.0).masters() == [0, 1]
    cluster.lan.cut = set()
    two, _ = bounds(cluster)
    assert cluster.run(20.0 + two).masters() == [0]


@settings(max_examples=60)
@given(st.floats(5.0, 30.0), st.floats(4.0, 30.0), st.sampled_from((0, 1)), st.sampled_from((2, 3)))
def test_the_neighbours_know_the_only_master_after_there_were_two(at, lasts, which, version):
    """Whose advert comes first decides whether the master that stays learns that there were two."""
    cluster = started((150, 100, 90), version=version).run(at)
    cluster.lan.deaf = {f"n{which}"}
    assert len(cluster.run(at + lasts).masters()) == 2
    cluster.lan.deaf = set()
    two, _ = bounds(cluster)
    assert cluster.run(at + lasts + 2 * two).masters() == [0]
    assert cluster.lan.owners == {VIP.address: "n0"}


@pytest.mark.parametrize(("link", "left"), [("eth0", True), ("lo", False)])
def test_an_address_on_the_loopback_was_not_left_by_a_master(link, left):
    """A director that is a real server has the virtual address there."""
    cluster = Cluster((150, 100))
    kernel = cluster.hosts[1].kernel
    index = kernel.links[link].index if link in kernel.links else kernel.add_link(link).index
    kernel.add(SetAddress(index, VIP.address, 32))
    cluster.at(0.0, 1, "start")
    cluster.run(0.1)
    assert cluster.machine(1).was_announced is left


@settings(max_examples=40)
@given(st.floats(5.0, 20.0), st.floats(4.0, 10.0), st.sampled_from(("crash", "fault")))
def test_the_neighbours_know_the_master_that_was_cut_off_after_its_successor_failed(at, lasts, how):
    cluster = started((150, 100)).run(at)
    cluster.lan.cut = {"n0"}
    assert len(cluster.run(at + lasts).masters()) == 2
    host, own = cluster.hosts[1], SetAddress(1, "10.0.0.2", 24)
    if how == "crash":
        host.crash()  # a new daemon finds the address
    else:
        host.kernel.remove(own)
        host.observe()
    cluster.run(at + lasts + 0.5)
    cluster.lan.cut = set()
    if how == "crash":
        host.start(Configuration(vrrp_instances=(cluster.instances[1],)))
    else:
        host.kernel.add(own)
        host.observe()
    assert cluster.run(at + lasts + 5.0).masters() == [0]
    assert cluster.lan.owners == {VIP.address: "n0"}


EVENTS = st.lists(
    st.tuples(st.floats(0.0, 40.0), st.integers(0, 2), st.sampled_from(("start", "start", "crash", "down", "up", "up"))),
    max_size=12,
)
PRIORITIES = st.lists(st.integers(1, 254), min_size=2, max_size=3)


@settings(max_examples=120)
@given(PRIORITIES, EVENTS, st.sampled_from((2, 3)), st.sampled_from((1.0, 3.0)), st.booleans())
def test_a_segment_that_loses_nothing_has_one_master_within_the_bounds(priorities, events, version, interval, preempt):
    cluster = started(priorities, version=version, advert_interval_s=interval, preempt=preempt)
    for time, number, what in events:
        if number < len(priorities):
            cluster.at(time, number, what)
    cluster.run(80.0)
    assert_within_bounds(cluster)
    able = cluster.history[-1][2][0]
    assert len(cluster.masters()) == (1 if able else 0)
    assert not able or cluster.lan.owners == {VIP.address: f"n{cluster.masters()[0]}"}
    if preempt and able:
        best = max(able, key=lambda n: priorities[n])
        assert priorities[cluster.masters()[0]] == priorities[best]


@settings(max_examples=60)
@given(PRIORITIES, st.integers(0, 2**32), st.floats(0.0, 0.6), st.sampled_from((2, 3)))
def test_a_lossy_segment_has_one_master_again_soon_after_it_loses_nothing(priorities, seed, loss, version):
    cluster = started(priorities, seed=seed, loss=loss, version=version).run(60.0)
    two, none = bounds(cluster)
    assert max(cluster.stretches(lambda masters: masters == 0), default=0.0) <= none
    cluster.lan.loss = 0.0
    cluster.run(60.0 + none)
    [winner] = cluster.run(60.0 + none + two).masters()
    assert priorities[winner] == max(priorities)


VIP6 = {
    "addresses": (
        VirtualAddress(address="fe80::240", prefix_length=64),
        VirtualAddress(address="2001:db8::240", prefix_length=64),
    ),
    "version": 3,
    "multicast_group": "ff02::12",
}
AH = {"authentication": Authentication(AuthenticationType.AH, "secret")}
KINDS = {
    "AH": AH,
    "AH, unicast": AH | {"unicast_peers": ("10.0.0.1", "10.0.0.2")},
    "IPv6": VIP6,
    "IPv6, unicast": VIP6 | {"unicast_peers": ("2001:db8::1", "2001:db8::2")},
    "IPv6, link-local unicast": VIP6 | {"unicast_peers": ("fe80::1", "fe80::2")},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_adverts_of_every_kind_carry_a_cluster_through_crash_return_split_and_stop(changes):
    cluster = Cluster((100, 150), **changes)
    cluster.at(0.0, 0, "start")
    cluster.at(5.0, 1, "start")
    assert cluster.run(10.0).masters() == [1]
    cluster.at(10.0, 1, "crash")
    assert cluster.run(15.0).masters() == [0]
    cluster.at(15.0, 1, "start")
    assert cluster.run(25.0).masters() == [1]
    cluster.lan.cut.add("n0")
    assert cluster.run(30.0).masters() == [0, 1]
    cluster.lan.cut.clear()
    assert cluster.run(35.0).masters() == [1]
    cluster.at(35.0, 1, "stop")
    assert cluster.run(38.0).masters() == [0]
    for number in (0, 1):
        machine = cluster.machine(number)
        assert machine is None or machine.counters.refused.keys() <= {"sequence_number"}, machine.counters.refused
