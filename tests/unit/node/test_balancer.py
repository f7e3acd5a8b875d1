"""The balancer's effects after checks, reloads and changes of the plane's table."""

import pytest

from relevo.machines.check import Failure, Result, Weight
from relevo.machines.pool import State
from relevo.model import (
    Configuration,
    Endpoint,
    Forwarding,
    GlobalDefs,
    HttpCheck,
    PlaneTimeouts,
    Protocol,
    RealServer,
    Script,
    ServerMode,
    ServerOrder,
    SyncDaemon,
    Sysctl,
    TcpCheck,
    Tunnel,
    TunnelKind,
    Url,
    VirtualAddress,
    VirtualServer,
    VrrpInstance,
)
from relevo.model.checks import CheckTiming, FileCheck, MiscCheck
from relevo.model.table import AddServer, AddService, DeleteService, ServiceEntry, ServiceState, SyncRole
from relevo.node.balancer import (
    AbandonProbe,
    Balancer,
    MatchTable,
    PlaneReady,
    QuorumChanged,
    ServerChanged,
    ServerFound,
    StartProbe,
)
from relevo.node.effects import Log
from relevo.severity import Severity
from relevo.sim.services import ServiceHost

VIP = Endpoint("192.0.2.1", 80)
NAME = "[192.0.2.1]:tcp:80"
TIMING = CheckTiming(delay_loop_s=5.0, retry=1, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)


def at(number):
    return Endpoint(f"10.0.0.{number}", 80)


def tcp(number, **timing):
    changed = {name: timing.get(name, getattr(TIMING, name)) for name in TIMING.__struct_fields__}
    return TcpCheck(timing=CheckTiming(**changed), connect=at(number), connect_timeout_s=1.0)


def http(number):
    return HttpCheck(timing=TIMING, connect=at(number), connect_timeout_s=1.0, urls=(Url(path="/"),))


def server(number, *checks, **changes):
    return RealServer(endpoint=at(number), checks=checks or (tcp(number),), **changes)


def service(*servers, **changes):
    return VirtualServer(**{"endpoint": VIP, "protocol": Protocol.TCP, "real_servers": servers} | changes)


def file(*services, **changes):
    return Configuration(virtual_servers=services, **changes)


class Story:
    """A balancer on a virtual clock, and servers that go up and down."""

    def __init__(self, *services, dead=(), **changes):
        self.dead = set(dead)
        self.host = ServiceHost(lambda check: check.connect not in self.dead)
        self.host.configure(file(*services, **changes))

    def wait(self, seconds):
        self.host.run(self.host.now + seconds)
        return self

    def reload(self, *services, **changes):
        self.effects.clear()
        self.host.configure(file(*services, **changes))
        return [each.text if isinstance(each, Log) else each for each in self.effects]

    @property
    def effects(self):
        return self.host.effects

    def texts(self):
        return [each.text for each in self.effects if isinstance(each, Log)]

    def events(self):
        return [each for each in self.effects if isinstance(each, ServerChanged | QuorumChanged)]

    def table(self):
        return {s.server.endpoint: s.server.weight for state in self.host.table.values() for s in state.servers}


# -- checks -----------------------------------------------------------------------------------------------------------


def test_a_server_that_dies_leaves_in_keepalived_s_words():
    story = Story(service(server(1), server(2))).wait(2.0)
    story.effects.clear()
    story.dead = {at(1)}
    story.wait(10.0)
    assert story.texts() == [
        "TCP_CHECK on service [10.0.0.1]:tcp:80 failed (connection refused): trying again.",
        "TCP connection to [10.0.0.1]:tcp:80 failed (connection refused).",
        f"Check on service [10.0.0.1]:tcp:80 for VS {NAME} failed after 1 retry.",
        f"Removing service [10.0.0.1]:tcp:80 from VS {NAME}",
    ]
    assert story.events() == [ServerChanged(NAME, "[10.0.0.1]:tcp:80", False, True, "TCP_CHECK", "connection refused")]
    assert story.table() == {at(2): 1}


