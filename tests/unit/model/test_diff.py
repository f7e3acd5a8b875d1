"""The difference of two configurations."""

from relevo.model import (
    Configuration,
    Endpoint,
    GlobalDefs,
    HttpCheck,
    Protocol,
    RealServer,
    TcpCheck,
    VirtualServer,
    VrrpInstance,
)
from relevo.model.checks import CheckTiming
from relevo.model.diff import Added, Changed, Removed, check_names, difference, server_changes

TIMING = CheckTiming(delay_loop_s=1.0, retry=1, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)


def instance(name, **changes):
    return VrrpInstance(name=name, interface="eth0", virtual_router_id=51, **changes)


def test_equal_configurations_do_not_differ():
    one = Configuration(vrrp_instances=(instance("A"),))
    assert not difference(one, Configuration(vrrp_instances=(instance("A"),)))


def test_instances_are_added_removed_and_changed_by_name():
    before = Configuration(vrrp_instances=(instance("A"), instance("B"), instance("C")))
    after = Configuration(vrrp_instances=(instance("D"), instance("C"), instance("B", priority=9, preempt=False)))
    found = difference(before, after)
    assert found
    assert found.instances.added == (Added("D", instance("D")),)
    assert found.instances.removed == (Removed("A", instance("A")),)
    fields = frozenset({"priority", "preempt"})
    assert found.instances.changed == (Changed("B", instance("B"), instance("B", priority=9, preempt=False), fields),)


def test_global_settings_are_named():
    assert difference(Configuration(), Configuration(global_defs=GlobalDefs(router_id="x"))).global_defs == {"router_id"}


def test_servers_are_the_same_by_their_endpoint():
    def service(*servers):
        return VirtualServer(endpoint=Endpoint("192.0.2.1", 80), protocol=Protocol.TCP, real_servers=servers)

    one, two = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)
    found = server_changes(
        service(RealServer(endpoint=one)), service(RealServer(endpoint=two), RealServer(endpoint=one, weight=3))
    )
    assert [each.name for each in found.added] == [two]
    assert [each.fields for each in found.changed] == [{"weight"}]


def test_checks_are_named_by_kind_and_order_so_that_settings_may_change():
    at = Endpoint("10.0.0.1", 80)
    tcp = TcpCheck(timing=TIMING, connect=at, connect_timeout_s=1.0)
    web = HttpCheck(timing=TIMING, connect=at, connect_timeout_s=1.0, urls=(), tls=True)
    named = check_names(RealServer(endpoint=at, checks=(tcp, web, tcp)))
    assert named == [(("TCP_CHECK", 0), tcp), (("SSL_GET", 0), web), (("TCP_CHECK", 1), tcp)]
