"""What a director does about its network: each fault that real files and real machines showed, as a dialogue.

One host on a simulated LAN; its own addresses are 10.0.0.1 (eth0) and 10.0.1.1 (eth1).
"""

from __future__ import annotations

import pytest

from relevo.machines.vrrp import State
from relevo.model import (
    Authentication,
    AuthenticationType,
    Configuration,
    GarpPolicy,
    GlobalDefs,
    Script,
    SyncGroup,
    Tracked,
    TrackerKind,
    Trackers,
    TrackFile,
    VirtualAddress,
    VrrpInstance,
    VrrpScript,
    VrrpTransport,
)
from relevo.node.director import Director, startup_hold_s
from relevo.node.effects import GroupChanged, InstanceChanged, InstanceNoticed, RemoveAddress
from relevo.node.observation import (
    AnnouncementFailed,
    Configure,
    HandOverRequested,
    Kind,
    Observation,
    ObservedAddress,
    OperationFailed,
    PacketReceived,
    PortFailed,
    SendFailed,
    SetAddress,
    StopRequested,
)
from relevo.severity import Severity
from relevo.sim.host import Host
from relevo.sim.lan import Simulation
from relevo.wire import ah
from relevo.wire import vrrp as wire
from relevo.wire.vrrp import Advert, Envelope

VIP = VirtualAddress(address="10.0.0.9", prefix_length=24)
PEER = "10.0.0.2"


def instance(name="V", **changes):
    values = {"name": name, "interface": "eth0", "virtual_router_id": 51, "addresses": (VIP,), "garp": GarpPolicy(delay_s=0.0)}
    return VrrpInstance(**values | changes)


def file(*instances, groups=()):
    return Configuration(vrrp_instances=instances, sync_groups=groups)


def made(*links):
    simulation = Simulation()
    host = Host("a", simulation)
    for number, name in enumerate(links or ("eth0", "eth1")):
        link = host.kernel.add_link(name)
        host.attach(name, name)
        host.kernel.add(SetAddress(link.index, f"10.0.{number}.1", 24))
    return host


def started(*instances, groups=(), settle=5.0, **how):
    host = made()
    host.start(file(*(instances or (instance(),)), groups=groups), **how)
    host.simulation.run(settle)
    return host


def wait(host, seconds):
    host.simulation.run(host.simulation.now + seconds)


def machine(host, name="V"):
    return host.director.routers[name].machine


def addresses(host):
    names = {link.index: name for name, link in host.kernel.links.items()}
    return {(names[each.set.index], each.set.address) for each in host.kernel.addresses}


def texts(host):
    return [line.text for line in host.log]


def receive_advert(host, priority, *, source=PEER, vrid=51):
    advert = Advert(2, vrid, priority, 1.0, ("10.0.0.9",))
    host.deliver("eth0", source, "224.0.0.18", wire.encode(advert, source, "224.0.0.18"))


OWN = {("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")}

# -- own addresses ----------------------------------------------------------------------------------------------------


def test_a_master_that_loses_its_own_address_is_at_fault_and_recovers_with_it():
    host = started()
    host.kernel.flush("eth0")
    host.observe()
    assert machine(host).state is State.FAULT
    assert machine(host).reason == "interface eth0 has no IPv4 address of its own"
    assert addresses(host) == {("eth1", "10.0.1.1")}
    host.kernel.add(SetAddress(1, "10.0.0.1", 24))
    host.observe()
    wait(host, 4.0)
    assert machine(host).state is State.MASTER
    host.stop()
    wait(host, 2.0)
    assert addresses(host) == OWN


def test_a_left_over_address_that_has_become_primary_goes_without_the_own_one():
    host = made()
    host.kernel.flush("eth0")
    host.kernel.add(SetAddress(1, "10.0.0.9", 24))
    host.kernel.add(SetAddress(1, "10.0.0.1", 24))
    assert host.kernel.addresses[-1].secondary
    host.start(file(instance()))
    assert addresses(host) == OWN
    assert machine(host).state is State.BACKUP


@pytest.mark.parametrize("transport", [VrrpTransport(), VrrpTransport(udp_port=1985)])
def test_a_backup_whose_source_address_goes_away_does_not_become_a_second_master(transport):
    host = started(instance(source_address="10.0.0.1", unicast_peers=(PEER,), transport=transport), settle=1.0)
    host.kernel.remove(SetAddress(1, "10.0.0.1", 24))
    host.observe()
    wait(host, 10.0)
    assert machine(host).reason == "the source address 10.0.0.1 is not on this machine"
    assert ("eth0", "10.0.0.9") not in addresses(host)