def test_it_returns_in_them_too_and_the_quorum_with_it():
    story = Story(service(server(1, http(1))), dead=[at(1)]).wait(2.0)
    assert story.table() == {}
    story.effects.clear()
    story.dead = set()
    story.wait(6.0)
    assert story.texts() == [
        "HTTP_GET to [10.0.0.1]:tcp:80 success.",
        f"Adding service [10.0.0.1]:tcp:80 to VS {NAME}",
        f"Gained quorum 1+0=1 <= 1 for VS {NAME}",
    ]
    assert story.events()[-1] == QuorumChanged(NAME, True, 1)


def test_a_second_check_that_fails_is_an_event_and_no_line_of_service():
    story = Story(service(server(1, tcp(1), http(1)), server(2)), dead=[at(1)]).wait(2.0)
    assert [(e.transition, e.check) for e in story.events()] == [(True, "TCP_CHECK"), (False, "HTTP_GET")]


def test_first_checks_are_spread_by_the_warm_up():
    balancer = Balancer(lambda: 0.5)
    balancer.configure(file(service(server(1, tcp(1, warmup_s=4.0)))), 0.0)
    assert balancer.deadline() == 3.0
    assert balancer.expire(2.9) == []
    [probe] = balancer.expire(3.0)
    assert isinstance(probe, StartProbe)
    assert balancer.deadline() is None, "no second probe while one runs"


def test_the_result_of_a_cancelled_probe_is_ignored():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1))), 0.0)
    [probe] = balancer.expire(1.0)
    assert balancer.finish_probe(("gone", at(9), ("TCP_CHECK", 0)), Result(), 1.0) == []
    balancer.finish_probe(probe.key, Result(), 1.1)
    assert balancer.finish_probe(probe.key, Result(Failure.TIMEOUT), 1.2) == [], "a result that comes twice"


# -- reloads ----------------------------------------------------------------------------------------------------------


def test_an_edited_check_keeps_its_verdict_until_its_next_result_which_comes_soon():
    story = Story(service(server(1), server(2)), dead=[at(1)]).wait(8.0)
    assert story.reload(service(server(1, tcp(1, retry=3)), server(2))) == []
    assert story.table() == {at(2): 1}
    story.dead = set()
    story.wait(1.1)
    assert story.table() == {at(1): 1, at(2): 1}


def test_a_probe_by_former_settings_is_abandoned():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1))), 0.0)
    [probe] = balancer.expire(1.0)
    assert AbandonProbe(probe.key) in balancer.configure(file(service(server(1, tcp(1, retry=3)))), 1.05)
    assert balancer.finish_probe(probe.key, Result(Failure.TIMEOUT), 1.1) == []
    assert balancer.deadline() == 2.05


def test_reloads_in_a_row_do_not_put_a_check_off():
    balancer = Balancer(lambda: 0.0)
    for tenth in range(8):
        balancer.configure(file(service(server(1, tcp(1, retry=tenth % 2)))), tenth / 10)
    assert balancer.deadline() == 1.0


def test_another_kind_of_check_begins_with_the_verdict_that_the_server_has():
    story = Story(service(server(1), server(2)), dead=[at(1)]).wait(8.0)
    assert story.reload(service(server(1, http(1)), server(2))) == []
    assert story.table() == {at(2): 1}


def test_an_added_or_removed_server_is_reported_with_the_quorum():
    story = Story(service(server(1), server(2), sorry_server=at(9)), dead=[at(2)]).wait(8.0)
    assert story.reload(service(server(2), sorry_server=at(9))) == [
        f"Removing service [10.0.0.1]:tcp:80 from VS {NAME} (removed from the configuration)",
        ServerChanged(NAME, "[10.0.0.1]:tcp:80", False, True, "reload", "removed from the configuration"),
        f"Lost quorum 1-0=1 > 0 for VS {NAME}",
        QuorumChanged(NAME, False, 0),
        f"Adding sorry server [10.0.0.9]:tcp:80 to VS {NAME}",
    ]
    assert story.table() == {at(9): 1}
    assert story.reload(service(server(2), server(3), sorry_server=at(9))) == [
        f"Adding service [10.0.0.3]:tcp:80 to VS {NAME} (added to the configuration)",
        ServerChanged(NAME, "[10.0.0.3]:tcp:80", True, True, "reload", "added to the configuration"),
        f"Gained quorum 1+0=1 <= 1 for VS {NAME}",
        QuorumChanged(NAME, True, 1),
        f"Removing sorry server [10.0.0.9]:tcp:80 from VS {NAME}",
    ]


