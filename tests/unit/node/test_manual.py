"""Manual changes of a table: services that a reload keeps, and counters since they were zeroed."""

from relevo.model import Endpoint, PlaneTimeouts, Protocol, ServiceKey
from relevo.model.table import (
    AddService,
    DeleteServer,
    DeleteService,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
    Traffic,
)
from relevo.node.manual import ManualChanges

KEY = ServiceKey(Protocol.TCP, Endpoint("192.0.2.1", 80))
OTHER = ServiceKey(Protocol.TCP, Endpoint("192.0.2.2", 80))
AT = Endpoint("10.0.0.1", 80)


def table(connections, size, key=KEY):
    traffic = Traffic(connections=connections, bytes_in=size)
    return [
        ServiceState(
            service=ServiceEntry(key=key),
            servers=(ServerState(server=ServerEntry(endpoint=AT), traffic=traffic),),
            traffic=traffic,
        )
    ]


def seen(states):
    return [(state.traffic.connections, state.servers[0].traffic.bytes_in) for state in states]


def test_services_by_hand_are_known_until_they_are_deleted():
    hand = ManualChanges()
    hand.note(AddService(ServiceEntry(key=KEY)), "")
    hand.note(AddService(ServiceEntry(key=OTHER)), "service already exists")
    assert hand.services == {KEY}
    hand.note(DeleteService(KEY), "")
    assert hand.services == set()


def test_counters_begin_at_0_where_they_were_zeroed():
    hand = ManualChanges()
    hand.zero(table(5, 1000), KEY)
    assert seen(hand.since_zero(table(7, 1500))) == [(2, 500)]
    assert seen(hand.since_zero(table(7, 1500, OTHER))) == [(7, 1500)]
    hand.zero(table(9, 2000, OTHER), None)
    assert seen(hand.since_zero(table(9, 2001, OTHER))) == [(0, 1)]


def test_a_server_that_left_counts_from_0_and_never_below():
    hand = ManualChanges()
    hand.zero(table(5, 1000), None)
    assert seen(hand.since_zero(table(6, 10))) == [(1, 0)]
    hand.forget(DeleteServer(KEY, AT))
    assert seen(hand.since_zero(table(6, 10))) == [(1, 10)]
    hand.forget(DeleteService(KEY))
    assert seen(hand.since_zero(table(6, 10))) == [(6, 10)]


def test_time_outs_that_are_no_longer_declared_get_the_defaults_of_ipvs():
    assert PlaneTimeouts(0, 60, 0).in_place_of(PlaneTimeouts(7200, 0, 0)) == PlaneTimeouts(900, 60, 0)