def test_an_owner_s_own_address_is_never_removed():
    host = made()
    host.start(file(instance(priority=255, addresses=(VirtualAddress(address="10.0.0.1", prefix_length=24),))))
    assert machine(host).state is State.MASTER
    host.kernel.set_up("eth0", False)
    host.observe()
    assert machine(host).state is State.FAULT
    assert addresses(host) == OWN


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (lambda kernel: kernel.set_up("eth1", False), "interface eth1 is down"),
        (lambda kernel: kernel.remove_link("eth1"), "interface eth1 does not exist"),
        (lambda kernel: kernel.rename("eth1", "wan"), "interface eth1 does not exist"),
    ],
)
def test_the_interface_of_an_address_matters_like_that_of_the_adverts(what, cause):
    host = started(instance(addresses=(VirtualAddress(address="10.0.1.9", device="eth1"),)))
    assert ("eth1", "10.0.1.9") in addresses(host)
    what(host.kernel)
    host.observe()
    assert (machine(host).state, machine(host).reason) == (State.FAULT, cause)
    assert all(address != "10.0.1.9" for _, address in addresses(host)), "also not under the link's new name"


def test_the_interface_of_an_excluded_address_matters_too():
    host = started(instance(excluded_addresses=(VirtualAddress(address="10.0.1.9", device="eth1"),)))
    host.kernel.set_up("eth1", False)
    host.observe()
    assert machine(host).state is State.FAULT


def test_dont_track_primary_tolerates_the_own_interface_down_but_not_away():
    host = started(instance(track_primary=False))
    host.kernel.set_up("eth0", False)
    host.observe()
    assert machine(host).state is State.MASTER
    host.kernel.remove_link("eth0")
    host.observe()
    assert machine(host).state is State.FAULT


def test_an_interface_that_is_made_again_is_announced_with_its_new_hardware_address():
    host = started(instance(addresses=(VirtualAddress(address="10.0.1.9", device="eth1"),)))
    host.kernel.remove_link("eth1")
    host.observe()
    host.kernel.add_link("eth1")
    host.observe()
    host.announced.clear()
    wait(host, 5.0)
    assert {(link, address) for _, link, address in host.announced} == {("eth1", "10.0.1.9")}


def test_another_hardware_address_is_announced():
    host = started()
    host.announced.clear()
    host.kernel.set_hardware_address("eth0", b"\x02\x00\x00\x00\x00\xaa")
    host.observe()
    wait(host, 0.1)
    assert len(host.announced) == 5


def test_a_tracked_interface_changes_the_priority():
    host = started(instance(priority=150, tracked=(Tracked(TrackerKind.INTERFACE, "eth1", -40),)))
    host.kernel.set_up("eth1", False)
    host.observe()
    assert (machine(host).state, machine(host).priority) == (State.MASTER, 110)


# -- announcements ----------------------------------------------------------------------------------------------------


def test_every_address_is_announced_on_its_own_interface_also_excluded_and_ipv6_ones():
    excluded = (VirtualAddress(address="10.0.1.9", device="eth1"), VirtualAddress(address="fd00::9", prefix_length=64))
    host = started(instance(excluded_addresses=excluded))
    found = [(link, address) for _, link, address in host.announced]
    assert {pair: found.count(pair) for pair in found} == {
        ("eth0", "10.0.0.9"): 5,
        ("eth1", "10.0.1.9"): 5,
        ("eth0", "fd00::9"): 5,
    }


def test_announcements_are_paced_and_end_with_mastery():
    host = started(instance(garp=GarpPolicy(delay_s=0.0, repeat=5, interval_s=0.5)), settle=3.7)
    assert len(host.announced) == 1
    wait(host, 0.5)
    receive_advert(host, 200)
    wait(host, 2.0)
    assert len(host.announced) == 2


def test_an_address_that_a_reload_adds_is_announced_in_two_bursts():
    host = started()
    host.announced.clear()
    more = (VIP, VirtualAddress(address="10.0.0.10", prefix_length=24))
    host.reload(file(instance(addresses=more, garp=GarpPolicy(delay_s=5.0))))
    wait(host, 1.0)
    assert [address for _, _, address in host.announced] == ["10.0.0.10"] * 5
    wait(host, 5.0)
    assert [address for _, _, address in host.announced] == ["10.0.0.10"] * 10