def test_a_changed_weight_is_logged():
    story = Story(service(server(1)))
    assert story.reload(service(server(1, weight=5))) == [
        f"Changing weight from 1 to 5 for active service [10.0.0.1]:tcp:80 of VS {NAME}"
    ]
    assert story.table() == {at(1): 5}


@pytest.mark.parametrize("omega", [False, True])
def test_a_service_that_is_removed_loses_its_quorum_and_with_omega_its_servers(omega):
    story = Story(service(server(1), omega=omega))
    gone = ServerChanged(NAME, "[10.0.0.1]:tcp:80", False, True, "reload", "its virtual server was removed")
    assert story.reload() == [f"Removing VS {NAME} by a reload", QuorumChanged(NAME, False, 0), *([gone] if omega else [])]
    assert story.host.table == {}
    assert story.reload(service(server(1))) == [f"Adding VS {NAME} by a reload"]


def test_a_stop_notifies_of_live_servers_of_services_with_omega():
    story = Story(service(server(1), server(2), omega=True), dead=[at(2)]).wait(8.0)
    assert story.host.balancer.shutdown_notice() == ((NAME, "[10.0.0.1]:tcp:80"),)
    assert Story(service(server(1))).host.balancer.shutdown_notice() == ()


# -- the plane --------------------------------------------------------------------------------------------------------


def state(key=None, **changes):
    return ServiceState(service=ServiceEntry(key=key or service().keys[0]), **changes)


OTHER = VirtualServer(endpoint=Endpoint("192.0.2.9", 80), protocol=Protocol.TCP).keys[0]


def test_services_of_others_in_a_shared_table_are_left_alone_and_former_ones_of_ours_go():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1))), 0.0)
    observed = [state(OTHER), state()]
    assert balancer.operations(observed, shared=True) == [AddServer(observed[1].service.key, balancer.desired()[0].servers[0])]
    balancer.configure(file(), 1.0)
    assert balancer.operations(observed, shared=True) == [DeleteService(observed[1].service.key)]
    assert balancer.removals(observed, shared=True) == [DeleteService(observed[1].service.key)]


def test_with_lvs_flush_they_are_ours_and_with_flush_on_stop_at_the_end():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(global_defs=GlobalDefs(lvs_flush=True)), 0.0)
    assert balancer.operations([state(OTHER)], shared=True) == [DeleteService(OTHER)]
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(global_defs=GlobalDefs(lvs_flush_on_stop=True)), 0.0)
    assert balancer.operations([state(OTHER)], shared=True) == []
    assert balancer.removals([state(OTHER)], shared=True) == [DeleteService(OTHER)]


def test_manual_services_of_a_plane_of_our_own_stay():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(), 0.0)
    balancer.manual.note(AddService(ServiceEntry(key=OTHER)), "")
    assert balancer.operations([state(OTHER), state()], shared=False) == [DeleteService(service().keys[0])]


def test_the_plane_is_ready_once_and_each_problem_is_logged_once():
    balancer = Balancer(lambda: 0.0)
    operation = AddService(ServiceEntry(key=OTHER))
    listening = state(listening="cannot listen on 192.0.2.1:80: in use")
    first = balancer.reconciled([listening], [operation], [(operation, "no room")], "no such interface")
    warnings = [
        "cannot listen on 192.0.2.1:80: in use",
        "connection synchronisation: no such interface",
        "data plane refused AddService: no room",
    ]
    assert first == [*(Log(text, Severity.WARNING) for text in warnings), PlaneReady()]
    assert balancer.reconciled([listening], [operation], [(operation, "no room")], "no such interface") == []