def test_an_announcement_that_fails_is_logged_once():
    host = started()
    for _ in range(3):
        host._give(AnnouncementFailed("10.0.0.9", "eth0", "No buffer space available"))
    assert texts(host).count("cannot announce 10.0.0.9 on eth0: No buffer space available") == 1


# -- reloads ----------------------------------------------------------------------------------------------------------


CHANGES = [
    {"device": "eth1"},
    {"label": "eth0:web"},
    {"prefix_length": 32},
    {"broadcast": "10.0.0.255"},
    {"broadcast": "+"},
    {"scope": "link"},
    {"scope": "99"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_attribute_of_an_address_follows_the_file_without_a_change_of_state(change):
    host = started()
    before = len(host.events)
    plain = {"address": "10.0.0.9", "prefix_length": 24}
    host.reload(file(instance(addresses=(VirtualAddress(**plain | change),))))
    [found] = [each.set for each in host.kernel.addresses if each.set.address == "10.0.0.9"]
    index = 2 if "device" in change else 1
    broadcast = {"10.0.0.255": "10.0.0.255", "+": "10.0.0.255"}.get(change.get("broadcast", ""), "")
    scope = {"link": 253, "99": 99}.get(change.get("scope", ""), 0)
    prefix_length = change.get("prefix_length", 24)
    assert found == SetAddress(index, "10.0.0.9", prefix_length, change.get("label", ""), broadcast, scope)
    assert (len(host.events), machine(host).state) == (before, State.MASTER)
    host.stop()
    wait(host, 2.0)
    assert addresses(host) == OWN


def test_a_reload_of_the_same_file_does_nothing_at_all():
    host = started()
    host.log.clear()
    host.reload(file(instance()))
    assert host.log == []


def test_a_removed_instance_reports_deleted_and_leaves_no_address():
    host = started(instance(), instance("W", virtual_router_id=52, addresses=(VirtualAddress(address="10.0.0.10"),)))
    host.reload(file(instance()))
    assert host.events[-1] == InstanceChanged("W", "DELETED", 100, "stopped")
    assert addresses(host) == OWN | {("eth0", "10.0.0.9")}


@pytest.mark.parametrize("change", [{"virtual_router_id": 60}, {"interface": "eth1"}, {"version": 3}])
def test_another_identity_begins_as_backup(change):
    host = started()
    host.reload(file(instance(**change)))
    assert [event.state for event in host.events[-2:]] == ["MASTER", "BACKUP"]
    wait(host, 5.0)
    assert machine(host).state is State.MASTER


def test_a_broken_link_is_still_broken_after_a_reload():
    host = started()
    host.kernel.set_up("eth0", False)
    host.observe()
    host.reload(file(instance(priority=120)))
    assert machine(host).state is State.FAULT
    assert [event.state for event in host.events] == ["BACKUP", "MASTER", "FAULT"]


def test_an_address_removed_by_another_program_is_added_announced_and_logged():
    host = started()
    host.announced.clear()
    host.kernel.remove(SetAddress(1, "10.0.0.9", 24))
    host.observe()
    wait(host, 0.1)
    assert ("eth0", "10.0.0.9") in addresses(host)
    assert len(host.announced) == 5
    assert "(V) address 10.0.0.9 was removed by another program: putting it back" in texts(host)


# -- sync groups ------------------------------------------------------------------------------------------------------


def pair(**second):
    return (
        instance(),
        instance(
            "W", **{"virtual_router_id": 52, "interface": "eth1", "addresses": (VirtualAddress(address="10.0.1.9"),)} | second
        ),
    )


GROUP = (SyncGroup(name="G", members=("V", "W")),)


def test_a_group_reports_its_start_its_states_and_its_stop():
    host = started(*pair(), groups=GROUP)
    host.stop()
    wait(host, 2.0)
    assert [e.state for e in host.events if isinstance(e, GroupChanged)] == ["BACKUP", "MASTER", "STOP"]


def test_one_member_at_fault_is_the_fault_of_all_until_it_is_taken_out():
    host = started(*pair(), groups=GROUP)
    host.kernel.set_up("eth1", False)
    host.observe()
    assert machine(host).reason == "another member of the sync group is in FAULT"
    assert addresses(host) == OWN
    host.reload(file(*pair(), groups=(SyncGroup(name="G", members=("V",)),)))
    wait(host, 4.0)
    assert (machine(host).state, machine(host, "W").state) == (State.MASTER, State.FAULT)


def test_a_removed_group_reports_stop_and_its_members_go_on():
    host = started(*pair(), groups=GROUP)
    before = len(host.events)
    host.reload(file(*pair()))
    assert host.events[before:] == [GroupChanged("G", "STOP")]


def test_members_are_handed_over_together():
    host = started(*pair(), groups=GROUP)
    host._give(HandOverRequested("W"))
    assert machine(host).state is machine(host, "W").state is State.HANDING_OVER
    wait(host, 2.0)
    assert machine(host).state is State.MASTER, "no other router takes over"
    host._give(HandOverRequested("V", back=True))
    host._give(HandOverRequested("nothing of that name"))
    assert machine(host).state is State.MASTER


def test_a_node_that_is_given_back_while_its_cable_is_out_takes_over_when_it_is_back():
    """``relevo failover --back`` came while the interface was down, and was forgotten: the node stayed backup for ever."""
    host = started(instance(priority=150))
    host._give(HandOverRequested("V"))
    receive_advert(host, 100)
    assert machine(host).state is State.BACKUP
    host.kernel.set_up("eth0", False)
    host.observe()
    assert machine(host).state is State.FAULT
    host._give(HandOverRequested("V", back=True))
    host.kernel.set_up("eth0", True)
    host.observe()
    for _ in range(6):
        receive_advert(host, 100)
        wait(host, 1.0)
    assert machine(host).state is State.MASTER


# -- the plane --------------------------------------------------------------------------------------------------------


def test_a_higher_backup_waits_for_its_plane_and_logs_it():
    host = started(instance(priority=150), settle=0.5, plane_ready=False)
    for _ in range(20):
        receive_advert(host, 100)
        wait(host, 1.0)
    assert (machine(host).state, machine(host).waiting) == (State.BACKUP, "data_plane")
    assert f"(V) waits for its data plane before it takes over from {PEER}" in texts(host)
    host.observe_source(Observation(Kind.PLANE, True))
    receive_advert(host, 100)
    wait(host, 4.0)
    assert machine(host).state is State.MASTER


def test_whether_connections_are_here_is_known_to_routers_that_come_later():
    host = started(instance(preempt_when_synced_s=60.0), settle=0.5)
    host.observe_source(Observation(Kind.SYNC, True))
    host.reload(file(instance(preempt_when_synced_s=60.0), pair()[1]))
    assert all(router.machine.preemption.synced for router in host.director.routers.values())


# -- what fails -------------------------------------------------------------------------------------------------------


def test_adverts_that_cannot_be_sent_are_a_fault_and_are_tried_again_ever_more_rarely():
    host = started()
    host.firewall = True
    wait(host, 2.0)
    assert machine(host).state is State.MASTER, "two adverts may be lost"
    wait(host, 1.0)
    assert machine(host).reason == "adverts cannot be sent: Operation not permitted"
    assert ("eth0", "10.0.0.9") not in addresses(host)
    host.announced.clear()
    wait(host, 120.0)
    changes = [event.state for event in host.events]
    assert changes.count("MASTER") < 10, "the pauses grow"
    assert host.announced == [], "an address that is not kept is not announced"
    host.firewall = False
    wait(host, 70.0)
    assert machine(host).state is State.MASTER


def test_one_destination_of_several_may_be_out_of_reach():
    host = started(instance(unicast_peers=(PEER, "10.0.0.3")))
    for _ in range(9):
        host._give(SendFailed("V", "10.0.0.3", "No route to host"))
        wait(host, 1.0)
    assert machine(host).state is State.MASTER
    assert texts(host).count("(V) cannot send adverts to 10.0.0.3: No route to host") == 1


def test_sending_that_works_again_in_between_is_no_fault():
    host = started()
    for _ in range(5):
        for failing in (True, True, False):
            host.firewall = failing
            wait(host, 1.0)
    assert machine(host).state is State.MASTER


def test_dont_track_primary_tolerates_adverts_that_fail():
    host = started(instance(track_primary=False))
    host.firewall = True
    wait(host, 20.0)
    assert machine(host).state is State.MASTER


def test_a_socket_that_cannot_be_opened_is_a_fault_until_it_can():
    host = made()
    refused = True
    open_port = host._open
    host._open = lambda router, spec: (
        PortFailed(router, "cannot open a raw socket for VRRP: not permitted", "run as root")
        if refused
        else open_port(router, spec)
    )
    host.start(file(instance()))
    wait(host, 8.0)
    assert machine(host).state is State.FAULT
    assert machine(host).reason == "cannot open a raw socket for VRRP: not permitted (run as root)"
    assert [event.state for event in host.events] == ["FAULT"], "trying again is no change of state"
    refused = False
    wait(host, 64.0)
    assert machine(host).state is State.MASTER


def test_an_address_that_the_kernel_refuses_is_logged_once_and_retried():
    host = started()
    address = next(each.set for each in host.kernel.addresses if each.set.address == "10.0.0.9")
    host.kernel.remove(address)
    add, tries = host.kernel.add, []
    host.kernel.add = lambda wanted: tries.append(wanted) or "Invalid argument"
    host.observe()
    for _ in range(3):
        host.observe()
        wait(host, 6.0)
    assert len(tries) > 3
    assert texts(host).count("Invalid argument") == 1
    host.kernel.add = add
    wait(host, 6.0)
    assert ("eth0", "10.0.0.9") in addresses(host)


def test_an_address_that_cannot_be_removed_is_still_ours():
    host = started()
    address = next(each.set for each in host.kernel.addresses if each.set.address == "10.0.0.9")
    host._give(OperationFailed(address, False, "Operation not permitted"))
    assert address.key in host.director.addresses.placed
    assert Severity.ERROR in {line.severity for line in host.log}


def test_answers_for_a_router_that_is_gone_change_nothing():
    host = started()
    host._give(PortFailed("W", "late"))
    host._give(SendFailed("W", PEER, "late"))
    assert machine(host).state is State.MASTER


# -- adverts ----------------------------------------------------------------------------------------------------------


def test_what_is_not_admitted_is_counted_and_logged_once():
    host = started()
    for _ in range(3):
        receive_advert(host, 200, source="10.0.0.1")
        host._give(PacketReceived(("V",), b"\x21\x33", None))
        host._give(PacketReceived(("V",), b"", None))
        host.deliver("eth0", PEER, "224.0.0.18", b"\x21\x33\x64\x01\x00\x01\x00\x00")
    counted = machine(host).counters.refused
    assert counted == {"own": 3, "truncated": 6, "length": 3}
    assert sum("further ones are only counted" in text for text in texts(host)) == 2
    assert machine(host).state is State.MASTER


def test_adverts_with_a_vrid_of_no_local_router_are_counted():
    host = started()
    receive_advert(host, 200, vrid=99)
    assert host.director.unknown["unknown_virtual_router"] == 1
    assert machine(host).state is State.MASTER


def test_ttl_is_checked_for_multicast_only():
    host = started()
    payload = wire.encode(Advert(2, 51, 200, 1.0, ("10.0.0.9",)), PEER, "224.0.0.18")
    host._give(PacketReceived(("V",), payload, Envelope(PEER, "224.0.0.18", 64)))
    assert machine(host).counters.refused == {"ttl": 1}


# -- IPv6 and AH ------------------------------------------------------------------------------------------------------

SIX = {
    "version": 3,
    "multicast_group": "ff02::12",
    "addresses": (VirtualAddress(address="fe80::9", prefix_length=64),),
}


def own_source(host):
    spec = host.director.routers["V"].spec
    return None if spec is None else spec.source


def test_adverts_over_ipv6_come_from_a_link_local_address_that_is_nobody_elses():
    host = made()
    for address in ("2001:db8::1", "fe80::9", "fe80::1"):
        host.kernel.add(SetAddress(1, address, 64))
    host.start(file(instance(**SIX)))
    assert own_source(host) == "fe80::1"


def test_unicast_adverts_over_ipv6_come_from_an_address_of_the_peers_kind():
    for peers, expected in ((("2001:db8::2",), "2001:db8::1"), (("fe80::2",), "fe80::1")):
        host = made()
        for address in ("fe80::1", "2001:db8::1"):
            host.kernel.add(SetAddress(1, address, 64))
        host.start(file(instance(**SIX, unicast_peers=peers)))
        assert own_source(host) == expected


def test_an_address_that_is_still_looked_at_for_duplicates_is_no_source_yet():
    host = made()
    host.kernel.addresses.append(ObservedAddress(SetAddress(1, "fe80::1", 64), tentative=True))
    host.start(file(instance(**SIX)))
    assert machine(host).reason == "interface eth0 has no IPv6 link-local address of its own"
    host.kernel.addresses[-1] = ObservedAddress(SetAddress(1, "fe80::1", 64))
    host.observe()
    wait(host, 5.0)
    assert machine(host).state is State.MASTER
    assert ("eth0", "fe80::9") in addresses(host)


def signed(sequence, *, priority=200, key=b"secret\0\0", ttl=255):
    advert = wire.encode(Advert(2, 51, priority, 1.0, ("10.0.0.9",), b"", wire.AUTH_AH), PEER, "224.0.0.18")
    return ah.wrap(advert, ah.Header(PEER, "224.0.0.18", ttl, 1, sequence), key)


def test_with_ah_a_repeated_or_forged_advert_is_refused():
    host = started(instance(authentication=Authentication(AuthenticationType.AH, "secret")))
    sent = host.director.routers["V"]._sequence
    assert sent > 0
    host.deliver("eth0", PEER, "224.0.0.18", signed(sent))
    host.deliver("eth0", PEER, "224.0.0.18", signed(sent + 5, key=b"guessed\0"))
    host.deliver("eth0", PEER, "224.0.0.18", wire.encode(Advert(2, 51, 200, 1.0, ("10.0.0.9",)), PEER, "224.0.0.18"))
    assert machine(host).state is State.MASTER
    assert {**machine(host).counters.refused} == {"sequence_number": 1, "authentication": 1, "truncated": 1}
    host.deliver("eth0", PEER, "224.0.0.18", signed(sent + 5))
    assert machine(host).state is State.BACKUP
    host.deliver("eth0", PEER, "224.0.0.18", signed(sent + 5))
    assert machine(host).counters.refused["sequence_number"] == 2
    wait(host, 10.0)
    assert machine(host).state is State.MASTER
    assert host.director.routers["V"]._sequence > sent + 5  # it goes on where its predecessor ended


# -- the end ----------------------------------------------------------------------------------------------------------


def test_after_a_stop_nothing_is_configured_or_started_any_more():
    host = started()
    host.stop()
    wait(host, 2.0)
    assert host.director.finished
    host.reload(file(instance("W", virtual_router_id=60)))
    assert list(host.director.routers) == ["V"]
    assert host.director.deadline() is None or host.director.finished


def test_a_second_stop_does_not_wait_for_a_successor():
    host = started()
    host.stop()
    assert not host.director.finished
    host.stop()
    assert host.director.finished
    assert addresses(host) == OWN


def test_a_new_worker_goes_on_where_the_dead_one_was():
    host = started()
    placed = host.local.placed
    assert placed == {(1, "10.0.0.9", 24)}
    host.crash()
    host.operations.clear()
    host.start(file(instance()), resume=frozenset({"V"}), placed=placed)
    assert machine(host).state is State.MASTER
    assert host.operations == [], "the address stays, at every moment"
    host.crash()
    host.start(file(), placed=placed)
    assert addresses(host) == OWN, "what the dead one had set is not left behind"


@pytest.mark.parametrize("meanwhile", ["stop", "reload", "fault"])
def test_a_master_that_does_not_go_on_after_a_restart_leaves_no_address(meanwhile):
    host = started()
    placed = host.local.placed
    host.crash()
    if meanwhile == "fault":
        host.kernel.set_up("eth0", False)
    director = Director(file(instance()), host.kernel.world(), resume=frozenset({"V"}), placed=placed)
    effects = director.start(host.simulation.now)  # its socket is not open yet
    if meanwhile != "fault":
        assert removed(effects) == []
        given = StopRequested() if meanwhile == "stop" else Configure(file(), host.kernel.world())
        effects = director.receive(given, host.simulation.now)
    assert removed(effects) == ["10.0.0.9"]
    assert director.finished is (meanwhile == "stop")


def removed(effects):
    return [effect.address.address for effect in effects if isinstance(effect, RemoveAddress)]


# -- trackers -----------------------------------------------------------------------------------------------------------

SCRIPT, FILE = TrackerKind.SCRIPT, TrackerKind.FILE
CHK = VrrpScript(name="chk", script=Script(("/bin/check",)))


def tracking(*tracked, **changes):
    """An instance that tracks scripts and files, and a file that declares them."""
    one = instance(priority=changes.pop("priority", 150), tracked=tracked, **changes)
    scripts = tuple(VrrpScript(name=t.name, script=CHK.script) for t in tracked if t.kind is SCRIPT)
    files = tuple(TrackFile(name=t.name, path="/m") for t in tracked if t.kind is FILE)
    return one, Configuration(vrrp_instances=(one,), trackers=Trackers(scripts=scripts, files=files))


def begun(configuration, **sources):
    host = made()
    host.sources = {(SCRIPT, name): value for name, value in sources.items()}
    host.start(configuration)
    host.simulation.run(5.0)
    return host


def observe(host, kind, name, value):
    host.observe_source(Observation(kind, value, name))


def test_a_failing_script_without_weight_is_a_fault_and_its_success_ends_it():
    _, configuration = tracking(Tracked(SCRIPT, "chk"))
    host = begun(configuration, chk=1)
    assert machine(host).state is State.MASTER
    observe(host, SCRIPT, "chk", 0)
    assert machine(host).state is State.FAULT
    assert "(V) vrrp_script chk fails" in texts(host)
    assert addresses(host) == {("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")}
    observe(host, SCRIPT, "chk", 1)
    assert machine(host).state is State.BACKUP


def test_a_weight_changes_the_priority_in_adverts_and_says_so():
    _, configuration = tracking(Tracked(SCRIPT, "chk", -40), Tracked(FILE, "mode", 2))
    host = begun(configuration, chk=1)
    observe(host, FILE, "mode", 10)
    assert machine(host).priority == 170
    observe(host, SCRIPT, "chk", 0)
    assert (machine(host).state, machine(host).priority) == (State.MASTER, 130)
    assert "(V) Changing effective priority from 170 to 130" in texts(host)


def test_changes_of_the_priority_are_events_if_asked_for():
    _, configuration = tracking(Tracked(SCRIPT, "chk", -40), notify_priority_changes=True)
    host = begun(configuration, chk=1)
    effects = host.director.receive(Observation(SCRIPT, 0, "chk"), host.simulation.now)
    assert InstanceNoticed("V", "MASTER_PRIORITY", 110) in effects


def test_an_instance_waits_for_the_first_result_of_what_could_be_its_fault():
    _, configuration = tracking(Tracked(SCRIPT, "chk"), Tracked(SCRIPT, "other", -5))
    host = begun(configuration)
    assert machine(host).state is State.INIT
    assert machine(host).reason == "waits for the first result of vrrp_script chk"
    assert addresses(host) == {("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")}
    observe(host, SCRIPT, "chk", 1)
    assert machine(host).state is State.BACKUP


def test_a_first_failure_is_a_fault_at_once():
    _, configuration = tracking(Tracked(SCRIPT, "chk"))
    host = begun(configuration)
    observe(host, SCRIPT, "chk", 0)
    assert [event.state for event in host.events] == ["FAULT"]


def test_the_members_of_a_group_wait_for_each_other():
    one, configuration = tracking(Tracked(SCRIPT, "chk"))
    other = instance("W", virtual_router_id=52, addresses=(VirtualAddress(address="10.0.0.8"),))
    group = SyncGroup(name="G", members=("V", "W"))
    host = begun(Configuration(vrrp_instances=(one, other), sync_groups=(group,), trackers=configuration.trackers))
    assert {machine(host, name).state for name in "VW"} == {State.INIT}
    observe(host, SCRIPT, "chk", 1)
    assert {machine(host, name).state for name in "VW"} == {State.BACKUP}


def test_a_script_that_cannot_be_observed_is_not_tracked():
    _, configuration = tracking(Tracked(SCRIPT, "chk"))
    host = begun(configuration)
    observe(host, SCRIPT, "chk", None)
    wait(host, 5.0)
    assert machine(host).state is State.MASTER


def test_an_instance_that_a_reload_has_track_a_script_keeps_its_state_until_the_first_result():
    host = started(instance(priority=150))
    _, configuration = tracking(Tracked(SCRIPT, "chk"))
    host.reload(configuration)
    wait(host, 3.0)
    assert machine(host).state is State.MASTER
    observe(host, SCRIPT, "chk", 0)
    assert machine(host).state is State.FAULT


def test_an_observation_of_a_removed_source_is_ignored():
    _, configuration = tracking(Tracked(SCRIPT, "chk"))
    host = begun(configuration, chk=1)
    host.reload(file(instance(priority=150)))
    observe(host, SCRIPT, "chk", 0)  # it was on its way
    host.reload(configuration)
    wait(host, 3.0)
    assert machine(host).state is State.MASTER


def test_a_worker_that_is_replaced_knows_the_sources():
    _, configuration = tracking(Tracked(SCRIPT, "chk", -40))
    host = begun(configuration, chk=0)
    host.crash()
    host.start(configuration, resume=frozenset({"V"}), placed=host.local.placed)
    host.simulation.run(host.simulation.now + 0.1)
    assert (machine(host).state, machine(host).priority) == (State.MASTER, 110)


# -- other behaviour ----------------------------------------------------------------------------------------------------


def test_nothing_is_taken_over_during_the_startup_delay():
    host = made()
    host.director = Director(file(instance(priority=150)), host.kernel.world(), hold_s=10.0)
    host._execute(host.director.start(0.0))
    host.simulation.run(13.3)
    assert machine(host).state is State.BACKUP
    host.simulation.run(13.7)
    assert machine(host).state is State.MASTER


@pytest.mark.parametrize(
    ("startup_s", "boot_s", "uptime_s", "held_s"),
    [(0.0, 0.0, 5.0, 0.0), (3.0, 0.0, 500.0, 3.0), (0.0, 60.0, 20.0, 40.0), (50.0, 60.0, 90.0, 50.0)],
)
def test_the_delay_is_counted_from_the_start_or_from_the_boot(startup_s, boot_s, uptime_s, held_s):
    wanted = GlobalDefs(vrrp_startup_delay_s=startup_s, vrrp_delay_after_boot_s=boot_s)
    assert startup_hold_s(Configuration(global_defs=wanted), uptime_s) == held_s


def test_an_instance_that_must_not_use_multicast_is_in_fault_without_peers():
    host = started(instance(unicast_fault_no_peer=True))
    assert [str(fault) for fault in machine(host).faults] == ["no unicast_peer is named, and unicast_fault_no_peer is given"]


def test_an_owner_may_ignore_adverts():
    host = started(instance(priority=255, starts_as_master=True, owner_ignore_adverts=True))
    advert = Advert(2, 51, 255, 1.0, ("10.0.0.9",))
    payload = wire.encode(advert, "10.0.0.7", "224.0.0.18")
    host.director.receive(PacketReceived(("V",), payload, Envelope("10.0.0.7", "224.0.0.18", 255)), host.simulation.now)
    assert machine(host).state is State.MASTER


def test_an_advert_of_lower_priority_is_noticed_by_a_master():
    host = started(instance(priority=150))
    payload = wire.encode(Advert(2, 51, 100, 1.0, ("10.0.0.9",)), PEER, "224.0.0.18")
    effects = host.director.receive(PacketReceived(("V",), payload, Envelope(PEER, "224.0.0.18", 255)), host.simulation.now)
    assert InstanceNoticed("V", "MASTER_RX_LOWER_PRI", 150) in effects


def test_adverts_of_other_virtual_routers_are_logged_if_asked_for_once_for_each_source():
    wanted = GlobalDefs(log_unknown_vrids=True)
    host = made()
    host.start(Configuration(global_defs=wanted, vrrp_instances=(instance(),)))
    payload = wire.encode(Advert(2, 77, 100, 1.0, ("10.0.0.9",)), PEER, "224.0.0.18")
    for _ in range(3):
        host._give(PacketReceived(("V",), payload, Envelope(PEER, "224.0.0.18", 255)))
    assert texts(host).count(f"advert of unknown virtual router 77 from {PEER}") == 1


def test_a_deleted_instance_is_reported_as_deleted():
    host = started()
    host.events.clear()
    host.reload(Configuration())
    assert [event.state for event in host.events] == ["DELETED"]


def test_neighbour_advertisements_have_a_pause_of_their_own():
    excluded = (VirtualAddress(address="fd00::9", prefix_length=64),)
    garp = GarpPolicy(delay_s=0.0, repeat=3, interval_s=0.0, gna_interval_s=0.5)
    host = started(instance(priority=150, excluded_addresses=excluded, garp=garp), settle=8.0)
    at = {address: [time for time, _, found in host.announced if found == address] for address in ("10.0.0.9", "fd00::9")}
    assert at["10.0.0.9"][-1] - at["10.0.0.9"][0] == 0.0
    assert at["fd00::9"][-1] - at["fd00::9"][0] == pytest.approx(1.0)