def test_a_plane_that_does_not_answer_is_logged_once_and_its_return_too():
    balancer = Balancer(lambda: 0.0)
    assert balancer.plane_failed("no answer") == [Log("no answer", Severity.WARNING)]
    assert balancer.plane_failed("no answer") == []
    assert not balancer.plane_ready
    assert balancer.reconciled([], [], [], "") == [Log("the data plane answers again"), PlaneReady()]


def test_settings_are_wanted_when_they_change():
    balancer = Balancer(lambda: 0.0)
    sysctl = Sysctl("sloppy_tcp", (1,))
    balancer.configure(file(global_defs=GlobalDefs(lvs_timeouts=PlaneTimeouts(tcp_s=100), lvs_sysctls=(sysctl,))), 0.0)
    assert balancer.wanted_timeouts() is None, "the plane was made with them"
    assert balancer.wanted_sysctls() == (sysctl,)
    assert balancer.wanted_sysctls() is None
    balancer.configure(file(), 1.0)
    assert balancer.wanted_timeouts() == PlaneTimeouts(tcp_s=900)
    assert balancer.wanted_timeouts() is None
    assert balancer.wanted_sysctls() == ()


def test_synchronisation_follows_the_instance():
    instance = VrrpInstance(name="V", interface="eth0", virtual_router_id=51, addresses=(VirtualAddress(address="192.0.2.1"),))
    sync = GlobalDefs(lvs_sync_daemon=SyncDaemon(interface="eth1", instance="V"), lvs_sysctls=(Sysctl("sync_ports", (4,)),))
    balancer = Balancer(lambda: 0.0)
    assert balancer.sync_task() is None
    balancer.configure(file(global_defs=sync, vrrp_instances=(instance,)), 0.0)
    task = balancer.sync_task()
    assert (task.roles, task.sync_id, task.ports) == ({SyncRole.BACKUP}, 51, 4)
    assert balancer.set_masters(frozenset({"V"})) == [MatchTable()]
    assert balancer.set_masters(frozenset({"V"})) == []
    assert balancer.sync_task().roles == {SyncRole.MASTER}
    assert balancer.floating() == {"192.0.2.1"}
    both = GlobalDefs(lvs_sync_daemon=SyncDaemon(interface="eth1", sync_id=7))
    balancer.configure(file(global_defs=both), 1.0)
    assert (balancer.sync_task().roles, balancer.sync_task().sync_id) == (set(SyncRole), 7)


# -- what a declaration asks for ---------------------------------------------------------------------------------------


def test_each_failure_is_logged_where_the_file_says_so():
    lines = {}
    for wanted in (False, True):
        story = Story(service(server(1, tcp(1, retry=3, log_all_failures=wanted))))
        story.wait(2.0)
        story.dead.add(at(1))
        story.wait(20.0)
        lines[wanted] = [text for text in story.texts() if "on service" in text and "retries" not in text]
    failed = "TCP_CHECK on service [10.0.0.1]:tcp:80 failed (connection refused)"
    assert lines[False] == [f"{failed}: trying again."]
    assert lines[True][:3] == [f"{failed}, {number} in a row." for number in (1, 2, 3)]


@pytest.mark.parametrize(("wanted", "found"), [(True, ["[10.0.0.1]:tcp:80"]), (False, [])])
def test_servers_that_are_up_at_the_start_are_told_once_where_the_file_says_so(wanted, found):
    alpha = server(2, tcp(2, alpha=True))
    story = Story(service(server(1), alpha), global_defs=GlobalDefs(rs_init_notifies=wanted))
    assert [each.server for each in story.effects if isinstance(each, ServerFound)] == found
    reloaded = story.reload(service(server(1), alpha), global_defs=GlobalDefs(rs_init_notifies=wanted))
    assert not [each for each in reloaded if isinstance(each, ServerFound)]


# -- weights by checks ------------------------------------------------------------------------------------------------


def misc(number):
    timing = CheckTiming(delay_loop_s=5.0, retry=0, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)
    return MiscCheck(timing=timing, script=Script((f"/check-{number}",)), timeout_s=1.0, dynamic=True)


class Weighed:
    """One server of weight 10 with these checks; ``say`` gives a result of one of them."""

    def __init__(self, *checks, **changes):
        self.balancer, self.now = Balancer(lambda: 0.0), 0.0
        self.configuration = file(service(server(1, *checks, weight=10), **changes))
        self.balancer.configure(self.configuration, 0.0)

    def say(self, name, result):
        self.now += 100.0
        self.balancer.expire(self.now)
        return self.lines(self.balancer.finish_probe((NAME, at(1), name), result, self.now))

    def read(self, name, number):
        return self.lines(self.balancer.file_read(name, number, self.now))

    def lines(self, effects):
        return [effect.text for effect in effects if isinstance(effect, Log)]

    def weight(self):
        (desired,) = self.balancer.desired()
        return {entry.endpoint: entry.weight for entry in desired.servers}.get(at(1))


def instead(weight):
    return Result(weight=Weight(weight, instead=True))


def changing(before, after):
    return [f"Changing weight from {before} to {after} for active service [10.0.0.1]:tcp:80 of VS {NAME}"]


def test_a_dynamic_check_sets_the_weight_and_several_add_up():
    """keepalived.conf(5): each adds the difference between its weight and the declared one."""
    story = Weighed(misc(1), misc(2))
    assert story.say(("MISC_CHECK", 0), instead(13)) == changing(10, 13)
    assert story.say(("MISC_CHECK", 1), instead(20)) == changing(13, 23)
    assert story.say(("MISC_CHECK", 1), instead(20)) == []
    assert story.say(("MISC_CHECK", 0), Result()) == changing(23, 20)
    assert story.weight() == 20
    assert story.say(("MISC_CHECK", 1), instead(0)) == [*changing(20, 0), f"Lost quorum 1-0=1 > 0 for VS {NAME}"]


def test_a_check_that_fails_has_no_weight_any_more_and_says_nothing_of_it():
    story = Weighed(misc(1))
    story.say(("MISC_CHECK", 0), instead(30))
    assert story.say(("MISC_CHECK", 0), Result(Failure.SCRIPT, "exited with status 1")) == [
        "Misc check by [/check-1] to [10.0.0.1]:tcp:80 failed (script failed: exited with status 1).",
        f"Removing service [10.0.0.1]:tcp:80 from VS {NAME}",
        f"Lost quorum 1-0=1 > 0 for VS {NAME}",
    ]
    assert story.weight() is None
    assert story.say(("MISC_CHECK", 0), instead(7)) == [
        "Misc check by [/check-1] to [10.0.0.1]:tcp:80 success.",
        f"Adding service [10.0.0.1]:tcp:80 to VS {NAME}",
        f"Gained quorum 1+0=1 <= 7 for VS {NAME}",
    ]
    assert story.weight() == 7


def test_the_weight_is_bounded():
    story = Weighed(FileCheck(track_file="f", weight=1000), misc(1))
    story.read("f", 1000)
    assert story.weight() == 65_535
    story.read("f", -1000)
    assert story.weight() == 0


@pytest.mark.parametrize(
    ("check", "number", "weight"),
    [
        (FileCheck(track_file="f"), 5, 15),
        (FileCheck(track_file="f"), -3, 7),
        (FileCheck(track_file="f", weight=2), 5, 20),
        (FileCheck(track_file="f", weight=2, reverse=True), 5, 0),
        (FileCheck(track_file="f", weight=0), 0, 10),
        (FileCheck(track_file="f", weight=0), 1, None),
        (FileCheck(track_file="f", weight=0, reverse=True), 0, None),
        (FileCheck(track_file="f", weight=0, reverse=True), 1, 10),
        (FileCheck(track_file="f"), -(2**31), None),
        (FileCheck(track_file="f", weight=2), -(2**30), None),
        (FileCheck(track_file="f"), None, 10),
        (FileCheck(track_file="other"), 5, 10),
    ],
)
def test_a_number_in_a_file(check, number, weight):
    story = Weighed(check)
    assert story.weight() == 10
    story.read("f", number)
    assert story.weight() == weight
    runner = story.balancer.checks.runners[NAME, at(1), ("FILE_CHECK", 0)]
    assert (runner.machine.last is not None and runner.machine.last.failure is Failure.FILE) is (weight is None)
    story.read("f", 0)
    assert story.weight() == (None if check.weight == 0 and check.reverse else 10)


def test_a_check_of_a_file_that_a_reload_adds_knows_its_number_and_one_that_stays_keeps_it():
    story = Weighed(tcp(1))
    story.read("f", 5)
    story.balancer.configure(file(service(server(1, tcp(1), FileCheck(track_file="f"), weight=10))), 1.0)
    assert story.weight() == 15
    story.balancer.configure(file(service(server(1, tcp(1), FileCheck(track_file="f"), weight=20))), 2.0)
    assert story.weight() == 25
    story.balancer.configure(file(service(server(1, tcp(1), weight=20))), 3.0)
    assert story.weight() == 20
    story.read("f", 9)
    assert story.weight() == 20


def test_the_live_weight_counts_what_checks_make_of_it():
    story = Weighed(misc(1), quorum=15)
    assert story.balancer.pools[NAME].state is State.DOWN
    lines = story.say(("MISC_CHECK", 0), instead(15))
    assert lines == [*changing(10, 15), f"Gained quorum 15+0=15 <= 15 for VS {NAME}"]
    assert story.say(("MISC_CHECK", 0), instead(14))[1:] == [f"Lost quorum 15-0=15 > 14 for VS {NAME}"]


# -- equal checks -----------------------------------------------------------------------------------------------------


def elsewhere(port, *servers, **changes):
    return service(*servers, endpoint=Endpoint("192.0.2.1", port), **changes)


def probes(balancer, now):
    return [effect.key[0] for effect in balancer.expire(now) if isinstance(effect, StartProbe)]


def test_a_server_in_a_hundred_services_is_asked_once_and_all_of_them_know():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(*(elsewhere(port, server(1), server(2)) for port in range(1, 101))), 0.0)
    started = [effect for effect in balancer.expire(1.0) if isinstance(effect, StartProbe)]
    assert [effect.key[1] for effect in started] == [at(1), at(2)]
    assert balancer.expire(1.0) == []
    balancer.finish_probe(started[0].key, Result(Failure.REFUSED), 1.5)
    balancer.finish_probe(started[1].key, Result(), 1.5)
    up = [{entry.endpoint for entry in desired.servers} for desired in balancer.desired()]
    assert up == [{at(2)}] * 100
    assert [len(probes(balancer, now)) for now in (2.0, 6.4, 6.5)] == [0, 0, 2]


def test_another_check_of_the_same_server_is_asked_by_itself():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(
        file(elsewhere(1, server(1)), elsewhere(2, server(1, tcp(1, retry=3))), elsewhere(3, server(1, http(1)))), 0.0
    )
    assert len(probes(balancer, 1.0)) == 3


def test_when_the_service_that_asks_is_removed_another_one_goes_on():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(elsewhere(1, server(1)), elsewhere(2, server(1))), 0.0)
    (first,) = [effect for effect in balancer.expire(1.0) if isinstance(effect, StartProbe)]
    balancer.finish_probe(first.key, Result(), 1.0)
    balancer.configure(file(elsewhere(2, server(1))), 2.0)
    assert probes(balancer, 5.9) == []
    assert probes(balancer, 6.0) == ["[192.0.2.1]:tcp:2"]
    balancer.configure(file(elsewhere(1, server(1)), elsewhere(2, server(1))), 6.1)  # while it runs
    assert probes(balancer, 7.1) == []
    balancer.finish_probe(("[192.0.2.1]:tcp:2", at(1), ("TCP_CHECK", 0)), Result(), 7.2)
    assert probes(balancer, 12.2) == ["[192.0.2.1]:tcp:2"]


def test_a_new_service_begins_with_what_is_known_of_its_server():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(elsewhere(1, server(1))), 0.0)
    (first,) = [effect for effect in balancer.expire(1.0) if isinstance(effect, StartProbe)]
    balancer.finish_probe(first.key, Result(Failure.REFUSED), 1.0)
    balancer.configure(file(elsewhere(1, server(1)), elsewhere(2, server(1))), 2.0)
    assert [desired.servers for desired in balancer.desired()] == [(), ()]


def test_a_check_that_is_edited_in_one_service_is_its_own_from_then_on_and_may_become_equal_again():
    balancer = Balancer(lambda: 0.0)
    both = file(elsewhere(1, server(1)), elsewhere(2, server(1)))
    balancer.configure(both, 0.0)
    (first,) = [effect for effect in balancer.expire(1.0) if isinstance(effect, StartProbe)]
    balancer.finish_probe(first.key, Result(), 1.0)
    balancer.configure(file(elsewhere(1, server(1)), elsewhere(2, server(1, tcp(1, delay_loop_s=7.0)))), 2.0)
    assert probes(balancer, 3.0) == ["[192.0.2.1]:tcp:2"]  # an edited check is asked soon
    balancer.finish_probe(("[192.0.2.1]:tcp:2", at(1), ("TCP_CHECK", 0)), Result(), 3.0)
    assert probes(balancer, 6.0) == ["[192.0.2.1]:tcp:1"]
    balancer.finish_probe(("[192.0.2.1]:tcp:1", at(1), ("TCP_CHECK", 0)), Result(), 6.0)
    balancer.configure(both, 7.0)
    assert len(probes(balancer, 100.0)) == 1


# -- ha_suspend -------------------------------------------------------------------------------------------------------


def floating(*services):
    vip = VirtualAddress(address="192.0.2.1")
    instance = VrrpInstance(name="V", interface="eth0", virtual_router_id=1, addresses=(vip,))
    return file(*services, vrrp_instances=(instance,))


def test_a_service_that_suspends_is_checked_only_while_its_address_is_here():
    balancer = Balancer(lambda: 0.0)
    balancer.set_local(frozenset(), 0.0)
    both = floating(elsewhere(1, server(1), ha_suspend=True), elsewhere(2, server(2)))
    lines = [effect.text for effect in balancer.configure(both, 0.0) if isinstance(effect, Log)]
    assert lines == ["Suspending healthcheckers for VS [192.0.2.1]:tcp:1: its address is on another node"]
    assert probes(balancer, 1.0) == ["[192.0.2.1]:tcp:2"]
    (line,) = balancer.set_local(frozenset({"192.0.2.1"}), 2.0)
    assert line == Log("Activating healthcheckers for VS [192.0.2.1]:tcp:1")
    assert probes(balancer, 3.0) == ["[192.0.2.1]:tcp:1"]
    balancer.set_local(frozenset(), 3.1)
    balancer.finish_probe(("[192.0.2.1]:tcp:1", at(1), ("TCP_CHECK", 0)), Result(Failure.REFUSED), 3.2)
    assert "[192.0.2.1]:tcp:1" not in probes(balancer, 100.0)


def test_a_suspended_check_does_not_ask_for_others():
    balancer = Balancer(lambda: 0.0)
    balancer.set_local(frozenset(), 0.0)
    balancer.configure(floating(elsewhere(1, server(1), ha_suspend=True), elsewhere(2, server(1))), 0.0)
    assert probes(balancer, 1.0) == ["[192.0.2.1]:tcp:2"]


def test_without_vrrp_and_for_addresses_of_no_instance_nothing_is_suspended():
    for local, configuration in ((None, file), (frozenset(), file), (None, floating)):
        balancer = Balancer(lambda: 0.0)
        balancer.set_local(local, 0.0)
        balancer.configure(configuration(elsewhere(1, server(1), ha_suspend=True)), 0.0)
        assert probes(balancer, 1.0) == ["[192.0.2.1]:tcp:1"]


def test_a_sorry_server_may_be_reached_in_a_way_of_its_own():
    declared = service(server(1), sorry_server=at(9), sorry_forwarding=Forwarding.TUN, sorry_tunnel=Tunnel(TunnelKind.GRE))
    story = Story(declared, dead=[at(1)]).wait(8.0)
    (entry,) = [s.server for state in story.host.table.values() for s in state.servers]
    assert (entry.endpoint, entry.forwarding, entry.tunnel) == (at(9), Forwarding.TUN, Tunnel(TunnelKind.GRE))


# -- what an administrator says ---------------------------------------------------------------------------------------


def order(mode, weight=0, number=1):
    return ServerOrder(NAME, f"10.0.0.{number}:80", mode, weight)


def weights(balancer):
    (desired,) = balancer.desired()
    return {entry.endpoint: entry.weight for entry in desired.servers}


def said(balancer, *orders):
    return [effect.text for effect in balancer.set_orders(orders, 1.0) if isinstance(effect, Log)]


def test_an_order_overrides_checks_and_file_until_the_server_is_ready():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1, weight=5), server(2))), 0.0)
    assert said(balancer, order(ServerMode.DRAIN)) == changing(5, 0)
    assert weights(balancer) == {at(1): 0, at(2): 1}
    assert said(balancer, order(ServerMode.DRAIN)) == []
    assert said(balancer, order(ServerMode.WEIGHT, 9)) == changing(0, 9)
    assert said(balancer, order(ServerMode.MAINT)) == [f"Removing service [10.0.0.1]:tcp:80 from VS {NAME} (maint)"]
    assert weights(balancer) == {at(2): 1}
    assert said(balancer) == [f"Adding service [10.0.0.1]:tcp:80 to VS {NAME} (ready)"]
    assert weights(balancer) == {at(1): 5, at(2): 1}


def test_a_server_in_maintenance_is_still_checked_and_returns_with_what_was_found():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1), server(2))), 0.0)
    balancer.set_orders([order(ServerMode.MAINT)], 0.0)
    list(balancer.expire(1.0))
    (line, *_) = balancer.finish_probe((NAME, at(1), ("TCP_CHECK", 0)), Result(Failure.REFUSED), 1.0)
    assert line.text == "TCP connection to [10.0.0.1]:tcp:80 failed (connection refused)."
    assert said(balancer) == []
    assert weights(balancer) == {at(2): 1}


def test_an_order_stays_over_reloads_and_a_new_balancer_begins_with_it():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1), server(2))), 0.0)
    balancer.set_orders([order(ServerMode.DRAIN)], 0.0)
    balancer.configure(file(service(server(1, weight=7), server(2), quorum=1)), 1.0)
    assert weights(balancer) == {at(1): 0, at(2): 1}
    again = Balancer(lambda: 0.0)
    again.orders = (order(ServerMode.DRAIN), order(ServerMode.MAINT, number=9))
    again.configure(file(service(server(1), server(2))), 0.0)
    assert weights(again) == {at(1): 0, at(2): 1}


def test_a_new_check_of_a_server_in_maintenance_begins_with_the_verdict_of_the_others():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1), server(2))), 0.0)
    balancer.set_orders([order(ServerMode.MAINT)], 0.0)
    balancer.configure(file(service(server(1, tcp(1), http(1)), server(2))), 1.0)
    assert said(balancer) == [f"Adding service [10.0.0.1]:tcp:80 to VS {NAME} (ready)"]


def test_the_last_server_drains_beside_the_sorry_server():
    balancer = Balancer(lambda: 0.0)
    balancer.configure(file(service(server(1), sorry_server=at(9))), 0.0)
    balancer.set_orders([order(ServerMode.DRAIN)], 0.0)
    assert weights(balancer) == {at(1): 0, at(9): 1}


def test_the_lateness_of_checks_is_that_of_all_but_the_latest_hundredth():
    balancer = Balancer(lambda: 0.0)
    assert balancer.checks.lateness_s == 0.0
    balancer.configure(file(*(elsewhere(port, server(port)) for port in range(1, 200))), 0.0)
    list(balancer.expire(1.25))
    assert balancer.checks.lateness_s == pytest.approx(0.25)
